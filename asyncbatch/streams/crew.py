"""Workers that put lines together, and their results in the order of the lines."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from asyncbatch.executors.lanes import WorkerLostError
from asyncbatch.executors.process import WorkerProcess
from asyncbatch.executors.spawn import spawn
from asyncbatch.streams.folding import folding_factory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Folded, Window

_AT_ONCE = 2
"""Lines that wait for each worker while it works on others."""


class Crew:
    """Has workers fold a stream's lines, and the stream take the results in order.

    What a worker that dies had is done by the stream itself.
    """

    def __init__(self, stream: Stream, count: int) -> None:
        self._stream = stream
        make_work = folding_factory(stream.settings)
        self._workers = [WorkerProcess(make_work) for _ in range(count)]
        self._next = 0
        self._under_way: deque[tuple[bytes, asyncio.Task[Folded | None]]] = deque()

    @property
    def pids(self) -> Sequence[int]:
        """The workers' process numbers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def start(self) -> None:
        """Start the workers. Raises OSError."""
        for worker in self._workers:
            await worker.connect(spawn())

    def send(self, lines: bytes) -> None:
        """Have lines folded; there must be room."""
        worker = self._workers[self._next]
        self._next = (self._next + 1) % len(self._workers)
        self._under_way.append((lines, asyncio.create_task(self._fold(worker, lines))))

    @property
    def has_room(self) -> bool:
        """Whether more may be sent before results are taken."""
        return len(self._under_way) < (_AT_ONCE + 1) * len(self._workers)

    @property
    def is_busy(self) -> bool:
        """Whether something was sent whose result is not taken."""
        return bool(self._under_way)

    async def take(self) -> list[Window]:
        """Have the stream take the next result; return the windows that are then over."""
        lines, task = self._under_way[0]
        folded = await task
        self._under_way.popleft()
        return self._stream.take_folded(lines, folded)

    async def close(self) -> None:
        """End the workers."""
        tasks = [task for _, task in self._under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._workers:
            worker.kill()

    async def _fold(self, worker: WorkerProcess, lines: bytes) -> Folded | None:
        batch: Any = lines  # a worker's work says what a batch is
        try:
            results: list[Any] = [found async for found in worker.run(batch)]
        except WorkerLostError:
            return None
        return results[0] or None
