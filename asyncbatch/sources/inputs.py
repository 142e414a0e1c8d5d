"""Inputs as the user names them, and the search for their files."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from contextlib import nullcontext
from hashlib import blake2b
from itertools import chain, islice
from operator import attrgetter
from typing import IO, TYPE_CHECKING, NamedTuple

from msgspec import Struct

from asyncbatch.core.paths import is_archive_name, is_object_url, redact_url
from asyncbatch.core.records import STDIN
from asyncbatch.core.settings import MAX_UNPACKED_BYTES, StoreSettings
from asyncbatch.errors import UsageError
from asyncbatch.formats.positions import BOM
from asyncbatch.sources.identity import identity
from asyncbatch.sources.selection import (
    DEFAULT_PATTERNS,
    Filter,
    Selection,
    expand,
    has_magic,
    static_root,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncbatch.sources.gitignore import IgnoreRules
    from asyncbatch.sources.object_search import ObjectSearch
    from asyncbatch.sources.selection import Shard


class _Folder(NamedTuple):
    """A folder of the walk."""

    entries: Iterator[os.DirEntry[str]]  # the remaining ones
    below: str  # its path below the root
    file_id: tuple[int, int] | None  # device and inode; None if links are not followed
    rules: IgnoreRules | None  # None: nothing is ignored


def walk(root: str, wanted: Filter) -> Iterator[str]:
    """Yield the matching files below `root`, sorted within each folder, depth first.

    Memory holds the names of one folder and its parents. Only symbolic links need a stat call. The
    path of a folder that cannot be listed is yielded itself: opening it then fails with the
    reason. A link to a parent folder is not followed.
    """
    takes_file = wanted.takes_file
    rules = _rules_of(root) if wanted.gitignore else None
    levels: list[_Folder] = []
    to_list: tuple[str, str] | None = (root, "")
    while to_list or levels:
        if to_list:
            path, below = to_list
            to_list = None
            try:
                level = _list_folder(path, below, rules, with_file_id=wanted.follow_symlinks)
            except OSError:
                yield path
                continue
            if level.file_id is None or all(one.file_id != level.file_id for one in levels):
                levels.append(level)
            continue
        entries, below, _, rules = levels[-1]
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                if takes_file(entry.name, below):
                    yield entry.path
            elif _is_folder(entry, follow_links=wanted.follow_symlinks):
                if wanted.takes_folder(entry.name, below):
                    to_list = entry.path, f"{below}{entry.name}/"
                    rules = None if rules is None else rules.within(entry.path)
                    break
            elif entry.is_symlink() and _is_readable_link(entry) and takes_file(entry.name, below):
                yield entry.path
        else:
            levels.pop()


def _rules_of(root: str) -> IgnoreRules:
    from asyncbatch.sources.gitignore import IgnoreRules

    return IgnoreRules.of_root(root)


def _is_ignored(entry: os.DirEntry[str], rules: IgnoreRules) -> bool:
    """Whether git ignores an entry. For git, a link to a folder is no folder."""
    return rules.ignores(entry.name, is_folder=entry.is_dir(follow_symlinks=False))


def _list_folder(
    path: str, below: str, rules: IgnoreRules | None, *, with_file_id: bool
) -> _Folder:
    identity = None
    if with_file_id:
        status = os.stat(path)
        identity = status.st_dev, status.st_ino
    with os.scandir(path) as entries:
        kept = entries if rules is None else (e for e in entries if not _is_ignored(e, rules))
        found = sorted(kept, key=attrgetter("name"))
    return _Folder(iter(found), below, identity, rules)


def _is_folder(entry: os.DirEntry[str], *, follow_links: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow_links)
    except OSError:  # a link to itself: opening it as a file fails with the reason
        return False


def _is_readable_link(entry: os.DirEntry[str]) -> bool:
    """Whether a link leads to a file. True for a dead link: opening it gives the reason."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True


