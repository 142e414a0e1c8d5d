"""Transforms of a stream in worker processes, since user code may crash or block a process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.core.progress import Progress
from asyncbatch.core.records import Failure, display_path
from asyncbatch.errors import NoWorkerError
from asyncbatch.formats.positions import BOM
from asyncbatch.pipeline.stream.pools import MAX_BYTES_AHEAD, TransformPool
from asyncbatch.sinks.dead_letters import record_dead_letter
from asyncbatch.transforms.chain import make_chain
from asyncbatch.windows.aggregates import AggregateSet
from asyncbatch.workers.engine import WorkerLostError
from asyncbatch.workers.process import WorkerProcess, kill_overdue
from asyncbatch.workers.tasks.event_reader import EventBlock, EventReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.core.records import FailureKind
    from asyncbatch.pipeline.stream.pools import TransformJob
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.workers.engine import Loss
    from asyncbatch.workers.tasks.fold import LineRange

_PIECE_SECONDS = 0.02  # intended time of one piece: the results of later pieces wait for it
_FIRST_BYTES, _MIN_BYTES, _MAX_BYTES = (
    512,
    256,
    256 * 1024,
)  # Bytes that go together: at first, at least, at most.
_PIECES_AHEAD = 50  # pieces that may wait for each worker: one second of work
_JOBS_PER_WORKER = 4  # beyond this number of waiting jobs for each worker, another one is started
_MAX_FAILED_STARTS = 8  # workers in a row that may die before they begin to work


class _PieceStep(NamedTuple):
    """A piece to read, or an event to reject."""

    piece: LineRange
    is_suspect: bool = False  # whether it is the single event at which a worker died
    loss: Loss | None = None  # the reason to reject the event instead of reading it


class ProcessTransforms(TransformPool):
    """Reads lines in workers, and starts more, up to `count`, when they are needed.

    If a worker dies at an event, another worker reads the other events of the piece. The event is
    retried once, alone, and then rejected. An event that exceeds `timeout` seconds is rejected at
    once.
    """

    def __init__(
        self,
        stream: StreamCore,
        wake: Callable[[], None],
        *,
        count: int,
        timeout: float | None = None,
    ) -> None:
        super().__init__(stream, wake)
        self.size = _FIRST_BYTES
        self._count, self._timeout = count, timeout
        self._settings = stream.settings
        self._make_task: Callable[[], Any] = partial(
            EventTransformTask, stream.settings, keeps_texts=stream.keeps_texts
        )
        self._workers: list[WorkerProcess] = []
        self._idle: list[WorkerProcess] = []
        self._queue: deque[TransformJob] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timeout_watch = (
            None if timeout is None else asyncio.create_task(kill_overdue(self._workers, timeout))
        )
        self._failed_starts = 0

    @property
    def max_bytes_ahead(self) -> int:  # type: ignore[override]  # it changes
        return min(MAX_BYTES_AHEAD, _PIECES_AHEAD * self.size * self._count)

    @property
    def pids(self) -> Sequence[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def close(self) -> None:
        """End the workers."""
        tasks: list[asyncio.Task[None]] = [
            *self._tasks,
            *([self._timeout_watch] if self._timeout_watch else []),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._workers:
            worker.kill()
        self._discard_results()

    def _schedule(self, job: TransformJob) -> None:
        self._queue.append(job)
        self._dispatch()

    def _cancel(self, job: TransformJob) -> None:
        self._queue.remove(job)

    def _dispatch(self) -> None:
        """Send waiting jobs to idle workers."""
        workers = self._workers
        while self._queue:
            is_much = len(self._queue) > _JOBS_PER_WORKER * len(workers)
            if not self._idle and is_much and len(workers) < self._count:
                worker = WorkerProcess(self._make_task)
                workers.append(worker)
                self._idle.append(worker)
            if not self._idle:
                return
            job = self._queue.popleft()
            job.is_started = True
            task = asyncio.create_task(self._run_job(self._idle.pop(), job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_job(self, worker: WorkerProcess, job: TransformJob) -> None:
        try:
            blocks = await self._read(worker, job.piece)
        except Exception as error:  # noqa: BLE001 - raised when the result is taken
            if not job.result.done():
                job.result.set_exception(error)
        else:
            if not job.result.done():
                job.result.set_result(blocks)
        self._idle.append(worker)
        self._dispatch()
        self._wake()

    async def _read(self, worker: WorkerProcess, piece: LineRange) -> list[EventBlock]:
        """Read a piece, even if workers die at it. Raises AsyncbatchError."""
        blocks: list[EventBlock] = []
        todo = deque([_PieceStep(piece)])
        while todo:
            step = todo.popleft()
            if step.loss is not None:
                blocks.append(self._reject_event(step.piece, step.loss))
                continue
            try:
                blocks += await self._request(worker, step.piece)
                self._failed_starts = 0
            except WorkerLostError as error:
                todo.extendleft(reversed(self._decide(step, error.loss)))
        return blocks

    def _decide(self, step: _PieceStep, loss: Loss) -> list[_PieceStep]:
        """Return the steps to take after the loss of a worker. Raises NoWorkerError."""
        if not loss.in_batch or loss.file is None:
            self._failed_starts += 1
            if self._failed_starts == _MAX_FAILED_STARTS:
                raise NoWorkerError(
                    f"{_MAX_FAILED_STARTS} worker processes in a row ended before they began to "
                    f"work; the last {loss.description}"
                )
            return [step]
        self._failed_starts = 0
        before, one, behind = step.piece.split_at_line(loss.file)
        is_guilty = step.is_suspect or loss.timed_out
        steps = [_PieceStep(before), _PieceStep(one, not is_guilty, loss if is_guilty else None)]
        return [some for some in (*steps, _PieceStep(behind)) if some.piece.lines]

    def _reject_event(self, piece: LineRange, loss: Loss) -> EventBlock:
        """Return a block that rejects the event at which a worker was lost."""
        place = piece.end
        kind: FailureKind = "timeout" if loss.timed_out else "worker_crash"
        message = f"its worker process {loss.description} while at this event"
        if loss.timed_out:
            message = f"took longer than {self._timeout:g} s (--timeout)"
        failure = Failure(display_path(piece.file), kind, message, place.record, place.line)
        text = piece.lines.rstrip(b"\n").removeprefix(BOM)
        dead_letter = record_dead_letter(failure, text) if self._settings.letters else b""
        return EventBlock(1, rejected=[(failure, dead_letter)])

    async def _request(self, worker: WorkerProcess, piece: LineRange) -> list[EventBlock]:
        """Send a piece to a worker. Raises WorkerLostError, AsyncbatchError."""
        batch: Any = piece  # the task of the worker defines the type of a batch
        replies: list[Any] = [reply async for reply in worker.run(batch)]
        blocks, seconds = replies[0]
        fitting = int(len(piece.lines) * _PIECE_SECONDS / max(seconds, 1e-6))
        # In steps: a slow piece may only have waited for the processor.
        fitting = max(self.size // 2, min(self.size * 4, fitting))
        self.size = max(_MIN_BYTES, min(_MAX_BYTES, fitting))
        found: list[EventBlock] = blocks
        return found


class EventTransformTask:
    """Reads pieces of lines in a worker process, and measures the time."""

    def __init__(self, settings: StreamSettings, *, keeps_texts: bool) -> None:
        chain = make_chain(settings.transforms)
        self._reader = EventReader(
            settings, AggregateSet(settings.aggregates), "", lambda: time.time_ns() // 1000,
            chain=chain, keeps_texts=keeps_texts,
        )  # fmt: skip
        self.progress = Progress()  # as that of `CountTask`, but counts lines instead of files

    def __call__(self, piece: LineRange) -> Iterator[tuple[list[EventBlock], float]]:
        """Yield the blocks of a piece, and the seconds that reading took."""
        began, reader = time.perf_counter(), self._reader
        reader.progress = self.progress
        reader.begin_file(piece.file, piece.start)
        blocks = list(reader.read(piece.lines))
        yield blocks, time.perf_counter() - began
