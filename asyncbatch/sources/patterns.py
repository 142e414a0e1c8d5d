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
    """A set of patterns; `fit(name, below)` says whether one fits a name in a folder.

    `below` is that folder's path below the argument: empty, or ending in `/`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        fits_name = _name_matcher([pattern for pattern in patterns if "/" not in pattern])
        paths = [_path_regex(pattern) for pattern in patterns if "/" in pattern]
        fits_path = re.compile("|".join(paths)).fullmatch

        def fit_either(name: str, below: str) -> bool:
            return fits_name(name, below) or fits_path(below + name) is not None

        self.fit: Callable[[str, str], bool] = fit_either if paths else fits_name


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
