"""Batches in flight: their number, their sizes, and that no path is taken too early."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.core.batches import Batch, BatchPart, Part
from asyncbatch.pipeline.batcher import Batcher
from asyncbatch.workers.engine import BatchEnd, bounded_map
from asyncbatch.workers.local import ThreadEngine
from tests.tasks import wait_until_blocked


class Source:
    """An endless source that counts the paths taken from it."""

    def __init__(self, chunk=1, end=None):
        self.taken, self._chunk, self._end = 0, chunk, end

    async def chunks(self):
        while self._end is None or self.taken < self._end:
            size = self._chunk if self._end is None else min(self._chunk, self._end - self.taken)
            chunk = tuple(str(self.taken + place) for place in range(size))
            self.taken += size
            yield (Batch(self.taken - size, chunk),)


def as_it_is(result):
    """Settle nothing, and pass on each result."""
    return (result,)


class Lane:
    """A lane that notes the number of concurrent batches, and finishes when the test allows it."""

    running = most = 0

    def __init__(self, gate=None):
        self._gate = gate

    async def run(self, batch):
        Lane.running += 1
        Lane.most = max(Lane.most, Lane.running)
        try:
            await (self._gate.wait() if self._gate else asyncio.sleep(0))
            yield Part(batch.start, [1] * len(batch.paths), [1] * len(batch.paths), [0.0])
        finally:
            Lane.running -= 1


@pytest.fixture(autouse=True)
def _no_lane_runs_yet():
    Lane.running = Lane.most = 0


@pytest.mark.parametrize("lanes", [1, 3, 8])
async def test_no_more_batches_are_taken_than_there_are_lanes(lanes):
    source, gate = Source(), asyncio.Event()
    batcher = Batcher(source.chunks(), size=5)
    results = bounded_map([Lane(gate) for _ in range(lanes)], batcher, as_it_is)
    pulling = asyncio.ensure_future(anext(results))
    await wait_until_blocked()
    assert (source.taken, Lane.running) == (5 * lanes, lanes)
    gate.set()
    await pulling
    await results.aclose()
    assert Lane.running == 0


@pytest.mark.parametrize("lanes", [1, 4])
async def test_a_slow_consumer_slows_the_source(lanes):
    source = Source()
    async with aclosing(
        bounded_map([Lane() for _ in range(lanes)], Batcher(source.chunks(), 1), as_it_is)
    ) as results:
        for _ in range(20):
            await anext(results)
            await wait_until_blocked()
        # For each lane one batch running, and its last part and end in a queue of that length.
        assert source.taken <= 20 + 3 * lanes
    assert Lane.most <= lanes


async def test_closing_cancels_and_awaits_what_is_in_flight():
    results = bounded_map(
        [Lane(asyncio.Event()) for _ in range(3)], Batcher(Source().chunks(), 2), as_it_is
    )
    pulling = asyncio.ensure_future(anext(results))
    await wait_until_blocked()
    assert Lane.running == 3
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert Lane.running == 0


async def test_what_the_source_raises_is_raised_and_the_rest_is_cancelled():
    async def failing():
        yield (Batch(0, ("a",)),)
        raise OSError("the list is gone")

    with pytest.raises(OSError, match="the list is gone"):
        async for _ in bounded_map(
            [Lane(asyncio.Event()), Lane()], Batcher(failing(), 1), as_it_is
        ):
            pass
    assert Lane.running == 0


def work_that_does(shares):
    """Work that finishes the next of `shares` of each batch, and at least one file."""

    def work(batch: Batch):
        done = max(1, round(next(shares) * len(batch.paths)))
        yield Part(batch.start, [1] * done, [1] * done, [0.0] * done)

    return lambda: work


@given(
    count=st.integers(0, 400),
    chunk=st.integers(1, 90),
    size=st.none() | st.integers(1, 70),
    lanes=st.integers(1, 4),
    shares=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=1, max_size=5),
)
async def test_every_path_is_done_once_whatever_is_given_back(count, chunk, size, lanes, shares):
    source = Source(chunk, count)
    batcher = Batcher(source.chunks(), size)
    engine = ThreadEngine(work_that_does(iter(shares * 500)), lanes)
    finished: dict[int, int] = {}

    def note(result):
        if isinstance(result, BatchEnd):
            batcher.settle(result.batch, finished.pop(result.batch.start))
            assert size is None or len(result.batch.paths) <= size
        else:
            finished[result.batch.start] = len(result.part)
            yield from result.batch.paths[: len(result.part)]

    done = [path async for path in bounded_map(engine.lanes, batcher, note)]
    assert sorted(done, key=int) == [str(number) for number in range(count)]
    assert (batcher.found, batcher.unsettled) == (count, 0)


async def test_sizes_double_while_batches_are_finished_and_fall_when_given_back():
    batcher = Batcher(Source(1000, 5000).chunks())
    sizes = []
    for done in (64, 128, 256, 3, 3):
        batch = await anext(batcher)
        sizes.append(len(batch.paths))
        batcher.settle(batch, done)
    assert sizes == [64, 128, 256, 512, 3]
    assert len((await anext(batcher)).paths) == 6


async def test_a_fixed_size_is_filled_across_chunks():
    batcher = Batcher(Source(4, 10).chunks(), size=7)
    sizes = []
    async for batch in batcher:
        sizes.append(len(batch.paths))
        batcher.settle(batch, len(batch.paths))
    assert sizes == [7, 3]


async def test_after_stop_no_batch_comes_even_from_a_source_that_hangs():
    async def hanging():
        yield (Batch(0, ("a",)),)
        await asyncio.Event().wait()

    batcher = Batcher(hanging(), size=1)
    await anext(batcher)
    waiting = asyncio.ensure_future(anext(batcher, None))
    await wait_until_blocked()
    batcher.stop()
    assert await waiting is None


async def test_a_lost_batch_comes_again_in_halves():
    batcher = Batcher(Source(100, 8).chunks(), size=8)
    batch = await anext(batcher)
    batcher.settle(batch, 0, halve=True)
    first = await anext(batcher)
    assert (first.start, len(first.paths)) == (0, 4)


@given(
    count=st.integers(1, 150),
    chunk=st.integers(1, 90),
    size=st.none() | st.integers(1, 40),
    fates=st.lists(
        st.tuples(
            st.sampled_from(["all", "some", "again", "without", "halve"]), st.integers(0, 99)
        ),
        min_size=1,
        max_size=12,
    ),
)
async def test_every_path_is_done_once_whatever_workers_die_of(count, chunk, size, fates):
    batcher = Batcher(Source(chunk, count).chunks(), size)
    done: list[int] = []
    alone: set[int] = set()
    fate = iter(fates)
    async for batch in batcher:
        first, last = batch.start, batch.start + len(batch.paths)
        assert batch.paths == tuple(str(number) for number in range(first, last))
        what, share = next(fate, ("all", 0))
        if alone & set(range(first, last)):
            assert len(batch.paths) == 1
            alone.discard(first)
        at = share * len(batch.paths) // 100
        if what == "again":
            alone.add(first + at)
            batcher.settle_without(batch, 0, first + at, retry=True)
        elif what == "without":
            batcher.settle_without(batch, 0, first + at, retry=False)
            done.append(first + at)
        elif what == "halve":
            batcher.settle(batch, 0, halve=True)
        else:
            until = last - first if what == "all" else at + 1
            batcher.settle(batch, until)
            done += range(first, first + until)
    assert sorted(done) == list(range(count))
    assert (alone, batcher.unsettled) == (set(), 0)


async def test_a_stretch_that_cannot_grow_does_not_wait_for_the_end_of_the_search():
    source = Source(10)
    batcher = Batcher(source.chunks(), size=10)
    first, _ = await anext(batcher), await anext(batcher)
    batcher.settle(first, 7)
    assert (await anext(batcher)).paths == ("7", "8", "9")
    assert source.taken == 20


async def test_standard_input_is_a_batch_of_its_own():
    async def chunks():
        yield (Batch(0, ("a", "b", "-", "c")),)

    found = []
    batcher = Batcher(chunks())
    async for batch in batcher:
        found.append(batch.paths)
        batcher.settle(batch, len(batch.paths))
    assert found == [("a", "b"), ("-",), ("c",)]


def test_outcomes_come_in_order_with_rejections_before_their_file():
    from asyncbatch.core.records import Failure

    def bad(record):
        return Failure("b", "invalid_json", "no", record)

    found = [(1, bad(1)), (1, bad(3)), (2, bad(1))]
    part = Part(5, [1, 3], [1, 9], [0.0, 0.0], rejected={1: 2}, rejections=found)
    outcomes = list(BatchPart(Batch(4, ("x", "a", "b", "c")), part).outcomes())
    assert [getattr(one, "record", one.file) for one in outcomes] == ["a", 1, 3, "b", 1]
