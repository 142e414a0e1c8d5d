"""The base of sinks for databases that are files."""

from __future__ import annotations

import os
from abc import abstractmethod
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.databases.base import DatabaseSink
from asyncbatch.sinks.databases.sql import creation, inexactness, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry

T = TypeVar("T")


class FileDatabaseSink(DatabaseSink):
    """A table of the database in the file `name`, with one connection."""

    _begin_statement = "BEGIN"

    # Connections and transactions.

    def _connect(self) -> None:
        if os.path.isdir(self.name):
            raise UsageError(f"cannot use {self.name}: it is a folder")
        self._has_new_file = not os.path.exists(self.name)
        self._connection = self._new_connection(os.path.abspath(self.name))

    @abstractmethod
    def _new_connection(self, path: str) -> Any:
        """Return a connection to the file at `path`, which may not exist."""

    def _reader(self) -> Any:
        return self._new_connection(os.path.abspath(self.name))

    def _abandon(self) -> None:
        self._connection.close()
        if self._has_new_file:
            with suppress(FileNotFoundError):
                os.unlink(self.name)

    def _close(self) -> None:
        with suppress(*self._errors):
            self._connection.close()

    def _rows(self, query: str, *values: Any) -> Sequence[Any]:
        rows: Sequence[Any] = self._connection.execute(query, values).fetchall()
        return rows

    def _run_once(self, work: Callable[[], None]) -> None:
        self._run(self._begin_statement)
        work()
        self._run("COMMIT")

    def _transact(self, work: Callable[[], T]) -> T:
        with self._sink_errors():
            if not self._in_transaction:
                begin = partial(self._run, self._begin_statement)
                self._retrier.call(begin, self._is_transient)
                self._in_transaction = True
                self._begin()
            return work()

    def _begin(self) -> None:
        """Adapt to changes of the table by other processes: a transaction has begun."""

    def _commit(self, work: Callable[[], None], entries: Sequence[Entry] = ()) -> None:  # noqa: ARG002 - for servers: a file is never in doubt
        def commit() -> None:
            work()
            self._run("COMMIT")
            self._in_transaction = False

        self._transact(commit)

    def _undo(self) -> None:
        if self._in_transaction:
            self._in_transaction = False
            with suppress(*self._errors):  # it may have been rolled back already
                self._run("ROLLBACK")

    # The table.

    def _change(self, statement: str, value: Any) -> int:
        cursor = self._connection.execute(statement, [value])
        return int(cursor.rowcount)

    def _is_exact(self, column: str) -> bool:
        """Whether all integers in a column are exact as doubles."""
        return not self._rows(inexactness(self._target.sql, column))

    def _create(self, types: Mapping[str, str], key: Sequence[str] = ()) -> None:
        """Create the table with columns of these types."""
        self._run(creation(self._target.sql, types, key))
        self._is_new = True

    def _alter(self, types: Mapping[str, str], retyped: Collection[str]) -> None:
        """Change the types of the columns `retyped`, and add the others."""
        if retyped:
            self._retype({name: types[name] for name in self._present if name in retyped})
        for name in types:
            if name not in self._present:
                column = f"{quote(name)} {types[name]}"
                self._run(f"ALTER TABLE {self._target.sql} ADD COLUMN {column}")

    @abstractmethod
    def _retype(self, types: Mapping[str, str]) -> None:
        """Change the types of columns. Raises SinkError."""

    def _retype_error(self, name: str, declared: str, reason: str) -> SinkError:
        return SinkError(
            f"cannot write {self.name}: column {name} of table {self.table} must become"
            f" {declared} to hold the new values, but{reason}; change the column yourself, or"
            " name another table"
        )
