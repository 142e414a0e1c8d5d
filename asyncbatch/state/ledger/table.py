"""The ledger table: its schema, its rows, and statements for any database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from asyncbatch.core.ledger_entries import Entry, Extent, Stamp

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncbatch.core.ledger_entries import LedgerJob

NAME = "asyncbatch_ledger"  # the name of the table in any database

# Add new columns at the end, and let them be null: they are added to tables of earlier versions.
_COLUMNS = {
    "job": "TEXT NOT NULL",
    "target": "TEXT NOT NULL",
    "generation": "BIGINT NOT NULL",
    "path": "TEXT NOT NULL",
    "size": "BIGINT NOT NULL",
    "mtime_ns": "BIGINT NOT NULL",
    "digest": "TEXT",
    "outcome": "TEXT NOT NULL",
    "records_read": "BIGINT NOT NULL",
    "records_dropped": "BIGINT NOT NULL",
    "records_rejected": "BIGINT NOT NULL",
    "records_written": "BIGINT NOT NULL",
    "done_at": "TEXT NOT NULL",
    "letters": "BLOB NOT NULL",
    "extent_at": "BIGINT",
    "extent_length": "BIGINT",
    "extent_skip": "BIGINT",
    "extent_take": "BIGINT",
    "reached_byte": "BIGINT",
    "reached_record": "BIGINT",
    "reached_line": "BIGINT",
    "reached_column": "BIGINT",
    "bookmark": "TEXT",
}
COLUMNS = tuple(_COLUMNS)
ALL = ", ".join(COLUMNS)
# a query that returns the columns of the existing table
PROBE = f"SELECT * FROM {NAME} LIMIT 0"  # noqa: S608 - constants
TYPES = tuple(declared.removesuffix(" NOT NULL") for declared in _COLUMNS.values())
FIND_ENTRY = ", ".join(COLUMNS[2:])  # the columns of `entry_of`, in its order

CREATE = f"CREATE TABLE IF NOT EXISTS {NAME} ({', '.join(map(' '.join, _COLUMNS.items()))})"
INDEX = f"CREATE UNIQUE INDEX IF NOT EXISTS {NAME}_key ON {NAME} (job, path, generation)"
STAMP_INDEX = f"CREATE INDEX IF NOT EXISTS {NAME}_stamp ON {NAME} (size, mtime_ns)"


def missing_columns(present: Collection[str]) -> list[str]:
    """Return a statement for each column that is not in `present`, which adds it."""
    lacking = [name for name in COLUMNS if name not in present]
    return [f"ALTER TABLE {NAME} ADD COLUMN {name} {_COLUMNS[name]}" for name in lacking]


def row_of(job: str, target: str, entry: Entry) -> tuple[Any, ...]:
    """Return an entry as a row of the table, with its path escaped."""
    extent = entry.extent
    place = (extent.at, extent.length, extent.skip, extent.take) if extent else (None,) * 4
    return (
        job, target, entry.generation, escape_path(entry.path), *entry.stamp, entry.outcome,
        entry.read, entry.dropped, entry.rejected, entry.written, entry.done_at, entry.letters,
        *place, *(entry.reached or (None,) * 4), entry.bookmark,
    )  # fmt: skip


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry from a row of the columns `FIND_ENTRY`."""
    generation, path, size, mtime_ns, digest, outcome = row[:6]
    read, dropped, rejected, written, done_at, letters, at, length, skip, take = row[6:16]
    return Entry(
        unescape_path(path), Stamp(size, mtime_ns, digest), outcome, read, dropped, rejected,
        written, done_at, bytes(letters), generation,
        None if at is None else Extent(at, length, skip, take),
        None if row[16] is None else tuple(row[16:20]), row[20],
    )  # fmt: skip


def escape_path(path: str) -> str:
    """Return a path as text for any database. Different paths give different texts."""
    if path.isascii() and "\\" not in path:
        return path
    escaped = path.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
    return escaped.decode("utf-8", "backslashreplace")


def unescape_path(text: str) -> str:
    """Return the path from its escaped text; the reverse of `escape_path`."""
    if "\\" not in text:
        return text
    parts = text.split("\\\\")
    return "\\".join(_unescape(part) for part in parts)


def _unescape(text: str) -> str:
    first, *escapes = text.split("\\x")
    raw = first.encode()
    for escape in escapes:
        raw += bytes.fromhex(escape[:2]) + escape[2:].encode()
    return raw.decode("utf-8", "surrogateescape")


Execute = Callable[[str, Sequence[Any]], Sequence[Any]]


def forget(execute: Execute, target: str, *, generation: int) -> None:
    """Delete the entries of all jobs for `target` and this generation."""
    execute(
        f"DELETE FROM {NAME} WHERE target = ? AND generation = ?",  # noqa: S608 - constants
        [target, generation],
    )


def can_resume(execute: Execute, job: LedgerJob, target: str) -> bool:
    """Whether this job made the replacement of `target`, from unchanged inputs."""
    query = (
        f"SELECT job, path, size, mtime_ns, digest FROM {NAME}"  # noqa: S608 - constants
        " WHERE target = ? AND generation > 0 AND (records_written > 0 OR job <> ?)"
    )
    rows = execute(query, [target, job.fingerprint])
    return bool(rows) and all(
        owner == job.fingerprint and job.is_current(unescape_path(path), Stamp(*stamp))
        for owner, path, *stamp in rows
    )


def promote(execute: Execute, job: str, target: str) -> None:
    """Replace the entries of `target` by those of the job's finished replacement."""
    execute(
        f"DELETE FROM {NAME} WHERE target = ? AND NOT (job = ? AND generation > 0)",  # noqa: S608 - constants
        [target, job],
    )
    execute(f"UPDATE {NAME} SET generation = 0 WHERE job = ?", [job])  # noqa: S608 - constants
