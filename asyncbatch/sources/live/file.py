"""Files that are read from a stored position: growing ones and complete ones."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import zlib
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from asyncbatch.errors import UsageError
from asyncbatch.formats.compression import (
    check_not_compressed,
    detect_compression,
)
from asyncbatch.formats.members import LARGEST_WINDOW_BYTES, CorruptArchiveError
from asyncbatch.sources.base import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIGEST_BYTES = 4096  # at the beginning of a file, and before a position: they identify the file


class FileMark(Struct, frozen=True, omit_defaults=True):
    """A stored position in a file. The digests identify the file."""

    offset: int  # decompressed bytes from the beginning
    head: str  # digest of the first `DIGEST_BYTES` bytes, or all before `offset`
    tail: str  # digest of the last `DIGEST_BYTES` bytes before `offset`
    inode: int = 0  # only a hint: the file with this inode is tried first


class FilePosition:
    """The current position in a file, with the bytes that identify the file."""

    offset: int
    tail: bytes
    inode: int

    def __init__(self, inode: int = 0) -> None:
        self.offset, self.tail, self.inode = 0, b"", inode
        self._head, self._head_digest = b"", ""

    def advance(self, data: bytes) -> None:
        """Move forward over `data`, the next bytes of the file."""
        self.offset += len(data)
        if not self._head_digest:
            self._head += data[: DIGEST_BYTES - len(self._head)]
            if len(self._head) == DIGEST_BYTES:
                self._head_digest = digest(self._head)
        self.tail = (
            data[-DIGEST_BYTES:]
            if len(data) >= DIGEST_BYTES
            else (self.tail + data)[-DIGEST_BYTES:]
        )

    @property
    def head(self) -> str:
        """The digest of the first `DIGEST_BYTES` bytes, or all before the position."""
        return self._head_digest or digest(self._head)

    def mark(self) -> FileMark:
        """Return the current position, to be stored."""
        return FileMark(self.offset, self.head, digest(self.tail), self.inode)

    def seek(self, mark: FileMark, read_at: Callable[[int, int], bytes]) -> bool:
        """Move to `mark` if the file has the same bytes before it; return whether it has.

        `read_at(offset, size)` reads bytes of the file, fewer only at its end.
        """
        other = FilePosition(mark.inode)
        other.move_to(mark.offset, read_at)
        found = other.mark()
        if len(other.tail) < min(DIGEST_BYTES, mark.offset) or (found.head, found.tail) != (
            mark.head,
            mark.tail,
        ):
            return False
        self.offset, self.tail = other.offset, other.tail
        self._head, self._head_digest = other._head, other._head_digest
        return True

    def move_to(self, offset: int, read_at: Callable[[int, int], bytes]) -> None:
        """Move to `offset` without a check of the bytes before it."""
        length = min(DIGEST_BYTES, offset)
        self._head, self._head_digest = b"", ""
        self.offset, self.tail = 0, b""
        self.advance(read_at(0, length))
        self.offset, self.tail = offset, read_at(offset - length, length)


AnyMark = TypeVar("AnyMark", bound=FileMark)


def position_of_mark(mark: FileMark) -> dict[str, Any]:
    """Return a mark as a position in JSON."""
    position: dict[str, Any] = msgspec.to_builtins(mark)
    return position


def parse_position(position: Any, form: type[AnyMark]) -> AnyMark:
    """Return the mark of a position, as a `FileMark` of this form.

    Raises UsageError for an invalid position.
    """
    try:
        return msgspec.convert(position, form)
    except msgspec.ValidationError as error:
        raise UsageError(f"not a position in a file: {position!r} ({error})") from None


def digest(data: bytes) -> str:
    """Return a short digest of `data` as hexadecimal text."""
    return blake2b(data, digest_size=8).hexdigest()


_READ_BYTES = 8 * CHUNK_BYTES  # bytes read in one call in a thread
# A file that begins with so many NULs begins with a hole: its writer went on at the old offset when
# the file was truncated. Fewer may belong to text in UTF-16 or UTF-32.
HOLE_START = bytes(4)
_MAGIC_BYTES = 16  # first bytes of a file that identify its compression


class FileReader:
    """Reads a complete file, decompressed. It owns the descriptor.

    A hole at its beginning, also a compressed one, is skipped: truncation leaves it.

    `next`, `read` and `seek` move `read_position`. Raises OSError, and CorruptArchiveError for a
    file that ends within its magic bytes. `close` may be called from another thread.
    """

    def __init__(self, descriptor: int, name: str, *, block_bytes: int = _READ_BYTES) -> None:
        self.read_position: FilePosition = FilePosition(os.fstat(descriptor).st_ino)
        self.checksum: int | None = (
            None  # CRC-32 of all bytes before the position; set 0 to have it
        )
        self._descriptor, self._block_bytes = descriptor, block_bytes
        self._ahead = memoryview(b"")
        self._lock, self._is_closed = threading.Lock(), False
        head = os.pread(descriptor, _MAGIC_BYTES, os.lseek(descriptor, 0, os.SEEK_CUR))
        self._compression = detect_compression(head)
        if self._compression is None:
            check_not_compressed(head, name)
        self._chunks = self._decompressed()

    @property
    def inode(self) -> int:
        """The inode, unique while the file is open."""
        return self.read_position.inode

    def seek(self, mark: FileMark) -> bool:
        """Resume at `mark`, before any read; return whether the bytes before it are the same.

        If they differ, the reader is unusable. A compressed file is read up to the mark. Raises
        OSError.
        """
        if self._chunks is None:
            if not self.read_position.seek(
                mark, lambda at, size: os.pread(self._descriptor, size, at)
            ):
                return False
            os.lseek(self._descriptor, mark.offset, os.SEEK_SET)
            return True
        with suppress(CorruptArchiveError):
            return self._read_to(mark)
        return False

    def _read_to(self, mark: FileMark) -> bool:
        """Read up to a mark, and return whether the content is the same."""
        position = self.read_position
        while position.offset < mark.offset:
            data = self.read_more()
            here = mark.offset - position.offset
            if not data or here < 0:  # negative after a hole that another file has
                return False
            position.advance(data[:here])
            self._ahead = memoryview(data)[here:]
            # Most files differ in their first bytes: the others need not be decompressed.
            if position.offset >= DIGEST_BYTES and position.head != mark.head:
                return False
        return (position.head, digest(position.tail)) == (mark.head, mark.tail)

    @property
    def has_more(self) -> bool:
        """Whether bytes are buffered, so that `next` does not block."""
        return bool(self._ahead)

    def next(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises OSError, CorruptArchiveError."""
        if not self._ahead:
            self._ahead = memoryview(self.read_more())
        data, self._ahead = bytes(self._ahead[:CHUNK_BYTES]), self._ahead[CHUNK_BYTES:]
        self.read_position.advance(data)
        if self.checksum is not None:
            self.checksum = zlib.crc32(data, self.checksum)
        return data

    async def read(self) -> bytes:
        """Return the next bytes as `next` does, but read them in a thread."""
        return self.next() if self._ahead else await asyncio.to_thread(self.next)

    def read_more(self) -> bytes:
        """Return the next block of bytes. The caller advances `read_position`."""
        if self._ahead:  # left over from `seek`
            data, self._ahead = bytes(self._ahead), memoryview(b"")
            return data
        with self._lock:
            if self._is_closed:
                return b""
            block = self._read_block()
            if not self.read_position.offset and block.startswith(HOLE_START):
                block = self._skip_hole(block)
            return block

    def _read_block(self) -> bytes:
        if self._chunks is None:
            return os.read(self._descriptor, self._block_bytes)
        return next(self._chunks, b"")

    def _skip_hole(self, block: bytes) -> bytes:
        """Move past the NULs at the beginning of the file; return the bytes that follow them."""
        if self._chunks is None:
            start = _hole_end(self._descriptor)
            self.read_position.move_to(start, lambda at, size: os.pread(self._descriptor, size, at))
            os.lseek(self._descriptor, start, os.SEEK_SET)
            block = self._read_block()
        while block and not (rest := block.lstrip(b"\0")):
            self.read_position.advance(block)
            block = self._read_block()
        if block:
            self.read_position.advance(block[: -len(rest)])
            block = rest
        return block

    def is_at_end(self) -> bool:
        """Whether nothing follows the position. Raises OSError and CorruptArchiveError."""
        if not self._ahead:
            self._ahead = memoryview(self.read_more())
        return not self._ahead

    def end_mark(self) -> FileMark:
        """Return the mark of the position: the end, if the file was read."""
        return self.read_position.mark()

    @property
    def is_compressed(self) -> bool:
        """Whether the file on the disk is compressed."""
        return self._compression is not None

    def head_digest(self, size: int) -> str:
        """Return a digest of the first bytes of the file, compressed or not."""
        return digest(os.pread(self._descriptor, size, 0))

    def has_changed(self) -> bool:
        """Return False, because a compressed file is complete."""
        return False

    def is_truncated(self) -> bool:
        """Return False, because a compressed file is complete."""
        return False

    def size(self) -> int:
        """Return the size on the disk, in bytes."""
        return os.fstat(self._descriptor).st_size

    def modified_ns(self) -> int:
        """Return the time of the last write, in nanoseconds since 1970."""
        return os.fstat(self._descriptor).st_mtime_ns

    def close(self) -> None:
        """Close the file. No read may be running."""
        with self._lock:
            self._is_closed = True
            os.close(self._descriptor)

    def _decompressed(self) -> Iterator[bytes] | None:
        if self._compression is None:
            return None
        stream = os.fdopen(self._descriptor, "rb", closefd=False)
        # A stream reads one file at a time, and has no option for its window.
        return self._compression.chunks(stream, self._block_bytes, LARGEST_WINDOW_BYTES)