class Inputs(Struct, frozen=True):
    """All inputs that the user named. Call `check` first."""

    paths: tuple[str, ...] = ()  # folders, files, globs, URLs of objects and prefixes, `-`
    files_from: str | None = None  # a file that lists more inputs, `-` for standard input
    null: bool = False  # whether NUL bytes end the names in that list, instead of line ends
    selection: Selection = Selection()
    limit: int | None = None  # ends the search after this number of inputs
    root: str | None = None  # the folder to which identities are relative
    shard: Shard | None = None  # the part of the inputs, up to `limit`, that is processed
    stores: StoreSettings = StoreSettings()  # the connection to object stores
    max_unpacked: int = MAX_UNPACKED_BYTES  # the largest decompressed size of an archive, in bytes
    max_window: int | None = None  # bytes of a compressed archive's window; None: the default

    def check(self) -> None:
        """Raise UsageError for a contradiction."""
        if not self.paths and self.files_from is None:
            raise UsageError("no input: name a folder, a file, a glob, '-' or --files-from")
        if self.files_from == STDIN and STDIN in self.paths:
            raise UsageError("standard input cannot be both an input ('-') and --files-from -")
        if self.paths.count(STDIN) > 1:
            raise UsageError("standard input ('-') can be read only once")
        if any("\0" in path for path in self.paths):
            raise UsageError("a path cannot contain a NUL byte")
        if self.shard is not None:
            self.shard.check()
        if self.root is not None:
            self._check_root(self.root)
        if self.files_from is not None and self.files_from != STDIN:
            try:
                with open(self.files_from, "rb"):
                    pass
            except OSError as error:
                reason = error.strerror or str(error)
                raise UsageError(f"--files-from {self.files_from}: {reason}") from None

    def _check_root(self, root: str) -> None:
        """Raise UsageError for an argument that is not below the root.

        The paths in a list are checked later, when the list is read.
        """
        if not root or "\0" in root:
            raise UsageError(f"--root {root!r} is not a folder")
        for path in self.paths:
            identity(_part_without_wildcards(path), root)

    def identity(self, path: str) -> str:
        """Return the identity of an input. Raises UsageError if it is not below the root."""
        return identity(path, self.root)

    def is_in_shard(self, path: str) -> bool:
        """Whether an input is in the shard. Raises UsageError if it is not below the root."""
        return self.shard is None or self.shard.has(self.identity(path))

    @property
    def may_name_objects(self) -> bool:
        """Whether an input may be in an object store."""
        return self.files_from is not None or any(map(is_object_url, self.paths))

    @property
    def may_be_counted(self) -> bool:
        """Whether a second search costs little: no request to a store, and no archive to read."""
        return not (self.may_name_objects or STDIN in self.paths or self._may_have_members)

    def object_search(self) -> ObjectSearch:
        """Return a new search in object stores."""
        from asyncbatch.sources.object_search import ObjectSearch

        return ObjectSearch(self.stores, Filter(self.selection))

    def describe_empty(self) -> str:
        """Return the message for a search without a result, with advice."""
        where = " ".join(map(_display, self.paths)) or f"the list in {self.files_from}"
        patterns = self.selection.patterns
        names = "JSON files" if patterns == DEFAULT_PATTERNS else " or ".join(patterns)
        return (
            f"no {names} in {where} (--pattern selects other names, --hidden includes hidden ones, "
            "--allow-empty accepts an empty input)"
        )

    def find(self) -> Iterator[str]:
        """Return the paths in the shard, in the order of `find_all`."""
        return self.find_all() if self.shard is None else filter(self.is_in_shard, self.find_all())

    def find_all(self) -> Iterator[str]:
        """Return the paths of all shards, each once.

        The order is that of the arguments, and sorted within folders. A path that two arguments
        match comes with the first of them. Only arguments inside other arguments need memory for
        this. The order of a list is kept.
        """
        wanted = Filter(self.selection)
        objects = self.object_search() if self.may_name_objects else None
        alone = len(self.paths) == 1 and self.files_from is None

        def named(path: str) -> Iterator[str]:
            if objects is not None and is_object_url(path):
                return objects.find(path, is_only_argument=alone)
            return resolve_argument(path, wanted)

        found: Iterator[str] = chain.from_iterable(map(named, self.paths))
        contested = _overlapping(self.paths)
        if self.files_from is not None:
            listed = read_list(self.files_from, null=self.null)
            found = chain(
                found,
                chain.from_iterable(
                    objects.find_listed(path)
                    if objects is not None and is_object_url(path)
                    else _files_at(path, wanted)
                    for path in listed
                ),
            )
            # A list may name a file twice, or a folder and a file in it.
            found = _without_any_repeats(found)
        elif contested:
            found = _without_repeats(found, contested)
        return islice(self._with_members(found, wanted), self.limit)

    @property
    def _may_have_members(self) -> bool:
        is_default = self.selection.patterns == DEFAULT_PATTERNS
        named = any(map(_may_name_archive, self.paths))
        return not is_default or self.files_from is not None or named

    def _with_members(self, paths: Iterable[str], wanted: Filter) -> Iterable[str]:
        """Replace each archive by its members. Folders have archives only if a pattern says so."""
        if not self._may_have_members:
            return paths
        from asyncbatch.sources.archives import find_members, find_named_member

        members = wanted.for_members()

        def inputs_at(path: str) -> Iterable[str]:
            if is_object_url(path) or not _may_name_archive(path):
                return (path,)
            if not os.path.lexists(path):
                return (find_named_member(path),)
            if not is_archive_name(path):
                return (path,)
            return find_members(path, members, self.max_unpacked, self.max_window)

        return chain.from_iterable(map(inputs_at, paths))


def _may_name_archive(path: str) -> bool:
    """Whether an argument may lead to an archive, or to a member of one."""
    return has_magic(path) or any(map(is_archive_name, path.split("/")))


