"""One run: inputs in batches through an engine, and a report that grows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.batching import Batcher
from asyncbatch.delivery import Delivery
from asyncbatch.errors import NothingMatchedError, SinkError, UsageError
from asyncbatch.executors.inline import ThreadEngine
from asyncbatch.executors.lanes import BatchEnd, bounded_map
from asyncbatch.executors.loop import LoopEngine
from asyncbatch.executors.process import process_engine
from asyncbatch.job import Job, Launch
from asyncbatch.memory import measure, measure_all
from asyncbatch.ordering import OrderedLane
from asyncbatch.records import STDIN, BatchPart, Failure, Part, Settled, display_path
from asyncbatch.report import LISTED_FAILURES, Report, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from asyncbatch.executors.lanes import Engine, Work, WorkFactory
    from asyncbatch.records import Huge, Piece, Position

LANES_PER_WORKER = 2
"""One batch being worked on and one waiting, so that no worker waits for this process."""

_LAST_SECONDS = 2.0


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
        work: Callable[[Any], Work] | None = None,
        failure_limit: float = LISTED_FAILURES,
        reached: Callable[[str], Position | None] | None = None,
    ) -> None:
        """Make ready; `reached` knows where in huge files to take up what was done before."""
        self.report = Report(failure_limit, target=job.target.name if job.target else None)
        self._job, self._launch = job, launch
        self._make_work: WorkFactory = partial(work or suitable_work(job), job.settings)
        self._delivery = Delivery(job)
        self._began = time.perf_counter()
        self._batcher = Batcher(self._chunks(), job.batch_size, job.pause, self._pieces_of, reached)
        self._engine: Engine | None = None
        self._done: Counter[tuple[int, int]] = Counter()
        self._huge: dict[tuple[int, int], Huge] = {}
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
        """Yield what becomes of the files, when their rows are written, if they are to be.

        Raises NothingMatchedError, UsageError; WorkerBugError for a defect of asyncbatch.
        Closing the generator ends all workers. A target that is lost ends the run early; the
        report tells.
        """
        async with self._suitable_engine() as engine:
            self._engine = engine
            if await self._has_work():
                async with aclosing(self._delivered(engine)) as delivered:
                    async for found in delivered:
                        yield found
            self.snapshot()  # the workers' last memory, while there are workers
        self.report.elapsed_s = time.perf_counter() - self._began
        if not self._batcher.found and not self._stopped and not self._job.allow_empty:
            raise NothingMatchedError(self._job.inputs.describe_empty())

    async def _has_work(self) -> bool:
        """Whether there is any input; if not, no target is touched."""
        search = (await self._launched()).search
        return bool(search.opening) or not search.exhausted or self._job.allow_empty

    async def _delivered(self, engine: Engine) -> AsyncGenerator[BatchPart, None]:
        """Yield parts through with all that hangs on them; at the end, end the target."""
        delivery, order, ended = self._delivery, self._delivery.order, False
        await delivery.open()
        lanes = [OrderedLane(lane, order) for lane in engine.lanes] if order else engine.lanes
        try:
            async with aclosing(bounded_map(lanes, self._batcher)) as results:
                async for result in results:
                    for event in self._events(result):
                        async for found in delivery.take(event):
                            yield self._added(found)
            for found in await delivery.flush():
                yield self._added(found)
            ended = True
        except SinkError as error:
            self._lose_target(error)
        except UsageError:
            delivery.refuse()
            raise
        finally:
            self._judge(final=True)
            await self._finish(ended=ended)

    async def _finish(self, *, ended: bool) -> None:
        report, stopped = self.report, self._stopped or self.report.over_budget
        ended = ended and bool(self._batcher.found or self._job.allow_empty)
        succeeded = ended and not stopped and (bool(self._job.budget) or not report.tally.failures)
        finishing = asyncio.create_task(
            self._delivery.finish(succeeded=succeeded, ended=ended and not stopped)
        )
        try:
            # A thread that is stuck in a write has the target; nobody can wait for that.
            await asyncio.wait_for(asyncio.shield(finishing), None if ended else _LAST_SECONDS)
        except SinkError as error:
            self._lose_target(error)
            if self._job.target and not self._job.target.keeps_loads:
                report.discard(succeeded=False)
        except TimeoutError:
            finishing.cancel()
        else:
            if not finishing.result():
                report.discard(succeeded=succeeded)

    def _lose_target(self, error: SinkError) -> None:
        """Take note that the run ended for want of a target."""
        self._batcher.stop()
        self.report.lose_target(str(error), error.file)

    @asynccontextmanager
    async def _suitable_engine(self) -> AsyncIterator[Engine]:
        """Provide an engine that fits the job's size and the machine."""
        job = self._job
        launch = await self._launched()
        if job.record_work and job.record_work.call_is_async:
            from asyncbatch.async_work import LANES, AsyncRecordLane  # noqa: PLC0415 - if asked for

            slots = asyncio.Semaphore(job.record_work.call_concurrency)
            count = 1 if job.pause else job.concurrency or LANES
            yield LoopEngine([AsyncRecordLane(job.record_work, slots) for _ in range(count)])
            return
        if not launch.workers:
            yield ThreadEngine(self._make_work, 1 if job.pause else job.concurrency or 1)
            return
        in_flight = job.concurrency or len(launch.workers) * LANES_PER_WORKER
        if self._delivery.order:  # which lets no batch wait for another on the same worker
            in_flight = min(in_flight, len(launch.workers))
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
        guard = launch.guard
        async for chunk in launch.search.chunks():
            if guard:
                guard.check(chunk)
            yield chunk

    def _pieces_of(self, path: str, huge: Huge) -> Iterator[Piece]:
        """Return the pieces of a huge file, to be found in a thread."""
        from asyncbatch.splitting import Splitter  # noqa: PLC0415 - few files are that big

        work = self._job.record_work
        pointer = work.records if work else None
        return Splitter(path, huge, self._job.files.sizes, pointer).pieces()

    def _events(self, result: BatchPart | BatchEnd) -> Iterator[BatchPart | Settled]:
        """Yield what a lane says; of a file that cost its worker's life, a part of our own."""
        if isinstance(result, BatchPart):
            batch, part = result.batch, result.part
            if part.huge is not None:
                self._huge[batch.key] = part.huge
                return
            if batch.piece is not None and part.errors and not part.rejected:
                self._batcher.end_pieces(batch.start)
            self._done[batch.key] += len(part)
            yield result
            return
        end, batch = result, result.batch
        done = self._done.pop(batch.key, 0)
        self._batches += 1
        if end.lost is not None and len(batch.paths) - done == 1:
            self._delivery.clear_up(batch.paths[done])
            message = f"its worker process {end.lost} while at this file"
            failure = Failure(display_path(batch.paths[done]), "worker_crash", message)
            part = Part(batch.start + done, [0], [0], [0.0], errors={0: failure})
            self._batcher.end_pieces(batch.start)
            yield BatchPart(batch, part)
            done += 1
        huge = self._huge.pop(batch.key, None)
        self._batcher.settle(batch, done, lost=end.lost is not None, huge=huge)
        yield Settled(batch, done)

    def _added(self, found: BatchPart) -> BatchPart:
        self.report.add(found)
        self._judge(final=False)
        return found

    def _judge(self, *, final: bool) -> None:
        """Stop once the failure budget is spent."""
        budget, tally = self._job.budget, self.report.tally
        if budget and budget.is_spent(tally.failures, tally.seen, final=final):
            self.report.over_budget = True
            self._batcher.stop()


def suitable_work(job: Job) -> Callable[[Any], Work]:
    """Return what does what the job's settings say."""
    if job.record_work is not None:
        from asyncbatch.record_work import RecordWork  # noqa: PLC0415 - counting needs none of it

        return RecordWork
    from asyncbatch.work import FileWork  # noqa: PLC0415 - beside its sibling

    return FileWork
