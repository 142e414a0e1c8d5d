"""The engine of a job: threads, event loop, processes, cluster."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from asyncbatch.pipeline.launch import make_task
from asyncbatch.workers.engine import LANES_PER_WORKER, abandon_all
from asyncbatch.workers.local import LoopEngine, ThreadEngine
from asyncbatch.workers.process import process_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncbatch.config.job import Job
    from asyncbatch.core.settings import DaskSettings
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.workers.dask.engine import DaskEngine
    from asyncbatch.workers.engine import Engine, WorkFactory
    from asyncbatch.workers.local import LocalLane

_CLEANUP_SECONDS = 2.0  # time for workers to clean up unfinished outputs


@asynccontextmanager
async def make_engine(
    job: Job,
    launch: Launch,
    make_work: WorkFactory,
    *,
    ordered: bool,
    log: Callable[[str], None],
) -> AsyncIterator[Engine]:
    """Provide the engine for a job: event loop, threads, processes or a Dask cluster.

    `ordered`: batches are delivered in order. `log` is called with notes about the cluster. Raises
    UsageError for an unsuitable cluster.
    """
    if job.dask is not None:
        async with _cluster_engine(job, job.dask, launch, log) as cluster:
            yield cluster
        return
    if job.record_work and job.record_work.call_is_async:
        async with _finish_engine(
            LoopEngine(async_lanes(job, job.record_work.call_concurrency))
        ) as loop:
            yield loop
        return
    if not launch.workers:
        at_once = 1 if job.pause else job.concurrency or 1
        async with _finish_engine(ThreadEngine(make_work, at_once)) as threads:
            yield threads
        return
    in_flight = job.concurrency or len(launch.workers) * LANES_PER_WORKER
    if ordered:  # a batch must not wait behind another batch on the same worker: see InputOrder
        in_flight = min(in_flight, len(launch.workers))
    async with process_engine(
        make_work,
        launch.workers,
        1 if job.pause else in_flight,
        reads_stdin=job.reads_stdin,
        file_timeout=job.timeout,
        graceful=_is_remote(job),
    ) as engine:
        yield engine


@asynccontextmanager
async def _cluster_engine(
    job: Job, dask: DaskSettings, launch: Launch, log: Callable[[str], None]
) -> AsyncIterator[DaskEngine]:
    """Provide the engine of a Dask cluster. Raises UsageError if it is unsuitable."""
    from asyncbatch.workers.dask import job as cluster_job
    from asyncbatch.workers.dask.engine import dask_engine
    from asyncbatch.workers.dask.worker import RunSetup

    ready, code = cluster_job.prepare_for_workers(job)
    grace = _CLEANUP_SECONDS if _is_remote(job) else 0.0
    make_work = make_task(job, ready)
    async with AsyncExitStack() as stack:
        with cluster_job.probe_file(job.target) as proof:
            inputs = (search.opening for search in launch.searches.values())
            place = cluster_job.worker_location(job, inputs, proof)
            engine = dask_engine(
                dask.scheduler,
                lambda run: RunSetup(run, make_work, code, place, job.timeout, grace),
                log,
                workers=job.workers,
                concurrency=1 if job.pause else job.concurrency,
            )
            cluster = await stack.enter_async_context(engine)
        yield cluster


def _is_remote(job: Job) -> bool:
    """Whether outputs are objects. Their unfinished uploads must be aborted."""
    return job.target is not None and job.target.is_remote


@asynccontextmanager
async def _finish_engine(engine: Engine) -> AsyncIterator[Engine]:
    """Provide an engine of this process; abandon its unfinished outputs at the end."""
    try:
        yield engine
    finally:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(abandon_all, engine.lanes), _CLEANUP_SECONDS)


def async_lanes(job: Job, max_calls: int) -> list[LocalLane]:
    """Return lanes for async functions, with `max_calls` calls in flight."""
    from asyncbatch.workers.tasks.transform_async import (
        LANES,
        AsyncTransformLane,
    )
    from asyncbatch.workers.tasks.transform_sources import SourcesLane

    slots = asyncio.Semaphore(max_calls)
    works = [work for source in job.sources if (work := source.record_work) is not None]

    def lane() -> LocalLane:
        lanes: list[LocalLane] = [AsyncTransformLane(work, slots, job.timeout) for work in works]
        return lanes[0] if len(lanes) == 1 else SourcesLane(lanes)

    return [lane() for _ in range(1 if job.pause else job.concurrency or LANES)]
