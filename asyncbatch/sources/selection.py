"""The selection of inputs: include and exclude patterns, and shards."""

from __future__ import annotations

import fnmatch
import os
import re
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.core.paths import is_archive_name
from asyncbatch.core.records import STDIN
from asyncbatch.errors import UsageError
from asyncbatch.formats.compression import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT_PATTERNS = tuple(
    f"*{ending}{suffix}" for ending in (".json", ".jsonl", ".ndjson") for suffix in ("", *SUFFIXES)
)
_WILDCARD = re.compile(r"[*?[]")


def has_magic(text: str) -> bool:
    """Whether `text` contains a wildcard, as in `glob.has_magic`."""
    return _WILDCARD.search(text) is not None


class Patterns:
    """A set of patterns. `fit(name, below)` returns whether one of them matches a name.

    `below` is the path of the name's folder below the argument: empty, or with `/` at its end.
    The default patterns match names of any case: many systems write `DATA.JSON`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        if tuple(patterns) == DEFAULT_PATTERNS:
            self.matches: Callable[[str, str], bool] = _has_json_ending
            return
        fits_name = _name_matcher([pattern for pattern in patterns if "/" not in pattern])
        paths = [_path_regex(pattern) for pattern in patterns if "/" in pattern]
        fits_path = re.compile("|".join(paths)).fullmatch

        def fit_either(name: str, below: str) -> bool:
            return fits_name(name, below) or fits_path(below + name) is not None

        self.matches = fit_either if paths else fits_name


_JSON_ENDINGS = tuple(pattern.removeprefix("*") for pattern in DEFAULT_PATTERNS)


def _has_json_ending(name: str, _: str) -> bool:
    return name.endswith(_JSON_ENDINGS) or name.lower().endswith(_JSON_ENDINGS)


def _name_matcher(patterns: Sequence[str]) -> Callable[[str, str], bool]:
    """Return a fast test of names. Most patterns need only `str.endswith`."""
    endings = tuple(p[1:] for p in patterns if p[:1] == "*" and not has_magic(p[1:]))
    others = [p for p in patterns if p[:1] != "*" or has_magic(p[1:])]
    if not others:
        return lambda name, _: name.endswith(endings)
    fits = re.compile("|".join(map(fnmatch.translate, others))).match
    return lambda name, _: name.endswith(endings) or fits(name) is not None


def _path_regex(pattern: str) -> str:
    """Translate a pattern with `/`. A leading or trailing `/` has no other effect."""
    regex = ""
    parts = pattern.strip("/").split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            regex += ".*" if last else "(?:[^/]+/)*"
        else:
            regex += _segment_regex(part) + ("" if last else "/")
    return f"(?:{regex})"


def _segment_regex(part: str) -> str:
    """Translate one path segment as `fnmatch` does, but without matches of `/`."""
    regex = ""
    at = 0
    while at < len(part):
        letter = part[at]
        at += 1
        if letter == "*":
            regex += "[^/]*"
        elif letter == "?":
            regex += "[^/]"
        elif letter == "[" and (end := part.find("]", at + 1 + (part[at : at + 1] == "!"))) > 0:
            body = part[at:end].replace("\\", "\\\\")
            regex += f"(?!/)[{'^' + body[1:] if body[0] == '!' else body}]"
            at = end + 1
        else:
            regex += re.escape(letter)
    return regex


def static_root(pattern: str) -> str:
    """Return the folder above all matches: the segments before the first wildcard."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")


def expand(pattern: str, *, hidden: bool) -> Iterator[str]:
    """Yield the paths that match `pattern`, sorted within each folder.

    `**` matches any number of folders; links are not followed. Unless `hidden`, a name with a
    leading dot matches only a segment with a leading dot.
    """
    root = "/" if pattern.startswith("/") else ""
    parts: list[str] = []
    for part in filter(None, pattern.split("/")):
        if part != "**" or parts[-1:] != ["**"]:  # `**/**` has the same meaning as `**`
            parts.append(part)
    yield from _expand_parts(root, parts, hidden=hidden)


