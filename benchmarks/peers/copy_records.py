"""The speed of PostgreSQL alone: one COPY of prepared tuples by asyncpg."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from operator import itemgetter
from typing import Any

import asyncpg  # type: ignore[import-not-found,unused-ignore]  # only installed in the environment of the benchmark
import orjson

FIELDS = ("id", "name", "email", "signup", "amount")


def rows_of(folder: str) -> list[tuple[Any, ...]]:
    """Return the people in the files of a folder."""
    rows: list[tuple[Any, ...]] = []
    for at, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(at, name), "rb") as lines:
                rows += [tuple(map(person.get, FIELDS)) for person in map(orjson.loads, lines)]
    rows.sort(key=itemgetter(0))
    return rows


async def copy(address: str, rows: list[tuple[Any, ...]]) -> float:
    """Return the seconds of the COPY and its commit."""
    connection = await asyncpg.connect(address)
    await connection.execute(
        "CREATE TABLE people (id bigint PRIMARY KEY, name text, email text, signup text,"
        " amount double precision)"
    )
    began = time.perf_counter()
    await connection.copy_records_to_table("people", records=rows, columns=FIELDS)
    seconds = time.perf_counter() - began
    await connection.close()
    return seconds


if __name__ == "__main__":
    address, folder = sys.argv[1:]
    print(json.dumps({"seconds": asyncio.run(copy(address, rows_of(folder)))}))
