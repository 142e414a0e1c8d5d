"""The ledger in SQLite: a table in the target database or in a ledger file."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from asyncbatch.state.ledger import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Stamp

_AT_ONCE = 500  # paths of one query: old versions of SQLite allow 999 parameters
BUSY_SECONDS = 5.0  # wait for the lock of another process


def create(connection: sqlite3.Connection) -> None:
    """Create the table, or upgrade that of an earlier version. Raises sqlite3.Error."""
    connection.execute(table.CREATE)
    upgrade(connection)
    for statement in (table.INDEX, table.STAMP_INDEX):
        connection.execute(statement)


def upgrade(connection: sqlite3.Connection) -> None:
    """Add the missing columns to a table of an earlier version. Raises sqlite3.Error."""
    present = [column[0] for column in connection.execute(table.PROBE).description]
    for statement in table.missing_columns(present):
        connection.execute(statement)


def exists(connection: sqlite3.Connection) -> bool:
    """Whether the database has a ledger. Raises sqlite3.Error."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, [table.NAME]).fetchone() is not None


def record(connection: sqlite3.Connection, job: str, target: str, entries: Sequence[Entry]) -> None:
    """Write entries, which replace earlier ones of their paths. Raises sqlite3.Error."""
    values = ", ".join("?" * len(table.COLUMNS))
    statement = f"INSERT OR REPLACE INTO {table.NAME} ({table.ALL}) VALUES ({values})"  # noqa: S608 - constants
    connection.executemany(statement, (table.row_of(job, target, entry) for entry in entries))


class SqliteLedger:
    """The entries of one job, for one thread at a time. Uses a separate connection.

    Only generations from `least` to `most` count; of several entries for an input, the newest.
    """

    def __init__(self, path: str, job: str, *, least: int = 0, most: int | None = None) -> None:
        self._path, self._job = path, job
        self._range = least, 2**62 if most is None else most
        self._connection: sqlite3.Connection | None = None

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        connection = self._opened()
        if connection is None:
            return {}
        found: dict[str, Entry] = {}
        for start in range(0, len(paths), _AT_ONCE):
            names = list(map(table.escape_path, paths[start : start + _AT_ONCE]))
            query = (
                f"SELECT {table.FIND_ENTRY} FROM {table.NAME}"  # noqa: S608 - constants
                f" WHERE job = ? AND path IN ({', '.join('?' * len(names))})"
                " AND generation BETWEEN ? AND ? ORDER BY generation"
            )
            rows = connection.execute(query, [self._job, *names, *self._range])
            entries = map(table.entry_of, rows)
            found.update((entry.path, entry) for entry in entries)
        return found

    def find(self, stamp: Stamp) -> Sequence[str]:
        connection = self._opened()
        if connection is None:
            return ()
        query = (
            f"SELECT path FROM {table.NAME} WHERE job = :job AND records_written > 0"  # noqa: S608 - constants
            " AND generation BETWEEN :least AND :most AND size = :size AND CASE WHEN digest IS NULL"
            " OR :digest IS NULL THEN mtime_ns = :mtime_ns ELSE digest = :digest END"
        )
        least, most = self._range
        values = {"job": self._job, "least": least, "most": most, **stamp._asdict()}
        rows = connection.execute(query, values)
        return [table.unescape_path(path) for (path,) in rows]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection | None:
        """Return the connection, or None if the database has no ledger yet."""
        if self._connection is None and os.path.exists(self._path):
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            if exists(connection):
                self._connection = connection
            else:
                connection.close()
        return self._connection
