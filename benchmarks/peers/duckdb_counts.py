"""DuckDB: read_json_objects, with a row per file or only the sum."""

from __future__ import annotations

import sys

import duckdb

COUNT = "case when json_type(json) = 'ARRAY' then json_array_length(json) else 1 end"


def main(answer: str, folder: str) -> None:
    """Print the name and count of each file as CSV (`rows`), or one number (`sum`)."""
    what = f"filename, {COUNT}" if answer == "rows" else f"sum({COUNT})"
    named = "true" if answer == "rows" else "false"
    files = f"{folder}/**/*.json".replace("'", "''")
    source = f"read_json_objects('{files}', format = 'unstructured', filename = {named})"
    duckdb.sql(f"copy (select {what} from {source}) to '/dev/stdout' (format csv, header false)")


if __name__ == "__main__":
    main(*sys.argv[1:])
