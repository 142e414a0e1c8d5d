"""Repeated runs: skipped inputs, and targets that equal those of one fresh run."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.commands import PATIENCE, CommandProcess, environment
from tests.processes import wait_until

TABLES = {
    "sqlite append": ("sqlite:///{}.db", "--table", "t"),
    "sqlite upsert": ("sqlite:///{}.db", "--table", "t", "--key", "id"),
    "duckdb append": ("duckdb:///{}.duckdb", "--table", "t"),
    "duckdb upsert": ("duckdb:///{}.duckdb", "--table", "t", "--key", "id"),
}
REPLACED = {
    "sqlite replace": ("sqlite:///{}.db", "--table", "t", "--mode", "replace"),
    "duckdb replace": ("duckdb:///{}.duckdb", "--table", "t", "--mode", "replace"),
}
FILES = {
    "jsonl": ("{}.jsonl",),
    "jsonl.gz": ("{}.jsonl.gz",),
    "csv": ("{}.csv",),
    "parquet": ("{}.parquet",),
}
FOLDER = {"folder": ("{}/",)}


def to(kind: str, name: str = "out") -> tuple[str, ...]:
    """Return the options for a target of this kind and name."""
    options = (TABLES | REPLACED | FILES | FOLDER)[kind]
    return "--to", options[0].format(name), *options[1:]


def rows(folder, kind, name="out"):
    """Return the content of a target: sorted rows of a table; texts by path of a folder."""
    place = folder / to(kind, name)[1].rpartition(":///")[2]
    if kind == "folder":
        return {
            str(path.relative_to(place)): gzip.decompress(path.read_bytes())
            if path.suffix == ".gz"
            else path.read_text()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
    if kind.startswith("sqlite"):
        with closing(sqlite3.connect(place)) as database:
            database.row_factory = sqlite3.Row
            return sorted(json.dumps(dict(row)) for row in database.execute("SELECT * FROM t"))
    if kind.startswith("duckdb"):
        with importlib.import_module("duckdb").connect(str(place), read_only=True) as database:
            found = database.execute("SELECT * FROM t")
            names = [column[0] for column in found.description]
            return sorted(
                json.dumps(dict(zip(names, row, strict=True))) for row in found.fetchall()
            )
    if kind == "parquet":
        return importlib.import_module("pyarrow.parquet").read_table(place).to_pylist()
    if kind == "csv":
        return list(csv.reader(place.read_text().splitlines()))
    opened = gzip.open if kind == "jsonl.gz" else open
    with opened(place, "rt") as lines:
        return list(lines)


def person(number, name="ada"):
    return {"id": number, "name": name, "score": number / 2}


def people(*numbers, name="ada"):
    return json.dumps([person(number, name) for number in numbers])


INPUTS = {
    "in/b.json": people(1, 2),
    "in/c.jsonl": json.dumps(person(3)) + "\n{]\n" + json.dumps(person(4)) + "\n",
    "in/d.json": "[{",
    "in/e.json": "[]",
    "in/sub/f.json": people(5, 6, 7),
}
"""Two good files, an empty one, a partial one, a failed one."""


@pytest.fixture
def go(run, tmp_path):
    """Run with a ledger for this test; return the outcome, whose report is on stdout."""

    def _go(*arguments, env=None, **more):
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        outcome = run(*arguments, "-o", "json", env=state | (env or {}), **more)
        assert outcome.stdout, outcome.stderr
        return outcome

    return _go


def counts(outcome):
    """Return the numbers of succeeded, partial, failed and skipped files."""
    files = outcome.json["files"]
    return tuple(files[name] for name in ("succeeded", "partial", "failed", "skipped"))


def skipped(run, tmp_path, *arguments):
    """Return the files that a run skips, each with the reason."""
    outcome = run(*arguments, "-o", "jsonl", env={"XDG_STATE_HOME": str(tmp_path / "state")})
    return {
        event["file"]: event["reason"]
        for event in outcome.events
        if event.get("status") == "skipped"
    }


@pytest.mark.parametrize("kind", [*TABLES, *FILES, *FOLDER])
def test_what_is_done_is_skipped_and_stays_as_it_is(run, go, files, tmp_path, kind):
    files(INPUTS)
    job = ("in", *to(kind), "--dead-letter", "bad.jsonl")
    assert counts(go(*job)) == (3, 1, 1, 0)
    before, letters = rows(tmp_path, kind), (tmp_path / "bad.jsonl").read_bytes()
    assert len(before) == {"csv": 8, "folder": 4}.get(kind, 7)
    for _ in range(3):
        again = go(*job, "--resume")
        assert (again.code, counts(again)) == (1, (0, 0, 1, 4)), "the failed one is tried again"
        assert rows(tmp_path, kind) == before
        assert (tmp_path / "bad.jsonl").read_bytes() == letters
        assert again.json["records"]["written"] == 0
    told = skipped(run, tmp_path, *job, "--resume")
    done = dict.fromkeys(("in/b.json", "in/c.jsonl", "in/e.json", "in/sub/f.json"), "done")
    assert told == done


def test_checks_without_a_target_are_resumed_too(run, go, files, tmp_path):
    files(INPUTS)
    assert counts(go("in", "--ledger", "l")) == (3, 1, 1, 0)
    assert counts(go("in", "--ledger", "l", "--resume")) == (0, 0, 1, 4)
    assert counts(go("in", "--resume")) == (3, 1, 1, 0), "another ledger"
    assert counts(go("in", "--resume")) == (0, 0, 1, 4)
    assert len(skipped(run, tmp_path, "in", "--retry-failed")) == 4
    assert counts(go("in", "--force")) == (3, 1, 1, 0)


@pytest.mark.parametrize("kind", [*TABLES, *FILES, *FOLDER])
def test_inputs_that_come_go_change_and_get_well(go, files, tmp_path, kind):
    files(INPUTS)
    job = ("in", *to(kind))
    go(*job)
    files(
        {
            "in/a.json": people(10),
            "in/c2.json": people(11),
            "in/z.json": people(12),
            "in/d.json": people(13),  # was bad
            "in/e.json": people(14),  # had no rows
        }
    )
    assert counts(go(*job, "--resume")) == (5, 0, 0, 3) or kind == "csv"
    fresh = go("in", *to(kind, "fresh"))
    assert counts(fresh) == (7, 1, 0, 0)
    assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")
    assert counts(go(*job, "--resume")) == (0, 0, 0, 8)
    assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")


@pytest.mark.parametrize("kind", [*FILES, "sqlite upsert", "duckdb upsert"])
def test_inputs_that_are_changed_removed_renamed_or_spoilt(go, files, tmp_path, kind):
    files(INPUTS)
    job = ("in", *to(kind))
    go(*job)
    folder = files({"in/b.json": people(1, 2, name="bob")})
    (folder / "in" / "sub" / "f.json").rename(folder / "in" / "g.json")
    (folder / "in" / "c.jsonl").unlink()
    again = go(*job, "--resume")
    assert counts(again) == (2, 0, 1, 1) or kind == "csv"
    go("in", *to(kind, "fresh"))
    found, fresh = rows(tmp_path, kind), rows(tmp_path, kind, "fresh")
    gone = [json.dumps(person(number)) for number in (3, 4)] if kind in TABLES else []
    assert found == sorted([*fresh, *gone]) if kind in TABLES else found == fresh
    if kind in FILES:
        files({"in/b.json": "nonsense"})
        go(*job, "--resume")
        go("in", *to(kind, "fresh"))
        assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")


def test_a_folder_has_what_its_inputs_became_and_keeps_the_rest(go, files, tmp_path):
    folder = files(INPUTS)
    job = ("in", *to("folder"))
    go(*job)
    files({"in/b.json": people(1)})
    (folder / "in" / "sub" / "f.json").rename(folder / "in" / "g.json")
    before = rows(tmp_path, "folder")
    assert counts(go(*job, "--resume")) == (2, 0, 1, 2)
    after = rows(tmp_path, "folder")
    assert after.pop("in/g.json") == before["in/sub/f.json"] == after["in/sub/f.json"]
    assert json.loads(after["in/b.json"]) == [person(1)]


@pytest.mark.parametrize("kind", [*TABLES, *FILES, *FOLDER])
def test_a_touched_file_is_another_unless_contents_are_compared(go, files, tmp_path, kind):
    folder = files({"in/a.json": people(1), "in/b.json": people(2)})
    job = ("in", *to(kind))
    compared = (*job, "--identity", "content")
    go(*compared)
    before, path = rows(tmp_path, kind), folder / "in" / "b.json"
    os.utime(path)
    assert counts(go(*compared, "--resume")) == (0, 0, 0, 2)
    status = path.stat()
    path.write_text(people(3))  # of the same size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    appends = kind.endswith("append")
    assert counts(go(*compared, "--resume"))[int(appends) * 2] >= 1
    assert (rows(tmp_path, kind) == before) == appends
    os.utime(folder / "in" / "b.json", (1, 1))
    again = go(*job, "--resume")
    assert counts(again) == ((0, 0, 1, 1) if appends else (1, 0, 0, 1))


@pytest.mark.parametrize("kind", ["sqlite append", "duckdb append"])
def test_rows_are_not_added_twice_unless_allowed(go, files, tmp_path, kind):
    folder = files({"in/a.json": people(1), "in/b.json": people(2), "in/c.json": "[{"})
    job = ("in", *to(kind))
    go(*job)
    once = rows(tmp_path, kind)
    again = go(*job)
    assert (again.code, counts(again)) == (1, (0, 0, 3, 0))
    messages = [failure["message"] for failure in again.json["failures"]]
    assert "--resume" in messages[0]
    assert "--allow-duplicates" in messages[0]
    files({"in/a.json": people(1, 9)})
    (folder / "in" / "b.json").rename(folder / "in" / "d.json")
    again = go(*job, "--resume")
    by_file = {failure["file"]: failure for failure in again.json["failures"]}
    assert "changed" in by_file["in/a.json"]["message"]
    assert "in/b.json under another name" in by_file["in/d.json"]["message"]
    assert {failure["kind"] for failure in by_file.values()} == {"sink", "invalid_json"}
    assert rows(tmp_path, kind) == once
    allowed = go(*job, "--resume", "--allow-duplicates")
    assert counts(allowed) == (2, 0, 1, 0)
    new = [json.dumps(person(number)) for number in (1, 9, 2)]
    assert rows(tmp_path, kind) == sorted([*once, *new])
    assert counts(go(*job, "--resume")) == (0, 0, 1, 2)
    assert counts(go(*job, "--force")) == (2, 0, 1, 0)
    assert len(rows(tmp_path, kind)) == 8


def test_a_copy_is_no_renamed_file(go, files):
    folder = files({"in/a.json": people(1)})
    go("in", *to("sqlite append"))
    shutil.copy2(folder / "in" / "a.json", folder / "in" / "b.json")
    assert counts(go("in", *to("sqlite append"), "--resume")) == (1, 0, 0, 1)


@pytest.mark.parametrize("kind", [*TABLES, *FILES, *FOLDER])
def test_only_failed_ones_are_retried(run, go, files, tmp_path, kind):
    files(INPUTS)
    job = ("in", *to(kind))
    go(*job)
    files({"in/d.json": people(8), "in/new.json": people(9)})
    if not kind.endswith("append"):
        files({"in/sub/f.json": people(50)})
    assert counts(go(*job, "--retry-failed")) == (1, 0, 0, 5)
    files({"in/new.json": "[]", "in/sub/f.json": INPUTS["in/sub/f.json"]})
    go("in", *to(kind, "fresh"))
    (tmp_path / "fresh" / "in" / "new.json").unlink(missing_ok=True)
    assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")


@pytest.mark.parametrize("kind", [*FILES, *FOLDER, *TABLES])
def test_force_does_all_again(go, files, tmp_path, kind):
    files(INPUTS)
    job = ("in", *to(kind))
    go(*job)
    before = rows(tmp_path, kind)
    assert counts(go(*job, "--force")) == (3, 1, 1, 0)
    after = rows(tmp_path, kind)
    assert after == (sorted(before * 2) if kind.endswith("append") else before)
    assert counts(go(*job, "--resume")) == (0, 0, 1, 4)


@pytest.mark.parametrize(
    "options", ["--resume --force", "--resume --retry-failed", "--retry-failed --force"]
)
def test_options_that_exclude_each_other(run, files, options):
    files(INPUTS)
    assert run("in", *options.split()).code == 2


# Entries of several jobs.


@pytest.mark.parametrize("kind", ["sqlite append", "duckdb append", "jsonl", "folder"])
def test_another_pipeline_skips_nothing(go, files, tmp_path, kind):
    files({"in/a.json": people(1), "fn.py": "def f(x):\n    return x\n"})
    files({"s.json": '{"type": "object"}'})
    jobs = [
        (), ("--jq", "."), ("--jq", "{id}"), ("--call", "fn.py:f"), ("--schema", "s.json"),
        ("--records", ""), ("--format", "json"),
    ]  # fmt: skip
    for job in jobs:
        assert counts(go("in", *job, *to(kind), "--resume")) == (1, 0, 0, 0), job
    files({"fn.py": "def f(x):\n    return {**x, 'new': 1}\n", "s.json": '{"type": "array"}'})
    assert counts(go("in", "--call", "fn.py:f", *to(kind), "--resume")) == (1, 0, 0, 0)
    assert '"new"' in str(rows(tmp_path, kind))
    assert counts(go("in", "--schema", "s.json", *to(kind), "--resume")) == (0, 0, 1, 0)


def test_a_folder_that_another_pipeline_has_written_to_is_written_again(go, files, tmp_path):
    files({"in/a.json": people(1), "in/b.json": people(2)})
    job = ("in", "--jq", ".id", *to("folder"))
    go(*job)
    go("in/a.json", "--jq", ".name", *to("folder"))
    assert counts(go(*job, "--resume")) == (1, 0, 0, 1)
    assert json.loads(rows(tmp_path, "folder")["in/a.json"]) == [1]
    (tmp_path / "out/in/b.json").write_text("edited")
    (tmp_path / "out/in/a.json").unlink()
    assert counts(go(*job, "--resume")) == (2, 0, 0, 0)
    assert [json.loads(text) for text in rows(tmp_path, "folder").values()] == [[1], [2]]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_gone_edited_or_another_pipelines(go, files, tmp_path, kind):
    files({"in/a.json": people(1), "in/b.json": people(2)})
    job = ("in", *to(kind))
    go(*job)
    before, path = rows(tmp_path, kind), tmp_path / to(kind)[1]
    path.unlink()
    assert counts(go(*job, "--resume")) == (2, 0, 0, 0)
    assert rows(tmp_path, kind) == before
    go("in/b.json", "--jq", "{id}", *to(kind))
    assert counts(go(*job, "--resume")) == (2, 0, 0, 0)
    assert rows(tmp_path, kind) == before
    path.write_bytes(b"edited by hand")
    assert counts(go(*job, "--resume")) == (2, 0, 0, 0)
    assert rows(tmp_path, kind) == before


@pytest.mark.parametrize("kind", FILES)
def test_what_is_not_as_it_was_left_is_not_overwritten_by_a_few_rows(
    run, go, files, tmp_path, kind
):
    files(INPUTS)
    job = ("in", *to(kind))
    go(*job)
    path = tmp_path / to(kind)[1]
    path.write_bytes(b"edited by hand")
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    refused = run(*job, "--retry-failed", env=state)
    assert refused.code == 2
    assert "--resume" in refused.stderr
    assert path.read_bytes() == b"edited by hand"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
@pytest.mark.parametrize("by_other", [False, True])
def test_a_table_that_was_dropped_is_filled_again(go, files, tmp_path, kind, by_other):
    files({"in/a.json": people(1), "in/b.json": people(2)})
    job = ("in", *to(f"{kind} append"))
    go(*job)
    before = rows(tmp_path, f"{kind} append")
    path = tmp_path / to(f"{kind} append")[1].rpartition(":///")[2]
    connect = sqlite3.connect if kind == "sqlite" else importlib.import_module("duckdb").connect
    with closing(connect(str(path))) as database:
        database.execute("DROP TABLE t")
    if by_other:
        assert counts(go("in/b.json", "--jq", "{id: 5}", *to(f"{kind} append"))) == (1, 0, 0, 0)
    assert counts(go(*job, "--resume")) == (2, 0, 0, 0)
    assert [row for row in rows(tmp_path, f"{kind} append") if '"ada"' in row] == before
    go("in/a.json", *to(f"{kind} replace"))
    assert counts(go(*job, "--resume")) == (2, 0, 0, 0), "others' rows are gone, replaced"


# Mode replace.


@pytest.mark.parametrize("kind", REPLACED)
def test_a_replacement_is_carried_on_after_failures(go, files, tmp_path, kind):
    files({"in/a.json": people(1), "in/b.json": people(2)})
    job = ("in", *to(kind))
    go(*job)
    before = rows(tmp_path, kind)
    files({"in/a.json": people(3), "in/b.json": "[{", "in/c.json": people(4)})
    assert counts(go(*job, "--resume")) == (2, 0, 1, 0)
    assert rows(tmp_path, kind) == before, "the run did not exit 0"
    assert counts(go(*job, "--resume")) == (0, 0, 1, 2)
    files({"in/b.json": people(5)})
    assert counts(go(*job, "--resume")) == (1, 0, 0, 2)
    assert rows(tmp_path, kind) == [json.dumps(person(number)) for number in (3, 4, 5)]
    (tmp_path / "in" / "b.json").rename(tmp_path / "in" / "d.json")
    assert go(*job, "--resume").code == 0, "renamed, but what it was in is replaced"
    assert rows(tmp_path, kind) == [json.dumps(person(number)) for number in (3, 4, 5)]


@pytest.mark.parametrize("kind", REPLACED)
@pytest.mark.parametrize("happens", ["changed", "gone"])
def test_a_replacement_has_no_rows_of_inputs_that_are_no_more(go, files, tmp_path, kind, happens):
    files({"in/a.json": people(1), "in/b.json": people(2), "in/c.json": "[{"})
    job = ("in", *to(kind), "--resume")
    assert counts(go(*job)) == (2, 0, 1, 0)
    files({"in/a.json": people(3, 4), "in/c.json": people(5)})
    if happens == "gone":
        (tmp_path / "in" / "a.json").unlink()
    assert go(*job).code == 0
    numbers = (2, 5) if happens == "gone" else (2, 3, 4, 5)
    assert rows(tmp_path, kind) == [json.dumps(person(number)) for number in numbers]


@pytest.mark.parametrize("kind", REPLACED)
def test_what_another_pipeline_has_begun_to_replace_is_not_carried_on(go, files, tmp_path, kind):
    files({"in/a.json": people(1), "in/b.json": "[{"})
    job, other = ("in", *to(kind)), ("in", "--jq", ".id += 100", *to(kind))
    assert counts(go(*other, "--resume")) == (1, 0, 1, 0)
    assert counts(go(*job, "--resume")) == (1, 0, 1, 0)
    assert counts(go(*other, "--resume")) == (1, 0, 1, 0), "the other has thrown it away"
    files({"in/b.json": people(2)})
    assert go(*other, "--resume").code == 0
    moved = [json.dumps({**person(number), "id": number + 100}) for number in (1, 2)]
    assert rows(tmp_path, kind) == moved
    files({"in/b.json": "[{"})
    go(*other, "--resume")
    go(*job)
    assert counts(go(*other, "--resume")) == (1, 0, 1, 0)


# Extents of rows in a file.


BIG = "".join(
    json.dumps(person(number)) + "\n" if number % 5 else "{]\n" for number in range(12_000)
)


@pytest.mark.parametrize("kind", [*FILES, *FOLDER, "sqlite append", "duckdb append"])
def test_files_of_many_parts_are_kept_whole(go, files, tmp_path, kind):
    files({"in/a.json": people(1), "in/b.jsonl": BIG, "in/c.jsonl.gz": gzip.compress(BIG.encode())})
    files({"in/d.json": people(2)})
    job = ("in", *to(kind), "--dead-letter", "bad.jsonl", "--show-failures", "0")
    assert counts(go(*job)) == (2, 2, 0, 0)
    before, letters = rows(tmp_path, kind), (tmp_path / "bad.jsonl").read_bytes()
    assert letters.count(b"\n") == 4_800
    files({"in/b2.json": people(3)})
    assert counts(go(*job, "--resume")) == (1, 0, 0, 4)
    if kind != "folder":
        assert len(rows(tmp_path, kind)) == len(before) + 1
    (tmp_path / "in" / "b2.json").unlink()
    assert counts(go(*job, "--resume")) == (0, 0, 0, 4)
    if kind in FILES:
        assert rows(tmp_path, kind) == before
    assert (tmp_path / "bad.jsonl").read_bytes() == letters


VARIANTS = [
    ("--unordered", "-w", "2"), ("-b", "3", "--pause", "0.01", "--load-batch", "1"),
    ("--root", "in", "--load-batch", "2", "-w", "2"), ("--call", "fn.py:g"),
    ("--call", "fn.py:several"),
]  # fmt: skip
FUNCTIONS = """\
import asyncio

