"""A ledger looked at from outside a run: its jobs, their entries; and cleared."""

from __future__ import annotations

import importlib
import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.errors import UsageError
from asyncbatch.ledger import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.entries import Entry

_SQLITE_HEAD = b"SQLite format 3\0"


class JobSummary(NamedTuple):
    """What a ledger has of one job: inputs by outcome, and when the last one was done."""

    job: str
    target: str
    description: str
    outcomes: dict[str, int]
    last: str


class Inspection:
    """The ledger in the file at `path`, a database of SQLite or DuckDB. Raises UsageError."""

    def __init__(self, path: str, *, writes: bool = False) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                head = file.read(len(_SQLITE_HEAD))
        except OSError as error:
            raise UsageError(f"no ledger at {path}: {error.strerror}") from None
        self._is_sqlite = head == _SQLITE_HEAD
        try:
            self._connection = self._connect(writes=writes)
            self._tables = self._names()
        except Exception as error:
            if isinstance(error, UsageError) or not _is_database_error(error):
                raise
            reason = str(error).partition("\n")[0]
            raise UsageError(f"cannot read the ledger {path}: {reason}") from None
        if table.NAME not in self._tables:
            self.close()
            raise UsageError(f"{path} has no ledger: no run of asyncbatch has written to it")

    def jobs(self) -> list[JobSummary]:
        """Return the jobs that the ledger is about, each with what was done."""
        described: dict[str, str] = {}
        if "asyncbatch_jobs" in self._tables:
            described.update(self._rows("SELECT job, description FROM asyncbatch_jobs"))
        query = (
            f"SELECT job, target, outcome, count(*), max(done_at) FROM {table.NAME}"  # noqa: S608 - constants
            " GROUP BY job, target, outcome ORDER BY job, target, outcome"
        )
        found: dict[tuple[str, str], JobSummary] = {}
        for job, target, outcome, count, last in self._rows(query):
            summary = found.setdefault(
                (job, target), JobSummary(job, target, described.get(job, ""), {}, last)
            )
            summary.outcomes[outcome] = count
            found[job, target] = summary._replace(last=max(summary.last, last))
        return list(found.values())

    def entries(self, job: str | None) -> Iterator[Entry]:
        """Yield what is done, by input; of one job or of all."""
        present = {column[0] for column in self._connection.execute(table.PROBE).description}
        names = [name if name in present else "NULL" for name in table.COLUMNS[2:]]
        query = f"SELECT {', '.join(names)} FROM {table.NAME}"  # noqa: S608 - constants
        query += " WHERE job = ?" if job else ""
        rows = self._connection.execute(f"{query} ORDER BY path, done_at", [job] if job else [])
        while some := rows.fetchmany(1000):
            yield from map(table.entry_of, some)

    def clear(self, job: str | None) -> int:
        """Forget what is done, of one job or of all; return how many inputs that were."""
        where, values = (" WHERE job = ?", [job]) if job else ("", [])
        (count,) = self._rows(f"SELECT count(*) FROM {table.NAME}{where}", values)[0]  # noqa: S608 - constants
        if "asyncbatch_generations" in self._tables:
            for (part,) in self._rows(f"SELECT part FROM asyncbatch_generations{where}", values):  # noqa: S608 - see above
                with suppress(OSError):  # it is gone, or complete under another name
                    os.unlink(table.restored(part))
        for name in (table.NAME, "asyncbatch_generations", "asyncbatch_jobs"):
            if name in self._tables:
                self._connection.execute(f"DELETE FROM {name}{where}", values)  # noqa: S608 - see above
        return int(count)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _connect(self, *, writes: bool) -> Any:  # noqa: ANN401 - of one library or the other
        if self._is_sqlite:
            mode = "rw" if writes else "ro"
            address = f"{_uri(self.path)}?mode={mode}"
            return sqlite3.connect(address, uri=True, isolation_level=None)
        try:
            duckdb: Any = importlib.import_module("duckdb")
        except ImportError:
            raise UsageError(
                f"{self.path} is no SQLite database; reading DuckDB's needs one more package: pip"
                " install 'asyncbatch[duckdb]'"
            ) from None
        return duckdb.connect(self.path, read_only=not writes)

    def _names(self) -> set[str]:
        source = "sqlite_master WHERE type = 'table'" if self._is_sqlite else "duckdb_tables()"
        column = "name" if self._is_sqlite else "table_name"
        return {name for (name,) in self._rows(f"SELECT {column} FROM {source}")}  # noqa: S608 - constants

    def _rows(self, query: str, values: list[str] | None = None) -> list[Any]:
        rows: list[Any] = self._connection.execute(query, values or []).fetchall()
        return rows


def _uri(path: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415 - takes a while

    return f"file:{quote(os.fsencode(os.path.abspath(path)))}"


def _is_database_error(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) or type(error).__module__.startswith("_duckdb")
