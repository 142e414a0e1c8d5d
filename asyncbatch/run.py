"""One run: inputs in batches through an engine, and a report that grows."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.batching import Batcher
from asyncbatch.cpus import usable_cpus
from asyncbatch.errors import NothingMatchedError
from asyncbatch.executors.inline import ThreadEngine
from asyncbatch.executors.lanes import BatchEnd, bounded_map
from asyncbatch.executors.process import process_engine
from asyncbatch.memory import measure, measure_all
from asyncbatch.records import STDIN, BatchPart, Failure, Part, display_path
from asyncbatch.report import LISTED_FAILURES, Report, Tally
from asyncbatch.work import FileWork, FileWorkSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from asyncbatch.budget import FailureBudget
    from asyncbatch.executors.lanes import Engine, Work, WorkFactory
    from asyncbatch.sources.inputs import Inputs

SMALL_FILES = 256
SMALL_BYTES = 16 * 1024 * 1024
"""A job of no more than this is done sooner in this process than worker processes start."""

LANES_PER_WORKER = 2
"""One batch being worked on and one waiting, so that no worker waits for this process."""


class Job(Struct, frozen=True):
    """What to do. None means: chosen to fit.

    `workers` are processes (0: threads of this one), `concurrency` batches in flight,
    `batch_size` files in each, `pause` seconds between them (which then go one at a time).
    """

    inputs: Inputs
    settings: FileWorkSettings = FileWorkSettings()
    batch_size: int | None = None
    concurrency: int | None = None
    workers: int | None = None
    pause: float = 0.0
    budget: FailureBudget | None = None
    allow_empty: bool = False


class Snapshot(Struct, frozen=True):
    """How far a run is. `total` is None while the search for files goes on; times in seconds."""

    elapsed_s: float
    total: int | None
    found: int
    tally: Tally
    batches: int
    in_flight: int
    memory_bytes: int
    worker_memory_bytes: int


class Run:
    """Carries out a job once. `report` is live and, after `parts` has ended, final."""

    def __init__(
        self,
        job: Job,
        *,
        work: Callable[[FileWorkSettings], Work] = FileWork,
        failure_limit: float = LISTED_FAILURES,
    ) -> None:
        self.report = Report(failure_limit)
        self._job = job
        self._make_work: WorkFactory = partial(work, job.settings)
        self._began = time.perf_counter()
        self._batcher = Batcher(job.inputs.chunks(), job.batch_size, job.pause)
        self._engine: Engine | None = None
        self._done: Counter[int] = Counter()
        self._batches = 0
        self._stopped = False

    def stop(self) -> None:
        """Take no more input; `parts` ends when what is in flight is done."""
        self._stopped = self.report.interrupted = True
        self._batcher.stop()

    def snapshot(self) -> Snapshot:
        """Return how far the run is, and take note of its time and memory."""
        ours, workers = measure(), measure_all(self._engine.pids if self._engine else ())
        report, batcher = self.report, self._batcher
        report.peak_memory_bytes = max(report.peak_memory_bytes, ours.peak + workers.peak)
        report.elapsed_s = time.perf_counter() - self._began
        return Snapshot(
            report.elapsed_s,
            batcher.found if batcher.exhausted else None,
            batcher.found,
            report.tally,
            self._batches,
            batcher.unsettled,
            ours.current,
            workers.current,
        )

    async def parts(self) -> AsyncGenerator[BatchPart, None]:
        """Yield what becomes of the files, as it happens.

        Raises NothingMatchedError, UsageError; WorkerBugError for a defect of asyncbatch.
        Closing the generator ends all workers.
        """
        self._job.inputs.check()
        batcher = self._batcher
        async with self._suitable_engine() as engine:
            self._engine = engine
            async with aclosing(bounded_map(engine.lanes, batcher)) as results:
                async for result in results:
                    if isinstance(result, BatchEnd):
                        found = self._end(result)
                    else:
                        found = result
                        self._done[result.batch.start] += len(result.part)
                    if found is not None:
                        self._add(found)
                        yield found
            self.snapshot()  # the workers' last memory, while there are workers
        self.report.elapsed_s = time.perf_counter() - self._began
        self._judge(final=True)
        if not batcher.found and not self._stopped and not self._job.allow_empty:
            raise NothingMatchedError(self._job.inputs.describe_empty())

    @asynccontextmanager
    async def _suitable_engine(self) -> AsyncIterator[Engine]:
        """Provide an engine that fits the job's size and the machine."""
        job = self._job
        workers = usable_cpus() if job.workers is None else job.workers
        opening = await self._batcher.opening()
        small = opening is not None and await asyncio.to_thread(_is_small, opening)
        if small or not workers:
            lanes = 1 if job.pause else job.concurrency or 1
            yield ThreadEngine(self._make_work, lanes)
            return
        lanes = 1 if job.pause else job.concurrency or workers * LANES_PER_WORKER
        reads_stdin = STDIN in job.inputs.paths
        async with process_engine(
            self._make_work, workers, lanes, reads_stdin=reads_stdin
        ) as engine:
            yield engine

    def _end(self, end: BatchEnd) -> BatchPart | None:
        """Settle a batch; return a part of our own where a file has cost its worker's life."""
        batch = end.batch
        done = self._done.pop(batch.start, 0)
        self._batches += 1
        crashed = None
        if end.lost is not None and len(batch.paths) - done == 1:
            message = f"its worker process {end.lost} while at this file"
            failure = Failure(display_path(batch.paths[done]), "worker_crash", message)
            part = Part(batch.start + done, [0], [0], [0.0], errors={0: failure})
            crashed = BatchPart(batch, part)
            done += 1
        self._batcher.settle(batch, done, lost=end.lost is not None)
        return crashed

    def _add(self, found: BatchPart) -> None:
        self.report.add(found)
        self._judge(final=False)

    def _judge(self, *, final: bool) -> None:
        """Stop once the failure budget is spent."""
        budget, tally = self._job.budget, self.report.tally
        if budget and budget.is_spent(tally.failures, tally.seen, final=final):
            self.report.over_budget = True
            self._batcher.stop()


def _is_small(paths: Sequence[str]) -> bool:
    """Whether these files are few and small; what cannot be looked at is no work either."""
    if len(paths) > SMALL_FILES:
        return False
    sizes = 0
    for path in paths:
        try:
            sizes += os.stat(path).st_size
        except OSError:
            continue
    return sizes <= SMALL_BYTES
