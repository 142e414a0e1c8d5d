"""Tables: find, create, widen; time columns."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.errors import SinkError
from asyncbatch.sinks.columns import NO_FIELDS, Columns
from asyncbatch.sinks.database import quote, quoted
from asyncbatch.sinks.postgres.server import MOST_NAME_BYTES, TableName

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.block import ColumnBlock, Kind
    from asyncbatch.sinks.columns import ColumnKind, SchemaContractCheck
    from asyncbatch.sinks.postgres.server import PostgresConnection, PostgresServer

# the type of a column that was created for times; the server spells other ones in full
TIME = "timestamptz"
# the comment on a column that was created for times, for later runs
TIME_COMMENT = "made by asyncbatch: becomes text if something else than a time comes"
# Day, time and zone; of no more digits than PostgreSQL keeps.
_ISO = re.compile(
    r"[1-9]\d{3}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
    r"(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)"
)


def are_times(kind: Kind, values: Iterable[Json]) -> bool:
    """Whether all values of a column are ISO 8601 times with a zone; at least one."""
    if kind != "text":
        return False
    try:
        return all(
            value is None or (_ISO.fullmatch(value) and datetime.fromisoformat(value))
            for value in values
        )
    except ValueError:  # the 30th of February
        return False


def times(values: Sequence[str | None]) -> list[datetime | None]:
    """Return the times of texts for which `are_times` holds."""
    parse = datetime.fromisoformat
    return [None if value is None else parse(value) for value in values]


def mark_time_columns(
    connection: PostgresConnection, table: TableName, columns: Iterable[str]
) -> None:
    """Write down that columns were made for times."""
    for name in columns:
        connection.execute(f"COMMENT ON COLUMN {table.sql}.{quote(name)} IS '{TIME_COMMENT}'")


def unmark_time_columns(
    connection: PostgresConnection, table: TableName, columns: Iterable[str]
) -> None:
    """Write down that columns are no longer for times."""
    for name in columns:
        connection.execute(f"COMMENT ON COLUMN {table.sql}.{quote(name)} IS NULL")


def as_text(column: str) -> str:
    """Return the SQL expression for a time column as text: UTC, with Z."""
    value = f"({column} AT TIME ZONE 'UTC')"
    fraction = (
        f"CASE WHEN {value} = date_trunc('second', {value}) THEN ''"
        f" WHEN {value} = date_trunc('milliseconds', {value}) THEN to_char({value}, '.MS')"
        f" ELSE to_char({value}, '.US') END"
    )
    return f"to_char({value}, 'YYYY-MM-DD\"T\"HH24:MI:SS') || {fraction} || 'Z'"


MOST_COLUMNS = 1600
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
# the kinds of types that widen; a column of another type takes the values that fit
KINDS: dict[str, ColumnKind] = {
    "boolean": "boolean",
    "bigint": "integer",
    "double precision": "real",
    "numeric": "numeric",
    "text": "text",
    "character varying": "text",
    TIME: "text",
}
_SYSTEM_COLUMNS = frozenset(("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"))
_EXACT = 2**53
_QUOTES = "$asyncbatch$"  # quotes a script within a script


class PostgresColumn(NamedTuple):
    """A column of a table; `takes_values` unless the table makes them itself.

    `declared` is its type as the server calls it, `TIME` if it was made for times.
    """

    name: str
    declared: str
    takes_values: bool


def column_flaw(name: str) -> str | None:
    """Return the error of a column name, or None."""
    if not name:
        return "PostgreSQL does not allow an empty name"
    if "\0" in name:
        return "PostgreSQL does not allow a NUL character in a name"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "its name is not valid Unicode: it has half of a surrogate pair"
    if size > MOST_NAME_BYTES:
        return f"its name has {size} bytes, and PostgreSQL would cut it to {MOST_NAME_BYTES}"
    if name in _SYSTEM_COLUMNS:
        return "PostgreSQL has a system column of this name in each table"
    return None


def find_table(connection: PostgresConnection, name: TableName) -> tuple[int, str, str] | None:
    """Return the number, the kind and the schema of the relation of this name, or None.

    The kinds "r" and "p" are tables.
    """
    query = (
        "SELECT c.oid::bigint, c.relkind::text, n.nspname::text FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)"
    )
    rows = connection.fetch(query, name.sql)
    return tuple(rows[0]) if rows else None


def lock_statement(name: TableName) -> str:
    """Return the statement that locks an existing table until the transaction ends."""
    statement = f"LOCK TABLE {name.sql} IN ROW EXCLUSIVE MODE"
    literals = [text.replace("'", "''") for text in (name.sql, statement)]
    body = f"IF to_regclass('{literals[0]}') IS NOT NULL THEN EXECUTE '{literals[1]}'; END IF;"
    return f"DO {_QUOTES} BEGIN {body} END {_QUOTES}"


def columns_of(
    connection: PostgresConnection, name: TableName
) -> tuple[int | None, list[PostgresColumn], int]:
    """Return a table's number, its columns, and the number of dropped columns.

    The number is None without a table.
    """
    query = (
        "SELECT attrelid::bigint, attname::text, format_type(atttypid, atttypmod),"
        " attgenerated = '' AND attidentity <> 'a', attisdropped,"
        " atttypid = 'timestamptz'::regtype AND col_description(attrelid, attnum) = $2"
        " FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 ORDER BY attnum"
    )
    rows = connection.fetch(query, name.sql, TIME_COMMENT)
    there = [
        PostgresColumn(row[1], TIME if row[5] else row[2], row[3]) for row in rows if not row[4]
    ]
    return rows[0][0] if rows else None, there, len(rows) - len(there)


def create(
    connection: PostgresConnection, table: TableName, types: Mapping[str, str], key: Sequence[str]
) -> None:
    """Create a table with columns of these types."""
    parts = [f"{quote(name)} {declared}" for name, declared in types.items()]
    if key:
        parts.append(f"PRIMARY KEY ({quoted(key)})")
    connection.execute(f"CREATE TABLE {table.sql} ({', '.join(parts)})")


def has_unique_key(connection: PostgresConnection, table: int, key: Sequence[str]) -> bool:
    """Whether an index sees to it that no two rows share these columns, at any time."""
    query = (
        "SELECT 1 FROM pg_index i WHERE indrelid = $1::bigint::oid AND indisunique AND indisvalid"
        " AND indimmediate AND indpred IS NULL AND indexprs IS NULL AND (SELECT"
        ' array_agg(attname::text ORDER BY attname::text COLLATE "C") FROM pg_attribute'
        " WHERE attrelid = i.indrelid AND attnum = ANY((indkey::int2[])[0:indnkeyatts - 1])) = $2"
    )
    return bool(connection.fetch(query, table, sorted(key, key=str.encode)))


def has_repeated_key(connection: PostgresConnection, table: TableName, key: Sequence[str]) -> bool:
    """Whether any two rows share these columns now."""
    there = " AND ".join(f"{quote(name)} IS NOT NULL" for name in key)
    query = f"SELECT 1 FROM {table.sql} WHERE {there} GROUP BY {quoted(key)}"  # noqa: S608 - quoted
    return bool(connection.fetch(f"{query} HAVING count(*) > 1 LIMIT 1"))


def has_only_exact(connection: PostgresConnection, table: TableName, column: str) -> bool:
    """Whether the integers in a column all are double precision numbers too."""
    query = (
        f"SELECT 1 FROM {table.sql} WHERE {quote(column)}"  # noqa: S608 - quoted
        f" NOT BETWEEN {-_EXACT} AND {_EXACT} LIMIT 1"
    )
    return not connection.fetch(query)


def dependents(connection: PostgresConnection, table: int) -> list[str]:
    """Return the views and tables that depend on a table."""
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


class TableShape:
    """The columns of the table `name`; a new table gets this `key`.

    `number` is the server's number of the table, if it exists. `types` has its writable columns.
    `columns` also has missing ones whose values were all null so far.
    """

    def __init__(
        self,
        server: PostgresServer,
        name: TableName,
        key: Sequence[str],
        contract: SchemaContractCheck | None = None,
        times: Collection[str] = (),
    ) -> None:
        self._server, self._name, self._key, self._times = server, name, key, times
        self.number: int | None = None
        self.types: dict[str, str] = {}
        self._holds = contract is not None and contract.holds
        self._columns = partial(Columns, rich=True, contract=contract, alters=self._alters)
        self.columns = self._columns({}, limit=MOST_COLUMNS, flaw=column_flaw)
        self._seen: tuple[int | None, list[PostgresColumn], int] = (None, [], 0)
        self._untyped: set[str] = set()
        """columns created as text, because all values were null"""

    def read(self, connection: PostgresConnection) -> None:
        """Read the columns of the table."""
        seen = columns_of(connection, self._name)
        if seen == self._seen:
            return
        self._seen = seen
        self.number, columns, gone = seen
        connection.forget_types()
        self.types = {column.name: column.declared for column in columns if column.takes_values}
        made = {column.name for column in columns if not column.takes_values}
        kinds: dict[str, ColumnKind] = {
            name: kind for name, kind in self.columns.kinds.items() if kind == "null"
        }
        kinds |= {column.name: self._kind(column.declared) for column in columns}
        kinds |= dict.fromkeys(self._untyped & self.types.keys(), "null")

        def unfit(name: str) -> str | None:
            return (
                "the table generates the values of this column"
                if name in made
                else column_flaw(name)
            )

        self.columns = self._columns(kinds, limit=MOST_COLUMNS - gone, flaw=unfit)

    def fit(self, connection: PostgresConnection, block: ColumnBlock) -> str | None:
        """Change the table for these rows; return the reason if it cannot hold any.

        Raises SinkError if the table cannot be changed.
        """
        changes = self._changes(connection, block)
        if not self.types or any(kind != "null" for kind in changes.values()):
            # Another process may do the same: the second one finds it done.
            lock = "SELECT pg_advisory_xact_lock(hashtext($1))"
            connection.fetch(lock, f"asyncbatch {self._name.sql}")
            self.read(connection)
            changes = self._changes(connection, block)
        typed: dict[str, Kind] = {n: kind for n, kind in changes.items() if kind != "null"}
        if not self.types:
            if not changes:
                return NO_FIELDS
            if missing := [name for name in self._key if name not in typed]:
                return f"no value for {', '.join(missing)}, which the key needs"
            self._untyped = set() if typed else set(changes)
            made = self._made_for_times(block, typed)
            types = {name: TYPES[kind] for name, kind in (typed or changes).items()}
            made = [column for column in made if column not in self._times]
            times = dict.fromkeys((*made, *(name for name in self._times if name in types)), TIME)
            create(connection, self._name, types | times, self._key)
            mark_time_columns(connection, self._name, made)
        elif typed:
            self.alter(connection, typed, self._made_for_times(block, typed))
        self.columns.refresh({name: "null" for name in changes if name not in typed})
        if self._untyped or typed:
            self._untyped -= typed.keys()
            self.read(connection)
        return None

    def untyped(self) -> dict[str, Kind]:
        """Return the kinds of the missing columns if they stay without values."""
        if not self.types:
            return {}
        kinds = self.columns.kinds.items()
        return {name: "text" for name, kind in kinds if kind == "null" and name not in self.types}

    def alter(
        self,
        connection: PostgresConnection,
        kinds: Mapping[str, Kind],
        for_times: Collection[str] = (),
    ) -> None:
        """Add columns and give columns other types, all in one pass. Raises SinkError."""
        actions = []
        for name, kind in kinds.items():
            column, declared = quote(name), TIME if name in for_times else TYPES[kind]
            if name in self.types:
                made = self._conversion(name, kind)
                actions.append(f"ALTER COLUMN {column} TYPE {declared} USING {made}")
            else:
                actions.append(f"ADD COLUMN {column} {declared}")
        try:
            connection.execute(f"ALTER TABLE {self._name.sql} {', '.join(actions)}")
            mark_time_columns(connection, self._name, for_times)
            unmark_time_columns(
                connection, self._name, (n for n in kinds if self.types.get(n) == TIME)
            )
        except Exception as error:
            if not self._server.is_error(error) or self._server.is_transient(error):
                raise
            wanted = ", ".join(f"column {name} as {TYPES[kind]}" for name, kind in kinds.items())
            raise SinkError(
                f"cannot write {self._server.name}: table {self._name.table} needs {wanted} to"
                f" hold the new values, but: {self._server.explained(error)}; change the table"
                " yourself, or name another table"
            ) from None

    def _kind(self, declared: str) -> ColumnKind:
        """Return the kind of a column; a time column takes texts if it may become text."""
        return "any" if self._holds and declared == TIME else KINDS.get(declared, "any")

    def _alters(self, name: str, value: Json) -> bool:
        """Whether a column for times could not stay one with this value."""
        return self.types.get(name) == TIME and not (
            isinstance(value, str) and are_times("text", [value])
        )

    def _changes(self, connection: PostgresConnection, block: ColumnBlock) -> dict[str, Kind]:
        changes = self.columns.changes(block, partial(has_only_exact, connection, self._name))
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if self.types.get(name) == TIME and kind != "null" and not are_times(kind, values):
                changes[name] = "text"
        return changes

    def _conversion(self, column: str, kind: Kind) -> str:
        if self.types[column] == TIME:
            return as_text(quote(column))
        return conversion(column, self.columns.kinds[column], kind)

    def _made_for_times(self, block: ColumnBlock, kinds: Mapping[str, Kind]) -> list[str]:
        """Return the new columns that are created for times; those of a key stay text."""
        made = kinds.keys() - self.types.keys() - set(self._key)
        columns = zip(block.names, block.kinds, block.values, strict=True)
        return [name for name, kind, values in columns if name in made and are_times(kind, values)]
