"""Steps that a summary proposes after failures of a certain kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncbatch.core.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.report import Report

# How SQLite, DuckDB and PostgreSQL refuse a row whose key is there already, and its columns.
_REPEATED_KEY = re.compile(
    r"UNIQUE constraint failed: (?P<sqlite>(?!index ).+)?"
    r"|a row with the same (?P<duckdb>.+) exists already"
    r"|duplicate key value violates unique constraint(?:.*Key \((?P<postgres>[^)]+)\)=)?",
    re.DOTALL,
)


def key_steps(report: Report, command: str) -> Iterator[str]:
    """Yield the step after rows whose key the table has already."""
    for group in report.first_groups:
        if group.first.kind != "sink" or not (found := _REPEATED_KEY.search(group.first.message)):
            continue
        columns = next(filter(None, found.groups()), "FIELDS").split(", ")
        names = [printable(name.rpartition(".")[2].strip('"')) for name in columns]
        if command == "etl":
            key = ", ".join(f'"{name}"' for name in names)
            yield f"key = [{key}] in [sink] updates the rows that the table has already"
        else:
            yield f"--key {','.join(names)} updates the rows that the table has already"
        return
