"""DuckDB: the records of a folder into one file of Parquet."""

from __future__ import annotations

import sys

import duckdb


def main(folder: str, path: str) -> None:
    """Read all files of a folder, and write their records."""
    files, target = (one.replace("'", "''") for one in (f"{folder}/**/*.json", path))
    duckdb.sql(f"copy (select * from read_json('{files}')) to '{target}' (format parquet)")


if __name__ == "__main__":
    main(*sys.argv[1:])
