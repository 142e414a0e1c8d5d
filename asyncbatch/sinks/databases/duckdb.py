"""The DuckDB sink: a table of a DuckDB database."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncbatch.core.origin import FILE_COLUMN
from asyncbatch.core.system import install_command
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.columns.block import MAX_FIELDS
from asyncbatch.sinks.columns.table import NO_FIELDS, Columns, Written, group_edges, spread_reasons
from asyncbatch.sinks.databases.base import GENERATED_FLAW
from asyncbatch.sinks.databases.duckdb_stage import (
    TYPES,
    Constraints,
    DuckdbStage,
    ForeignKey,
    StayingRows,
    as_text,
)
from asyncbatch.sinks.databases.file_database import FileDatabaseSink
from asyncbatch.sinks.databases.sql import fold, quote, quoted
from asyncbatch.state.ledger.duckdb import DuckdbLedgerTable
from asyncbatch.state.ledger.table import unescape_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncbatch.sinks.columns.block import ColumnBlock, ColumnKind
    from asyncbatch.sinks.columns.table import Admitted
    from asyncbatch.sinks.databases.sql import TableName

_KINDS: dict[str, ColumnKind] = {
    "BOOLEAN": "boolean",
    "BIGINT": "integer",
    "DOUBLE": "real",
    "VARCHAR": "text",
}
# In UTC. Python needs one more package to read times with a time zone.
_TIME = "TIMESTAMP"
# DuckDB downloads extensions, for instance to open a database of another kind.
_NO_DOWNLOADS: dict[str, Any] = dict.fromkeys(
    ("autoinstall_known_extensions", "autoload_known_extensions"), False
)
# The keys of rows that other rows refer to, and that have lost their file.
_LEFT = 'temp.main."asyncbatch: rows that are left"'
_HERE = "database_name = current_database() AND schema_name = 'main'"


class DuckdbSink(FileDatabaseSink):
    """A table of a DuckDB database.

    A column of another type than those of `TYPES` accepts the values that its type can hold. The
    sink checks that a `key` is unique, without an index: DuckDB cannot change a column that has an
    index. New columns `times` get a time type.
    """

    _ledger_type = DuckdbLedgerTable
    _is_of_files = f"{quote(FILE_COLUMN)} IN (SELECT unnest(?::VARCHAR[]))"
    _time_type = _TIME

    def __init__(self, path: str, *, times: Collection[str] = (), **options: Any) -> None:
        super().__init__(path, **options)
        self._times = times
        self._columns = Columns(
            {}, limit=MAX_FIELDS, fold=fold, flaw=self._flaw, contract=self._contract
        )
        # The declared types of the columns of the table.
        self._types: dict[str, str] = {}
        # The defaults of these columns, as SQL expressions.
        self._defaults: dict[str, str] = {}
        self._constraints = Constraints([], [], [], set(), {}, [])
        self._referring: list[ForeignKey] = []  # those of other rows to rows of the table
        self._indexed: set[str] = set()  # folded names of columns
        self._has_left = False  # whether `_LEFT` exists

    @property
    def _present(self) -> Collection[str]:
        return self._types

    def _check_names(self) -> None:
        if not self.table:
            raise UsageError("DuckDB does not allow an empty table name: use --table NAME")

    def _connect(self) -> None:
        # Not while there is a connection: a file that is closed loses all locks of the process.
        if _is_sqlite(self.name):
            raise UsageError(f"cannot use {self.name}: it is an SQLite database (sqlite:///)")
        super()._connect()

    def _new_connection(self, path: str) -> Any:
        try:
            import duckdb
        except ImportError:
            raise UsageError(
                f"writing DuckDB needs one more package: {install_command('duckdb')}"
            ) from None
        self._errors = (duckdb.Error, UnicodeError)
        f"{path}{self.table}".encode()  # DuckDB has no error for invalid UTF-8
        return duckdb.connect(path, config=_NO_DOWNLOADS)

    def _is_transient(self, error: BaseException) -> bool:
        return "Conflicting lock" in str(error)

    def _explained(self, error: BaseException) -> str:
        """Return the first line of DuckDB's message, without the link to its manual."""
        return str(error).partition("\n")[0].partition(" See also ")[0]

    def _kind_of(self, table: TableName) -> str | None:
        return next((kind for kind in ("table", "view") if self._find(kind, table.table)), None)

    def _find(self, kind: str, name: str) -> str | None:
        """Return the exact name of a "table" or "view" in the database, or None."""
        query = f"SELECT {kind}_name FROM duckdb_{kind}s() WHERE {_HERE} AND NOT internal"  # noqa: S608 - constants
        names = (found for (found,) in self._rows(query))
        return next((found for found in names if fold(found) == fold(name)), None)

    def _read_columns(self) -> None:
        """Read the columns and constraints of the table, if it exists."""
        if (table := self._find("table", self._target.table)) is None:
            return
        where = f"WHERE {_HERE} AND table_name = ?"
        query = f"SELECT column_name, data_type, column_default FROM duckdb_columns() {where}"  # noqa: S608 - constants
        columns = self._rows(query, table)
        self._types = {name: declared for name, declared, _ in columns}
        self._defaults = {name: default for name, _, default in columns if default is not None}
        self._constraints.defaults.update(self._defaults)
        kinds = {name: _KINDS.get(declared, "any") for name, declared in self._types.items()}
        self._columns.refresh(kinds)
        self._constraints.generated.update(self._generated_columns(table))
        self._referring = self._references(table)
        fields = "constraint_type, constraint_column_names, expression, referenced_table"
        fields += ", referenced_column_names"
        query = f"SELECT {fields} FROM duckdb_constraints() {where}"  # noqa: S608 - constants
        fixed = self._fixed_columns(table)
        for kind, names, expression, other, others in self._rows(query, table):
            if kind == "NOT NULL":
                self._constraints.not_null.extend(names)
                continue
            if kind == "CHECK":
                self._constraints.checks.append(expression)
            elif kind == "FOREIGN KEY" and other != table:
                self._constraints.foreign.append(ForeignKey(tuple(names), other, tuple(others)))
            elif kind in ("PRIMARY KEY", "UNIQUE"):
                self._constraints.unique.append(tuple(names))
            if kind != "CHECK":
                self._indexed.update(map(fold, names))
            reason = f"DuckDB cannot change the type of a column with a constraint ({kind})"
            fixed |= dict.fromkeys(names, reason)
        self._columns.fix(fixed)

    def _references(self, table: str) -> list[ForeignKey]:
        """Return the foreign keys that refer to a table."""
        fields = "constraint_column_names, table_name, referenced_column_names"
        query = (
            f"SELECT {fields} FROM duckdb_constraints() WHERE {_HERE} AND"  # noqa: S608 - constants
            " constraint_type = 'FOREIGN KEY' AND lower(referenced_table) = lower(?)"
        )
        rows = self._rows(query, table)
        return [ForeignKey(tuple(names), name, tuple(others)) for names, name, others in rows]

    def _check_tables(self) -> None:
        super()._check_tables()
        if self.mode != "replace":
            return
        others = {key.table for key in self._references(self._name.table)}
        if others := {name for name in others if fold(name) != fold(self._name.table)}:
            raise UsageError(
                f"cannot replace table {self.table}, because other tables refer to it"
                f" ({', '.join(sorted(others))}): use --mode append, or upsert with a key"
            )

    def _generated_columns(self, table: str) -> dict[str, str]:
        """Return the expressions of generated columns by folded name."""
        query = (
            "SELECT column_name, generation_expression FROM information_schema.columns"
            " WHERE table_catalog = current_database() AND table_schema = 'main'"
            " AND table_name = ? AND is_generated = 'ALWAYS'"
        )
        return {fold(name): expression for name, expression in self._rows(query, table)}

    def _fixed_columns(self, table: str) -> dict[str, str]:
        """Return the columns whose types an index or another column fixes, with the reasons.

        An attempt to change them would end the transaction, and lose its rows.
        """
        fields = "index_name, expressions"
        query = f"SELECT {fields} FROM duckdb_indexes() WHERE {_HERE} AND table_name = ?"  # noqa: S608 - constants
        if indexes := self._rows(query, table):
            self._indexed = {fold(n) for n in self._types if any(n in sql for _, sql in indexes)}
            reason = f"DuckDB cannot change the types of a table with an index ({indexes[0][0]})"
            return dict.fromkeys(self._types, reason)
        if self._referring:
            reason = "DuckDB cannot change the types of a table that another one refers to"
            return dict.fromkeys(self._types, f"{reason} ({self._referring[0].table})")
        reason = "DuckDB cannot change the type of a column that generates another"
        expressions = self._constraints.generated.values()
        return {
            name: reason
            for name in self._types
            if any(name in expression for expression in expressions)
        }

    def _flaw(self, name: str) -> str | None:
        """Return the error of a field's name, or the reason why its column takes no values."""
        if not name:
            return "DuckDB does not allow an empty name"
        return GENERATED_FLAW if fold(name) in self._constraints.generated else self._own_flaw(name)

    def _write_admitted(self, admitted: Admitted) -> Written:
        """Change the table for admitted rows, and insert them, if it rejects none of them.

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
        # A stage cannot compare values with a key whose type changes only later.
        has_key_types = new_types.keys().isdisjoint(self.key)
        if has_key_types and (claims := self._claim_keys(block, admitted.groups)):
            return Written(claims, is_undone=True)
        stage, reasons = self._checked(block, admitted.groups, new_types)
        if new_types and reasons:
            stage.discard()
            return Written(reasons, is_undone=True)
        if self._types:
            retyped = [n for n, kind in new_types.items() if self._types.get(n, kind) != kind]
            self._alter(new_types, retyped)
        elif new_types:
            self._create(new_types)
        self._types.update(new_types)
        self._columns.refresh(
            {name: "any" if new_types.get(name) == _TIME else changes[name] for name in changes}
        )
        stage.move()
        return Written(reasons)

    def _retype(self, types: Mapping[str, str]) -> None:
        for name, declared in types.items():
            made = f"{declared} USING {self._converted(name, declared)}"
            column = f"{quote(name)} SET DATA TYPE {made}"
            try:
                self._run(f"ALTER TABLE {self._target.sql} ALTER COLUMN {column}")
            except self._errors as error:
                raise self._retype_error(name, declared, f": {self._explained(error)}") from None

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
            *(self._connection, self._target.sql, types, changed, self._times),
            defaults=self._defaults,
            is_new=not self._types,
            key=self.key,
            replaces=bool(key),
            staying=self._staying(),
        )
        block = block.fields([place for place, name in enumerate(block.names) if name in types])
        stage.fill(block, needs_checks=bool(self.key or any(self._constraints)))
        reasons = stage.misfits(self._constraints)
        reasons = dict(spread_reasons(reasons, groups))
        stage.drop(reasons)
        clashes = stage.clashes(unique, group_edges(block.count, groups)) if unique else {}
        stage.drop(clashes)
        return stage, reasons | clashes

    def _sort_columns(self) -> None:
        copy, names = self._sibling("sorted"), quoted(sorted(self._types))
        table = self._target.sql
        self._run(f"CREATE OR REPLACE TABLE {copy.sql} AS SELECT {names} FROM {table}")  # noqa: S608 - quoted
        self._run(f"DROP TABLE {table}")
        self._run(f"ALTER TABLE {copy.sql} RENAME TO {quote(self._target.table)}")

    def _file_list(self, files: Sequence[str]) -> list[str]:
        return list(files)

    def _change(self, statement: str, value: Any) -> int:
        return int(self._connection.execute(statement, [value]).fetchone()[0])

    def _owners(self, keys: ColumnBlock) -> dict[int, str | None]:
        stage = self._keys_stage(keys)
        owners = stage.owners(self._owner)
        stage.discard()
        return owners

    def _remove(self, keys: ColumnBlock) -> None:
        block = self._columns.admit(keys, None).block
        if self._keeps_referred:
            stage = self._keys_stage(block)
            self._leave(stage.existing)
            stage.discard()
        self._keys_stage(block).remove()

    def _keys_stage(self, keys: ColumnBlock) -> DuckdbStage:
        staying = self._staying() if self._keeps_referred else None
        stage = DuckdbStage(
            *(self._connection, self._target.sql, self._types), key=self.key, staying=staying
        )
        stage.fill(keys, needs_checks=True)
        return stage

    # Rows that other rows refer to.

    @property
    def _keeps_referred(self) -> bool:
        """Whether rows stay that should be deleted, in case that new ones have their keys."""
        return self.mode == "mirror" and bool(self.key and self._referring)

    @property
    def _is_referred(self) -> str:
        """The SQL condition that other rows refer to a row t."""
        return " OR ".join(
            f"EXISTS (SELECT 1 FROM {quote(key.table)} r WHERE {_equal(key.names, key.others)})"  # noqa: S608 - quoted
            for key in self._referring
        )

    @property
    def _is_left(self) -> str:
        """The SQL condition that the key of a row t is one of `_LEFT`."""
        return f"EXISTS (SELECT 1 FROM {_LEFT} r WHERE {_equal(self.key, self.key)})"  # noqa: S608 - quoted

    @property
    def _referring_tables(self) -> str:
        return ", ".join(sorted({key.table for key in self._referring}))

    def _staying(self) -> StayingRows | None:
        """Return the rows that stay, and get the values of rows with their keys."""
        replaces = self.mode == "upsert"
        if not (self.key and self._referring) or not (replaces or self._has_left):
            return None
        # DuckDB replaces a row to change a list in it.
        lists = {fold(name) for name, kind in self._types.items() if "]" in kind or "MAP(" in kind}
        return StayingRows(
            self._is_referred if replaces else self._is_left,
            self._indexed | lists,
            self._constraints.generated.keys(),
            self._referring_tables,
            "" if replaces else _LEFT,
        )

    def _remove_files(self, files: Sequence[str]) -> int:
        if not (self._keeps_referred and self._has_files):
            return super()._remove_files(files)
        self._leave(self._is_of_files, self._file_list(files))
        deletion = f"DELETE FROM {self._target.sql} t WHERE {self._is_of_files}"  # noqa: S608 - quoted
        return self._change(f"{deletion} AND NOT ({self._is_referred})", self._file_list(files))

    def _leave(self, condition: str, *values: Any) -> None:
        """Note the keys of rows t that should be deleted, but that other rows refer to."""
        keys = f"SELECT {quoted(self.key)} FROM {self._target.sql} t"  # noqa: S608 - quoted
        self._run(f"CREATE TEMP TABLE IF NOT EXISTS {_LEFT} AS {keys} LIMIT 0")
        self._rows(
            f"INSERT INTO {_LEFT} {keys} WHERE {condition} AND ({self._is_referred})", *values
        )
        self._has_left = True

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End the run. Raises SinkError if rows stay that no file has any more."""
        reason = None
        if self._has_left and ended and not self._is_lost:
            self._undo()
            with suppress(*self._errors):  # the table was undone
                reason = self._left_reason()
        stands = super().finish(succeeded=succeeded, ended=ended)
        if reason:
            raise SinkError(f"cannot write {self.name}: {reason}")
        return stands

    def _left_reason(self) -> str | None:
        """Return the reason why rows stay that no file has. Their files will be read again."""
        names = ", ".join(f"t.{quote(name)}" for name in self.key)
        rows = self._rows(
            f"SELECT t.{quote(FILE_COLUMN)}, {names} FROM {self._target.sql} t"  # noqa: S608 - quoted
            f" WHERE {self._is_left} ORDER BY ALL"
        )
        if not rows:
            return None
        files = sorted({unescape_path(file) for file, *_ in rows})
        target = fold(self.table)
        if self._ledger.exists():
            self._commit(lambda: self._ledger.forget_files(target, files))
        first = ", ".join(map(str, rows[0][1:]))
        return (
            f"table {self._referring_tables} has rows that refer to rows of {self.table} which no"
            f" file has any more, such as that with the {', '.join(self.key)} {first}: delete the"
            " former first"
        )


def _equal(names: Sequence[str], others: Sequence[str]) -> str:
    """Return the SQL condition that columns of a row r have the values of those of a row t."""
    pairs = zip(names, others, strict=True)
    return " AND ".join(f"r.{quote(name)} = t.{quote(other)}" for name, other in pairs)


def _is_sqlite(path: str) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"
    return False
