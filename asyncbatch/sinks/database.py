"""Names, as SQL databases take them."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def quote(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def quoted(names: Iterable[str]) -> str:
    """Return names as a list in SQL."""
    return ", ".join(map(quote, names))


def removal(table: str, names: Iterable[str]) -> str:
    """Return the statement that removes a row, given the values of the columns of these names."""
    same = " AND ".join(f"{quote(name)} = ?" for name in names)
    return f"DELETE FROM {quote(table)} WHERE {same}"  # noqa: S608 - quoted


def fold(name: str) -> str:
    """Return what is the same for names that SQLite and DuckDB take for one."""
    return name.translate(_LOWER)
