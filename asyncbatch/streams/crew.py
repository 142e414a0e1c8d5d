"""Workers that put lines together, and their results in the order of the lines."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.executors.lanes import WorkerLostError
from asyncbatch.executors.process import WorkerProcess
from asyncbatch.executors.spawn import spawn
from asyncbatch.streams.folding import folding_factory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.streams.line_reader import Block
    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Folded, Window

    Result = Folded | Block | None

_TOGETHER = 512 * 1024
"""Bytes that go to a worker at a time, in pieces as they came: each time costs us 0.2 ms."""
_WAITING = 1
"""How many times as much waits for a worker while it works."""
_HELD = 16
"""Results of our own that may wait for a worker's before them."""


class _Task(NamedTuple):
    """Lines that somebody folds, the sources of each piece, and what comes of it."""

    sources: list[str]
    pieces: list[bytes]
    results: asyncio.Future[list[Result]]


class Crew:
    """Has workers fold a stream's lines, and the stream take the results in order.

    While all workers are busy it folds lines itself. What a worker that dies had is done by the
    stream.
    """

    def __init__(self, stream: Stream, count: int) -> None:
        self._stream = stream
        make_work = folding_factory(stream.settings)
        self._workers = [WorkerProcess(make_work) for _ in range(count)]
        self._next = 0
        self._starting: list[asyncio.Task[list[Result]]] = []
        self._sources: list[str] = []
        self._pieces: list[bytes] = []
        """Lines to be handed over, and the sources that each piece is from."""
        self._held = 0
        self._under_way: deque[_Task] = deque()
        self._given = 0
        """How many of these are with workers."""
        self._own = make_work()

    @property
    def pids(self) -> Sequence[int]:
        """The workers' process numbers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def start(self) -> None:
        """Start the workers. Raises OSError."""
        for worker in self._workers:
            await worker.connect(spawn())
        self._given = len(self._workers)
        self._starting = [asyncio.create_task(self._fold(worker, [])) for worker in self._workers]

    @property
    def is_ready(self) -> bool:
        """Whether all workers have begun to work; until then it is quicker to do it oneself."""
        return all(task.done() for task in self._starting)

    def send(self, source: str, file: str, lines: bytes) -> None:  # noqa: ARG002 - see `Programs`
        """Have a source's lines folded, soon or together with more."""
        self._sources.append(source)
        self._pieces.append(lines)
        self._held += len(lines)
        if self._held >= _TOGETHER:
            self._hand_over()

    @property
    def has_result(self) -> bool:
        """Whether a result is to be taken before more is sent."""
        under_way = self._under_way
        return bool(under_way) and (under_way[0].results.done() or len(under_way) >= _HELD)

    @property
    def is_busy(self) -> bool:
        """Whether something was sent whose result is not taken."""
        return bool(self._under_way or self._pieces)

    async def take(self) -> list[Window]:
        """Have the stream take the next results; return the windows that are then over."""
        if not self._under_way:
            self._hand_over()
        task = self._under_way[0]
        results = await task.results
        self._stream.hear(source for waiting in self._under_way for source in waiting.sources)
        self._under_way.popleft()
        take = self._stream.take_folded
        return [
            window
            for source, lines, folded in zip(task.sources, task.pieces, results, strict=True)
            for window in take(source, lines, folded)
        ]

    def _hand_over(self) -> None:
        pieces, self._pieces, self._held = self._pieces, [], 0
        sources, self._sources = self._sources, []
        if self._given >= (_WAITING + 1) * len(self._workers):
            ours = asyncio.get_running_loop().create_future()
            ours.set_result(next(self._own(pieces)))
            self._under_way.append(_Task(sources, pieces, ours))
            return
        worker = self._workers[self._next]
        self._next = (self._next + 1) % len(self._workers)
        self._given += 1
        theirs = asyncio.create_task(self._fold(worker, pieces))
        self._under_way.append(_Task(sources, pieces, theirs))

    async def close(self) -> None:
        """End the workers."""
        tasks = [*self._starting, *(task.results for task in self._under_way)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._workers:
            worker.kill()

    async def _fold(self, worker: WorkerProcess, pieces: list[bytes]) -> list[Result]:
        batch: Any = pieces  # a worker's work says what a batch is
        try:
            replies: list[Any] = [reply async for reply in worker.run(batch)]
        except WorkerLostError:
            return [None] * len(pieces)
        finally:
            self._given -= 1
        results: list[Result] = replies[0]
        return results
