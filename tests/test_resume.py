"""Running again: what is skipped, and that a target comes to what one fresh run would give."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

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
    """Return the options for a target of some kind, of that name."""
    options = (TABLES | REPLACED | FILES | FOLDER)[kind]
    return "--to", options[0].format(name), *options[1:]


def rows(folder, kind, name="out"):
    """Return what a target has: rows, sorted if it is a table; texts by path if it is a folder."""
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
    """Run, with a ledger of this test's own; return the outcome, whose report is on stdout."""

    def _go(*arguments, env=None, **more):
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        outcome = run(*arguments, "-o", "json", env=state | (env or {}), **more)
        assert outcome.stdout, outcome.stderr
        return outcome

    return _go


def counts(outcome):
    """Return how many files succeeded, were partial, failed, were skipped."""
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


# Whose entries they are.


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


# Replacing.


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


# Where rows are in a file.


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
