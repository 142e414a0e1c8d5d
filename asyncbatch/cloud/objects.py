"""Objects asked for: whole, in ranges, and what is known of them.

All of it blocks, and is for any number of threads. What fails for the moment is tried again, and
counted. No short answer is taken for a whole one.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.cloud.store import Stores
from asyncbatch.cloud.troubles import CUT_SHORT, ChangedError, ObjectError, object_error
from asyncbatch.errors import UsageError
from asyncbatch.object_path import ObjectPath
from asyncbatch.retrying import Retrier

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.cloud.store import Place

RANGE_BYTES = 1024 * 1024
"""A big object is read in ranges of so many bytes, ..."""
RANGES_IN_FLIGHT = 8
"""... so many at a time: that is what a reader holds of it, too."""
ASKED_AT_ONCE = 64
"""Requests of one kind that one process makes at a time."""


class Answer(NamedTuple):
    """Bytes of an object, and what the store says of all of it."""

    data: bytes
    size: int
    etag: str | None


class RangesRefusedError(Exception):
    """A web server gives whole objects only."""


class Objects:
    """Reads the objects of stores that are reached as `settings` say. Errors are ObjectError's."""

    def __init__(self, settings: StoreSettings) -> None:
        self.stores = Stores(settings)
        self.retrier = Retrier(settings.retries)
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Threads that wait for answers."""
        with self._lock:
            if self._threads is None:
                from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - if asked for

                self._threads = ThreadPoolExecutor(ASKED_AT_ONCE, "asyncbatch-object")
            return self._threads

    def head(self, url: str) -> ObjectPath:
        """Return what is known of an object, or with it why that cannot be told."""
        try:
            return self.retrier.call(lambda: self._head(url))
        except ObjectError as error:
            return ObjectPath(url, trouble=(error.errno or errno.EINVAL, str(error)))

    def heads(self, urls: list[str]) -> list[ObjectPath]:
        """Return what is known of many objects, asked for at once."""
        return list(self.threads.map(self.head, urls))

    def whole(self, url: str, limit: int | None = None) -> Answer | Answered:
        """Return all of an object; if it is larger than `limit` bytes, the answer to be read."""
        return self.retrier.call(lambda: self._whole(url, limit))

    def range(self, url: str, start: int, end: int, etag: str | None = None) -> Answer:
        """Return bytes `start` up to `end`, or as far as there are any.

        With an `etag` the object has to be the one of that. Raises ChangedError,
        RangesRefusedError.
        """
        return self.retrier.call(lambda: self._range(url, start, end, etag))

    def ranges(self, url: str, start: int, end: int, etag: str | None) -> Generator[bytes]:
        """Yield bytes `start` up to `end`, a range at a time, the next ones on their way.

        Raises ChangedError if they are not all there, or another object is.
        """
        places = iter(range(start, end, RANGE_BYTES))
        flying: deque[tuple[int, Future[Answer]]] = deque()
        at_once = 1  # who reads but the beginning is not to load the rest
        try:
            while True:
                while len(flying) < at_once and (place := next(places, None)) is not None:
                    stop = min(place + RANGE_BYTES, end)
                    asked = self.threads.submit(self.range, url, place, stop, etag)
                    flying.append((stop - place, asked))
                if not flying:
                    return
                wanted, future = flying.popleft()
                data = future.result().data
                if len(data) != wanted:
                    raise ChangedError
                yield data
                at_once = min(2 * at_once, RANGES_IN_FLIGHT)
        finally:
            for _, future in flying:
                future.cancel()

    def _place(self, url: str) -> Place:
        try:
            return self.stores.place(url)
        except UsageError as error:  # of one among many that a list names
            raise ObjectError(errno.EINVAL, str(error)) from None

    def _head(self, url: str) -> ObjectPath:
        import obstore  # noqa: PLC0415 - in an extra

        store, key = self._place(url)
        with translated(url):
            return known(url, obstore.head(store, key))

    def _whole(self, url: str, limit: int | None) -> Answer | Answered:
        import obstore  # noqa: PLC0415 - in an extra

        store, key = self._place(url)
        with translated(url):
            result = obstore.get(store, key)
            meta = result.meta
            if limit is not None and meta["size"] > limit:
                return Answered(result, meta["size"])
            data = bytes(result.bytes())
        _check_length(data, meta["size"])
        return Answer(data, meta["size"], meta["e_tag"])

    def _range(self, url: str, start: int, end: int, etag: str | None) -> Answer:
        import obstore  # noqa: PLC0415 - in an extra
        from obstore.exceptions import NotSupportedError  # noqa: PLC0415 - the same

        options: dict[str, Any] = {"range": (start, end)}
        if etag is not None and not etag.startswith("W/"):  # which no server compares
            options["if_match"] = etag
        store, key = self._place(url)
        with translated(url, RangesRefusedError):
            try:
                result = obstore.get(store, key, options=options)  # type: ignore[arg-type]  # a TypedDict
            except NotSupportedError:
                raise RangesRefusedError from None
            meta = result.meta
            if etag is not None and meta["e_tag"] not in (None, etag):
                raise ChangedError
            data = bytes(result.bytes())
        _check_length(data, max(0, min(end, meta["size"]) - start))
        return Answer(data, meta["size"], meta["e_tag"])


class Answered:
    """A long answer of a web server that gives whole objects only; read once, from the start."""

    def __init__(self, result: Any, size: int) -> None:  # noqa: ANN401 - obstore's, an extra's
        self.size = size
        self._pieces = iter(result.stream(min_chunk_size=RANGE_BYTES))

    def read(self, url: str) -> bytes:
        """Return what follows, nothing at the end."""
        with translated(url):
            return bytes(next(self._pieces, b""))


def known(url: str, meta: Any) -> ObjectPath:  # noqa: ANN401 - obstore's ObjectMeta, an extra's
    """Return the handle of an object of which a store has told this."""
    changed_ns = int(meta["last_modified"].timestamp() * 1000) * 1_000_000
    return ObjectPath(url, meta["size"], meta["e_tag"], changed_ns)


@contextmanager
def translated(url: str, *ours: type[Exception]) -> Iterator[None]:
    """Raise in our words what the library raises in the block, about the object at `url`.

    What is `ours` is raised as it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (ObjectError, *ours)):
            raise
        raise object_error(error, url) from None


def _check_length(data: bytes, wanted: int) -> None:
    if len(data) < wanted:
        raise ObjectError(errno.ECONNRESET, "the answer ended before its end")
    if len(data) > wanted:
        raise ObjectError(errno.EINVAL, CUT_SHORT)
