"""One file, plain or compressed, read piece by piece to its end."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

from asyncbatch.codec.compression import CorruptArchiveError, check_not_cut, detect
from asyncbatch.streams.chunks import CHUNK
from asyncbatch.streams.trace import Trace, digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.streams.trace import Mark

_AHEAD = 8 * CHUNK
"""What is read of a file at a time, in a thread."""
_MAGIC = 16
"""Of a file's first bytes, enough to tell how it is compressed."""


class FileReading:
    """Gives what an open file holds, decompressed; `trace` tells how far that has come.

    Raises OSError, and CorruptArchiveError for a file that is cut within its first bytes.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.trace = Trace(os.fstat(descriptor).st_ino)
        self._file = descriptor
        self._ahead = memoryview(b"")
        self._lock, self._is_closed = threading.Lock(), False
        head = os.pread(descriptor, _MAGIC, os.lseek(descriptor, 0, os.SEEK_CUR))
        check_not_cut(head, name)
        self._compression = detect(head)
        self._chunks = self._unpacked()

    @property
    def inode(self) -> int:
        """What tells it from all other files, as long as it is open."""
        return self.trace.inode

    def seek(self, mark: Mark) -> bool:
        """Go on at `mark`, before anything is read; tell if the bytes before it are the same.

        If not, nothing can be read any more. A compressed file is read up to there. Raises
        OSError.
        """
        if self._chunks is None:
            if not self.trace.found(mark, lambda at, size: os.pread(self._file, size, at)):
                return False
            os.lseek(self._file, mark.offset, os.SEEK_SET)
            return True
        trace = self.trace
        try:
            while trace.offset < mark.offset:
                data = self.more()
                if not data:
                    return False
                here = mark.offset - trace.offset
                trace.take(data[:here])
                self._ahead = memoryview(data)[here:]
        except CorruptArchiveError:
            return False
        return (trace.mark().head, trace.mark().tail) == (mark.head, mark.tail)

    @property
    def has_more(self) -> bool:
        """Whether something was read that was not given yet: then `next` is quick."""
        return bool(self._ahead)

    def next(self) -> bytes:
        """Return what comes next, b"" at the end. Raises OSError, CorruptArchiveError."""
        if not self._ahead:
            self._ahead = memoryview(self.more())
        data, self._ahead = bytes(self._ahead[:CHUNK]), self._ahead[CHUNK:]
        self.trace.take(data)
        return data

    async def read(self) -> bytes:
        """Return what comes next, as `next`, without keeping the event loop waiting."""
        return self.next() if self._ahead else await asyncio.to_thread(self.next)

    def more(self) -> bytes:
        """Return what comes next, much at a time; `trace` is then up to the caller."""
        if self._ahead:  # left over from `seek`
            data, self._ahead = bytes(self._ahead), memoryview(b"")
            return data
        with self._lock:
            if self._is_closed:
                return b""
            if self._chunks is None:
                return os.read(self._file, _AHEAD)
            return next(self._chunks, b"")

    @property
    def is_compressed(self) -> bool:
        """Whether what it gives is not what is on the disk."""
        return self._compression is not None

    def head(self, size: int) -> str:
        """Return a digest of its first bytes, as on disk."""
        return digest(os.pread(self._file, size, 0))

    def has_changed(self) -> bool:
        """Never: nobody writes to a compressed file any more."""
        return False

    def size(self) -> int:
        """Return how large it is, as on disk."""
        return os.fstat(self._file).st_size

    def modified(self) -> int:
        """Return when it was last written to, in nanoseconds."""
        return os.fstat(self._file).st_mtime_ns

    def close(self) -> None:
        """Close it, once nobody reads it."""
        with self._lock:
            self._is_closed = True
            os.close(self._file)

    def _unpacked(self) -> Iterator[bytes] | None:
        if self._compression is None:
            return None
        stream = os.fdopen(self._file, "rb", closefd=False)
        return self._compression.chunks(stream, _AHEAD)
