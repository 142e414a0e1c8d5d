"""What is below a prefix, page by page, in the order of keys."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from asyncbatch.cloud.address import parse_address
from asyncbatch.cloud.objects import known, translated
from asyncbatch.cloud.troubles import ObjectError
from asyncbatch.object_path import ObjectPath

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.cloud.objects import Objects

_PAGE = 1000
_UNNAMABLE = (
    "has keys that cannot be asked for: with an empty name (//), '.', '..' or a control character"
    " in them"
)


class _UnnamableError(Exception):
    """A page has a key that the library refuses, and so all of the page is refused."""


def list_objects(objects: Objects, url: str) -> Iterator[ObjectPath]:
    """Yield all that is below `url`, which ends with a slash; holds one page.

    What cannot be listed, or asked for, is yielded as a handle that tells why.
    """
    pages = _Pages(objects, url)
    try:
        yield from pages.objects()
    except _UnnamableError:
        yield from _by_folders(objects, url, pages.last)
    except ObjectError as error:
        reason = str(error) if pages.last is None else f"could not be listed to its end: {error}"
        yield ObjectPath(url, trouble=(error.errno or errno.EINVAL, reason))


class _Pages:
    """A listing that goes on behind the `last` key that it gave, if it breaks."""

    def __init__(self, objects: Objects, url: str) -> None:
        self._objects, self._url = objects, url
        self._base = str(parse_address(url)._replace(key=""))
        self._stream: Iterator[Sequence[Any]] | None = None
        self.last: str | None = None

    def objects(self) -> Iterator[ObjectPath]:
        """Yield them. Raises ObjectError, _UnnamableError."""
        start = len(self._url) - len(self._base)
        while page := self._objects.retrier.call(self._next):
            for meta in page:
                self.last = key = meta["path"]
                if len(key) > start:  # an object that is called like the folder is not in it
                    yield known(self._base + key, meta)

    def _next(self) -> Sequence[Any]:
        import obstore  # noqa: PLC0415 - in an extra
        from obstore.exceptions import InvalidPathError  # noqa: PLC0415 - the same

        with translated(self._url, _UnnamableError):
            try:
                if self._stream is None:
                    store, prefix = self._objects.stores.place(self._url)
                    begun = obstore.list(
                        store, prefix.rstrip("/") or None, offset=self.last, chunk_size=_PAGE
                    )
                    self._stream = iter(begun)
                return next(self._stream, ())
            except InvalidPathError:
                raise _UnnamableError from None
            except Exception:
                self._stream = None
                raise


def _by_folders(objects: Objects, url: str, last: str | None) -> Iterator[ObjectPath]:
    """Yield what comes behind the key `last`, asking folder by folder: a bad key spoils one."""
    address = parse_address(url)
    base, prefix = str(address._replace(key="")), address.key.rstrip("/")
    try:
        found = objects.retrier.call(lambda: _folder(objects, url))
    except (ObjectError, _UnnamableError) as error:
        is_known = isinstance(error, ObjectError)
        reason = f"could not be listed: {error}" if is_known else _UNNAMABLE
        yield ObjectPath(url, trouble=(errno.EINVAL, reason))
        return
    entries: dict[str, Any] = {meta["path"]: meta for meta in found["objects"]}
    entries |= {f"{folder}/": None for folder in found["common_prefixes"]}
    for key in sorted(entries, key=str.encode):
        if (meta := entries[key]) is not None:
            if last is None or key.encode() > last.encode():
                yield known(base + key, meta)
        elif key.rstrip("/") == prefix:
            yield ObjectPath(url, trouble=(errno.EINVAL, _UNNAMABLE))
        elif last is None or last.startswith(key) or key.encode() > last.encode():
            yield from _by_folders(objects, base + key, last)


def _folder(objects: Objects, url: str) -> Any:  # noqa: ANN401 - obstore's ListResult, an extra's
    import obstore  # noqa: PLC0415 - in an extra
    from obstore.exceptions import InvalidPathError  # noqa: PLC0415 - the same

    store, prefix = objects.stores.place(url)
    with translated(url, _UnnamableError):
        try:
            return obstore.list_with_delimiter(store, prefix.rstrip("/") or None)
        except InvalidPathError:
            raise _UnnamableError from None
