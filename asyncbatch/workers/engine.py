"""The contract of every engine, and the one loop that drives them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from asyncbatch.core.batches import Batch, BatchPart, Part

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
        Iterable,
        Iterator,
        Sequence,
    )

    Work = Callable[[Batch], Iterator[Part]]
    """What is done to a batch, in a worker: yields parts, the last of which ends the batch."""
    WorkFactory = Callable[[], Work]
    """Makes the work of one lane; crosses to worker processes by pickle."""


class Loss(Struct, frozen=True):
    """How a worker process ended that had a batch, and what it was at.

    `file` is the number of the file that it worked on, None if it has not told one; `in_batch`
    whether it had begun a batch. `timed_out` if we have ended it for being late with the file.
    """

    how: str
    file: int | None = None
    in_batch: bool = True
    timed_out: bool = False


class WorkerLostError(Exception):
    """A worker process ended before it was through with a batch; `loss` says how."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss)
        self.loss = loss


class Lane(Protocol):
    """Runs one batch at a time. A number of lanes is the number of batches in flight."""

    def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield what becomes of `batch`; closing the iterator gives the batch up.

        Raises WorkerLostError, and what the work raises.
        """
        ...


class Engine(Protocol):
    """Lanes, and the processes behind them."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes, as many as batches may be in flight."""
        ...

    @property
    def pids(self) -> Sequence[int]:
        """The process numbers of the workers that live now; this process is not among them."""
        ...


class BatchEnd(Struct, frozen=True):
    """A lane is through with a batch; `loss` says how its worker ended, if it died of it."""

    batch: Batch
    loss: Loss | None = None


async def bounded_map(
    lanes: Sequence[Lane], batches: AsyncIterator[Batch], waiting: int | None = None
) -> AsyncGenerator[BatchPart | BatchEnd, None]:
    """Run `batches` through `lanes`, and yield parts and ends as they come.

    Takes a batch only when a lane is free, and results wait in a queue for so many, or as many as
    there are lanes: a slow consumer slows the work. Closing the generator cancels and awaits
    everything. Raises what `batches` or a lane raises, but WorkerLostError, which is an end.
    """
    results: asyncio.Queue[BatchPart | BatchEnd | BaseException | None]
    results = asyncio.Queue(waiting or len(lanes))
    source = asyncio.Lock()

    async def drive(lane: Lane) -> None:
        failed: BaseException | None = None
        try:
            while (batch := await next_batch()) is not None:
                loss = None
                try:
                    async for part in lane.run(batch):
                        await results.put(BatchPart(batch, part))
                except WorkerLostError as error:
                    loss = error.loss
                await results.put(BatchEnd(batch, loss))
        except Exception as error:  # noqa: BLE001 - handed to the consumer, which raises it
            failed = error
        await results.put(failed)

    async def next_batch() -> Batch | None:
        async with source:
            return await anext(batches, None)

    tasks = [asyncio.create_task(drive(lane)) for lane in lanes]
    try:
        running = len(tasks)
        while running:
            result = await results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def abandon_all(workers: Iterable[object]) -> None:
    """Have lanes, or what works in them, leave nothing half done that they would; blocks."""
    for worker in workers:
        if (abandon := getattr(worker, "abandon", None)) is not None:
            abandon()
