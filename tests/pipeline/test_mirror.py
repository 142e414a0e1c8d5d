"""Tests of `--mode mirror`: the table has the records of the files that are there."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from itertools import count

import pytest

from asyncbatch import Pipeline
from asyncbatch.errors import UsageError
from tests.commands import CommandProcess, environment
from tests.processes import wait_until

QUICK = ("--workers", "0", "--no-progress")
MIRROR = ("--to", "sqlite:///t.db", "--table", "t", "--mode", "mirror", *QUICK)
ANY_NUMBER = ("--max-delete", "100%")


class Folder:
    """A folder of JSON files that changes at random, and the records that it should give.

    Ids are unique, so that they can be a key. They move with renamed files, and from file to file.
    """

    def __init__(self, place, seed, *, breaks=True):
        self.place, self.pick = place, random.Random(seed)
        self.breaks = breaks  # without, no file becomes unreadable
        self.records = {}  # by the name of the file
        self.broken = {}  # the last records that could be read, by the name of a broken file
        self.ids, self.names = count(1), count(1)
        for _ in range(12):
            self.add()

    def add(self):
        ending = self.pick.choice((".json", ".jsonl", "/deep/x.json"))
        self.write(f"in/{next(self.names):03}{ending}", self.new_records())

    def new_records(self):
        return [self.new_record() for _ in range(self.pick.randint(0, 4))]

    def new_record(self):
        record = {"id": next(self.ids), "v": self.pick.choice(("a", "b", "ü"))}
        return record | ({"x": self.pick.randint(0, 9)} if self.pick.random() < 0.3 else {})

    def write(self, name, records):
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        path.write_text(lines if name.endswith(".jsonl") else json.dumps(records))
        self.records[name] = records
        self.broken.pop(name, None)

    def any_file(self):
        return self.pick.choice(sorted(self.records))

    def edit(self):
        name = self.any_file()
        kept = [record for record in self.records[name] if self.pick.random() < 0.6]
        changed = [record | {"v": "changed"} for record in kept]
        self.write(name, [*changed, *self.new_records()])

    def delete(self):
        name = self.any_file()
        (self.place / name).unlink()
        del self.records[name]
        self.broken.pop(name, None)

    def rename(self):
        old, new = self.any_file(), f"in/{self.pick.choice('09')}-{next(self.names)}.jsonl"
        records = self.records.pop(old)
        if old in self.broken or not old.endswith(".jsonl"):
            (self.place / old).unlink()
            self.broken.pop(old, None)
            self.write(new, records)
        else:
            (self.place / old).rename(self.place / new)  # with its size and time
            self.records[new] = records

    def move_record(self):
        """Move records from one file to another, as a file of whose name sorts before or after."""
        one, other = self.any_file(), self.any_file()
        if one != other and not {one, other} & self.broken.keys():
            records = self.records[one]
            self.write(other, self.records[other] + records[:2])
            self.write(one, records[2:])

    def break_one(self):
        name = self.any_file()
        if self.breaks and name not in self.broken and name.endswith(".json"):
            self.broken[name] = self.records[name]
            (self.place / name).write_text('[{"id": 1}, ')

    def change(self):
        for _ in range(self.pick.randint(1, 4)):
            self.pick.choice(
                (self.add, self.add, self.edit, self.edit, self.delete, self.rename,
                 self.move_record, self.break_one)
            )()  # fmt: skip

    def rows(self):
        """Return the rows that a table should have: those of broken files are the earlier ones."""
        found = self.records | self.broken
        return sorted(
            (name, record["id"], record["v"], record.get("x"))
            for name, records in found.items()
            for record in records
        )


QUERY = 'SELECT "_file", id, v, x FROM t'


def sqlite_rows(place, query=QUERY):
    with closing(sqlite3.connect(place / "t.db")) as database:
        return sorted(database.execute(query))


def duckdb_rows(place):
    with importlib.import_module("duckdb").connect(str(place / "t.duckdb")) as database:
        return sorted(database.execute(QUERY).fetchall())


@pytest.fixture
def table(request, tmp_path):
    """A database: the options that name it, and a function that returns its rows."""
    match request.param:
        case "sqlite":
            return ("--to", "sqlite:///t.db"), lambda: sqlite_rows(tmp_path)
        case "duckdb":
            return ("--to", "duckdb:///t.duckdb"), lambda: duckdb_rows(tmp_path)
    server = request.getfixturevalue("server")
    name = f"mirror_{os.urandom(4).hex()}"
    server.execute(f"CREATE DATABASE {name}")
    to = ("--to", server.url(name))
    return to, lambda: sorted(map(tuple, server.execute(QUERY, name)))


@pytest.mark.parametrize("key", [(), ("--key", "id")], ids=["no key", "key"])
@pytest.mark.parametrize("table", ["sqlite", "duckdb", "postgres"], indirect=True)
def test_table_follows_the_files(tmp_path, run, table, key):
    to, rows = table
    folder = Folder(tmp_path, f"{to[1][:6]} {key}")
    folder.write("in/first.json", [{"id": 0, "v": "a", "x": 1}])  # so that there is a column x
    for _ in range(6):
        outcome = run("in", *to, "--table", "t", "--mode", "mirror", *key, *QUICK, *ANY_NUMBER)
        assert outcome.code == bool(folder.broken), outcome.stderr
        assert rows() == folder.rows()
        folder.change()


@pytest.mark.parametrize("key", [(), ("--key", "id")], ids=["no key", "key"])
def test_runs_may_be_killed(tmp_path, run, key):
    """Also with one row a transaction, so that kills fall between transactions of one run."""
    # A file that breaks after a kill would have rows of a version that nobody knows.
    folder = Folder(tmp_path, f"kill {key}", breaks=False)
    folder.write("in/first.json", [{"id": 0, "v": "a", "x": 1}])
    (tmp_path / "slow.py").write_text(
        "import time\ndef slow(record):\n    time.sleep(0.01)\n    return record\n"
    )
    options = (*MIRROR, *key, *ANY_NUMBER, "--load-batch", "1", "--call", "slow.py:slow")
    for _ in range(3):
        for _ in range(2):
            process = CommandProcess(
                ["run", "in", *options], cwd=tmp_path, env=environment(),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(folder.pick.uniform(0.05, 0.6))
            process.send_signal(signal.SIGKILL)
            process.wait()
            folder.change()
        assert run("in", *options).code == 0
        assert sqlite_rows(tmp_path) == folder.rows()


def test_unchanged_files_are_not_read(run, files):
    files({f"in/{number}.json": "[1, 2]" for number in range(9)} | {"in/9.json": '{"a": 1}'})
    run("in", "--jq", "{v: .}", *MIRROR)
    again = run("in", "--jq", "{v: .}", *MIRROR, "--output", "json").json
    assert (again["files"]["skipped"], again["files"]["bytes"]) == (10, 0)
    files({"in/3.json": "[7]"})
    again = run("in", "--jq", "{v: .}", *MIRROR, "--output", "json").json
    assert (again["files"]["skipped"], again["records"]["written"]) == (9, 1)


def test_file_that_comes_back_is_loaded_again(tmp_path, run, files):
    """With the size and time that it had, as `mv` leaves them."""
    files({"in/a.json": '{"id": 1}', "in/b.json": '{"id": 2}', "in/none.json": "[]"})
    query = "SELECT id FROM t"
    run("in", *MIRROR)
    for name in ("a.json", "none.json"):
        (tmp_path / "in" / name).rename(tmp_path / name)
    run("in", *MIRROR, *ANY_NUMBER)
    assert sqlite_rows(tmp_path, query) == [(2,)]
    for name in ("a.json", "none.json"):
        (tmp_path / name).rename(tmp_path / "in" / name)
    run("in", *MIRROR)
    assert sqlite_rows(tmp_path, query) == [(1,), (2,)]


def test_rows_that_somebody_deleted_come_back(tmp_path, run, files):
    files({"in/a.json": '{"id": 1}', "in/b.json": '{"id": 2}'})
    run("in", *MIRROR)
    with closing(sqlite3.connect(tmp_path / "t.db")) as database, database:
        database.execute("DELETE FROM t WHERE id = 1")
    run("in", *MIRROR)
    assert sqlite_rows(tmp_path, "SELECT id FROM t") == [(1,), (2,)]


def test_another_job_replaces_all_rows(tmp_path, run, files):
    """Then the first one does again, although it has loaded these files before."""
    files({"in/a.json": '{"id": 1}', "in/b.json": '{"id": 2}'})
    for program, expected in (("{n: 1}", 1), ("{n: 2}", 2), ("{n: 1}", 1)):
        assert run("in", "--jq", program, *MIRROR).code == 0
        assert sqlite_rows(tmp_path, "SELECT n FROM t") == [(expected,)] * 2


def test_index_on_the_files(tmp_path, run, files):
    files({"in/a.json": '{"id": 1}'})
    run("in", *MIRROR)
    plan = sqlite_rows(tmp_path, "EXPLAIN QUERY PLAN SELECT * FROM t WHERE _file = 'in/a.json'")
    assert "USING INDEX" in plan[0][3]


def test_guard_against_an_empty_mount(tmp_path, run, files):
    files({f"in/{number}.json": f'{{"id": {number}}}' for number in range(10)})
    run("in", *MIRROR)
    before = (tmp_path / "t.db").read_bytes()
    for number in range(3):
        (tmp_path / "in" / f"{number}.json").unlink()
    files({"in/3.json": '{"id": 33}'})
    stopped = run("in", *MIRROR)
    message = " ".join(stopped.stderr.split())
    assert stopped.code == 2
    assert "3 files of the 10 in it are gone (in/0.json, in/1.json, in/2.json)" in message
    assert "--max-delete allows 20%" in message
    assert "run once with --max-delete 3" in message
    assert sqlite_rows(tmp_path, "SELECT count(*), max(id) FROM t") == [(10, 9)]
    assert run("in", *MIRROR, "--max-delete", "2").code == 2
    assert (tmp_path / "t.db").read_bytes() == before
    report = json.loads(run("in", *MIRROR, "--max-delete", "3", "-o", "json").stdout)
    assert "deleted 3 rows of 3 files no longer there" in report["notes"]
    assert report["records"]["deleted"] == 3
    assert sqlite_rows(tmp_path, "SELECT count(*), max(id) FROM t") == [(7, 33)]
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "in").mkdir()
    assert run("in", *MIRROR).code == 2
    assert run("in", *MIRROR, "--allow-empty").code == 2
    assert sqlite_rows(tmp_path, "SELECT count(*) FROM t") == [(7,)]
    assert run("in", *MIRROR, "--allow-empty", "--max-delete", "100%").code == 0
    assert sqlite_rows(tmp_path, "SELECT count(*) FROM t") == [(0,)]


def test_nothing_is_known_about_a_folder_that_is_missing(tmp_path, run, files):
    """It is named, and cannot be listed: its rows stay, and the run fails."""
    files({f"in/{number}.json": '{"id": 1}' for number in range(9)} | {"more/a.json": '{"id": 2}'})
    run("in", "more", *MIRROR)
    (tmp_path / "more").rename(tmp_path / "away")
    (tmp_path / "in" / "0.json").unlink()
    assert run("in", "more", *MIRROR).code == 1
    assert sqlite_rows(tmp_path, "SELECT id, count(*) FROM t GROUP BY 1") == [(1, 8), (2, 1)]


def test_rejected_records_are_no_rows(tmp_path, run, files):
    """A file that can be read has the rows that it gives now, even if that is none."""
    files({"in/a.json": '[{"id": 1}, {"id": 2}]', "in/b.json": '{"id": 3}'})
    options = (*MIRROR, "--jq", 'if .id == "bad" then error("no") else . end')
    run("in", *options)
    files({"in/a.json": '[{"id": 1}, {"id": "bad"}]', "in/b.json": '{"id": "bad"}'})
    assert run("in", *options).code == 1
    assert sqlite_rows(tmp_path, "SELECT id FROM t") == [(1,)]


def test_two_files_with_one_key(tmp_path, run, files):
    """The later one is rejected, and takes over when the earlier one is gone."""
    files({"in/a.json": '[{"id": 1, "v": "a"}, {"id": 2, "v": "a"}]'})
    options = (*MIRROR, "--key", "id", *ANY_NUMBER, "--output", "json")
    query = "SELECT id, v FROM t"
    assert run("in", *options).code == 0
    files({"in/b.json": '[{"id": 1, "v": "b"}, {"id": 3, "v": "b"}]'})
    outcome = run("in", *options)
    assert outcome.code == 1
    assert outcome.json["failures"][0]["message"] == "a row of in/a.json has the same id"
    assert sqlite_rows(tmp_path, query) == [(1, "a"), (2, "a"), (3, "b")]
    assert run("in", *options).code == 1
    files({"in/a.json": '[{"id": 2, "v": "a"}]'})
    assert run("in", *options).code == 0
    assert sqlite_rows(tmp_path, query) == [(1, "b"), (2, "a"), (3, "b")]
    files({"in/c.json": '[{"id": 3, "v": "c"}]'})
    assert run("in", *options).code == 1
    (tmp_path / "in" / "b.json").unlink()
    assert run("in", *options).code == 0
    assert sqlite_rows(tmp_path, query) == [(2, "a"), (3, "c")]


def test_two_files_with_one_key_in_the_first_run(run, files):
    files({"in/a.json": '[{"id": 1}, {"id": 2}]', "in/b.json": '[{"id": 3}, {"id": 2}]'})
    outcome = run("in", *MIRROR, "--key", "id", "--output", "json")
    (failure,) = outcome.json["failures"]
    assert failure["message"] == "a row of in/a.json has the same id"
    assert (failure["file"], failure["record"]) == ("in/b.json", 2)


@pytest.mark.parametrize("table", ["sqlite", "duckdb", "postgres"], indirect=True)
def test_marked_rows(tmp_path, run, files, table):
    to, rows = table
    files({"in/a.json": '{"id": 1, "v": "a", "x": 1}', "in/b.json": '{"id": 2, "v": "b", "x": 2}'})
    options = (*to, "--table", "t", "--mode", "mirror", "--key", "id", *QUICK, *ANY_NUMBER)
    options += ("--on-delete", "mark", "--jq", "select(.id > 0)")
    assert run("in", *options).code == 0
    (tmp_path / "in" / "a.json").rename(tmp_path / "a.json")
    marking = run("in", *options)
    assert "marked as deleted 1 row of 1 file no longer there" in marking.stdout
    assert rows() == [("in/a.json", 1, "a", 1), ("in/b.json", 2, "b", 2)]
    assert "marked" not in run("in", *options).stdout
    # A row with the key of a marked one takes its place, and a file that comes back its rows.
    files({"in/c.json": '{"id": 1, "v": "c", "x": 3}'})
    assert run("in", *options).code == 0
    assert rows() == [("in/b.json", 2, "b", 2), ("in/c.json", 1, "c", 3)]
    (tmp_path / "in" / "c.json").unlink()
    (tmp_path / "a.json").rename(tmp_path / "in" / "a.json")
    assert run("in", *options).code == 0
    assert rows() == [("in/a.json", 1, "a", 1), ("in/b.json", 2, "b", 2)]


def test_time_of_deletion(tmp_path, run, files):
    files({"in/a.json": '{"id": 1}', "in/b.json": '{"id": 2}'})
    options = (*MIRROR, "--on-delete", "mark", *ANY_NUMBER)
    query = "SELECT id, _deleted_at NOTNULL, _deleted_at LIKE '20__-__-__T__:__:__Z' FROM t"
    run("in", *options)
    assert sqlite_rows(tmp_path, query) == [(1, 0, None), (2, 0, None)]
    (tmp_path / "in" / "a.json").unlink()
    run("in", *options)
    assert sqlite_rows(tmp_path, query) == [(1, 1, 1), (2, 0, None)]


def test_kept_rows(tmp_path, run, files):
    files({"in/a.json": '{"id": 1}', "in/b.json": '{"id": 2}'})
    run("in", *MIRROR)
    (tmp_path / "in" / "a.json").unlink()
    assert run("in", *MIRROR, "--on-delete", "keep").code == 0
    assert sqlite_rows(tmp_path, "SELECT id FROM t") == [(1,), (2,)]


def test_record_with_a_field_of_the_mirror(run, files):
    files({"in/a.json": '[{"id": 1, "_file": "x"}, {"id": 2}]'})
    outcome = run("in", *MIRROR, "--output", "json")
    assert outcome.json["records"] | {"dropped": 0} == {
        "read": 2, "passed": 1, "dropped": 0, "rejected": 1, "written": 1,
    }  # fmt: skip
    assert "a field '_file', which --mode mirror sets" in outcome.json["failures"][0]["message"]


def test_columns_of_the_mirror_in_another_case(tmp_path, run, files):
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        database.execute("CREATE TABLE t (id INT, _File TEXT)")
    files({"in/a.json": '[{"id": 1}, {"id": 2, "_Deleted_At": "x"}]'})
    for mode in ("mark", "mark"):
        outcome = run("in", *MIRROR, "--on-delete", mode, "--force", "-o", "json")
        assert outcome.code == 1
        [failure] = outcome.json["failures"]
        assert "--mode mirror sets the column _deleted_at itself" in failure["message"]
    query = "SELECT id, _file, _deleted_at FROM t"
    assert sqlite_rows(tmp_path, query) == [(1, "in/a.json", None)]


WAITS = """
import os, time
def wait(record):
    open("begun", "w").close()
    while not os.path.exists("go"): time.sleep(0.01)
    return record
