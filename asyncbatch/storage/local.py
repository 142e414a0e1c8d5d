"""Local files: small ones are read whole, large ones opened as a `Content`."""

from __future__ import annotations

import io
import os
import select
import stat
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from asyncbatch.core.records import STDIN
from asyncbatch.storage.store_errors import CHANGED_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.core.retry import Retrier

T = TypeVar("T")

# bytes requested before the size is known: one call reads most files whole
FIRST_READ_BYTES = 64 * 1024
CHUNK_BYTES = 1024 * 1024  # bytes of a stream in one chunk
RANGE_CHUNK_BYTES = 256 * 1024  # bytes of a byte range in one chunk, for the processor's cache

# The bytes of standard input so far are processed after this time without data, ...
_IDLE_SECONDS = 0.5
_MIN_HEAD_BYTES = 8  # ... if they suffice to detect a compression format.

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_STDIN_FD = 0


class TooLargeError(Exception):
    """A file exceeds a limit, by default the limit of its size on disk.

    `size` and `limit` are in bytes. A `message` replaces the default message.
    """

    size: int
    limit: int

    def __init__(self, size: int, limit: int, message: str | None = None) -> None:
        super().__init__(size, limit, message)
        self.size, self.limit = size, limit
        self._message = message or f"{size:,} bytes; the limit is {limit:,}"

    def __str__(self) -> str:
        return self._message


class Content:
    """The first bytes of a file, `head`, and the open file with the rest.

    `size` counts the bytes read so far; `expected_size` is the size of a regular file when it was
    opened, else 0; `etag` is the ETag of an object. As a context manager it closes the file. A
    failed read can be retried: it does not move the position. For one thread at a time.
    """

    head: bytes
    size: int

    def __init__(
        self,
        head: bytes,
        fd: int | None = None,
        expected_size: int = 0,
        limit: int | None = None,
        retrier: Retrier | None = None,
    ) -> None:
        self.head, self.size = head, len(head)
        self.etag: str | None = None
        self.expected_size = expected_size
        self.is_whole: bool = fd is None  # whether `head` is the whole file
        self._fd, self._limit = fd, limit
        self._retrier = retrier
        # Called with `size` after each read: the progress inside a large file.
        self.on_read: Callable[[int], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            _close(self._fd)
            self._fd = None

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` with the next bytes; return their number, 0 at the end.

        Raises OSError, and TooLargeError if a file or a pipe grows past the limit.
        """
        if (fd := self._fd) is None:
            return 0
        count = self._with_retries(lambda: os.readv(fd, [buffer]))
        self._add_count(count)
        return count

    def chunks(self, idle: float | None = None) -> Iterator[bytes]:
        """Yield the content in chunks, `head` first. Raises the errors of `read_into`.

        A regular file comes in two chunks if its size allows. An empty chunk means that no data
        came for `idle` seconds.
        """
        yield self.head
        # One byte more than expected: so a read at the end allocates no second large buffer.
        size = min(max(self.expected_size - self.size + 1, FIRST_READ_BYTES), CHUNK_BYTES)
        while (fd := self._fd) is not None:
            while idle is not None and not _has_data(fd, idle):
                yield b""
            chunk = self._with_retries(partial(os.read, fd, size))
            if not chunk:
                return
            self._add_count(len(chunk))
            yield chunk

    def seek(self, byte: int) -> None:
        """Move `chunks`, after the head, to a byte of a regular file. Raises OSError."""
        if self._fd is not None:
            os.lseek(self._fd, byte, os.SEEK_SET)

    def _with_retries(self, read: Callable[[], T]) -> T:
        return self._retrier.call(read) if self._retrier else read()

    def _add_count(self, count: int) -> None:
        self.size += count
        if self.on_read is not None:
            self.on_read(self.size)
        if self._limit is not None and self.size > self._limit:
            raise TooLargeError(self.size, self._limit)

    def stream(self) -> io.BufferedReader:
        """Return the content as a buffered stream from its first byte."""
        return io.BufferedReader(_Stream(self), FIRST_READ_BYTES)


class _Stream(io.RawIOBase):
    """A `Content` as an `io.RawIOBase`."""

    def __init__(self, content: Content) -> None:
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        # typeshed's Buffer has no name at run time before Python 3.12
        head = self._content.head
        if self._at == len(head):
            return self._content.read_into(memoryview(buffer))
        chunk = head[self._at : self._at + len(buffer)]
        buffer[: len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)


def open_content(
    path: str,
    limit: int | None = None,
    ahead: int = FIRST_READ_BYTES,
    retrier: Retrier | None = None,
) -> bytes | Content:
    """Open `path` (standard input for `-`) and read about `ahead` bytes.

    Returns the bytes if the file has no more, else a `Content`, which the caller closes. Raises
    OSError; TooLargeError if the size on disk exceeds `limit` bytes.
    """
    fd = _STDIN_FD if path == STDIN else os.open(path, _OPEN_FLAGS)
    head, expected = b"", 0
    try:
        head = os.read(fd, FIRST_READ_BYTES)
        head_size = FIRST_READ_BYTES
        if len(head) == FIRST_READ_BYTES or limit is not None:
            expected = os.fstat(fd).st_size
            if limit is not None and expected > limit:
                raise TooLargeError(expected, limit)  # noqa: TRY301 - the handler below closes the file
            head_size = max(FIRST_READ_BYTES, min(ahead, expected))
        # Only an empty read is the end: pipes and some file systems return fewer bytes
        # than requested.
        at_end = False
        while not at_end and len(head) < head_size:
            if path == STDIN and len(head) >= _MIN_HEAD_BYTES and not _has_data(fd, _IDLE_SECONDS):
                break
            chunk = os.read(fd, head_size - len(head))
            head += chunk
            at_end = not chunk
        if at_end and not head and stat.S_ISFIFO(os.fstat(fd).st_mode):
            _wait_for_writer(fd)
            at_end = False
    except BlockingIOError:  # a pipe whose writer has not written yet
        at_end = False
    except BaseException:
        _close(fd)
        raise
    if at_end:
        _close(fd)
        return head
    os.set_blocking(fd, True)  # it was opened non-blocking, so that opening a pipe cannot hang
    return Content(head, fd, expected, limit, retrier)


def open_with_retries(
    retrier: Retrier, path: str, limit: int | None = None, ahead: int = FIRST_READ_BYTES
) -> bytes | Content:
    """Open `path` as `open_content` does, and retry after a transient error.

    Standard input is not retried, because the bytes that were read cannot be read again.
    """
    if path == STDIN:
        return open_content(path, limit, ahead)
    return retrier.call(lambda: open_content(path, limit, ahead, retrier))


def open_byte_range(path: str, start: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes of a regular file from byte `start`, in chunks.

    Raises OSError, also if the file has become shorter.
    """
    fd = os.open(path, _OPEN_FLAGS)
    try:
        end = start + length
        while start < end:
            chunk = os.pread(fd, min(RANGE_CHUNK_BYTES, end - start), start)
            if not chunk:
                raise OSError(CHANGED_MESSAGE)
            start += len(chunk)
            yield chunk
    finally:
        os.close(fd)


def _wait_for_writer(fd: int) -> None:
    """Wait until a process opens a named pipe for writing."""
    _has_data(fd, None)


def _has_data(fd: int, seconds: float | None) -> bool:
    """Whether data or the end arrives within `seconds`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def _close(fd: int) -> None:
    if fd != _STDIN_FD:
        os.close(fd)
