"""The ledger in SQLite: a table in the target database or in a ledger file."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from asyncbatch.formats.decoder import encode
from asyncbatch.state.ledger import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.ledger_entries import Entry, Stamp

_KEY_INDEX = f"CREATE UNIQUE INDEX IF NOT EXISTS {table.NAME}_key"
BUSY_SECONDS = 5.0  # wait for the lock of another process


def connect(path: str) -> sqlite3.Connection:
    """Return a connection for any thread, without implicit transactions."""
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


class SqliteLedgerTable(table.LedgerTable):
    """The ledger table of an SQLite database."""

    columns_query = "SELECT name FROM pragma_table_info(?1)"
    _is_listed = "path IN (SELECT value FROM json_each(?2))"
    _is_known_digest = "digest IN (SELECT value FROM json_each(?3))"
    _indexes = (f"{_KEY_INDEX} ON {table.NAME} (job, path, generation)", *table.STAMP_INDEXES)

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(lambda query, values: connection.execute(query, values).fetchall())
        self._connection = connection

    def record(self, job: str, target: str, entries: Sequence[Entry]) -> None:
        values = ", ".join("?" * len(table.COLUMNS))
        statement = f"INSERT OR REPLACE INTO {table.NAME} ({table.ALL}) VALUES ({values})"  # noqa: S608 - constants
        rows = (table.row_of(job, target, entry) for entry in entries)
        self._connection.executemany(statement, rows)

    def _list(self, values: Sequence[Any]) -> str:
        return encode(values).decode()

    def _stamp_condition(self, stamps: Sequence[Stamp]) -> tuple[str, list[Any]]:
        pairs = "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?3)"
        return f"(size, mtime_ns) IN ({pairs})", [self._list([stamp[:2] for stamp in stamps])]


def sqlite_ledger(path: str, job: str, *, least: int = 0) -> table.TableLedger:
    """Return the entries of a job in a database, read through a separate connection."""
    connection = connect(path)
    return table.TableLedger(SqliteLedgerTable(connection), job, connection.close, least=least)
