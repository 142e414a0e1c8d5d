"""The lines of a stream in the lanes of an engine, and their outcomes in order."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack, nullcontext, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from asyncbatch.core.records import Failure, Position
from asyncbatch.core.system import usable_cpus
from asyncbatch.errors import NoWorkerError
from asyncbatch.formats.lines import cut_lines
from asyncbatch.transforms.spec import FunctionSpec
from asyncbatch.workers.crashes import CrashPolicy
from asyncbatch.workers.engine import LANES_PER_WORKER, WorkerLostError
from asyncbatch.workers.local import LoopEngine
from asyncbatch.workers.process import process_engine
from asyncbatch.workers.spawn import choose_workers
from asyncbatch.workers.tasks.events import EventsTask, FoldTask, LineBatch, position_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.windows.events import Window
    from asyncbatch.workers.engine import Engine, Lane, Loss
    from asyncbatch.workers.spawn import WorkerHandle
    from asyncbatch.workers.tasks.events import EventsPart

_MAX_JOBS = 1024  # jobs in a pool, with and without an outcome
_LINES_PER_JOB = 1 << 32  # more than a job can have: their numbers differ


class _Job:
    """Lines of a source, and their outcome: a part, a failure of the only event, or an error."""

    def __init__(self, source: str, file: str, number: int, position: Position) -> None:
        self.source, self._file, self._number, self._position = source, file, number, position
        self.end = position
        self.size = 0
        self.pieces: list[bytes] = []
        self.is_sealed = False  # until then, lines may be added
        self.outcome: EventsPart | Failure | Exception | None = None

    def takes(self, file: str, size: int) -> bool:
        """Whether lines of a file can be added, if the job may have `size` bytes before."""
        return self._file == file and self.size <= size and not self.is_sealed

    def add(self, lines: bytes, end: Position) -> None:
        """Append lines, which end at a position of the file."""
        self.pieces.append(lines)
        self.size += len(lines)
        self.end = end

    @property
    def batch(self) -> LineBatch:
        """The lines as a batch."""
        return LineBatch(self._number, self._file, self._position, self.pieces)


class LinePool:
    """Sends the lines of a stream to the lanes of an engine. The stream takes outcomes in order.

    Call `start` first. `wake` is called when there is an outcome. If a worker dies, the policy of
    runs decides about the lines: an event is retried once, alone, and then rejected. An event that
    exceeds `timeout` seconds is rejected at once.
    """

    size = 4 * 1024  # bytes of a job, at most
    least = 0  # bytes of a job that is sent before the stream waits for it
    # Bytes that may be read ahead: hundreds of events, enough for concurrent calls. Few for slow
    # transforms, since a stop waits for them.
    max_bytes_ahead = 64 * 1024
    is_ready = True  # whether all its workers have started, if that matters

    def __init__(
        self,
        stream: StreamCore,
        engine: AbstractAsyncContextManager[Engine],
        wake: Callable[[], None],
        timeout: float | None = None,
    ) -> None:
        self._stream, self._starting, self._wake = stream, engine, wake
        self._stack = AsyncExitStack()
        self._engine: Engine = LoopEngine(())
        self._crashes = CrashPolicy(timeout)
        self._jobs: list[_Job] = []
        self._waiting: deque[_Job] = deque()  # the jobs that wait for a lane
        self._idle: deque[Lane] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._bytes = 0
        self._numbers = count(0, _LINES_PER_JOB)

    async def start(self) -> None:
        """Start the engine. Raises OSError."""
        self._engine = await self._stack.enter_async_context(self._starting)
        self._idle.extend(self._engine.lanes)

    async def close(self) -> None:
        """Cancel all jobs, and end the engine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    @property
    def pids(self) -> Sequence[int]:
        """The process ids of the workers; empty without workers."""
        return self._engine.pids

    @property
    def is_busy(self) -> bool:
        """Whether there are lines whose outcome was not taken."""
        return bool(self._jobs)

    @property
    def has_unsent(self) -> bool:
        """Whether the next job waits for more lines."""
        if not self._waiting or self._waiting[0].is_sealed or not self.least:
            return False
        size = self._waiting[0].size
        return size < self.least and sum(job.size for job in self._waiting) < 2 * self.least

    @property
    def has_result(self) -> bool:
        """Whether to take an outcome before more lines are sent."""
        jobs = self._jobs
        is_much = self._bytes > self.max_bytes_ahead or len(jobs) > _MAX_JOBS
        return bool(jobs) and (jobs[0].outcome is not None or is_much)

    def send(self, source: str, file: str, lines: bytes) -> None:
        """Schedule the lines of a source, in a new job or in its last one."""
        for piece in cut_lines(lines, self.size):
            job = next((one for one in reversed(self._jobs) if one.source == source), None)
            if job is None or not job.takes(file, self.size - len(piece)):
                end = self._stream.reader(source).state[0] if job is None else job.end
                job = _Job(source, file, next(self._numbers), end)
                self._jobs.append(job)
                self._waiting.append(job)
            job.add(piece, self._after(piece, job.end))
            self._bytes += len(piece)
            self.dispatch()

    async def take(self) -> list[Window]:
        """Pass the next outcome to the stream; return the windows that it closes."""
        while (job := self._jobs[0]).outcome is None:
            self._changed.clear()
            self.dispatch(flush=not job.is_sealed)
            if job.outcome is None:
                await self._changed.wait()
        if isinstance(job.outcome, Exception):
            raise job.outcome
        self._stream.mark_active(waiting.source for waiting in self._jobs)
        del self._jobs[0]
        self._bytes -= job.size
        if isinstance(job.outcome, Failure):
            return self._stream.reject_event(job.source, job.batch.lines, job.outcome)
        return self._stream.take_part(job.source, job.pieces, job.outcome, job.end)

    def give_back(self) -> Sequence[tuple[str, bytes]]:
        """Cancel the jobs that have not started; return their sources and lines, last one first."""
        given_back = []
        while self._jobs and not self._jobs[-1].is_sealed:
            job = self._jobs.pop()
            self._waiting.remove(job)
            self._bytes -= job.size
            given_back.append((job.source, job.batch.lines))
        return given_back

    def dispatch(self, *, flush: bool = False) -> None:
        """Send waiting jobs to idle lanes. `flush`: also those that wait for more lines."""
        waiting = self._waiting
        while waiting and (flush or not self.has_unsent):
            if (lane := self._next_lane()) is not None:
                job = waiting.popleft()
                job.is_sealed = True
                self._keep(self._run(lane, job))
            elif not self._run_here(waiting[0]):
                return

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work in a task, which `close` cancels."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next_lane(self) -> Lane | None:
        """Return a lane for the next job, None if it must wait."""
        return self._idle.popleft() if self._idle else None

    def _run_here(self, job: _Job) -> bool:  # noqa: ARG002 - for overriding
        """Do the first waiting job in this process, if that is faster; return whether it was."""
        return False

    async def _run(self, lane: Lane, job: _Job) -> None:
        """Run a job in a lane, which can then take the next job."""
        batch: Any = job.batch  # the task of the lane defines the types of batches and parts
        parts: AsyncIterator[Any] = lane.run(batch)
        is_free = False
        try:
            async for part in parts:
                if part is None:  # its calls have started
                    is_free = True
                    self._free(lane)
                else:
                    job.outcome = self._note(job, part)
        except WorkerLostError as lost:
            if job.outcome is None:
                self._after_loss(job, lost.loss)
        except Exception as error:  # noqa: BLE001 - raised when the outcome is taken
            job.outcome = error
        else:
            self._crashes.note_success()
        if not is_free:
            self._free(lane)
        self._changed.set()
        self._wake()

    def _free(self, lane: Lane) -> None:
        self._idle.append(lane)
        self.dispatch()

    def _note(self, job: _Job, part: Any) -> EventsPart:  # noqa: ARG002 - for overriding
        """Return the part of a job as its outcome."""
        outcome: EventsPart = part
        return outcome

    def _after_loss(self, job: _Job, loss: Loss) -> None:
        """Replace the job whose worker died by jobs that retry its events or reject one."""
        batch = job.batch
        try:
            decision = self._crashes.decide(batch, 0, loss)
        except NoWorkerError as error:
            job.outcome = error
            return
        number, place = decision.file, self._jobs.index(job)
        batches: Iterable[LineBatch] = (batch,)
        if number is not None:
            batches = batch.split_at(number)
        elif decision.halve:
            batches = batch.halves()
        jobs = []
        for one in batches:
            if one.lines:
                again = _Job(job.source, one.file, one.start, one.position)
                again.add(one.lines, self._after(one.lines, one.position))
                again.is_sealed = True
                again.outcome = decision.failure if one.start == number else None
                jobs.append(again)
        self._jobs[place : place + 1] = jobs
        self._waiting.extendleft(one for one in reversed(jobs) if one.outcome is None)

    def _after(self, lines: bytes, at: Position) -> Position:
        """Return the position after lines that begin at a position."""
        return position_after(lines, at)


