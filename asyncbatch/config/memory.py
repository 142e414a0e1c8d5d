"""The memory plan: the number of workers, and the sizes of buffers, for a limit."""

from __future__ import annotations

from msgspec import Struct

from asyncbatch.core.settings import MIB, Sizes
from asyncbatch.core.units import format_size
from asyncbatch.errors import UsageError

MAIN_BYTES = 80 * MIB  # the main process without data (measured: 45 to 56 MB), with a reserve
# DuckDB and Arrow in addition (measured: 110 to 160 MB), or an upload (77 MB)
LIBRARY_BYTES = 176 * MIB
WORKER_BYTES = 48 * MIB  # a worker process without data (measured: 36 MB, 45 with a schema).
# the least memory for data of a process; without workers the main process has two shares
MIN_SHARE_BYTES = 20 * MIB
USABLE_SHARE = (
    0.9  # the usable share of a container's limit: the kernel counts more than we can measure
)
_MIN_WINDOW_BYTES = 8 * MIB  # which the zstd format asks of each decoder (RFC 8878, 3.1.1.1.2)
_COPIES = 16  # the size of Python values relative to their JSON text, at most and roughly


class MemoryPlan(Struct, frozen=True):
    """The number of worker processes (0: threads of the main process), and the sizes."""

    workers: int
    sizes: Sizes


def plan_memory(
    limit: int, workers: int, *, needs_process: bool = False, has_library: bool = False
) -> MemoryPlan:
    """Return the plan for `limit` bytes in all processes, and the wanted workers.

    `has_library`: the target is written by DuckDB or Arrow, or uploaded.

    Raises UsageError if the limit is too low for one worker, or for none where none is possible.
    """
    needed = min_memory(needs_process=needs_process, has_library=has_library)
    least = int(needs_process)
    for count in range(max(workers, least), least - 1, -1):
        share = (limit - _base_bytes(count, has_library=has_library)) // (max(count, 1) + 1)
        if share >= MIN_SHARE_BYTES:
            return MemoryPlan(count, _sizes(share))
    raise UsageError(
        f"--max-memory {format_size(limit)} is too small: this job needs at least "
        f"{format_size(needed)}"
    )


def min_memory(*, needs_process: bool, has_library: bool = False) -> int:
    """Return the least limit in bytes, with a worker process or without."""
    workers = int(needs_process)
    return _base_bytes(workers, has_library=has_library) + 2 * MIN_SHARE_BYTES


def _base_bytes(workers: int, *, has_library: bool) -> int:
    """Return the memory of all processes without data."""
    return MAIN_BYTES + has_library * LIBRARY_BYTES + workers * WORKER_BYTES


def _sizes(share: int) -> Sizes:
    most = Sizes()
    value = share // _COPIES
    return Sizes(
        split_threshold=min(most.split_threshold, value),
        split=min(most.split, value // 2),
        record=min(most.record, value),
        window=min(most.window, max(share, _MIN_WINDOW_BYTES)),
        document=min(most.document, value),
        part=min(most.part, value // 2),
        held=min(most.held, share // 4),
        waiting=min(most.waiting, value // 2),
    )
