"""Batches given only as fast as there is room for them, which may change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from asyncbatch.executors.lanes import Lane
    from asyncbatch.records import Batch, Part


class Gate:
    """Lets through as many batches at a time as `room` says, which is asked again after `look`."""

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._inside = 0
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Take note that there may be another room."""
        self._changed.set()

    async def paced(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        """Yield batches when there is room; each leaves with the end of a `lane`'s run.

        Raises what `room` raises.
        """
        while True:
            while self._inside >= self._room():
                self._changed.clear()
                await self._changed.wait()
            batch = await anext(batches, None)
            if batch is None:
                return
            self._inside += 1
            yield batch

    def lane(self, lane: Lane) -> Lane:
        """Return a lane whose batches have come through this."""
        return _GatedLane(lane, self)

    def leave(self) -> None:
        """Take note that a batch is done."""
        self._inside -= 1
        self._changed.set()


class _GatedLane:
    """A lane whose batches leave a gate."""

    def __init__(self, lane: Lane, gate: Gate) -> None:
        self._lane, self._gate = lane, gate

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield what becomes of `batch`; see `Lane.run`."""
        try:
            async for part in self._lane.run(batch):
                yield part
        finally:
            self._gate.leave()
