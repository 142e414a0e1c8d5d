"""An open file that others may be writing to, or cutting."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from asyncbatch.streams.chunks import CHUNK
from asyncbatch.streams.trace import Trace

if TYPE_CHECKING:
    from asyncbatch.streams.trace import Mark

_AHEAD = 8 * CHUNK
_BLOCK = 4096


class FileCutError(Exception):
    """The file no longer holds what was read of it: it was cut, and perhaps has grown again.

    `unread` bytes, at least, had not been read.
    """

    def __init__(self, unread: int) -> None:
        super().__init__(unread)
        self.unread = unread


class LiveFile:
    """Gives what a file holds, and later what it has got more; `trace` is up to the caller.

    It takes over the descriptor. A file that `was_cut` may begin with a hole, where its writer
    went on as if nothing had happened: that is passed over.
    """

    def __init__(self, descriptor: int, *, was_cut: bool = False) -> None:
        self.descriptor = descriptor
        self.trace = Trace(os.fstat(descriptor).st_ino)
        self._was_cut = was_cut
        self._seen: tuple[int, int] | None = None
        """Size and time of the last look after which there was nothing more to read."""
        self._known: tuple[int, int] | None = None
        self._largest = 0

    @property
    def inode(self) -> int:
        """What tells it from all other files, as long as it is open."""
        return self.trace.inode

    def seek(self, mark: Mark) -> bool:
        """Go on at a mark; tell if the bytes before it are the same."""
        return self.trace.found(mark, self._at)

    def seek_last_line(self) -> None:
        """Go on behind the last line that has an end."""
        end = os.fstat(self.descriptor).st_size
        while end:
            start = max(0, end - _BLOCK)
            cut = self._at(start, end - start).rfind(b"\n")
            end = start if cut < 0 else start + cut + 1
            if cut >= 0:
                break
        self._jump(end)

    def more(self) -> bytes:
        """Return what comes next, b"" if there is nothing. Raises FileCutError, OSError."""
        status = os.fstat(self.descriptor)
        look = (status.st_size, status.st_mtime_ns)
        if look == self._seen:
            return b""
        if self._was_cut and not self.trace.offset:
            self._pass_hole()
        offset, tail = self.trace.offset, self.trace.tail
        # What was read is read again with what is new: so nobody can cut the file in between.
        data = self._at(offset - len(tail), len(tail) + _AHEAD)
        if status.st_size < offset or not data.startswith(tail):
            raise FileCutError(max(0, self._largest - offset))
        self._largest = max(self._largest, status.st_size)
        fresh = data[len(tail) :]
        self._seen = None if fresh else look
        return fresh

    def has_changed(self) -> bool:
        """Whether it is another than when it was last looked at, or asked this."""
        status = os.fstat(self.descriptor)
        known, self._known = self._known, (status.st_size, status.st_mtime_ns)
        return self._known not in (known, self._seen)

    def size(self) -> int:
        """Return how large it is now."""
        return os.fstat(self.descriptor).st_size

    def modified(self) -> int:
        """Return when it was last written to, in nanoseconds."""
        return os.fstat(self.descriptor).st_mtime_ns

    def again(self) -> LiveFile:
        """Return the same file, to be read from its beginning."""
        return LiveFile(os.dup(self.descriptor), was_cut=True)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def _pass_hole(self) -> None:
        try:
            start = os.lseek(self.descriptor, 0, os.SEEK_DATA)
        except OSError as error:  # all of it is a hole, or nobody can tell
            start = self.size() if error.errno == errno.ENXIO else 0
        while (block := self._at(start, _AHEAD)) and not block.strip(b"\0"):
            start += len(block)
        self._jump(start + len(block) - len(block.lstrip(b"\0")))

    def _jump(self, offset: int) -> None:
        self.trace.jump(offset, self._at)

    def _at(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset)
