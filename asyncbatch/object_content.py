"""Objects opened: a small one is its bytes, a big one its beginning and ranges of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.cloud.objects import Answered, RangesRefusedError
from asyncbatch.cloud.troubles import ChangedError, ObjectError
from asyncbatch.content import Content, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cloud.objects import Answer, Objects
    from asyncbatch.object_path import ObjectPath

OBJECT_HEAD = 512 * 1024
"""Bytes of an object that are asked for at first: with these most are whole."""
_NO_SUCH_RANGE = "416"


def open_object(
    objects: Objects, path: ObjectPath, limit: int | None, ahead: int
) -> bytes | Content:
    """Return an object's bytes if these are about `ahead`, or less; else a `Content`.

    Raises ObjectError; TooLargeError if it has more than `limit` bytes.
    """
    if path.trouble is not None:
        raise ObjectError(*path.trouble)
    _check(path.size, limit)
    ahead = max(ahead, OBJECT_HEAD)
    try:
        answer = _head_of(objects, path, ahead)
    except RangesRefusedError:
        answer = objects.whole(path, ahead)
    _check(answer.size, limit)
    if isinstance(answer, Answered):
        return AnsweredContent(answer, path, limit)
    if len(answer.data) == answer.size:
        return answer.data
    return ObjectContent(answer, objects, path, limit)


def size_of(objects: Objects, path: ObjectPath) -> int:
    """Return how large an object is. Raises ObjectError."""
    found = path if path.size is not None or path.trouble else objects.head(path)
    if found.trouble is not None:
        raise ObjectError(*found.trouble)
    return found.size or 0


def _head_of(objects: Objects, path: ObjectPath, ahead: int) -> Answer | Answered:
    if path.size is not None and path.size <= ahead:
        return objects.whole(path, ahead)
    try:
        return objects.range(path, 0, ahead)
    except ObjectError as error:
        if _NO_SUCH_RANGE not in str(error):
            raise
        return objects.whole(path, ahead)  # it is empty


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


class ObjectBytes:
    """An object, as `opening.Bytes`: many ranges at a time."""

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
