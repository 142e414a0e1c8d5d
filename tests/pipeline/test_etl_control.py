"""The controls of `asyncbatch etl`: workers, limits of time and failures, the lock."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.commands import COMMAND, environment
from tests.processes import wait_until

PIPELINE = """
name = "controlled"
[[source]]
type = "files"
paths = ["in/"]
[[transform]]
type = "call"
function = "clean.py:clean"
[sink]
to = "sqlite:///people.db"
table = "people"
key = ["id"]
"""
CLEAN = """
import os, time

def clean(record):
    if record.get("slow"):
        open("at-it", "w").close()
        time.sleep(3600)
    if record.get("bad"):
        raise ValueError("bad")
    return {"id": record["id"], "pid": os.getpid()}
"""


@pytest.fixture
def folder(files):
    def _folder(*records):
        numbered = {f"in/{at}.json": json.dumps(one) for at, one in enumerate(records)}
        return files({"people.toml": PIPELINE, "clean.py": CLEAN, **numbered})

    return _folder


def rows(folder):
    with closing(sqlite3.connect(folder / "people.db")) as database:
        return database.execute("select id, pid from people order by id").fetchall()


def test_workers_are_as_many_as_asked_for(folder, etl):
    place = folder(*({"id": n} for n in range(30)))
    assert etl("people.toml", "--workers", "0").returncode == 0
    (alone,) = {pid for _, pid in rows(place)}
    assert etl("people.toml", "--workers", "1", "--full-refresh").returncode == 0
    (worker,) = {pid for _, pid in rows(place)}
    assert alone != worker


def test_failures_within_the_budget_are_a_success(folder, etl):
    folder({"id": 1}, {"id": 2, "bad": True}, {"id": 3})
    assert etl("people.toml").returncode == 1
    assert etl("people.toml", "--full-refresh", "--max-failures", "2").returncode == 0
    stopped = etl("people.toml", "--full-refresh", "--fail-fast")
    assert stopped.returncode == 1
    assert "--max-failures allows" in stopped.stderr + stopped.stdout
    both = etl("people.toml", "--fail-fast", "--max-failures", "1")
    assert both.returncode == 2


def test_a_second_run_leaves_while_the_lock_is_held(folder, etl):
    place = folder({"id": 1}, {"id": 2, "slow": True})
    # The option must not take the pipeline file after it as its value.
    with subprocess.Popen(
        [*COMMAND, "etl", "--lock", "people.toml", "--timeout", "3600"],
        cwd=place, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    ) as first:  # fmt: skip
        try:
            wait_until((place / "at-it").exists, running=first)
            second = etl("people.toml", "--lock", "--limit", "1")
            assert second.returncode == 75
            assert f"process {first.pid}" in second.stderr
            other = ("--lock", "--set", "sink.to=sqlite:///o.db", "--timeout", "0.5")
            assert etl("people.toml", *other).returncode == 1  # another target: it ran
        finally:
            first.kill()


def test_a_lock_without_a_run_is_a_mistake(folder, etl):
    folder({"id": 1})
    assert etl("people.toml", "--lock-wait", "1").returncode == 2
    assert "--lock people.toml" in etl("people.toml", "--lock=people.toml").stderr
