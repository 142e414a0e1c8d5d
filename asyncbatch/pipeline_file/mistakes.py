"""What is wrong with a pipeline file: where, and what to write instead."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from asyncbatch.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys, and the indices of arrays, that lead to a value."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 80


class Mistake(Struct, frozen=True):
    """One thing that is wrong, and the key path of where."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.message}" if self.path else self.message


class FromEnvironment(str):
    """A text with variables in it replaced; messages show it as it was `written`."""

    __slots__ = ("written",)
    written: str

    @classmethod
    def of(cls, text: str, written: str) -> FromEnvironment:
        """Return `text`, which stood as `written` in the file."""
        made = cls(text)
        made.written = written
        return made


def format_path(path: KeyPath) -> str:
    """Return a key path as people write it: `source[0].pagination.type`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = printable(key) if _BARE.fullmatch(key) else json.dumps(key)
            text += f".{shown}" if text else shown
    return text


def quoted(value: object) -> str:
    """Return a value as a message shows it: as it is written, cut if it is long.

    What a table or an array holds may be secret.
    """
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    if isinstance(value, FromEnvironment):
        value = value.written
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)` if one of the known words is much like this one."""
    near = difflib.get_close_matches(word.lower(), list(known), 1, 0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
