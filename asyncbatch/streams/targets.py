"""The target of a stream by its name: which can take windows as they come, and how."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError
from asyncbatch.sinks.target import Target, place_of
from asyncbatch.streams.table_rows import TIMES, row_key

if TYPE_CHECKING:
    from asyncbatch.streams.outflow import WindowTarget
    from asyncbatch.streams.stream import Stream

_DATABASES = ("sqlite", "duckdb", "postgres")


def make_target(name: str, stream: Stream, *, table: str | None = None) -> WindowTarget | None:
    """Return what takes the windows of a stream; None for standard output.

    Raises UsageError for a name that cannot be meant, and for a target that cannot grow.
    """
    form, path = place_of(name)
    if form == "folder":
        raise UsageError(
            f"--to {name}: windows go into one file or table, not into a folder; write "
            f"{os.path.join(path, 'windows.jsonl')}"
        )
    if form in _DATABASES:
        key = row_key(stream)
        target = Target.parse(name, table=table, key=key, mode="upsert", times=TIMES)
    else:
        target = Target.parse(name, table=table)
    if "://" in path:
        raise UsageError(f"--to {name}: an object of a store cannot grow; write a file or a table")
    match form:
        case "stdout":
            return None
        case "lines":
            from asyncbatch.streams.window_file import WindowFile  # noqa: PLC0415 - one of them

            return WindowFile(path, stream)
        case "csv":
            from asyncbatch.streams.window_file import WindowCsv  # noqa: PLC0415 - one of them

            return WindowCsv(path, stream)
        case _:
            from asyncbatch.streams.window_table import WindowTable  # noqa: PLC0415 - one of them

            return WindowTable(target, stream)
