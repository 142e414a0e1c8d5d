"""One run: inputs in batches through an engine, and a report that grows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.batching import Batcher
from asyncbatch.errors import NothingMatchedError
from asyncbatch.executors.inline import ThreadEngine
from asyncbatch.executors.lanes import BatchEnd, bounded_map
from asyncbatch.executors.process import process_engine
from asyncbatch.job import Job, Launch
from asyncbatch.memory import measure, measure_all
from asyncbatch.records import STDIN, BatchPart, Failure, Part, display_path
from asyncbatch.report import LISTED_FAILURES, Report, Tally
from asyncbatch.work import FileWork

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from asyncbatch.executors.lanes import Engine, Work, WorkFactory
    from asyncbatch.settings import FileWorkSettings

LANES_PER_WORKER = 2
"""One batch being worked on and one waiting, so that no worker waits for this process."""


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
        launch: Launch | None = None,
        work: Callable[[FileWorkSettings], Work] = FileWork,
        failure_limit: float = LISTED_FAILURES,
    ) -> None:
        self.report = Report(failure_limit)
        self._job, self._launch = job, launch
        self._make_work: WorkFactory = partial(work, job.settings)
        self._began = time.perf_counter()
        self._batcher = Batcher(self._chunks(), job.batch_size, job.pause)
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
        report, search = self.report, self._launch.search if self._launch else None
        report.peak_memory_bytes = max(report.peak_memory_bytes, ours.peak + workers.peak)
        report.elapsed_s = time.perf_counter() - self._began
        return Snapshot(
            report.elapsed_s,
            search.found if search and search.exhausted else None,
            search.found if search else 0,
            report.tally,
            self._batches,
            self._batcher.unsettled,
            ours.current,
            workers.current,
        )

    async def parts(self) -> AsyncGenerator[BatchPart, None]:
        """Yield what becomes of the files, as it happens.

        Raises NothingMatchedError, UsageError; WorkerBugError for a defect of asyncbatch.
        Closing the generator ends all workers.
        """
        async with self._suitable_engine() as engine:
            self._engine = engine
            async with aclosing(bounded_map(engine.lanes, self._batcher)) as results:
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
        if not self._batcher.found and not self._stopped and not self._job.allow_empty:
            raise NothingMatchedError(self._job.inputs.describe_empty())

    @asynccontextmanager
    async def _suitable_engine(self) -> AsyncIterator[Engine]:
        """Provide an engine that fits the job's size and the machine."""
        job = self._job
        launch = await self._launched()
        if not launch.workers:
            yield ThreadEngine(self._make_work, 1 if job.pause else job.concurrency or 1)
            return
        in_flight = job.concurrency or len(launch.workers) * LANES_PER_WORKER
        async with process_engine(
            self._make_work,
            launch.workers,
            1 if job.pause else in_flight,
            reads_stdin=STDIN in job.inputs.paths,
        ) as engine:
            yield engine

    async def _launched(self) -> Launch:
        if self._launch is None:
            self._launch = Launch(self._job)
            await asyncio.to_thread(self._launch.look)
            self._launch.start()
        return self._launch

    async def _chunks(self) -> AsyncIterator[Sequence[str]]:
        launch = await self._launched()
        async for chunk in launch.search.chunks():
            yield chunk

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
