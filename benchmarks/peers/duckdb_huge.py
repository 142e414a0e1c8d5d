"""DuckDB on one huge file: the number of checked texts."""

from __future__ import annotations

import sys

import duckdb

LARGE_BYTES = 64_000_000


def main(path: str, limit: str = "") -> None:
    """Print the number of records that read_json_objects finds.

    `limit` is "large" if a record may have more than 16 MB, the default limit.
    """
    file = path.replace("'", "''")
    form = "newline_delimited" if path.endswith("l") else "array"
    options = f", maximum_object_size = {LARGE_BYTES}" if limit == "large" else ""
    count = f"select count(*) from read_json_objects('{file}', format = '{form}'{options})"
    duckdb.sql(f"copy ({count}) to '/dev/stdout' (format csv, header false)")


if __name__ == "__main__":
    main(*sys.argv[1:])