async def g(record):
    await asyncio.sleep(0.001)
    return record

def several(record):
    yield record
    yield {**record, "id": record["id"] + 1000}
"""


@pytest.mark.parametrize("kind", [*FILES, "sqlite append"])
@pytest.mark.parametrize("options", VARIANTS, ids=" ".join)
def test_however_it_is_run(go, files, tmp_path, kind, options):
    files({f"in/{n}.json": people(2 * n, 2 * n + 1) for n in range(1, 9)})
    files({"fn.py": FUNCTIONS, "in/5.json": "[{", "in/6.json": "[]"})
    job = ("in", *options, *to(kind))
    go(*job)
    files({"in/5.json": people(10, 11), "in/55.json": people(100)})
    again = go(*job, "--resume")
    assert counts(again) == (2, 0, 0, 7) or (kind == "csv" and "--unordered" in options)
    go("in", *options, *to(kind, "fresh"))
    found, fresh = rows(tmp_path, kind), rows(tmp_path, kind, "fresh")
    if "--unordered" in options:
        found, fresh = sorted(map(str, found)), sorted(map(str, fresh))
    assert found == fresh


# Files of interrupted runs.

SLOW = """\
import os, time

def f(record):
    if os.path.exists("slow"):
        time.sleep(0.1)
    while record["id"] >= 100 and os.path.exists("slow"):
        time.sleep(0.01)
    return record
