"""Listings of the objects under a prefix."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.core.paths import ObjectPath, parse_address
from asyncbatch.storage.object_access import object_path_from_metadata, translated_errors
from asyncbatch.storage.store_errors import ObjectError, object_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.storage.objects import ObjectReader
    from asyncbatch.storage.stores import StoreLocation


class ObjectVersion(NamedTuple):
    """The version of an object: objects with different contents have different ones."""

    etag: str
    size: int


def list_versions(location: StoreLocation, url: str) -> Mapping[str, ObjectVersion]:
    """Return the versions of the objects directly under the prefix at `url`, by name.

    Raises ObjectError.
    """
    import obstore

    try:
        listed = obstore.list_with_delimiter(location.store, location.key)
    except Exception as error:  # noqa: BLE001 - the library's errors have no common base class
        raise object_error(error, url) from None
    return {
        meta["path"].rpartition("/")[2]: ObjectVersion(meta["e_tag"] or "", meta["size"])
        for meta in listed["objects"]
    }


_PAGE_KEYS = 1000
_INVALID_KEYS = (
    "has keys that cannot be requested: they contain an empty name (//), '.', '..' or a control"
    " character"
)


class _InvalidKeyError(Exception):
    """A page of a listing has a key that the library refuses; it refuses the page."""


def list_objects(objects: ObjectReader, url: str) -> Iterator[ObjectPath]:
    """Yield all objects below `url`, which ends with a slash. Holds one page in memory.

    An object that cannot be listed or requested is yielded with its `problem`.
    """
    pages = _Pages(objects, url)
    try:
        yield from pages.objects()
    except _InvalidKeyError:
        yield from _list_by_folder(objects, url, pages.last)
    except ObjectError as error:
        reason = str(error) if pages.last is None else f"could not be listed to its end: {error}"
        yield ObjectPath(url, problem=(error.errno or errno.EINVAL, reason))


class _Pages:
    """A listing in pages that restarts after its `last` key when a request fails."""

    def __init__(self, objects: ObjectReader, url: str) -> None:
        self._objects, self._url = objects, url
        self._base = str(parse_address(url)._replace(key=""))
        self._stream: Iterator[Sequence[Any]] | None = None
        self.last: str | None = None

    def objects(self) -> Iterator[ObjectPath]:
        """Yield the objects. Raises ObjectError, _InvalidKeyError."""
        start = len(self._url) - len(self._base)
        while page := self._objects.retrier.call(self._next):
            for meta in page:
                self.last = key = meta["path"]
                if len(key) > start:  # an object with the name of the folder is not in it
                    yield object_path_from_metadata(self._base + key, meta)

    def _next(self) -> Sequence[Any]:
        import obstore
        from obstore.exceptions import InvalidPathError

        with translated_errors(self._url, _InvalidKeyError):
            try:
                if self._stream is None:
                    store, prefix = self._objects.stores.location(self._url)
                    begun = obstore.list(
                        store, prefix.rstrip("/") or None, offset=self.last, chunk_size=_PAGE_KEYS
                    )
                    self._stream = iter(begun)
                return next(self._stream, ())
            except InvalidPathError:
                raise _InvalidKeyError from None
            except Exception:  # a retry restarts after the last key
                self._stream = None
                raise


def list_folder(objects: ObjectReader, url: str) -> list[tuple[str, ObjectPath | None]]:
    """Return the names directly in the folder `url`, sorted, with their objects.

    The object of a subfolder is None. Raises ObjectError.
    """
    address = parse_address(url)
    base, start = str(address._replace(key="")), len(address.key)
    listed = objects.retrier.call(lambda: _request_folder(objects, url))
    entries: dict[str, ObjectPath | None] = {
        meta["path"][start:]: object_path_from_metadata(base + meta["path"], meta)
        for meta in listed["objects"]
    }
    for folder in listed["common_prefixes"]:
        entries[f"{folder[start:]}/"] = None
    # A key may equal the folder itself: it has no name within the folder.
    names = sorted((name for name in entries if name.strip("/")), key=str.encode)
    return [(name, entries[name]) for name in names]


def _list_by_folder(objects: ObjectReader, url: str, last: str | None) -> Iterator[ObjectPath]:
    """Yield the objects after the key `last`, listed folder by folder.

    A key that the library refuses then affects only its own folder.
    """
    base = str(parse_address(url)._replace(key=""))
    try:
        entries = list_folder(objects, url)
    except ObjectError as error:
        yield ObjectPath(url, problem=(error.errno or errno.EINVAL, str(error)))
        return
    for name, path in entries:
        key = (url + name).removeprefix(base)
        is_behind = last is None or key.encode() > last.encode()
        if path is not None and is_behind:
            yield path
        elif path is None and (is_behind or (last or "").startswith(key)):
            yield from _list_by_folder(objects, url + name, last)


def _request_folder(objects: ObjectReader, url: str) -> Any:
    import obstore
    from obstore.exceptions import InvalidPathError

    store, prefix = objects.stores.location(url)
    with translated_errors(url):
        try:
            return obstore.list_with_delimiter(store, prefix.rstrip("/") or None)
        except InvalidPathError:
            raise ObjectError(errno.EINVAL, _INVALID_KEYS) from None
