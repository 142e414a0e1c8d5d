"""The SQLite sink: a table of an SQLite database."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from asyncbatch.core.origin import DELETED_COLUMN, FILE_COLUMN
from asyncbatch.errors import LockHeldError, UsageError
from asyncbatch.formats.decoder import encode
from asyncbatch.sinks.columns.block import ColumnBlock, json_values, without_negative_zero
from asyncbatch.sinks.columns.table import NO_FIELDS, Columns, group_edges, load_salvaging
from asyncbatch.sinks.databases.base import GENERATED_FLAW
from asyncbatch.sinks.databases.file_database import FileDatabaseSink
from asyncbatch.sinks.databases.savepoints import SavepointSink
from asyncbatch.sinks.databases.sql import fold, inexactness, quote, removal
from asyncbatch.sinks.databases.sqlite_schema import (
    TYPES,
    NotRetypableError,
    columns_of,
    fixed_columns,
    has_policies,
    insertion,
    relation_kind,
    retype,
)
from asyncbatch.state.ledger.sqlite import SqliteLedgerTable, connect
from asyncbatch.state.lock import default_lock, job_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.columns.block import ColumnKind
    from asyncbatch.sinks.columns.table import ColumnsState
    from asyncbatch.sinks.databases.sql import TableName
    from asyncbatch.state.lock import Lock

_INT64 = 2**63
# Texts that SQLite converts to a number in a column with numeric affinity.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_FOREIGN_KEYS = "SELECT 1 FROM pragma_foreign_key_list(?) LIMIT 1"
# SQLITE_ERROR is that of an expression, as "malformed JSON" of json_extract.
_ROW_CODES = (
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
)
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


class SqliteSink(FileDatabaseSink, SavepointSink):
    """A table of an SQLite database. The sink makes a `key` unique."""

    _is_of_files = f"{quote(FILE_COLUMN)} IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
    _time_type = "TEXT"
    _begin_statement = "BEGIN IMMEDIATE"  # fails if the database cannot be written
    _errors = (sqlite3.Error, UnicodeError)
    _ledger_type = SqliteLedgerTable

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, **options)
        # The columns of the table that are not generated.
        self._written: list[str] = []
        # The folded names of those that are.
        self._generated: set[str] = set()
        # Columns with a default.
        self._defaulted: set[str] = set()
        # Columns that would convert a text like "1" to a number.
        self._numeric: set[str] = set()
        # Columns created without a type, because a table needs at least one column.
        self._untyped: set[str] = set()
        # Whether a constraint says what happens to rows that break it (ON CONFLICT).
        self._has_policies = False
        self._mirror_lock: Lock | None = None
        self._schema_version = -1

    def sync(self) -> None:
        """Write committed rows to the disk, to survive a loss of power. Raises SinkError."""
        self._run("PRAGMA wal_checkpoint(PASSIVE)")

    def _check_names(self) -> None:
        if not self.table or "\0" in self.table or fold(self.table).startswith("sqlite_"):
            raise UsageError(f"--table {self.table!r} is not a valid table name for SQLite")

    def _new_connection(self, path: str) -> sqlite3.Connection:
        return connect(path)

    def _prepare(self) -> None:
        self._columns = Columns(
            {},
            limit=self._connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN),
            fold=fold,
            flaw=self._flaw,
            contract=self._contract,
            alters=self._alters,
        )
        super()._prepare()

    def _start(self) -> None:
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = NORMAL")
        self._run("PRAGMA legacy_alter_table = ON")  # views and triggers keep naming the old table
        # Not for other tables: a change of their columns drops them, which would delete the rows
        # that refer to them. A table with foreign keys is never changed so.
        if self.mode != "replace" and self._rows(_FOREIGN_KEYS, self._target.table):
            self._run("PRAGMA foreign_keys = ON")

    def _abandon(self) -> None:
        super()._abandon()
        self._release_mirror()

    def _close(self) -> None:
        with suppress(sqlite3.Error):  # committed rows are safe without it
            self._run("PRAGMA wal_checkpoint(TRUNCATE)")
        super()._close()
        self._release_mirror()

    def _mirror_holder(self) -> str | None:
        place = f"sqlite:///{os.path.realpath(self.name)}"
        try:
            self._mirror_lock = default_lock(job_key((), place, {"mirror": fold(self.table)}))
            self._mirror_lock.acquire()
        except LockHeldError as error:
            return f" ({error})"
        except UsageError:  # there is no folder for locks
            self._mirror_lock = None
        return None

    def _release_mirror(self) -> None:
        if self._mirror_lock is not None:
            self._mirror_lock.release()

    def _is_transient(self, error: BaseException) -> bool:
        code = getattr(error, "sqlite_errorname", "")
        return bool(code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")))

    def _explained(self, error: BaseException) -> str:
        """Return SQLite's message, with advice."""
        code = getattr(error, "sqlite_errorname", "")
        advice = next((text for name, text in _ADVICE.items() if code.startswith(name)), None)
        return f"{error} ({advice})" if advice else str(error)

    @property
    def _present(self) -> list[str]:
        return self._written

    def _kind_of(self, table: TableName) -> str | None:
        return relation_kind(self._connection, table.table)

    def _has_unique_key(self) -> bool:
        try:
            values = [None] * len(self.key)
            self._rows(f"EXPLAIN {insertion(self._name.sql, self.key, self.key)}", *values)
        except sqlite3.OperationalError as error:
            if "ON CONFLICT" in str(error):
                return False
            raise
        return True

    def _is_exact(self, column: str) -> bool:
        query = inexactness(self._target.sql, column, f"typeof({quote(column)}) = 'integer' AND ")
        return not self._rows(query)

    def _begin(self) -> None:
        self._read_columns()
        self._check_table_is_there()

    def _read_columns(self) -> None:
        """Read the table's schema, if it has changed."""
        ((version,),) = self._rows("PRAGMA schema_version")
        if version == self._schema_version:
            return
        self._schema_version = version
        columns = columns_of(self._connection, self._target.table)
        self._written = [column.name for column in columns if not column.is_generated]
        self._generated = {fold(column.name) for column in columns if column.is_generated}
        self._defaulted = {column.name for column in columns if column.has_default}
        self._numeric = {column.name for column in columns if column.affinity == "numeric"}
        self._has_policies = has_policies(self._connection, self._target.table)
        self._columns.fix(fixed_columns(self._connection, self._target.table, columns))
        kinds = {column.name: column.kind for column in columns}
        self._columns.forget(kinds)
        self._columns.refresh(kinds | dict.fromkeys(self._untyped & kinds.keys(), "null"))

    def _flaw(self, name: str) -> str | None:
        """Return the error of a field's name, or the reason why its column takes no values."""
        if "\0" in name:
            return "SQLite does not allow a NUL character in a name"
        return GENERATED_FLAW if fold(name) in self._generated else self._own_flaw(name)

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

    def _changes(self, block: ColumnBlock) -> dict[str, ColumnKind]:
        self._guard_texts(block)
        return self._columns.changes(block, self._is_exact)

    def _state(self) -> tuple[ColumnsState, set[str]]:
        return self._columns.state(), set(self._untyped)

    def _restore(self, state: tuple[ColumnsState, set[str]]) -> None:
        columns, self._untyped = state
        self._columns.restore(columns)
        self._schema_version = -1
        self._read_columns()

    def _reshape(self, block: ColumnBlock, changes: Mapping[str, ColumnKind]) -> str | None:  # noqa: ARG002 - the kinds decide
        if not changes:
            return None if self._present else NO_FIELDS
        typed = {name: TYPES[kind] for name, kind in changes.items() if kind != "null"}
        if not self._present:
            self._untyped = set() if typed else set(list(changes)[:1])
            self._create(typed or dict.fromkeys(self._untyped, ""), self.key)
        else:
            self._alter(typed, retyped=typed.keys() & set(self._present))
            self._untyped -= typed.keys()
        self._columns.refresh(changes)
        self._read_columns()
        return None

    def _retype(self, types: Mapping[str, str]) -> None:
        try:
            retype(self._connection, self._target.table, types)
        except NotRetypableError as error:
            reason = f" the table has {error} in its definition"
            raise self._retype_error(*next(iter(types.items())), reason) from None

    def _sort_columns(self) -> None:
        retype(self._connection, self._target.table, {}, by_name=True)

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

    def _insert(self, block: ColumnBlock, groups: Sequence[int] | None) -> dict[int, str]:
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
            connection.executemany(
                insertion(self._target.sql, names, key, replaced, aborts=self._has_policies), rows
            )

        def attempt(start: int, stop: int) -> str | None:
            connection.execute("SAVEPOINT attempt")
            reason = None
            try:
                for first, end in pairwise((start, *edges(start, stop), stop)):
                    insert_rows(first, end)
            except sqlite3.Error as error:
                # A constraint or trigger may roll back the transaction.
                if not _is_of_row(error) or not connection.in_transaction:
                    raise
                reason = str(error).replace(f"{self._target.table}.", f"{self.table}.")
                connection.execute("ROLLBACK TO attempt")
            connection.execute("RELEASE attempt")
            return reason

        return load_salvaging(group_edges(block.count, groups), attempt)

    def _files(self) -> Iterator[str]:
        """Yield the files that have rows, by one step in the index for each of them."""
        if not self._has_files:
            return
        column, where = quote(FILE_COLUMN), ""
        if self._has_deletion_time:
            where = f" AND {quote(DELETED_COLUMN)} IS NULL"
        first = f"SELECT min({column}) FROM {self._target.sql} WHERE {column} > {{}}{where}"  # noqa: S608 - quoted
        # Names that no table or column of the user has.
        files, file = quote("asyncbatch files"), quote("asyncbatch file")
        query = (
            f"WITH RECURSIVE {files}({file}) AS ({first.format(repr(''))} UNION ALL"  # noqa: S608 - quoted
            f" SELECT ({first.format(file)}) FROM {files} WHERE {file} NOTNULL)"
            f" SELECT {file} FROM {files} WHERE {file} NOTNULL"
        )
        for (found,) in self._connection.execute(query):
            yield found

    def _file_list(self, files: Sequence[str]) -> str:
        return encode(files).decode()

    def _owners(self, keys: ColumnBlock) -> dict[int, str | None]:
        same = " AND ".join(f"{quote(name)} = ?" for name in keys.names)
        query = f"SELECT {self._owner} FROM {self._target.sql} t WHERE {same}"  # noqa: S608 - quoted
        owners: dict[int, str | None] = {}
        for row, values in enumerate(zip(*self._cells(keys), strict=True)):
            if found := self._connection.execute(query, values).fetchone():
                owners[row] = found[0]
        return owners

    def _remove(self, keys: ColumnBlock) -> None:
        block = self._columns.admit(keys, None).block
        rows = zip(*self._cells(block), strict=True)
        self._connection.executemany(removal(self._target.sql, block.names), rows)


def _is_of_row(error: sqlite3.Error) -> bool:
    """Whether a row causes an error: it breaks a constraint, or an expression of the table."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_INTERNAL)
    return code & 0xFF in _ROW_CODES


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
