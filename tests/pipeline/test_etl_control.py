"""The controls of `asyncbatch etl`: workers, limits of time and failures, the lock."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.commands import CommandProcess, environment, run_command_text
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
    with CommandProcess(
        ["etl", "--lock", "people.toml", "--timeout", "3600"],
        cwd=place, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    ) as first:  # fmt: skip
        try:
            wait_until((place / "at-it").exists, running=first)
            second = etl("people.toml", "--lock", "--max-records", "1")
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


REPLACED = """
name = "replaced"
[[source]]
type = "files"
paths = ["in/"]
[sink]
to = "sqlite:///a.db"
table = "people"
key = ["id"]
mode = "upsert"
"""


@pytest.fixture
def replaced(files):
    files({"in/0.json": '{"id": 1}', "in/1.json": "{]", "p.toml": REPLACED})
    return files


def test_flags_replace_the_outputs_of_the_file(replaced, etl, tmp_path):
    for name in ("b.jsonl", "b.csv"):  # neither has keys of a database
        done = etl("p.toml", "--to", name, "--dead-letter", f"{name}.bad", "-q")
        assert done.returncode == 1
        assert (tmp_path / name).read_text() in ('{"id":1}\n', "id\n1\n")
        letter = json.loads((tmp_path / f"{name}.bad").read_text())
        assert (letter["file"], letter["kind"]) == ("in/1.json", "invalid_json")
    assert etl("p.toml", "--to", "sqlite:///b.db", "--table", "others", "-q").returncode == 1
    with closing(sqlite3.connect(tmp_path / "b.db")) as database:
        assert database.execute("SELECT id FROM others").fetchall() == [(1,)]
    assert not (tmp_path / "a.db").exists()
    checked = etl("p.toml", "--check", "--to", "${A}.jsonl")
    assert "into ${A}.jsonl" in checked.stdout  # as it is written


def test_resume_is_the_default_and_the_contrary_of_full_refresh(replaced, etl):
    def skipped(*arguments):
        files = json.loads(etl("p.toml", "-o", "json", *arguments).stdout)["files"]
        return files["total"], files["skipped"]

    assert skipped() == (2, 0)
    assert skipped("--resume") == skipped() == (2, 1)
    assert skipped("--full-refresh") == (2, 0)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--resume", "--full-refresh"), "choose one"),
        (("--to", "x.jsonl", "--set", "sink.to=y"), "--to and --set sink.to are the same value"),
        (("--dead-letter", "x", "--set", "dead_letter.to=y"), "give one of them"),
        (("--to", "x.jsonl", "--table", "t"), "sink.table: is only for databases"),
        (("--to", "x.nothing"), "sink.to: is not a known target"),
        (("--retries", "-1"), "--retries"),
    ],
)
def test_flags_that_contradict_the_file(replaced, etl, flags, told):
    done = etl("p.toml", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_a_lock_tells_the_tables_apart(replaced, tmp_path):
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    for flags in ((), ("--table", "t"), ("--to", "x.jsonl"), ("--dead-letter", "x")):
        done = run_command_text("etl", "p.toml", "--lock", *flags, cwd=tmp_path, env=env)
        assert done.returncode == 1
    assert len(list((tmp_path / "state" / "asyncbatch" / "locks").iterdir())) == 3


FLAKY = """
import os

async def flaky(record):
    if not os.path.exists("tried"):
        open("tried", "w").close()
        raise ConnectionResetError("lost")
    return record
"""


@pytest.mark.parametrize("where", ["flag", "key"])
def test_temporary_failures_are_retried(files, etl, where):
    key = "retries = 1\nretry_delay = 0.001\n" if where == "key" else "retry_delay = 0.001\n"
    call = '[[transform]]\ntype = "call"\nfunction = "flaky.py:flaky"\n'
    text = REPLACED.replace("[sink]", f"{key}{call}[sink]")
    files({"in/0.json": '{"id": 1}', "p.toml": text, "flaky.py": FLAKY})
    done = etl("p.toml", *(("--retries", "1") if where == "flag" else ()), "-o", "json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["retries"] == 1
