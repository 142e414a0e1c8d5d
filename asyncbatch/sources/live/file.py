"""Read a growing file from a stored position."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from asyncbatch.errors import UsageError
from asyncbatch.formats.compression import (
    CorruptArchiveError,
    check_magic_complete,
    detect_compression,
)
from asyncbatch.sources.base import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPAN = 4096
"""Bytes at the beginning, and before the place that was reached, that must be the same."""


class FileMark(Struct, frozen=True, omit_defaults=True):
    """A place in a file: so many bytes from its beginning, decompressed.

    `head` and `tail` are digests of the first bytes and of those before the place. `inode` is
    where to look first: only what the bytes are decides.
    """

    offset: int
    head: str
    tail: str
    inode: int = 0


class FilePosition:
    """What was read of a file, as far as it tells the file from others."""

    def __init__(self, inode: int = 0) -> None:
        self.offset, self.tail, self.inode = 0, b"", inode
        self._head, self._head_digest = b"", ""

    def advance(self, data: bytes) -> None:
        """Take note of the bytes that come next."""
        self.offset += len(data)
        if not self._head_digest:
            self._head += data[: SPAN - len(self._head)]
            if len(self._head) == SPAN:
                self._head_digest = digest(self._head)
        self.tail = data[-SPAN:] if len(data) >= SPAN else (self.tail + data)[-SPAN:]

    def mark(self) -> FileMark:
        """Return the place that was reached."""
        head = self._head_digest or digest(self._head)
        return FileMark(self.offset, head, digest(self.tail), self.inode)

    def set_mark(self, mark: FileMark, read_at: Callable[[int, int], bytes]) -> bool:
        """Go to `mark`, if the file has the same bytes before it; tell whether it has.

        `read_at` returns so many bytes of the file from an offset on, fewer only at its end.
        """
        other = FilePosition(mark.inode)
        other.jump(mark.offset, read_at)
        if len(other.tail) < min(SPAN, mark.offset) or other.mark() != mark:
            return False
        self.offset, self.tail = other.offset, other.tail
        self._head, self._head_digest = other._head, other._head_digest
        return True

    def jump(self, offset: int, read_at: Callable[[int, int], bytes]) -> None:
        """Go to an offset, whatever is before it."""
        length = min(SPAN, offset)
        self._head, self._head_digest = b"", ""
        self.offset, self.tail = 0, b""
        self.advance(read_at(0, length))
        self.offset, self.tail = offset, read_at(offset - length, length)


def as_position(mark: FileMark) -> dict[str, Any]:
    """Return a mark as JSON can hold it."""
    position: dict[str, Any] = msgspec.to_builtins(mark)
    return position


def as_mark(position: Any) -> FileMark:
    """Return the mark that a position is. Raises UsageError if it is none."""
    try:
        return msgspec.convert(position, FileMark)
    except msgspec.ValidationError as error:
        raise UsageError(f"this is no place in a file: {position!r} ({error})") from None


def digest(data: bytes) -> str:
    """Return a text that tells bytes from others."""
    return blake2b(data, digest_size=8).hexdigest()


_AHEAD_BYTES = 8 * CHUNK
"""What is read of a file at a time, in a thread."""
_MAGIC = 16
"""Of a file's first bytes, enough to tell how it is compressed."""


class FileReader:
    """Gives what an open file holds, decompressed; `trace` tells how far that has come.

    Raises OSError, and CorruptArchiveError for a file that is cut within its first bytes.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.trace = FilePosition(os.fstat(descriptor).st_ino)
        self._file = descriptor
        self._ahead = memoryview(b"")
        self._lock, self._is_closed = threading.Lock(), False
        head = os.pread(descriptor, _MAGIC, os.lseek(descriptor, 0, os.SEEK_CUR))
        check_magic_complete(head, name)
        self._compression = detect_compression(head)
        self._chunks = self._unpacked()

    @property
    def inode(self) -> int:
        """What tells it from all other files, as long as it is open."""
        return self.trace.inode

    def seek(self, mark: FileMark) -> bool:
        """Go on at `mark`, before anything is read; tell if the bytes before it are the same.

        If not, nothing can be read any more. A compressed file is read up to there. Raises
        OSError.
        """
        if self._chunks is None:
            if not self.trace.set_mark(mark, lambda at, size: os.pread(self._file, size, at)):
                return False
            os.lseek(self._file, mark.offset, os.SEEK_SET)
            return True
        trace = self.trace
        try:
            while trace.offset < mark.offset:
                data = self.read_more()
                if not data:
                    return False
                here = mark.offset - trace.offset
                trace.advance(data[:here])
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
            self._ahead = memoryview(self.read_more())
        data, self._ahead = bytes(self._ahead[:CHUNK]), self._ahead[CHUNK:]
        self.trace.advance(data)
        return data

    async def read(self) -> bytes:
        """Return what comes next, as `next`, without keeping the event loop waiting."""
        return self.next() if self._ahead else await asyncio.to_thread(self.next)

    def read_more(self) -> bytes:
        """Return what comes next, much at a time; `trace` is then up to the caller."""
        if self._ahead:  # left over from `seek`
            data, self._ahead = bytes(self._ahead), memoryview(b"")
            return data
        with self._lock:
            if self._is_closed:
                return b""
            if self._chunks is None:
                return os.read(self._file, _AHEAD_BYTES)
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
        return self._compression.chunks(stream, _AHEAD_BYTES)


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
        self.trace = FilePosition(os.fstat(descriptor).st_ino)
        self._was_cut = was_cut
        self._seen: tuple[int, int] | None = None
        """Size and time of the last look after which there was nothing more to read."""
        self._known: tuple[int, int] | None = None
        self._largest = 0

    @property
    def inode(self) -> int:
        """What tells it from all other files, as long as it is open."""
        return self.trace.inode

    def seek(self, mark: FileMark) -> bool:
        """Go on at a mark; tell if the bytes before it are the same."""
        return self.trace.set_mark(mark, self._at)

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

    def read_more(self) -> bytes:
        """Return what comes next, b"" if there is nothing. Raises FileCutError, OSError."""
        status = os.fstat(self.descriptor)
        look = (status.st_size, status.st_mtime_ns)
        if look == self._seen:
            return b""
        if self._was_cut and not self.trace.offset:
            self._pass_hole()
        offset, tail = self.trace.offset, self.trace.tail
        # What was read is read again with what is new: so nobody can cut the file in between.
        data = self._at(offset - len(tail), len(tail) + _AHEAD_BYTES)
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

    def reopen(self) -> LiveFile:
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
        while (block := self._at(start, _AHEAD_BYTES)) and not block.strip(b"\0"):
            start += len(block)
        self._jump(start + len(block) - len(block.lstrip(b"\0")))

    def _jump(self, offset: int) -> None:
        self.trace.jump(offset, self._at)

    def _at(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset)
