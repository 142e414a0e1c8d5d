"""The DuckDB sink: a table of a DuckDB database."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from asyncbatch.errors import SinkError, TargetBusyError, UsageError
from asyncbatch.sinks.column_block import MAX_FIELDS
from asyncbatch.sinks.columns import (
    NO_FIELDS,
    Admitted,
    Columns,
    Written,
    group_edges,
    spread_reasons,
    write_accepted,
)
from asyncbatch.sinks.duckdb_stage import TYPES, Constraints, DuckdbStage, ForeignKey, as_text
from asyncbatch.sinks.sql_names import fold, quote, quoted
from asyncbatch.state.ledger import table as replacing
from asyncbatch.state.ledger.duckdb import DuckdbLedger, record
from asyncbatch.state.ledger.duckdb import create as create_ledger
from asyncbatch.state.ledger.duckdb import exists as has_ledger
from asyncbatch.state.ledger.duckdb import upgrade as upgrade_ledger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Ledger, LedgerJob
    from asyncbatch.core.records import Json
    from asyncbatch.sinks.base import Mode, Refusal
    from asyncbatch.sinks.column_block import ColumnBlock, ColumnKind
    from asyncbatch.sinks.schema_contract import SchemaContractCheck

_KINDS: dict[str, ColumnKind] = {
    "BOOLEAN": "boolean",
    "BIGINT": "integer",
    "DOUBLE": "real",
    "VARCHAR": "text",
}
# In UTC. Python needs one more package to read times with a time zone.
_TIME = "TIMESTAMP"
# DuckDB downloads extensions, for instance to open a database of another kind.
_NO_DOWNLOADS = dict.fromkeys(("autoinstall_known_extensions", "autoload_known_extensions"), False)
_HERE = "database_name = current_database() AND schema_name = 'main'"
_EXACT = 2**53  # integers from -_EXACT to _EXACT are exact as doubles


class DuckdbSink:
    """A table of a DuckDB database: append, replace, or upsert by key.

    New fields add columns, and values widen column types. A column of another type accepts the
    values that its type can hold. The sink checks that a `key` is unique, without an index: DuckDB
    cannot change a column that has an index. See `BatchSink` for the order of calls.
    """

    def __init__(
        self,
        path: str,
        *,
        table: str,
        mode: Mode,
        key: tuple[str, ...],
        job: LedgerJob | None = None,
        contract: SchemaContractCheck | None = None,
        times: Collection[str] = (),
        sorts_columns: bool = False,
    ) -> None:
        self._sorts_columns, self._is_new = sorts_columns, False  # whether this run made the table
        self.path, self.table, self.mode, self.key = path, table, mode, key
        self._job, self._times = job, times
        # The table that is loaded. A replacement is renamed to `table` at the end.
        self._target = f"{table}.asyncbatch-new" if mode == "replace" else table
        self._duckdb: Any
        self._connection: Any
        self._columns = Columns({}, limit=MAX_FIELDS, fold=fold, flaw=self._flaw, contract=contract)
        # The declared types of the columns of the table.
        self._types: dict[str, str] = {}
        # The defaults of these columns, as SQL expressions.
        self._defaults: dict[str, str] = {}
        self._constraints = Constraints([], [], [], set(), {}, [])
        self._is_lost = self._in_transaction = False

    def open(self) -> None:
        """Connect, and check that the table can be written. Raises UsageError."""
        if not self.table:
            raise UsageError("DuckDB does not allow an empty table name: use --table NAME")
        if os.path.isdir(self.path):
            raise UsageError(f"cannot use {self.path}: it is a folder")
        try:
            import duckdb
        except ImportError:
            raise UsageError(
                "writing DuckDB needs one more package: pip install 'asyncbatch[duckdb]'"
            ) from None
        self._duckdb = duckdb
        is_new = not os.path.exists(self.path)
        if not is_new and _is_sqlite(self.path):
            raise UsageError(f"cannot use {self.path}: it is an SQLite database (sqlite:///)")
        try:
            path = os.path.abspath(self.path)
            f"{path}{self.table}".encode()  # DuckDB has no error for invalid UTF-8
            self._connection = self._duckdb.connect(path, config=_NO_DOWNLOADS)
        except (self._duckdb.Error, UnicodeError) as error:
            kind = TargetBusyError if "Conflicting lock" in str(error) else UsageError
            raise kind(f"cannot use {self.path}: {_explained(error)}") from None
        try:
            self._prepare()
        except (self._duckdb.Error, UnicodeError, UsageError) as error:
            self._connection.close()
            if is_new:
                with suppress(FileNotFoundError):
                    os.unlink(self.path)
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"cannot use {self.path}: {_explained(error)}") from None

    def ledger(self) -> Ledger:
        """Return the ledger of the job in this database."""
        job = self._job.fingerprint if self._job else ""
        return DuckdbLedger(self._connection, job, least=int(self.mode == "replace"))

    def load(self, payload: ColumnBlock, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        with self._transaction():
            return write_accepted(lambda: self._columns, payload, groups, self._write)

    def remove(self, keys: ColumnBlock) -> None:
        """Delete the rows with these keys in the current transaction. Raises SinkError."""
        with self._transaction():
            if self._types:
                stage = DuckdbStage(self._connection, self._target, self._types)
                stage.fill(self._columns.admit(keys, None).block, needs_checks=True)
                stage.remove(self.key)

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        if not entries and not self._in_transaction:
            return
        with self._transaction():
            if entries and self._job:
                create_ledger(self._connection)
                record(self._connection, self._job.fingerprint, fold(self.table), entries)
            self._commit()

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End the run; put a replacement in place if the run succeeded. Raises SinkError."""
        stands = self.mode != "replace" or (succeeded and not self._is_lost)
        try:
            if not stands and not (self._job and (self._job.is_resuming or not ended)):
                with suppress(self._duckdb.Error):  # the next run does it first
                    self._drop_replacement()
            elif stands and not self._is_lost:
                self._complete(ended=ended)
        finally:
            with suppress(self._duckdb.Error):  # committed rows are safe
                self._connection.close()
        return stands

    def _prepare(self) -> None:
        for name in (self.table, self._target):
            if self._find("view", name):
                raise UsageError(f"cannot use {self.path}: {name} is a view, not a table")
        if has_ledger(self._connection):
            upgrade_ledger(self._connection)
        found = self._find("table", self._target)
        if self.mode == "replace" and not (found and self._continues_replacement()):
            self._drop_replacement()
        elif found:
            self._describe(found)
            if self.key and self.mode != "replace":
                self._check_key()
        elif has_ledger(self._connection):
            # There is no table: another process has dropped it.
            replacing.forget(self._execute, fold(self.table), generation=0)

    def _continues_replacement(self) -> bool:
        """Whether the existing replacement table can be continued."""
        if not self._job or not self._job.is_resuming or not has_ledger(self._connection):
            return False
        return replacing.can_resume(self._execute, self._job, fold(self.table))

    def _execute(self, statement: str, values: Sequence[Json]) -> Sequence[Any]:
        rows: Sequence[Any] = self._connection.execute(statement, values).fetchall()
        return rows

    def _drop_replacement(self) -> None:
        self._connection.execute(f"DROP TABLE IF EXISTS {quote(self._target)}")
        if has_ledger(self._connection):
            replacing.forget(self._execute, fold(self.table), generation=1)

    def _find(self, kind: str, name: str) -> str | None:
        """Return the exact name of a "table" or "view" in the database, or None."""
        query = f"SELECT {kind}_name FROM duckdb_{kind}s() WHERE {_HERE} AND NOT internal"  # noqa: S608 - constants
        names = (found for (found,) in self._connection.execute(query).fetchall())
        return next((found for found in names if fold(found) == fold(name)), None)

    def _describe(self, table: str) -> None:
        """Read the columns and constraints of the table."""
        where = f"WHERE {_HERE} AND table_name = ?"
        query = f"SELECT column_name, data_type, column_default FROM duckdb_columns() {where}"  # noqa: S608 - constants
        columns = self._connection.execute(query, [table]).fetchall()
        self._types = {name: declared for name, declared, _ in columns}
        self._defaults = {name: default for name, _, default in columns if default is not None}
        self._constraints.defaults.update(self._defaults)
        kinds = {name: _KINDS.get(declared, "any") for name, declared in self._types.items()}
        self._columns.refresh(kinds)
        self._constraints.generated.update(self._generated_columns(table))
        fields = "constraint_type, constraint_column_names, expression, referenced_table"
        fields += ", referenced_column_names"
        query = f"SELECT {fields} FROM duckdb_constraints() {where}"  # noqa: S608 - constants
        fixed = self._fixed_columns(table)
        for kind, names, expression, other, others in self._execute(query, [table]):
            if kind == "NOT NULL":
                self._constraints.not_null.extend(names)
                continue
            if kind == "CHECK":
                self._constraints.checks.append(expression)
            elif kind == "FOREIGN KEY" and other != table:
                self._constraints.foreign.append(ForeignKey(tuple(names), other, tuple(others)))
            elif kind in ("PRIMARY KEY", "UNIQUE"):
                self._constraints.unique.append(tuple(names))
            reason = f"DuckDB cannot change the type of a column with a constraint ({kind})"
            fixed |= dict.fromkeys(names, reason)
        self._columns.fix(fixed)

    def _generated_columns(self, table: str) -> dict[str, str]:
        """Return the expressions of generated columns by folded name."""
        query = (
            "SELECT column_name, generation_expression FROM information_schema.columns"
            " WHERE table_catalog = current_database() AND table_schema = 'main'"
            " AND table_name = ? AND is_generated = 'ALWAYS'"
        )
        return {fold(name): expression for name, expression in self._execute(query, [table])}

    def _fixed_columns(self, table: str) -> dict[str, str]:
        """Return the columns whose types an index or another column fixes, with the reasons.

        An attempt to change them would end the transaction, and lose its rows.
        """
        query = f"SELECT index_name FROM duckdb_indexes() WHERE {_HERE} AND table_name = ?"  # noqa: S608 - constants
        if index := self._execute(query, [table]):
            reason = f"DuckDB cannot change the types of a table with an index ({index[0][0]})"
            return dict.fromkeys(self._types, reason)
        reason = "DuckDB cannot change the type of a column that generates another"
        expressions = self._constraints.generated.values()
        return {
            name: reason
            for name in self._types
            if any(name in expression for expression in expressions)
        }

    def _flaw(self, name: str) -> str | None:
        """Return the error of a field's name, or the reason why its column takes no values."""
        if fold(name) in self._constraints.generated:
            return "the table generates the values of this column"
        return _name_flaw(name)

    def _check_key(self) -> None:
        present = set(map(fold, self._types))
        if missing := [name for name in self.key if fold(name) not in present]:
            raise UsageError(
                f"cannot use {self.path}: table {self.table} lacks these columns of the key:"
                f" {', '.join(missing)}"
            )
        there = " AND ".join(f"{quote(name)} NOTNULL" for name in self.key)
        query = (
            f"SELECT 1 FROM {quote(self.table)} WHERE {there}"  # noqa: S608 - quoted
            f" GROUP BY {quoted(self.key)} HAVING count(*) > 1 LIMIT 1"
        )
        if self._connection.execute(query).fetchone():
            raise UsageError(
                f"cannot use {self.path}: several rows of table {self.table} have the same"
                f" {', '.join(self.key)}, so this cannot be the key"
            )

    def _is_exact(self, column: str) -> bool:
        name = quote(column)
        query = (
            f"SELECT 1 FROM {quote(self._target)}"  # noqa: S608 - quoted
            f" WHERE {name} NOT BETWEEN {-_EXACT} AND {_EXACT} LIMIT 1"
        )
        return self._connection.execute(query).fetchone() is None

    def _write(self, admitted: Admitted) -> Written:
        """Change the table for admitted rows, and insert them, if none of them is rejected.

        DuckDB cannot undo a part of a transaction. So the rows are checked before the change.
        """
        block = admitted.block
        changes = self._columns.changes(block, self._is_exact)
        new_types = {name: TYPES[kind] for name, kind in changes.items() if kind != "null"}
        if not self._types:
            new_types = new_types or dict.fromkeys(list(changes)[:1], TYPES["null"])
            new_types.update((name, _TIME) for name in self._times if name in new_types)
            if not new_types:
                return Written(dict.fromkeys(range(block.count), NO_FIELDS))
        stage, reasons = self._checked(block, admitted.groups, new_types)
        if new_types and reasons:
            stage.discard()
            return Written(reasons, is_undone=True)
        self._reshape(changes, new_types)
        stage.move(self.key if self.mode == "upsert" else ())
        return Written(reasons)

    def _reshape(self, changes: Mapping[str, ColumnKind], types: Mapping[str, str]) -> None:
        """Create the table, or add columns and change the types of columns."""
        table = quote(self._target)
        if types and not self._types:
            columns = ", ".join(f"{quote(name)} {declared}" for name, declared in types.items())
            self._connection.execute(f"CREATE TABLE {table} ({columns})")
            self._is_new = True
        else:
            for name, declared in types.items():
                if name not in self._types:
                    column = f"{quote(name)} {declared}"
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
                elif declared != self._types[name]:
                    self._retype(name, declared)
        self._types.update(types)
        self._columns.refresh(
            {name: "any" if types.get(name) == _TIME else changes[name] for name in changes}
        )

    def _retype(self, name: str, declared: str) -> None:
        value = self._converted(name, declared)
        column = f"{quote(name)} SET DATA TYPE {declared} USING {value}"
        try:
            self._connection.execute(f"ALTER TABLE {quote(self._target)} ALTER COLUMN {column}")
        except self._duckdb.Error as error:
            raise SinkError(
                f"cannot write {self.path}: column {name} of table {self.table} must become"
                f" {declared} to hold the new values, but: {_explained(error)}; change the column"
                " yourself, or name another table"
            ) from None

    def _converted(self, name: str, declared: str, prefix: str = "") -> str:
        """Return the SQL expression for a column as a column of another type."""
        if self._columns.kinds[name] == "null":
            return "NULL"
        column = f"{prefix}{quote(name)}"
        return as_text(column, self._types[name]) if declared == "VARCHAR" else column

    def _checked(
        self, block: ColumnBlock, groups: Sequence[int] | None, new_types: Mapping[str, str]
    ) -> tuple[DuckdbStage, Mapping[int, str]]:
        """Stage the rows that the table accepts; return the reasons against the others.

        `new_types` has the types of columns that are not changed yet.
        """
        key = self.key if self.mode == "upsert" else ()
        key_names = set(map(fold, key))
        constraints = self._constraints.unique
        unique = [names for names in constraints if set(map(fold, names)) != key_names]
        if self.key and not key:
            unique.append(self.key)
        changed = {
            name: self._converted(name, declared, "t.")
            for name, declared in new_types.items()
            if self._types.get(name, declared) != declared
        }
        types = self._types | dict(new_types)
        stage = DuckdbStage(
            *(self._connection, self._target, types, changed, self._times),
            defaults=self._defaults,
            is_new=not self._types,
        )
        block = block.fields([place for place, name in enumerate(block.names) if name in types])
        stage.fill(block, needs_checks=bool(self.key or any(self._constraints)))
        reasons = stage.misfits(self._constraints)
        reasons = dict(spread_reasons(reasons, groups))
        stage.drop(reasons)
        clashes = stage.clashes(unique, group_edges(block.count, groups)) if unique else {}
        stage.drop(clashes)
        return stage, reasons | clashes

    def _complete(self, *, ended: bool) -> None:
        """Put the columns of a new table in order, and a replacement in place."""
        sorts = self._sorts_columns and self._is_new and ended and bool(self._types)
        if self.mode != "replace" and not sorts:
            return
        with self._transaction():
            if sorts and list(self._types) != sorted(self._types):
                self._sort_columns()
            if self.mode == "replace":
                self._replace()
                if self._job and has_ledger(self._connection):
                    replacing.promote(self._execute, self._job.fingerprint, fold(self.table))
            self._commit()

    def _sort_columns(self) -> None:
        """Put the columns of the table in the order of their names, in a copy."""
        execute, table = self._connection.execute, quote(self._target)
        new = quote(f"{self.table}.asyncbatch-sorted")
        selection = f"SELECT {quoted(sorted(self._types))} FROM {table}"  # noqa: S608 - quoted
        execute(f"CREATE OR REPLACE TABLE {new} AS {selection}")
        execute(f"DROP TABLE {table}")
        execute(f"ALTER TABLE {new} RENAME TO {table}")

    def _replace(self) -> None:
        execute, table = self._connection.execute, quote(self.table)
        if self._types:
            execute(f"DROP TABLE IF EXISTS {table}")
            execute(f"ALTER TABLE {quote(self._target)} RENAME TO {table}")
        elif self._find("table", self.table):
            execute(f"DELETE FROM {table}")  # noqa: S608 - quoted

    def _commit(self) -> None:
        self._connection.execute("COMMIT")
        self._in_transaction = False

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Start a transaction if there is none. An error rolls back and ends the sink."""
        try:
            if not self._in_transaction:
                self._connection.execute("BEGIN")
                self._in_transaction = True
            yield
        except BaseException as error:
            self._is_lost = True
            self._in_transaction = False
            with suppress(self._duckdb.Error):  # it may have been rolled back already
                self._connection.execute("ROLLBACK")
            if isinstance(error, self._duckdb.Error):
                raise SinkError(f"cannot write {self.path}: {_explained(error)}") from None
            raise


def _name_flaw(name: str) -> str | None:
    return None if name else "DuckDB does not allow an empty name"


def _is_sqlite(path: str) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"
    return False


def _explained(error: Exception) -> str:
    """Return the first line of DuckDB's message, without the link to its manual."""
    return str(error).partition("\n")[0].partition(" See also ")[0]