"""
"""A function that is slow, and does not come to an end, while there is the file `slow`."""


def has_entries(folder):
    """Whether a run has recorded that an input is done."""
    for path in [*folder.glob("state/asyncbatch/*.ledger"), *folder.glob("out.db")]:
        with closing(sqlite3.connect(path)) as database, suppress(sqlite3.OperationalError):
            if database.execute("SELECT 1 FROM asyncbatch_ledger LIMIT 1").fetchone():
                return True
    return (folder / "out.duckdb.wal").exists() and duckdb_has_entries(folder)


def duckdb_has_entries(folder):
    """Whether a copy of the database, which another process has locked, has an entry."""
    with tempfile.TemporaryDirectory() as place, suppress(duckdb.Error):
        for name in ("out.duckdb", "out.duckdb.wal"):
            shutil.copy(folder / name, place)
        with duckdb.connect(f"{place}/out.duckdb") as database:
            return bool(database.execute("SELECT 1 FROM asyncbatch_ledger LIMIT 1").fetchone())
    return False


@pytest.fixture
def cut(tmp_path):
    """Start a run and kill it after its first record in the ledger; return its leftovers."""

    def _cut(*arguments):
        (tmp_path / "slow").touch()
        # The header of a CSV file is that of a first batch, which is full.
        first_batch = ("--load-batch", "3") if "out.csv" in arguments else ()
        process = CommandProcess(
            ["run", *arguments, "-q", "-b", "3", *first_batch],
            cwd=tmp_path,
            env=environment(XDG_STATE_HOME=str(tmp_path / "state")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: has_entries(tmp_path), running=process)
        process.kill()
        process.wait()
        (tmp_path / "slow").unlink()
        return sorted(path.name for path in tmp_path.glob(".*.asyncbatch"))

    return _cut


@pytest.fixture
def slow_files(files):
    return files({"fn.py": SLOW, **{f"in/{n:03}.json": people(n) for n in range(150)}})


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv"])
def test_what_a_killed_run_has_written_is_used_by_its_own_job_alone(
    go, cut, slow_files, tmp_path, kind
):
    job = ("in", "--call", "fn.py:f", *to(kind))
    assert len(cut(*job)) == 1
    assert go("in/000.json", "--jq", "{id: 7}", *to(kind)).code == 0, "which writes the same file"
    other = rows(tmp_path, kind)
    assert len(other) == (2 if kind == "csv" else 1)
    again = go(*job, "--resume")
    assert 0 < counts(again)[3] < 150
    go("in", *to(kind, "fresh"))
    assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")
    assert not list(tmp_path.glob(".*.asyncbatch")), "what was left has been cleared up"


def test_what_a_killed_run_has_left_goes_when_all_is_done_again(go, cut, slow_files):
    job = ("in", "--call", "fn.py:f", *to("jsonl"))
    assert len(cut(*job)) == 1
    assert counts(go(*job)) == (150, 0, 0, 0)
    assert not list(slow_files.glob(".*.asyncbatch"))
    assert counts(go(*job, "--resume")) == (0, 0, 0, 150)


def test_what_is_still_being_written_is_not_carried_on(run, slow_files):
    job = ("in", "--call", "fn.py:f", *to("jsonl"))
    state = environment(XDG_STATE_HOME=str(slow_files / "state"))
    (slow_files / "slow").touch()
    with CommandProcess(["run", *job, "-q"], cwd=slow_files, env=state) as other:
        wait_until(lambda: list(slow_files.glob(".*.asyncbatch")), running=other)
        refused = run(*job, "--resume", env=state)
        assert refused.code == 2
        assert "another run is writing" in refused.stderr
        assert "Traceback" not in refused.stderr
        (slow_files / "slow").unlink()
    assert other.returncode == 0
    assert len(rows(slow_files, "jsonl")) == 150


@pytest.mark.parametrize("kind", REPLACED)
def test_a_replacement_is_carried_on_after_a_kill(go, cut, slow_files, kind):
    job = ("in", "--call", "fn.py:f", *to(kind))
    cut(*job)
    again = go(*job, "--resume")
    assert again.code == 0
    assert counts(again)[3] > 0
    go("in", *to(kind, "fresh"))
    assert rows(slow_files, kind) == rows(slow_files, kind, "fresh")


# The first rows, which decide the columns.


@pytest.mark.parametrize("first", ['[{"name": "bob", "id": 5}]', '[{"x": 1}]'])
def test_csv_columns_are_those_of_the_rows_that_are_first_now(go, files, tmp_path, first):
    files({"in/a.json": "[{", "in/b.json": people(1), "in/c.json": people(2)})
    job = ("in", "--load-batch", "1", *to("csv"))
    go(*job)
    assert counts(go(*job, "--resume")) == (0, 0, 1, 2)
    files({"in/a.json": first})
    go(*job, "--resume")
    go("in", "--load-batch", "1", *to("csv", "fresh"))
    assert rows(tmp_path, "csv") == rows(tmp_path, "csv", "fresh")
    assert go("-", *job[1:], "--resume", stdin=b'{"z": 1}').code in (0, 2)


def test_csv_columns_that_are_named_stay(go, files, tmp_path):
    files({"in/b.json": people(1), "in/c.json": people(2)})
    job = ("in", "--columns", "score,id", *to("csv"))
    go(*job)
    files({"in/a.json": '{"x": 1, "id": 3}'})
    assert counts(go(*job, "--resume")) == (1, 0, 0, 2)
    found = rows(tmp_path, "csv")
    assert found == [["score", "id"], ["", "3"], ["0.5", "1"], ["1.0", "2"]]


# Locations and names.


@pytest.mark.parametrize("kind", ["jsonl", "folder", "sqlite append"])
def test_a_state_folder_that_cannot_be_written(run, files, kind):
    folder = files({"in/a.json": people(1), "state": "a file where a folder should be"})
    state = {"XDG_STATE_HOME": str(folder / "state")}
    outcome = run("in", *to(kind), env=state)
    assert outcome.code == 0
    asked = run("in", *to(kind), "--resume", env=state)
    if kind == "sqlite append":
        assert asked.code == 0, "it keeps its own"
    else:
        assert "if this run is interrupted, it cannot be resumed" in outcome.stdout
        assert (asked.code, "ledger" in asked.stderr) == (2, True)


NAMES = [b"\xff.json", b"\\xff.json", b"\\.json", b"'\".json", b"new\nline.json", b"\xc3\xa4.json"]


@pytest.mark.parametrize("kind", ["jsonl", "folder", "sqlite append", "duckdb append"])
def test_names_of_every_kind(go, files, kind):
    folder = files({"in/a.json": people(1)})
    for number, name in enumerate(NAMES):
        path = os.path.join(os.fsencode(folder), b"in", name)
        try:
            with open(path, "w") as file:
                file.write(people(number + 2))
        except OSError:
            pytest.skip("a file system that takes no such names")
        os.utime(path, (number, number))
    job = ("in", *to(kind))
    assert counts(go(*job)) == (7, 0, 0, 0)
    assert counts(go(*job, "--resume")) == (0, 0, 0, 7)
    os.rename(
        os.path.join(os.fsencode(folder), b"in", b"\xff.json"),
        os.path.join(os.fsencode(folder), b"in", b"\xfe.json"),
    )
    again = go(*job, "--resume")
    assert counts(again) == ((0, 0, 1, 6) if kind.endswith("append") else (1, 0, 0, 6))


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "sqlite append"])
def test_with_a_root_the_spelling_of_paths_and_the_place_do_not_matter(go, files, tmp_path, kind):
    folder = files({"in/a.json": people(1), "in/b.json": people(2)})
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    name = to(kind)[1]
    scheme, _, path = name.rpartition(":///")
    place = f"{scheme}:///{folder}/{path}" if scheme else str(folder / path)
    go("in", "--root", ".", *to(kind))
    again = go(folder / "in", "--root", folder, "--to", place, *to(kind)[2:], "--resume", env=state)
    assert counts(again) == (0, 0, 0, 2)


def test_shards_into_one_database_are_resumed_apart(go, files, tmp_path):
    files({f"in/{n}.json": people(n) for n in range(12)})
    job = ("in", *to("sqlite append"))
    first = counts(go(*job, "--shard", "1/2"))[0]
    assert counts(go(*job, "--shard", "2/2", "--resume")) == (12 - first, 0, 0, 0)
    assert counts(go(*job, "--resume")) == (0, 0, 0, 12)
    assert len(rows(tmp_path, "sqlite append")) == 12


@pytest.mark.parametrize("kind", [*FILES, "sqlite append"])
def test_a_few_at_a_time(go, files, tmp_path, kind):
    files({f"in/{n}.json": people(n) for n in range(6)})
    job = ("in", *to(kind))
    go(*job, "--limit", "2")
    assert counts(go(*job, "--limit", "4", "--resume")) == (2, 0, 0, 2)
    assert counts(go(*job, "--resume")) == (2, 0, 0, 4)
    go("in", *to(kind, "fresh"))
    assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")


def test_a_ledger_of_ones_own(go, files, tmp_path):
    files({"in/a.json": people(1)})
    go("in", *to("jsonl"), "--ledger", "books/l")
    assert (tmp_path / "books" / "l").is_file()
    assert counts(go("in", *to("jsonl"), "--ledger", "books/l", "--resume")) == (0, 0, 0, 1)
    assert counts(go("in", *to("jsonl"), "--resume")) == (1, 0, 0, 0)
    assert counts(go("in", *to("jsonl"), "--ledger", "books/l", "--resume")) == (1, 0, 0, 0)


def test_a_ledger_is_a_regular_file(run, files, tmp_path):
    files({"in/a.json": people(1)})
    os.mkfifo(tmp_path / "fifo")
    outcome = run("in", *to("jsonl"), "--ledger", "fifo")
    assert outcome.code == 2
    assert "the ledger fifo: it is not a regular file" in outcome.stderr
    assert not (tmp_path / "fifo-journal").exists()


# All actions, in any order.

_NAMES = st.sampled_from(["a", "b", "c", "d"])
_STEPS = st.one_of(
    st.tuples(st.just("write"), _NAMES, st.integers(0, 4)),
    st.tuples(st.just("spoil"), _NAMES),
    st.tuples(st.just("remove"), _NAMES),
    st.tuples(st.just("rename"), _NAMES, _NAMES),
    st.just(("run",)),
    st.tuples(st.just("kill"), st.floats(0.1, 0.6)),
)


class Life:
    """A folder of inputs and a target, on which actions are done in any order."""

    def __init__(self, folder, kind):
        self._folder, self._kind, self._number = folder, kind, 0
        self._state = environment(XDG_STATE_HOME=str(folder / "state"))
        (folder / "in").mkdir()
        (folder / "in" / "z.json").write_text(people(1_000))

    def start(self, *more, name="out"):
        command = ["run", "in", *to(self._kind, name), *more, "-q"]
        quiet = subprocess.DEVNULL
        return CommandProcess(
            command, cwd=self._folder, env=self._state, stdout=quiet, stderr=quiet
        )

    def meet(self, what, *details):
        if what == "run":
            assert self.start("--resume").wait(timeout=PATIENCE) in (0, 1)
            return
        if what == "kill":
            with self.start("--resume") as process:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(details[0])
                process.kill()
            return
        path = self._path(details[0])
        if what == "write":
            self._number += 10
            path.write_text(people(*range(self._number, self._number + details[1])))
        elif what == "spoil":
            path.write_text("[{")
        elif what == "remove":
            path.unlink(missing_ok=True)
        elif path.exists():
            path.rename(self._path(details[1]))

    def _path(self, name):
        return self._folder / "in" / f"{name}.json"


@pytest.mark.parametrize("kind", ["sqlite upsert", "jsonl", "csv", "parquet"])
@settings(max_examples=4, derandomize=True)
@given(steps=st.lists(_STEPS, min_size=4, max_size=8))
def test_whatever_happens_the_end_is_as_of_one_fresh_run(kind, steps):
    with tempfile.TemporaryDirectory() as name:
        life = Life(Path(name), kind)
        for step in [*steps, ("run",)]:
            life.meet(*step)
        assert life.start(name="fresh").wait(timeout=PATIENCE) in (0, 1)
        found, fresh = rows(Path(name), kind), rows(Path(name), kind, "fresh")
        if kind == "sqlite upsert":  # it keeps the rows of removed inputs
            assert set(fresh) <= set(found)
            assert len(set(found)) == len(found)
        else:
            assert found == fresh


# Kills within a file that is read in splits.

WAITS = """\
import pathlib, time

