"""The PostgreSQL sink: a table of a PostgreSQL database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from asyncbatch.core.origin import FILE_COLUMN
from asyncbatch.core.retry import Retrier, Retries
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.base import Refusal
from asyncbatch.sinks.columns.table import Written, group_edges, load_salvaging
from asyncbatch.sinks.databases.postgres.rows import PostgresLoad
from asyncbatch.sinks.databases.postgres.server import PostgresServer, RetryingReader, Transactions
from asyncbatch.sinks.databases.postgres.table import (
    MOST_NAME_BYTES,
    TIME,
    FixedTableError,
    TableShape,
    column_flaw,
    deferrable_keys,
    dependents,
    find_table,
    has_unique_key,
    lock_statement,
    may_create,
)
from asyncbatch.sinks.databases.postgres.values import ColumnType
from asyncbatch.sinks.databases.savepoints import SavepointSink
from asyncbatch.sinks.databases.sql import TableName, quote
from asyncbatch.state.ledger.file import LedgerStore, default_path
from asyncbatch.state.ledger.postgres import PostgresLedgerTable
from asyncbatch.state.ledger.table import NAME as LEDGER_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Ledger, LedgerJob
    from asyncbatch.core.settings import ServerSettings
    from asyncbatch.sinks.columns.block import ColumnBlock, ColumnKind
    from asyncbatch.sinks.columns.table import Admitted
    from asyncbatch.sinks.databases.postgres.server import PostgresConnection

T = TypeVar("T")

RETRIES = Retries(5, 0.5)  # the default: 15 seconds for a server that restarts
# Beginnings of the SQLSTATE codes of errors that rows cause.
_REJECTING_CODES = ("21", "22", "23", "44", "54", "P0", "42804", "42846")
_DUPLICATE_CODE = "23505"  # of COPY in an upsert: the key exists
_NO_COPY_CODE = "0A000"  # of COPY into a table whose rows have policies
_POLICY_CODE = "42501"  # no permission; also of a row that a policy forbids
_CONTRACT = ", and the schema contract is"  # in reasons against values for a table that is fixed
_TEXT_CODES = ("22021", "22P05")  # of a NUL character in a text
_TABLES = ("r", "p")  # relation kinds: table, partitioned table


class PostgresSink(SavepointSink):
    """A table of a PostgreSQL database.

    The rows since the last commit stay in memory, and are loaded again after a lost connection. The
    `address` may have a password, which no message shows. New columns `times` get a time type.
    """

    _max_name_bytes = MOST_NAME_BYTES
    _fold = staticmethod(str)
    _ledger_type = PostgresLedgerTable
    _indexed_file = f"(left({quote(FILE_COLUMN)}, 500))"  # as in the ledger: a path may be longer
    _is_of_files = (
        f"left({quote(FILE_COLUMN)}, 500) = ANY(ARRAY(SELECT left(one, 500)"  # noqa: S608 - constants
        f" FROM unnest($1::text[]) AS one)) AND {quote(FILE_COLUMN)} = ANY($1::text[])"
    )
    _time_type = TIME
    _connection: PostgresConnection  # of the current transaction

    def __init__(
        self,
        address: str,
        *,
        retrier: Retrier | None = None,
        settings: ServerSettings | None = None,
        times: Collection[str] = (),
        override_identity: bool = False,
        **options: Any,
    ) -> None:
        self._server = PostgresServer(address, settings)
        super().__init__(self._server.name, retrier=retrier or Retrier(RETRIES), **options)
        self._times = times
        self._transactions = Transactions(
            self._server, self._retrier, lock_statement(self._target), self._repeat
        )
        mode, key = self.mode, self.key
        self._shape = TableShape(
            self._server,
            self._target,
            key,
            self._contract,
            times,
            # An upsert cannot change an identity, only insert one.
            overridden=lambda name: override_identity and (mode != "upsert" or name in key),
        )
        self._columns = self._shape.columns
        # The rows since the last commit, without rejected ones, and the files whose rows were
        # deleted before them.
        self._loads: list[ColumnBlock | tuple[str, ...]] = []
        # Whether an upsert has met a key that exists in the table.
        self._replaces = False
        # Whether the table allows no COPY, because its rows have policies.
        self._is_guarded = False
        # The fields of the rows so far.
        self._fields: set[str] = set()
        # The ledger of a role that cannot keep one in the database.
        self._file_ledger: LedgerStore | None = None

    @property
    def notes(self) -> list[str]:
        """The remarks for the user about the target."""
        notes = self._server.notes
        if self._file_ledger is not None:
            notes.append(
                f"the ledger is the file {self._file_ledger.path}, because this role cannot keep"
                f" the table {LEDGER_NAME} in {self.name}: a run that is killed"
                " between the commit of rows and their entry there loads these rows again"
            )
        return notes

    def ledger(self) -> Ledger:
        if self._file_ledger is not None:
            from asyncbatch.state.ledger.sqlite import sqlite_ledger

            job = self._job.fingerprint if self._job else ""
            return sqlite_ledger(self._file_ledger.path, job)
        return super().ledger()

    def load(self, payload: ColumnBlock, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        refused = super().load(payload, groups)
        self._loads.append(payload.without({refusal.row for refusal in refused}))
        self._in_transaction = True
        return refused

    def remove_files(self, files: Sequence[str]) -> None:
        super().remove_files(files)
        self._loads.append(tuple(files))
        self._in_transaction = True

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        super().commit(entries)
        if entries and self._file_ledger is not None:
            self._file_ledger.record(entries)

    @property
    def _column_types(self) -> dict[str, ColumnType]:
        bases = self._shape.bases
        return {
            name: ColumnType(
                declared, bases.get(name, declared), name in self._times, name in self._shape.made
            )
            for name, declared in self._shape.types.items()
        }

    def _check_names(self) -> None:
        for name, kind in ((self._name.schema, "schema"), (self._name.table, "table")):
            if name is not None and (reason := column_flaw(name)):
                raise UsageError(
                    f"--table {self.table!r}: the name of the {kind} is not valid: {reason}"
                )
        for name in self.key:
            if reason := column_flaw(name):
                raise UsageError(f"{name!r} cannot be the key: {reason}")

    # Connections and transactions.

    def _connect(self) -> None:
        self._server.open()
        self._errors = self._server.errors

    def _reader(self) -> RetryingReader:
        return RetryingReader(self._server, self._retrier)

    def _start(self) -> None:
        if self._file_ledger is not None:
            self._file_ledger.open()

    def _abandon(self) -> None:
        self._server.close()

    def _close(self) -> None:
        if self._file_ledger is not None:
            self._file_ledger.close()
        self._transactions.close()
        self._server.close()

    def _rows(self, query: str, *values: Any) -> Sequence[Any]:
        return self._connection.fetch(query, *values)

    def _run_once(self, work: Callable[[], None]) -> None:
        def run(connection: PostgresConnection) -> None:
            self._connection = connection
            work()

        self._transactions.execute_once(run)

    def _transact(self, work: Callable[[], T]) -> T:
        with self._sink_errors():
            return self._transactions.execute(work)

    def _commit(self, work: Callable[[], None], entries: Sequence[Entry] = ()) -> None:
        def is_there(number: int) -> bool:
            if not entries or self._job is None:
                return True
            ledger, job = PostgresLedgerTable(self._server), self._job.fingerprint
            return ledger.is_recorded(job, entries[-1], number)

        with self._sink_errors():
            self._transactions.commit(work, is_there)
        self._loads.clear()
        self._in_transaction = False

    def _undo(self) -> None:
        if self._in_transaction:
            self._in_transaction = False
            self._loads.clear()
            self._transactions.undo()

    def _is_transient(self, error: BaseException) -> bool:
        return self._server.is_transient(error)

    def _explained(self, error: BaseException) -> str:
        return self._server.explained(error)

    def _repeat(self, connection: PostgresConnection) -> None:
        """Read the columns of the table, and load the rows of a lost connection again."""
        if connection is not self._connection and self.mode == "mirror":
            self._connection = connection
            self._mirror_holder()  # the lock ended with the lost connection
        self._connection = connection
        self._shape.read(connection)
        self._check_table_is_there()
        for block in self._loads:
            if isinstance(block, tuple):
                self._remove_files(block)
            elif refused := self._write(block, None):
                raise SinkError(
                    f"cannot write {self.name}: the connection was lost, and the server"
                    f" rejected {len(refused)} of its rows on a new one: {refused[0].message}"
                )

    # The table and its ledger.

    def _parse_name(self, table: str) -> TableName:
        return TableName.parse(table)

    @property
    def _present(self) -> Collection[str]:
        return self._shape.types

    def _prepare(self) -> None:
        if self._rows("SELECT current_setting('transaction_read_only')")[0][0] == "on":
            raise UsageError(f"cannot use {self.name}: it is read-only")
        if self._job and self.mode != "replace":
            self._choose_ledger(self._job)
        super()._prepare()

    def _check_tables(self) -> None:
        for name in {self._name, self._target}:
            if found := find_table(self._connection, name):
                self._check_table(name, *found)
        found = find_table(self._connection, self._name)
        if self.mode != "replace":
            if found is None and not may_create(self._connection, self._name):
                raise UsageError(
                    f"cannot use {self.name}: there is no table {self.table}, and this"
                    " role may not create it"
                )
        elif found and (others := dependents(self._connection, found[0])):
            raise UsageError(
                f"cannot replace table {self.table}, because other objects depend on it"
                f" ({', '.join(others)}): --mode append or upsert keeps the table"
            )

    def _kind_of(self, table: TableName) -> str | None:
        found = find_table(self._connection, table)
        return found[1] if found else None

    def _read_columns(self) -> None:
        self._shape.read(self._connection)

    def _check_key(self) -> None:
        for name in self.key:
            if reason := self._shape.generated.get(name):
                raise UsageError(
                    f"cannot use {self.name}: column {name} of table {self.table} cannot"
                    f" be the key: {reason}"
                )
        super()._check_key()
        number = self._shape.number
        if self.mode == "upsert" and number is not None:
            for name in deferrable_keys(self._connection, number, self.key):
                raise UsageError(
                    f"cannot use {self.name}: {name} of table {self.table} is DEFERRABLE, and"
                    " PostgreSQL cannot replace rows by such a key: make it NOT DEFERRABLE, or name"
                    " another key"
                )

    def _has_unique_key(self) -> bool:
        number = self._shape.number
        return number is not None and has_unique_key(self._connection, number, self.key)

    def _mirror_holder(self) -> str | None:
        if self._server.is_pooled:  # the lock is that of a session
            return None
        query = (
            "SELECT pg_try_advisory_lock(hashtextextended('asyncbatch mirror ' ||"
            " coalesce($1::text, current_schema()) || '.' || $2::text, 0))"
        )
        is_free = self._rows(query, self._name.schema, self._name.table)[0][0]
        return None if is_free else " (it has the advisory lock)"

    def _choose_ledger(self, job: LedgerJob) -> None:
        """Keep the ledger in a file if the role may not keep it in the database.

        A ledger file that exists is continued: another ledger would not know its inputs.
        """
        place = f"/{self.name}/{self.table}"
        path = default_path(place, job.fingerprint, None)
        if os.path.exists(path) or not PostgresLedgerTable(self._connection).may_keep():
            if self.mode == "mirror":
                raise UsageError(
                    f"cannot use {self.name}: --mode mirror keeps its ledger in the table"
                    f" {LEDGER_NAME}, which this role cannot keep"
                )
            self._keeps_ledger = False
            self._file_ledger = LedgerStore(path, job.fingerprint, place, f"table {self.table}")

    def _check_table(self, name: TableName, number: int, kind: str, schema: str) -> None:
        where = f"cannot use {self.name}"
        if kind not in _TABLES:
            raise UsageError(f"{where}: {name.table} is not a table, but a view or an index")
        if schema in ("pg_catalog", "information_schema"):
            raise UsageError(f"{where}: {name.table} is a system table of the server")
        more = {"upsert": ("UPDATE",), "mirror": ("UPDATE", "DELETE")}.get(self.mode, ())
        for privilege in ("SELECT", "INSERT", *more):
            query = "SELECT has_table_privilege($1::bigint::oid, $2)"
            if not self._rows(query, number, privilege)[0][0]:
                raise UsageError(f"{where}: no permission to {privilege} on table {name.table}")

    # The rows.

    def _write(self, payload: ColumnBlock, groups: Sequence[int] | None) -> Sequence[Refusal]:
        refused = super()._write(payload, groups)
        if self._shape.fixed is not None:
            refused = [Refusal(one.row, self._fixed_reason(one.message)) for one in refused]
        return refused

    def _write_admitted(self, admitted: Admitted) -> Written:
        try:
            return super()._write_admitted(admitted)
        except FixedTableError as error:
            if self._shape.fixed is not None:  # rows that fit the table never need a change
                raise SinkError(f"cannot write {self.name}: {error}") from None
            self._run("ROLLBACK TO shape; RELEASE shape")
            self._shape.fix(self._connection, str(error))
            return Written({}, is_undone=True)

    def _changes(self, block: ColumnBlock) -> dict[str, ColumnKind]:
        return self._shape.changes(self._connection, block)

    def _state(self) -> dict[str, Any]:
        return self._shape.state()

    def _restore(self, state: dict[str, Any]) -> None:
        self._shape.restore(self._connection, state)

    def _reshape(self, block: ColumnBlock, changes: Mapping[str, ColumnKind]) -> str | None:  # noqa: ARG002 - others may have made them
        reason = self._shape.fit(self._connection, block)
        self._is_new = self._shape.is_new
        return reason

    def _sort_columns(self) -> None:
        self._shape.sort_columns(self._connection)

    def _index_files(self) -> None:
        # Only the owner of a table may create an index, also one that exists.
        index = self._sibling("file").sql
        if not self._rows("SELECT to_regclass($1)", index)[0][0]:
            super()._index_files()

    def _file_list(self, files: Sequence[str]) -> list[str]:
        return list(files)

    def _change(self, statement: str, value: Any) -> int:
        return int(self._connection.execute(statement, value).rpartition(" ")[2])

    def _owners(self, keys: ColumnBlock) -> dict[int, str | None]:
        return PostgresLoad(
            self._connection, self._target, self._column_types, keys, key=self.key
        ).owners(self._owner)

    def _remove(self, keys: ColumnBlock) -> None:
        block = self._columns.admit(keys, None).block
        PostgresLoad(
            self._connection, self._target, self._column_types, block, key=self.key
        ).remove()

    def _fixed_reason(self, message: str) -> str:
        found, contract, _ = message.partition(_CONTRACT)
        return f"{found}, and the table stays as it is: {self._shape.fixed}" if contract else found

    def _insert(self, block: ColumnBlock, groups: Sequence[int] | None) -> dict[int, str]:
        key = self.key if self.mode == "upsert" else ()
        self._fields.update(block.names)
        load = PostgresLoad(
            self._connection,
            self._target,
            self._column_types,
            block,
            key=key,
            replaced=self._fields | self._shape.made,
            defaults=self._shape.defaults,
            overrides=not self._shape.identities.isdisjoint(self._shape.types),
        )
        load.replaces, load.is_staged = self._replaces, self._is_guarded
        misfits = load.misfits()

        def attempt(start: int, stop: int) -> str | None:
            if reason := next((misfits[row] for row in misfits if start <= row < stop), None):
                return reason
            try:
                load.load(start, stop)
            except Exception as error:
                code = str(getattr(error, "sqlstate", None) or "")
                if code == _DUPLICATE_CODE and key and not self._replaces:
                    load.undo()
                    self._replaces = load.replaces = True
                    return attempt(start, stop)
                if code == _NO_COPY_CODE and not load.is_staged:
                    load.undo()
                    self._is_guarded = load.is_staged = True
                    return attempt(start, stop)
                if code == _POLICY_CODE:
                    load.undo()
                    if not self._has_policies():
                        raise
                    return self._refusal(error, code)
                if not code.startswith(_REJECTING_CODES) and not isinstance(error, UnicodeError):
                    raise
                load.undo()
                return self._refusal(error, code)
            return None

        reasons = load_salvaging(group_edges(block.count, groups), attempt)
        load.end()
        return reasons

    def _has_policies(self) -> bool:
        """Whether policies decide which rows this role may write."""
        query = "SELECT row_security_active($1::bigint::oid)"
        return bool(self._rows(query, self._shape.number)[0][0])

    def _refusal(self, error: Exception, code: str) -> str:
        reason = self._server.explained(error).replace(self._target.table, self._name.table)
        if code in _TEXT_CODES:
            reason += "; PostgreSQL does not allow a NUL character in a text"
        return reason
