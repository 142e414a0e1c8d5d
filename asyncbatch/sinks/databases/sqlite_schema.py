"""The schemas of SQLite tables: columns, keys, new types."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asyncbatch.sinks.columns.block import plain_texts
from asyncbatch.sinks.databases.sql import creation, quote, quoted, replacement

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.columns.block import ColumnKind

# The type affinity of a column, by which SQLite converts its values.
Affinity = Literal["integer", "real", "text", "numeric", "none"]

TYPES: dict[ColumnKind, str] = {
    "null": "",
    "boolean": "BOOLEAN",
    "integer": "INTEGER",
    "real": "REAL",
    "text": "TEXT",
}
_KINDS: dict[Affinity, ColumnKind] = {"integer": "integer", "real": "real", "text": "text"}
# SQLite has no booleans. Python stores them as 1 and 0; the declared type says what they are.
_BOOLEANS = ("BOOLEAN", "BOOL")
# Parts of a declared type and their affinity, as in the manual of SQLite. The first match decides.
_AFFINITIES: tuple[tuple[str, Affinity], ...] = (
    ("INT", "integer"),
    ("CHAR", "text"),
    ("CLOB", "text"),
    ("TEXT", "text"),
    ("BLOB", "none"),
    ("REAL", "real"),
    ("FLOA", "real"),
    ("DOUB", "real"),
)


class SqliteColumn(NamedTuple):
    """A column of a table."""

    name: str
    declared: str  # its declared type
    key_place: int  # its position in the primary key, from 1; 0: not in the key
    is_generated: bool
    has_default: bool

    @property
    def affinity(self) -> Affinity:
        """The affinity of the declared type."""
        if not self.declared:
            return "none"
        upper = self.declared.upper()
        return next((affinity for part, affinity in _AFFINITIES if part in upper), "numeric")

    @property
    def kind(self) -> ColumnKind:
        """The kind of its values."""
        if self.declared.upper() in _BOOLEANS:
            return "boolean"
        return _KINDS.get(self.affinity, "any")


def relation_kind(connection: sqlite3.Connection, name: str) -> str | None:
    """Return the kind of the object `name` ("table", "view", ...), or None."""
    query = "SELECT type FROM sqlite_schema WHERE lower(name) = lower(?)"
    row = connection.execute(query, (name,)).fetchone()
    return None if row is None else str(row[0])


def columns_of(connection: sqlite3.Connection, table: str) -> list[SqliteColumn]:
    """Return the columns of a table; an empty list if there is no table."""
    fields = "name, type, pk, hidden <> 0, dflt_value NOTNULL"
    query = f"SELECT {fields} FROM pragma_table_xinfo(?) WHERE hidden <> 1"  # noqa: S608 - constants
    return [SqliteColumn(*row) for row in connection.execute(query, (table,))]


def insertion(
    table: str,
    names: Sequence[str],
    key: Sequence[str] = (),
    replaced: Iterable[str] = (),
    *,
    aborts: bool = False,
) -> str:
    """Return the statement that inserts a row with these columns into a table (quoted).

    With a key, an existing row gets the new values of the columns `replaced`. If it `aborts`, a row
    that breaks a constraint is an error, whatever the constraint says.
    """
    places = ", ".join("?" * len(names))
    values = f"({quoted(names)}) VALUES ({places})" if names else "DEFAULT VALUES"
    verb = "INSERT OR ABORT" if aborts else "INSERT"
    return f"{verb} INTO {table} {values}{replacement(key, replaced) if key else ''}"


# Quoted names, strings and comments in SQL.
_QUOTED = re.compile(
    r""""(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|$)""",
    re.DOTALL,
)
# Features of a table other than columns, types and a primary key. `retype` would lose them.
_SPECIAL = re.compile(
    r"\b(AS|AUTOINCREMENT|CHECK|COLLATE|CONFLICT|DEFAULT|DESC|FOREIGN|GENERATED|NOT|REFERENCES"
    r"|STRICT|UNIQUE|VIRTUAL|WITHOUT)\b",
    re.IGNORECASE,
)
# Those of them that a definition with another name and other types would change, or not copy.
_UNCOPIED = re.compile(
    r"\b(AS|AUTOINCREMENT|FOREIGN|GENERATED|REFERENCES|STRICT|VIRTUAL|WITHOUT)\b", re.IGNORECASE
)
_ROWID_NAMES = ("rowid", "oid", "_rowid_")


_DEFINITION = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"


