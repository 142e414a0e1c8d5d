"""The SQLite sink: a table of an SQLite database."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from asyncbatch.core.retry import Retrier, Retries, attempts_note
from asyncbatch.errors import SinkError, TargetBusyError, UsageError
from asyncbatch.formats.decoder import encode
from asyncbatch.sinks.column_block import ColumnBlock, json_values, without_negative_zero
from asyncbatch.sinks.columns import (
    NO_FIELDS,
    Admitted,
    Columns,
    Written,
    group_edges,
    load_salvaging,
    write_accepted,
)
from asyncbatch.sinks.schema_contract import SchemaContractCheck
from asyncbatch.sinks.sql_names import fold, quote, quoted, removal
from asyncbatch.sinks.sqlite_schema import (
    TYPES,
    NotRetypableError,
    columns_of,
    create,
    fixed_columns,
    has_only_exact,
    has_repeated_key,
    has_unique_key,
    insertion,
    relation_kind,
    retype,
)
from asyncbatch.state.ledger import table as replacing
from asyncbatch.state.ledger.sqlite import SqliteLedger, record
from asyncbatch.state.ledger.sqlite import create as create_ledger
from asyncbatch.state.ledger.sqlite import exists as has_ledger
from asyncbatch.state.ledger.sqlite import upgrade as upgrade_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Ledger, LedgerJob
    from asyncbatch.core.records import Json
    from asyncbatch.sinks.base import Mode, Refusal
    from asyncbatch.sinks.column_block import ColumnKind

BUSY_SECONDS = 5.0  # how long to wait for the lock of another process

_INT64 = 2**63
# Texts that SQLite converts to a number in a column with numeric affinity.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
# Advice by the beginning of the name of an SQLite error.
_ADVICE = {
    "SQLITE_BUSY": "another process has locked it; run again when that process has finished",
    "SQLITE_FULL": "the disk is full; free some space and run again",
    "SQLITE_IOERR": "the disk failed, or a quota or another limit was reached",
    "SQLITE_READONLY": "check the permissions of the file, its folder and its disk",
    "SQLITE_CANTOPEN": "check that its folder exists and may be written to",
    "SQLITE_NOTADB": "the file has other content; name another file",
    "SQLITE_CORRUPT": "the file is damaged; restore it, or name another file",
}


class SqliteSink:
    """A table of an SQLite database: append, replace, or upsert by key.

    New fields add columns, and values widen column types. The sink makes a `key` unique. See
    `BatchSink` for the order of calls.
    """

    def __init__(
        self,
        path: str,
        *,
        table: str,
        mode: Mode,
        key: tuple[str, ...],
        job: LedgerJob | None = None,
        retrier: Retrier | None = None,
        contract: SchemaContractCheck | None = None,
        sorts_columns: bool = False,
    ) -> None:
        self._sorts_columns, self._is_new = sorts_columns, False  # whether this run made the table
        self.path, self.table, self.mode, self.key = path, table, mode, key
        self._job, self._retrier = job, retrier or Retrier(Retries())
        self._contract = contract or SchemaContractCheck()
        # The table that is loaded. A replacement is renamed to `table` at the end.
        self._target = f"{table}.asyncbatch-new" if mode == "replace" else table
        self._connection: sqlite3.Connection
        # Includes fields without a column yet, because all their values were null.
        self._columns: Columns
        # The columns of the table that are not generated.
        self._present: list[str] = []
        # The folded names of those that are.
        self._generated: set[str] = set()
        # Columns with a default.
        self._defaulted: set[str] = set()
        # Columns that would convert a text like "1" to a number.
        self._numeric: set[str] = set()
        # Columns created without a type, because a table needs at least one column.
        self._untyped: set[str] = set()
        self._schema_version = -1
        self._lacks_index = self._is_lost = False

    def open(self) -> None:
        """Connect, and check that the table can be written. Raises UsageError."""
        if not self.table or "\0" in self.table or fold(self.table).startswith("sqlite_"):
            raise UsageError(f"--table {self.table!r} is not a valid table name for SQLite")
        if os.path.isdir(self.path):
            raise UsageError(f"cannot use {self.path}: it is a folder")
        is_new = not os.path.exists(self.path)
        try:
            self._connection = sqlite3.connect(
                os.path.abspath(self.path),
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise UsageError(f"cannot use {self.path}: {_explained(error)}") from None
        try:
            self._prepare()
        except (sqlite3.Error, UnicodeError, UsageError) as error:
            self._connection.close()
            if is_new:
                with suppress(FileNotFoundError):
                    os.unlink(self.path)
            if isinstance(error, UsageError):
                raise
            kind = TargetBusyError if _is_busy(error) else UsageError
            raise kind(f"cannot use {self.path}: {_explained(error)}") from None

    def ledger(self) -> Ledger:
        """Return the ledger of the job in this database."""
        job = self._job.fingerprint if self._job else ""
        return SqliteLedger(os.path.abspath(self.path), job, least=int(self.mode == "replace"))

    def load(self, payload: ColumnBlock, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        with self._transaction():
            self._read_schema()
            return write_accepted(lambda: self._columns, payload, groups, self._write)

    def remove(self, keys: ColumnBlock) -> None:
        """Delete the rows with these keys in the current transaction. Raises SinkError."""
        with self._transaction():
            self._read_schema()
            block = self._columns.admit(keys, None).block
            if self._present:
                rows = zip(*self._cells(block), strict=True)
                self._connection.executemany(removal(self._target, block.names), rows)

    def sync(self) -> None:
        """Write committed rows to the disk, to survive a loss of power. Raises SinkError."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        if not entries and not self._connection.in_transaction:
            return
        with self._transaction():
            if entries and self._job:
                create_ledger(self._connection)
                record(self._connection, self._job.fingerprint, fold(self.table), entries)
            self._connection.execute("COMMIT")

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End the run; put a replacement in place if the run succeeded. Raises SinkError."""
        stands = self.mode != "replace" or (succeeded and not self._is_lost)
        try:
            if not stands and not (self._job and (self._job.is_resuming or not ended)):
                with suppress(sqlite3.Error):  # the next run does it first
                    self._drop_replacement()
            elif stands and not self._is_lost:
                self._complete(ended=ended)
            with suppress(sqlite3.Error):  # committed rows are safe without it
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()
        return stands

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")  # fails if the database cannot be written
        for name in (self.table, self._target):
            if (kind := relation_kind(self._connection, name)) not in (None, "table"):
                raise UsageError(f"cannot use {self.path}: {name} is a {kind}, not a table")
        limit = self._connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)
        self._columns = Columns(
            {},
            limit=limit,
            fold=fold,
            flaw=self._flaw,
            contract=self._contract,
            alters=self._alters,
        )
        if is_continued := self.mode != "replace" or self._continues_replacement():
            self._read_schema()
        if self.mode != "replace" and self.key and self._present:
            self._check_key()
        execute("ROLLBACK")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA legacy_alter_table = ON")  # views and triggers keep naming the old table
        if has_ledger(self._connection):
            execute("BEGIN IMMEDIATE")
            upgrade_ledger(self._connection)
            execute("COMMIT")
        if not is_continued:
            self._drop_replacement()
        elif not self._present and has_ledger(self._connection):
            # There is no table: another process has dropped it.
            replacing.forget(self._execute, fold(self.table), generation=0)

    def _continues_replacement(self) -> bool:
        """Whether a replacement table of an earlier run exists and can be continued."""
        if not self._job or not self._job.is_resuming or not has_ledger(self._connection):
            return False
        is_there = relation_kind(self._connection, self._target) is not None
        return is_there and replacing.can_resume(self._execute, self._job, fold(self.table))

    def _execute(self, statement: str, values: Sequence[Json]) -> Sequence[Any]:
        rows: Sequence[Any] = self._connection.execute(statement, values).fetchall()
        return rows

    def _drop_replacement(self) -> None:
        self._connection.execute(f"DROP TABLE IF EXISTS {quote(self._target)}")
        if has_ledger(self._connection):
            replacing.forget(self._execute, fold(self.table), generation=1)

    def _check_key(self) -> None:
        present = set(map(fold, self._present))
        if missing := [name for name in self.key if fold(name) not in present]:
            raise UsageError(
                f"cannot use {self.path}: table {self.table} lacks these columns of the key:"
                f" {', '.join(missing)}"
            )
        if has_unique_key(self._connection, self.table, self.key):
            return
        if has_repeated_key(self._connection, self.table, self.key):
            raise UsageError(
                f"cannot use {self.path}: several rows of table {self.table} have the same"
                f" {', '.join(self.key)}, so this cannot be the key"
            )
        self._lacks_index = True

    def _read_schema(self) -> None:
        """Read the table's schema, if it has changed."""
        (version,) = self._connection.execute("PRAGMA schema_version").fetchone()
        if version == self._schema_version:
            return
        self._schema_version = version
        columns = columns_of(self._connection, self._target)
        self._present = [column.name for column in columns if not column.is_generated]
        self._generated = {fold(column.name) for column in columns if column.is_generated}
        self._defaulted = {column.name for column in columns if column.has_default}
        self._numeric = {column.name for column in columns if column.affinity == "numeric"}
        self._columns.fix(fixed_columns(self._connection, self._target, columns))
        kinds = {column.name: column.kind for column in columns}
        self._columns.refresh(kinds | dict.fromkeys(self._untyped & kinds.keys(), "null"))

    def _flaw(self, name: str) -> str | None:
        """Return the error of a field's name, or the reason why its column takes no values."""
        if fold(name) in self._generated:
            return "the table generates the values of this column"
        return _name_flaw(name)

    def _guard_texts(self, block: ColumnBlock) -> None:
        """Let a column widen to text if it would change a value."""
        if self._contract.holds:  # the contract has already checked this
            return
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if self._columns.kinds.get(name) == "any" and any(
                value is not None and self._alters(name, value)
                for value in json_values(values, kind)
            ):
                self._columns.kinds[name] = "integer"  # not "any": so it widens to text

    def _alters(self, name: str, value: Json) -> bool:
        """Whether a column would hold another value: a number for a text, or another number."""
        if type(value) is bool:
            return True
        if fold(name) not in map(fold, self._numeric):
            return False
        if type(value) is int:
            return not _fits(value)
        return type(value) is str and _NUMBER.fullmatch(value) is not None

    def _write(self, admitted: Admitted) -> Written:
        """Change the table for admitted rows, and insert them."""
        block = admitted.block
        is_exact = partial(has_only_exact, self._connection, self._target)
        state, untyped = self._columns.state(), set(self._untyped)
        lacks_index = self._lacks_index
        self._guard_texts(block)
        changes = self._columns.changes(block, is_exact)
        is_changing = any(kind != "null" for kind in changes.values()) or not self._present
        if is_changing:
            self._connection.execute("SAVEPOINT shape")
        self._reshape(changes)
        if self._lacks_index:
            self._index()
        if self._present:
            edges = group_edges(block.count, admitted.groups)
            reasons = load_salvaging(edges, self._inserter(block))
        else:
            reasons = dict.fromkeys(range(block.count), NO_FIELDS)
        is_undone = is_changing and bool(reasons)
        if is_undone:
            self._connection.execute("ROLLBACK TO shape")
            self._columns.restore(state)
            self._untyped, self._schema_version = untyped, -1
            self._lacks_index = lacks_index
        if is_changing:
            self._connection.execute("RELEASE shape")
        if is_undone:
            self._read_schema()
        return Written(reasons, is_undone)

    def _reshape(self, changes: Mapping[str, ColumnKind]) -> None:
        """Create the table, or add columns and change the types of columns."""
        if not changes:
            return
        typed = {name: TYPES[kind] for name, kind in changes.items() if kind != "null"}
        if not self._present:
            untyped = {} if typed else dict.fromkeys(list(changes)[:1], "")
            self._untyped, self._is_new = set(untyped), True
            create(self._connection, self._target, typed or untyped, self.key)
        elif retyped := {name: typed[name] for name in self._present if name in typed}:
            self._retype(retyped)
            self._untyped -= retyped.keys()
        added = [name for name in typed if name not in self._present] if self._present else []
        for name in added:
            column = f"{quote(name)} {typed[name]}"
            self._connection.execute(f"ALTER TABLE {quote(self._target)} ADD COLUMN {column}")
        self._columns.refresh(changes)
        self._read_schema()

    def _retype(self, types: Mapping[str, str]) -> None:
        try:
            retype(self._connection, self._target, types)
        except NotRetypableError as error:
            column, declared = next(iter(types.items()))
            raise SinkError(
                f"cannot write {self.path}: column {column} of table {self.table} must become"
                f" {declared} to hold the new values, but the table has {error} in its definition;"
                " change the column yourself, or name another table"
            ) from None

    def _index(self) -> None:
        """Create a unique index on the key."""
        name, table = quote(f"{self.table}.asyncbatch-key"), quote(self.table)
        self._connection.execute(f"CREATE UNIQUE INDEX {name} ON {table} ({quoted(self.key)})")
        self._lacks_index = False

    def _cells(self, block: ColumnBlock) -> list[list[Any]]:
        """Return the values of admitted rows as SQLite takes them.

        SQLite has no negative zero. So it is 0 in a column of texts too.
        """
        values = list(map(without_negative_zero, block.kinds, block.values))
        block = ColumnBlock(block.names, block.kinds, values, block.count)
        return [
            _native(values) if self._columns.kinds[name] == "any" else values
            for name, values in zip(block.names, self._columns.cells(block), strict=True)
        ]

    def _inserter(self, block: ColumnBlock) -> Callable[[int, int], str | None]:
        """Return the `attempt` function of `load_salvaging` for a block."""
        key = self.key if self.mode == "upsert" else ()
        key_names = set(map(fold, key))
        replaced = [name for name in self._present if fold(name) not in key_names]
        fields = zip(block.names, self._cells(block), strict=True)
        columns = {name: values for name, values in fields if name in self._present}
        connection = self._connection
        # A field that a row lacks gets the default of its column: the statement does not name it.
        defaulted = {name: block.present[name] for name in self._defaulted & block.present.keys()}

        def edges(start: int, stop: int) -> Iterator[int]:
            """Yield the rows that have other fields than the row before."""
            rows = zip(*(present[start:stop] for present in defaulted.values()), strict=True)
            for row, (one, other) in enumerate(pairwise(rows), start + 1):
                if one != other:
                    yield row

        def insert_rows(start: int, stop: int) -> None:
            names = [name for name in columns if name not in defaulted or defaulted[name][start]]
            parts = [columns[name][start:stop] for name in names]
            rows = zip(*parts, strict=True) if parts else [()] * (stop - start)
            connection.executemany(insertion(self._target, names, key, replaced), rows)

        def insert(start: int, stop: int) -> str | None:
            connection.execute("SAVEPOINT attempt")
            reason = None
            try:
                for first, end in pairwise((start, *edges(start, stop), stop)):
                    insert_rows(first, end)
            except sqlite3.IntegrityError as error:
                if not connection.in_transaction:  # a constraint or trigger may roll it back
                    raise
                reason = str(error).replace(f"{self._target}.", f"{self.table}.")
                connection.execute("ROLLBACK TO attempt")
            connection.execute("RELEASE attempt")
            return reason

        return insert

    def _complete(self, *, ended: bool) -> None:
        """Put the columns of a new table in order, and a replacement in place."""
        sorts = self._sorts_columns and self._is_new and ended and bool(self._present)
        if self.mode != "replace" and not sorts:
            return
        with self._transaction():
            self._read_schema()
            if sorts and self._present != sorted(self._present):
                retype(self._connection, self._target, {}, by_name=True)
            if self.mode == "replace":
                self._replace()
                if self._job and has_ledger(self._connection):
                    replacing.promote(self._execute, self._job.fingerprint, fold(self.table))
            self._connection.execute("COMMIT")

    def _replace(self) -> None:
        execute, table = self._connection.execute, quote(self.table)
        if self._present:
            execute(f"DROP TABLE IF EXISTS {table}")
            execute(f"ALTER TABLE {quote(self._target)} RENAME TO {table}")
        elif relation_kind(self._connection, self.table):
            execute(f"DELETE FROM {table}")  # noqa: S608 - quoted

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Start a transaction if there is none. An error rolls back and ends the sink."""
        try:
            if not self._connection.in_transaction:
                begin = partial(self._connection.execute, "BEGIN IMMEDIATE")
                self._retrier.call(begin, _is_busy)
            yield
        except BaseException as error:
            self._is_lost = True
            with suppress(sqlite3.Error):  # it may have been rolled back already
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                reason = f"{_explained(error)}{attempts_note(error)}"
                raise SinkError(f"cannot write {self.path}: {reason}") from None
            raise


def _name_flaw(name: str) -> str | None:
    return "SQLite does not allow a NUL character in a name" if "\0" in name else None


def _native(values: list[Json]) -> list[Any]:
    """Return JSON values as a column of any type takes them: large and nested ones as text."""
    return [
        encode(value).decode()
        if isinstance(value, dict | list) or (type(value) is int and not _fits(value))
        else value
        for value in values
    ]


def _fits(value: int) -> bool:
    return -_INT64 <= value < _INT64


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _explained(error: Exception) -> str:
    """Return SQLite's message, with advice."""
    code = getattr(error, "sqlite_errorname", "")
    advice = next((text for name, text in _ADVICE.items() if code.startswith(name)), None)
    return f"{error} ({advice})" if advice else str(error)
