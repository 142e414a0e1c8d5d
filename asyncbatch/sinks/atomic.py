"""A file that appears whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO

from asyncbatch.errors import SinkError, UsageError


class AtomicFile:
    """Written beside its target and renamed over it when complete; a device just gets it.

    `stream` is there between `open` and `commit` or `discard`.
    """

    stream: IO[bytes]

    def __init__(self, path: str) -> None:
        self.path = path
        special = os.path.exists(path) and not os.path.isfile(path)
        self._final = os.path.realpath(path)  # what a link leads to, not the link, is replaced
        self.written = path if special else f"{self._final}.{os.getpid()}.tmp"
        """The path that is written to."""

    def open(self) -> None:
        """Begin. Raises UsageError if the file cannot be written."""
        if os.path.isdir(self.path):
            raise UsageError(f"cannot write {self.path}: it is a folder")
        try:
            self.stream = open(self.written, "wb")  # noqa: SIM115 - closed at the end of the run
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror}") from None

    def write(self, data: bytes | bytearray) -> None:
        """Write through to the system. Raises SinkError."""
        try:
            self.stream.write(data)
            self.stream.flush()
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}", self.path) from None

    def commit(self) -> None:
        """Put the file in its place. Raises SinkError."""
        try:
            self.stream.flush()
            if self.written != self.path:
                os.fsync(self.stream.fileno())
            self.stream.close()
            if self.written != self.path:
                os.replace(self.written, self._final)
        except OSError as error:
            self.discard()
            raise SinkError(f"cannot write {self.path}: {error.strerror}", self.path) from None

    def discard(self) -> None:
        """Leave the target as it was."""
        with suppress(OSError):  # what could not be written cannot be flushed either
            self.stream.close()
        if self.written != self.path:
            with suppress(FileNotFoundError):
                os.unlink(self.written)
