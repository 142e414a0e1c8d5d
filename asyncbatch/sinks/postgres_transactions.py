"""Transactions that outlive the connections that they began on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from asyncbatch.errors import SinkError
from asyncbatch.retrying import tried
from asyncbatch.sinks.postgres_server import StillOpenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.retrying import Retrier
    from asyncbatch.sinks.postgres_server import Connection, Server

T = TypeVar("T")

_NO_SUCH_NUMBER = "22023"


class _Doubt(NamedTuple):
    """A transaction that may have been committed, by its number, and what tells for sure."""

    transaction: int
    is_there: Callable[[int], bool]


class Transactions:
    """One transaction after the other.

    `begin` is called in each when it has begun with the script `first`, also on a new connection
    if one was lost; it brings all that is to be in it up to then.
    """

    def __init__(
        self, server: Server, retrier: Retrier, first: str, begin: Callable[[Connection], None]
    ) -> None:
        self._server, self._retrier = server, retrier
        self._first, self._begin = first, begin
        self._connection: Connection | None = None
        self._has_begun = False
        """Whether the connection, if there is one, is in a transaction."""
        self._doubt: _Doubt | None = None
        self.is_lost = False
        """Whether an error has ended it all."""

    def do(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, done in the transaction at hand. Raises SinkError."""
        return self._again(lambda: work(self._begun()))

    def commit(
        self,
        last: Callable[[Connection], None],
        is_there: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """End the transaction at hand when `last` is done in it, too. Raises SinkError.

        `is_there` tells whether what it wrote is there, written by the transaction of a number:
        a server that dies may give a number away again.
        """

        def commit() -> None:
            if not self._has_ended():
                connection = self._begun()
                last(connection)
                number = int(connection.fetch("SELECT txid_current()")[0][0])
                self._doubt = _Doubt(number, is_there)
                self._end(connection)
                self._doubt = None

        self._again(commit)

    def once(self, work: Callable[[Connection], None]) -> None:
        """Do something in a transaction of its own, and never again.

        Raises what the server raises.
        """
        connection = self._connected()
        try:
            connection.execute("BEGIN")
            work(connection)
            self._end(connection)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Undo what was not committed, and let go of the connection."""
        connection, self._connection, self._has_begun = self._connection, None, False
        if connection is not None:
            connection.drop()

    def close(self) -> None:
        """Let go of the connection, which is in no transaction."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._server.connect()
        return self._connection

    def _begun(self) -> Connection:
        connection = self._connected()
        if not self._has_begun:
            # Constraints that wait for the end could tell nobody which row it was.
            connection.execute(f"BEGIN; SET CONSTRAINTS ALL IMMEDIATE; {self._first}")
            self._has_begun = True
            self._begin(connection)
        return connection

    def _has_ended(self) -> bool:
        """Whether it turns out that the transaction at hand was committed."""
        if self._doubt is None:
            return False
        number, is_there = self._doubt
        try:
            status = self._server.fetch("SELECT txid_status($1)", number)[0][0]
        except Exception as error:
            if getattr(error, "sqlstate", None) != _NO_SUCH_NUMBER:
                raise
            status = "forgotten"
        if status == "in progress":
            raise StillOpenError("the server is still at a transaction that was interrupted")
        committed = status == "committed" and is_there(number)
        self._doubt = None
        return committed

    def _end(self, connection: Connection) -> None:
        status = connection.execute("COMMIT")
        if status != "COMMIT":
            raise SinkError(f"cannot write {self._server.name}: the transaction was rolled back")
        self._has_begun = False

    def _again(self, function: Callable[[], T]) -> T:
        """Return what a function returns, called again on a new connection if one was lost."""

        def once() -> T:
            try:
                return function()
            except BaseException:
                self.undo()
                raise

        try:
            return self._retrier.call(once, self._server.is_passing)
        except BaseException as error:
            self.is_lost = True
            if not self._server.is_error(error):
                raise
            reason = f"{self._server.explained(error)}{tried(error)}"
            raise SinkError(f"cannot write {self._server.name}: {reason}") from None