def has_policies(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a constraint of a table says what happens to rows that break it (ON CONFLICT)."""
    found = connection.execute(_DEFINITION, (table,)).fetchone()
    bare = "" if found is None else _QUOTED.sub(" ", found[0])
    return re.search(r"\bCONFLICT\b", bare, re.IGNORECASE) is not None


def fixed_columns(
    connection: sqlite3.Connection, table: str, columns: Iterable[SqliteColumn]
) -> dict[str, str]:
    """Return the columns of a table whose types `retype` cannot change, with the reasons."""
    found = connection.execute(_DEFINITION, (table,)).fetchone()
    feature = found and _special_feature(found[0])
    if not feature:
        return {}
    reason = f"SQLite cannot change the types of a table that has {feature} in its definition"
    kept = {one.name: (one.declared, one.declared) for one in columns}
    fixed = [name for name, types in kept.items() if not _edited(found[0], "", {name: types})]
    return dict.fromkeys(fixed, reason)


def _special_feature(sql: str) -> str | None:
    """Return the first word of a table's definition that `retype` cannot copy, or None."""
    special = _SPECIAL.search(_QUOTED.sub(" ", sql))
    if not special:
        return None
    word: str = special[0].upper()
    return "NOT NULL" if word == "NOT" else word


class NotRetypableError(Exception):
    """A table has a feature that `retype` cannot copy. The message names it."""


def retype(
    connection: sqlite3.Connection, table: str, types: Mapping[str, str], *, by_name: bool = False
) -> None:
    """Change the declared types of columns; put them in the order of their names if `by_name`.

    Call it within a transaction.

    SQLite has no statement for this. A new table replaces the old one, with its rows, row ids,
    primary key, indexes and triggers. Numbers become text in their shortest exact form. Raises
    NotRetypableError.
    """
    query = "SELECT type, sql FROM sqlite_schema WHERE lower(tbl_name) = lower(?) AND sql NOTNULL"
    definitions = connection.execute(query, (table,)).fetchall()
    sql = next(sql for kind, sql in definitions if kind == "table")
    columns = columns_of(connection, table)
    if by_name:
        columns.sort(key=lambda column: column.name)
    key = [column.name for column in sorted(columns, key=_key_place) if column.key_place]
    new = f"{table}.asyncbatch-rebuilt"
    feature = _special_feature(sql)
    if feature is None:
        declared = {c.name: types.get(c.name, c.declared) for c in columns}
        connection.execute(creation(quote(new), declared, key))
    elif edited := _edited(sql, new, {c.name: (c.declared, types.get(c.name)) for c in columns}):
        connection.execute(edited)
    else:
        raise NotRetypableError(feature)
    connection.create_function("asyncbatch_text", 2, _as_text, deterministic=True)
    targets = [quote(column.name) for column in columns]
    values = [
        f"asyncbatch_text({quote(c.name)}, {c.kind == 'boolean'})"
        if types.get(c.name) == "TEXT"
        else quote(c.name)
        for c in columns
    ]
    # A column may hide one of the names of the row id.
    used = {column.name.lower() for column in columns}
    rowid = next((name for name in _ROWID_NAMES if name not in used), None)
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


def _edited(sql: str, name: str, types: Mapping[str, tuple[str, str | None]]) -> str | None:
    """Return the definition of a table with another name and other types, or None.

    `types` has the old type of each column and the new one. Only columns that have a name in
    quotes, a type and nothing else, as those that a sink has added, get new types.
    """
    bare = _QUOTED.sub(lambda found: " " * len(found[0]), sql)
    if _UNCOPIED.search(bare):
        return None
    places = {found[0]: found.end() for found in _QUOTED.finditer(sql)}
    edits: list[tuple[int, str, str]] = []
    for column, (old, new) in types.items():
        at = places.get(quote(column), len(sql)) + 1
        if new is None:
            continue
        if not re.fullmatch(rf"{re.escape(old)}\s*[,)]", re.split(r"(?<=[,)])", bare[at:])[0]):
            return None
        edits.append((at, old, new))
    for at, old, new in sorted(edits, reverse=True):
        sql = sql[:at] + new + sql[at + len(old) :]
    return f"CREATE TABLE {quote(name)} {sql[bare.index('(') :]}"


def _key_place(column: SqliteColumn) -> int:
    return column.key_place


def _numbers_rows(columns: list[SqliteColumn]) -> bool:
    """Whether a column is an alias of the row id (INTEGER PRIMARY KEY)."""
    key = [column for column in columns if column.key_place]
    return len(key) == 1 and key[0].declared.upper() == "INTEGER"


def _as_text(value: Json, is_boolean: int) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if is_boolean and value in (0, 1):
        return "true" if value else "false"
    return plain_texts([value], "number")[0] if isinstance(value, int | float) else value
