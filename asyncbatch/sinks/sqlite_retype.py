"""How the columns of an SQLite table are given other types."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.encode import encode
from asyncbatch.sinks.sql import quote
from asyncbatch.sinks.sqlite_table import columns_of, create

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from asyncbatch.sinks.sqlite_table import Column

_QUOTED = re.compile(
    r""""(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|$)""",
    re.DOTALL,
)
_SPECIAL = re.compile(
    r"\b(AS|AUTOINCREMENT|CHECK|COLLATE|CONFLICT|DEFAULT|DESC|FOREIGN|GENERATED|NOT|REFERENCES"
    r"|STRICT|UNIQUE|VIRTUAL|WITHOUT)\b",
    re.IGNORECASE,
)
"""What a table can have beside columns, types and a primary key."""
_ROWID_NAMES = ("rowid", "oid", "_rowid_")


class NotPlainError(Exception):
    """A table has more to it than can be carried over to a new one; the message says what."""


def retype(connection: sqlite3.Connection, table: str, types: Mapping[str, str]) -> None:
    """Give columns of a table other declared types, within a transaction.

    SQLite cannot do that, so a new table takes the place of the old: with its rows, row
    numbers, primary key, indexes and triggers. Numbers become text in their shortest exact form.
    Raises NotPlainError.
    """
    query = "SELECT type, sql FROM sqlite_schema WHERE lower(tbl_name) = lower(?) AND sql NOTNULL"
    definitions = connection.execute(query, (table,)).fetchall()
    sql = next(sql for kind, sql in definitions if kind == "table")
    if found := _SPECIAL.search(_QUOTED.sub(" ", sql)):
        raise NotPlainError(found[0].upper())
    columns = columns_of(connection, table)
    key = [column.name for column in sorted(columns, key=_key_place) if column.key_place]
    new = f"{table}.asyncbatch-rebuilt"
    create(connection, new, {c.name: types.get(c.name, c.declared) for c in columns}, key)
    connection.create_function("asyncbatch_text", 1, _as_text, deterministic=True)
    targets = [quote(column.name) for column in columns]
    values = [
        f"asyncbatch_text({quote(c.name)})" if types.get(c.name) == "TEXT" else quote(c.name)
        for c in columns
    ]
    taken = {column.name.lower() for column in columns}
    rowid = next((name for name in _ROWID_NAMES if name not in taken), None)
    if rowid and not _numbers_rows(columns):
        targets.append(rowid)
        values.append(rowid)
    selection = f"SELECT {', '.join(values)} FROM {quote(table)}"  # noqa: S608 - quoted
    connection.execute(f"INSERT INTO {quote(new)} ({', '.join(targets)}) {selection}")
    connection.execute(f"DROP TABLE {quote(table)}")
    connection.execute(f"ALTER TABLE {quote(new)} RENAME TO {quote(table)}")
    for kind, sql in definitions:
        if kind != "table":
            connection.execute(sql)


def _key_place(column: Column) -> int:
    return column.key_place


def _numbers_rows(columns: list[Column]) -> bool:
    """Whether one of the columns is the row number under another name."""
    key = [column for column in columns if column.key_place]
    return len(key) == 1 and key[0].declared.upper() == "INTEGER"


def _as_text(value: Any) -> Any:  # noqa: ANN401 - whatever SQLite holds
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return encode(value).decode() if isinstance(value, int | float) else value
