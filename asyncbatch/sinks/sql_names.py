"""Names in SQL: quoting and folding, and the statement that deletes a row."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# SQLite and DuckDB ignore the case of ASCII letters only.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def quote(name: str) -> str:
    """Return a name in double quotes. Quotes in the name are doubled."""
    return '"' + name.replace('"', '""') + '"'


def quoted(names: Iterable[str]) -> str:
    """Return quoted names, separated by commas."""
    return ", ".join(map(quote, names))


def removal(table: str, names: Iterable[str]) -> str:
    """Return the statement that deletes a row by the values of these columns."""
    same = " AND ".join(f"{quote(name)} = ?" for name in names)
    return f"DELETE FROM {quote(table)} WHERE {same}"  # noqa: S608 - quoted


def fold(name: str) -> str:
    """Return a text that is equal for names that SQLite and DuckDB treat as equal."""
    return name.translate(_LOWER)
