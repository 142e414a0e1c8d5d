"""The ledger in PostgreSQL: a table in the target database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from asyncbatch.state.ledger.table import NAME, STAMP_INDEXES, LedgerTable

if TYPE_CHECKING:
    from asyncbatch.core.ledger_entries import Entry


class Queryable(Protocol):
    """A connection that runs queries."""

    def fetch(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query."""
        ...


class PostgresLedgerTable(LedgerTable):
    """The ledger table of a PostgreSQL database."""

    columns_query = (
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(?1) AND attnum > 0"
        " AND NOT attisdropped"
    )
    _blob = "BYTEA"
    _is_listed = (
        "left(path, 500) = ANY(ARRAY(SELECT left(one, 500) FROM unnest(?2::text[]) AS one))"
        " AND path = ANY(?2)"
    )
    # Index rows have a maximum size, and a path can be longer: index only its beginning.
    _indexes = (
        f"CREATE INDEX IF NOT EXISTS {NAME}_key ON {NAME} (job, (left(path, 500)))",
        *STAMP_INDEXES,
    )

    def __init__(self, connection: Queryable) -> None:
        super().__init__(lambda query, values: connection.fetch(with_dollars(query), *values))

    def may_keep(self) -> bool:
        """Whether the role may write the table, or create it if there is none."""
        query = (
            "SELECT CASE WHEN to_regclass(?1) IS NULL"
            " THEN coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            " ELSE has_table_privilege(to_regclass(?1), 'SELECT')"
            " AND has_table_privilege(to_regclass(?1), 'INSERT')"
            " AND has_table_privilege(to_regclass(?1), 'DELETE') END"
        )
        return bool(self._execute(query, [NAME])[0][0])

    def is_recorded(self, job: str, entry: Entry, transaction: int) -> bool:
        """Whether the transaction with this number wrote the entry of this input."""
        query = (
            f"SELECT 1 FROM {NAME} WHERE job = ?1 AND {self._is_listed} AND generation = ?3"  # noqa: S608 - constants
            " AND xmin::text::bigint = ?4::bigint % 4294967296"
        )
        paths = self._listed([entry.path])
        return bool(self._execute(query, [job, paths, entry.generation, transaction]))

    def _lock(self) -> None:
        # If two sessions create it at the same time, "IF NOT EXISTS" fails in one of them.
        self._execute(f"SELECT pg_advisory_xact_lock(hashtext('{NAME}'))", ())


def with_dollars(statement: str) -> str:
    """Return a statement with $1 in place of ?1, and so on, as PostgreSQL numbers values."""
    return statement.replace("?", "$")
