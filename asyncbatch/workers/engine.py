"""The contract of every engine, and the one loop that drives them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec import Struct

from asyncbatch.core.batches import Batch, BatchPart, Part
from asyncbatch.core.progress import FileInProgress

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
        Iterable,
        Iterator,
        Sequence,
    )

    from asyncbatch.core.progress import Progress

    # The task of a worker: processes a batch and yields parts, the last of which ends the batch.
    Work = Callable[[Batch], Iterator[Part]]
    # Makes the work of one lane; crosses to worker processes by pickle.
    WorkFactory = Callable[[], Work]


ResultT = TypeVar("ResultT")


class Loss(Struct, frozen=True):
    """The end of a worker process with a batch."""

    description: str  # how the process ended, for messages
    file: int | None = None  # the number of its current file, None if it reported none
    in_batch: bool = True  # whether it had begun a batch
    timed_out: bool = False  # whether it was killed for exceeding the time limit of a file


class WorkerLostError(Exception):
    """A worker process ended before it finished a batch; `loss` describes the end."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss)
        self.loss = loss


class Lane(Protocol):
    """Runs one batch at a time, so the number of lanes limits the batches in flight."""

    def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield the parts of `batch`. Closing the iterator cancels the batch.

        Raises WorkerLostError, and the errors of the task.
        """
        ...


class Engine(Protocol):
    """Lanes, and the processes behind them."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes: one for each batch that may be in flight."""
        ...

    @property
    def pids(self) -> Sequence[int]:
        """The process ids of the running workers, without this process."""
        ...

    def files_in_progress(self) -> Sequence[FileInProgress]:
        """Return the files that are processed at this moment, as far as it is known."""
        ...


def file_in_progress(progress: Progress, batches: Iterable[Batch]) -> FileInProgress | None:
    """Return the file that a worker with these batches is processing, or None."""
    number = progress.file
    for batch in batches:
        if batch.split is not None:
            if not progress.in_batch:
                return None
            chunk = batch.split.chunk
            name = batch.name(batch.start) if chunk is None else chunk.file
            return FileInProgress(batch.start, name, progress.bytes)
        if number is not None and batch.start <= number < batch.start + batch.count:
            return FileInProgress(number, batch.name(number), progress.bytes)
    return None


# One batch is processed and one waits, so that no worker waits for this process.
LANES_PER_WORKER = 2


class BatchEnd(Struct, frozen=True):
    """The end of a batch in a lane. `loss` is set if its worker died."""

    batch: Batch
    loss: Loss | None = None


async def _run_batch(
    lane: Lane,
    batch: Batch,
    note: Callable[[BatchPart | BatchEnd], Iterable[ResultT]],
    results: asyncio.Queue[tuple[ResultT] | BaseException | None],
) -> None:
    """Put the results of `note` for the parts and the end of a batch into `results`."""
    loss = None
    try:
        async for part in lane.run(batch):
            for result in note(BatchPart(batch, part)):
                await results.put((result,))
    except WorkerLostError as error:
        loss = error.loss
    # The end is noted as a whole before the first wait, in which another lane may take a batch.
    for result in tuple(note(BatchEnd(batch, loss))):
        await results.put((result,))


async def bounded_map(
    lanes: Sequence[Lane],
    batches: AsyncIterator[Batch],
    note: Callable[[BatchPart | BatchEnd], Iterable[ResultT]],
    queue_size: int | None = None,
) -> AsyncGenerator[ResultT, None]:
    """Run `batches` through `lanes`; yield the result of `note` for each part and end.

    It takes a batch only when a lane is free, and `queue_size` results wait in a queue, by default
    one for each lane: so a slow consumer slows the work. `note` is called before the lane takes
    its next batch, which may so be the rest of the last one. Closing the generator cancels and
    awaits everything. Raises the errors of `batches`, of `note` and of lanes, except
    WorkerLostError, which becomes an end.
    """
    results: asyncio.Queue[tuple[ResultT] | BaseException | None]
    results = asyncio.Queue(queue_size or len(lanes))
    source = asyncio.Lock()

    async def drive(lane: Lane) -> None:
        failed: BaseException | None = None
        try:
            while (batch := await next_batch()) is not None:
                await _run_batch(lane, batch, note, results)
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
            item = await results.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def abandon_all(workers: Iterable[object]) -> None:
    """Let lanes, or their tasks, clean up unfinished outputs. Blocks."""
    for worker in workers:
        if (abandon := getattr(worker, "abandon", None)) is not None:
            abandon()
