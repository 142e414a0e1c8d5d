"""The ledger in DuckDB: a table in the target database."""

from __future__ import annotations

from typing import Any

from asyncbatch.state.ledger.table import LedgerTable


class DuckdbLedgerTable(LedgerTable):
    """The ledger table of a DuckDB database.

    It has no index, because DuckDB cannot replace an indexed row twice in one transaction.
    """

    columns_query = (
        "SELECT column_name FROM duckdb_columns()"
        " WHERE database_name = current_database() AND schema_name = 'main' AND table_name = ?1"
    )

    def __init__(self, connection: Any) -> None:
        super().__init__(lambda query, values: connection.execute(query, values).fetchall())
