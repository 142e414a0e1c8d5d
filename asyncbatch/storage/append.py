"""A file that a stream appends to, and that a resumed stream truncates."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.storage.atomic import PRIVATE_MODE, PUBLIC_MODE, write_reason

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TAIL_BYTES = 4096  # bytes at the end of the file that identify it


class AppendPosition(Struct, frozen=True):
    """The end of an append file at a checkpoint: its size, and a digest of its tail."""

    size: int
    tail: str


class AppendFile:
    """A file that is only appended to, and truncated to an earlier position on resume.

    Call `open` first. Writes are unbuffered: another process may follow the file. `is_private`: the
    file can be read by its owner only, because it holds data of others.
    """

    def __init__(self, path: str, *, is_private: bool = False) -> None:
        self.path = path
        self._mode = PRIVATE_MODE if is_private else PUBLIC_MODE
        self._descriptor = -1

    def open(self, position: AppendPosition | None = None) -> None:
        """Create an empty file, or truncate it to `position`. Raises UsageError."""
        flags = (os.O_CREAT | os.O_TRUNC if position is None else 0) | os.O_CLOEXEC
        # O_APPEND: if another process truncates the file (logrotate's copytruncate), writes go on
        # at its new end. At our own position, they would leave a hole of NUL bytes before them.
        flags |= os.O_WRONLY if self._is_special() else os.O_RDWR | os.O_APPEND
        try:
            self._descriptor = os.open(self.path, flags, self._mode)
            if position is not None:
                self._truncate(position)
            elif self._mode == PRIVATE_MODE and not self._is_special():
                with suppress(PermissionError):  # the file of another user, who chose its mode
                    os.fchmod(self._descriptor, PRIVATE_MODE)
        except OSError as error:
            reason = write_reason(self.path, error)
            raise UsageError(f"cannot write {self.path}: {reason}") from None

    def check_regular(self) -> None:
        """Raise UsageError for a pipe or a device, which cannot be truncated."""
        if self._is_special():
            raise UsageError(
                f"{self.path} is not a regular file: it cannot be truncated to a checkpoint"
            )

    def write(self, lines: bytes) -> None:
        """Write lines. Raises SinkError."""
        self._translate_errors(lambda: self._write(lines))

    def position(self) -> AppendPosition:
        """Sync the file to the disk and return its end. Raises SinkError."""
        return self._translate_errors(self._current_position)

    def sync(self) -> None:
        """Sync a regular file to the disk. Raises SinkError."""
        if not self._is_special():
            self._translate_errors(lambda: os.fsync(self._descriptor))

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_special(self) -> bool:
        return os.path.exists(self.path) and not os.path.isfile(self.path)

    def _write(self, lines: bytes) -> None:
        left = memoryview(lines)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def _current_position(self) -> AppendPosition:
        os.fsync(self._descriptor)
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        return AppendPosition(size, _tail_digest(self._descriptor, size))

    def _truncate(self, position: AppendPosition) -> None:
        size = os.fstat(self._descriptor).st_size
        if size < position.size or _tail_digest(self._descriptor, position.size) != position.tail:
            raise UsageError(
                f"{self.path} has changed since the checkpoint and cannot be truncated to it: "
                "restore the file, or remove the checkpoint to start over"
            )
        os.ftruncate(self._descriptor, position.size)

    def _translate_errors(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}", self.path) from None


def _tail_digest(descriptor: int, size: int) -> str:
    """Return a digest of the last bytes before `size`."""
    length = min(size, _TAIL_BYTES)
    return hashlib.blake2b(os.pread(descriptor, length, size - length), digest_size=16).hexdigest()
