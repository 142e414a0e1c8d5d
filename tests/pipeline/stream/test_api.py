"""Streams of a program: its own events, iteration over windows, and each way to end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncbatch
from asyncbatch.sources.iterables import CHUNK_RECORDS
from tests.commands import environment

START = datetime(2026, 1, 1, tzinfo=UTC)
BY_KIND: dict[str, Any] = {"time": "t", "by": "k"}


def at(second, kind="a", **more):
    return {"t": (START + timedelta(seconds=second)).isoformat(), "k": kind, **more}


class Source:
    """A source that counts its events, and notes where it was closed."""

    def __init__(self, events, *, fails=None, waits=False):
        self.events, self.fails, self.waits = events, fails, waits
        self.given = 0
        self.drawn_by: Any = None
        self.closed_by: Any = None
        self.waiting = asyncio.Event()

    async def __call__(self):
        self.drawn_by = asyncio.current_task()
        try:
            async with asyncio.timeout(60):  # only the task that entered it can leave it
                for event in self.events:
                    self.given += 1
                    yield event
                if self.fails:
                    raise self.fails
                if self.waits:
                    self.waiting.set()
                    await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.closed_by = asyncio.current_task()

    @property
    def is_closed(self):
        return self.closed_by is not None and self.closed_by is self.drawn_by


async def all_of(stream):
    async with stream:
        return [window async for window in stream]


def short(windows):
    """Return the second of the start, the key's values, the aggregates' values, and `partial`."""
    return [
        (
            (window.start - START).total_seconds(),
            *window.key.values(),
            *window.aggregates.values(),
            *(["partial"] if window.partial else []),
        )
        for window in windows
    ]


async def test_windows_of_a_generator():
    async def clicks():
        for second in (1, 2, 7):
            yield at(second, "login", v=second)

    windows = await all_of(
        asyncbatch.Stream(clicks(), **BY_KIND, aggregates=["count", "mean=avg:v"])
    )
    assert windows == [
        asyncbatch.WindowResult(
            START, START + timedelta(seconds=5), {"k": "login"}, {"count": 2, "mean": 1.5}
        ),
        asyncbatch.WindowResult(
            START + timedelta(seconds=5), START + timedelta(seconds=10), {"k": "login"},
            {"count": 1, "mean": 7.0},
        ),
    ]  # fmt: skip
    with pytest.raises(AttributeError):
        windows[0].partial = True


def as_lines(events):
    return [json.dumps(event) for event in events]


async def streamed(events):
    for event in events:
        yield event


EVENTS = [at(second, "ab"[second % 2]) for second in range(12)]


@dataclasses.dataclass
class Click:
    t: datetime
    k: str


@pytest.mark.parametrize(
    "make",
    [
        lambda: EVENTS,
        lambda: iter(EVENTS),
        lambda: (dict(event) for event in EVENTS),
        lambda: streamed(EVENTS),
        lambda: iter(as_lines(EVENTS)),
        lambda: [line.encode() for line in as_lines(EVENTS)],
        lambda: streamed(f"{line}\n".encode() for line in as_lines(EVENTS)),
        lambda: iter(["\n".join(as_lines(EVENTS))]),
        lambda: [Click(datetime.fromisoformat(event["t"]), event["k"]) for event in EVENTS],
        lambda: [streamed(EVENTS[:5]), iter(EVENTS[5:])],
    ],
    ids=[
        *("list", "iterator", "generator", "async", "texts", "bytes", "whole lines", "many in one"),
        *("dataclasses", "several"),
    ],
)
async def test_all_kinds_of_iterables(make):
    lateness = timedelta(seconds=20)  # for two sources that are read concurrently
    windows = await all_of(asyncbatch.Stream(make(), **BY_KIND, lateness=lateness))
    assert short(windows) == [
        *((0, "a", 3), (0, "b", 2), (5, "a", 2), (5, "b", 3), (10, "a", 1), (10, "b", 1))
    ]


async def test_a_socket_of_lines():
    reader = asyncio.StreamReader()
    reader.feed_data(json.dumps(at(1)).encode() + b"\n" + json.dumps(at(2)).encode())
    reader.feed_eof()
    assert short(await all_of(asyncbatch.Stream(reader, **BY_KIND))) == [(0, "a", 2)]


async def test_files_and_simulated_events(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(as_lines(EVENTS)))
    stream = asyncbatch.Stream([path, streamed([at(12)])], **BY_KIND, lateness="20s")
    assert sum(window.aggregates["count"] for window in await all_of(stream)) == 13
    windows = await all_of(asyncbatch.Stream("simulate:", max_events=3))
    assert sum(window.aggregates["count"] for window in windows) == 3
    assert windows[-1].partial


async def test_each_source_has_a_watermark_of_its_own():
    ahead, behind = Source([at(60)], waits=True), Source([at(1), at(2), at(11)], waits=True)
    stream = asyncbatch.Stream([ahead(), behind()], **BY_KIND)
    async with stream:
        assert short([await anext(stream)]) == [(0, "a", 2)]
        assert short(stream.open) == [(10, "a", 1, "partial"), (60, "a", 1, "partial")]
    assert ahead.is_closed
    assert behind.is_closed
    assert stream.snapshot().tally.late == 0


async def test_windows_are_there_as_soon_as_they_are_over():
    gate = asyncio.Event()

    async def trickle():
        yield at(1)
        yield at(6)
        await gate.wait()
        yield at(11)

    stream = asyncbatch.Stream(trickle(), **BY_KIND)
    async with stream:
        assert short([await anext(stream)]) == [(0, "a", 1)]
        gate.set()
        assert short([window async for window in stream]) == [(5, "a", 1), (10, "a", 1)]


async def test_functions_of_the_program():
    def double(event):
        return [event, event] if event["k"] == "a" else None

    stream = asyncbatch.Stream(EVENTS, [double, asyncbatch.jq("select(.k)")], time="t")
    assert short(await all_of(stream)) == [(0, 6), (5, 4), (10, 2)]
    assert stream.snapshot().tally.dropped == 6


async def test_async_functions_of_the_program():
    async def double(event):
        await asyncio.sleep(0)
        return [event, event]

    assert short(await all_of(asyncbatch.Stream(EVENTS[:3], [double], **BY_KIND))) == [
        *((0, "a", 4), (0, "b", 2))
    ]


# --- events in no window


@pytest.mark.parametrize("transforms", [[], [lambda event: event]], ids=["plain", "in a thread"])
async def test_late_and_rejected_events_are_told_here(transforms):
    told: list[Any] = []
    here = threading.get_ident()

    def tell(what):
        assert threading.get_ident() == here
        told.append(what)

    events = [at(1), "oops", at(6), at(2, n=1), {"t": "soon", "k": "a"}, {"t": {1, 2}}, at(7)]
    stream = asyncbatch.Stream(iter(events), transforms, **BY_KIND, late=tell, dead_letter=tell)
    assert short(await all_of(stream)) == [(0, "a", 1), (5, "a", 2)]
    letters = [(one["kind"], one["record"], one["data"]) for one in told if "kind" in one]
    assert letters == [
        ("invalid_json", 2, "oops"),
        ("transform", 5, {"t": "soon", "k": "a"}),
        ("invalid_json", 6, "{'t': {1, 2}}"),
    ]
    assert "a set at /t, which JSON cannot hold" in told[-1]["message"]
    assert [one for one in told if "kind" not in one] == [at(2, n=1)]
    tally = stream.snapshot().tally
    assert (tally.read, tally.events, tally.late, tally.rejected) == (7, 3, 1, 3)
    assert tally.rejections[0].file == "source"


async def test_late_and_rejected_events_in_files(tmp_path):
    late, dead = tmp_path / "late.jsonl", tmp_path / "dead.jsonl"
    stream = asyncbatch.Stream([at(6), at(1), {}], **BY_KIND, late=late, dead_letter=str(dead))
    await all_of(stream)
    assert json.loads(late.read_text()) == at(1)
    assert json.loads(dead.read_text())["kind"] == "missing_field"


async def test_a_function_that_fails_on_late_events_ends_the_stream():
    source = Source([at(6), at(1), at(2), at(7)], waits=True)
    told = []

    def fail(event):
        told.append(event)
        raise KeyError("here")

    windows: list[asyncbatch.WindowResult] = []
    with pytest.raises(KeyError, match="here"):
        await consume(asyncbatch.Stream(source(), **BY_KIND, late=fail), windows)
    assert short(windows) == [(5, "a", 2, "partial")]
    assert told == [at(1)]
    assert source.is_closed


async def test_a_failure_budget_ends_an_endless_stream():
    source = Source({"no": number} for number in count())
    stream = asyncbatch.Stream(source(), max_failures=asyncbatch.FailureBudget.parse("10"))
    assert await all_of(stream) == []
    assert stream.is_over_budget
    assert source.is_closed


# --- ends of a stream


async def test_who_does_not_take_windows_stops_the_reading():
    source = Source(at(second) for second in count(step=5))
    async with asyncbatch.Stream(source(), **BY_KIND) as stream:
        await anext(stream)
        given = -1
        while given != source.given:
            given = source.given
            assert given <= 4 * CHUNK_RECORDS
            await asyncio.sleep(0.05)
        for _ in range(given):
            await anext(stream)
        assert source.given > given


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_stop_counts_all_that_was_given(in_thread):
    given = []

    def events():
        for number in count():
            given.append(number)
            yield at(number / 100)

    async def async_events():
        for event in events():
            yield event
            await asyncio.sleep(0)

    total = 0
    async with asyncbatch.Stream(events() if in_thread else async_events(), **BY_KIND) as stream:
        async for window in stream:
            total += window.aggregates["count"]
            if window.start == START + timedelta(seconds=15):
                stream.stop()
    assert total == len(given) == stream.snapshot().tally.events
    assert window.partial


async def test_a_stop_of_several_sources_counts_all_that_was_given():
    sources = [Source((at(n / 100) for n in range(3 + 10 * k)), waits=True) for k in range(4)]
    stream = asyncbatch.Stream([source() for source in sources], **BY_KIND, lateness="1h")
    async with stream:
        for source in sources:
            await source.waiting.wait()
        stream.stop()
        windows = [window async for window in stream]
    assert windows[0].aggregates == {"count": sum(source.given for source in sources)}
    assert all(source.is_closed for source in sources)


async def test_leaving_early_leaves_nothing_behind():
    source = Source([at(second) for second in range(12)], waits=True)
    before = asyncio.all_tasks()
    async with asyncbatch.Stream(source(), **BY_KIND) as stream:
        async for window in stream:
            assert short([window]) == [(0, "a", 5)]
            break
    assert short(stream.rest) == [(5, "a", 5), (10, "a", 2, "partial")]
    assert source.is_closed
    assert asyncio.all_tasks() == before


async def test_an_exception_of_the_program_ends_the_stream():
    source = Source([at(second) for second in range(12)], waits=True)
    stream = asyncbatch.Stream(source(), **BY_KIND)

    async def fail():
        async with stream:
            async for _ in stream:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
    assert source.is_closed
    assert short(stream.rest)[-1] == (10, "a", 2, "partial")


async def consume(stream, windows):
    async with stream:
        async for window in stream:
            windows.append(window)


async def cut_off(how, work, ready):
    """Cancel `work` once it is `ready`, in one of the possible ways."""
    if how == "timeout":
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
            group.create_task(work)
            await ready
            limit.reschedule(0)
    elif how == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            await ready
            raise KeyError("another")
    else:
        task = asyncio.create_task(work)
        await ready
        task.cancel()
        await task


@pytest.mark.parametrize(
    ("how", "raised"),
    [("timeout", TimeoutError), ("group", ExceptionGroup), ("cancel", asyncio.CancelledError)],
)
async def test_a_cancelled_task_stops_as_cleanly_as_a_signal(how, raised, tmp_path):
    source = Source([at(1), at(2), at(6), at(3), at(7)], waits=True)
    windows: list[asyncbatch.WindowResult] = []
    late = tmp_path / "late.jsonl"
    stream = asyncbatch.Stream(source(), **BY_KIND, late=late)

    async def ready():
        await source.waiting.wait()
        while stream.snapshot().tally.read < 5:
            await asyncio.sleep(0.001)

    with pytest.raises(raised):
        await cut_off(how, consume(stream, windows), ready())
    assert short(windows + stream.rest) == [(0, "a", 2), (5, "a", 2, "partial")]
    assert source.is_closed
    assert json.loads(late.read_text()) == at(3)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_second_cancellation_does_not_wait():
    stuck = asyncio.Event()

    async def stubborn():
        yield at(1)
        try:
            await asyncio.Event().wait()
        finally:
            stuck.set()
            await asyncio.Event().wait()

    stream = asyncbatch.Stream(stubborn(), **BY_KIND)
    task = asyncio.create_task(consume(stream, []))
    while not task.done() and not (stream._run and stream.snapshot().tally.read):
        await asyncio.sleep(0.001)
    task.cancel()
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for left in asyncio.all_tasks() - {asyncio.current_task()}:  # the source's own, as it will
        left.cancel()


async def test_what_a_source_raises_comes_out_behind_what_came_before():
    source, other = Source([at(1), at(6)], fails=KeyError("mine")), Source([at(1)], waits=True)
    windows: list[asyncbatch.WindowResult] = []
    with pytest.raises(KeyError, match="mine"):
        await consume(asyncbatch.Stream([source(), other()], **BY_KIND), windows)
    assert short(windows) == [(0, "a", 2, "partial"), (5, "a", 1, "partial")]
    assert source.is_closed
    assert other.is_closed


async def test_what_a_source_in_a_thread_raises():
    def events():
        yield at(1)
        raise ValueError("mine")

    windows: list[asyncbatch.WindowResult] = []
    with pytest.raises(ValueError, match="mine"):
        await consume(asyncbatch.Stream(events(), **BY_KIND), windows)
    assert short(windows) == [(0, "a", 1, "partial")]


async def test_what_several_sources_raise():
    sources = [Source([at(1)], fails=KeyError(number)) for number in range(2)]
    with pytest.raises(ExceptionGroup) as caught:
        await all_of(asyncbatch.Stream([source() for source in sources], **BY_KIND))
    assert len(caught.value.exceptions) == 2


async def test_an_error_is_raised_once():
    stream = asyncbatch.Stream(Source([], fails=KeyError("mine"))(), **BY_KIND)
    async with stream:
        with pytest.raises(KeyError):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_too_many_keys():
    stream = asyncbatch.Stream([at(1, "a"), at(1, "b")], **BY_KIND, max_keys=1)
    with pytest.raises(asyncbatch.TooManyKeysError, match=r"more than 1 key$"):
        await all_of(stream)


async def test_after_a_while(tmp_path):
    source = Source([at(1)], waits=True)
    windows = await all_of(asyncbatch.Stream(source(), **BY_KIND, duration=0.1))
    assert short(windows) == [(0, "a", 1, "partial")]
    assert source.is_closed


async def test_the_first_events_only():
    source = Source(at(number / 100) for number in count())
    windows = await all_of(asyncbatch.Stream(source(), **BY_KIND, max_events=1234))
    assert sum(window.aggregates["count"] for window in windows) == 1234
    assert source.is_closed


async def test_a_stop_before_the_start():
    source = Source([at(1)])
    stream = asyncbatch.Stream(source(), **BY_KIND)
    stream.stop()
    assert await all_of(stream) == []
    assert source.given == 0


async def test_a_stream_that_cannot_begin_closes_its_sources(tmp_path):
    source = source_of_one()
    await anext(source)
    with pytest.raises(asyncbatch.UsageError, match="cannot write"):
        await all_of(asyncbatch.Stream(source, **BY_KIND, late=tmp_path / "no" / "where.jsonl"))
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def source_of_one():
    yield at(1)
    yield at(2)


async def test_a_stream_runs_once():
    stream = asyncbatch.Stream([at(1)], **BY_KIND)
    await all_of(stream)
    with pytest.raises(asyncbatch.UsageError, match="once"):
        await all_of(stream)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": 5}, "is not a source of events"),
        ({"source": source_of_one}, "call it"),
        ({"source": at(1)}, "is not a source of events"),
        ({"source": "nowhere.jsonl"}, "cannot read"),
        ({"source": "kafka:topic"}, "is not a source"),
        ({"source": ["simulate:", "simulate:"]}, "twice"),
        ({"window": "tumbling:0s"}, "a length of zero"),
        ({"aggregates": ["median:v"]}, "not an aggregate"),
        ({"aggregates": ["count", "count"]}, "two aggregates"),
        ({"by": "a..b"}, "not a path"),
        ({"lateness": "soon"}, "is not a duration"),
        ({"lateness": -1}, "negative"),
        ({"max_events": 0}, "max_events is 0"),
        ({"time": "arrival", "late": print}, "late needs the events' own time"),
        ({"overflow_key": "x"}, "grouped by a field"),
        ({"late": 5}, "must be a file name or a plain function"),
        ({"transforms": [len, 5]}, "is not a transform"),
        ({"to": "-"}, "`to` cannot be standard output"),
        ({"to": "sqlite:///x.db"}, "table"),
        ({"table": "x"}, "a database"),
        ({"from_end": True}, "from_end needs follow"),
        ({"follow": True}, "files and folders"),
    ],
)
async def test_what_cannot_be_meant(arguments, words):
    with pytest.raises(asyncbatch.UsageError, match=words):
        await all_of(asyncbatch.Stream(**{"source": [at(1)], **arguments}))


async def test_without_a_context_nothing_runs():
    with pytest.raises(asyncbatch.UsageError, match="async with"):
        async for _ in asyncbatch.Stream([at(1)]):
            pass


# --- windows into targets


def rows(path, what="window_start, k, count, partial"):
    with closing(sqlite3.connect(path)) as database:
        query = f"SELECT {what} FROM w ORDER BY window_start, k"
        return [
            (int(start[17:19]), kind, number, bool(partial))
            for start, kind, number, partial in database.execute(query)
        ]


async def test_windows_into_a_table(tmp_path):
    path = tmp_path / "w.db"
    stream = asyncbatch.Stream(streamed(EVENTS), to=f"sqlite:///{path}", table="w", **BY_KIND)
    snapshot = await stream.run()
    assert snapshot.tally.events == len(EVENTS)
    assert rows(path)[:2] == [(0, "a", 3, False), (0, "b", 2, False)]
    assert len(rows(path)) == 6


async def test_a_cancelled_run_hands_over_what_is_open(tmp_path):
    path, source = tmp_path / "w.db", Source([at(1), at(6), at(7)], waits=True)
    stream = asyncbatch.Stream(source(), to=f"sqlite:///{path}", table="w", **BY_KIND)

    async def ready():
        await source.waiting.wait()
        while stream.snapshot().tally.read < 3:
            await asyncio.sleep(0.001)

    with pytest.raises(asyncio.CancelledError):
        await cut_off("cancel", stream.run(), ready())
    assert rows(path) == [(0, "a", 1, False), (5, "a", 2, True)]
    assert source.is_closed


async def test_a_target_that_is_stuck_is_left_by_a_second_cancellation(tmp_path):
    path, source = tmp_path / "w.db", Source([at(1), at(6)], waits=True)
    stream = asyncbatch.Stream(source(), to=f"sqlite:///{path}", table="w", **BY_KIND)
    task = asyncio.create_task(stream.run())
    await source.waiting.wait()
    while not path.exists() or not rows_or_none(path):
        await asyncio.sleep(0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.1)
        with pytest.raises(asyncio.CancelledError):
            await task
        other.execute("ROLLBACK")
    assert source.is_closed


def rows_or_none(path):
    try:
        return rows(path)
    except sqlite3.OperationalError:  # the table does not exist yet
        return None


async def test_a_target_that_is_lost_ends_the_stream(tmp_path):
    path, source = tmp_path / "w.db", Source([at(1), at(6)], waits=True)
    path.write_text("this is no database, however long one looks at it" * 100)
    stream = asyncbatch.Stream(source(), to=f"sqlite:///{path}", table="w", **BY_KIND)
    with pytest.raises(asyncbatch.AsyncbatchError):
        await stream.run()


async def test_windows_go_to_one_place_only(tmp_path):
    with pytest.raises(asyncbatch.UsageError, match="iterate"):
        await asyncbatch.Stream([at(1)], **BY_KIND).run()
    with pytest.raises(asyncbatch.UsageError, match="await run"):
        await all_of(asyncbatch.Stream([at(1)], to=tmp_path / "w.jsonl", **BY_KIND))


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_stream_is_gone_on_with(elsewhere, tmp_path):
    path, log, keep = tmp_path / "w.db", tmp_path / "log.jsonl", tmp_path / "keep"
    log.write_text("".join(f"{line}\n" for line in as_lines(EVENTS)))
    options: dict[str, Any] = {"checkpoint": keep, "lateness": 1, **BY_KIND}
    if elsewhere:
        options |= {"to": f"sqlite:///{path}", "table": "w"}
    first = asyncbatch.Stream(log, max_events=8, **options)
    second = asyncbatch.Stream(log, **options)
    if elsewhere:
        await first.run()
        assert (5, "a", 1, True) in rows(path)
        snapshot = await second.run()
        assert snapshot.tally.events == len(EVENTS)
        assert [row[2] for row in rows(path)] == [3, 2, 2, 3, 1, 1]
        assert not any(row[3] for row in rows(path))
    else:
        assert [one[-1] for one in short(await all_of(first))] == [3, 2, "partial", "partial"]
        assert [one[2] for one in short(await all_of(second))] == [2, 3, 1, 1]


async def test_a_checkpoint_that_is_in_use(tmp_path):
    options: dict[str, Any] = {"checkpoint": tmp_path / "keep", **BY_KIND}
    source = Source([at(1)], waits=True)
    async with asyncbatch.Stream(source(), **options):
        other = Source([at(1)])
        with pytest.raises(asyncbatch.AsyncbatchError):
            await all_of(asyncbatch.Stream(other(), **options))


async def test_a_file_is_followed(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(f"{as_lines([at(1)])[0]}\n")
    async with asyncbatch.Stream(log, **BY_KIND, follow=True) as stream:
        with log.open("a") as more:
            more.writelines(f"{line}\n" for line in as_lines([at(2), at(6)]))
        async for window in stream:
            assert short([window]) == [(0, "a", 2)]
            break
    assert short(stream.rest) == [(5, "a", 1, "partial")]


async def test_aggregates_with_names():
    stream = asyncbatch.Stream([at(1, v=2)], time="t", aggregates={"n": "count", "a:b": "sum:v"})
    [window] = await all_of(stream)
    assert window.aggregates == {"n": 1, "a:b": 2}


async def test_windows_at_the_ends_of_time():
    events = [{"t": "0001-01-01T00:00:01Z"}, {"t": "9999-12-31T23:59:59Z"}]
    stream = asyncbatch.Stream(events, time="t", window="tumbling:7d")
    assert await all_of(stream) == []  # both windows would begin or end outside
    events[1]["t"] = "9999-12-31T23:59:54Z"
    first, last = await all_of(asyncbatch.Stream(events, time="t", window="tumbling:5s"))
    assert first.start == datetime.min.replace(tzinfo=UTC)
    assert last.end == datetime(9999, 12, 31, 23, 59, 55, tzinfo=UTC)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab"), st.integers(1, 3)), max_size=60),
    st.booleans(),
)
def test_windows_are_those_of_all_events_together(made, in_thread):
    expected: dict[Any, int] = {}
    for second, kind, _ in made:
        expected[second // 5 * 5, kind] = expected.get((second // 5 * 5, kind), 0) + 1

    async def events():
        for second, kind, pause in made:
            yield at(second, kind)
            for _ in range(pause):
                await asyncio.sleep(0)

    async def main():
        source = iter([at(*one[:2]) for one in made]) if in_thread else events()
        stream = asyncbatch.Stream(source, **BY_KIND, lateness="1m")
        return short(await all_of(stream))

    assert asyncio.run(main()) == sorted((*key, number) for key, number in expected.items())


def test_importing_a_stream_is_light():
    program = (
        "import sys, asyncbatch; asyncbatch.Stream; print([name for name in sys.modules "
        "if name.split('.')[0] in ('rich', 'typer', 'aiohttp', 'numpy', 'duckdb')])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True,
        env=environment(),
    )  # fmt: skip
    assert finished.stdout == "[]\n"
