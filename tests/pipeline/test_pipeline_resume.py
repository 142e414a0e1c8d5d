"""Pipelines of programs that skip the inputs that an earlier run has finished."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing

import pytest

import asyncbatch
from asyncbatch.http import HttpSettings
from tests.commands import PATIENCE, environment, run_command_text
from tests.processes import wait_until
from tests.servers.api import ApiServer


@pytest.fixture
def place(files, monkeypatch):
    folder = files({f"in/{number:02}.json": json.dumps({"n": number}) for number in range(5)})
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    return folder


async def outcome(*arguments, **options):
    """Run a pipeline over the folder; return its numbers of done and skipped files."""
    pipeline = asyncbatch.Pipeline("in", *arguments, **options)
    tally = (await pipeline.run()).tally
    return tally.succeeded, tally.skipped


def numbers(target):
    if target.startswith("sqlite"):
        with closing(sqlite3.connect(target.removeprefix("sqlite:///"))) as database:
            return sorted(n for (n,) in database.execute("SELECT n FROM t"))
    with open(target) as file:
        return sorted(json.loads(line)["n"] for line in file)


@pytest.mark.parametrize("target", ["out.jsonl", "sqlite:///out.db"])
async def test_a_second_run_reads_only_what_is_new_or_changed(place, target):
    options = {"table": "t"} if target.startswith("sqlite") else {"ledger": "my.ledger"}
    assert await outcome([asyncbatch.jq("{n}")], target, resume=True, **options) == (5, 0)
    assert await outcome([asyncbatch.jq("{n}")], target, resume=True, **options) == (0, 5)
    (place / "in" / "05.json").write_text('{"n": 5}')
    assert await outcome([asyncbatch.jq("{n}")], target, resume=True, **options) == (1, 5)
    assert numbers(target) == [0, 1, 2, 3, 4, 5]
    assert (place / "my.ledger").exists() == ("ledger" in options)


async def test_without_a_sink_it_counts_what_is_new(place):
    assert await outcome(resume=True) == (5, 0)
    assert await outcome(resume=True) == (0, 5)
    assert await outcome() == (5, 0)


async def test_a_ledger_alone_records_for_a_later_run(place):
    assert await outcome((), "out.jsonl", ledger="my.ledger") == (5, 0)
    assert await outcome((), "out.jsonl", ledger="my.ledger") == (5, 0)
    assert await outcome((), "out.jsonl", ledger="my.ledger", resume=True) == (0, 5)
    assert numbers("out.jsonl") == [0, 1, 2, 3, 4]


async def test_it_goes_on_with_the_job_of_the_command(place):
    flags = ("--jq", "{n}", "--to", "out.jsonl", "--resume")
    ran = run_command_text(
        "run", "in", *flags, cwd=place, env={"XDG_STATE_HOME": str(place / "state")}
    )
    assert ran.returncode == 0
    (place / "in" / "05.json").write_text('{"n": 5}')
    assert await outcome([asyncbatch.jq("{n}")], "out.jsonl", resume=True) == (1, 5)
    assert numbers("out.jsonl") == [0, 1, 2, 3, 4, 5]


PROGRAM = """
import asyncio, asyncbatch

async def main():
    pipeline = asyncbatch.Pipeline(
        "in", [asyncbatch.call("slow.py:slow")], {target!r}, resume=True, {options}
    )
    tally = (await pipeline.run()).tally
    print(tally.succeeded, tally.skipped)

asyncio.run(main())
"""
SLOW = """
import os, time

def slow(record):
    if record["n"] == 40 and os.path.exists("hold"):
        open("at-it", "w").close()
        time.sleep(3600)
    return record
