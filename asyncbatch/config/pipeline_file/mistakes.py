"""Mistakes in pipeline files, with their places."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.core.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.core.options import KeyPath

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Mistake(Struct, frozen=True):
    """A mistake in the file, and its key path."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.message}" if self.path else self.message


def first_mistakes(mistakes: list[Mistake]) -> list[Mistake]:
    """Return the first mistake of each value: one with a missing variable is also invalid."""
    first = {mistake.path: mistake for mistake in reversed(mistakes)}
    return [one for one in mistakes if first[one.path] is one]


def format_path(path: KeyPath) -> str:
    """Return a key path as text: `source[0].pagination.type`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = printable(key) if _BARE_KEY.fullmatch(key) else json.dumps(key)
            text += f".{shown}" if text else shown
    return text


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)` if one of the known words is much like this one."""
    near = difflib.get_close_matches(word.lower(), list(known), 1, 0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
