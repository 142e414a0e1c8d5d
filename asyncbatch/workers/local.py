"""Engines that run in this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncbatch.core.batches import Batch, Part
    from asyncbatch.workers.engine import Lane, WorkFactory


class ThreadLane:
    """Runs batches in a thread of the default executor."""

    def __init__(self, make_work: WorkFactory) -> None:
        self._work = make_work()
        self.abandon = getattr(self._work, "abandon", None)

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield the parts of `batch`; cancelling takes effect at the end of a part."""
        parts = iter(self._work(batch))
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            yield part


class ThreadEngine:
    """Lanes that run batches in threads of this process."""

    pids: Sequence[int] = ()

    def __init__(self, make_work: WorkFactory, count: int) -> None:
        self.lanes: Sequence[Lane] = [ThreadLane(make_work) for _ in range(count)]


class LoopEngine:
    """Lanes that run on the event loop of this process."""

    pids: Sequence[int] = ()

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
