"""Include/exclude globs and shards."""

from __future__ import annotations

import fnmatch
import os
import re
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import Struct

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
    """Whether `text` holds a character that makes it a pattern."""
    return _WILDCARD.search(text) is not None


class Patterns:
    """A set of patterns; `fit(name, below)` says whether one fits a name in a folder.

    `below` is that folder's path below the argument: empty, or ending in `/`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        fits_name = _name_matcher([pattern for pattern in patterns if "/" not in pattern])
        paths = [_path_regex(pattern) for pattern in patterns if "/" in pattern]
        fits_path = re.compile("|".join(paths)).fullmatch

        def fit_either(name: str, below: str) -> bool:
            return fits_name(name, below) or fits_path(below + name) is not None

        self.matches: Callable[[str, str], bool] = fit_either if paths else fits_name


def _name_matcher(patterns: Sequence[str]) -> Callable[[str, str], bool]:
    """Return the quickest test of a name that there is; most patterns only ask for an ending."""
    endings = tuple(p[1:] for p in patterns if p[:1] == "*" and not has_magic(p[1:]))
    others = [p for p in patterns if p[:1] != "*" or has_magic(p[1:])]
    if not others:
        return lambda name, _: name.endswith(endings)
    fits = re.compile("|".join(map(fnmatch.translate, others))).match
    return lambda name, _: name.endswith(endings) or fits(name) is not None


def _path_regex(pattern: str) -> str:
    """Translate a pattern with `/`; a leading or trailing one only says that it is a path."""
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
    """Translate one segment: `fnmatch`'s meaning, but nothing in it matches `/`."""
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
    """Return the folder above all matches of `pattern`: its part without wildcards."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")


def expand(pattern: str, *, hidden: bool) -> Iterator[str]:
    """Yield the paths that fit `pattern`, sorted within each folder.

    `**` is any number of folders, links not followed. Unless `hidden`, a name that begins
    with a dot fits only a segment that does.
    """
    root = "/" if pattern.startswith("/") else ""
    parts: list[str] = []
    for part in filter(None, pattern.split("/")):
        if part != "**" or parts[-1:] != ["**"]:  # two in a row mean the same as one
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
    """Return name, is-folder, is-link of each entry; none if the folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
    except OSError:
        return []


class Selection(Struct, frozen=True):
    """The patterns of the user: files to take, files to exclude, hidden names, links."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_symlinks: bool = False


class Filter:
    """A compiled `Selection`. `below` is the path of a name's folder below the argument."""

    def __init__(self, selection: Selection) -> None:
        self.follow_symlinks = selection.follow_symlinks
        self.hidden = selection.hidden
        wants = Patterns(selection.patterns).matches
        self._excludes = Patterns(selection.exclude).matches if selection.exclude else None

        def takes_visible(name: str, below: str) -> bool:
            return name[0] != "." and wants(name, below)

        def takes(name: str, below: str) -> bool:
            return wants(name, below) and self.takes_folder(name, below)

        quick = not selection.exclude and not selection.hidden
        self.takes_file: Callable[[str, str], bool] = takes_visible if quick else takes
        """whether a file matches; called for each file, so it is one function"""

    def takes_folder(self, name: str, below: str) -> bool:
        """Whether to search a folder."""
        if name[0] == "." and not self.hidden:
            return False
        return self._excludes is None or not self._excludes(name, below)

    def excludes(self, path: str) -> bool:
        """Whether a named path, `path` below its argument, or a folder above it is excluded."""
        excludes = self._excludes
        if excludes is None:
            return False
        parts = path.split("/")
        folders = accumulate(parts[:-1], lambda above, part: f"{above}{part}/", initial="")
        return any(map(excludes, parts, folders))


_SHARD_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_HASH_PERSON = b"asyncbatch-shard"  # so that no other hash of the same names goes along with it


class Shard(Struct, frozen=True):
    """Shard number `index` of `count`, counted from 1.

    Each input is in exactly one shard. The shard is a hash of the identity alone: it does not
    depend on other inputs, the machine, or the version.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of `I/N`. Raises UsageError with the accepted form."""
        match = _SHARD_TEXT.fullmatch(text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        try:
            shard.check()
        except UsageError:
            raise UsageError(f"{text!r} is no shard: write I/N, 1/3 to 3/3 for three") from None
        return shard

    def check(self) -> None:
        """Raise UsageError if there is no shard of this number."""
        if not 1 <= self.index <= self.count:
            raise UsageError(f"there is no shard {self}: the first is 1/N, the last N/N")

    def has(self, identity: str) -> bool:
        """Whether the input of this identity is in this shard. Standard input is in the first."""
        if identity == STDIN:
            return self.index == 1
        name = identity.encode("utf-8", "surrogateescape")
        number = int.from_bytes(blake2b(name, digest_size=8, person=_HASH_PERSON).digest())
        return number % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