"""


@pytest.mark.parametrize("target", ["out.jsonl", "sqlite:///out.db"])
def test_a_killed_pipeline_loses_and_doubles_nothing(place, files, target):
    more = {f"in/{number:02}.json": json.dumps({"n": number}) for number in range(60)}
    options = 'table="t"' if target.startswith("sqlite") else 'ledger="my.ledger"'
    files(
        {
            **more,
            "slow.py": SLOW,
            "p.py": PROGRAM.format(target=target, options=options),
            "hold": "",
        }
    )
    program = [sys.executable, "p.py"]
    env = environment(XDG_STATE_HOME=str(place / "state"))
    process = subprocess.Popen(program, cwd=place, env=env)
    try:
        wait_until((place / "at-it").exists, running=process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    (place / "hold").unlink()
    done, skipped = _finish(program, place, env)
    assert done + skipped == 60
    assert Counter(numbers(target)) == Counter(range(60))
    assert _finish(program, place, env) == (0, 60)


def _finish(program, place, env):
    ended = subprocess.run(
        program, check=True, capture_output=True, text=True, cwd=place, env=env, timeout=PATIENCE
    )
    return tuple(map(int, ended.stdout.split()))


async def test_urls_into_a_database_are_carried_on_or_read_again(place):
    with ApiServer([{"n": 1}, {"n": 2}], size=1) as api:
        source = HttpSettings(urls=(api.url("/page?page=1"),), records="/items")
        for _ in range(2):
            pipeline = asyncbatch.Pipeline(
                source, (), "sqlite:///out.db", table="t", key="n", resume=True
            )
            assert (await pipeline.run()).status == "success"
        assert numbers("sqlite:///out.db") == [1]
        with pytest.raises(asyncbatch.UsageError, match="URLs need a database"):
            asyncbatch.Pipeline(source, (), "out.jsonl", resume=True)


_HOLD = """CREATE TRIGGER hold BEFORE INSERT ON asyncbatch_ledger WHEN NEW.outcome = 'success'
BEGIN SELECT RAISE(ABORT, 'held'); END"""


def test_a_run_that_ends_between_its_last_rows_and_its_end_is_completed(place):
    """The trigger ends it where a kill can: the rows are committed, that the URL is done is not."""
    with ApiServer([{"n": n} for n in range(6)], size=2) as api:

        def etl(path, *more):
            (place / "p.toml").write_text(
                f'name = "test"\n[[source]]\ntype = "http"\nurls = ["{api.url(path)}"]\n'
                'records = "/items"\npagination = { type = "next_url", next = "/links/next" }\n'
                '[[transform]]\ntype = "call"\nfunction = "slow.py:slow"\n'
                '[sink]\nto = "sqlite:///out.db"\ntable = "t"\nbatch_size = 1\n'
                "flush_interval = 0.01\n"
            )
            return run_command_text("etl", "p.toml", "--workers", "0", *more, cwd=place)

        (place / "slow.py").write_text(
            "import time\ndef slow(record):\n    time.sleep(0.05)\n    return record\n"
        )
        assert etl("/next_url?at=4").returncode == 0  # it makes the ledger
        with closing(sqlite3.connect("out.db")) as database:
            database.executescript(f"DELETE FROM t; {_HOLD}")
        assert etl("/next_url").returncode == 1
        with closing(sqlite3.connect("out.db")) as database:
            states = database.execute("SELECT outcome, bookmark FROM asyncbatch_ledger").fetchall()
            database.execute("DROP TRIGGER hold")
        assert ("begun", True) in [(one, '"is_last":true' in mark) for one, mark in states]
        asked = api.requests
        again = etl("/next_url")
        assert (again.returncode, api.requests) == (0, asked), again.stderr
        assert numbers("sqlite:///out.db") == [0, 1, 2, 3, 4, 5]
        once_more = etl("/next_url")
        assert (once_more.returncode, "in the table already" in once_more.stdout) == (1, True)


class Sink:
    def load(self, records):
        pass


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        (([{"n": 1}], (), "out.jsonl"), {"resume": True}, "files or URLs as sources"),
        ((["in", iter([{"n": 1}])], (), "out.jsonl"), {"ledger": "x"}, "files or URLs as sources"),
        (("in", (), Sink()), {"resume": True}, "a sink with a name"),
        (("in", [lambda record: record], "out.jsonl"), {"resume": True}, "cannot be identified"),
        (("in", (), "-"), {"resume": True}, "no run can be resumed"),
        (("in", (), "sqlite:///x.db"), {"table": "t", "ledger": "x"}, "keeps its own ledger"),
        (("in", (), "out.jsonl"), {"resume": True, "dedupe": "n"}, "one run must write"),
    ],
)
def test_what_cannot_be_resumed_is_refused(place, arguments, options, told):
    with pytest.raises(asyncbatch.UsageError, match=told):
        asyncbatch.Pipeline(*arguments, **options)
