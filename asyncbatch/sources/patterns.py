"""Glob patterns as the command line means them.

A pattern without `/` is matched against a name, one with `/` against the path below the
argument. `*`, `?` and `[...]` do not cross `/`; `**` stands for any number of folders.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from asyncbatch.codec.compression import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_PATTERNS = tuple(
    f"*{ending}{suffix}" for ending in (".json", ".jsonl", ".ndjson") for suffix in ("", *SUFFIXES)
)
_MAGIC = re.compile(r"[*?[]")


def has_magic(text: str) -> bool:
    """Whether `text` holds a character that makes it a pattern."""
    return _MAGIC.search(text) is not None


class Patterns:
    """A set of patterns that says whether any of them fits."""

    def __init__(self, patterns: Sequence[str]) -> None:
        names = [pattern for pattern in patterns if "/" not in pattern]
        self._fits_name = _name_matcher(names)
        paths = [_path_regex(pattern) for pattern in patterns if "/" in pattern]
        self._path = re.compile("|".join(paths)) if paths else None

    @property
    def by_path(self) -> bool:
        """Whether any pattern wants the path, not the name alone."""
        return self._path is not None

    def fit(self, name: str, below: str) -> bool:
        """Whether a pattern fits `name`, or `below`, the path below the argument."""
        if self._fits_name(name):
            return True
        return self._path is not None and self._path.fullmatch(below) is not None


def _name_matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return the quickest test there is; most patterns only ask for an ending."""
    endings = tuple(p[1:] for p in patterns if p[:1] == "*" and not has_magic(p[1:]))
    others = [p for p in patterns if p[:1] != "*" or has_magic(p[1:])]
    if not others:
        return lambda name: name.endswith(endings)
    fits = re.compile("|".join(map(fnmatch.translate, others))).match
    return lambda name: name.endswith(endings) or fits(name) is not None


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
