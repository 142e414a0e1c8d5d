"""The ledger in PostgreSQL: a table in the target database."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from asyncbatch.state.ledger import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Stamp
    from asyncbatch.state.ledger.table import Execute

_TYPES = tuple(kind.replace("BLOB", "BYTEA") for kind in table.TYPES)
_CREATE = table.CREATE.replace("BLOB", "BYTEA")
# Index rows have a maximum size, and a path can be longer: index only its beginning.
_INDEX = f"CREATE INDEX IF NOT EXISTS {table.NAME}_key ON {table.NAME} (job, (left(path, 500)))"
_OF_PATHS = "job = $1 AND left(path, 500) = ANY($2) AND path = ANY($3)"


class Queryable(Protocol):
    """A connection that runs queries."""

    def fetch(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query."""
        ...


class LedgerConnection(Queryable, Protocol):
    """A connection that also runs statements."""

    def execute(self, script: str, *values: Any) -> object:
        """Run one statement, or several if there are no values."""
        ...


def create(connection: LedgerConnection) -> None:
    """Create the table, or upgrade the table of an earlier version."""
    if table.missing_columns(existing_columns(connection)):
        # If two sessions do this at the same time, "IF NOT EXISTS" fails in one of them.
        connection.execute(f"SELECT pg_advisory_xact_lock(hashtext('{table.NAME}'))")
        for statement in (_CREATE, _INDEX, table.STAMP_INDEX):
            connection.execute(statement)
        for statement in table.missing_columns(existing_columns(connection)):
            connection.execute(statement)


def existing_columns(connection: Queryable) -> list[str]:
    """Return the columns of the ledger table, none if it does not exist."""
    query = (
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0"
        " AND NOT attisdropped"
    )
    return [name for (name,) in connection.fetch(query, table.NAME)]


def exists(connection: Queryable) -> bool:
    """Whether the database has a ledger."""
    rows = connection.fetch("SELECT to_regclass($1) IS NOT NULL", table.NAME)
    return bool(rows[0][0])


def may_keep(connection: Queryable) -> bool:
    """Whether the role may write the table, or create it if there is none."""
    query = (
        "SELECT CASE WHEN to_regclass($1) IS NULL"
        " THEN coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
        " ELSE has_table_privilege(to_regclass($1), 'SELECT')"
        " AND has_table_privilege(to_regclass($1), 'INSERT')"
        " AND has_table_privilege(to_regclass($1), 'DELETE') END"
    )
    return bool(connection.fetch(query, table.NAME)[0][0])


def record(connection: LedgerConnection, job: str, target: str, entries: Sequence[Entry]) -> None:
    """Write entries, which replace earlier ones of their paths."""
    connection.execute(
        f"DELETE FROM {table.NAME} WHERE {_OF_PATHS} AND generation = $4",  # noqa: S608 - constants
        job,
        *_paths([entry.path for entry in entries]),
        entries[0].generation,
    )
    columns = zip(*(table.row_of(job, target, entry) for entry in entries), strict=True)
    lists = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(_TYPES, 1))
    connection.execute(
        f"INSERT INTO {table.NAME} ({table.ALL}) SELECT * FROM unnest({lists})",  # noqa: S608 - constants
        *map(list, columns),
    )


def is_recorded(connection: Queryable, job: str, entry: Entry, transaction: int) -> bool:
    """Whether the transaction with this number wrote the entry of this input."""
    query = (
        f"SELECT 1 FROM {table.NAME} WHERE {_OF_PATHS} AND generation = $4"  # noqa: S608 - constants
        " AND xmin::text::bigint = $5::bigint % 4294967296"
    )
    paths = _paths([entry.path])
    return bool(connection.fetch(query, job, *paths, entry.generation, transaction))


def executor(connection: LedgerConnection) -> Execute:
    """Return a function that runs statements of `table` over a connection."""

    def execute(statement: str, values: Sequence[Any]) -> Sequence[Any]:
        return connection.fetch(numbered(statement), *values)

    return execute


def numbered(statement: str) -> str:
    """Replace the question marks of a statement by $1, $2, … for PostgreSQL."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", statement)


class PostgresLedger:
    """The entries of one job from generation `least` on."""

    def __init__(self, connection: Queryable, job: str, *, least: int = 0) -> None:
        self._connection, self._job, self._least = connection, job, least

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        if not exists(self._connection):
            return {}
        query = (
            f"SELECT {table.FIND_ENTRY} FROM {table.NAME} WHERE {_OF_PATHS}"  # noqa: S608 - constants
            " AND generation >= $4 ORDER BY generation"
        )
        rows = self._connection.fetch(query, self._job, *_paths(paths), self._least)
        return {entry.path: entry for entry in map(table.entry_of, rows)}

    def find(self, stamp: Stamp) -> Sequence[str]:
        if not exists(self._connection):
            return ()
        same = "mtime_ns = $3" if stamp.digest is None else "digest = $3"
        query = (
            f"SELECT path FROM {table.NAME} WHERE job = $1 AND records_written > 0"  # noqa: S608 - constants
            f" AND size = $2 AND {same}"
        )
        value = stamp.mtime_ns if stamp.digest is None else stamp.digest
        rows = self._connection.fetch(query, self._job, stamp.size, value)
        return [table.unescape_path(path) for (path,) in rows]

    def close(self) -> None:
        """Do nothing: the database belongs to the sink."""


def _paths(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of `_OF_PATHS`: the beginnings of the paths, and the paths."""
    names = list(map(table.escape_path, paths))
    return [name[:500] for name in names], names
