"""Files over the time limit fail, wherever they hang; other files are processed once."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing

import pytest

from asyncbatch import process_files
from asyncbatch.core.progress import FileStopwatch, Progress
from tests.commands import CommandProcess, environment
from tests.conftest import many

FUNCTIONS = """
import asyncio, os, time

def tell(record):
    descriptor = os.open("tries", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"%d " % record["n"])
    os.close(descriptor)

def spins(record):
    tell(record)
    while record["n"] in (5, 20):
        pass
    return record

def sleeps(record):
    tell(record)
    if record["n"] in (5, 20):
        try:
            time.sleep(1000)
        except BaseException:
            time.sleep(1000)
    return record

async def waits(record):
    tell(record)
    await asyncio.sleep(1000 if record["n"] in (5, 20) else 0)
    return record

async def retries_for_ever(record):
    if record["n"] in (5, 20):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return record
    return record
"""
LATE = "took longer than 1 s (--timeout)"


@pytest.fixture
def numbered(files):
    texts = {f"in/{n:02}.json": json.dumps({"n": n}) for n in range(40)}
    return files({"fn.py": FUNCTIONS, **texts})


def tries(folder):
    return Counter((folder / "tries").read_text().split())


def late(report):
    found = [(one["file"], one["kind"], one["message"]) for one in report["failures"]]
    assert found == [("in/05.json", "timeout", LATE), ("in/20.json", "timeout", LATE)]
    assert report["files"]["succeeded"] == report["records"]["written"] == 38
    assert report["files"]["total"] == 40


def rows(folder, target):
    if target == "out/":
        found = sorted((folder / "out/in").iterdir())
        return [json.loads(path.read_text())["n"] for path in found]
    with closing(sqlite3.connect(folder / "o.db")) as connection:
        return [number for (number,) in connection.execute("SELECT n FROM t ORDER BY n")]


@pytest.mark.parametrize("target", ["out/", "sqlite:///o.db"])  # for o.jsonl see test_isolation
@pytest.mark.parametrize("function", ["spins", "sleeps", "waits", "retries_for_ever"])
def test_a_function_that_hangs_costs_its_file_only(run, numbered, function, target):
    table = ("--table", "t") if "sqlite" in target else ()
    options = ("--to", target, *table, "--timeout", "1", "-w", "2", "-o", "json")
    outcome = run("in", "--call", f"fn.py:{function}", *options)
    late(outcome.json)
    assert rows(numbered, target) == [n for n in range(40) if n not in (5, 20)]
    if function in ("spins", "sleeps"):
        counts = tries(numbered)
        assert (counts.pop("5"), counts.pop("20")) == (1, 1)
        assert len(counts) == 38
        assert max(counts.values()) <= 3  # once more for each of the others that was late


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_jq_program_that_never_ends(run, numbered, workers):
    program = "if .n == 5 or .n == 20 then (def f: f; f) else . end"
    options = ("--to", "o.jsonl", "--timeout", "1", "-w", workers, "-o", "json")
    late(run("in", "--jq", program, *options).json)


def test_a_pipe_without_a_writer(run, numbered):
    os.mkfifo(numbered / "pipe")
    outcome = run("pipe", "in/01.json", "--timeout", "1", "-o", "json")
    [failure] = outcome.json["failures"]
    assert (failure["file"], failure["kind"]) == ("pipe", "timeout")
    assert outcome.json["files"]["succeeded"] == 1


def test_standard_input_that_does_not_end(files):
    folder = files({"a.json": "1"})
    started = CommandProcess(
        ["run", "-", "a.json", "--timeout", "1", "-o", "json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        cwd=folder,
    )
    with started as command:
        assert command.stdin is not None
        assert command.stdout is not None
        report = json.loads(command.stdout.read())
        assert [(one["file"], one["kind"]) for one in report["failures"]] == [("-", "timeout")]
        assert report["files"]["total"] == 2


def test_nothing_of_a_file_that_is_late_near_its_end_counts(run, files):
    lines = ["bad", '{"n": 1}'] * 5000 + ['{"n": 5}']
    folder = files({"fn.py": FUNCTIONS, "in/05.jsonl": "\n".join(lines), "in/6.json": '{"n": 6}'})
    options = ("--to", "o.jsonl", "--dead-letter", "bad.jsonl", "--timeout", "2", "-o", "jsonl")
    outcome = run("in", "--call", "fn.py:spins", *options)
    assert [(event["file"], event["status"]) for event in outcome.events] == [
        ("in/05.jsonl", "failed"), ("in/6.json", "success"),
    ]  # fmt: skip
    summary = json.loads(outcome.stdout.splitlines()[-1])
    assert summary["records"]["rejected"] == 0
    assert [one["kind"] for one in summary["failures"]] == ["timeout"]
    assert (folder / "o.jsonl").read_text() == '{"n":6}\n'
    [letter] = (folder / "bad.jsonl").read_text().splitlines()
    assert json.loads(letter)["kind"] == "timeout"


def test_a_reader_that_is_slow_makes_no_file_late(files):
    """The worker waits for a slow reader of the output in the middle of a file."""
    line = json.dumps("x" * 10_000)
    folder = files({f"in/{n}.jsonl": "\n".join([line] * n) for n in (100, 2000)})
    started = CommandProcess(
        ["run", "in", "--jq", ".", "--to", "-", "-w", "1", "--timeout", "10", "-q"],
        stdout=subprocess.PIPE,
        env=environment(),
        cwd=folder,
    )
    with started as command:
        assert command.stdout is not None
        time.sleep(12)
        written = sum(1 for _ in command.stdout)
    assert (command.returncode, written) == (0, 2100)


async def test_the_library_has_it_too(files):
    folder = files(many(3))
    os.mkfifo(folder / "pipe.json")
    paths = [folder / "pipe.json", *sorted(folder.glob("0*.json"))]
    results = [result async for result in process_files(*paths, timeout=1)]
    assert [result.status for result in results] == ["failed", "success", "success", "success"]
    assert results[0].error is not None
    assert results[0].error.kind == "timeout"


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
def test_what_is_no_timeout(run, files, seconds):
    files({"a.json": "1"})
    assert run("a.json", "--timeout", seconds).code == 2


class TestStopwatch:
    """The stopwatch is asked once a second, in simulated time."""

    def overdue(self, stopwatch, progress, *, start=0.0, count=10):
        return [stopwatch.overdue_file(progress, start + second) for second in range(count)]

    def test_a_file_is_late_after_its_time(self):
        progress = Progress()
        progress.begin_file(7)
        assert self.overdue(FileStopwatch(3, 1), progress, count=5) == [None, None, None, 7, 7]

    def test_each_file_has_time_of_its_own(self):
        stopwatch, progress = FileStopwatch(3, 1), Progress()
        for number in range(4):
            progress.begin_file(number)
            assert set(self.overdue(stopwatch, progress, start=number * 3, count=3)) == {None}

    def test_what_is_between_files_is_never_late(self):
        progress = Progress()
        progress.begin_batch()
        assert set(self.overdue(FileStopwatch(3, 1), progress)) == {None}

    def test_waiting_for_us_takes_no_time(self):
        stopwatch, progress = FileStopwatch(3, 1), Progress()
        progress.begin_file(7)
        progress.begin_waiting()
        assert set(self.overdue(stopwatch, progress)) == {None}
        progress.end_waiting()
        assert self.overdue(stopwatch, progress, start=10, count=3) == [None, None, 7]

    def test_the_same_file_in_another_worker_begins_anew(self):
        stopwatch, first, second = FileStopwatch(3, 1), Progress(), Progress()
        first.begin_file(7)
        self.overdue(stopwatch, first, count=3)
        second.begin_file(7)
        assert self.overdue(stopwatch, second, start=3, count=4) == [None, None, None, 7]

    def test_a_time_in_which_nobody_looked_counts_little(self):
        stopwatch, progress = FileStopwatch(3, 1), Progress()
        progress.begin_file(7)
        assert [stopwatch.overdue_file(progress, now) for now in (0, 1000, 1001)] == [None, None, 7]
