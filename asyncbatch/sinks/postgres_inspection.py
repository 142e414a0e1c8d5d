"""The ledger of a PostgreSQL database, looked at from outside a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from asyncbatch.errors import UsageError
from asyncbatch.ledger.postgres import numbered, present
from asyncbatch.sinks.postgres_server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_PAGE = "FETCH 1000 FROM inspected"


class ServerDatabase:
    """The database at `address`; see `ledger.inspection.Database`. Raises UsageError.

    The `address` may hold a password; `name` does not.
    """

    def __init__(self, address: str) -> None:
        self._server = Server(address)
        self.name = self._server.name
        self._server.open()

    def tables(self) -> set[str]:
        """See `Database`."""
        query = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p')"
        return {name for (name,) in self.rows(f"{query} AND pg_table_is_visible(oid)")}

    def columns(self) -> set[str]:
        """See `Database`."""
        return set(present(self))

    def fetch(self, query: str, *values: Any) -> list[Any]:  # noqa: ANN401 - of any type
        """Return the rows that a query gives."""
        return self._explained(lambda: self._server.fetch(query, *values))

    def rows(self, query: str, values: Sequence[str] = ()) -> Sequence[Any]:
        """See `Database`."""
        return self.fetch(numbered(query), *values)

    def pages(self, query: str, values: Sequence[str] = ()) -> Iterator[Sequence[Any]]:
        """See `Database`."""
        connection = self._explained(self._server.connect)
        declare = f"DECLARE inspected CURSOR FOR {numbered(query)}"
        try:
            self._explained(lambda: connection.execute("BEGIN"))
            self._explained(lambda: connection.execute(declare, *values))
            while some := self._explained(lambda: connection.fetch(_PAGE)):
                yield some
        finally:
            connection.drop()

    def close(self) -> None:
        """See `Database`."""
        self._server.close()

    def _explained(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except Exception as error:
            if not self._server.is_error(error):
                raise
            reason = self._server.explained(error)
            raise UsageError(f"cannot read the ledger of {self.name}: {reason}") from None
