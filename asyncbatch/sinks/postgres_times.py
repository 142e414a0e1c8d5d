"""Texts that are times, and the columns made for them: timestamptz, as long as all are times."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncbatch.sinks.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.sinks.block import Kind
    from asyncbatch.sinks.postgres_server import Connection
    from asyncbatch.sinks.postgres_table import Name

TIME = "timestamptz"
"""The type of a column that was made for times; that of others' is spelled out by the server."""
MARK = "made by asyncbatch: becomes text if something else than a time comes"
"""The comment on such a column, by which later runs know it."""
_ISO = re.compile(
    r"[1-9]\d{3}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
    r"(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)"
)
"""Day, time and zone; of no more digits than PostgreSQL keeps."""


def are_times(kind: Kind, values: Iterable[Any]) -> bool:
    """Whether a column that has a value has only texts that are ISO 8601 times with a zone."""
    if kind != "text":
        return False
    try:
        return all(
            value is None or (_ISO.fullmatch(value) and datetime.fromisoformat(value))
            for value in values
        )
    except ValueError:  # the 30th of February
        return False


def times(values: Sequence[str | None]) -> list[datetime | None]:
    """Return the times that texts are, of which `are_times` is true."""
    parse = datetime.fromisoformat
    return [None if value is None else parse(value) for value in values]


def mark(connection: Connection, table: Name, columns: Iterable[str]) -> None:
    """Write down that columns were made for times."""
    for name in columns:
        connection.execute(f"COMMENT ON COLUMN {table.sql}.{quote(name)} IS '{MARK}'")


def unmark(connection: Connection, table: Name, columns: Iterable[str]) -> None:
    """Write down that columns are no longer for times."""
    for name in columns:
        connection.execute(f"COMMENT ON COLUMN {table.sql}.{quote(name)} IS NULL")


def as_text(column: str) -> str:
    """Return the expression for what is in such a column as text: in UTC, ending in Z."""
    value = f"({column} AT TIME ZONE 'UTC')"
    fraction = (
        f"CASE WHEN {value} = date_trunc('second', {value}) THEN ''"
        f" WHEN {value} = date_trunc('milliseconds', {value}) THEN to_char({value}, '.MS')"
        f" ELSE to_char({value}, '.US') END"
    )
    return f"to_char({value}, 'YYYY-MM-DD\"T\"HH24:MI:SS') || {fraction} || 'Z'"