def waits(record):
    if record["id"] == 11_001 and not pathlib.Path("go-on").exists():
        while True:
            time.sleep(0.01)
    return record
"""


HUGE = "".join(
    json.dumps(person(number, "x" * 250)) + "\n" if number % 5 else "{]\n"
    for number in range(1, 12_001)
)


def has_position(path):
    """Whether the ledger in an SQLite file has the position of an unfinished input."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(path)) as ledger:
        try:
            found = ledger.execute(
                "SELECT 1 FROM asyncbatch_ledger WHERE outcome = 'begun' AND length(letters) > 0"
            )
        except sqlite3.OperationalError:  # not made yet, or busy
            return False
        return found.fetchone() is not None


@pytest.mark.parametrize("kind", ["sqlite append", "sqlite upsert"])
def test_dead_letters_of_a_resumed_huge_file_are_in_input_order(run, files, tmp_path, kind):
    folder = files({
        "in/a.jsonl": '{"id": 1}\nnope\n{"id": 2}\n', "in/b.jsonl": HUGE,
        "in/c.jsonl": "nope\n", "fn.py": WAITS,
    })  # fmt: skip
    job = ("in", *to(kind), "--call", "fn.py:waits", "--dead-letter", "bad.jsonl", "-q",
           "--max-memory", "170M", "-w", "1", "--show-failures", "0")  # fmt: skip
    target = folder / to(kind)[1].rpartition(":///")[2]
    process = CommandProcess(["run", *job], cwd=folder, env=environment())
    wait_until(lambda: has_position(target), running=process)
    process.kill()
    process.wait(PATIENCE)
    (folder / "go-on").touch()
    assert run(*job, "--resume").code == 1
    resumed = (folder / "bad.jsonl").read_bytes()
    for path in folder.glob(f"{target.name}*"):
        path.unlink()
    assert run(*job).code == 1
    assert resumed == (folder / "bad.jsonl").read_bytes()
    assert resumed.count(b"\n") == 2_402
