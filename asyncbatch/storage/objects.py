"""Reading of objects: whole, in ranges, as a `Content`, or at random positions."""

from __future__ import annotations

import errno
import threading
from collections import deque
from typing import TYPE_CHECKING

from asyncbatch.core.paths import ObjectPath, parse_address
from asyncbatch.core.retry import Retrier
from asyncbatch.core.system import install_command
from asyncbatch.errors import UsageError
from asyncbatch.storage.local import Content, TooLargeError
from asyncbatch.storage.object_access import (
    RANGE_BYTES,
    ObjectData,
    RangesRefusedError,
    StoreAccess,
    StreamedResponse,
)
from asyncbatch.storage.store_errors import ChangedError, ObjectError
from asyncbatch.storage.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.storage.object_access import ObjectAccess

RANGES_IN_FLIGHT = 8  # range requests at a time, and the ranges that a reader holds in memory
REQUESTS_IN_FLIGHT = 64  # requests that one reader makes at a time


class ObjectReader:
    """Reads objects of the stores of `settings`, with retries.

    Safe for several threads. Methods raise ObjectError.
    """

    stores: Stores

    def __init__(self, settings: StoreSettings) -> None:
        self.stores, self._settings = Stores(settings), settings
        self.retrier: Retrier = Retrier(settings.retries)
        self._store_access = StoreAccess(self.stores)
        self._lazy_web_access: ObjectAccess | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @property
    def threads(self) -> ThreadPoolExecutor:
        """The threads that wait for responses. Started on first use."""
        with self._lock:
            if self._threads is None:
                from concurrent.futures import ThreadPoolExecutor

                self._threads = ThreadPoolExecutor(REQUESTS_IN_FLIGHT, "asyncbatch-object")
            return self._threads

    def head(self, url: str) -> ObjectPath:
        """Return the object's path with its size and ETag, or with its `problem`."""
        try:
            return self.retrier.call(lambda: self._access(url).head(url))
        except ObjectError as error:
            return ObjectPath(url, problem=(error.errno or errno.EINVAL, str(error)))

    def heads(self, urls: list[str]) -> list[ObjectPath]:
        """Return the paths of many objects as `head` does, requested concurrently."""
        return list(self.threads.map(self.head, urls))

    def read_whole(self, url: str, limit: int | None = None) -> ObjectData | StreamedResponse:
        """Return a whole object, or the open response if it exceeds `limit` bytes."""
        return self.retrier.call(lambda: self._access(url).whole(url, limit))

    def read_range(self, url: str, start: int, end: int, etag: str | None = None) -> ObjectData:
        """Return the bytes from `start` up to `end`, or to the end of the object.

        With `etag`, the object must have it. Raises ChangedError, RangesRefusedError.
        """
        return self.retrier.call(lambda: self._access(url).range(url, start, end, etag))

    def read_ranges(self, url: str, start: int, end: int, etag: str | None) -> Generator[bytes]:
        """Yield the bytes from `start` up to `end` in ranges, and prefetch the next ranges.

        Raises ChangedError if the object has become shorter or was replaced.
        """
        starts = iter(range(start, end, RANGE_BYTES))
        in_flight: deque[tuple[int, Future[ObjectData]]] = deque()
        at_once = 1  # so that a caller that needs only the beginning does not load the rest
        try:
            while True:
                while len(in_flight) < at_once and (range_start := next(starts, None)) is not None:
                    stop = min(range_start + RANGE_BYTES, end)
                    asked = self.threads.submit(self.read_range, url, range_start, stop, etag)
                    in_flight.append((stop - range_start, asked))
                if not in_flight:
                    return
                length, future = in_flight.popleft()
                data = future.result().data
                if len(data) != length:
                    raise ChangedError
                yield data
                at_once = min(2 * at_once, RANGES_IN_FLIGHT)
        finally:
            for _, future in in_flight:
                future.cancel()

    def check(self, url: str) -> None:
        """Raise UsageError if objects like the one at `url` cannot be requested."""
        if parse_address(url).is_web:
            self._web_access()
        else:
            self.stores.location(url)

    def _access(self, url: str) -> ObjectAccess:
        """Return the access to the object at `url`. Raises ObjectError."""
        if not url.startswith(("http:", "https:")):
            return self._store_access
        try:
            return self._web_access()
        except UsageError as error:  # one bad URL of a list must not end the run
            raise ObjectError(errno.EINVAL, str(error)) from None

    def _web_access(self) -> ObjectAccess:
        with self._lock:
            if self._lazy_web_access is None:
                try:
                    from asyncbatch.storage.web import WebAccess
                except ImportError:
                    raise UsageError(
                        "http:// and https:// URLs need an extra package: "
                        f"{install_command('cloud')}"
                    ) from None
                self._lazy_web_access = WebAccess(self._settings)
            return self._lazy_web_access


