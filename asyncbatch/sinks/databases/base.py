"""The base of sinks for databases: a table to append to, to replace, or to upsert by key."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncbatch.core.origin import DELETED_COLUMN, FILE_COLUMN, OWN_COLUMNS
from asyncbatch.core.retry import Retrier, Retries, attempts_note
from asyncbatch.errors import SinkError, TargetBusyError, UsageError
from asyncbatch.sinks.columns.schema_contract import SchemaContractCheck
from asyncbatch.sinks.columns.table import Written, spread_reasons, write_accepted
from asyncbatch.sinks.databases.mirror import LedgerLine, Pruned
from asyncbatch.sinks.databases.sql import TableName, fold, quote, repetition
from asyncbatch.state.ledger.table import LedgerTable, TableLedger, unescape_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Ledger, LedgerJob
    from asyncbatch.sinks.base import Mode, OnDelete, Refusal
    from asyncbatch.sinks.columns.block import ColumnBlock
    from asyncbatch.sinks.columns.table import Admitted, Columns
    from asyncbatch.sinks.databases.mirror import FindGone

T = TypeVar("T")

GENERATED_FLAW = "the table generates the values of this column"


class DatabaseSink(ABC):
    """A table of a database: append, replace, or upsert by key.

    New fields add columns, and values widen column types. See `BatchSink` for the order of calls.

    A subclass is the dialect of one database.
    """

    _max_name_bytes: int | None = None  # the largest size of a name; None: no limit
    _fold: Callable[[str], str] = staticmethod(fold)  # one text for names that are equal
    _errors: tuple[type[BaseException], ...] = (UnicodeError,)  # of the database
    _ledger_type: type[LedgerTable]
    _keeps_ledger = True  # whether the database keeps the ledger of the job
    # Includes fields without a column yet, because all their values were null.
    _columns: Columns
    # The condition that the file of a row is among those of a value; the type of a time.
    _is_of_files: str
    _time_type: str
    # Whether the rows of a file are out of date: it is gone, or will be read again.
    is_stale: Callable[[str], bool] | None = None
    name: str
    table: str
    key: tuple[str, ...]

    def __init__(
        self,
        name: str,
        *,
        table: str,
        mode: Mode,
        key: tuple[str, ...],
        job: LedgerJob | None = None,
        retrier: Retrier | None = None,
        contract: SchemaContractCheck | None = None,
        sorts_columns: bool = False,
        on_delete: OnDelete = "delete",
    ) -> None:
        self.name, self.table, self.mode, self.key = name, table, mode, key
        self._on_delete = on_delete
        self._job, self._retrier = job, retrier or Retrier(Retries())
        self._contract = contract or SchemaContractCheck()
        self._name = self._parse_name(table)
        # The table that is loaded. A replacement is renamed to `table` at the end.
        self._target = self._sibling("new") if mode == "replace" else self._name
        self._sorts_columns, self._is_new = sorts_columns, False  # whether this run made the table
        self._connection: Any
        self._is_lost = self._in_transaction = False
        self._has_committed = False  # whether rows of this run are in the table
        # Whether the ledger is known to exist; whether the unique index of the key may be missing.
        self._has_ledger = self._lacks_index = False

    def open(self, *, must_exist: bool = False) -> None:
        """Connect, and check that the table can be written.

        `must_exist`: it has rows of the same job. Raises UsageError.
        """
        self._check_names()
        with self._usage_errors():
            self._connect()
            try:
                self._run_once(self._prepare)
                if must_exist:
                    self._check_present()
                self._start()
            except BaseException:
                self._abandon()
                raise

    def _check_present(self) -> None:
        if not self._present:
            raise UsageError(
                f"cannot use {self.name}: table {self.table} is gone, with the windows from before"
                " the checkpoint: restore it, or remove the checkpoint to start over"
            )

    def ledger(self) -> Ledger:
        """Return the ledger of the job in this database."""
        connection = self._reader()
        job, least = self._job.fingerprint if self._job else "", int(self.mode == "replace")
        return TableLedger(self._ledger_type(connection), job, connection.close, least=least)

    def load(self, payload: ColumnBlock, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        return self._transact(lambda: self._write(payload, groups))

    def remove(self, keys: ColumnBlock) -> None:
        """Delete the rows with these keys, and commit. Raises SinkError."""
        self._commit(lambda: self._remove(keys) if self._present else None)

    def remove_files(self, files: Sequence[str]) -> None:
        """Delete the rows of these files, in the current transaction. Raises SinkError."""
        self._transact(lambda: self._remove_files(files))

    def prune(self, find_gone: FindGone) -> Pruned:
        """End the rows and the ledger entries of the files that are gone, and commit.

        Raises SinkError, and UsageError of `find_gone`.
        """
        outcomes: list[Pruned] = []
        query = f"SELECT 1 FROM {self._target.sql} LIMIT 1"  # noqa: S608 - quoted

        def prune() -> None:
            count = self._prune(find_gone)
            outcomes.append(Pruned(count, bool(self._present and self._rows(query))))

        self._commit(prune)
        return outcomes[-1]

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        entries = entries if self._job and self._keeps_ledger else ()
        if entries or self._in_transaction:
            self._commit(partial(self._record, entries), entries)
            self._has_ledger = self._has_ledger or bool(entries)
            self._has_committed = self._has_committed or bool(self._present)

    def put_away(self, inputs: Sequence[str]) -> None:
        """Note in the ledger that the run has moved or deleted inputs. Raises SinkError."""
        if self._job and self._keeps_ledger:
            self._commit(partial(self._ledger.put_away, self._job.fingerprint, inputs))

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End the run; put a replacement in place if the run succeeded. Raises SinkError."""
        stands = self.mode != "replace" or (succeeded and not self._is_lost)
        sorts = self._sorts_columns and self._is_new and ended
        try:
            self._undo()
            if self.mode == "mirror" and self._is_new and not self._is_lost:
                self._commit(self._complete_mirror)
            if not stands and not (self._job and (self._job.is_resuming or not ended)):
                with suppress(SinkError, *self._errors):  # the next run does it first
                    self._run_once(self._drop_replacement)
            elif stands and not self._is_lost and (self.mode == "replace" or sorts):
                self._commit(partial(self._complete, sorts=sorts))
        finally:
            self._close()
        return stands

    # Connections and transactions.

    @abstractmethod
    def _connect(self) -> None:
        """Connect, and create the database if there is none."""

    @abstractmethod
    def _reader(self) -> Any:
        """Return another connection, to read the ledger."""

    def _start(self) -> None:  # noqa: B027 - only some databases need it
        """Prepare for the run: the checks have passed."""

    @abstractmethod
    def _abandon(self) -> None:
        """Disconnect, and remove a new database: the run cannot start."""

    @abstractmethod
    def _close(self) -> None:
        """Disconnect at the end of the run: committed rows are safe."""

    def _run(self, statement: str) -> None:
        self._connection.execute(statement)

    @abstractmethod
    def _rows(self, query: str, *values: Any) -> Sequence[Any]:
        """Return the rows of a query."""

    @abstractmethod
    def _run_once(self, work: Callable[[], None]) -> None:
        """Call `work` in a transaction of its own. Raises the errors of the database."""

    @abstractmethod
    def _transact(self, work: Callable[[], T]) -> T:
        """Call `work` in the current transaction, or in a new one. Raises SinkError."""

    @abstractmethod
    def _commit(self, work: Callable[[], None], entries: Sequence[Entry] = ()) -> None:
        """Call `work`, which writes `entries`, in the current transaction, and commit."""

    @abstractmethod
    def _undo(self) -> None:
        """Roll back the current transaction, if there is one."""

    @contextmanager
    def _sink_errors(self) -> Iterator[None]:
        """Translate an error of the database into a SinkError. Any error ends the sink."""
        try:
            yield
        except BaseException as error:
            self._is_lost = True
            self._undo()
            if not isinstance(error, self._errors):
                raise
            reason = f"{self._explained(error)}{attempts_note(error)}"
            raise SinkError(f"cannot write {self.name}: {reason}") from None

    @abstractmethod
    def _is_transient(self, error: BaseException) -> bool:
        """Whether another attempt may succeed."""

    def _explained(self, error: BaseException) -> str:
        """Return the message of an error of the database."""
        return str(error)

    @contextmanager
    def _usage_errors(self) -> Iterator[None]:
        """Translate an error of the database into a UsageError."""
        try:
            yield
        except self._errors as error:
            kind = TargetBusyError if self._is_transient(error) else UsageError
            raise kind(f"cannot use {self.name}: {self._explained(error)}") from None

    # The table and its ledger.

    def _parse_name(self, table: str) -> TableName:
        return TableName(None, table)

    def _sibling(self, suffix: str) -> TableName:
        return self._name.sibling(suffix, self._max_name_bytes)

    @property
    def _ledger(self) -> LedgerTable:
        return self._ledger_type(self._connection)

    @property
    @abstractmethod
    def _present(self) -> Collection[str]:
        """The columns of the table that take values; none if there is no table."""

    def _check_table_is_there(self) -> None:
        """Raise SinkError if the table is gone, and with it the rows of this run."""
        if self._has_committed and not self._present:
            raise SinkError(
                f"cannot write {self.name}: another program has dropped table {self.table}, and"
                " the rows of this run with it: run again to load all inputs"
            )

    @abstractmethod
    def _check_names(self) -> None:
        """Raise UsageError if the table cannot have this name."""

    def _check_tables(self) -> None:
        """Raise UsageError if the table cannot be written."""
        for table in (self._name, self._target):
            if (kind := self._kind_of(table)) not in (None, "table"):
                raise UsageError(f"cannot use {self.name}: {table.table} is a {kind}, not a table")

    @abstractmethod
    def _kind_of(self, table: TableName) -> str | None:
        """Return the kind of the object with this name ("table", "view", ...), or None."""

    @abstractmethod
    def _read_columns(self) -> None:
        """Read the columns of the table, if it exists."""

    def _prepare(self) -> None:
        """Check the table, and read its columns."""
        self._check_tables()
        if self.mode == "mirror" and (holder := self._mirror_holder()) is not None:
            raise TargetBusyError(
                f"cannot use {self.name}: another --mode mirror writes table {self.table}"
                f"{holder}: run again when it has ended"
            )
        if self._keeps_ledger:
            self._ledger.upgrade()
        if self.mode == "replace" and not self._continues_replacement():
            self._drop_replacement()
            return
        self._read_columns()
        if not self._present and self._keeps_ledger:  # another process may have dropped the table
            self._ledger.forget(self._fold(self.table), generation=0)
        elif self._present and self.mode != "replace" and self.key:
            self._check_key()
        if self.mode == "mirror" and self._present:
            self._check_files()

    def _mirror_holder(self) -> str | None:
        """Keep other mirrors from the table until the end of the run: both would add all rows.

        Returns None, or words about the process that keeps this one from it.
        """
        return None

    def _continues_replacement(self) -> bool:
        """Whether a replacement table of an earlier run exists and can be continued."""
        job = self._job
        if not job or not job.is_resuming or not self._kind_of(self._target):
            return False
        return self._ledger.can_resume(job, self._fold(self.table))

    def _drop_replacement(self) -> None:
        self._run(f"DROP TABLE IF EXISTS {self._target.sql}")
        self._ledger.forget(self._fold(self.table), generation=1)

    def _check_key(self) -> None:
        """Check that the key can be unique. Raises UsageError."""
        present = set(map(self._fold, self._present))
        if missing := [name for name in self.key if self._fold(name) not in present]:
            raise UsageError(
                f"cannot use {self.name}: table {self.table} lacks these columns of the key:"
                f" {', '.join(missing)}"
            )
        if self._has_unique_key():
            return
        if self._rows(repetition(self._name.sql, self.key)):
            raise UsageError(
                f"cannot use {self.name}: several rows of table {self.table} have the same"
                f" {', '.join(self.key)}, so this cannot be the key"
            )
        self._lacks_index = True

    def _has_unique_key(self) -> bool:
        """Whether a constraint or index keeps the values of the key unique."""
        return False

    def _record(self, entries: Sequence[Entry]) -> None:
        if entries and self._job:
            if not self._has_ledger:
                self._ledger.create()
            self._ledger.record(self._job.fingerprint, self._fold(self.table), entries)

    def _complete(self, *, sorts: bool) -> None:
        """Put the columns of a new table in order, and a replacement in place."""
        if sorts and list(self._present) != sorted(self._present):
            self._sort_columns()
            if self.mode == "mirror":
                self._index_files()
        if self.mode != "replace":
            return
        if self._present:
            self._run(f"DROP TABLE IF EXISTS {self._name.sql}")
            self._run(f"ALTER TABLE {self._target.sql} RENAME TO {quote(self._name.table)}")
        elif self._kind_of(self._name):
            self._run(f"DELETE FROM {self._name.sql}")  # noqa: S608 - quoted
        if self._job:
            self._ledger.promote(self._job.fingerprint, self._fold(self.table))

    @abstractmethod
    def _sort_columns(self) -> None:
        """Put the columns of the table in the order of their names."""

    # The files of a mirror.

    def _check_files(self) -> None:
        """Check that each row has a file. Raises UsageError."""
        where = f" WHERE {quote(FILE_COLUMN)} IS NULL" if self._has_files else ""
        if self._rows(f"SELECT 1 FROM {self._name.sql}{where} LIMIT 1"):  # noqa: S608 - quoted
            raise UsageError(
                f"cannot use {self.name}: table {self.table} has rows without a file in"
                f" {FILE_COLUMN}, which no --mode mirror wrote: name another table, or delete them"
            )
        self._index_files()

    def _index_files(self) -> None:  # noqa: B027 - not every database needs it
        """Create an index on the files of rows, if there is none."""

    def _prune(self, find_gone: FindGone) -> int:
        gone = find_gone(self._files(), self._ledger_lines())
        target = self._fold(self.table)
        if self._ledger.exists() and self._job:
            self._ledger.forget_other_jobs(self._job.fingerprint, target)
            if gone.entries:
                self._ledger.forget_files(target, list(map(unescape_path, gone.entries)))
        if not self._has_files:
            return 0
        if self._on_delete == "mark":
            self._add_deletion_time()
        if not gone.files:
            return 0
        if self._on_delete == "delete":
            return self._remove_files(gone.files)
        where = f"{self._is_of_files} AND {quote(DELETED_COLUMN)} IS NULL"
        marked = f"UPDATE {self._target.sql} SET {quote(DELETED_COLUMN)} = '{utc_now()}'"  # noqa: S608 - quoted
        return self._change(f"{marked} WHERE {where}", self._file_list(gone.files))

    def _files(self) -> Iterable[str]:
        """Return the files that have rows which are not marked as deleted."""
        if not self._has_files:
            return ()
        where = f" WHERE {quote(DELETED_COLUMN)} IS NULL" if self._has_deletion_time else ""
        query = f"SELECT DISTINCT {quote(FILE_COLUMN)} FROM {self._target.sql}{where}"  # noqa: S608 - quoted
        return (file for (file,) in self._rows(query))

    def _ledger_lines(self) -> Iterable[LedgerLine]:
        """Return the ledger entries of the table."""
        if not self._ledger.exists():
            return ()
        job, target = self._job.fingerprint if self._job else "", self._fold(self.table)
        lines = self._ledger.lines(target)
        return (LedgerLine(*line[:3], line[3] == job) for line in lines)

    @property
    def _has_files(self) -> bool:
        return self._has_column(FILE_COLUMN)

    @property
    def _has_deletion_time(self) -> bool:
        return self._has_column(DELETED_COLUMN)

    def _has_column(self, name: str) -> bool:
        return self._fold(name) in map(self._fold, self._present)

    def _own_flaw(self, name: str) -> str | None:
        """Return the reason against a field that the database takes for a column of the mirror."""
        if self.mode != "mirror" or name in OWN_COLUMNS or self._fold(name) not in OWN_COLUMNS:
            return None
        return f"--mode mirror sets the column {self._fold(name)} itself"

    def _add_deletion_time(self) -> None:
        """Add the column for the time of deletion, if the table has none."""
        if not self._has_deletion_time:
            column = f"{quote(DELETED_COLUMN)} {self._time_type}"
            self._run(f"ALTER TABLE {self._target.sql} ADD COLUMN {column}")
            self._read_columns()

    def _complete_mirror(self) -> None:
        """Give a new table the columns that a mirror has besides those of its rows."""
        if self._on_delete == "mark" and self._present:
            self._add_deletion_time()

    def _remove_files(self, files: Sequence[str]) -> int:
        """Delete the rows of these files; return their number."""
        if not self._has_files:
            return 0
        statement = f"DELETE FROM {self._target.sql} WHERE {self._is_of_files}"  # noqa: S608 - quoted
        return self._change(statement, self._file_list(files))

    @abstractmethod
    def _file_list(self, files: Sequence[str]) -> Any:
        """Return the value of `_is_of_files`."""

    @abstractmethod
    def _change(self, statement: str, value: Any) -> int:
        """Run a statement with a value; return the number of rows that it changed."""

    def _claim_keys(self, block: ColumnBlock, groups: Sequence[int] | None) -> Mapping[int, str]:
        """Delete the stale rows that have the key of a row of the block.

        Returns the reasons against the rows whose keys other files have.
        """
        if self.is_stale is None or not self.key or not self._has_files:
            return {}
        keys = self._keys_of(block)
        owners = self._owners(keys)
        verdicts = {file: file is None or self.is_stale(file) for file in set(owners.values())}
        stale = {row for row, file in owners.items() if verdicts[file]}
        if stale:
            self._remove(keys.without(set(range(keys.count)) - stale))
            if files := {file for row in stale if (file := owners[row]) is not None}:
                # Such a file must be read, even if it becomes again what it was.
                self._ledger.forget_files(
                    self._fold(self.table), list(map(unescape_path, sorted(files)))
                )
        taken = {row: owner for row, owner in sorted(owners.items()) if row not in stale}
        return spread_reasons({row: self._clash(owner) for row, owner in taken.items()}, groups)

    def _named_clashes(self, block: ColumnBlock, reasons: Mapping[int, str]) -> dict[int, str]:
        """Return the reasons against rows. That against a key of another row names its file."""
        if self.mode != "mirror" or not self.key or not reasons:
            return dict(reasons)
        rows = sorted(reasons)
        refused = self._keys_of(block).without(set(range(block.count)) - reasons.keys())
        owners = self._owners(refused)
        return {
            row: self._clash(owners[number]) if number in owners else reasons[row]
            for number, row in enumerate(rows)
        }

    def _clash(self, file: str | None) -> str:
        return f"a row of {file} has the same {', '.join(self.key)}"

    def _keys_of(self, block: ColumnBlock) -> ColumnBlock:
        """Return the key of each row of a block."""
        key = set(map(self._fold, self.key))
        return block.fields([p for p, name in enumerate(block.names) if self._fold(name) in key])

    @abstractmethod
    def _owners(self, keys: ColumnBlock) -> dict[int, str | None]:
        """Return the file of the row with each key, by the number of the key.

        None is the file of a row that is marked as deleted. Keys without a row are left out.
        """

    @property
    def _owner(self) -> str:
        """The SQL expression for the file of a row `t` in `_owners`."""
        file = f"t.{quote(FILE_COLUMN)}"
        if not self._has_deletion_time:
            return file
        return f"CASE WHEN t.{quote(DELETED_COLUMN)} IS NULL THEN {file} END"

    # The rows.

    def _write(self, payload: ColumnBlock, groups: Sequence[int] | None) -> Sequence[Refusal]:
        """Write rows; return the rejected rows."""
        return write_accepted(lambda: self._columns, payload, groups, self._write_admitted)

    @abstractmethod
    def _write_admitted(self, admitted: Admitted) -> Written:
        """Change the table for admitted rows, and insert them."""

    @abstractmethod
    def _remove(self, keys: ColumnBlock) -> None:
        """Delete the rows with these keys."""


def utc_now() -> str:
    """Return the time as ISO 8601 with Z, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
