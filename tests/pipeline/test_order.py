"""Input order under a limit of held rows: whatever is slow, nothing waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.core.batches import SOURCE_SPAN, Batch, BatchPart, Part, Rows, SettledInputs
from asyncbatch.pipeline.batcher import Batcher, MergedBatches
from asyncbatch.pipeline.order import InputOrder, OrderedLane
from asyncbatch.workers.engine import BatchEnd, Loss, WorkerLostError, bounded_map

ROW_BYTES = 10_000
MAX_TURNS = 400_000  # of the event loop: more than any of these runs takes


class Lane:
    """A lane with a part for each file, which gives back or loses the rest of some batches.

    `turns` tells for how many turns of the event loop a file is worked on, `fates` how many files
    of a batch are done: None for all; a negative number for a worker that dies after them.
    """

    def __init__(self, turns, fates):
        self._turns, self._fates = turns, fates

    async def run(self, batch):
        fate = next(self._fates, None)
        most = len(batch.paths) if fate is None else max(1, abs(fate))
        for place, path in enumerate(batch.paths[:most]):
            for _ in range(self._turns(int(path))):
                await asyncio.sleep(0)
            rows = Rows(b"x" * ROW_BYTES, 1)
            yield Part(batch.start + place, [1], [1], [0.0], rows=rows)
        if fate is not None and fate < 0 and len(batch.paths) > most:
            raise WorkerLostError(Loss("died"))


async def chunks_of(first, paths, size):
    for at in range(0, len(paths), size):
        yield (Batch(first + at, tuple(paths[at : at + size])),)


class Orders:
    """An order for each source, as in a run with several sources."""

    def __init__(self, count, most):
        self.each = [InputOrder(number * SOURCE_SPAN, max_bytes=most) for number in range(count)]

    def begin(self, batch):
        self.each[batch.source].begin(batch)

    async def admit(self, batch):
        await self.each[batch.source].admit(batch)

    def pass_on(self, result):
        return self.each[result.batch.source].pass_on(result)


async def deliver(sources, lanes, order, batches, slow_target):
    """Run all batches; return the delivered files of each source, and the most rows held."""
    done: dict[tuple[int, int], int] = {}
    files: list[list[int]] = [[] for _ in range(sources)]
    held = most_held = 0

    def note(result):
        key = result.batch.key
        if isinstance(result, BatchEnd):
            count = done.pop(key, 0)
            batches.settle(result.batch, count)
            yield SettledInputs(result.batch, count)
        else:
            done[key] = done.get(key, 0) + 1
            yield result

    lanes = [OrderedLane(lane, order) for lane in lanes]
    async with aclosing(bounded_map(lanes, batches, note)) as results:
        async for result in results:
            held += isinstance(result, BatchPart)
            for passed in order.pass_on(result):
                if isinstance(passed, BatchPart):
                    held -= 1
                    files[passed.batch.source].append(passed.part.start % SOURCE_SPAN)
            most_held = max(most_held, held)
            for _ in range(slow_target):
                await asyncio.sleep(0)
    return files, most_held


async def finish(running):
    """Return the result of a task, which needs no time but turns of the event loop."""
    task = asyncio.create_task(running)
    for _ in range(MAX_TURNS):
        await asyncio.sleep(0)
        if task.done():
            return task.result()
    task.cancel()
    pytest.fail("the run stands still")


FATES = st.lists(st.none() | st.integers(1, 6) | st.integers(-6, -1), max_size=60)


@given(
    count=st.integers(1, 60),
    chunk=st.integers(1, 60),
    size=st.none() | st.integers(1, 20),
    lanes=st.integers(1, 4),
    held=st.integers(0, 6),
    slow_files=st.dictionaries(st.integers(0, 60), st.integers(1, 200), max_size=4),
    slow_target=st.sampled_from([0, 1, 30]),
    fates=FATES,
)
async def test_an_ordered_run_ends_and_holds_little_whatever_is_slow(
    *, count, chunk, size, lanes, held, slow_files, slow_target, fates
):
    fate = iter(fates)
    workers = [Lane(lambda file: slow_files.get(file, 0), fate) for _ in range(lanes)]
    batcher = Batcher(chunks_of(0, list(map(str, range(count))), chunk), size)
    order = InputOrder(max_bytes=held * ROW_BYTES)
    running = deliver(1, workers, order, batcher, slow_target)
    (files,), most_held = await finish(running)
    assert files == list(range(count))
    # One more part for each lane, and those in the queue.
    assert most_held <= held + 1 + 2 * lanes


@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=3),
    size=st.none() | st.integers(1, 9),
    lanes=st.integers(1, 3),
    held=st.integers(0, 3),
    slow_files=st.dictionaries(st.integers(0, 30), st.integers(1, 100), max_size=3),
    fates=FATES,
)
async def test_ordered_sources_do_not_block_each_other(
    *, counts, size, lanes, held, slow_files, fates
):
    fate = iter(fates)
    workers = [Lane(lambda file: slow_files.get(file, 0), fate) for _ in range(lanes)]
    batchers = [
        Batcher(chunks_of(number * SOURCE_SPAN, list(map(str, range(count))), 10), size)
        for number, count in enumerate(counts)
    ]
    running = deliver(
        len(counts),
        workers,
        Orders(len(counts), held * ROW_BYTES),
        MergedBatches(batchers),
        slow_target=0,
    )
    files, _ = await finish(running)
    assert files == [list(range(count)) for count in counts]
