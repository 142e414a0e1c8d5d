"""What URLs name in object stores, made into handles: lazily, in the order of keys."""

from __future__ import annotations

import errno
from itertools import chain
from typing import TYPE_CHECKING

from asyncbatch.cloud.address import parse_address, shown_url
from asyncbatch.cloud.listing import list_objects
from asyncbatch.cloud.objects import Objects
from asyncbatch.errors import UsageError
from asyncbatch.object_path import ObjectPath
from asyncbatch.sources.patterns import Patterns, has_magic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cloud.address import Address
    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.sources.selection import Filter


class ObjectSearch:
    """Finds objects. A prefix stands for a folder, what is between slashes for names.

    Nothing but a page of a listing is held. Each handle tells what the listing told.
    """

    def __init__(self, settings: StoreSettings, wanted: Filter) -> None:
        self._objects, self._wanted = Objects(settings), wanted

    def of_argument(self, url: str, *, alone: bool) -> Iterator[ObjectPath]:
        """Yield what an argument names; if it is nothing, a handle that tells why.

        Raises UsageError for a URL that cannot be meant, and if the argument is `alone`, also
        for a store that cannot be used: then nothing is left to do.
        """
        address = parse_address(url)
        if has_magic(address.bucket) and not address.is_web:
            raise UsageError(f"{shown_url(url)}: the name of a bucket cannot be a pattern")
        self._objects.stores.place(url)
        found = self._of_argument(url, address)
        first = next(found, None)
        if first is None:
            return
        if alone and first.trouble is not None and not _is_of_one(first):
            raise UsageError(f"{shown_url(url)}: {first.trouble[1]}")
        yield from chain((first,), found)

    def listed(self, url: str) -> Iterator[ObjectPath]:
        """Yield what a list of inputs names: an object, or a prefix if a slash ends it."""
        if url.endswith("/") and not parse_address(url).is_web:
            yield from self._folder(url)
        elif not self._wanted.excludes(_name(url)):
            yield ObjectPath(url)

    def told(self, paths: list[str]) -> list[str]:
        """Return handles that tell in which state objects are, asked for if they did not."""
        asked = [path for path in paths if isinstance(path, ObjectPath) and _is_unknown(path)]
        found = {str(path): path for path in self._objects.heads(list(map(str, asked)))}
        return [found.get(path, path) for path in paths]

    def _of_argument(self, url: str, address: Address) -> Iterator[ObjectPath]:
        if address.is_web:
            yield from self.listed(url)
            return
        if address.key in ("", "/") or url.endswith("/"):
            yield from self._folder(url)
            return
        found = self._objects.head(url)
        if found.trouble is None:
            yield from () if self._wanted.excludes(_name(url)) else (found,)
        elif found.trouble[0] != errno.ENOENT:
            yield found
        elif has_magic(address.key):
            yield from self._globbed(address)
        else:  # a folder's name, or nothing's
            below = list_objects(self._objects, url + "/")
            first = next(below, None)
            if first is None:
                yield found
            elif first.trouble is not None:
                yield ObjectPath(url, trouble=first.trouble)
            else:
                yield from self._selected(chain((first,), below), len(url) + 1)

    def _folder(self, url: str) -> Iterator[ObjectPath]:
        url = url.rstrip("/") + "/"
        return self._selected(list_objects(self._objects, url), len(url))

    def _selected(self, found: Iterator[ObjectPath], start: int) -> Iterator[ObjectPath]:
        """Yield what is wanted of what is below a prefix of `start` characters."""
        wanted = self._wanted
        last, enters = "", True
        for path in found:
            folder, slash, name = path[start:].rpartition("/")
            below = folder + slash
            if below != last:
                last, enters = below, self._enters(below)
            if path.trouble is not None or (enters and name and wanted.takes_file(name, below)):
                yield path

    def _enters(self, below: str) -> bool:
        """Whether each folder of a path is to be looked into."""
        above = ""
        for name in below.split("/")[:-1]:
            if name and not self._wanted.enters(name, above):
                return False
            above += f"{name}/"
        return True

    def _globbed(self, address: Address) -> Iterator[ObjectPath]:
        """Yield what fits a pattern, and what is wanted of folders that fit it."""
        parts = address.key.split("/")
        first = next(place for place, part in enumerate(parts) if has_magic(part))
        root = "".join(f"{part}/" for part in parts[:first])
        start = len(str(address._replace(key=root)))
        pattern = "/".join(parts[first:])
        fits = Patterns([f"/{pattern}"]).fit
        shows_hidden = self._wanted.hidden or any(part[:1] == "." for part in parts[first:])
        for path in list_objects(self._objects, str(address._replace(key=root))):
            names = path[start:].split("/")
            if path.trouble is not None:
                yield path
                continue
            if not shows_hidden and any(name[:1] == "." for name in names):
                continue
            depth = next((n for n in range(1, len(names) + 1) if fits("/".join(names[:n]), "")), 0)
            if depth == len(names):
                if not self._wanted.excludes("/".join(names)):
                    yield path
            elif depth and not self._wanted.excludes("/".join(names[:depth])):
                yield from self._selected(iter((path,)), start + len("/".join(names[:depth])) + 1)


def _is_of_one(path: ObjectPath) -> bool:
    """Whether what went wrong is about one object: that is not there."""
    return path.trouble == (errno.ENOENT, "no such object")


def _is_unknown(path: ObjectPath) -> bool:
    return path.size is None and path.trouble is None


def _name(url: str) -> str:
    """Return the last name in a URL."""
    address = parse_address(url)
    path = address.bucket.partition("?")[0] if address.is_web else address.key
    return path.rpartition("/")[2]
