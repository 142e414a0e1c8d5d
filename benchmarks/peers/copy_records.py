"""The speed of PostgreSQL alone: one COPY of prepared records, by one of three libraries."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from benchmarks.peers.records import rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Rows = list[tuple[Any, ...]]


def by_asyncpg(address: str, table: str, columns: Mapping[str, str], rows: Rows) -> float:
    """Return the seconds of a COPY of tuples."""
    import asyncpg  # type: ignore[import-not-found,unused-ignore]

    async def run() -> float:
        connection = await asyncpg.connect(address)
        await connection.execute(table)
        began = time.perf_counter()
        await connection.copy_records_to_table("records", records=rows, columns=list(columns))
        seconds = time.perf_counter() - began
        await connection.close()
        return seconds

    return asyncio.run(run())


def by_psycopg(address: str, table: str, columns: Mapping[str, str], rows: Rows) -> float:
    """Return the seconds of a binary COPY of tuples."""
    import psycopg  # type: ignore[import-not-found,unused-ignore]

    types = {"bigint": "int8", "double precision": "float8", "boolean": "bool"}
    with psycopg.connect(address) as connection:
        connection.execute(table)
        connection.commit()
        began = time.perf_counter()
        with connection.cursor().copy("COPY records FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([types.get(one, one) for one in columns.values()])
            for row in rows:
                copy.write_row(row)
        connection.commit()
        return time.perf_counter() - began


def by_adbc(address: str, table: str, columns: Mapping[str, str], rows: Rows) -> float:
    """Return the seconds of the ingestion of an Arrow table, which is ready before."""
    import adbc_driver_postgresql.dbapi as adbc  # type: ignore[import-not-found,unused-ignore]
    import pyarrow as pa

    types = {
        "bigint": pa.int64(),
        "double precision": pa.float64(),
        "boolean": pa.bool_(),
        "text": pa.string(),
    }
    values = zip(*rows, strict=True)
    arrays = [
        pa.array(column, types[of_type])
        for column, of_type in zip(values, columns.values(), strict=True)
    ]
    records = pa.table(arrays, names=list(columns))
    with adbc.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(table)
        connection.commit()
        began = time.perf_counter()
        cursor.adbc_ingest("records", records, mode="append")
        connection.commit()
        return time.perf_counter() - began


LIBRARIES = {"asyncpg": by_asyncpg, "psycopg": by_psycopg, "adbc": by_adbc}


def main(library: str, address: str, columns_json: str, folder: str) -> None:
    """Print the seconds of the COPY and its commit into a new table with a key."""
    columns = json.loads(columns_json)
    rows = rows_of(folder, list(columns))
    rows.sort(key=itemgetter(0))
    declared = ", ".join(f"{name} {of_type}" for name, of_type in columns.items())
    table = f"CREATE TABLE records ({declared}, PRIMARY KEY (id))"
    print(json.dumps({"seconds": LIBRARIES[library](address, table, columns, rows)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
