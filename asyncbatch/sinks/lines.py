"""JSON Lines: one file, complete or not there, or standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from asyncbatch.errors import SinkError
from asyncbatch.sinks.atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.sinks import Refusal


class LinesSink:
    """Writes lines as the workers have made them, compressed if the file's name says so."""

    def __init__(self, path: str) -> None:
        self._file = AtomicFile(path)

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        self._file.open()

    def load(
        self,
        payload: bytes | bytearray,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - none is refused
    ) -> Sequence[Refusal]:
        """Write lines. Raises SinkError."""
        self._file.write(payload)
        return ()

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - a file ends as it is
        """Put the file in place if all input was taken. Raises SinkError."""
        if ended:
            self._file.commit()
        else:
            self._file.discard()
        return ended


class StdoutSink:
    """Writes lines to standard output; what was written stands."""

    def __init__(self) -> None:
        # Not `sys.stdout`, which may be what user functions print to.
        self._stream = (sys.__stdout__ or sys.stdout).buffer

    def open(self) -> None:
        """Do nothing: it is open."""

    def load(
        self,
        payload: bytes | bytearray,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - none is refused
    ) -> Sequence[Refusal]:
        """Write lines. Raises BrokenPipeError if the reader has gone; SinkError."""
        try:
            self._stream.write(payload)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SinkError(f"cannot write to standard output: {error.strerror}") from None
        return ()

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - see the class
        """Do nothing more."""
        return True
