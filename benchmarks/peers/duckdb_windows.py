"""Windows of five seconds with DuckDB, after all events have arrived."""

from __future__ import annotations

import sys

import duckdb


def main(path: str) -> None:
    """Print a line of JSON for each window and type."""
    file = path.replace("'", "''")
    columns = "{timestamp: 'TIMESTAMP', event_type: 'VARCHAR', value: 'DOUBLE'}"
    duckdb.sql(f"""
        copy (
            select strftime(time_bucket(interval 5 seconds, timestamp), '%Y-%m-%dT%H:%M:%S')
                     as window_start,
                   event_type, count(*) as count, sum(value) as sum_value
            from read_json('{file}', format = 'newline_delimited', columns = {columns})
            group by all order by all
        ) to '/dev/stdout' (format json)
    """)


if __name__ == "__main__":
    main(*sys.argv[1:])
