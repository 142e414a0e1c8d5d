"""The PostgreSQL sink: a table of a PostgreSQL database."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncbatch.core.retry import Retrier, Retries
from asyncbatch.errors import SinkError, TargetBusyError, UsageError
from asyncbatch.sinks.base import Refusal
from asyncbatch.sinks.columns import Written, group_edges, load_salvaging, write_accepted
from asyncbatch.sinks.postgres.rows import PostgresLoad
from asyncbatch.sinks.postgres.server import PostgresServer, RetryingReader, TableName, Transactions
from asyncbatch.sinks.postgres.table import (
    FixedTableError,
    TableShape,
    column_flaw,
    dependents,
    find_table,
    has_repeated_key,
    has_unique_key,
    lock_statement,
    may_create,
)
from asyncbatch.sinks.postgres.values import ColumnType
from asyncbatch.sinks.sql_names import quote, quoted
from asyncbatch.state.ledger import postgres as ledger
from asyncbatch.state.ledger import table as ledger_table
from asyncbatch.state.ledger import table as replacing
from asyncbatch.state.ledger.file import LedgerStore, default_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry, Ledger, LedgerJob
    from asyncbatch.core.settings import ServerSettings
    from asyncbatch.sinks.base import Mode
    from asyncbatch.sinks.column_block import ColumnBlock
    from asyncbatch.sinks.columns import Admitted
    from asyncbatch.sinks.postgres.server import PostgresConnection
    from asyncbatch.sinks.schema_contract import SchemaContractCheck

RETRIES = Retries(5, 0.5)  # the default: 15 seconds for a server that restarts
# Beginnings of the SQLSTATE codes of errors that rows cause.
_REJECTING_CODES = ("21", "22", "23", "44", "54", "P0", "42804", "42846")
_DUPLICATE_CODE = "23505"  # of COPY in an upsert: the key exists
_NO_COPY_CODE = "0A000"  # of COPY into a table whose rows have policies
_POLICY_CODE = "42501"  # no permission; also of a row that a policy forbids
_CONTRACT = ", and the schema contract is"  # in reasons against values for a table that is fixed
_TEXT_CODES = ("22021", "22P05")  # of a NUL character in a text
_TABLES = ("r", "p")  # relation kinds: table, partitioned table


class PostgresSink:
    """A table of a PostgreSQL database: append, replace, or upsert by key.

    New fields add columns, and values widen column types. The rows since the last commit stay in
    memory, and are loaded again after a lost connection. The `address` may have a password, which
    no message shows. See `BatchSink` for the order of calls.
    """

    def __init__(
        self,
        address: str,
        *,
        table: str,
        mode: Mode,
        key: tuple[str, ...],
        job: LedgerJob | None = None,
        retrier: Retrier | None = None,
        contract: SchemaContractCheck | None = None,
        settings: ServerSettings | None = None,
        times: Collection[str] = (),
        override_identity: bool = False,
        sorts_columns: bool = False,
    ) -> None:
        self._sorts_columns = sorts_columns
        self.table, self.mode, self.key = table, mode, key
        self._times = times
        self._job, self._retrier = job, retrier or Retrier(RETRIES)
        self._server = PostgresServer(address, settings)
        self._name = TableName.parse(table)
        # The table that is loaded. A replacement is renamed to `table` at the end.
        self._target = self._name.sibling("new") if mode == "replace" else self._name
        self._transactions = Transactions(
            self._server, self._retrier, lock_statement(self._target), self._begin
        )
        self._shape = TableShape(
            self._server,
            self._target,
            key,
            contract,
            times,
            # An upsert cannot change an identity, only insert one.
            overridden=lambda name: override_identity and (mode != "upsert" or name in key),
        )
        # The rows since the last commit, without rejected ones.
        self._loads: list[ColumnBlock] = []
        self._lacks_index = self._has_ledger = False
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
                f" the table {ledger_table.NAME} in {self._server.name}: a run that is killed"
                " between the commit of rows and their entry there loads these rows again"
            )
        return notes

    def open(self) -> None:
        """Connect, and check that the table can be written. Raises UsageError."""
        self._check_names()
        self._server.open()
        try:
            self._transactions.execute_once(self._prepare)
            if self._file_ledger is not None:
                self._file_ledger.open()
        except Exception as error:
            self._server.close()
            if not self._server.is_error(error):
                raise
            kind = TargetBusyError if self._server.is_transient(error) else UsageError
            reason = self._server.explained(error)
            raise kind(f"cannot use {self._server.name}: {reason}") from None

    def ledger(self) -> Ledger:
        """Return the ledger of the job in this database."""
        job = self._job.fingerprint if self._job else ""
        if self._file_ledger is not None:
            from asyncbatch.state.ledger.sqlite import SqliteLedger

            return SqliteLedger(self._file_ledger.path, job)
        reader = RetryingReader(self._server, self._retrier)
        return ledger.PostgresLedger(reader, job, least=int(self.mode == "replace"))

    def load(self, payload: ColumnBlock, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        refused = self._transactions.execute(lambda found: self._write(found, payload, groups))
        self._loads.append(payload.without({refusal.row for refusal in refused}))
        return refused

    def remove(self, keys: ColumnBlock) -> None:
        """Delete the rows with these keys, and commit. Raises SinkError."""

        def remove(connection: PostgresConnection) -> None:
            if self._shape.number is not None:
                block = self._shape.columns.admit(keys, None).block
                PostgresLoad(
                    connection, self._target, self._column_types, block, key=self.key
                ).remove()

        self._transactions.commit(remove)

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        job = self._job
        if not job or not entries or self._file_ledger is not None:
            if self._loads:
                self._transactions.commit(lambda _: None)
            if entries and self._file_ledger is not None:
                self._file_ledger.record(entries)
        else:
            name = job.fingerprint

            def record(connection: PostgresConnection) -> None:
                if not self._has_ledger:
                    ledger.create(connection)
                ledger.record(connection, name, self.table, entries)

            def is_there(number: int) -> bool:
                return ledger.is_recorded(self._server, name, entries[-1], number)

            self._transactions.commit(record, is_there)
            self._has_ledger = True
        self._loads.clear()
        self._lacks_index = False

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End the run; put a replacement in place if the run succeeded. Raises SinkError."""
        is_lost, sorts = self._transactions.is_lost, self._sorts_columns
        stands = self.mode != "replace" or (succeeded and not is_lost)
        try:
            if self._loads:
                self._transactions.undo()
                self._loads.clear()
            if not stands and not (self._job and (self._job.is_resuming or not ended)):
                with suppress(Exception):  # the next run does it first
                    self._transactions.execute_once(self._drop_replacement)
            elif stands and not is_lost and (self.mode == "replace" or (ended and sorts)):
                self._transactions.commit(lambda found: self._complete(found, ended=ended))
        finally:
            if self._file_ledger is not None:
                self._file_ledger.close()
            self._transactions.close()
            self._server.close()
        return stands

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

    def _prepare(self, connection: PostgresConnection) -> None:
        if connection.fetch("SELECT current_setting('transaction_read_only')")[0][0] == "on":
            raise UsageError(f"cannot use {self._server.name}: it is read-only")
        if self._job and self.mode != "replace":
            self._choose_ledger(connection, self._job)
        if self._file_ledger is None and ledger.exists(connection):
            ledger.create(connection)  # adds the columns that the table of an earlier version lacks
        for name in {self._name, self._target}:
            if found := find_table(connection, name):
                self._check_table(connection, name, *found)
        is_continued = self.mode == "replace" and self._continues_replacement(connection)
        if self.mode != "replace" or is_continued:
            self._shape.read(connection)
        if self.mode == "replace":
            self._check_dependents(connection)
        elif self.key and self._shape.number is not None:
            self._check_key(connection, self._shape.number)
        if self.mode == "replace" and not is_continued:
            self._drop_replacement(connection)
        elif self._shape.number is None:
            self._check_missing(connection)

    def _check_missing(self, connection: PostgresConnection) -> None:
        """Check that the table can be created; forget its entries if it was dropped."""
        if not may_create(connection, self._name):
            raise UsageError(
                f"cannot use {self._server.name}: there is no table {self.table}, and this role may"
                " not create it"
            )
        if self._file_ledger is None and ledger.exists(connection):
            replacing.forget(ledger.executor(connection), self.table, generation=0)

    def _choose_ledger(self, connection: PostgresConnection, job: LedgerJob) -> None:
        """Keep the ledger in a file if the role may not keep it in the database.

        A ledger file that exists is continued: another ledger would not know its inputs.
        """
        place = f"/{self._server.name}/{self.table}"
        path = default_path(place, job.fingerprint, None)
        if os.path.exists(path) or not ledger.may_keep(connection):
            self._file_ledger = LedgerStore(path, job.fingerprint, place, f"table {self.table}")

    def _continues_replacement(self, connection: PostgresConnection) -> bool:
        """Whether a replacement table of an earlier run exists and can be continued."""
        job = self._job
        if not job or not job.is_resuming or not ledger.exists(connection):
            return False
        if find_table(connection, self._target) is None:
            return False
        return replacing.can_resume(ledger.executor(connection), job, self.table)

    def _check_table(
        self, connection: PostgresConnection, name: TableName, number: int, kind: str, schema: str
    ) -> None:
        where = f"cannot use {self._server.name}"
        if kind not in _TABLES:
            raise UsageError(f"{where}: {name.table} is not a table, but a view or an index")
        if schema in ("pg_catalog", "information_schema"):
            raise UsageError(f"{where}: {name.table} is a system table of the server")
        for privilege in ("SELECT", "INSERT", *(["UPDATE"] if self.mode == "upsert" else [])):
            query = "SELECT has_table_privilege($1::bigint::oid, $2)"
            if not connection.fetch(query, number, privilege)[0][0]:
                raise UsageError(f"{where}: no permission to {privilege} on table {name.table}")

    def _check_dependents(self, connection: PostgresConnection) -> None:
        found = find_table(connection, self._name)
        if found and (others := dependents(connection, found[0])):
            raise UsageError(
                f"cannot replace table {self.table}, because other objects depend on it"
                f" ({', '.join(others)}): --mode append or upsert keeps the table"
            )

    def _check_key(self, connection: PostgresConnection, number: int) -> None:
        for name in self.key:
            if reason := self._shape.generated.get(name):
                raise UsageError(
                    f"cannot use {self._server.name}: column {name} of table {self.table} cannot"
                    f" be the key: {reason}"
                )
        if missing := [name for name in self.key if name not in self._shape.types]:
            raise UsageError(
                f"cannot use {self._server.name}: table {self.table} lacks these columns of the"
                f" key: {', '.join(missing)}"
            )
        if has_unique_key(connection, number, self.key):
            return
        if has_repeated_key(connection, self._name, self.key):
            raise UsageError(
                f"cannot use {self._server.name}: several rows of table {self.table} have the"
                f" same {', '.join(self.key)}, so this cannot be the key"
            )
        self._lacks_index = True

    def _drop_replacement(self, connection: PostgresConnection) -> None:
        connection.execute(f"DROP TABLE IF EXISTS {self._target.sql}")
        if ledger.exists(connection):
            replacing.forget(ledger.executor(connection), self.table, generation=1)

    def _begin(self, connection: PostgresConnection) -> None:
        """Read the columns of the table, and load the rows of a lost connection again."""
        self._shape.read(connection)
        for block in self._loads:
            if refused := self._write(connection, block, None):
                raise SinkError(
                    f"cannot write {self._server.name}: the connection was lost, and the server"
                    f" rejected {len(refused)} of its rows on a new one: {refused[0].message}"
                )

    def _write(
        self, connection: PostgresConnection, payload: ColumnBlock, groups: Sequence[int] | None
    ) -> Sequence[Refusal]:
        """Write rows; return the rejected rows."""

        def write(admitted: Admitted) -> Written:
            return self._write_admitted(connection, admitted)

        refused = write_accepted(lambda: self._shape.columns, payload, groups, write)
        if self._shape.fixed is not None:
            refused = [Refusal(one.row, self._fixed_reason(one.message)) for one in refused]
        return refused

    def _write_admitted(self, connection: PostgresConnection, admitted: Admitted) -> Written:
        """Change the table for admitted rows, and insert them."""
        block, shape = admitted.block, self._shape
        changes = shape.changes(connection, block)
        is_changing = not shape.types or any(kind != "null" for kind in changes.values())
        state = shape.state() if is_changing else {}
        if is_changing:
            connection.execute("SAVEPOINT shape")
        reasons: Mapping[int, str]
        try:
            reason = shape.fit(connection, block)
        except FixedTableError as error:
            if shape.fixed is not None:  # rows that fit the table need no change: never try again
                raise SinkError(f"cannot write {self._server.name}: {error}") from None
            connection.execute("ROLLBACK TO shape; RELEASE shape")
            shape.restore(connection, state)
            shape.fix(connection, str(error))
            return Written({}, is_undone=True)
        if reason is not None:
            reasons = dict.fromkeys(range(block.count), reason)
        else:
            if self._lacks_index and shape.number is not None:
                self._index(connection, shape.number)
            reasons = self._insert(connection, block, admitted.groups)
        is_undone = is_changing and bool(reasons)
        if is_undone:
            connection.execute("ROLLBACK TO shape")
            shape.restore(connection, state)
        if is_changing:
            connection.execute("RELEASE shape")
        return Written(reasons, is_undone)

    def _fixed_reason(self, message: str) -> str:
        found, contract, _ = message.partition(_CONTRACT)
        return f"{found}, and the table stays as it is: {self._shape.fixed}" if contract else found

    def _index(self, connection: PostgresConnection, number: int) -> None:
        """Create a unique index on the key, if there is none."""
        if not has_unique_key(connection, number, self.key):
            name, table = quote(self._name.sibling("key").table), self._name.sql
            connection.execute(f"CREATE UNIQUE INDEX {name} ON {table} ({quoted(self.key)})")

    def _insert(
        self, connection: PostgresConnection, block: ColumnBlock, groups: Sequence[int] | None
    ) -> dict[int, str]:
        """Insert the rows that the table accepts; return the reasons against the others."""
        key = self.key if self.mode == "upsert" else ()
        self._fields.update(block.names)
        load = PostgresLoad(
            connection,
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
                    if not self._has_policies(connection):
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

    def _has_policies(self, connection: PostgresConnection) -> bool:
        """Whether policies decide which rows this role may write."""
        query = "SELECT row_security_active($1::bigint::oid)"
        return bool(connection.fetch(query, self._shape.number)[0][0])

    def _refusal(self, error: Exception, code: str) -> str:
        reason = self._server.explained(error).replace(self._target.table, self._name.table)
        if code in _TEXT_CODES:
            reason += "; PostgreSQL does not allow a NUL character in a text"
        return reason

    def _complete(self, connection: PostgresConnection, *, ended: bool) -> None:
        """Put the columns of a new table in order, and a replacement in place."""
        if ended and self._sorts_columns and self._shape.is_new:
            self._shape.sort_columns(connection)
        if self.mode != "replace":
            return
        table = self._name.sql
        if self._shape.number is not None:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
            name = quote(self._name.table)
            connection.execute(f"ALTER TABLE {self._target.sql} RENAME TO {name}")
        elif find_table(connection, self._name):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - quoted
        if self._job and ledger.exists(connection):
            execute = ledger.executor(connection)
            replacing.promote(execute, self._job.fingerprint, self.table)
