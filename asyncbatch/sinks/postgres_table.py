"""How PostgreSQL describes tables, and the statements that make and change them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.sinks.postgres_times import MARK, TIME
from asyncbatch.sinks.sql import quote, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.sinks.block import Kind
    from asyncbatch.sinks.columns import ColumnKind
    from asyncbatch.sinks.postgres_server import Connection

MOST_COLUMNS = 1600
MOST_NAME_BYTES = 63
TYPES: dict[Kind, str] = {
    "null": "text",
    "boolean": "boolean",
    "integer": "bigint",
    "real": "double precision",
    "numeric": "numeric",
    "text": "text",
    "json": "jsonb",
    "mixed": "text",
}
KINDS: dict[str, ColumnKind] = {
    "boolean": "boolean",
    "bigint": "integer",
    "double precision": "real",
    "numeric": "numeric",
    "text": "text",
    "character varying": "text",
    TIME: "text",
}
"""Of types that widen; all others take what they can."""
_SYSTEM_COLUMNS = frozenset(("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"))
_EXACT = 2**53
_QUOTES = "$asyncbatch$"
"""What stands around a script in a script; no name has it but on purpose."""


class Name(NamedTuple):
    """A table's name, in a schema or where the server looks for it."""

    schema: str | None
    table: str

    @classmethod
    def parse(cls, text: str) -> Name:
        """Return the name of TABLE or SCHEMA.TABLE."""
        schema, dot, table = text.partition(".")
        return cls(schema, table) if dot else cls(None, text)

    @property
    def sql(self) -> str:
        """The name as SQL takes it."""
        return quoted(filter(None, self)).replace('", "', '"."')

    def beside(self, what: str) -> Name:
        """Return the name of something that belongs to the table."""
        ending = f".asyncbatch-{what}"
        room = MOST_NAME_BYTES - len(ending)
        raw = self.table.encode()
        if len(raw) <= room:
            return self._replace(table=self.table + ending)
        digest = hashlib.blake2b(raw, digest_size=4).hexdigest()
        cut = raw[: room - len(digest) - 1].decode(errors="ignore")
        return self._replace(table=f"{cut}~{digest}{ending}")


class Column(NamedTuple):
    """A column of a table; `takes_values` unless the table makes them itself.

    `declared` is its type as the server calls it, `TIME` if it was made for times.
    """

    name: str
    declared: str
    takes_values: bool


def flaw(name: str) -> str | None:
    """Return what is wrong with the name of a column, if anything is."""
    if not name:
        return "PostgreSQL takes no empty name"
    if "\0" in name:
        return "PostgreSQL takes no NUL character in a name"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "its name is no text: it has half of a surrogate pair"
    if size > MOST_NAME_BYTES:
        return f"PostgreSQL would cut its name, which has {size} bytes, to {MOST_NAME_BYTES}"
    return "PostgreSQL has a column of that name in each table" if name in _SYSTEM_COLUMNS else None


def find(connection: Connection, name: Name) -> tuple[int, str, str] | None:
    """Return the number, the kind and the schema of what has this name, if anything has.

    Kinds are "r" and "p" for tables, others for what is none.
    """
    query = (
        "SELECT c.oid::bigint, c.relkind::text, n.nspname::text FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)"
    )
    rows = connection.fetch(query, name.sql)
    return tuple(rows[0]) if rows else None


def locking(name: Name) -> str:
    """Return the statement that keeps a table as it is till the transaction ends, if it exists."""
    statement = f"LOCK TABLE {name.sql} IN ROW EXCLUSIVE MODE"
    literals = [text.replace("'", "''") for text in (name.sql, statement)]
    body = f"IF to_regclass('{literals[0]}') IS NOT NULL THEN EXECUTE '{literals[1]}'; END IF;"
    return f"DO {_QUOTES} BEGIN {body} END {_QUOTES}"


def columns_of(connection: Connection, name: Name) -> tuple[int | None, list[Column], int]:
    """Return a table's number and columns, and how many there were that count but are gone.

    There is no number if there is no such table.
    """
    query = (
        "SELECT attrelid::bigint, attname::text, format_type(atttypid, atttypmod),"
        " attgenerated = '' AND attidentity <> 'a', attisdropped,"
        " atttypid = 'timestamptz'::regtype AND col_description(attrelid, attnum) = $2"
        " FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 ORDER BY attnum"
    )
    rows = connection.fetch(query, name.sql, MARK)
    there = [Column(row[1], TIME if row[5] else row[2], row[3]) for row in rows if not row[4]]
    return rows[0][0] if rows else None, there, len(rows) - len(there)


def create(
    connection: Connection, table: Name, types: Mapping[str, str], key: Sequence[str]
) -> None:
    """Create a table with columns of these types."""
    parts = [f"{quote(name)} {declared}" for name, declared in types.items()]
    if key:
        parts.append(f"PRIMARY KEY ({quoted(key)})")
    connection.execute(f"CREATE TABLE {table.sql} ({', '.join(parts)})")


def has_unique_key(connection: Connection, table: int, key: Sequence[str]) -> bool:
    """Whether an index sees to it that no two rows share these columns, at any time."""
    query = (
        "SELECT 1 FROM pg_index i WHERE indrelid = $1::bigint::oid AND indisunique AND indisvalid"
        " AND indimmediate AND indpred IS NULL AND indexprs IS NULL AND (SELECT"
        ' array_agg(attname::text ORDER BY attname::text COLLATE "C") FROM pg_attribute'
        " WHERE attrelid = i.indrelid AND attnum = ANY((indkey::int2[])[0:indnkeyatts - 1])) = $2"
    )
    return bool(connection.fetch(query, table, sorted(key, key=str.encode)))


def has_repeated_key(connection: Connection, table: Name, key: Sequence[str]) -> bool:
    """Whether any two rows share these columns now."""
    there = " AND ".join(f"{quote(name)} IS NOT NULL" for name in key)
    query = f"SELECT 1 FROM {table.sql} WHERE {there} GROUP BY {quoted(key)}"  # noqa: S608 - quoted
    return bool(connection.fetch(f"{query} HAVING count(*) > 1 LIMIT 1"))


def has_only_exact(connection: Connection, table: Name, column: str) -> bool:
    """Whether the integers in a column all are double precision numbers too."""
    query = (
        f"SELECT 1 FROM {table.sql} WHERE {quote(column)}"  # noqa: S608 - quoted
        f" NOT BETWEEN {-_EXACT} AND {_EXACT} LIMIT 1"
    )
    return not connection.fetch(query)


def dependents(connection: Connection, table: int) -> list[str]:
    """Return what could not stay if the table went: views, and tables that refer to it."""
    query = (
        "SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend d"
        " JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
        " WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid"
        " AND r.ev_class <> d.refobjid UNION SELECT conrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND confrelid = $1::bigint::oid AND conrelid <> confrelid ORDER BY 1"
    )
    return [row[0] for row in connection.fetch(query, table)]


def conversion(column: str, have: ColumnKind, kind: Kind) -> str:
    """Return the expression that makes values of one kind in a column of another."""
    value, declared = quote(column), TYPES[kind]
    if have == "null":
        return "NULL"
    if have == "boolean" and kind != "text":
        return f"{value}::int::{declared}"
    if have == "real" and kind == "numeric":
        return f"{value}::text::numeric"  # directly it would keep 15 digits
    if have == "real":  # 1.0 is written so here, as in JSON, where PostgreSQL writes 1
        return f"regexp_replace({value}::text, '^(-?\\d+)$', '\\1.0')"
    return f"{value}::{declared}"