"""


@pytest.mark.parametrize("table", ["sqlite", "duckdb", "postgres"], indirect=True)
def test_two_mirrors_at_once(tmp_path, run, files, table):
    """The second one would add the rows of the first one again."""
    found = {f"in/{n}.json": f'{{"id": {n}, "v": "a", "x": 0}}' for n in range(3)}
    files(found | {"wait.py": WAITS})
    to, rows = table
    mirror = (*to, "--table", "t", "--mode", "mirror", *QUICK)
    refusals = []

    def is_refused():
        """Whether a second run is refused. One that comes before the first one is not."""
        outcome = run("in", *mirror)
        refusals.append(outcome.stderr)
        return outcome.code == 2

    command = ["run", "in", *mirror, "--call", "wait.py:wait"]
    with CommandProcess(command, cwd=tmp_path, env=environment()) as first:
        try:
            wait_until((tmp_path / "begun").exists, running=first)
            wait_until(is_refused, running=first)
        finally:
            (tmp_path / "go").touch()
    assert first.returncode == 0
    is_file_locked = to[1].startswith("duckdb")  # by DuckDB
    reason = "lock" if is_file_locked else "another --mode mirror writes table t"
    assert reason in refusals[-1]
    assert run("in", *mirror).code == 0
    assert rows() == [(f"in/{n}.json", n, "a", 0) for n in range(3)]


def test_table_with_other_rows_is_refused(run, files):
    files({"in/a.json": '{"id": 1}'})
    run("in", *MIRROR[:4], *QUICK)
    refused = run("in", *MIRROR)
    assert (refused.code, "rows without a file in _file" in refused.stderr) == (2, True)


def test_names_that_are_no_text(tmp_path, run, files):
    files({"in/a.json": '{"id": 1}', "in/b\\xff.json": '{"id": 2}'})
    os.rename(tmp_path / "in" / "a.json", os.fsencode(tmp_path / "in") + b"/b\xff.json")
    run("in", *MIRROR)
    assert sqlite_rows(tmp_path, QUERY[:18] + " FROM t") == [
        ("in/b\\\\xff.json", 2), ("in/b\\xff.json", 1),
    ]  # fmt: skip
    os.unlink(os.fsencode(tmp_path / "in") + b"/b\xff.json")
    run("in", *MIRROR, *ANY_NUMBER)
    assert sqlite_rows(tmp_path, "SELECT id FROM t") == [(2,)]


def test_pipeline_file(tmp_path, etl, files):
    files({"in/a.json": '{"id": 1}', "in/b.json": '{"id": 2}'})
    (tmp_path / "p.toml").write_text(
        'name = "p"\nsource = [{ type = "files", paths = ["in"] }]\n[sink]\n'
        'to = "sqlite:///t.db"\ntable = "t"\nmode = "mirror"\nmax_delete = "50%"\n'
    )
    assert etl("p.toml").returncode == 0
    (tmp_path / "in" / "a.json").unlink()
    assert etl("p.toml").returncode == 0
    assert sqlite_rows(tmp_path, "SELECT id FROM t") == [(2,)]
    (tmp_path / "in" / "b.json").rename(tmp_path / "in" / "c.json")
    stopped = etl("p.toml")
    assert (stopped.returncode, "--max-delete allows 50%" in stopped.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--limit", "1"), "excludes --limit"),
        (("--shard", "1/2"), "excludes --shard"),
        (("--retry-failed",), "leave out --retry-failed"),
        (("--allow-duplicates",), "leave out --allow-duplicates"),
        (("--dedupe", "id"), "excludes dedupe"),
        (("--max-delete", "many"), "'many' is neither a number of files"),
        (("--key", "_file"), "mirror sets _file itself"),
        (("-",), "excludes standard input"),
        (("--watch", "--delete-done"), "excludes --delete-done"),
        (("--mode", "append", "--on-delete", "mark"), "need --mode mirror"),
    ],
)
def test_contradictions(run, files, options, message):
    files({"in/a.json": '{"id": 1}'})
    outcome = run("in", *MIRROR, *options)
    assert outcome.code == 2
    assert message in " ".join(outcome.stderr.split())


OUTPUTS = ("--to", "out/", "--mode", "mirror", *QUICK)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_folder_of_outputs(tmp_path, run, files):
    """Outputs of gone inputs are removed, and their folders; those of others stay."""
    files({f"in/{number}.json": '{"id": 1}' for number in range(7)})
    files({"in/x/y/a.json": '{"id": 1}', "in/x/b.json": '{"id": 1}', "in/z/c.json": '{"id": 1}'})
    options = (*OUTPUTS, "--jq", "select(.id > 0)")
    assert run("in", *options).code == 0
    files({"out/in/mine.json": "1", "in/0.json": '{"id": 0}', "in/1.json": "["})
    files({"out/in/z/c.json": '"changed by hand"'})
    for name in ("x/y/a.json", "z/c.json"):
        (tmp_path / "in" / name).unlink()
    outcome = run("in", *options)
    assert outcome.code == 1
    assert "removed 1 output of inputs no longer there; 1 other" in outcome.stdout
    kept = [f"{number}.json" for number in range(1, 7)]
    expected = [*kept, "mine.json", "x", "x/b.json", "z", "z/c.json"]
    assert names(tmp_path / "out" / "in") == sorted(expected)
    for number in range(2, 5):
        (tmp_path / "in" / f"{number}.json").unlink()
    stopped = run("in", *options)
    assert (stopped.code, "--max-delete allows 20%" in stopped.stderr) == (2, True)
    assert names(tmp_path / "out" / "in") == sorted(expected)
    assert run("in", *options, "--on-delete", "keep").code == 1
    assert names(tmp_path / "out" / "in") == sorted(expected)
    assert run("in", *options, "--max-delete", "3").code == 1
    left = set(expected) - {f"{number}.json" for number in range(2, 5)}
    assert names(tmp_path / "out" / "in") == sorted(left)


def test_pipeline_of_a_program(tmp_path, files, monkeypatch):
    files({f"in/{number}.json": f'{{"id": {number}}}' for number in range(4)})
    monkeypatch.chdir(tmp_path)

    def load(**options):
        pipeline = Pipeline(
            "in", sink="sqlite:///t.db", table="t", mode="mirror", workers=0, **options
        )
        return asyncio.run(pipeline.run())

    assert load().tally.succeeded == 4
    (tmp_path / "in" / "1.json").unlink()
    with pytest.raises(UsageError, match="--max-delete allows 20%"):
        load()
    assert load(max_delete="50%", on_delete="mark").tally.skipped == 3
    query = "SELECT id, _deleted_at NOTNULL FROM t"
    assert sqlite_rows(tmp_path, query) == [(0, 0), (1, 1), (2, 0), (3, 0)]
