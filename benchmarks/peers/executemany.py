"""The speed of SQLite alone: one executemany of prepared tuples."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time

import orjson

from benchmarks.peers.clean import clean


def main(database: str, folder: str) -> None:
    """Print the seconds of executemany and commit."""
    rows = []
    for at, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(at, name), "rb") as stream:
                cleaned = map(clean, orjson.loads(stream.read()))
                rows += [tuple(person.values()) for person in cleaned if person]
    connection = sqlite3.connect(database)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("create table people (id integer, name, email, signup, amount real)")
    connection.commit()
    began = time.perf_counter()
    connection.executemany("insert into people values (?, ?, ?, ?, ?)", rows)
    connection.commit()
    seconds = time.perf_counter() - began
    connection.close()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
