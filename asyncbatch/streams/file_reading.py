"""One file, plain or compressed, read piece by piece to its end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asyncbatch.codec.compression import CorruptArchiveError, check_not_cut, detect
from asyncbatch.streams.chunks import CHUNK
from asyncbatch.streams.trace import Trace

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
        self._file, self._name = descriptor, name
        self._ahead = memoryview(b"")
        head = os.pread(descriptor, _MAGIC, os.lseek(descriptor, 0, os.SEEK_CUR))
        check_not_cut(head, name)
        self._compression = detect(head)
        self._chunks = self._unpacked()

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
                data = self._read_ahead()
                if not data:
                    return False
                here = mark.offset - trace.offset
                trace.take(data[:here])
                self._ahead = memoryview(data)[here:]
        except CorruptArchiveError:
            return False
        return (trace.mark().head, trace.mark().tail) == (mark.head, mark.tail)

    async def read(self) -> bytes:
        """Return what comes next, b"" at the end. Raises OSError, CorruptArchiveError."""
        if not self._ahead:
            self._ahead = memoryview(await asyncio.to_thread(self._read_ahead))
        data, self._ahead = bytes(self._ahead[:CHUNK]), self._ahead[CHUNK:]
        self.trace.take(data)
        return data

    def _read_ahead(self) -> bytes:
        if self._chunks is None:
            return os.read(self._file, _AHEAD)
        return next(self._chunks, b"")

    def _unpacked(self) -> Iterator[bytes] | None:
        if self._compression is None:
            return None
        stream = os.fdopen(self._file, "rb", closefd=False)
        return self._compression.chunks(stream, _AHEAD)
