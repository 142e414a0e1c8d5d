"""`--max-memory`, and what a container allows: how many workers, and how much in each."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncbatch.memory_plan import MemoryPlan


def memory_plan(limit: int | None, workers: int | None, **job: bool) -> "MemoryPlan | None":
    """Return what fits into `limit` bytes, None for what the container allows.

    None if that does not limit anything either. `job` is what `plan_memory` must know of it.
    Raises UsageError if a limit that was asked for is too little.
    """
    from asyncbatch.memory import memory_limit  # noqa: PLC0415 - --help stays quick

    asked = limit
    if limit is None and (limit := memory_limit()) is None:
        return None
    from asyncbatch.cpus import usable_cpus  # noqa: PLC0415 - see above
    from asyncbatch.memory_plan import USABLE, least_memory, plan_memory  # noqa: PLC0415 - see above

    wanted = usable_cpus() if workers is None else workers
    if asked is None:
        limit = max(int(limit * USABLE), least_memory(**job))
    return plan_memory(limit, wanted, **job)


def has_library(to: str | None) -> bool:
    """Whether a target is written by DuckDB or Arrow, or uploaded: what takes memory."""
    name = to or ""
    return name.startswith(("duckdb:", "s3:", "gs:", "az:")) or name.endswith(".parquet")
