"""Requests for objects: the protocol, and its implementation for object stores."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asyncbatch.core.paths import ObjectPath
from asyncbatch.errors import UsageError
from asyncbatch.storage.store_errors import CHANGED_MESSAGE, ChangedError, ObjectError, object_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.storage.stores import StoreLocation, Stores

RANGE_BYTES = 1024 * 1024  # bytes of one range request for a large object


class ObjectData(NamedTuple):
    """Bytes of an object, with the size and the ETag of the whole object."""

    data: bytes
    size: int
    etag: str | None


class StreamedResponse:
    """The open response of a server without range requests.

    It is read once, from the start. The chunks may raise ObjectError.
    """

    def __init__(self, chunks: Iterator[bytes], size: int) -> None:
        self.size = size
        self._chunks = chunks

    def read(self) -> bytes:
        """Return the next bytes, empty at the end."""
        return next(self._chunks, b"")


class RangesRefusedError(Exception):
    """A web server does not support range requests."""


class ObjectAccess(Protocol):
    """Single requests for objects, without retries. Methods raise ObjectError."""

    def head(self, url: str) -> ObjectPath:
        """Return the object's path with its size and ETag."""
        ...

    def whole(self, url: str, limit: int | None) -> ObjectData | StreamedResponse:
        """Return a whole object, or the open response if it exceeds `limit` bytes."""
        ...

    def range(self, url: str, start: int, end: int, etag: str | None) -> ObjectData:
        """Return the bytes from `start` up to `end`, or to the end of the object.

        With `etag`, the object must have it. Raises ChangedError, RangesRefusedError.
        """
        ...


class StoreAccess:
    """The ObjectAccess for object stores."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def head(self, url: str) -> ObjectPath:
        import obstore

        store, key = self._location(url)
        with translated_errors(url):
            return object_path_from_metadata(url, obstore.head(store, key))

    def whole(self, url: str, limit: int | None) -> ObjectData | StreamedResponse:
        import obstore

        store, key = self._location(url)
        with translated_errors(url):
            result = obstore.get(store, key)
            meta = result.meta
            if limit is not None and meta["size"] > limit:
                return StreamedResponse(_stream(result, url), meta["size"])
            data = bytes(result.bytes())
        check_length(data, meta["size"])
        return ObjectData(data, meta["size"], meta["e_tag"])

    def range(self, url: str, start: int, end: int, etag: str | None) -> ObjectData:
        import obstore
        from obstore.exceptions import NotSupportedError

        options: dict[str, Any] = {"range": (start, end)}
        if etag is not None and not etag.startswith("W/"):  # servers do not compare weak ETags
            options["if_match"] = etag
        store, key = self._location(url)
        with translated_errors(url, RangesRefusedError):
            try:
                result = obstore.get(store, key, options=options)  # type: ignore[arg-type]  # obstore declares a TypedDict
            except NotSupportedError:
                raise RangesRefusedError from None
            meta = result.meta
            if etag is not None and meta["e_tag"] not in (None, etag):
                raise ChangedError
            data = bytes(result.bytes())
        check_length(data, max(0, min(end, meta["size"]) - start))
        return ObjectData(data, meta["size"], meta["e_tag"])

    def _location(self, url: str) -> StoreLocation:
        try:
            return self._stores.location(url)
        except UsageError as error:  # one bad URL of a list must not end the run
            raise ObjectError(errno.EINVAL, str(error)) from None


def _stream(result: Any, url: str) -> Iterator[bytes]:
    with translated_errors(url):
        for chunk in result.stream(min_chunk_size=RANGE_BYTES):
            yield bytes(chunk)


def object_path_from_metadata(url: str, meta: Any) -> ObjectPath:
    """Return the path of an object from the library's metadata."""
    changed_ns = int(meta["last_modified"].timestamp() * 1000) * 1_000_000
    return ObjectPath(url, meta["size"], meta["e_tag"], changed_ns)


@contextmanager
def translated_errors(url: str, *ours: type[Exception]) -> Iterator[None]:
    """Translate the library's errors about the object at `url` into ObjectErrors.

    ObjectErrors and the exceptions in `ours` pass unchanged.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (ObjectError, *ours)):
            raise
        raise object_error(error, url) from None


def check_length(data: bytes, wanted: int) -> None:
    """Raise ObjectError unless `data` has the wanted number of bytes."""
    if len(data) < wanted:
        raise ObjectError(errno.ECONNRESET, "the response ended early")
    if len(data) > wanted:
        raise ObjectError(errno.EINVAL, CHANGED_MESSAGE)
