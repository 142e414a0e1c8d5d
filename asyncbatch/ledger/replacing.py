"""What becomes of entries when the table that their rows are in is replaced, or gone.

Entries of generation 0 are of the table, later ones of a replacement that is being made. `execute`
runs a statement with question marks for values, and returns its rows, if it has any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from asyncbatch.entries import Stamp
from asyncbatch.ledger import table

if TYPE_CHECKING:
    from asyncbatch.entries import LedgerJob

Execute = Callable[[str, Sequence[Any]], Sequence[Any]]


def forget(execute: Execute, target: str, *, generation: int) -> None:
    """Drop the entries of whatever job whose rows were in `target`."""
    execute(
        f"DELETE FROM {table.NAME} WHERE target = ? AND generation = ?",  # noqa: S608 - constants
        [target, generation],
    )


def can_go_on(execute: Execute, job: LedgerJob, target: str) -> bool:
    """Whether what the replacement of `target` has is of this job, and its inputs are the same."""
    query = (
        f"SELECT job, path, size, mtime_ns, digest FROM {table.NAME}"  # noqa: S608 - constants
        " WHERE target = ? AND generation > 0 AND (records_written > 0 OR job <> ?)"
    )
    rows = execute(query, [target, job.fingerprint])
    return bool(rows) and all(
        owner == job.fingerprint and job.is_current(table.restored(path), Stamp(*stamp))
        for owner, path, *stamp in rows
    )


def promote(execute: Execute, job: str, target: str) -> None:
    """Have a job's entries of a replacement be those of `target`, which had others' rows."""
    execute(
        f"DELETE FROM {table.NAME} WHERE target = ? AND NOT (job = ? AND generation > 0)",  # noqa: S608 - constants
        [target, job],
    )
    execute(f"UPDATE {table.NAME} SET generation = 0 WHERE job = ?", [job])  # noqa: S608 - constants
