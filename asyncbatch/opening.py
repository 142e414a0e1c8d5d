"""Inputs opened, wherever they are: files of this machine, and objects of stores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from asyncbatch.cloud.objects import Answered, Objects, RangesRefusedError
from asyncbatch.cloud.troubles import ChangedError, ObjectError
from asyncbatch.content import FIRST_READ, Content, TooLargeError, open_retrying, stretch_of
from asyncbatch.object_path import ObjectPath
from asyncbatch.retrying import Retrier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    from asyncbatch.cloud.objects import Answer
    from asyncbatch.settings import FileWorkSettings

OBJECT_HEAD = 512 * 1024
"""Bytes of an object that are asked for at first: with these most are whole."""
_NO_SUCH_RANGE = "416"


class Opener:
    """Opens inputs for work of these settings; for any number of threads.

    `files` tries again what fails of files, as the user says; objects are always tried again.
    """

    def __init__(self, settings: FileWorkSettings) -> None:
        self.files = Retrier(settings.retries)
        self._objects = Objects(settings.stores)

    def taken_retries(self) -> int:
        """Return how many retries there were since the last time, and forget them."""
        return self.files.taken() + self._objects.retrier.taken()

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Threads that may wait for objects."""
        return self._objects.threads

    def open(self, path: str, limit: int | None = None, ahead: int = FIRST_READ) -> bytes | Content:
        """Return an input's bytes if these are about `ahead`, or less; else a `Content`.

        Raises OSError; TooLargeError if it has more than `limit` bytes where it is.
        """
        if isinstance(path, ObjectPath):
            return self._open_object(path, limit, max(ahead, OBJECT_HEAD))
        return open_retrying(self.files, path, limit, ahead)

    def stretch(
        self, path: str, start: int, length: int, etag: str | None = None
    ) -> Iterator[bytes]:
        """Yield `length` bytes from byte `start` on; of an object, the one with that `etag`.

        Raises OSError, also if they are not all there any more.
        """
        if isinstance(path, ObjectPath):
            return self._objects.ranges(path, start, start + length, etag)
        return stretch_of(path, start, length)

    def at_random(self, path: str) -> Bytes:
        """Return an input to be read here and there. Raises OSError."""
        if isinstance(path, ObjectPath):
            return _ObjectBytes(self._objects, path)
        return _FileBytes(path)

    def size(self, path: str) -> int:
        """Return how large an input is, where it is. Raises OSError."""
        if not isinstance(path, ObjectPath):
            return os.stat(path).st_size
        found = path if path.size is not None or path.trouble else self._objects.head(path)
        if found.trouble is not None:
            raise ObjectError(*found.trouble)
        return found.size or 0

    def _open_object(self, path: ObjectPath, limit: int | None, ahead: int) -> bytes | Content:
        if path.trouble is not None:
            raise ObjectError(*path.trouble)
        _check(path.size, limit)
        try:
            answer = self._head_of(path, ahead)
        except RangesRefusedError:
            answer = self._objects.whole(path, ahead)
        _check(answer.size, limit)
        if isinstance(answer, Answered):
            return AnsweredContent(answer, path, limit)
        if len(answer.data) == answer.size:
            return answer.data
        return ObjectContent(answer, self._objects, path, limit)

    def _head_of(self, path: ObjectPath, ahead: int) -> Answer | Answered:
        if path.size is not None and path.size <= ahead:
            return self._objects.whole(path, ahead)
        try:
            return self._objects.range(path, 0, ahead)
        except ObjectError as error:
            if _NO_SUCH_RANGE not in str(error):
                raise
            return self._objects.whole(path, ahead)  # it is empty


def _check(size: int | None, limit: int | None) -> None:
    if size is not None and limit is not None and size > limit:
        raise TooLargeError(size, limit)


class ObjectContent(Content):
    """A big object: its first bytes, and the rest in ranges, of which the next are on their way."""

    def __init__(
        self, answer: Answer, objects: Objects, path: ObjectPath, limit: int | None
    ) -> None:
        super().__init__(answer.data, None, answer.size, limit)
        self._objects, self._path, self.etag = objects, path, answer.etag
        self._ranges = objects.ranges(path, self.size, self.expected, self.etag)
        self._rest = b""

    def __exit__(self, *_: object) -> None:
        self._ranges.close()

    def read_into(self, buffer: memoryview) -> int:
        """See `Content`."""
        if not self._rest:
            self._rest = next(self._ranges, b"")
            self._took(len(self._rest))
        piece = self._rest[: len(buffer)]
        self._rest = self._rest[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def chunks(self, lull: float | None = None) -> Iterator[bytes]:  # noqa: ARG002 - it comes
        """See `Content`."""
        yield self.head
        while piece := next(self._ranges, b""):
            self._took(len(piece))
            yield piece

    def seek(self, byte: int) -> None:
        """See `Content`."""
        self._ranges.close()
        self._ranges = self._objects.ranges(self._path, byte, self.expected, self.etag)


class AnsweredContent(Content):
    """A big object of a web server that gives whole ones only: read as it comes, and once."""

    def __init__(self, answer: Answered, path: ObjectPath, limit: int | None) -> None:
        super().__init__(answer.read(path), None, 0, limit)
        self._answer, self._path = answer, path
        self._rest = b""

    def read_into(self, buffer: memoryview) -> int:
        """See `Content`."""
        if not self._rest:
            self._rest = self._read()
        piece = self._rest[: len(buffer)]
        self._rest = self._rest[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def chunks(self, lull: float | None = None) -> Iterator[bytes]:  # noqa: ARG002 - it comes
        """See `Content`."""
        yield self.head
        while piece := self._read():
            yield piece

    def _read(self) -> bytes:
        piece = self._answer.read(self._path)
        self._took(len(piece))
        if not piece and self.size != self._answer.size:
            raise ChangedError
        return piece


class Bytes(Protocol):
    """An input that is read here and there, by one thread. `etag` is an object's."""

    size: int
    etag: str | None

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill `view` with what stands at `offset`; return how many bytes these are."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class _FileBytes:
    """A file, as `Bytes`."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size
        self.etag: str | None = None

    def read_into(self, view: memoryview, offset: int) -> int:
        """See `Bytes`."""
        taken = 0
        while taken < len(view) and (count := os.preadv(self._fd, [view[taken:]], offset + taken)):
            taken += count
        return taken

    def close(self) -> None:
        """See `Bytes`."""
        os.close(self._fd)


class _ObjectBytes:
    """An object, as `Bytes`: many ranges at a time."""

    def __init__(self, objects: Objects, path: ObjectPath) -> None:
        found = objects.head(path)
        if found.trouble is not None:
            raise ObjectError(*found.trouble)
        self._objects, self._path = objects, path
        self.size, self.etag = found.size or 0, found.etag

    def read_into(self, view: memoryview, offset: int) -> int:
        """See `Bytes`."""
        end = min(offset + len(view), self.size)
        taken = 0
        for piece in self._objects.ranges(self._path, offset, end, self.etag):
            view[taken : taken + len(piece)] = piece
            taken += len(piece)
        return taken

    def close(self) -> None:
        """See `Bytes`."""
