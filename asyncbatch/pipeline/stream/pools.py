"""Pools of a stream: they fold events into windows, or transform them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.workers.engine import WorkerLostError
from asyncbatch.workers.process import WorkerProcess
from asyncbatch.workers.spawn import spawn
from asyncbatch.workers.tasks.fold import LineRange, fold_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.records import Position
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.windows.events import PartialWindows, Window
    from asyncbatch.workers.tasks.event_reader import EventBlock

    Result = PartialWindows | EventBlock | None

MAX_BYTES_AHEAD = 4 * 1024 * 1024
_MAX_JOBS = 1024  # jobs in a pool, with and without a result


class TransformJob:
    """A piece of the lines of a source, and a future with its result."""

    def __init__(self, source: str, piece: LineRange) -> None:
        self.source, self.piece, self.end_position = source, piece, piece.end
        self.is_started = False
        self.result: asyncio.Future[list[EventBlock]] = asyncio.get_running_loop().create_future()

    def add(self, piece: LineRange) -> None:
        """Append the next lines to the piece."""
        ours = self.piece
        self.piece = LineRange(ours.file, ours.start, ours.lines + piece.lines)
        self.end_position = piece.end


class TransformPool(ABC):
    """A pool that transforms lines in parallel. The stream takes the results in order.

    `wake` is called when there is a result.
    """

    size: int  # intended bytes of one piece
    # Bytes that may be read ahead. Fewer for slow transforms, since a stop waits for them.
    max_bytes_ahead = MAX_BYTES_AHEAD

    def __init__(self, stream: StreamCore, wake: Callable[[], None]) -> None:
        self._stream, self._wake = stream, wake
        self._jobs: deque[TransformJob] = deque()
        self._bytes = 0

    @property
    def pids(self) -> Sequence[int]:
        """The process ids of the workers; empty without workers."""
        return ()

    def send(self, source: str, file: str, lines: bytes) -> None:
        """Schedule the lines of a source, in a new job or together with an earlier one."""
        if not lines:
            return
        self._bytes += len(lines)
        for piece in LineRange(file, self._next_position(source), lines).split_by_size(self.size):
            last = self._jobs[-1] if self._jobs else None
            if (
                last is not None
                and not last.is_started
                and (last.source, last.piece.file) == (source, file)
                and len(last.piece.lines) + len(piece.lines) <= self.size
            ):
                last.add(piece)
                continue
            job = TransformJob(source, piece)
            self._jobs.append(job)
            self._schedule(job)

    @property
    def has_result(self) -> bool:
        """Whether to take a result before more lines are sent."""
        jobs = self._jobs
        is_much = self._bytes > self.max_bytes_ahead or len(jobs) > _MAX_JOBS
        return bool(jobs) and (jobs[0].result.done() or is_much)

    @property
    def is_busy(self) -> bool:
        """Whether there are lines whose result was not taken."""
        return bool(self._jobs)

    async def take(self) -> list[Window]:
        """Pass the next result to the stream; return the windows that it closes."""
        job = self._jobs[0]
        blocks = await job.result
        self._stream.mark_active(waiting.source for waiting in self._jobs)
        self._jobs.popleft()
        self._bytes -= len(job.piece.lines)
        return self._stream.take_blocks(job.source, blocks, job.end_position)

    def give_back(self) -> Sequence[tuple[str, bytes]]:
        """Cancel the jobs that have not started; return their sources and lines, last one first."""
        given_back = []
        while self._jobs and not self._jobs[-1].is_started:
            job = self._jobs.pop()
            self._cancel(job)
            self._bytes -= len(job.piece.lines)
            given_back.append((job.source, job.piece.lines))
        return given_back

    @abstractmethod
    def _cancel(self, job: TransformJob) -> None:
        """Cancel a job that has not started."""

    @abstractmethod
    def _schedule(self, job: TransformJob) -> None:
        """Run a job when it is its turn. Until it has started, lines may be added."""

    @abstractmethod
    async def close(self) -> None:
        """Cancel all jobs."""

    def _discard_results(self) -> None:
        """Suppress the warnings of asyncio about results that were not taken."""
        for job in self._jobs:
            job.result.cancel()
            if not job.result.cancelled():
                job.result.exception()

    def _next_position(self, source: str) -> Position:
        """Return the position of the next lines of a source."""
        for job in reversed(self._jobs):
            if job.source == source:
                return job.end_position
        return self._stream.reader(source).state[0]


# Bytes of one message to a worker. It holds several pieces, since a message costs 0.2 ms.
_MESSAGE_BYTES = 512 * 1024
_QUEUED_PER_WORKER = 1  # messages that may wait for each worker, besides the one in work
# Messages in the pool. At this number, a result is taken before more lines are sent.
_MAX_WAITING_RESULTS = 16


class _FoldTask(NamedTuple):
    """Pieces of lines that are being folded, the source of each piece, and the results."""

    sources: list[str]
    pieces: list[bytes]
    results: asyncio.Future[list[Result]]


class FoldPool:
    """Folds the lines of a stream in workers. The stream takes the results in order.

    Call `start` first. While all workers are busy, it folds lines in this process. The lines of a
    worker that died are read by the stream.
    """

    def __init__(self, stream: StreamCore, count: int) -> None:
        self._stream = stream
        make_work = fold_factory(stream.settings)
        self._workers = [WorkerProcess(make_work) for _ in range(count)]
        self._next = 0
        self._starting: list[asyncio.Task[list[Result]]] = []
        self._sources: list[str] = []  # the source of each piece of lines
        self._pieces: list[bytes] = []  # lines of the next message
        self._pieces_bytes = 0
        self._tasks: deque[_FoldTask] = deque()
        self._in_flight = 0  # number of messages that the workers have
        self._fold_here = make_work()

    @property
    def pids(self) -> Sequence[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def start(self) -> None:
        """Start the workers. Raises OSError."""
        for worker in self._workers:
            await worker.connect(spawn())
        self._in_flight = len(self._workers)
        self._starting = [asyncio.create_task(self._fold(worker, [])) for worker in self._workers]

    @property
    def is_ready(self) -> bool:
        """Whether all workers have started. Until then, folding in this process is faster."""
        return all(task.done() for task in self._starting)

    def send(self, source: str, file: str, lines: bytes) -> None:  # noqa: ARG002 - as `TransformPool.send`
        """Add the lines of a source to the next message; send it if it is large enough."""
        self._sources.append(source)
        self._pieces.append(lines)
        self._pieces_bytes += len(lines)
        if self._pieces_bytes >= _MESSAGE_BYTES:
            self._submit()

    @property
    def has_result(self) -> bool:
        """Whether to take a result before more lines are sent."""
        under_way = self._tasks
        return bool(under_way) and (
            under_way[0].results.done() or len(under_way) >= _MAX_WAITING_RESULTS
        )

    @property
    def is_busy(self) -> bool:
        """Whether there are lines whose result was not taken."""
        return bool(self._tasks or self._pieces)

    async def take(self) -> list[Window]:
        """Pass the next results to the stream; return the windows that they close."""
        if not self._tasks:
            self._submit()
        task = self._tasks[0]
        results = await task.results
        self._stream.mark_active(source for waiting in self._tasks for source in waiting.sources)
        self._tasks.popleft()
        take = self._stream.take_folded
        return [
            window
            for source, lines, folded in zip(task.sources, task.pieces, results, strict=True)
            for window in take(source, lines, folded)
        ]

    def _submit(self) -> None:
        pieces, self._pieces, self._pieces_bytes = self._pieces, [], 0
        sources, self._sources = self._sources, []
        if self._in_flight >= (_QUEUED_PER_WORKER + 1) * len(self._workers):
            ours = asyncio.get_running_loop().create_future()
            ours.set_result(next(self._fold_here(pieces)))
            self._tasks.append(_FoldTask(sources, pieces, ours))
            return
        worker = self._workers[self._next]
        self._next = (self._next + 1) % len(self._workers)
        self._in_flight += 1
        theirs = asyncio.create_task(self._fold(worker, pieces))
        self._tasks.append(_FoldTask(sources, pieces, theirs))

    async def close(self) -> None:
        """End the workers."""
        tasks = [*self._starting, *(task.results for task in self._tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._workers:
            worker.kill()

    async def _fold(self, worker: WorkerProcess, pieces: list[bytes]) -> list[Result]:
        batch: Any = pieces  # the task of the worker defines the type of a batch
        try:
            replies: list[Any] = [reply async for reply in worker.run(batch)]
        except WorkerLostError:
            return [None] * len(pieces)
        finally:
            self._in_flight -= 1
        results: list[Result] = replies[0]
        return results
