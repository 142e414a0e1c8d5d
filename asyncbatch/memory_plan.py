"""What fits into so much memory: how many workers, and how much each process may hold."""

from __future__ import annotations

from msgspec import Struct

from asyncbatch.errors import UsageError
from asyncbatch.settings import MIB, Sizes
from asyncbatch.words import size

MAIN_BYTES = 72 * MIB
"""What the main process takes before there is any data (measured: 45 MB, 65 with DuckDB)."""
WORKER_BYTES = 48 * MIB
"""The same for a worker process (measured: 36 MB, 45 with a schema)."""
LEAST_SHARE = 12 * MIB
"""What a process must have for data."""
USABLE = 0.9
"""How much of a container's limit is planned with: the system counts some that we do not see."""
_TIMES = 10
"""What a JSON text takes as Python values, at most and roughly, in times of its length."""


class MemoryPlan(Struct, frozen=True):
    """How many worker processes there may be (0: threads of the main process), and the sizes."""

    workers: int
    sizes: Sizes


def plan_memory(limit: int, workers: int, *, needs_process: bool = False) -> MemoryPlan:
    """Return the plan for at most `limit` bytes in all processes, and so many wanted workers.

    Raises UsageError if that is too little for one, or for none where none will do.
    """
    needed, least = least_memory(needs_process=needs_process), int(needs_process)
    for count in range(max(workers, least), least - 1, -1):
        share = (limit - MAIN_BYTES - count * WORKER_BYTES) // (count + 1)
        if share >= LEAST_SHARE:
            return MemoryPlan(count, _sizes(share))
    raise UsageError(f"--max-memory {size(limit)} is too little: this job takes {size(needed)}")


def least_memory(*, needs_process: bool) -> int:
    """Return how many bytes there must be, with a worker process or without."""
    workers = int(needs_process)
    return MAIN_BYTES + workers * WORKER_BYTES + (workers + 1) * LEAST_SHARE


def _sizes(share: int) -> Sizes:
    most = Sizes()
    value = share // _TIMES
    return Sizes(
        huge=min(most.huge, value),
        piece=min(most.piece, value // 2),
        record=min(most.record, value),
        document=min(most.document, value),
        part=min(most.part, value // 2),
        held=min(most.held, share // 3),
        waiting=min(most.waiting, share // 6),
    )
