"""The ledger in DuckDB: a table in the target database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.state.ledger import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Stamp

_HERE = "database_name = current_database() AND schema_name = 'main'"


def create(connection: Any) -> None:
    """Create the table if it is missing.

    The table has no index, because DuckDB cannot replace an indexed row twice in one transaction.
    """
    connection.execute(table.CREATE)


def upgrade(connection: Any) -> None:
    """Add the missing columns to a table of an earlier version."""
    present = [column[0] for column in connection.execute(table.PROBE).description]
    for statement in table.missing_columns(present):
        connection.execute(statement)


def exists(connection: Any) -> bool:
    """Whether the database has a ledger."""
    query = f"SELECT 1 FROM duckdb_tables() WHERE {_HERE} AND table_name = ?"  # noqa: S608 - constants
    return connection.execute(query, [table.NAME]).fetchone() is not None


def record(connection: Any, job: str, target: str, entries: Sequence[Entry]) -> None:
    """Write entries, which replace earlier ones of their paths."""
    connection.execute(
        f"DELETE FROM {table.NAME} WHERE job = ? AND generation = ? AND path IN (SELECT unnest(?))",  # noqa: S608 - constants
        [job, entries[0].generation, [table.escape_path(entry.path) for entry in entries]],
    )
    columns = zip(*(table.row_of(job, target, entry) for entry in entries), strict=True)
    # Row by row, this would take a hundred times as long.
    lists = ", ".join(f"unnest(?::{kind}[])" for kind in table.TYPES)
    connection.execute(
        f"INSERT INTO {table.NAME} ({table.ALL}) SELECT {lists}", list(map(list, columns))
    )


class DuckdbLedger:
    """The entries of one job from generation `least` on. Uses a separate cursor."""

    def __init__(self, connection: Any, job: str, *, least: int = 0) -> None:
        self._cursor = connection.cursor()
        self._job, self._least = job, least

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        if not exists(self._cursor):
            return {}
        query = (
            f"SELECT {table.FIND_ENTRY} FROM {table.NAME} WHERE job = ? AND generation >= ?"  # noqa: S608 - constants
            " AND path IN (SELECT unnest(?)) ORDER BY generation"
        )
        names = list(map(table.escape_path, paths))
        rows = self._cursor.execute(query, [self._job, self._least, names]).fetchall()
        return {entry.path: entry for entry in map(table.entry_of, rows)}

    def find(self, stamp: Stamp) -> Sequence[str]:
        if not exists(self._cursor):
            return ()
        query = (
            f"SELECT path FROM {table.NAME} WHERE job = $job AND records_written > 0"  # noqa: S608 - constants
            " AND generation >= $least AND size = $size AND CASE WHEN digest IS NULL"
            " OR $digest IS NULL THEN mtime_ns = $mtime_ns ELSE digest = $digest END"
        )
        values = {"job": self._job, "least": self._least, **stamp._asdict()}
        rows = self._cursor.execute(query, values).fetchall()
        return [table.unescape_path(path) for (path,) in rows]

    def close(self) -> None:
        """Close the cursor."""
        self._cursor.close()
