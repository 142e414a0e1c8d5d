"""DuckDB on one huge file: rows of a table, or checked texts."""

from __future__ import annotations

import sys

import duckdb


def main(reader: str, path: str) -> None:
    """Print the number of records that read_json or read_json_objects finds."""
    file = path.replace("'", "''")
    form = "newline_delimited" if path.endswith("l") else "array"
    count = f"select count(*) from {reader}('{file}', format = '{form}')"
    duckdb.sql(f"copy ({count}) to '/dev/stdout' (format csv, header false)")


if __name__ == "__main__":
    main(*sys.argv[1:])
