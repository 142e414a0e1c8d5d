"""The speed of SQLite alone: one executemany of prepared tuples."""

from __future__ import annotations

import json
import sqlite3
import sys
import time

from benchmarks.peers.records import rows_of


def main(database: str, columns_json: str, folder: str, cleaned: str = "") -> None:
    """Print the seconds of executemany and commit, into a table `records`."""
    columns = list(json.loads(columns_json))
    rows = rows_of(folder, columns, cleaned=bool(cleaned))
    connection = sqlite3.connect(database)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute(f"create table records ({', '.join(columns)})")
    connection.commit()
    began = time.perf_counter()
    connection.executemany(f"insert into records values ({', '.join('?' * len(columns))})", rows)
    connection.commit()
    seconds = time.perf_counter() - began
    connection.close()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
