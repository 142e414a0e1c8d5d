"""Pipelines composed by a program: its own iterables, functions and sinks, and other sources."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import aclosing, closing
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncbatch
from asyncbatch.core.system import usable_cpus
from asyncbatch.pipeline.splits import AHEAD_PER_CPU, MIN_AHEAD
from asyncbatch.sources.http.settings import CursorPagination, HttpSettings
from asyncbatch.sources.iterables import CHUNK_RECORDS, IterableReader, read_iterable
from tests.commands import PATIENCE, ROOT, environment
from tests.conftest import python
from tests.servers.api import ApiServer, status


class Source:
    """A source that counts its records, and notes that it was closed."""

    def __init__(self, count, *, fails=None, waits=None):
        self.count, self.fails, self.waits = count, fails, waits
        self.given = 0
        self.is_closed = False

    async def records(self):
        try:
            async with asyncio.timeout(60):  # only the task that entered it can leave it
                while self.given < self.count:
                    self.given += 1
                    yield {"id": self.given}
                if self.fails:
                    raise self.fails
                if self.waits:
                    await self.waits.wait()
        finally:
            self.is_closed = True


class Kept:
    """A sink that keeps the batches that it gets."""

    def __init__(self, refuses=(), answer=None):
        self.batches, self.refuses, self.answer = [], refuses, answer
        self.entered = None
        self.left: tuple[Any, ...] = ()

    async def __aenter__(self):
        self.entered = asyncio.current_task()
        return self

    async def __aexit__(self, kind, error, read_position):
        assert asyncio.current_task() is self.entered
        self.left = (error,)

    async def load(self, records):
        self.batches.append(records)
        await asyncio.sleep(0)
        if self.answer is not None:
            return self.answer
        return [
            asyncbatch.Refusal(row, "is refused")
            for row, record in enumerate(records)
            if record["id"] in self.refuses
        ]

    @property
    def ids(self):
        return [record["id"] for batch in self.batches for record in batch]


def rows(path, table="people"):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()


def told(report):
    """Return the short form of each failure."""
    return [(one.file, one.kind, one.record, one.message) for one in report.failures]


def even(record):
    return record if record["id"] % 2 == 0 else None


def twice(record):
    yield record
    yield {**record, "id": -record["id"]}


async def awaited(record, context):
    await asyncio.sleep(0)
    return {**record, "number": context.record}


async def streamed(record):
    yield record
    await asyncio.sleep(0)


class Plus:
    def __init__(self, number):
        self.number = number

    def __call__(self, record):
        return {**record, "plus": record["id"] + self.number}


# Transforms


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_all_kinds_of_transforms_into_sqlite(tmp_path, kind):
    source = Source(1200)
    functions: list[Any] = [even, twice, Plus(1), asyncbatch.jq("select(.id > -3 and .id < 5)")]
    if kind == "async":
        functions[1:1] = [awaited, streamed]
    steps = [
        *functions,
        asyncbatch.fields({"id": "id", "plus": asyncbatch.field("plus", "str"), "n": "number"}),
        asyncbatch.require("id", "plus"),
    ]
    target = f"sqlite:///{tmp_path}/x.db"
    report = await asyncbatch.Pipeline(
        source.records(), steps, target, table="people", key="id"
    ).run()
    expected: list[tuple[Any, ...]] = [(-2, "-1"), (2, "3"), (4, "5")]
    if kind == "async":  # else no record has a number, and so the table no column
        expected = [(*row, number) for row, number in zip(expected, (2, 2, 4), strict=True)]
    assert rows(tmp_path / "x.db") == expected
    assert report.status == "success"
    tally = report.tally
    assert (tally.files, tally.read, tally.written) == (1, 1200, 3)
    assert tally.dropped == 1198
    assert source.is_closed


async def test_a_schema_and_a_named_function_in_a_worker_process(tmp_path):
    schema = tmp_path / "s.json"
    schema.write_text('{"properties": {"id": {"maximum": 700}}}')
    steps: list[Any] = [
        asyncbatch.call("tests.pipeline.test_builder:even"),
        asyncbatch.schema(schema),
    ]
    sink = Kept()
    report = await asyncbatch.Pipeline(Source(702).records(), steps, sink, workers=1).run()
    assert sink.ids == list(range(2, 702, 2))
    assert [failure.record for failure in report.failures] == [702]


async def test_without_a_sink_records_are_checked_and_counted():
    report = await asyncbatch.Pipeline(Source(10).records(), [even]).run()
    tally = report.tally
    assert (tally.read, tally.passed, tally.dropped, tally.written) == (10, 5, 5, 0)


# Sources


def numbered(count):
    for number in range(count):
        yield {"id": number}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (partial(numbered, 1234), "numbered"),
        (lambda: [{"id": number} for number in range(1234)], "source"),
        (lambda: ({"id": number} for number in range(1234)), "source"),
        (lambda: map(dict, numbered(1234)), "source"),
    ],
    ids=["generator", "list", "expression", "iterator"],
)
async def test_iterables_that_are_not_async(make, name):
    sink = Kept()

    def refuse(record):
        assert record["id"] != 1000
        return record

    report = await asyncbatch.Pipeline(make(), [refuse], sink).run()
    assert sink.ids == [number for number in range(1234) if number != 1000]
    assert told(report) == [(name, "transform", 1001, "AssertionError: assert 1000 != 1000")]


async def test_what_the_program_does_with_a_record_later_changes_nothing(tmp_path):
    """A transform changes neither the objects of the source, nor objects that it yields again."""
    record = {"id": 0}

    async def reused():
        for number in range(3):
            record["id"] = number
            yield record

    def change(record):
        record["id"] += 10
        if record["id"] == 11:
            raise ValueError("eleven")
        return record

    sink, letters = Kept(), tmp_path / "bad.jsonl"
    await asyncbatch.Pipeline(reused(), [change], sink, dead_letter=letters).run()
    assert sink.ids == [10, 12]
    assert record == {"id": 2}
    (letter,) = map(json.loads, letters.read_text().splitlines())
    assert (letter["data"], letter["message"]) == ({"id": 1}, "ValueError: eleven")


async def test_records_that_json_cannot_hold_are_rejected(tmp_path):
    @dataclasses.dataclass
    class Person:
        id: int
        born: dt.date

    class Strange:
        def __repr__(self):
            raise RuntimeError("no repr")

    async def people():
        yield Person(1, dt.date(2020, 2, 3))
        yield {"id": 2, "tags": {"a"}}
        yield {"id": 3, "score": float("nan")}
        yield Strange()
        yield {"id": 5}

    sink, letters = Kept(), tmp_path / "bad.jsonl"
    report = await asyncbatch.Pipeline(people(), (), sink, dead_letter=letters).run()
    assert sink.batches == [[{"id": 1, "born": "2020-02-03"}, {"id": 5}]]
    cannot = "which JSON cannot hold"
    assert told(report) == [
        ("people", "invalid_json", 2, f"the source returned a set at /tags, {cannot}"),
        ("people", "invalid_json", 3, f"the source returned nan at /score, {cannot}"),
        ("people", "invalid_json", 4, f"the source returned a Strange, {cannot}"),
    ]
    assert (report.status, report.tally.partial, report.tally.read) == ("partial", 1, 5)
    assert [json.loads(line)["record"] for line in letters.read_text().splitlines()] == [2, 3, 4]
    assert "{'id': 2, 'tags': {'a'}}" in letters.read_text()


async def test_sources_side_by_side(files, tmp_path):
    folder = files({"in/a.json": '[{"id": 100}, {"id": 101}]', "in/b.jsonl": '{"id": 102}\nx\n'})
    with ApiServer(records=[{"id": 200 + number} for number in range(25)]) as api:
        api.misbehave(status(404), path="/offset")
        http = HttpSettings(
            urls=(api.url("/cursor"), api.url("/offset")),
            records="/items",
            pagination=CursorPagination("/next_cursor"),
        )
        sources = [Source(3).records(), numbered(2), folder / "in", http]
        pipeline = asyncbatch.Pipeline(
            sources, (), f"sqlite:///{tmp_path}/x.db", table="people", mode="append"
        )
        report = await pipeline.run()
    expected = [0, 1, 1, 2, 3, 100, 101, 102, *range(200, 225)]
    assert [row[0] for row in rows(tmp_path / "x.db")] == expected
    assert sorted(failure.kind for failure in report.failures) == ["http", "invalid_json"]
    assert (report.tally.files, report.tally.failed, report.tally.written) == (6, 1, len(expected))


async def test_sources_of_one_name_are_told_apart():
    pipeline = asyncbatch.Pipeline([numbered(1), numbered(1), Source(1).records()])
    assert [source.name for source in pipeline.job.sources] == ["numbered", "numbered-2", "records"]


async def test_what_a_source_raises_comes_out_when_what_came_before_is_loaded(tmp_path):
    bad, good, sink = Source(700, fails=KeyError("lost")), Source(900), Kept()
    pipeline = asyncbatch.Pipeline([bad.records(), good.records()], (), sink)
    with pytest.raises(KeyError, match="lost") as caught:
        await pipeline.run()
    assert any(entry.name == "records" for entry in caught.traceback)
    assert sorted(sink.ids) == sorted([*range(1, 701), *range(1, 901)])
    assert sink.left == (caught.value,)
    assert (bad.is_closed, good.is_closed) == (True, True)
    report = pipeline.report
    message = "KeyError: 'lost' (after 700 records)"
    assert told(report) == [("records", "read_error", None, message)]
    assert (report.status, report.tally.failed, report.tally.read) == ("partial", 1, 1600)


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
async def test_what_a_source_in_a_thread_raises(kind):
    def source():
        yield {"id": 1}
        raise kind("here")

    sink = Kept()
    with pytest.raises(kind, match="here"):
        await asyncbatch.Pipeline(source(), (), sink).run()
    assert sink.ids == [1]


async def test_what_several_sources_raise():
    sources = [Source(1, fails=KeyError("a")), Source(1, fails=OSError("b"))]
    pipeline = asyncbatch.Pipeline([source.records() for source in sources])
    with pytest.raises(ExceptionGroup) as caught:
        await pipeline.run()
    assert {type(error) for error in caught.value.exceptions} == {KeyError, OSError}


async def test_a_source_that_is_cancelled_from_within_is_no_end_without_a_word():
    source = Source(3, fails=asyncio.CancelledError())
    with pytest.raises(RuntimeError, match="cancelled from within"):
        await asyncbatch.Pipeline(source.records()).run()


async def test_a_replacement_is_not_made_if_the_source_fails(tmp_path):
    replacing = partial(
        asyncbatch.Pipeline, sink=f"sqlite:///{tmp_path}/x.db", table="people", mode="replace"
    )
    await replacing([{"id": 7}]).run()
    pipeline = replacing(Source(3, fails=OSError("gone")).records())
    with pytest.raises(OSError, match="gone"):
        await pipeline.run()
    assert rows(tmp_path / "x.db") == [(7,)]
    assert pipeline.report.discarded


async def test_records_of_a_slow_source_do_not_wait_for_more():
    """A source that waits until its earlier records are loaded reaches its end."""
    loaded = asyncio.Event()

    class Telling(Kept):
        async def load(self, records):
            loaded.set()
            return await super().load(records)

    async def slow():
        for number in range(4):
            yield {"id": number}
            if number % 2:
                await loaded.wait()
                loaded.clear()

    sink = Telling()
    async with asyncio.timeout(60):
        await asyncbatch.Pipeline(slow(), (), sink, flush_interval=0.01).run()
    assert sink.ids == [0, 1, 2, 3]


async def test_a_source_that_blocks_keeps_nobody_waiting():
    """A plain generator runs in a thread, so it may wait for the event loop."""
    may_go_on = threading.Event()
    threads = set()

    def blocking():
        try:
            yield {"id": 1}
            assert may_go_on.wait(timeout=PATIENCE)
            yield {"id": 2}
        finally:
            threads.add(threading.current_thread().name)

    class Telling(Kept):
        async def load(self, records):
            may_go_on.set()
            return await super().load(records)

    sink = Telling()
    await asyncbatch.Pipeline(blocking(), (), sink, batch_size=1).run()
    assert sink.ids == [1, 2]
    assert threads == {"asyncbatch-source"}


@given(st.lists(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text())))
@settings(max_examples=30)
def test_any_records_come_through(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    asyncio.run(asyncbatch.Pipeline(records, (), str(path)).run())
    assert [json.loads(line) for line in path.read_text().split("\n")[:-1]] == records


# Bounds


async def test_a_fast_source_is_not_far_ahead_of_a_slow_sink():
    source = Source(100_000)
    splits_in_flight = (
        max(MIN_AHEAD, AHEAD_PER_CPU * usable_cpus()) + 4
    )  # splits that wait, and splits in work
    most = (splits_in_flight + 1) * CHUNK_RECORDS + 1000
    ahead = []

    class Slow(Kept):
        loaded = 0

        async def load(self, records):
            for _ in range(1000):  # time in which the source could give far more
                await asyncio.sleep(0)
            ahead.append(source.given - self.loaded)
            self.loaded += len(records)

    sink = Slow()
    await asyncbatch.Pipeline(source.records(), (), sink).run()
    assert sink.loaded == 100_000
    assert max(ahead) <= most
    assert most < 100_000 / 5


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_large_records_are_bounded_by_their_bytes(kind):
    given = 0

    def large():
        nonlocal given
        for _ in range(20):
            given += 1
            yield {"text": "x" * 400_000}

    async def large_async():
        for record in large():
            yield record

    reader = read_iterable(large() if kind == "thread" else large_async())
    sizes = []
    while texts := await reader.read():
        sizes.append(len(texts))
        assert given - sum(sizes) <= 4
    assert sum(sizes) == 20
    assert max(sizes) == 3


# Sinks


async def test_a_sink_of_ones_own_is_given_batches():
    sink = Kept()
    report = await asyncbatch.Pipeline(Source(1050).records(), (), sink, batch_size=100).run()
    assert max(map(len, sink.batches)) == 100
    assert sink.ids == list(range(1, 1051))
    assert (report.tally.written, report.target) == (1050, "Kept")
    assert sink.left == (None,)


async def test_a_sink_that_is_not_async_is_called_in_a_thread():
    class Plain:
        def __init__(self):
            self.threads, self.count = set(), 0

        def load(self, records):
            self.threads.add(threading.current_thread())
            self.count += len(records)

    sink = Plain()
    await asyncbatch.Pipeline(Source(10).records(), (), sink).run()
    assert sink.count == 10
    assert threading.main_thread() not in sink.threads


async def test_a_sink_may_use_threads_while_all_are_busy():
    class Threaded(Kept):
        async def load(self, records):
            await asyncio.to_thread(self.batches.append, records)

    sink = Threaded()
    await asyncbatch.Pipeline(
        Source(5000).records(), [even], sink, batch_size=10, concurrency=64
    ).run()
    assert sink.ids == list(range(2, 5001, 2))


async def test_records_that_a_sink_refuses_are_rejected(tmp_path):
    sink, letters = Kept(refuses={3, 1500}), tmp_path / "bad.jsonl"
    report = await asyncbatch.Pipeline(
        Source(2000).records(), [Plus(0)], sink, dead_letter=letters
    ).run()
    assert told(report) == [
        ("records", "sink", 3, "is refused"),
        ("records", "sink", 1500, "is refused"),
    ]
    assert (report.tally.written, report.tally.rejected) == (1998, 2)
    data = [json.loads(line)["data"] for line in letters.read_text().splitlines()]
    assert data == [{"id": 3}, {"id": 1500}]


@pytest.mark.parametrize("target", ["own", "lines"])
async def test_of_each_key_the_first_record_only(target, tmp_path):
    sink, path = Kept(), tmp_path / "x.jsonl"

    def wrapped(record):
        return {"id": record["id"], "in": {"key": record["id"] % 1000}}

    report = await asyncbatch.Pipeline(
        Source(2500).records(), [wrapped], sink if target == "own" else path, dedupe="in.key"
    ).run()
    found = sink.ids if target == "own" else [
        json.loads(line)["id"] for line in path.read_text().splitlines()
    ]  # fmt: skip
    assert found == list(range(1, 1001))
    assert (report.tally.written, report.tally.dropped) == (1000, 1500)


async def test_a_table_that_is_frozen(tmp_path):
    sink = f"sqlite:///{tmp_path}/x.db"
    await asyncbatch.Pipeline([{"id": 1}], sink=sink, table="people").run()
    records = [{"id": 2}, {"id": 3, "new": 1}]
    pipeline = asyncbatch.Pipeline(records, sink=sink, table="people", schema_contract="freeze")
    report = await pipeline.run()
    assert rows(tmp_path / "x.db") == [(1,), (2,)]
    assert [failure.record for failure in report.failures] == [2]


async def test_what_is_no_object_does_not_reach_a_sink():
    sink = Kept()
    report = await asyncbatch.Pipeline([{"id": 1}, 2], (), sink).run()
    assert sink.ids == [1]
    assert told(report) == [
        ("source", "sink", 2, "a row of Kept must be an object, not a number"),
    ]


async def test_what_a_sink_raises_ends_the_run():
    source = Source(100_000)

    class Broken(Kept):
        async def load(self, records):
            await super().load(records)
            if len(self.batches) == 3:
                raise ConnectionError("gone")

    sink = Broken()
    pipeline = asyncbatch.Pipeline(source.records(), (), sink, batch_size=500)
    with pytest.raises(ConnectionError, match="gone") as caught:
        await pipeline.run()
    assert source.is_closed
    assert source.given < 100_000
    assert sink.left == (caught.value,)
    report = pipeline.report
    assert (report.status, report.tally.written) == ("failed", 1000)
    assert told(report) == [("Broken", "sink", None, "Broken failed: ConnectionError: gone")]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (7, TypeError, "returned 7; it must return None or a list of Refusals"),
        (["x"], TypeError, "a list with 'x', which is not a Refusal"),
        ([asyncbatch.Refusal(2, "no")], ValueError, "rejected record 2 of 2"),
    ],
)
async def test_answers_of_a_sink_that_make_no_sense(answer, error, words):
    pipeline = asyncbatch.Pipeline(Source(2).records(), (), Kept(answer=answer))
    with pytest.raises(error, match=words):
        await pipeline.run()
    assert pipeline.report.status == "failed"


async def test_a_sink_that_cannot_be_entered_closes_the_sources():
    class Shut(Kept):
        async def __aenter__(self):
            raise OSError("shut")

    records = Source(3).records()
    with pytest.raises(OSError, match="shut"):
        await asyncbatch.Pipeline(records, (), Shut()).run()
    with pytest.raises(StopAsyncIteration):
        await anext(records)


# The end


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_stop_loads_what_was_given(kind):
    source, sink = Source(10**9), Kept()

    def endless():
        try:
            while True:
                source.given += 1
                yield {"id": source.given}
        finally:
            source.is_closed = True

    records = source.records() if kind == "async" else endless()
    pipeline = asyncbatch.Pipeline(records, (), sink)
    async with aclosing(pipeline.parts()) as parts:
        async for _ in parts:
            pipeline.stop()
    assert source.is_closed
    assert sink.ids == list(range(1, source.given + 1))
    assert pipeline.report.status == "interrupted"


async def test_a_stop_before_the_start():
    source = Source(10)
    pipeline = asyncbatch.Pipeline(source.records())
    pipeline.stop()
    report = await pipeline.run()
    assert (report.status, source.given) == ("interrupted", 0)


async def test_a_cancelled_run_closes_everything():
    never = asyncio.Event()
    source, sink = Source(2000, waits=never), Kept()
    loaded = asyncio.Event()

    class Telling(Kept):
        async def load(self, records):
            loaded.set()
            return await super().load(records)

    sink = Telling()
    running = asyncio.create_task(asyncbatch.Pipeline(source.records(), [awaited], sink).run())
    await loaded.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert source.is_closed
    assert isinstance(sink.left[0], asyncio.CancelledError)
    assert len(asyncio.all_tasks()) == 1


async def test_a_sink_that_hangs_is_given_up_when_the_run_is_cancelled():
    started, cancelled = asyncio.Event(), asyncio.Event()

    class Hanging(Kept):
        async def __aexit__(self, *error):
            assert cancelled.is_set()
            return await super().__aexit__(*error)

        async def load(self, _):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cancelled.set()

    sink = Hanging()
    pipeline = asyncbatch.Pipeline(Source(10).records(), (), sink, batch_size=1)
    running = asyncio.create_task(pipeline.run())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert isinstance(sink.left[0], asyncio.CancelledError)


async def test_sources_that_do_not_end_when_they_are_told_are_left_behind():
    release, stuck, deaf = threading.Event(), threading.Event(), Source(3)

    def blocking():
        try:
            yield {"id": 1}
            stuck.set()
            release.wait(timeout=PATIENCE)
            yield {"id": 2}
        finally:
            stuck.clear()

    async def ignoring():
        yield {"id": 1}
        for _ in range(2):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                deaf.is_closed = True
        yield {"id": 2}

    sources = [blocking(), ignoring()]
    running = asyncio.create_task(asyncbatch.Pipeline(sources).run())
    assert await asyncio.to_thread(stuck.wait, PATIENCE)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert deaf.is_closed
    release.set()
    while stuck.is_set():  # the thread clears it when it closes its generator
        await asyncio.sleep(0.01)


async def test_leaving_early_closes_the_source():
    source = Source(10**9)
    async with aclosing(asyncbatch.Pipeline(source.records()).parts()) as parts:
        await anext(parts)
    assert source.is_closed
    assert len(asyncio.all_tasks()) == 1


async def test_a_drawing_that_is_closed_at_once_closes_its_source():
    source = Source(3)
    records = source.records()
    reader = IterableReader(records)
    await reader.aclose()
    assert source.given == 0
    with pytest.raises(StopAsyncIteration):
        await anext(records)


async def test_a_failure_budget_ends_an_endless_run():
    def bad(record):
        raise ValueError("bad")

    source = Source(10**9)
    pipeline = asyncbatch.Pipeline(
        source.records(), [bad], max_failures=asyncbatch.FailureBudget(10)
    )
    report = await pipeline.run()
    assert report.over_budget
    assert source.is_closed


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": numbered}, "is not a source of records: call it"),
        ({"source": 7}, "7 is not a source of records"),
        ({"source": {"id": 1}}, "is not a source of records"),
        ({"source": [numbered(1), {"id": 1}]}, "is not a source of records"),
        ({"sink": "x.unknown"}, "unknown kind of target"),
        ({"sink": "sqlite:///x.db"}, "needs --table"),
        ({"sink": object()}, "object is not a sink: it has no method load"),
        ({"sink": Kept(), "table": "people"}, "need a sink with a name"),
        ({"key": "id"}, "max_delete, columns, schema_contract need a sink with a name"),
        ({"sink": Kept(), "mode": "replace"}, "need a sink with a name"),
        ({"sink": "out/"}, "is a folder, which needs files as sources"),
        ({"transforms": [lambda: None]}, "cannot be called with a record"),
        ({"transforms": [asyncbatch.jq("(")]}, "jq"),
        ({"transforms": [asyncbatch.require("a..b")]}, "is not a path"),
        ({"transforms": [7]}, "7 is not a transform"),
        ({"transforms": even}, "transforms must be a list"),
        ({"dedupe": "a..b", "sink": Kept()}, "dedupe: 'a..b' is not a path"),
        ({"dedupe": "id"}, "dedupe needs a target that holds the rows"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_meant(arguments, words):
    with pytest.raises(asyncbatch.UsageError, match=re.escape(words)):
        asyncbatch.Pipeline(**{"source": [], **arguments})


async def test_a_pipeline_runs_once():
    pipeline = asyncbatch.Pipeline([])
    assert (await pipeline.run()).status == "success"
    with pytest.raises(asyncbatch.UsageError, match="runs only once"):
        await pipeline.run()


async def test_a_target_that_cannot_be_opened_closes_the_source(tmp_path):
    records = Source(3).records()
    pipeline = asyncbatch.Pipeline(records, (), f"{tmp_path}/none/x.jsonl")
    with pytest.raises(asyncbatch.UsageError, match=r"x\.jsonl"):
        await pipeline.run()
    with pytest.raises(StopAsyncIteration):
        await anext(records)


# Examples of the docs


GUIDE = (ROOT / "docs" / "library.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_guide(example, tmp_path):
    if "https://" in example:
        compile(example, "library.md", "exec")
        return
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "1.json").write_text('[{"id": 9, "name": "Nine"}]')
    finished = subprocess.run(
        # The same warnings are errors as in this process (pyproject.toml).
        [sys.executable, "-W", "error", "-W", "ignore:Binding:DeprecationWarning", "-c", example],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=environment(),
        timeout=PATIENCE,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    shown = re.findall(r"# prints (.*)", example)
    assert shown
    assert finished.stdout.splitlines() == shown


def test_importing_a_pipeline_is_light():
    program = (
        "import sys\nfrom asyncbatch import Pipeline\n"
        "print(sorted({'typer', 'rich', 'aiohttp', 'duckdb', 'asyncpg'} & set(sys.modules)))"
    )
    assert python(program).stdout == "[]\n"


async def test_a_cancelled_run_starts_no_other_load_and_counts_those_that_returned(files):
    """Its thread has more batches to load by then."""
    folder = files({"a.jsonl": "".join(f'{{"id": {n}}}\n' for n in range(5000))})

    class Slow:
        def __init__(self) -> None:
            self.begun = self.loaded = 0
            self.is_running = asyncio.Event()

        async def load(self, records: list[dict[str, Any]]) -> None:
            self.begun += len(records)
            self.is_running.set()
            await asyncio.sleep(0.01)
            self.loaded += len(records)

    sink = Slow()
    pipeline = asyncbatch.Pipeline(folder, [dict], sink=sink, batch_size=10)
    task = asyncio.create_task(pipeline.run())
    await sink.is_running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.begun == sink.loaded < 5000
    assert pipeline.report.tally.written == sink.loaded
    assert pipeline.report.status == "interrupted"


async def test_a_sink_whose_end_fails_is_no_success():
    class Fails:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *_: object) -> None:
            raise ValueError("no commit")

        def load(self, records: list[dict[str, Any]]) -> None:
            pass

    pipeline = asyncbatch.Pipeline([{"id": 1}], sink=Fails())
    with pytest.raises(ValueError, match="no commit"):
        await pipeline.run()
    assert pipeline.report.status == "failed"
    [failure] = pipeline.report.losses
    assert "Fails failed: ValueError: no commit" in failure.message
