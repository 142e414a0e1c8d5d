"""Who does the work of a job: threads, the event loop, processes or a cluster; and what it is."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from asyncbatch.executors.inline import ThreadEngine
from asyncbatch.executors.lanes import abandon_all
from asyncbatch.executors.loop import LoopEngine
from asyncbatch.executors.process import process_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncbatch.executors.dask_engine import DaskEngine
    from asyncbatch.executors.lanes import Engine, Lane, WorkFactory
    from asyncbatch.job import Job, Launch
    from asyncbatch.record_settings import RecordWorkSettings
    from asyncbatch.settings import DaskSettings

LANES_PER_WORKER = 2
"""One batch being worked on and one waiting, so that no worker waits for this process."""
_LAST_SECONDS = 2.0
"""How long those that work may take to leave nothing half done."""


@asynccontextmanager
async def suitable_engine(
    job: Job,
    launch: Launch,
    make_work: WorkFactory,
    *,
    ordered: bool,
    say: Callable[[str], None],
) -> AsyncIterator[Engine]:
    """Provide an engine that fits the job's size and the machine, or the cluster it names.

    Batches are delivered in their order if that is `ordered`. `say` takes what a cluster has
    to tell. Raises UsageError for one that is not fit.
    """
    if job.dask is not None:
        async with _cluster(job, job.dask, launch, say) as cluster:
            yield cluster
        return
    if job.record_work and job.record_work.call_is_async:
        async with _ended(LoopEngine(async_lanes(job, job.record_work.call_concurrency))) as loop:
            yield loop
        return
    if not launch.workers:
        at_once = 1 if job.pause else job.concurrency or 1
        async with _ended(ThreadEngine(make_work, at_once)) as threads:
            yield threads
        return
    in_flight = job.concurrency or len(launch.workers) * LANES_PER_WORKER
    if ordered:  # which lets no batch wait for another on the same worker
        in_flight = min(in_flight, len(launch.workers))
    async with process_engine(
        make_work,
        launch.workers,
        1 if job.pause else in_flight,
        reads_stdin=job.reads_stdin,
        patience=job.timeout,
        gently=_is_remote(job),
    ) as engine:
        yield engine


@asynccontextmanager
async def _cluster(
    job: Job, dask: DaskSettings, launch: Launch, say: Callable[[str], None]
) -> AsyncIterator[DaskEngine]:
    """Provide the lanes of a cluster that is fit for the job. Raises UsageError."""
    from asyncbatch import cluster_job  # noqa: PLC0415 - if asked for
    from asyncbatch.executors.dask_engine import dask_engine  # noqa: PLC0415 - see above
    from asyncbatch.executors.dask_worker import Setup  # noqa: PLC0415 - see above

    ready, code = cluster_job.sent(job)
    grace = _LAST_SECONDS if _is_remote(job) else 0.0
    make_work = suitable_work(job, ready)
    async with AsyncExitStack() as stack:
        with cluster_job.proving(job.target) as proof:
            place = cluster_job.place(job, launch, proof)
            engine = dask_engine(
                dask.scheduler,
                lambda run: Setup(run, make_work, code, place, job.timeout, grace),
                say,
                workers=job.workers,
                concurrency=1 if job.pause else job.concurrency,
            )
            cluster = await stack.enter_async_context(engine)
        yield cluster


def _is_remote(job: Job) -> bool:
    """Whether outputs are objects, of which no halves are to be left in a store."""
    return job.target is not None and job.target.is_remote


@asynccontextmanager
async def _ended(engine: Engine) -> AsyncIterator[Engine]:
    """Have an engine of this process leave nothing half done at the end."""
    try:
        yield engine
    finally:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(abandon_all, engine.lanes), _LAST_SECONDS)


def suitable_work(
    job: Job, ready: Callable[[RecordWorkSettings], RecordWorkSettings] = lambda work: work
) -> WorkFactory:
    """Return what makes that which does what the job's settings say, made `ready` for others."""
    if len(job.sources) > 1:
        from asyncbatch.source_work import SourceWork  # noqa: PLC0415 - few jobs have several

        works = (source.record_work for source in job.sources)
        return partial(SourceWork, tuple(ready(work) for work in works if work is not None))
    if job.record_work is not None:
        from asyncbatch.record_work import RecordWork  # noqa: PLC0415 - counting needs none of it

        return partial(RecordWork, ready(job.record_work))
    from asyncbatch.work import FileWork  # noqa: PLC0415 - beside its sibling

    return partial(FileWork, job.files)


def async_lanes(job: Job, at_once: int) -> list[Lane]:
    """Return lanes for async functions, `at_once` calls of which may be going on at a time."""
    from asyncbatch.async_work import LANES, AsyncRecordLane  # noqa: PLC0415 - if asked for
    from asyncbatch.source_work import SourceLane  # noqa: PLC0415 - see above

    slots = asyncio.Semaphore(at_once)
    works = [work for source in job.sources if (work := source.record_work) is not None]

    def lane() -> Lane:
        lanes: list[Lane] = [AsyncRecordLane(work, slots, job.timeout) for work in works]
        return lanes[0] if len(lanes) == 1 else SourceLane(lanes)

    return [lane() for _ in range(1 if job.pause else job.concurrency or LANES)]