def resolve_argument(argument: str, wanted: Filter) -> Iterator[str]:
    """Yield the files of a folder, of a glob, or the path itself."""
    if has_magic(argument) and not os.path.lexists(argument):
        root = static_root(argument)
        for path in expand(argument, hidden=wanted.hidden):
            if not wanted.excludes(path.removeprefix(f"{root}/")) and not (
                wanted.gitignore and is_ignored_below(root, path)
            ):
                yield from _files_at(path, wanted)
    else:
        yield from _files_at(argument, wanted)


def is_ignored_below(root: str, path: str) -> bool:
    """Whether git ignores a path, or a folder above it and below `root`."""
    rules, folder = _rules_of(root), root
    names = os.path.relpath(path, root).split("/")
    for number, name in enumerate(names, 1):
        is_folder = number < len(names) or (os.path.isdir(path) and not os.path.islink(path))
        if rules.ignores(name, is_folder=is_folder):
            return True
        folder = os.path.join(folder, name)
        rules = rules.within(folder)
    return False


def _files_at(path: str, wanted: Filter) -> Iterator[str]:
    """Yield the files of a folder, or the path itself."""
    if path == STDIN:
        yield path
    elif os.path.isdir(path):
        yield from walk(path, wanted)
    elif not wanted.excludes(os.path.basename(path)):
        yield path


def _overlapping(arguments: Iterable[str]) -> set[str]:
    """Return the absolute paths below which a path may be found more than once.

    The causes are an argument inside another one, a repeated argument, and a glob with two `**`.
    """
    given = [argument for argument in arguments if argument != STDIN]
    roots = Counter(_absolute(_part_without_wildcards(argument)) for argument in given)
    nested = {
        root
        for root, times in roots.items()
        if times > 1 or any(above in roots for above in _folders_above(root))
    }
    ambiguous = {
        _part_without_wildcards(argument)
        for argument in given
        if argument.count("**") > 1 and not is_object_url(argument)
    }
    return nested | set(map(_absolute, ambiguous))


def _part_without_wildcards(argument: str) -> str:
    """Return the folder above the wildcards of an argument, or an argument without any."""
    is_pattern = has_magic(argument) and not argument.startswith(("http://", "https://"))
    return static_root(argument) if is_pattern else argument


def _absolute(path: str) -> str:
    """Return the absolute form of a path, the same for every spelling."""
    return path.rstrip("/") if is_object_url(path) else os.path.abspath(path)


def _display(path: str) -> str:
    return redact_url(path) if is_object_url(path) else path


def _folders_above(path: str) -> Iterator[str]:
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


def _without_repeats(paths: Iterable[str], overlapping: set[str]) -> Iterator[str]:
    """Drop repeated paths. Only paths in a contested folder are remembered."""
    seen: set[str] = set()
    for path in paths:
        full = _absolute(path)
        if full in overlapping or any(above in overlapping for above in _folders_above(full)):
            if full in seen:
                continue
            seen.add(full)
        yield path


# Paths of a list that are remembered in memory, 100 bytes each, and the cache for the others, which
# go to a temporary file. A list may have millions of names.
_REMEMBERED_PATHS = 50_000
_CACHE_KIB = 8 * 1024
_NOT_NORMAL = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")


def _without_any_repeats(paths: Iterable[str]) -> Iterator[str]:
    """Drop repeated paths, in bounded memory."""
    from asyncbatch.transforms.dedupe import DIGEST_BYTES, DigestSet

    here = os.getcwd() + "/"
    with DigestSet(_REMEMBERED_PATHS, _CACHE_KIB) as seen:
        for path in paths:
            full = path if path[0] == "/" or is_object_url(path) else here + path
            if _NOT_NORMAL.search(full, 1):
                full = _absolute(path)
            name = full.encode("utf-8", "surrogateescape")
            if seen.add_one(blake2b(name, digest_size=DIGEST_BYTES).digest()):
                yield path


def read_list(source: str, *, null: bool) -> Iterator[str]:
    """Yield the paths of a list lazily. Raises UsageError if NUL bytes separate its lines.

    Lists of other systems may begin with a byte order mark, and end lines by CR and LF.
    """
    separator = b"\0" if null else b"\n"
    with nullcontext(sys.stdin.buffer) if source == STDIN else open(source, "rb") as stream:
        entries = _split_list(stream, separator)
        if null:
            yield from map(os.fsdecode, filter(None, entries))
            return
        for number, entry in enumerate(entries):
            name = entry if number else _without(entry, entry.removeprefix(BOM))
            name = _without(name, name.removesuffix(b"\r"))
            if name:
                yield os.fsdecode(name)


def _without(entry: bytes, shorter: bytes) -> bytes:
    """Return `shorter`, unless a file is really named `entry`."""
    return entry if shorter != entry and os.path.lexists(entry) else shorter


def _split_list(stream: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield the entries of a list, also empty ones."""
    rest = b""
    while block := stream.read1(1 << 16):  # type: ignore[attr-defined]  # buffered readers have it
        *whole, rest = (rest + block).split(separator)
        if separator == b"\n" and b"\0" in block:
            raise UsageError("the list of files contains NUL bytes: read it with --null")
        yield from whole
    if rest:
        yield rest
