"""Functions that crash, hang or break off cost one file, or one event: in each command the same."""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

import pytest

from tests.commands import ROOT, run_command_text

FUNCTIONS = """
import asyncio, ctypes, os, signal, time

BAD = 5, 20

def tell(record):
    descriptor = os.open("tries", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"%d " % record["n"])
    os.close(descriptor)

def exits(record):
    tell(record)
    return os._exit(3) if record["n"] in BAD else record

def segfaults(record):
    tell(record)
    return ctypes.string_at(0) if record["n"] in BAD else record

def is_killed(record):
    tell(record)
    return os.kill(os.getpid(), signal.SIGKILL) if record["n"] in BAD else record

def exits_once(record):
    if record["n"] in BAD and not os.path.exists(f"died-{record['n']}"):
        open(f"died-{record['n']}", "w").close()
        os._exit(3)
    return record

def spins(record):
    tell(record)
    while record["n"] in BAD:
        pass
    return record

def sleeps(record):
    tell(record)
    if record["n"] in BAD:
        try:
            time.sleep(1000)
        except BaseException:
            time.sleep(1000)
    return record

async def waits(record):
    tell(record)
    await asyncio.sleep(1000 if record["n"] in BAD else 0)
    return record

async def returns_too_late(record):
    tell(record)
    if record["n"] in BAD:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return record
    return record

async def breaks_off(record):
    tell(record)
    if record["n"] in BAD:
        raise asyncio.CancelledError
    return record

async def yields_many(record):
    for _ in range(2500 if record["n"] in BAD else 1):
        yield record
"""
PIPELINE = """
name = "isolated"
[[source]]
type = "files"
paths = ["in/"]
[[transform]]
type = "call"
function = "fn.py:{function}"
[sink]
to = "o.jsonl"
"""
NUMBERS = range(30)
BAD = (5, 20)
GOOD = Counter(set(NUMBERS) - set(BAD))


class Outcome(NamedTuple):
    """The end of a command: its number of good records, of each, and the rejected ones."""

    good: Counter[int]
    rejected: list[tuple[int, str, str]]  # number, kind and message
    failed: bool  # whether the exit status is that of a command of which some input failed
    stderr: str


@pytest.fixture(params=["run", "etl", "stream"])
def call(request, files):
    """Call a function of `fn.py` with each record: of files of one record, or of events."""
    command = request.param
    events = {n: json.dumps({"n": n, "t": 1_767_225_600 + n / 100}) for n in NUMBERS}
    inputs = {f"in/{n:02}.json": text for n, text in events.items()}
    inputs["e.jsonl"] = "".join(f"{text}\n" for text in events.values())

    def _call(function, *options, env=None):
        folder = files({**inputs, "fn.py": FUNCTIONS, "p.toml": PIPELINE.format(function=function)})
        arguments = {
            "run": ("in", "--call", f"fn.py:{function}", "--to", "o.jsonl"),
            "etl": ("p.toml",),
            "stream": (
                "e.jsonl", "--call", f"fn.py:{function}", "--time", "t", "--by", "n",
                "--window", "tumbling:1h", "--to", "o.jsonl",
            ),
        }[command]  # fmt: skip
        done = run_command_text(
            command,
            *arguments,
            *options,
            "-w",
            "2",
            "--report",
            "r.json",
            "-q",
            cwd=folder,
            env=env,
        )
        report = json.loads((folder / "r.json").read_text())
        rows = []
        if (folder / "o.jsonl").exists():
            rows = [json.loads(line) for line in (folder / "o.jsonl").read_text().splitlines()]
        if command == "stream":
            good = Counter({row["key"]["n"]: row["aggregates"]["count"] for row in rows})
            numbers = [one["record"] - 1 for one in report["failures"]]
        else:
            good = Counter(row["n"] for row in rows)
            numbers = [int(one["file"][3:5]) for one in report["failures"]]
        rejected = [
            (number, one["kind"], one["message"])
            for number, one in zip(numbers, report["failures"], strict=True)
        ]
        # A stream succeeds unless all of its events are rejected.
        expected = 1 if rejected and command != "stream" else 0
        return Outcome(good, sorted(rejected), done.returncode != expected, done.stderr)

    return _call


def tries(folder):
    return Counter(map(int, (folder / "tries").read_text().split()))


WAYS = {
    "exits": ("exited with 3", ""),
    "segfaults": ("was killed by SIGSEGV", " (a fault in compiled code)"),
    "is_killed": ("was killed by SIGKILL", "; if memory ran out, use fewer --workers"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_kills_its_worker_is_tried_twice_and_fails_alone(call, tmp_path, way):
    outcome = call(way)
    assert outcome.good == GOOD
    assert [(number, kind) for number, kind, _ in outcome.rejected] == [
        (5, "worker_crash"), (20, "worker_crash"),
    ]  # fmt: skip
    how, advice = WAYS[way]
    for _, _, message in outcome.rejected:
        assert message.startswith(f"its worker process {how} while ")
        assert advice in message
    assert not outcome.failed
    counts = tries(tmp_path)
    assert (counts[5], counts[20]) == (2, 2)


def test_what_kills_its_worker_once_costs_nothing(call, tmp_path):
    outcome = call("exits_once")
    assert (outcome.good, outcome.rejected, outcome.failed) == (Counter(NUMBERS), [], False)
    assert all((tmp_path / f"died-{number}").exists() for number in BAD)


@pytest.mark.parametrize("function", ["spins", "sleeps", "waits", "returns_too_late"])
def test_what_takes_too_long_is_tried_once_and_fails_alone(call, tmp_path, function):
    outcome = call(function, "--timeout", "2")
    late = "took longer than 2 s (--timeout)"
    assert outcome.rejected == [(5, "timeout", late), (20, "timeout", late)]
    assert (outcome.good, outcome.failed) == (GOOD, False)
    counts = tries(tmp_path)
    assert (counts[5], counts[20]) == (1, 1)


def test_an_async_function_that_breaks_off_rejects_its_record(call):
    outcome = call("breaks_off")
    assert outcome.rejected == [
        (5, "transform", "CancelledError"), (20, "transform", "CancelledError"),
    ]  # fmt: skip
    assert outcome.good == GOOD


def test_an_async_function_may_yield_many_records(call):
    outcome = call("yields_many")
    assert outcome.good == GOOD + Counter(dict.fromkeys(BAD, 2500))
    assert outcome.rejected == []


def test_workers_that_cannot_begin_end_the_command(call, files):
    """Workers differ from the command in the arguments of Python."""
    program = "import os, sys\nif '-c' in sys.orig_argv: os._exit(9)\n"
    folder = files({"site/sitecustomize.py": program})
    outcome = call("exits", env={"PYTHONPATH": f"{folder}/site:{ROOT}"})
    assert "8 worker processes in a row ended before they began to work" in outcome.stderr
    assert "the last exited with 9" in outcome.stderr
    assert outcome.failed
    assert not outcome.good
