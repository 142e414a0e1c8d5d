"""The run of a job: batches to the workers, their parts to the delivery."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.core.aio import with_pauses
from asyncbatch.core.batches import Batch, BatchPart, SettledInputs, prepared_part
from asyncbatch.core.progress import FileTimer
from asyncbatch.core.report import (
    MAX_LISTED_FAILURES,
    Report,
    SinkReport,
    SourceReport,
    StageProgress,
)
from asyncbatch.core.system import Memory, measure_memory, sum_memory
from asyncbatch.core.tally import Tally, tally_of
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.detect import with_format_key
from asyncbatch.formats.failures import with_record_count
from asyncbatch.pipeline.delivery import Delivery
from asyncbatch.pipeline.engines import make_engine
from asyncbatch.pipeline.launch import make_task
from asyncbatch.pipeline.order import OrderedLane
from asyncbatch.pipeline.scheduler import Scheduler
from asyncbatch.workers.crashes import CrashPolicy, Decision
from asyncbatch.workers.engine import BatchEnd, bounded_map

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Sequence,
    )

    from asyncbatch.config.job import Job
    from asyncbatch.core.batches import Part, SplitFile
    from asyncbatch.core.progress import LongFile
    from asyncbatch.core.records import Failure, Position
    from asyncbatch.core.report import ClusterStatus
    from asyncbatch.pipeline.finished_files import FinishedFiles
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.sources.count_ahead import InputCount
    from asyncbatch.sources.live.watched_search import WatchedSearch
    from asyncbatch.workers.dask.engine import DaskEngine
    from asyncbatch.workers.engine import Engine, Lane, Loss, Work


class ReportUpdater:
    """Updates the source and sink sections of a report."""

    def __init__(self, job: Job, scheduler: Scheduler, report: Report) -> None:
        self._job, self._scheduler, self._report = job, scheduler, report
        self._worked = Tally()
        self._is_over = False
        report.sources = [SourceReport(source.name, source.kind) for source in job.sources]
        if (target := job.target) is not None and target.form != "parts":
            mode = target.mode if target.is_database else None
            report.sink = SinkReport(target.name, target.table, mode, target.key)

    def add(self, batch_part: BatchPart) -> None:
        """Add the counts of a part."""
        tally = tally_of(batch_part.part)
        if batch_part.part.rows is not None:
            tally.written += batch_part.part.rows.count
        self._worked += tally
        self._report.sources[batch_part.batch.source].extracted += tally.read

    def update(self, *, is_over: bool = False) -> None:
        """Update the sections. `is_over`: the run has ended, so this is the last update."""
        self._is_over = self._is_over or is_over
        for number, source in enumerate(self._report.sources):
            source.found, source.is_complete = self._scheduler.inputs_of(number)
            expected = self._scheduler.expected_of(number)
            has_total = expected is not None and expected.is_complete
            source.expected = expected.files if expected is not None and has_total else None
            source.traffic = self._scheduler.traffic_of(number)
            source.update_state(is_over=self._is_over, limit=self._job.limit)

    def stages(self, engine: Engine | None) -> StageProgress:
        """Return the progress of each stage. `engine` is None before it has started."""
        self.update()
        lanes = len(engine.lanes) if engine else 0
        return StageProgress(self._worked, self._report.sources, self._scheduler.waiting, lanes)


def _name_format_key(part: Part) -> None:
    """Let the failures of a part name the key `format` in the place of the option of `run`."""

    def worded(failure: Failure) -> Failure:
        return replace(failure, message=with_format_key(failure.message))

    part.errors = {at: worded(failure) for at, failure in part.errors.items()}
    part.rejections = [(at, worded(failure)) for at, failure in part.rejections]


_FINISH_SECONDS = 2.0  # time for the target to finish after an early end


class Snapshot(Struct, frozen=True):
    """The progress of a run. Times are in seconds."""

    elapsed_s: float
    total: int | None  # None while the search for files goes on
    found: int
    tally: Tally
    batches: int
    in_flight: int
    memory_bytes: int
    worker_memory_bytes: int
    # the progress of each stage and source, if the run reports them
    stages: StageProgress | None = None
    crew: ClusterStatus | None = None  # the cluster that does the work
    expected: InputCount | None = None  # the number of inputs, also of those not yet found
    bytes_in_progress: int = 0  # read of files that are not finished
    slow: tuple[LongFile, ...] = ()  # the files that take long at this moment
    is_watching: bool = False  # whether the run waits for more files, without an end
    last_file_at: float | None = None  # if it does: the time of the last outcome, since 1970

    @property
    def bytes_read(self) -> int:
        """The bytes that were read, also of files that are not finished."""
        tally = self.tally if self.stages is None else self.stages.processed
        return tally.bytes + self.bytes_in_progress


class Run:
    """Runs a job once: iterate over `parts`. `report` is live, and final after `parts` ends."""

    def __init__(
        self,
        job: Job,
        *,
        launch: Launch | None = None,
        work: Callable[[Any], Work] | None = None,
        failure_limit: float = MAX_LISTED_FAILURES,
        reached: Callable[[str], Position | None] | None = None,
        watched: bool = False,
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - the default ignores notes
        count_after: float | None = None,
    ) -> None:
        """Prepare the run.

        `reached` returns the position at which a split file resumes, in place of the ledger of the
        job. With `watched`, the report and snapshots have sections for each source, and the sink.
        `say` is called with notes for the user. `count_after` seconds, snapshots begin to count the
        inputs ahead; None: never.
        """
        if job.dask is not None:
            from asyncbatch.workers.dask.job import with_cluster_sizes

            job = with_cluster_sizes(job)
        self.report: Report = Report(failure_limit, target=job.target.name if job.target else None)
        self._has_new_target = job.target is not None and job.target.is_absent
        self._job = job
        self._make_work = partial(work, job.settings) if work else make_task(job)
        self._delivery = Delivery(job)
        self._started_at = time.perf_counter()
        self._scheduler = Scheduler(job, self._delivery, launch, reached)
        self._report_updater = ReportUpdater(job, self._scheduler, self.report) if watched else None
        self._say, self._count_after = say, count_after
        self._engine: Engine | None = None
        self._cluster: DaskEngine | None = None
        self._crashes = CrashPolicy(job.timeout)
        self._file_timer = FileTimer()
        self._done: Counter[tuple[int, int]] = Counter()
        # By the key of the batch: the records of its unfinished file that are already reported.
        self._reported_records: Counter[tuple[int, int]] = Counter()
        self._split_files: dict[tuple[int, int], SplitFile] = {}
        self._batches = 0
        self._stopped = False
        self._finished_files: FinishedFiles | None = None  # of a run that watches folders
        self._last_file_at: float | None = None  # in such a run, the time of the last outcome

    async def deliver(self, take: Callable[[BatchPart], Awaitable[None]]) -> None:
        """Run the job, and hand each part to `take`. Raises the exceptions of `parts`."""
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                await take(part)

    def stop(self) -> None:
        """Read no more input; `parts` ends when the work in flight is done."""
        self._stopped = self.report.interrupted = True
        self._scheduler.batches.stop()

    def snapshot(self) -> Snapshot:
        """Return the progress of the run; update the time and memory in the report."""
        ours, workers = (
            measure_memory(),
            sum_memory(self._engine.pids if self._engine else ()),
        )
        report = self.report
        if self._engine:
            report.workers = max(report.workers or 0, len(self._engine.pids))
        files = self._engine.files_in_progress() if self._engine else ()
        if self._cluster is not None:
            report.crew = self._cluster.status
            workers = Memory(report.crew.peak_memory_bytes, report.crew.peak_memory_bytes)
        report.memory_bytes = ours.current + workers.current
        report.peak_memory_bytes = max(report.peak_memory_bytes, ours.peak + workers.peak)
        report.elapsed_s = time.perf_counter() - self._started_at
        if self._count_after is not None and report.elapsed_s >= self._count_after:
            self._scheduler.count_ahead()
        return Snapshot(
            report.elapsed_s,
            self._scheduler.total,
            self._scheduler.found,
            report.tally,
            self._batches,
            self._scheduler.batches.unsettled,
            ours.current,
            workers.current,
            self._report_updater.stages(self._engine) if self._report_updater else None,
            report.crew,
            self._scheduler.expected,
            sum(file.bytes for file in files),
            self._file_timer.find_long(files, time.monotonic()),
            self._job.watch is not None,
            self._last_file_at,
        )

    async def parts(self) -> AsyncGenerator[BatchPart, None]:
        """Yield the outcome of the files in parts, once their rows are written.

        Raises NothingMatchedError, UsageError; NoWorkerError if no worker can start its work;
        WorkerBugError for a defect of asyncbatch. Closing the generator ends all workers. The loss
        of the target ends the run early; the report has the reason.
        """
        launch = await self._scheduler.get_launch()
        if self._job.watch is not None:
            from asyncbatch.pipeline.finished_files import FinishedFiles

            watched = cast("dict[int, WatchedSearch]", launch.searches)
            self._finished_files = FinishedFiles(self._job.watch, watched, self._say)
        ordered = self._delivery.order is not None
        async with (
            make_engine(
                self._job, launch, self._make_work, ordered=ordered, log=self._say
            ) as engine,
            self._scheduler as scheduler,
        ):
            self._engine = engine
            if self._job.dask is not None:
                self._cluster = cast("DaskEngine", engine)
                scheduler.set_max_splits_ahead(len(engine.lanes))
            if await scheduler.has_input():
                async with aclosing(self._deliver_parts(engine)) as delivered:
                    async for found in delivered:
                        yield found
            self.snapshot()  # measures the memory of the workers before they end
        self.report.elapsed_s = time.perf_counter() - self._started_at
        if not self._stopped:
            self._scheduler.check()

    async def _deliver_parts(self, engine: Engine) -> AsyncGenerator[BatchPart, None]:
        """Yield delivered parts; finish the target at the end."""
        delivery, order, ended = self._delivery, self._delivery.order, False
        await delivery.open()
        report = self.report
        report.notes += delivery.take_notes()
        cluster = self._cluster
        lanes: Sequence[Lane] = cluster.all_lanes if cluster else engine.lanes
        if delivery.admission:
            from asyncbatch.pipeline.resume.admission import AdmittedLane

            lanes = [AdmittedLane(lane) for lane in lanes]
        if order:
            lanes = [OrderedLane(lane, order) for lane in lanes]
        batches: AsyncIterator[Batch] = self._scheduler.batches
        if cluster:
            lanes = [cluster.limiter.wrap_lane(lane) for lane in lanes]
            batches = cluster.limiter.admit(batches)
        try:
            launch = await self._scheduler.get_launch()
            await delivery.prune(launch)
            async with (
                aclosing(
                    bounded_map(lanes, batches, self._note_result, len(engine.lanes))
                ) as results,
                aclosing(with_pauses(results, lambda: delivery.wait_seconds)) as timely,
            ):
                async for result in timely:
                    if result is not None:
                        async for found in delivery.deliver(result):
                            yield self._add_to_report(found)
                    if delivery.is_late:
                        async for found in delivery.flush():
                            yield self._add_to_report(found)
                    await self._follow_files(launch)
            async for found in delivery.flush():
                yield self._add_to_report(found)
            await self._follow_files(launch)
            ended = True
        except SinkError as error:
            self._lose_target(error)
        except UsageError:
            delivery.discard_outputs()
            raise
        finally:
            self._check_budget(final=True)
            await self._finish(ended=ended)

    async def _finish(self, *, ended: bool) -> None:
        self.report.tally.retries += self._delivery.retrier.take_retry_count()
        self.report.add_retries(self._scheduler.retries())
        self.report.notes += self._scheduler.take_notes()
        if self._report_updater:
            self._report_updater.update(is_over=True)
        report, stopped = self.report, self._stopped or self.report.over_budget
        ended = ended and self._scheduler.may_be_empty
        succeeded = ended and not stopped and (bool(self._job.budget) or not report.tally.failures)
        if not ended or stopped:
            self._delivery.abandon()
        finishing = asyncio.create_task(
            self._delivery.finish(succeeded=succeeded, ended=ended and not stopped)
        )
        # The pages of a table that is replaced are all read again.
        can_resume = bool(self._job.ledger) and not self._job.has_feeds
        try:
            # After an early end, do not wait for a thread that hangs in a write to the target.
            await asyncio.wait_for(asyncio.shield(finishing), None if ended else _FINISH_SECONDS)
        except asyncio.CancelledError:  # an upload to a slow store may be in progress
            if self._delivery.abandon():
                await asyncio.wait((finishing,), timeout=_FINISH_SECONDS)
            raise
        except SinkError as error:
            self._lose_target(error)
            if self._job.target and not self._job.target.keeps_loads:
                report.discard(succeeded=False, can_resume=can_resume, is_new=self._has_new_target)
        except TimeoutError:
            finishing.cancel()
        else:
            if not finishing.result():
                report.discard(
                    succeeded=succeeded, can_resume=can_resume, is_new=self._has_new_target
                )
            report.tally.written += self._delivery.written_at_end
        report.tally.deleted += self._delivery.deleted
        # After a cancellation, the parts of the last records were never yielded.
        report.tally.written = max(report.tally.written, self._delivery.loaded_by_program)
        report.add_missing_names()
        report.notes += self._delivery.take_notes()
        report.notes += (await self._scheduler.get_launch()).notes()

    def _lose_target(self, error: SinkError) -> None:
        """Note that the run ended because the target was lost."""
        self._scheduler.batches.stop()
        self.report.lose_target(str(error), error.file)

    def _note_result(self, result: BatchPart | BatchEnd) -> Iterator[BatchPart | SettledInputs]:
        """Settle a result of a lane, which then takes its next batch.

        Yields the result for the delivery, or the parts of a batch whose worker died.
        """
        if isinstance(result, BatchPart):
            batch, part = result.batch, result.part
            if self._job.has_format_key:
                _name_format_key(part)
            if self._report_updater:
                self._report_updater.add(result)
            self._scheduler.count(batch.source, part)
            if part.split_file is not None:
                self._split_files[batch.key] = part.split_file
                return
            if batch.split is not None and part.errors and not part.rejected:
                self._scheduler.batches.end_splits(batch.start)
            self._done[batch.key] += len(part)
            if len(part):
                self._reported_records.pop(batch.key, None)
            elif part.counts is not None:
                self._reported_records[batch.key] += part.counts.read
            yield result
            return
        end, batch = result, result.batch
        done = self._done.pop(batch.key, 0)
        self._batches += 1
        split_file = self._split_files.pop(batch.key, None)
        handed_on = self._reported_records.pop(batch.key, None)
        if end.loss is None:
            self._crashes.note_success()
            self._scheduler.batches.settle(batch, done, split_file=split_file)
        elif batch.split is not None:
            decision = self._crashes.decide(batch, done, end.loss)
            failure = decision.failure or self._crashes.crash_failure(batch, batch.start, end.loss)
            done = 1
            self._scheduler.batches.end_splits(batch.start)
            yield BatchPart(batch, prepared_part(batch.start, done, {0: failure}, {}))
            self._scheduler.batches.settle(batch, done)
        yield SettledInputs(batch, done)
        if end.loss is not None and batch.split is None:
            yield from self._after_loss(batch, done, end.loss, handed_on)

    def _after_loss(
        self, batch: Batch, done: int, loss: Loss, reported: int | None
    ) -> Iterator[BatchPart | SettledInputs]:
        """Retry the rest of a batch; yield the failure of the file that killed its worker.

        `reported` records of the first unfinished file were reported; None if it was not begun.
        """
        decision = self._crashes.decide(batch, done, loss)
        if reported is not None:  # reported records cannot be withdrawn, so the file is not retried
            blame = self._crashes.crash_failure(batch, batch.start + done, loss)
            decision = Decision(batch.start + done, with_record_count(blame, reported))
        file = decision.file
        if file is None:
            self._scheduler.batches.settle(batch, done, halve=decision.halve)
            return
        self._scheduler.batches.settle_without(batch, done, file, retry=decision.failure is None)
        path = batch.paths[file - batch.start]
        self._delivery.remove_unfinished(path)
        if (failure := decision.failure) is not None:
            alone = Batch(file, (path,))
            seconds = (self._job.timeout or 0.0) if failure.kind == "timeout" else 0.0
            part = prepared_part(file, 1, {0: failure}, {})
            part.elapsed_ms = [seconds * 1000]
            yield BatchPart(alone, part)
            yield SettledInputs(alone, 1)

    async def _follow_files(self, launch: Launch) -> None:
        """Move or delete the files of watched folders whose outcome is saved; follow gone ones."""
        finished = self._finished_files
        if finished is not None and finished.has_files and self._delivery.is_saved:
            await asyncio.to_thread(self._delivery.put_away, finished)
        if finished is not None:
            await self._delivery.prune_watched(launch)

    def _add_to_report(self, batch_part: BatchPart) -> BatchPart:
        self.report.add(batch_part)
        if self._finished_files is not None:
            self._finished_files.add(batch_part)
            self._last_file_at = time.time()
        self._check_budget(final=False)
        return batch_part

    def _check_budget(self, *, final: bool) -> None:
        """Stop once the failure budget is spent."""
        budget, tally = self._job.budget, self.report.tally
        if budget and budget.is_spent(tally.failures, tally.seen, final=final):
            self.report.over_budget = True
            self._scheduler.batches.stop()