# bytes of the first request: it reads most objects whole
OBJECT_HEAD_BYTES = 512 * 1024
_RANGE_NOT_SATISFIABLE = "416"


def open_object(
    objects: ObjectReader, path: ObjectPath, limit: int | None, ahead: int
) -> bytes | Content:
    """Return an object's bytes if it has about `ahead` bytes or fewer, else a `Content`.

    Raises ObjectError; TooLargeError if it has more than `limit` bytes.
    """
    if path.problem is not None:
        raise ObjectError(*path.problem)
    _check_limit(path.size, limit)
    ahead = max(ahead, OBJECT_HEAD_BYTES)
    try:
        answer = _read_head(objects, path, ahead)
    except RangesRefusedError:
        answer = objects.read_whole(path, ahead)
    _check_limit(answer.size, limit)
    if isinstance(answer, StreamedResponse):
        return StreamedContent(answer, limit)
    if len(answer.data) == answer.size:
        return answer.data
    return ObjectContent(answer, objects, path, limit)


def object_size(objects: ObjectReader, path: ObjectPath) -> int:
    """Return the size of an object in bytes. Raises ObjectError."""
    known = path if path.size is not None or path.problem else objects.head(path)
    if known.problem is not None:
        raise ObjectError(*known.problem)
    return known.size or 0


def _read_head(
    objects: ObjectReader, path: ObjectPath, ahead: int
) -> ObjectData | StreamedResponse:
    if path.size is not None and path.size <= ahead:
        return objects.read_whole(path, ahead)
    try:
        return objects.read_range(path, 0, ahead)
    except ObjectError as error:
        if _RANGE_NOT_SATISFIABLE not in str(error):
            raise
        return objects.read_whole(path, ahead)  # 416 for an empty object, which has no range


def _check_limit(size: int | None, limit: int | None) -> None:
    if size is not None and limit is not None and size > limit:
        raise TooLargeError(size, limit)


class ObjectContent(Content):
    """A large object: its first bytes, and the rest in prefetched ranges."""

    def __init__(
        self, answer: ObjectData, objects: ObjectReader, path: ObjectPath, limit: int | None
    ) -> None:
        super().__init__(answer.data, None, answer.size, limit)
        self.is_whole = False
        self._objects, self._path, self.etag = objects, path, answer.etag
        self._ranges = objects.read_ranges(path, self.size, self.expected_size, self.etag)
        self._rest = b""

    def __exit__(self, *_: object) -> None:
        self._ranges.close()

    def read_into(self, buffer: memoryview) -> int:
        if not self._rest:
            self._rest = next(self._ranges, b"")
            self._add_count(len(self._rest))
        chunk = self._rest[: len(buffer)]
        self._rest = self._rest[len(chunk) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def chunks(self, idle: float | None = None) -> Iterator[bytes]:  # noqa: ARG002 - a response has its own timeout
        yield self.head
        while chunk := next(self._ranges, b""):
            self._add_count(len(chunk))
            yield chunk

    def seek(self, byte: int) -> None:
        self._ranges.close()
        self._ranges = self._objects.read_ranges(self._path, byte, self.expected_size, self.etag)


class StreamedContent(Content):
    """A large object of a web server without range requests; it is read once."""

    def __init__(self, answer: StreamedResponse, limit: int | None) -> None:
        super().__init__(answer.read(), None, 0, limit)
        self.is_whole = False
        self._answer = answer
        self._rest = b""

    def read_into(self, buffer: memoryview) -> int:
        if not self._rest:
            self._rest = self._read()
        chunk = self._rest[: len(buffer)]
        self._rest = self._rest[len(chunk) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def chunks(self, idle: float | None = None) -> Iterator[bytes]:  # noqa: ARG002 - a response has its own timeout
        yield self.head
        while chunk := self._read():
            yield chunk

    def _read(self) -> bytes:
        chunk = self._answer.read()
        self._add_count(len(chunk))
        if not chunk and self.size != self._answer.size:
            raise ChangedError
        return chunk


class ObjectRandomAccess:
    """Random access to an object, with several range requests at a time."""

    size: int
    etag: str | None

    def __init__(self, objects: ObjectReader, path: ObjectPath) -> None:
        known = objects.head(path)
        if known.problem is not None:
            raise ObjectError(*known.problem)
        self._objects, self._path = objects, path
        self.size, self.etag = known.size or 0, known.etag

    def read_into(self, view: memoryview, offset: int) -> int:
        end = min(offset + len(view), self.size)
        count = 0
        for chunk in self._objects.read_ranges(self._path, offset, end, self.etag):
            view[count : count + len(chunk)] = chunk
            count += len(chunk)
        return count

    def close(self) -> None: ...
