"""The search in object stores: URLs and globs to object paths, in the order of keys."""

from __future__ import annotations

import errno
from itertools import chain
from typing import TYPE_CHECKING

from asyncbatch.core.paths import ObjectPath, parse_address, redact_url
from asyncbatch.errors import UsageError
from asyncbatch.sources.selection import Patterns, has_magic
from asyncbatch.storage.listing import list_folder, list_objects
from asyncbatch.storage.objects import ObjectReader
from asyncbatch.storage.store_errors import NO_OBJECT_MESSAGE, ObjectError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.paths import Address
    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.sources.selection import Filter


class ObjectSearch:
    """Finds objects lazily. Prefixes are treated as folders, text between slashes as names.

    Memory holds one page of a listing. Each path has the size and ETag of the listing, or the
    problem.
    """

    def __init__(self, settings: StoreSettings, wanted: Filter) -> None:
        self._objects, self._wanted = ObjectReader(settings), wanted

    def find(self, url: str, *, is_only_argument: bool) -> Iterator[ObjectPath]:
        """Yield the objects of an argument, or a path with the problem.

        Raises UsageError for an invalid URL. If `is_only_argument`, an unusable store raises
        UsageError too.
        """
        address = parse_address(url)
        if has_magic(address.bucket) and not address.is_web:
            raise UsageError(f"{redact_url(url)}: the name of a bucket cannot contain wildcards")
        self._objects.check(url)
        found = self._find_argument(url, address)
        first = next(found, None)
        if first is None:
            return
        if is_only_argument and first.problem is not None and _concerns_whole_url(first, url):
            raise UsageError(f"{redact_url(url)}: {first.problem[1]}")
        yield from chain((first,), found)

    def find_listed(self, url: str) -> Iterator[ObjectPath]:
        """Yield the objects of a listed URL: an object, or a prefix if it ends with a slash."""
        try:
            address = parse_address(url)
        except UsageError as error:
            yield ObjectPath(url, problem=(errno.EINVAL, str(error)))
            return
        if url.endswith("/") and not address.is_web:
            yield from self._list_prefix(url)
        elif not self._wanted.excludes(_last_name(address)):
            yield ObjectPath(url)

    def with_metadata(self, paths: list[str]) -> list[str]:
        """Return paths with size and ETag; request them for objects without a listing."""
        unknown = [path for path in paths if isinstance(path, ObjectPath) and _lacks_metadata(path)]
        found = {str(path): path for path in self._objects.heads(list(map(str, unknown)))}
        return [found.get(path, path) for path in paths]

    def _find_argument(self, url: str, address: Address) -> Iterator[ObjectPath]:
        if address.is_web:
            yield from self.find_listed(url)
            return
        if address.key in ("", "/") or url.endswith("/"):
            yield from self._list_prefix(url)
            return
        found = self._objects.head(url)
        if found.problem is None:
            yield from () if self._wanted.excludes(_last_name(address)) else (found,)
        elif found.problem[0] != errno.ENOENT:
            yield found
        elif has_magic(address.key):
            parts = [part for part in address.key.split("/") if part]
            yield from self._glob(str(address._replace(key="")), parts)
        else:  # the name of a folder, or nothing has this name
            below = list_objects(self._objects, url + "/")
            first = next(below, None)
            if first is None:
                yield found
            elif first.problem is not None:
                yield ObjectPath(url, problem=first.problem)
            else:
                yield from self._matching(chain((first,), below), len(url) + 1)

    def _list_prefix(self, url: str) -> Iterator[ObjectPath]:
        url = url.rstrip("/") + "/"
        return self._matching(list_objects(self._objects, url), len(url))

    def _matching(self, found: Iterator[ObjectPath], start: int) -> Iterator[ObjectPath]:
        """Yield the objects that the selection matches below a prefix of `start` characters."""
        wanted = self._wanted
        last, enters = "", True
        for path in found:
            folder, slash, name = path[start:].rpartition("/")
            below = folder + slash
            if below != last:
                last, enters = below, self._takes_folders(below)
            if path.problem is not None or (enters and name and wanted.takes_file(name, below)):
                yield path

    def _takes_folders(self, below: str) -> bool:
        """Whether the selection enters each folder of the path `below`."""
        above = ""
        for name in below.split("/")[:-1]:
            if name and not self._wanted.takes_folder(name, above):
                return False
            above += f"{name}/"
        return True

    def _glob(self, base: str, parts: Sequence[str], below: str = "") -> Iterator[ObjectPath]:
        """Yield the objects that match a pattern below `base`, and those in matching folders.

        Without `**` it lists folder by folder. `below` is the path of `base` in the bucket.
        """
        head, rest = parts[0], parts[1:]
        if head == "**":
            yield from self._glob_recursive(base, parts, below)
            return
        if not has_magic(head) and rest:
            yield from self._glob(f"{base}{head}/", rest, f"{below}{head}/")
            return
        fits = Patterns([head]).matches
        try:
            entries = list_folder(self._objects, base)
        except ObjectError as error:
            yield ObjectPath(base, problem=(error.errno or errno.EINVAL, str(error)))
            return
        for entry, found in entries:
            name = entry.rstrip("/")
            visible = self._wanted.hidden or name[0] != "." or head[0] == "."
            if not visible or not fits(name, "") or self._wanted.excludes(below + name):
                continue
            if found is None and rest:
                yield from self._glob(base + entry, rest, below + entry)
            elif found is None:
                yield from self._list_prefix(base + entry)
            elif not rest:
                yield found

    def _glob_recursive(self, base: str, parts: Sequence[str], below: str) -> Iterator[ObjectPath]:
        """Yield the objects below `base` that match a pattern with a leading `**`."""
        fits = Patterns(["/" + "/".join(parts)]).matches
        shows_hidden = self._wanted.hidden or any(part[0] == "." for part in parts)
        for path in list_objects(self._objects, base):
            name = path[len(base) :]
            hides = not shows_hidden and ("/." in name or name[:1] == ".")
            fit = not hides and fits(name, "") and not self._wanted.excludes(below + name)
            if fit or path.problem is not None:
                yield path


def _concerns_whole_url(path: ObjectPath, url: str) -> bool:
    """Whether the problem concerns the whole URL and is not a missing object."""
    return url.startswith(path.rstrip("/")) and path.problem != (errno.ENOENT, NO_OBJECT_MESSAGE)


def _lacks_metadata(path: ObjectPath) -> bool:
    return path.size is None and path.problem is None


def _last_name(address: Address) -> str:
    """Return the last path segment of a URL."""
    path = address.bucket.partition("?")[0] if address.is_web else address.key
    return path.rpartition("/")[2]
