"""DuckDB's way with one huge file: count what read_json_objects finds."""

from __future__ import annotations

import sys

import duckdb


def main(form: str, path: str) -> None:
    """Print how many records there are."""
    file = path.replace("'", "''")
    count = f"select count(json) from read_json_objects('{file}', format = '{form}')"
    duckdb.sql(f"copy ({count}) to '/dev/stdout' (format csv, header false)")


if __name__ == "__main__":
    main(*sys.argv[1:])