_PIECE_SECONDS = 0.02  # intended time of one job: the outcomes of later jobs wait for it
# bytes of a job: at first, at least, at most
_FIRST_BYTES, _MIN_BYTES, _MAX_BYTES = 512, 256, 256 * 1024
_MAX_BYTES_AHEAD = 4 * 1024 * 1024
_JOBS_AHEAD = 50  # jobs that may wait for each worker: one second of work
_JOBS_PER_WORKER = 4  # beyond this number of waiting jobs for each worker, another one is started


class TransformPool(LinePool):
    """A pool that starts workers when they are needed. The size of a job follows its time."""

    size: int = _FIRST_BYTES

    @property
    def max_bytes_ahead(self) -> int:  # type: ignore[override]  # it changes
        return min(_MAX_BYTES_AHEAD, _JOBS_AHEAD * self.size * len(self._engine.lanes))

    async def start(self) -> None:
        await super().start()
        self._unused, self._idle = self._idle, deque()

    def _next_lane(self) -> Lane | None:
        used = len(self._engine.lanes) - len(self._unused)
        if self._unused and not self._idle and len(self._waiting) > _JOBS_PER_WORKER * used:
            return self._unused.popleft()
        return super()._next_lane()

    def _note(self, job: _Job, part: Any) -> EventsPart:
        outcome = super()._note(job, part)
        fitting = int(job.size * _PIECE_SECONDS / max(outcome.seconds, 1e-6))
        # In steps: a slow job may only have waited for the processor.
        fitting = max(self.size // 2, min(self.size * 4, fitting))
        self.size = max(_MIN_BYTES, min(_MAX_BYTES, fitting))
        return outcome


class FoldPool(LinePool):
    """A pool that folds lines into windows. While all workers are busy, this process folds too."""

    least = 512 * 1024  # a message to a worker costs 0.2 ms
    size: int = 2 * least
    max_bytes_ahead: int = 16 * least
    is_ready: bool = False  # until then, folding in this process is faster

    async def start(self) -> None:
        await super().start()
        self._work = FoldTask(self._stream.settings)
        lanes, self._idle = self._engine.lanes, deque()
        self._cold = len(lanes) // LANES_PER_WORKER
        for lane in lanes[: self._cold]:
            self._keep(self._warm_up(lane))

    async def _warm_up(self, lane: Lane) -> None:
        nothing: Any = LineBatch(0, "", Position(), ())
        with suppress(WorkerLostError, OSError):  # the first job will report it
            async for _ in lane.run(nothing):
                pass
        self._cold -= 1
        self.is_ready = not self._cold
        self._idle.extend([lane] * LANES_PER_WORKER)

    def _run_here(self, job: _Job) -> bool:
        if job.is_sealed:  # it killed a worker
            return False
        self._waiting.popleft().is_sealed = True
        try:
            job.outcome = next(self._work(job.batch))
        except Exception as error:  # noqa: BLE001 - raised when the outcome is taken
            job.outcome = error
        return True

    def give_back(self) -> Sequence[tuple[str, bytes]]:
        self.dispatch(flush=True)
        return ()

    def _after(self, lines: bytes, at: Position) -> Position:  # noqa: ARG002 - the stream counts
        return at


def count_workers(stream: StreamCore, wanted: int | None, timeout: float | None) -> int:
    """Return the number of worker processes of a stream; `wanted` is the user's number."""
    transforms, cpus = stream.settings.transforms, usable_cpus()
    if not transforms:
        return choose_workers(wanted, cpus - 1)
    must_stay = stream.runs_async or any(isinstance(one, FunctionSpec) for one in transforms)
    return choose_workers(wanted, cpus, needs_process=timeout is not None, must_stay=must_stay)


def make_pool(
    stream: StreamCore,
    wake: Callable[[], None],
    handles: Sequence[WorkerHandle | None],
    *,
    call_concurrency: int,
    timeout: float | None,
) -> LinePool:
    """Return the pool for a stream that has async transforms, or workers.

    A worker without a handle is started by the pool.
    """
    settings = stream.settings
    if stream.runs_async:
        from asyncbatch.workers.tasks.events_async import AsyncEventsLane

        lane: Any = AsyncEventsLane(
            settings, stream.new_reader(), stream.stages, call_concurrency, timeout
        )
        return LinePool(stream, nullcontext(LoopEngine([lane])), wake)
    if not settings.transforms:
        fold: Any = partial(FoldTask, settings)
        lanes = len(handles) * LANES_PER_WORKER
        engine = process_engine(fold, handles, lanes, slot_bytes=FoldPool.size)
        return FoldPool(stream, engine, wake)
    transform: Any = partial(EventsTask, settings, keeps_texts=stream.keeps_texts)
    engine = process_engine(transform, handles, len(handles), file_timeout=timeout)
    return TransformPool(stream, engine, wake, timeout)
