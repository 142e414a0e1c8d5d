"""Connections to PostgreSQL, and transactions that survive a lost connection."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import suppress
from functools import partial
from socket import gaierror
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from asyncbatch.core.retry import attempts_note
from asyncbatch.core.secrets import redact_address, redact_text
from asyncbatch.core.settings import ServerSettings
from asyncbatch.core.system import install_command
from asyncbatch.errors import SinkError, TargetBusyError, UsageError, error_reason
from asyncbatch.sinks.databases.postgres.address import CONNECT_SECONDS, ServerAddress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asyncbatch.core.retry import Retrier
    from asyncbatch.sinks.databases.sql import TableName

T = TypeVar("T")

# The settings of a session that the address does not have.
_SETTINGS = {"application_name": "asyncbatch", "statement_timeout": "600s"}
# Seconds in each unit of time of PostgreSQL. The default unit is the millisecond.
_UNITS = {"us": 1e-6, "ms": 1e-3, "": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# Settings that a pooler takes from its clients: it hands them on, or has a use for them itself.
_POOLED_SETTINGS = ("application_name", "options")
_DURATION = re.compile(r"\s*(\d+)\s*(us|ms|s|min|h|d)?\s*")
_QUERY_CANCELED = "57014"  # also of a statement that took too long
_LEAST_VERSION = 12
_PROTOCOL_VIOLATION = "08P01"  # of a pooler: a parameter of the session that it does not allow
# Our own code: the session does not have the settings that it was opened with.
_NO_SETTINGS = "AB001"
# Beginnings of the SQLSTATE codes after which a new connection may succeed. The codes with 42:
# another run has created or dropped a table or column at the same time.
_TRANSIENT_CODES = (
    "08",
    "25P03",
    "40001",
    "40P01",
    "42P01",
    "42P07",
    "42701",
    "53300",
    "55P03",
    "57P",
)


class StillOpenError(Exception):
    """A transaction has not ended yet, so its outcome is not known."""


class PostgresServer:
    """The database at `address`, with a pool of connections.

    It runs its own event loop in a thread. Call `open` first and `close` at the end. Methods block:
    do not call them on an event loop. `name` is the address without its password. `is_error`
    recognises the exceptions of the server.

    Behind PgBouncer in transaction mode a session has no state between transactions, no named
    statements and no settings of its own: `is_pooled`. The address may say so, or it is found out.
    """

    address: str
    name: str

    def __init__(self, address: str, settings: ServerSettings | None = None) -> None:
        self.address, self.name = address, redact_address(address)
        self._settings = settings or ServerSettings()
        self._parts = ServerAddress.parse(address)
        self._session = self._session_settings()
        self.is_pooled: bool = self._parts.is_pooled
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._asyncpg: Any
        self._pool: Any

    def open(self) -> None:
        """Connect. Raises UsageError; TargetBusyError if a later attempt may succeed."""
        try:
            import asyncpg
        except ImportError:
            raise UsageError(
                f"writing PostgreSQL needs one more package: {install_command('postgres')}"
            ) from None
        self._asyncpg = asyncpg
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="asyncbatch-postgres", daemon=True)
        self._thread.start()
        try:
            if not self.is_pooled and not self._has_settings():
                self.is_pooled = True
                if (refused := getattr(self, "_pool", None)) is not None:
                    self.wait(refused.close())
            if self.is_pooled:
                self._pool = self.wait(self._make_pool())
            self._check_version()
        except Exception as error:
            self.close()
            if isinstance(error, UsageError) or not (
                self.is_error(error) or isinstance(error, ValueError)
            ):
                raise
            kind = TargetBusyError if self.is_transient(error) else UsageError
            raise kind(f"cannot use {self.name}: {self.explained(error)}") from None

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the event loop of this object; return its result."""

        async def wait() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    def connect(self) -> PostgresConnection:
        """Return a connection of the pool. Its user must release or drop it."""
        return PostgresConnection(self, self._pool, self.wait(self._pool.acquire()))

    def fetch(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query, which uses its own connection."""
        connection = self.connect()
        try:
            if not self.is_pooled:
                rows = connection.fetch(query, *values)
            else:  # preparing and running it must happen in one session of the server
                connection.execute(self.begin)
                rows = connection.fetch(query, *values)
                connection.execute("COMMIT")
        except BaseException:
            connection.drop()
            raise
        connection.release()
        return rows

    @property
    def begin(self) -> str:
        """The script that starts a transaction with the settings of the session."""
        if not self.is_pooled:
            return "BEGIN"
        calls = (
            f"set_config({_literal(name)}, {_literal(value)}, true)"
            for name, value in self._session.items()
            if name != "options"
        )
        return f"BEGIN; SELECT {', '.join(calls)}"

    @property
    def notes(self) -> list[str]:
        """The remarks for the user about the address."""
        ignored = self._parts.ignored
        return [f"not obeyed in the address: {', '.join(ignored)}"] if ignored else []

    def _has_settings(self) -> bool:
        """Make the pool; return whether its sessions have their settings.

        A pooler of transactions refuses the settings, or drops them silently.
        """
        limit = _milliseconds(self._session["statement_timeout"])
        check = (
            "DO $$ BEGIN IF (SELECT setting FROM pg_settings WHERE name = 'statement_timeout')"  # noqa: S608 - a number
            f" <> '{limit}' THEN RAISE SQLSTATE '{_NO_SETTINGS}'; END IF; END $$"
        )
        try:
            self._pool = self.wait(self._make_pool())
            connection = self.connect()
            try:
                # A script, because a named statement may be that of another client of a pooler.
                connection.execute("SELECT 1" if limit is None else check)
            finally:
                connection.release()
        except Exception as error:
            code = getattr(error, "sqlstate", None)
            if code == _NO_SETTINGS or (
                code == _PROTOCOL_VIOLATION and "startup parameter" in str(error)
            ):
                return False
            raise
        return True

    def _check_version(self) -> None:
        (row,) = self.fetch("SELECT current_setting('server_version_num')::int / 10000")
        if row[0] < _LEAST_VERSION:
            raise UsageError(
                f"{self.name} is PostgreSQL {row[0]}; it must be {_LEAST_VERSION} or newer"
            )

    def close(self) -> None:
        """Close all connections, and end the thread."""
        pool = getattr(self, "_pool", None)
        if pool is not None:
            with suppress(Exception):  # committed rows are safe
                self.wait(asyncio.wait_for(pool.close(), CONNECT_SECONDS))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The errors of the server, its client library and the network."""
        library = self._asyncpg
        kinds = library.PostgresError, library.InterfaceError, library.InternalClientError
        return *kinds, OSError, StillOpenError

    def is_error(self, error: BaseException) -> bool:
        """Whether an error comes from the server, its client library or the network."""
        return isinstance(error, self.errors)

    def is_transient(self, error: BaseException) -> bool:
        """Whether another attempt, on a new connection, may succeed."""
        if code := getattr(error, "sqlstate", None):
            return str(code).startswith(_TRANSIENT_CODES)
        if isinstance(error, self._asyncpg.InterfaceError):
            # A lost connection: "connection is closed", "... has been released back to the pool".
            return any(word in str(error) for word in ("clos", "released"))
        # asyncpg raises InternalClientError if a session ends at the wrong moment. All other errors
        # are of sockets; a missing one may exist soon.
        return isinstance(error, OSError | StillOpenError | self._asyncpg.InternalClientError)

    def explained(self, error: BaseException) -> str:
        """Return the message of an error with its code, without secrets."""
        text = str(getattr(error, "message", None) or error or type(error).__name__)
        if isinstance(error, OSError):
            text = error_reason(error) or text
            if isinstance(error, ConnectionRefusedError):
                text += ": is the server running, on this port?"
            elif isinstance(error, gaierror):
                text += ": is the name of the host right?"
        if detail := getattr(error, "detail", None):
            text += f": {detail}"
        if code := getattr(error, "sqlstate", None):
            text += f" (SQLSTATE {code})"
        if code == _QUERY_CANCELED and "timeout" in text:
            allowed = self._session["statement_timeout"]
            text += f"; the limit is {allowed}: set statement_timeout in [sink] or the address"
        return redact_text(text, self.address)

    async def _make_pool(self) -> Any:
        async def keep(_: object) -> None:
            """Do not reset the session: the transactions do not change it."""

        return await self._asyncpg.create_pool(
            self._parts.dsn,
            min_size=self._settings.min_connections,
            max_size=self._settings.max_connections,
            timeout=self._parts.connect_seconds,
            command_timeout=self._command_timeout(),
            server_settings={
                name: value
                for name, value in self._session.items()
                if not self.is_pooled or name in _POOLED_SETTINGS
            },
            reset=keep,
            **({"statement_cache_size": 0} if self.is_pooled else {}),
        )

    def _session_settings(self) -> dict[str, str]:
        """Return the settings of each session."""
        found = dict(_SETTINGS)
        if self._settings.name is not None:
            found["application_name"] = self._settings.name
        found |= self._parts.settings
        if (seconds := self._settings.statement_timeout) is not None:
            found["statement_timeout"] = (
                f"{max(1, round(seconds * 1000))}ms"  # 0 would mean no limit
            )
        return found

    def _command_timeout(self) -> float | None:
        """Return how many seconds to wait for an answer of the server; None: no limit."""
        seconds = (_milliseconds(self._session["statement_timeout"]) or 0) / 1000
        return seconds + CONNECT_SECONDS if seconds else None


def _milliseconds(duration: str) -> int | None:
    """Return the milliseconds of a duration as the server reads it, or None."""
    found = _DURATION.fullmatch(duration)
    return round(int(found[1]) * _UNITS[found[2] or ""] * 1000) if found else None


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


class RetryingReader:
    """A reader with its own connections. It retries after a lost connection.

    The ledger uses it while a transaction of the sink is open.
    """

    def __init__(self, server: PostgresServer, retrier: Retrier) -> None:
        self._server, self._retrier = server, retrier

    def fetch(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query. Raises SinkError."""
        try:
            return self._retrier.call(
                partial(self._server.fetch, query, *values), self._server.is_transient
            )
        except Exception as error:
            if not self._server.is_error(error):
                raise
            reason = f"{self._server.explained(error)}{attempts_note(error)}"
            raise SinkError(f"cannot read {self._server.name}: {reason}") from None

    def close(self) -> None:
        """Do nothing: the connections belong to the server."""


class PostgresConnection:
    """A connection of a `PostgresServer`. Methods block, and raise asyncpg errors."""

    def __init__(self, server: PostgresServer, pool: Any, raw: Any) -> None:
        self._server, self._pool, self._raw = server, pool, raw

    @property
    def is_pooled(self) -> bool:
        """Whether the session has no state between transactions."""
        return self._server.is_pooled

    def execute(self, script: str, *values: Any) -> str:
        """Run statements; return the status of the last. With values: one statement."""
        status: str = self._server.wait(self._raw.execute(script, *values))
        return status

    def fetch(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query."""
        rows: list[Any] = self._server.wait(self._raw.fetch(query, *values))
        return rows

    def copy(self, table: TableName, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add rows to a table with binary COPY."""
        self._server.wait(
            self._raw.copy_records_to_table(
                table.table, schema_name=table.schema, columns=columns, records=rows
            )
        )

    def forget_types(self) -> None:
        """Forget the cached types of columns, because a table was changed."""
        self._server.wait(self._raw.reload_schema_state())

    def release(self) -> None:
        """Return the connection to the pool."""
        with suppress(Exception):  # a lost connection
            self._server.wait(self._pool.release(self._raw))

    def drop(self) -> None:
        """Close the connection. Uncommitted work is lost."""

        async def drop() -> None:
            self._raw.terminate()
            await self._pool.release(self._raw)

        with suppress(Exception):  # the connection is closed in any case
            self._server.wait(drop())


_NO_SUCH_TRANSACTION = "22023"  # invalid_parameter_value, of `txid_status`


class _UncertainCommit(NamedTuple):
    """A transaction whose COMMIT got no answer."""

    transaction: int  # its number, as `txid_current` returns it
    is_there: Callable[[int], bool]  # whether its rows exist


class Transactions:
    """A sequence of transactions on one connection. It survives a lost connection.

    A sink owns it, in one thread. Each transaction starts with the script `first` and a call of
    `begin`. After a lost connection `begin` is called on a new one, and must repeat all work of the
    transaction. Methods raise the errors of the server that no other attempt can repair.
    """

    def __init__(
        self,
        server: PostgresServer,
        retrier: Retrier,
        first: str,
        begin: Callable[[PostgresConnection], None],
    ) -> None:
        self._server, self._retrier = server, retrier
        self._first, self._begin = first, begin
        self._connection: PostgresConnection | None = None
        self._in_transaction = False
        self._uncertain: _UncertainCommit | None = None

    def execute(self, work: Callable[[], T]) -> T:
        """Return the result of `work` in the current transaction."""

        def execute() -> T:
            self._begun_connection()
            return work()

        return self._with_retries(execute)

    def commit(
        self, last: Callable[[], None], is_there: Callable[[int], bool] = lambda _: True
    ) -> None:
        """Run `last` in the current transaction, and commit. Raises SinkError if it is undone.

        `is_there` returns whether the rows exist that the transaction with a number wrote. It is
        needed because a server that crashed may reuse the numbers of transactions.
        """

        def commit() -> None:
            if not self._has_ended():
                connection = self._begun_connection()
                last()
                number = int(connection.fetch("SELECT txid_current()")[0][0])
                self._uncertain = _UncertainCommit(number, is_there)
                self._end(connection)
                self._uncertain = None

        self._with_retries(commit)

    def execute_once(self, work: Callable[[PostgresConnection], None]) -> None:
        """Run work in its own transaction, without retries."""
        connection = self._connected()
        try:
            connection.execute(self._server.begin)
            work(connection)
            self._end(connection)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Roll back by closing the connection."""
        connection, self._connection, self._in_transaction = self._connection, None, False
        if connection is not None:
            connection.drop()

    def close(self) -> None:
        """Release the connection. It must not be in a transaction."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _connected(self) -> PostgresConnection:
        if self._connection is None:
            self._connection = self._server.connect()
        return self._connection

    def _begun_connection(self) -> PostgresConnection:
        connection = self._connected()
        if not self._in_transaction:
            # A deferred constraint would fail at the commit, without a row.
            connection.execute(
                f"{self._server.begin}; SET CONSTRAINTS ALL IMMEDIATE; {self._first}"
            )
            self._in_transaction = True
            self._begin(connection)
        return connection

    def _has_ended(self) -> bool:
        """Whether a transaction with an unknown outcome was committed."""
        if self._uncertain is None:
            return False
        number, is_there = self._uncertain
        try:
            status = self._server.fetch("SELECT txid_status($1)", number)[0][0]
        except Exception as error:
            if getattr(error, "sqlstate", None) != _NO_SUCH_TRANSACTION:
                raise
            status = "unknown"  # too old, or lost in a crash
        if status == "in progress":
            raise StillOpenError("the server has not yet ended an interrupted transaction")
        committed = status == "committed" and is_there(number)
        self._uncertain = None
        return committed

    def _end(self, connection: PostgresConnection) -> None:
        status = connection.execute("COMMIT")
        if status != "COMMIT":
            raise SinkError(f"cannot write {self._server.name}: the transaction was rolled back")
        self._in_transaction = False

    def _with_retries(self, function: Callable[[], T]) -> T:
        """Call a function, again on a new connection after a transient error."""

        def once() -> T:
            try:
                return function()
            except BaseException:
                self.undo()
                raise

        return self._retrier.call(once, self._server.is_transient)
