"""A file of lines that grows while a stream goes on."""

from __future__ import annotations

from typing import IO

from asyncbatch.errors import SinkError, UsageError


class SideFile:
    """Begun anew, and written through at once: somebody may be following it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._stream: IO[bytes] | None = None

    def open(self) -> None:
        """Begin. Raises UsageError if the file cannot be written."""
        try:
            self._stream = open(self.path, "wb", buffering=0)  # noqa: SIM115 - closed at the end
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror}") from None

    def write(self, lines: bytes) -> None:
        """Write lines. Raises SinkError."""
        assert self._stream is not None
        try:
            while lines:
                lines = lines[self._stream.write(lines) :]
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}", self.path) from None

    def close(self) -> None:
        """End."""
        if self._stream is not None:
            self._stream.close()
