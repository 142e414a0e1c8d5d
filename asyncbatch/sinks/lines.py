"""JSON Lines: one file, complete or not there, or standard output."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import TYPE_CHECKING

from asyncbatch.codec.compression import named
from asyncbatch.entries import Extent
from asyncbatch.errors import SinkError
from asyncbatch.sinks.single import FileSink, read_extent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.entries import Entry
    from asyncbatch.sinks import Refusal

_CHUNK = 1024 * 1024


class LinesSink(FileSink):
    """Writes lines as the workers have made them, compressed if the file's name says so."""

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        super().__init__(path, stores)
        self._compression = named(path)

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        self.file.open()

    def load(
        self,
        payload: bytes | bytearray,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - none is refused
    ) -> Sequence[Refusal]:
        """Write lines. Raises SinkError."""
        self.file.write(payload)
        return ()

    def keep(self, path: str, extent: Extent) -> Extent:
        """See `FileSink`; where pieces are compressed, those of the extent's rows are made anew."""
        if self._compression is None:
            return super().keep(path, extent)
        start = self.position
        raw = BytesIO(b"".join(read_extent(path, extent)))
        at, end = 0, extent.skip + extent.take
        for chunk in self._compression.chunks(raw, _CHUNK):
            wanted = chunk[max(0, extent.skip - at) : max(0, end - at)]
            at += len(chunk)
            if wanted:
                self.file.write(self._compression.compress(wanted))
        return Extent(start, self.position - start, 0, extent.take)


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

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: see the class."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - see the class
        """Do nothing more."""
        return True
