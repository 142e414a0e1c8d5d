"""What fits into so much memory: how many workers, and how much each process may hold."""

from __future__ import annotations

from msgspec import Struct

from asyncbatch.core.settings import MIB, Sizes
from asyncbatch.core.units import format_size
from asyncbatch.errors import UsageError

MAIN_BYTES = 80 * MIB
"""What the main process takes before there is any data (measured: 45 to 56 MB), with some air."""
LIBRARY_BYTES = 176 * MIB
"""What DuckDB and Arrow take beside it (measured: 110 to 160 MB), or an upload (77 MB more)."""
WORKER_BYTES = 48 * MIB
"""The same for a worker process (measured: 36 MB, 45 with a schema)."""
LEAST_SHARE = 20 * MIB
"""What a process must have for data; without workers, the main process has two shares."""
USABLE = 0.9
"""How much of a container's limit is planned with: the system counts some that we do not see."""
_COPIES = 16
"""What a JSON text takes as Python values, at most and roughly, in times of its length."""


class MemoryPlan(Struct, frozen=True):
    """How many worker processes there may be (0: threads of the main process), and the sizes."""

    workers: int
    sizes: Sizes


def plan_memory(
    limit: int, workers: int, *, needs_process: bool = False, has_library: bool = False
) -> MemoryPlan:
    """Return the plan for at most `limit` bytes in all processes, and so many wanted workers.

    `has_library` if the target is written by DuckDB or Arrow, or uploaded.

    Raises UsageError if that is too little for one, or for none where none will do.
    """
    needed = least_memory(needs_process=needs_process, has_library=has_library)
    least = int(needs_process)
    for count in range(max(workers, least), least - 1, -1):
        share = (limit - _base_bytes(count, has_library=has_library)) // (max(count, 1) + 1)
        if share >= LEAST_SHARE:
            return MemoryPlan(count, _sizes(share))
    raise UsageError(
        f"--max-memory {format_size(limit)} is too little: this job takes {format_size(needed)}"
    )


def least_memory(*, needs_process: bool, has_library: bool = False) -> int:
    """Return how many bytes there must be, with a worker process or without."""
    workers = int(needs_process)
    return _base_bytes(workers, has_library=has_library) + 2 * LEAST_SHARE


def _base_bytes(workers: int, *, has_library: bool) -> int:
    """Return what the processes take before there is any data."""
    return MAIN_BYTES + has_library * LIBRARY_BYTES + workers * WORKER_BYTES


def _sizes(share: int) -> Sizes:
    most = Sizes()
    value = share // _COPIES
    return Sizes(
        huge=min(most.huge, value),
        piece=min(most.piece, value // 2),
        record=min(most.record, value),
        document=min(most.document, value),
        part=min(most.part, value // 2),
        held=min(most.held, share // 4),
        waiting=min(most.waiting, value // 2),
    )
