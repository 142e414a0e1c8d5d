"""The steps between workers and report: order of parts, whole files, loads."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.core.batches import Batch, BatchPart, Part, Rows, SettledInputs
from asyncbatch.core.records import Failure
from asyncbatch.core.settings import Sizes
from asyncbatch.pipeline.loader import TableLoader
from asyncbatch.pipeline.order import InputOrder, WholeFiles
from asyncbatch.sinks.base import Refusal
from asyncbatch.sinks.columns.block import ColumnBlock, make_block


def part_of(batch, start, files=1, **more):
    columns = [1] * files, [1] * files, [0.0] * files
    return BatchPart(batch, Part(start, *columns, **more))


@st.composite
def runs(draw):
    """Results of several lanes: in order within a lane, in any order between lanes."""
    lanes: list[list[Any]] = [[], [], []]
    start = 0
    for _ in range(draw(st.integers(1, 8))):
        size = draw(st.integers(1, 4))
        done = draw(st.integers(1, size))
        batch = Batch(start, tuple(map(str, range(start, start + size))))
        lane = lanes[draw(st.integers(0, 2))]
        lane += [SettledInputs(batch, 0)] * draw(
            st.integers(0, 1)
        )  # its worker died, and it comes again
        lane += [part_of(batch, start + at) for at in range(done)]
        lane.append(SettledInputs(batch, done))
        start += done  # unfinished files come again as the next batch
    said = []
    while any(lanes):
        lane = draw(st.sampled_from([lane for lane in lanes if lane]))
        said.append(lane.pop(0))
    return said, start


@given(runs())
def test_parts_come_in_input_order_whatever_the_lanes_do(run):
    said, total = run
    order = InputOrder()
    through = [one for found in said for one in order.pass_on(found)]
    assert len(through) == len(said)
    files = [one.part.start for one in through if isinstance(one, BatchPart)]
    assert files == list(range(total))


async def test_the_head_is_never_made_to_wait():
    order, head, later = InputOrder(), Batch(0, ("a",)), Batch(1, ("b",))
    for batch in (head, later):
        order.begin(batch)
    big = part_of(later, 1, rows=Rows(b"x" * (Sizes().held + 1), 1))
    assert list(order.pass_on(big)) == []
    waiting = asyncio.create_task(order.admit(later))
    await order.admit(head)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(list(order.pass_on(SettledInputs(head, 1)))) == 2
    await waiting


def tail(batch, start, text):
    """A part of a file that is not finished."""
    failure = Failure("f", "invalid_json", text, 1)
    return BatchPart(batch, Part(start, rejections=[(0, failure)]))


def messages(found):
    return [failure.message for one in found for _, failure in one.part.rejections]


def test_an_unfinished_file_is_held_until_it_is_done():
    whole, batch = WholeFiles(), Batch(3, ("f",))
    assert [*whole.pass_on(tail(batch, 3, "1")), *whole.pass_on(tail(batch, 3, "2"))] == []
    end = part_of(batch, 3, rejected={0: 3}, errors={0: Failure("f", "invalid_json", "1", 1)})
    assert messages(whole.pass_on(end)) == ["1", "2"]
    assert messages(whole.pass_on(part_of(batch, 3))) == []


def test_nothing_is_left_of_a_file_that_failed_or_took_its_worker_along():
    whole, batch = WholeFiles(), Batch(3, ("f",))
    list(whole.pass_on(tail(batch, 3, "1")))
    failed = part_of(batch, 3, errors={0: Failure("f", "corrupt_archive", "cut")})
    assert [len(one.part) for one in whole.pass_on(failed)] == [1]
    list(whole.pass_on(tail(batch, 3, "1")))
    assert list(whole.pass_on(SettledInputs(batch, 0))) == []
    assert messages(whole.pass_on(part_of(batch, 3))) == []


class Memory:
    """A table that rejects the value 13, and takes a group as a whole or not at all."""

    def __init__(self) -> None:
        self.loads: list[list[int]] = []

    def open(self) -> None:
        """Do nothing."""

    def load(self, payload: ColumnBlock, groups: Any = None) -> list[Refusal]:
        values = payload.values[0]
        keys = list(groups) if groups is not None else list(range(len(values)))
        bad = {key for key, value in zip(keys, values, strict=True) if value == 13}
        kept = [value for key, value in zip(keys, values, strict=True) if key not in bad]
        self.loads.append(kept)
        return [Refusal(row, "no 13") for row, key in enumerate(keys) if key in bad]

    def commit(self, entries: Any = ()) -> None:
        """Do nothing: only the loads count."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        return succeeded and ended


def rows_of(records):
    """Rows of one file, where record number n became the values `records[n - 1]`."""
    values = [(number, value) for number, made in enumerate(records, 1) for value in made]
    return Rows(
        make_block([{"v": value} for _, value in values]).to_bytes() if values else b"",
        len(values),
        [0] * len(values),
        [number for number, _ in values],
        [None] * len(values),
        has_many_rows=any(len(made) > 1 for made in records),
    )


files = st.lists(st.lists(st.lists(st.integers(0, 20), max_size=3), max_size=6), max_size=6)


@given(files, st.integers(1, 9))
def test_loads_are_full_and_every_record_is_in_or_rejected(contents, most):
    sink = Memory()
    loader = TableLoader(sink, most, journal=None, resumed_rows=None)
    through: list[BatchPart] = []
    for start, records in enumerate(contents):
        rows = rows_of(records)
        part = Part(start, [len(records)], [1], [0.0], rows=rows, spooled_rows=[rows.count])
        through += loader.load(BatchPart(Batch(start, ("f",)), part))
    through += loader.flush()
    assert [one.part.start for one in through] == list(range(len(contents)))
    good = [made for records in contents for made in records if 13 not in made]
    assert [value for load in sink.loads for value in load] == [v for made in good for v in made]
    assert sum(one.part.written for one in through) == sum(map(len, good))
    for one, records in zip(through, contents, strict=True):
        bad = [number for number, made in enumerate(records, 1) if 13 in made]
        assert one.part.rejected.get(0, 0) == len(bad)
        assert [failure.record for _, failure in one.part.rejections] == bad
        assert (0 in one.part.errors) == (bool(bad) and len(bad) == len(records))