_BLOCK_BYTES = 4096


class FileTruncatedError(Exception):
    """A file was truncated, and may have grown again.

    At least `unread_bytes` bytes are lost.
    """

    def __init__(self, unread_bytes: int) -> None:
        super().__init__(unread_bytes)
        self.unread_bytes = unread_bytes


def _hole_end(descriptor: int) -> int:
    """Return the offset up to which a file begins with a hole, as far as the system knows."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:  # ENXIO: it is one hole. Other: the file system has no SEEK_DATA.
        return os.fstat(descriptor).st_size if error.errno == errno.ENXIO else 0


class LiveFile:
    """Reads a growing file. It owns the descriptor; the caller advances `read_position`.

    A file that was truncated may begin with a hole, if its writer continues at the old offset. The
    hole is skipped.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.read_position: FilePosition = FilePosition(os.fstat(descriptor).st_ino)
        # Size and time of the last write: at the last read without new bytes, and at the last
        # `has_changed`.
        self._status_at_end: tuple[int, int] | None = None
        self._checked_status: tuple[int, int] | None = None
        self._largest_size = 0

    @property
    def inode(self) -> int:
        """The inode, unique while the file is open."""
        return self.read_position.inode

    def seek(self, mark: FileMark) -> bool:
        """Resume at `mark`; return whether the bytes before it are the same."""
        return self.read_position.seek(mark, self._read_at)

    def seek_last_line(self) -> None:
        """Move to the end of the last complete line."""
        end = os.fstat(self.descriptor).st_size
        while end:
            start = max(0, end - _BLOCK_BYTES)
            cut = self._read_at(start, end - start).rfind(b"\n")
            end = start if cut < 0 else start + cut + 1
            if cut >= 0:
                break
        self._move_to(end)

    def read_more(self) -> bytes:
        """Return the next bytes, b"" without any. Raises FileCutError and OSError."""
        status = os.fstat(self.descriptor)
        status_now = (status.st_size, status.st_mtime_ns)
        if status_now == self._status_at_end:
            return b""
        if not self.read_position.offset and self._read_at(0, len(HOLE_START)) == HOLE_START:
            self._skip_hole()
            status = os.fstat(self.descriptor)
            status_now = (status.st_size, status.st_mtime_ns)
        offset, tail = self.read_position.offset, self.read_position.tail
        # Read the bytes before the position again, together with the new ones: so the file cannot
        # be truncated between the check and the read.
        data = self._read_at(offset - len(tail), len(tail) + _READ_BYTES)
        if status.st_size < offset or not data.startswith(tail):
            raise FileTruncatedError(max(0, self._largest_size - offset))
        self._largest_size = max(self._largest_size, status.st_size)
        fresh = data[len(tail) :]
        self._status_at_end = None if fresh else status_now
        return fresh

    def has_changed(self) -> bool:
        """Whether the file has changed since the last call or the last read."""
        status = os.fstat(self.descriptor)
        known, self._checked_status = self._checked_status, (status.st_size, status.st_mtime_ns)
        return self._checked_status not in (known, self._status_at_end)

    def is_truncated(self) -> bool:
        """Whether the bytes before the position are no longer there."""
        tail = self.read_position.tail
        return self._read_at(self.read_position.offset - len(tail), len(tail)) != tail

    def size(self) -> int:
        """Return the current size in bytes."""
        return os.fstat(self.descriptor).st_size

    def modified_ns(self) -> int:
        """Return the time of the last write, in nanoseconds since 1970."""
        return os.fstat(self.descriptor).st_mtime_ns

    def is_at_end(self) -> bool:
        """Whether nothing follows the position by now."""
        return self.size() <= self.read_position.offset

    def end_mark(self) -> FileMark:
        """Return the mark of the present end, which identifies the content."""
        end = FilePosition(self.inode)
        end.move_to(self.size(), self._read_at)
        return end.mark()

    def reopen(self) -> LiveFile:
        """Return a new reader of the same file, at its beginning."""
        return LiveFile(os.dup(self.descriptor))

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _skip_hole(self) -> None:
        start = _hole_end(self.descriptor)
        while (block := self._read_at(start, _READ_BYTES)) and not block.strip(b"\0"):
            start += len(block)
        self._move_to(start + len(block) - len(block.lstrip(b"\0")))

    def _move_to(self, offset: int) -> None:
        self.read_position.move_to(offset, self._read_at)

    def _read_at(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset)
