"""Streams with workers: equal results, and functions that crash, hang or wait."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import defaultdict
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.config.job import StreamSettings
from asyncbatch.core.records import Position
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.pipeline.stream.pool import make_pool
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sinks.windows import window_lines
from asyncbatch.sources.base import LiveChunk
from asyncbatch.windows.aggregates import parse_aggregate
from asyncbatch.windows.spec import parse_window
from asyncbatch.windows.times import utc_text
from asyncbatch.workers.tasks.events import FoldTask, LineBatch
from tests.processes import children, wait_until

allow_deep_nesting()  # as streams do; hypothesis warns if it happens in the middle of a test
SECOND = 1_000_000
START = 1_767_225_600 * SECOND  # 2026-01-01
LATENESS = SECOND // 2
BY_KIND = ("--time", "t", "--by", "k")


def at(second, kind="a", **more):
    return json.dumps({"t": f"2026-01-01T00:00:{second:09.6f}Z", "k": kind, **more}) + "\n"


def counts(windows):
    return [(window["window_start"][17:-1], window["aggregates"]["count"]) for window in windows]


# --- many events, folded in workers


def naive(rows, window):
    """Return count and exact sum by start, end and key, computed over the whole list."""
    spec = parse_window(window)
    found = defaultdict(list)
    if spec.kind == "session":
        sessions: dict[str, list[list[tuple[int, float]]]] = defaultdict(list)
        for when, key, value in sorted(rows):
            group = sessions[key]
            if not group or when >= group[-1][-1][0] + spec.size:
                group.append([])
            group[-1].append((when, value))
        for key, group in sessions.items():
            for events in group:
                where = events[0][0], events[-1][0] + spec.size, key
                found[where] = [value for _, value in events]
    else:
        for when, key, value in rows:
            start = when // spec.every * spec.every
            while start + spec.size > when:
                found[start, start + spec.size, key].append(value)
                start -= spec.every
    return {
        (utc_text(start), utc_text(end), key): (len(values), float(sum(map(Fraction, values))))
        for (start, end, key), values in found.items()
    }


async def crewed(chosen, chunks, workers):
    """Put chunks into windows, with workers that are ready from the first chunk on."""
    core = StreamCore(chosen)
    core.join("-")
    crew = make_pool(core, lambda: None, [None] * workers, call_concurrency=1, timeout=None)
    windows = []
    try:
        await crew.start()
        while not crew.is_ready:
            await asyncio.sleep(0.01)
        for chunk in chunks:
            while crew.has_result:
                windows += await crew.take()
            crew.send("-", "-", core.cut("-", LiveChunk("-", chunk)))
        while crew.is_busy:
            windows += await crew.take()
    finally:
        await crew.close()
    windows += core.finish(partial=False)
    return [
        json.loads(line) for line in window_lines(core.schema, windows).splitlines()
    ], core.tally


@pytest.mark.parametrize("window", ["tumbling:2s", "hopping:3s/1s", "session:30ms"])
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(30_000, 300_000),
    workers=st.integers(1, 3),
    kinds=st.sampled_from([1, 3, 2000]),
)
@settings(max_examples=3, deadline=None)
def test_windows_are_those_of_a_naive_reference(window, seed, size, workers, kinds):
    chance = random.Random(seed)
    rows = [
        (
            START + int(number * SECOND / 1500) - chance.randrange(LATENESS),
            f"k{chance.randrange(kinds)}",
            chance.choice([chance.random() * 1e9, -0.1, 1e-12, chance.randrange(10)]),
        )
        for number in range(12_000)
    ]
    data = "".join(
        json.dumps({"t": utc_text(when), "k": key, "v": value}) + "\n" for when, key, value in rows
    ).encode()
    chosen = StreamSettings(
        parse_window(window), (parse_aggregate("count"), parse_aggregate("sum:v")),
        by=("k",), time="t", lateness=LATENESS,
    )  # fmt: skip
    chunks = [data[place : place + size] for place in range(0, len(data), size)]
    windows, tally = asyncio.run(crewed(chosen, chunks, workers))
    found = {
        (one["window_start"], one["window_end"], one["key"]["k"]): tuple(one["aggregates"].values())
        for one in windows
    }
    assert found == naive(rows, window)
    assert len(found) == len(windows) == tally.windows
    assert (tally.events, tally.late, tally.rejected) == (12_000, 0, 0)


@pytest.mark.parametrize("window", ["tumbling:1s", "session:1s"])
def test_workers_leave_what_is_odd_to_us(window):
    odd = [
        b"oops\n",
        b"\n",
        b'{"t": 1767225599, "k": "late"}\n',
        b'{"t": "2099-01-01T00:00:00Z", "k": "a"}\n',
    ]
    lines = [at(number / 2000 % 60, "ab"[number % 2]).encode() for number in range(20_000)]
    for place, text in zip((3000, 9000, 15_000, 19_000), odd, strict=True):
        lines.insert(place, text)
    data = b"".join(lines)
    chosen = StreamSettings(
        parse_window(window), (parse_aggregate("count"),), by=("k",), time="t", max_future=SECOND
    )
    chunks = [data[place : place + 50_000] for place in range(0, len(data), 50_000)]
    core = StreamCore(chosen)
    core.join("-")
    over = [one for chunk in chunks for one in core.feed("-", LiveChunk("-", chunk))]
    expected = window_lines(core.schema, over + core.finish(partial=False)).splitlines()
    windows, tally = asyncio.run(crewed(chosen, chunks, 2))
    assert windows == [json.loads(line) for line in expected]
    assert tally == core.tally
    assert tally.late == 1
    assert "--max-future" in tally.rejections[-1].message
    assert [one.line for one in tally.rejections] == [3001, 19_001]


@pytest.mark.parametrize("text", [b'{"t": 1}\n{"t":\n2}', b'{"t": 1}{"t": 2}\n\n'])
def test_workers_fold_only_lines_of_one_event(text):
    fold = FoldTask(StreamSettings(parse_window("tumbling:1s"), (), time="t"))
    [part] = fold(LineBatch(0, "-", Position(), [text]))
    assert part.folded == [None]


class Fragile(FoldTask):
    """Folding that ends each worker process at one event."""

    def _fold(self, lines):
        if b'"fatal"' in lines and os.environ["MAIN_PROCESS"] != str(os.getpid()):
            os._exit(3)
        return super()._fold(lines)


@pytest.mark.parametrize("window", ["tumbling:1s", "session:1s"])
def test_an_event_that_ends_each_worker_is_rejected_alone(monkeypatch, window):
    """Which of the lines it is, is found by halving."""
    monkeypatch.setenv("MAIN_PROCESS", str(os.getpid()))
    monkeypatch.setattr("asyncbatch.pipeline.stream.pool.FoldTask", Fragile)
    lines = [at(number / 1000, "ab"[number % 2]).encode() for number in range(1500)]
    lines.insert(700, at(0.7, "fatal").encode())
    chosen = StreamSettings(parse_window(window), (parse_aggregate("count"),), by=("k",), time="t")
    windows, tally = asyncio.run(crewed(chosen, [b"".join(lines)], 1))
    [failure] = tally.rejections
    assert (failure.kind, failure.line, failure.record) == ("worker_crash", 701, 701)
    assert failure.message == "its worker process exited with 3 while at this event"
    assert sum(one["aggregates"]["count"] for one in windows) == tally.events == 1500
    assert {one["key"]["k"] for one in windows} == {"a", "b"}
    assert (tally.read, tally.rejected) == (1501, 1)


def test_so_many_events_by_their_arrival(stream, tmp_path):
    (tmp_path / "events.jsonl").write_text(at(1) * 200_000)
    options = ("--time", "arrival", "--by", "k", "--window", "tumbling:1h")
    for number in (150_000, 200_000):
        code, windows, errors = stream(
            "events.jsonl", *options, "--max-events", number, "--workers", 2
        )
        assert code == 0
        assert sum(window["aggregates"]["count"] for window in windows) == number
        assert f"{number:,} events" in errors


# --- transforms in workers


@pytest.fixture
def program(tmp_path):
    """Write a module; its functions are called with `program.py:name`."""

    def _program(text):
        (tmp_path / "program.py").write_text("import os, time, asyncio, ctypes\n" + text)

    return _program


MANY = """
def odd(event, context):
    if event["v"] % 50 == 7:
        raise ValueError(f"line {context.line}, record {context.record}")
    if event["v"] % 50 == 9:
        return None
    return [event, {**event, "k": "other"}] if event["v"] % 3 == 0 else event

