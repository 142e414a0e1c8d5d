"""The inspection of ledgers in SQLite, DuckDB and PostgreSQL: show and clear them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from asyncbatch.core.system import install_command
from asyncbatch.errors import UsageError
from asyncbatch.sinks.databases.postgres.server import PostgresServer
from asyncbatch.state.ledger import table
from asyncbatch.state.ledger.duckdb import DuckdbLedgerTable
from asyncbatch.state.ledger.postgres import PostgresLedgerTable, with_dollars
from asyncbatch.state.ledger.sqlite import SqliteLedgerTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.core.ledger_entries import Entry

_SQLITE_HEAD = b"SQLite format 3\0"


class JobSummary(NamedTuple):
    """The inputs of one job in a ledger: their number by outcome, and the time of the last."""

    job: str
    target: str
    description: str
    outcomes: dict[str, int]
    last: str


class Database(Protocol):
    """The database of a ledger. `name` has no secrets. All methods may raise UsageError."""

    name: str
    columns_query: str  # see `LedgerTable`

    def rows(self, query: str, values: Sequence[str] = ()) -> Sequence[Any]:
        """Return the rows of a query. Its values are ?1 and so on."""
        ...

    def pages(self, query: str, values: Sequence[str] = ()) -> Iterator[Sequence[Any]]:
        """Yield the rows of a query, up to 1,000 at a time."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class LedgerDatabase:
    """An SQLite or DuckDB database in the file `name`. Raises UsageError."""

    def __init__(self, name: str, *, writes: bool = False) -> None:
        self.name = name
        try:
            with open(name, "rb") as file:
                head = file.read(len(_SQLITE_HEAD))
        except OSError as error:
            raise UsageError(f"no ledger at {name}: {error.strerror}") from None
        self._is_sqlite = head == _SQLITE_HEAD
        dialect = SqliteLedgerTable if self._is_sqlite else DuckdbLedgerTable
        self.columns_query: str = dialect.columns_query
        with self._usage_errors():
            self._connection = self._connect(writes=writes)

    def rows(self, query: str, values: Sequence[str] = ()) -> Sequence[Any]:
        with self._usage_errors():
            rows: list[Any] = self._connection.execute(query, list(values)).fetchall()
        return rows

    def pages(self, query: str, values: Sequence[str] = ()) -> Iterator[Sequence[Any]]:
        with self._usage_errors():
            rows = self._connection.execute(query, list(values))
            while some := rows.fetchmany(1000):
                yield some

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _usage_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not _is_database_error(error):
                raise
            reason = str(error).partition("\n")[0]
            raise UsageError(f"cannot read the ledger {self.name}: {reason}") from None

    def _connect(self, *, writes: bool) -> Any:
        if self._is_sqlite:
            mode = "rw" if writes else "ro"
            address = f"{_uri(self.name)}?mode={mode}"
            return sqlite3.connect(address, uri=True, isolation_level=None)
        try:
            import duckdb
        except ImportError:
            raise UsageError(
                f"{self.name} is not an SQLite database; reading a DuckDB database needs one more "
                f"package: {install_command('duckdb')}"
            ) from None
        return duckdb.connect(self.name, read_only=not writes)


class Inspection:
    """The ledger in a database: its jobs and entries. Raises UsageError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # The columns of each table. The ledger of an earlier version has fewer.
        self._tables = {
            name: [column for (column,) in database.rows(database.columns_query, [name])]
            for name in (table.NAME, "asyncbatch_generations", "asyncbatch_jobs")
        }
        if not self._tables[table.NAME]:
            raise UsageError(
                f"{database.name} has no ledger: no run of asyncbatch has written to it"
            )

    @property
    def name(self) -> str:
        """The name of the database."""
        return self._database.name

    def jobs(self) -> list[JobSummary]:
        """Return a summary of each job in the ledger."""
        described: dict[str, str] = {}
        if self._tables["asyncbatch_jobs"]:
            described.update(self._database.rows("SELECT job, description FROM asyncbatch_jobs"))
        query = (
            f"SELECT job, target, outcome, count(*), max(done_at) FROM {table.NAME}"  # noqa: S608 - constants
            " GROUP BY job, target, outcome ORDER BY job, target, outcome"
        )
        found: dict[tuple[str, str], JobSummary] = {}
        for job, target, outcome, count, last in self._database.rows(query):
            summary = found.setdefault(
                (job, target), JobSummary(job, target, described.get(job, ""), {}, last)
            )
            summary.outcomes[outcome] = count
            found[job, target] = summary._replace(last=max(summary.last, last))
        return list(found.values())

    def entries(self, job: str | None) -> Iterator[Entry]:
        """Yield the entries of one job, or of all, sorted by input."""
        present = self._tables[table.NAME]
        names = [name if name in present else "NULL" for name in table.ENTRY_COLUMNS]
        query = f"SELECT {', '.join(names)} FROM {table.NAME}"  # noqa: S608 - constants
        query += " WHERE job = ?1" if job else ""
        for some in self._database.pages(f"{query} ORDER BY path, done_at", [job] if job else []):
            yield from map(table.entry_of, some)

    def clear(self, job: str | None) -> int:
        """Delete the entries of one job, or of all; return their number."""
        where, values = (" WHERE job = ?1", [job]) if job else ("", [])
        (count,) = self._database.rows(f"SELECT count(*) FROM {table.NAME}{where}", values)[0]  # noqa: S608 - constants
        if self._tables["asyncbatch_generations"]:
            query = f"SELECT part FROM asyncbatch_generations{where}"  # noqa: S608 - see above
            for (part,) in self._database.rows(query, values):
                with suppress(OSError):  # it is gone, or complete under another name
                    os.unlink(table.unescape_path(part))
        for name, columns in self._tables.items():
            if columns:
                self._database.rows(f"DELETE FROM {name}{where}", values)  # noqa: S608 - see above
        return int(count)


def _uri(path: str) -> str:
    from urllib.parse import quote

    return f"file:{quote(os.fsencode(os.path.abspath(path)))}"


def _is_database_error(error: Exception) -> bool:
    if isinstance(error, RuntimeError) or type(error).__module__.startswith("_duckdb"):
        return True  # DuckDB raises RuntimeError for a name that is not UTF-8
    return isinstance(error, sqlite3.Error)


T = TypeVar("T")

_PAGE = "FETCH 1000 FROM inspected"  # the cursor that `pages` declares


class ServerDatabase:
    """The PostgreSQL database at `address`. Raises UsageError.

    The `address` may hold a password; `name` does not.
    """

    columns_query = PostgresLedgerTable.columns_query

    def __init__(self, address: str) -> None:
        self._server = PostgresServer(address)
        self.name: str = self._server.name
        self._server.open()

    def rows(self, query: str, values: Sequence[str] = ()) -> Sequence[Any]:
        return self._call(lambda: self._server.fetch(with_dollars(query), *values))

    def pages(self, query: str, values: Sequence[str] = ()) -> Iterator[Sequence[Any]]:
        connection = self._call(self._server.connect)
        declare = f"DECLARE inspected CURSOR FOR {with_dollars(query)}"
        try:
            self._call(lambda: connection.execute("BEGIN"))
            self._call(lambda: connection.execute(declare, *values))
            while some := self._call(lambda: connection.fetch(_PAGE)):
                yield some
        finally:
            connection.drop()

    def close(self) -> None:
        self._server.close()

    def _call(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except Exception as error:
            if not self._server.is_error(error):
                raise
            reason = self._server.explained(error)
            raise UsageError(f"cannot read the ledger of {self.name}: {reason}") from None