def _expand_parts(base: str, parts: Sequence[str], *, hidden: bool) -> Iterator[str]:
    head, rest = parts[0], parts[1:]
    if not has_magic(head):
        path = base + head
        if not rest and os.path.lexists(path):
            yield path
        elif rest and os.path.isdir(path):
            yield from _expand_parts(path + "/", rest, hidden=hidden)
        return
    any_depth = head == "**"
    if any_depth and rest:
        yield from _expand_parts(base, rest, hidden=hidden)
    fits = Patterns([head]).matches
    for name, is_folder, is_link in _sorted_entries(base or "."):
        visible = hidden or name[0] != "." or head[0] == "."
        if not visible or not (any_depth or fits(name, "")):
            continue
        if any_depth and is_folder and not is_link:
            yield from _expand_parts(f"{base}{name}/", parts, hidden=hidden)
        elif not rest and not (any_depth and is_folder):
            yield base + name
        elif rest and not any_depth and is_folder:
            yield from _expand_parts(f"{base}{name}/", rest, hidden=hidden)


def _sorted_entries(folder: str) -> list[tuple[str, bool, bool]]:
    """Return (name, is folder, is link) of each entry; empty if listing fails."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
    except OSError:
        return []


class Selection(Struct, frozen=True):
    """The choice of files below a folder."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS  # of the files to read
    exclude: tuple[str, ...] = ()  # patterns of files and folders to leave out
    hidden: bool = False  # whether names with a leading dot are read
    follow_symlinks: bool = False  # whether links to folders are followed
    gitignore: bool = False  # whether files that git ignores are left out


class Filter:
    """A compiled `Selection`. `below` is the path of a name's folder below the argument."""

    hidden: bool
    gitignore: bool

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.follow_symlinks: bool = selection.follow_symlinks
        self.hidden, self.gitignore = selection.hidden, selection.gitignore
        wants = Patterns(selection.patterns).matches
        self._excludes = Patterns(selection.exclude).matches if selection.exclude else None

        def takes_visible(name: str, below: str) -> bool:
            return name[0] != "." and wants(name, below)

        def takes(name: str, below: str) -> bool:
            return wants(name, below) and self.takes_folder(name, below)

        quick = not selection.exclude and not selection.hidden
        # Whether a file matches. It is called for each file: the usual case has its own function.
        self.takes_file: Callable[[str, str], bool] = takes_visible if quick else takes

    def for_members(self) -> Filter:
        """Return the filter of the members of archives.

        Patterns that end as archives do select archives. The others select members; without
        others, members have the default patterns.
        """
        patterns = tuple(one for one in self._selection.patterns if not is_archive_name(one))
        return Filter(replace(self._selection, patterns=patterns or DEFAULT_PATTERNS))

    def takes_folder(self, name: str, below: str) -> bool:
        """Whether to search the folder `name`."""
        if name[0] == "." and not self.hidden:
            return False
        return self._excludes is None or not self._excludes(name, below)

    def excludes(self, path: str) -> bool:
        """Whether `path`, relative to its argument, or a folder above it is excluded."""
        excludes = self._excludes
        if excludes is None:
            return False
        parts = path.split("/")
        folders = accumulate(parts[:-1], lambda above, part: f"{above}{part}/", initial="")
        return any(map(excludes, parts, folders))


_SHARD_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_HASH_PERSON = b"asyncbatch-shard"  # makes the hash independent of other hashes of the same names


class Shard(Struct, frozen=True):
    """One of several disjoint parts of the inputs.

    Each input is in exactly one shard. The shard depends only on a hash of the identity: not on
    other inputs, the machine, or the version.
    """

    index: int  # from 1 to `count`
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of `I/N`. Raises UsageError with the accepted form."""
        match = _SHARD_TEXT.fullmatch(text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        try:
            shard.check()
        except UsageError:
            raise UsageError(f"{text!r} is not a shard: write I/N, 1/3 to 3/3 for three") from None
        return shard

    def check(self) -> None:
        """Raise UsageError if `index` is not between 1 and `count`."""
        if not 1 <= self.index <= self.count:
            raise UsageError(f"there is no shard {self}: the first is 1/N, the last N/N")

    def has(self, identity: str) -> bool:
        """Whether the input with this identity is in this shard.

        Standard input is in the first shard.
        """
        if identity == STDIN:
            return self.index == 1
        name = identity.encode("utf-8", "surrogateescape")
        number = int.from_bytes(blake2b(name, digest_size=8, person=_HASH_PERSON).digest())
        return number % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