async def odd_async(event, context):
    await asyncio.sleep(0.001 * (event["v"] % 5))
    return odd(event, context)
"""


@pytest.mark.parametrize("window", ["tumbling:2s", "hopping:2s/1s", "session:40ms"])
def test_programs_come_to_the_same_wherever_they_run(stream, program, tmp_path, window):
    program(MANY)
    lines = [at(number / 100, v=number) for number in range(3000)]
    lines[500:500] = ["\n", "oops\n", " \n"]
    lines[2000:2000] = [at(1, "late", v=1), "[1]\n", "5\n"]
    (tmp_path / "events.jsonl").write_text("".join(lines))
    options = [
        *("events.jsonl", *BY_KIND, "--window", window, "--agg", "count", "--agg", "sum:v"),
        *("--late", "late.jsonl", "--dead-letter", "bad.jsonl"),
    ]
    outcomes = []
    for call, *more in (
        ("odd", "-w", 0), ("odd", "-w", 1), ("odd", "-w", 3), ("odd_async", "-w", 0),
        ("odd_async", "--call-concurrency", 3),
    ):  # fmt: skip
        code, windows, errors = stream(*options, "--call", f"program.py:{call}", *more)
        counted = [line for line in errors.splitlines() if line.startswith("  events")]
        side = [(tmp_path / name).read_text() for name in ("late.jsonl", "bad.jsonl")]
        outcomes.append((code, windows, counted, side))
    assert outcomes[0][0] == 0
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])
    assert '"k":"late"' in side[0]
    letters = [json.loads(line) for line in side[1].splitlines()]
    assert letters[0]["message"] == "ValueError: line 8, record 8"
    assert [one["line"] for one in letters if one["kind"] == "invalid_json"] == [502]
    assert all(one["record"] == one["line"] - 2 for one in letters if one["line"] > 510)


def test_schemas_and_jq_in_workers(stream, tmp_path):
    (tmp_path / "schema.json").write_text('{"properties": {"v": {"maximum": 30}}}')
    text = "".join(at(number / 10, v=number) for number in range(50))
    code, windows, errors = stream(
        "-", *BY_KIND, "--jq", "select(.v != 1)", "--schema", "schema.json", stdin=text
    )
    assert (code, counts(windows)) == (0, [("00", 30)])
    assert "1 dropped, 19 rejected" in errors


def test_an_event_that_kills_its_worker(stream, program, tmp_path):
    program(
        "def die(event):\n"
        "    if event['v'] == 7: os._exit(3)\n"
        "    if event['v'] == 40: ctypes.string_at(0)\n"
        "    return event\n"
    )
    text = "\n" + "".join(at(number / 10, v=number) for number in range(100))
    code, windows, errors = stream(
        "-", *BY_KIND, "--call", "program.py:die", "--dead-letter", "bad.jsonl", stdin=text
    )
    assert (code, counts(windows)) == (0, [("00", 48), ("05", 50)])
    letters = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(one["kind"], one["record"], one["line"]) for one in letters] == [
        ("worker_crash", 8, 9), ("worker_crash", 41, 42),
    ]  # fmt: skip
    assert letters[1]["data"]["v"] == 40
    assert "exited with 3 while at this event" in errors
    assert "killed by SIGSEGV" in errors


def test_many_async_calls_at_once(stream, program):
    program(
        "now = most = 0\n"
        "async def meet(event):\n"
        "    global now, most\n"
        "    now += 1\n"
        "    most = max(most, now)\n"
        "    while most < 20:\n"  # the first ones wait for each other
        "        await asyncio.sleep(0.001)\n"
        "    await asyncio.sleep(0.005)\n"
        "    now -= 1\n"
        "    return {**event, 'most': most}\n"
    )
    text = "".join(at(number / 100, v=number) for number in range(200))
    code, windows, _ = stream(
        "-", "--time", "t", "--agg", "count", "--agg", "max:most", "--call", "program.py:meet",
        "--call-concurrency", 20, stdin=text,
    )  # fmt: skip
    assert code == 0
    assert windows[0]["aggregates"] == {"count": 200, "max_most": 20}


@pytest.mark.parametrize("call", ["same", "same_async"])
def test_a_trickle_through_a_program(live, program, call):
    program("def same(event):\n    return event\nasync def same_async(event):\n    return event\n")
    process = live("-", *BY_KIND, "--call", f"program.py:{call}")
    for second in (1, 6, 11, 16):
        process.stdin.write(at(second).encode())
        process.stdin.flush()
        if second > 1:  # the pipe stays open, so only this event can have ended it
            assert counts([json.loads(process.stdout.readline())]) == [(f"{second - 6:02}", 1)]
    process.send_signal(signal.SIGINT)
    (last,) = map(json.loads, process.stdout.read().splitlines())
    assert (counts([last]), last["partial"]) == ([("15", 1)], True)
    assert process.wait() == 0


def test_no_source_is_silent_while_a_program_has_its_events(live, program):
    program("def slow(event):\n    time.sleep(0.7)\n    return event\n")
    process = live(
        "-", *BY_KIND, "--call", "program.py:slow", "--workers", 1,
        "--window", "tumbling:1s", "--idle-timeout", "200ms",
    )  # fmt: skip
    process.stdin.write("".join(map(at, (1, 1.1, 1.2))).encode())  # read all at once
    process.stdin.flush()
    assert counts([json.loads(process.stdout.readline())]) == [("01", 3)]  # the clock has ended it
    process.stdin.close()
    assert b"3 in windows\n" in process.stderr.read()
    assert process.wait() == 0


def test_workers_with_programs_that_are_killed(live, program, tmp_path):
    program(
        "def slow(event):\n"
        "    while event['n'] > 1000 and not os.path.exists('go-on'): time.sleep(0.002)\n"
        "    time.sleep(0.002)\n"
        "    return event\n"
    )
    process = live("-", *BY_KIND, "--call", "program.py:slow", "--dead-letter", "bad.jsonl")
    text = "".join(at(number / 100, n=number) for number in range(2000)).encode()
    feeder = threading.Thread(target=lambda: (process.stdin.write(text), process.stdin.close()))
    feeder.start()
    killed: list[int] = []

    def new_workers():
        return [worker for worker in children(process.pid) if worker not in killed]

    while len(killed) < 3:
        wait_until(new_workers, running=process)
        workers = new_workers()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        killed.extend(workers)
        time.sleep(0.4)  # in which events are worked on again
    (tmp_path / "go-on").touch()
    feeder.join()
    windows = [json.loads(line) for line in process.stdout]
    assert process.wait() == 0
    blamed = (tmp_path / "bad.jsonl").read_text().splitlines()  # one that was killed twice
    assert sum(window["aggregates"]["count"] for window in windows) + len(blamed) == 2000
    assert len(blamed) < len(killed)


def test_what_a_program_prints_is_no_window(stream, program):
    program("def loud(event):\n    print('hello')\n    return event\n")
    code, windows, errors = stream("-", *BY_KIND, "--call", "program.py:loud", stdin=at(1) + at(2))
    assert (code, counts(windows)) == (0, [("00", 2)])
    assert errors.count("hello") == 2


# --- limits of times and windows


def test_texts_that_are_numbers_are_so_in_any_company(stream):
    """Python parses some texts of digits as dates."""
    texts = ["20260131112", "1770111212345"]
    alone = [stream("-", "--time", "t", stdin=json.dumps({"t": text}) + "\n")[1] for text in texts]
    bad = '{"t": "soon"}\n'
    apart = [
        stream("-", "--time", "t", stdin=json.dumps({"t": text}) + "\n" + bad)[1] for text in texts
    ]
    assert alone == apart
    assert [windows[0]["window_start"] for windows in alone] == [
        "2612-01-08T06:11:50Z", "2026-02-03T09:33:30Z",
    ]  # fmt: skip


FAR = [
    '{"t": "0001-01-01T00:00:00Z"}\n', '{"t": "2024-02-29T23:59:59.9999999Z"}\n',
    '{"t": "2024-02-29T23:59:60Z"}\n', '{"t": "9999-12-30T23:59:59.999999Z"}\n',
]  # fmt: skip


def test_far_apart(stream):
    code, windows, _ = stream("-", "--time", "t", "--window", "tumbling:1d", stdin="".join(FAR))
    assert code == 0
    assert [(one["window_start"], one["window_end"]) for one in windows] == [
        ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"),
        ("2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z"),
        ("9999-12-30T00:00:00Z", "9999-12-31T00:00:00Z"),
    ]


_BOTH = ["starts before the year 1", "ends after the year 9999"]


@pytest.mark.parametrize(
    "target", ["-", "w.jsonl", "w.csv", "sqlite:///w.db --table w", "duckdb:///w.db --table w"]
)
@pytest.mark.parametrize(
    ("window", "reasons"),
    [
        ("tumbling:7d", _BOTH),
        ("hopping:2d/1d", _BOTH),
        ("session:30h", _BOTH[1:]),
        ("tumbling:1000000d", _BOTH),
    ],
)
def test_windows_without_a_date_are_refused(stream, tmp_path, window, reasons, target):
    last = '{"t": "9999-12-31T23:59:59Z"}\n'
    code, _, errors = stream(
        "-", "--time", "t", "--window", window, "--to", *target.split(),
        "--lateness", "4000000d", "--report", "report.json", stdin="".join([*FAR[:3], last]),
    )  # fmt: skip
    assert code == 0
    assert f"{4 - len(reasons)} in windows, {len(reasons)} rejected" in errors
    told = [
        one["message"] for one in json.loads((tmp_path / "report.json").read_text())["failures"]
    ]
    assert told == [f"'t' belongs to a window of {window} that {reason}" for reason in reasons]


def test_sessions_longer_than_all_time_are_refused(stream):
    code, windows, errors = stream("-", *BY_KIND, "--window", "session:10000000d", stdin=at(1))
    assert (code, windows) == (1, [])
    assert "that ends after the year 9999" in errors
    code, _, errors = stream("-", "--time", "arrival", "--window", "session:10000000d")
    assert code == 2
    assert "the present time belongs to a window" in " ".join(errors.split())


def test_one_bad_clock_among_many_events(stream):
    lines = [at(number / 100) for number in range(3000)]
    lines[1000] = '{"t": "2099-01-01T00:00:00Z", "k": "a"}\n'
    code, windows, errors = stream(
        "-", *BY_KIND, "--max-future", "1h", "--window", "tumbling:10s", stdin="".join(lines)
    )
    assert (code, counts(windows)) == (0, [("00", 1000), ("10", 999), ("20", 1000)])
    assert "2,999 in windows, 1 rejected" in errors
    assert "--max-future" in errors
