"""The run: batches to workers, parts to delivery."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from asyncbatch.core.aio import with_pauses
from asyncbatch.core.batches import Batch, BatchPart, Settled, decided
from asyncbatch.core.report import LISTED_FAILURES, Report, SinkReport, SourceReport, Stages
from asyncbatch.core.system import Memory, measure, measure_all
from asyncbatch.core.tally import Tally, tally_of
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.failures import after_records
from asyncbatch.pipeline.delivery import Delivery
from asyncbatch.pipeline.launch import suitable_engine, suitable_work
from asyncbatch.pipeline.order import OrderedLane
from asyncbatch.pipeline.scheduler import Intake
from asyncbatch.workers.crashes import Losses, Verdict
from asyncbatch.workers.engine import BatchEnd, bounded_map

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from asyncbatch.config.job import Job
    from asyncbatch.core.batches import Huge
    from asyncbatch.core.records import Position
    from asyncbatch.core.report import Crew
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.workers.dask.engine import DaskEngine
    from asyncbatch.workers.engine import Engine, Lane, Loss, Work


class Watch:
    """Keeps the sections of a report, which has none without this."""

    def __init__(self, job: Job, intake: Intake, report: Report) -> None:
        self._job, self._intake, self._report = job, intake, report
        self._worked = Tally()
        self._is_over = False
        report.sources = [SourceReport(source.name, source.kind) for source in job.sources]
        if (target := job.target) is not None and target.form != "parts":
            mode = target.mode if target.is_database else None
            report.sink = SinkReport(target.name, target.table, mode, target.key)

    def take(self, found: BatchPart) -> None:
        """Take note of what has come out of a worker."""
        tally = tally_of(found.part)
        if found.part.rows is not None:
            tally.written += found.part.rows.count
        self._worked += tally
        self._report.sources[found.batch.source].extracted += tally.read

    def look(self, *, is_over: bool = False) -> None:
        """Bring the report's sections up to date, for good once the run `is_over`."""
        self._is_over = self._is_over or is_over
        for number, source in enumerate(self._report.sources):
            source.found, source.is_complete = self._intake.inputs_of(number)
            source.traffic = self._intake.traffic_of(number)
            source.judge(is_over=self._is_over, limit=self._job.limit)

    def stages(self, engine: Engine | None) -> Stages:
        """Return how far the run is, with an engine if it has one already."""
        self.look()
        lanes = len(engine.lanes) if engine else 0
        return Stages(self._worked, self._report.sources, self._intake.waiting, lanes)


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
    stages: Stages | None = None
    """How far each stage and source is, if somebody watches."""
    crew: Crew | None = None
    """The cluster that works, if one does."""


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
        watched: bool = False,
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - nobody listens
    ) -> None:
        """Make ready; `reached` knows where to take up huge files, if not the job's ledger.

        If `watched`, the report and snapshots tell each source, and the sink, apart. `say` takes
        what is worth telling meanwhile.
        """
        if job.dask is not None:
            from asyncbatch.workers.dask.job import sized

            job = sized(job)
        self.report = Report(failure_limit, target=job.target.name if job.target else None)
        self._job = job
        self._make_work = partial(work, job.settings) if work else suitable_work(job)
        self._delivery = Delivery(job)
        self._began = time.perf_counter()
        self._intake = Intake(job, self._delivery, launch, reached)
        self._watch = Watch(job, self._intake, self.report) if watched else None
        self._say = say
        self._engine: Engine | None = None
        self._cluster: DaskEngine | None = None
        self._losses = Losses(job.timeout)
        self._done: Counter[tuple[int, int]] = Counter()
        self._handed_on: Counter[tuple[int, int]] = Counter()
        """Records of unfinished files that are reported already, by their batches."""
        self._huge: dict[tuple[int, int], Huge] = {}
        self._batches = 0
        self._stopped = False

    def stop(self) -> None:
        """Take no more input; `parts` ends when what is in flight is done."""
        self._stopped = self.report.interrupted = True
        self._intake.supply.stop()

    def snapshot(self) -> Snapshot:
        """Return how far the run is, and take note of its time and memory."""
        ours, workers = measure(), measure_all(self._engine.pids if self._engine else ())
        report = self.report
        if self._cluster is not None:
            report.crew = self._cluster.crew
            workers = Memory(report.crew.memory, report.crew.memory)
        report.peak_memory_bytes = max(report.peak_memory_bytes, ours.peak + workers.peak)
        report.elapsed_s = time.perf_counter() - self._began
        return Snapshot(
            report.elapsed_s,
            self._intake.total,
            self._intake.found,
            report.tally,
            self._batches,
            self._intake.supply.unsettled,
            ours.current,
            workers.current,
            self._watch.stages(self._engine) if self._watch else None,
            report.crew,
        )

    async def parts(self) -> AsyncGenerator[BatchPart, None]:
        """Yield what becomes of the files, when their rows are written, if they are to be.

        Raises NothingMatchedError, UsageError; NoWorkerError if no worker gets to work;
        WorkerBugError for a defect of asyncbatch.
        Closing the generator ends all workers. A target that is lost ends the run early; the
        report tells.
        """
        launch = await self._intake.launched()
        ordered = self._delivery.order is not None
        async with (
            suitable_engine(
                self._job, launch, self._make_work, ordered=ordered, say=self._say
            ) as engine,
            self._intake as intake,
        ):
            self._engine = engine
            if self._job.dask is not None:
                self._cluster = cast("DaskEngine", engine)
                intake.expect(len(engine.lanes))
            if await intake.is_any():
                async with aclosing(self._delivered(engine)) as delivered:
                    async for found in delivered:
                        yield found
            self.snapshot()  # the workers' last memory, while there are workers
        self.report.elapsed_s = time.perf_counter() - self._began
        if not self._stopped:
            self._intake.check()

    async def _delivered(self, engine: Engine) -> AsyncGenerator[BatchPart, None]:
        """Yield parts through with all that hangs on them; at the end, end the target."""
        delivery, order, ended = self._delivery, self._delivery.order, False
        await delivery.open()
        report = self.report
        report.notes += delivery.take_notes()
        cluster = self._cluster
        lanes: Sequence[Lane] = cluster.places if cluster else engine.lanes
        if delivery.admission:
            from asyncbatch.pipeline.resume.admission import DecidedLane

            lanes = [DecidedLane(lane) for lane in lanes]
        if order:
            lanes = [OrderedLane(lane, order) for lane in lanes]
        batches: AsyncIterator[Batch] = self._intake.supply
        if cluster:
            lanes = [cluster.gate.lane(lane) for lane in lanes]
            batches = cluster.gate.paced(batches)
        try:
            async with (
                aclosing(bounded_map(lanes, batches, len(engine.lanes))) as results,
                aclosing(with_pauses(results, delivery.patience)) as timely,
            ):
                async for result in timely:
                    for event in self._events(result) if result is not None else ():
                        async for found in delivery.take(event):
                            yield self._added(found)
                    for found in await delivery.flush_if_late():
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
        self.report.tally.retries += self._delivery.retrier.taken()
        self.report.add_retries(self._intake.retries())
        if self._watch:
            self._watch.look(is_over=True)
        report, stopped = self.report, self._stopped or self.report.over_budget
        ended = ended and self._intake.may_be_empty
        succeeded = ended and not stopped and (bool(self._job.budget) or not report.tally.failures)
        if not ended or stopped:
            self._delivery.give_up()
        finishing = asyncio.create_task(
            self._delivery.finish(succeeded=succeeded, ended=ended and not stopped)
        )
        try:
            # A thread that is stuck in a write has the target; nobody can wait for that.
            await asyncio.wait_for(asyncio.shield(finishing), None if ended else _LAST_SECONDS)
        except asyncio.CancelledError:  # a store may be slow to take what there is
            if self._delivery.give_up():
                await asyncio.wait((finishing,), timeout=_LAST_SECONDS)
            raise
        except SinkError as error:
            self._lose_target(error)
            if self._job.target and not self._job.target.keeps_loads:
                report.discard(succeeded=False, can_go_on=bool(self._job.ledger))
        except TimeoutError:
            finishing.cancel()
        else:
            if not finishing.result():
                report.discard(succeeded=succeeded, can_go_on=bool(self._job.ledger))
        report.notes += self._delivery.take_notes()

    def _lose_target(self, error: SinkError) -> None:
        """Take note that the run ended for want of a target."""
        self._intake.supply.stop()
        self.report.lose_target(str(error), error.file)

    def _events(self, result: BatchPart | BatchEnd) -> Iterator[BatchPart | Settled]:
        """Yield what a lane says, and what becomes of a batch whose worker died."""
        if isinstance(result, BatchPart):
            batch, part = result.batch, result.part
            if self._watch:
                self._watch.take(result)
            self._intake.count(batch.source, part)
            if part.huge is not None:
                self._huge[batch.key] = part.huge
                return
            if batch.piece is not None and part.errors and not part.rejected:
                self._intake.supply.end_pieces(batch.start)
            self._done[batch.key] += len(part)
            if len(part):
                self._handed_on.pop(batch.key, None)
            elif part.told is not None:
                self._handed_on[batch.key] += part.told.read
            yield result
            return
        end, batch = result, result.batch
        done = self._done.pop(batch.key, 0)
        self._batches += 1
        huge = self._huge.pop(batch.key, None)
        handed_on = self._handed_on.pop(batch.key, None)
        if end.loss is None:
            self._losses.note_success()
            self._intake.supply.settle(batch, done, huge=huge)
        elif batch.piece is not None:
            verdict = self._losses.judge(batch, done, end.loss)
            failure = verdict.failure or self._losses.blame(batch.paths[0], end.loss)
            done = 1
            self._intake.supply.end_pieces(batch.start)
            yield BatchPart(batch, decided(batch.start, done, {0: failure}, {}))
            self._intake.supply.settle(batch, done)
        yield Settled(batch, done)
        if end.loss is not None and batch.piece is None:
            yield from self._after_loss(batch, done, end.loss, handed_on)

    def _after_loss(
        self, batch: Batch, done: int, loss: Loss, handed_on: int | None
    ) -> Iterator[BatchPart | Settled]:
        """Have the rest of a batch tried again; yield a part of our own of a guilty file.

        Of the first that is not done so many records are handed on; None if it is not begun.
        """
        verdict = self._losses.judge(batch, done, loss)
        if handed_on is not None:  # which is not taken back, so it is not tried again
            blame = self._losses.blame(batch.paths[done], loss)
            verdict = Verdict(batch.start + done, after_records(blame, handed_on))
        file = verdict.file
        if file is None:
            self._intake.supply.settle(batch, done, halve=verdict.halve)
            return
        self._intake.supply.settle_without(batch, done, file, again=verdict.failure is None)
        path = batch.paths[file - batch.start]
        self._delivery.clear_up(path)
        if (failure := verdict.failure) is not None:
            alone = Batch(file, (path,))
            seconds = (self._job.timeout or 0.0) if failure.kind == "timeout" else 0.0
            part = decided(file, 1, {0: failure}, {})
            part.elapsed_ms = [seconds * 1000]
            yield BatchPart(alone, part)
            yield Settled(alone, 1)

    def _added(self, found: BatchPart) -> BatchPart:
        self.report.add(found)
        self._judge(final=False)
        return found

    def _judge(self, *, final: bool) -> None:
        """Stop once the failure budget is spent."""
        budget, tally = self._job.budget, self.report.tally
        if budget and budget.is_spent(tally.failures, tally.seen, final=final):
            self.report.over_budget = True
            self._intake.supply.stop()
