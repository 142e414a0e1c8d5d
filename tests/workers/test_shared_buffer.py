"""Batches that reach a worker through shared memory."""

from __future__ import annotations

import asyncio
import os
import pickle
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.core.records import Position
from asyncbatch.workers.engine import WorkerLostError
from asyncbatch.workers.process import process_engine
from asyncbatch.workers.shared_buffer import SharedBuffer, create_buffer
from asyncbatch.workers.tasks.events import EventsPart, LineBatch
from asyncbatch.workers.wire import LENGTH_BYTES

SLOT_BYTES = 1000
needs_memfd = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="the system has no memory without a file"
)


def opened_twice() -> tuple[SharedBuffer, SharedBuffer]:
    """Return a buffer as the main process and as a worker have it."""
    descriptor = create_buffer(SLOT_BYTES)
    assert descriptor is not None
    return SharedBuffer(os.dup(descriptor)), SharedBuffer(descriptor)


@needs_memfd
@given(st.lists(st.lists(st.binary(max_size=600), max_size=4), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_batch_stays_until_the_next_but_one_comes(all_pieces):
    ours, its = opened_twice()
    batches = [
        LineBatch(number, "file", Position(number), pieces)
        for number, pieces in enumerate(all_pieces)
    ]
    frames = []
    for batch in batches:
        frames.append(ours.frame(batch))
        for frame, sent in list(zip(frames, batches, strict=False))[-2:]:
            assert len(frame) == LENGTH_BYTES + int.from_bytes(frame[:LENGTH_BYTES])
            message = pickle.loads(frame[LENGTH_BYTES:])
            found = message if isinstance(message, LineBatch) else its.load(message)
            assert found == sent
            assert all(type(piece) is bytes for piece in found.pieces)


@needs_memfd
@pytest.mark.parametrize(("size", "is_shared"), [(SLOT_BYTES, True), (SLOT_BYTES + 1, False)])
def test_a_batch_that_does_not_fit_is_sent_as_before(size, is_shared):
    ours, its = opened_twice()
    batch = LineBatch(0, "file", Position(), [b"x" * size])
    frame = ours.frame(batch)
    assert (len(frame) < size) is is_shared
    message = pickle.loads(frame[LENGTH_BYTES:])
    assert (its.load(message) if is_shared else message) == batch


class Echo:
    """Work that returns the lines of a batch, or ends its process at some."""

    def __init__(self, marker):
        self._marker = marker

    def __call__(self, batch):
        if batch.lines == b"fatal" and not self._marker.exists():
            self._marker.touch()
            os._exit(3)
        yield EventsPart(folded=[batch.lines])


async def test_batches_ahead_survive_a_worker_and_its_memory(tmp_path):
    """The batch in the other slot is sent again to the next process."""

    async def outcome(lane, lines):
        batch = LineBatch(0, "file", Position(), [lines])
        try:
            return [part.folded[0] async for part in lane.run(batch)]
        except WorkerLostError:
            return "lost"

    work = partial(Echo, tmp_path / "died")
    async with process_engine(work, [None], 2, slot_bytes=SLOT_BYTES) as engine:
        first, second = engine.lanes
        assert await outcome(first, b"one") == [b"one"]
        fatal, two = await asyncio.gather(outcome(first, b"fatal"), outcome(second, b"two"))
        assert (fatal, two) == ("lost", [b"two"])
        large = b"x" * (SLOT_BYTES + 1)
        for lines in (b"fatal", large, b"three"):
            assert await outcome(first, lines) == [lines]
