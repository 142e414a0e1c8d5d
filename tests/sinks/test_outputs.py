"""All kinds of targets, and dead letters, written by the command."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.commands import PATIENCE, CommandProcess, environment
from tests.processes import wait_until

PEOPLE = [{"id": n, "name": f"P{n}", "tags": ["a", {"b": n}], "x": n / 7} for n in range(1, 8)]
FUNCTIONS = """
import os, time
def kill(r):
    if r["id"] == 4: os._exit(3)
    return r
def slow(r):
    open("slow-began", "w").close()
    time.sleep(0.05)
    return r
def say(r):
    print("said")
    return r
"""


@pytest.fixture
def folder(files):
    """Seven records in three files of different formats, and a file that is not JSON."""
    return files(
        {
            "in/a.json": json.dumps(PEOPLE[:3], indent=1),
            "in/b.jsonl": "".join(json.dumps(one) + "\n" for one in PEOPLE[3:6]),
            "in/c.json": json.dumps(PEOPLE[6]),
            "in/bad.json": '{"id":',
            "fn.py": FUNCTIONS,
        }
    )


def records(report):
    return {name: count for name, count in report["records"].items() if count}


def table(path, name="t", order="id"):
    with closing(sqlite3.connect(path)) as database:
        found = database.execute(f'SELECT * FROM "{name}" ORDER BY "{order}"')
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_lines_in_input_order_whatever_the_workers(run, folder, workers):
    outcome = run("in", "--to", "o.jsonl", "-w", workers, "-b", "1", "-o", "json")
    assert outcome.code == 1
    assert records(outcome.json) == {"read": 7, "passed": 7, "written": 7}
    assert lines(folder / "o.jsonl") == PEOPLE
    assert sorted(os.listdir(folder)) == ["fn.py", "in", "o.jsonl"]


def test_lines_compressed_and_on_stdout(run, folder):
    run("in", "--to", "o.jsonl.gz")
    assert gzip.decompress((folder / "o.jsonl.gz").read_bytes()).count(b"\n") == 7
    outcome = run("in", "--to", "-", "--call", "fn.py:say")
    assert [json.loads(line) for line in outcome.stdout.splitlines()] == PEOPLE
    assert "said" in outcome.stderr
    assert "7 to -" in outcome.stderr
    assert run("in", "--to", "-", "-o", "json").code == 2


def test_unordered_writes_the_same_records(run, folder):
    run("in", "--to", "o.jsonl", "--unordered", "-w", "2", "-b", "1")
    assert sorted(one["id"] for one in lines(folder / "o.jsonl")) == list(range(1, 8))


def test_a_folder_like_the_input(run, folder):
    outcome = run("in", "--to", "out/", "-o", "json")
    assert outcome.json["records"]["written"] == 7
    assert sorted(os.listdir(folder / "out" / "in")) == ["a.json", "b.jsonl", "c.json"]
    assert json.loads((folder / "out/in/a.json").read_text()) == PEOPLE[:3]
    assert lines(folder / "out/in/b.jsonl") == PEOPLE[3:6]
    assert json.loads((folder / "out/in/c.json").read_text()) == PEOPLE[6]
    run("in", "--to", "two/", "--root", "in", "--to-format", "jsonl", "--to-compression", "gz")
    assert sorted(os.listdir(folder / "two")) == ["a.jsonl.gz", "b.jsonl.gz", "c.jsonl.gz"]
    assert gzip.decompress((folder / "two/c.jsonl.gz").read_bytes()) == (
        json.dumps(PEOPLE[6], separators=(",", ":")).encode() + b"\n"
    )


def test_what_is_dropped_and_what_becomes_several_in_a_folder(run, files):
    folder = files({"in/one.json": '{"n": 0}', "in/list.json": "[]", "in/two.json": '{"n": 2}'})
    run("in", "--jq", "range(.n)", "--to", "out/")
    assert sorted(os.listdir(folder / "out" / "in")) == ["list.json", "two.json"]
    assert json.loads((folder / "out/in/list.json").read_text()) == []
    assert json.loads((folder / "out/in/two.json").read_text()) == [0, 1]


def test_outputs_are_kept_apart_from_inputs_and_each_other(run, folder):
    before = {name: (folder / "in" / name).read_bytes() for name in os.listdir(folder / "in")}
    refused = {
        ("in", "--to", "in/b.jsonl"): "is an input",
        ("in", "--dead-letter", "in/b.jsonl"): "is an input",
        ("in", "--to", "."): "overwritten by its own output",
        (".", "--to", "out/"): "inside the input folder",
        ("in", "--to", "o.jsonl", "--dead-letter", "./o.jsonl"): "same file",
        ("in", "--to", "o.jsonl", "--report", "o.jsonl"): "same file",
        ("--from-dead-letter", "dead.jsonl", "--dead-letter", "dead.jsonl"): "is an input",
    }
    letter = '{"file": "in/a.json", "record": 1, "kind": "schema", "data": {}}\n'
    (folder / "dead.jsonl").write_text(letter)
    for arguments, words in refused.items():
        outcome = run(*arguments)
        assert (outcome.code, words in outcome.stderr) == (2, True), (arguments, outcome.stderr)
    (folder / "in" / "a.jsonl").write_text("{}")
    outcome = run("in", "--to", "out/", "--to-format", "jsonl")
    assert "would both be written to out/in/a.jsonl" in outcome.stderr
    assert not (folder / "out").exists()
    assert before.items() <= {p.name: p.read_bytes() for p in (folder / "in").iterdir()}.items()


READ = {
    ("--call", "fn.py:say", "--dead-letter", "fn.py"): "fn.py",
    ("--call", "fn:say", "--dead-letter", "fn.py"): "fn.py",
    ("--schema", "s.json", "--ref", "urn:t=t.json", "--report", "s.json"): "s.json",
    ("--schema", "s.json", "--ref", "urn:t=t.json", "--dead-letter", "link"): "t.json",
    ("--files-from", "list.jsonl", "--to", "list.jsonl"): "list.jsonl",
    ("--files-from", "list.jsonl", "--to", "{id}.jsonl"): "list.jsonl",
    ("--dead-letter", "asyncbatch.toml"): "asyncbatch.toml",
}


@pytest.mark.parametrize("arguments", READ)
def test_other_files_that_are_read_are_kept(run, folder, arguments):
    texts = {
        "fn.py": FUNCTIONS, "s.json": '{"$ref": "urn:t"}', "t.json": "{}",
        "list.jsonl": "in/c.json\n", "asyncbatch.toml": "[run]\nworkers = 0\n",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "link").symlink_to("t.json")
    outcome = run("in", *arguments)
    assert outcome.code == 2
    assert f"{READ[arguments]} is read by this run: it cannot be written to" in outcome.stderr
    assert {name: (folder / name).read_text() for name in texts} == texts


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "z.jsonl", "--ledger", "z.jsonl"),
        ("--report", "z.json", "--ledger", "./z.json"),
        ("--dead-letter", "z.db", "--ledger", "z.db"),
        ("--log-file", "z.log", "--ledger", "z.log"),
    ],
)
def test_a_ledger_is_kept_apart_from_outputs(run, folder, arguments):
    outcome = run("in", *arguments)
    assert outcome.code == 2
    assert "name the same file" in outcome.stderr


def test_a_ledger_in_an_input_folder_is_no_input(run, folder):
    for _ in range(2):
        outcome = run("in", "--ledger", "in/ledger.json", "-o", "json")
        assert outcome.json["files"]["total"] - outcome.json["files"]["skipped"] in (4, 1)
    assert any("earlier runs" in note for note in outcome.json["notes"])


def test_a_target_that_was_not_there_is_not_left_as_it_was(run, folder):
    (folder / "bad.json").write_text("{")
    to = ("--fail-fast", "--to", "new.csv", "-o", "json")
    first = run("in", "bad.json", *to).json["target_discarded"]
    assert first.startswith("new.csv was not written: the run did not finish")
    assert not (folder / "new.csv").exists()
    (folder / "new.csv").write_text("a\n")
    second = run("in", "bad.json", *to).json["target_discarded"]
    assert second.startswith("new.csv was left as it was: the run did not finish")
    assert (folder / "new.csv").read_text() == "a\n"


def test_tables(run, folder):
    arguments = ("in", "--to", "sqlite:///t.db", "--table", "t", "-o", "json")
    assert run(*arguments, "--key", "id").json["records"]["written"] == 7
    rows = table(folder / "t.db")
    assert [row["x"] for row in rows] == [one["x"] for one in PEOPLE]
    assert json.loads(rows[0]["tags"]) == PEOPLE[0]["tags"]
    run(*arguments, "--key", "id", "--jq", "{id, name: .name[1:]}", "--load-batch", "2")
    assert [(row["name"], row["x"]) for row in table(folder / "t.db")][:2] == [
        ("1", None),
        ("2", None),
    ]
    again = run(*arguments, "--key", "id", "--mode", "append", "--dead-letter", "d.jsonl")
    assert records(again.json) == {"read": 7, "rejected": 7}
    assert [letter["kind"] for letter in lines(folder / "d.jsonl")].count("sink") == 7
    failed = run(*arguments, "--mode", "replace").json
    assert (failed["records"]["written"], "left as it was" in failed["target_discarded"]) == (
        0,
        True,
    )
    run(*arguments, "--mode", "replace", "--max-failures", "1", "--jq", "select(.id > 5)")
    assert [row["id"] for row in table(folder / "t.db")] == [6, 7]


def test_columns_change_as_records_come(run, files):
    folder = files({f"in/{n}.json": json.dumps(one) for n, one in enumerate([
        {"a": 1, "b": True}, {"a": 2.5, "c": 12345678901234567890}, {"a": "x", "b": None},
        {"a": 2**53 + 1, "select": "; DROP TABLE t", "": 1},
    ])})  # fmt: skip
    run("in", "--to", "sqlite:///t.db", "--table", 'a "t"', "--load-batch", "1")
    rows = table(folder / "t.db", 'a ""t""', "rowid")
    assert [row["a"] for row in rows] == ["1", "2.5", "x", "9007199254740993"]
    assert rows[1]["c"] == "12345678901234567890"
    assert (rows[3]["select"], rows[3][""]) == ("; DROP TABLE t", 1)


def test_duckdb_and_parquet(run, folder):
    import duckdb

    run("in", "--to", "duckdb:///t.duckdb", "--table", "t", "--key", "id")
    run("in", "--to", "duckdb:///t.duckdb", "--table", "t", "--key", "id")
    run("in", "--to", "o.parquet")
    with duckdb.connect(str(folder / "t.duckdb")) as database:
        found = database.execute("SELECT id, x FROM t ORDER BY id").fetchall()
        parquet = database.execute(f"SELECT id, x FROM '{folder}/o.parquet' ORDER BY id").fetchall()
    assert found == parquet == [(one["id"], one["x"]) for one in PEOPLE]


def test_csv(run, files):
    folder = files(
        {"in/a.json": json.dumps([{"a": 1, "b": 'x"\n,'}, {"a": None}, {"a": 3, "c": [1]}])}
    )
    outcome = run("in", "--to", "o.csv", "--load-batch", "2", "-o", "json")
    assert records(outcome.json) == {"read": 3, "passed": 2, "rejected": 1, "written": 2}
    assert "--columns" in outcome.json["failures"][0]["message"]
    assert list(csv.reader(io.StringIO((folder / "o.csv").read_text()))) == [
        ["a", "b"], ["1", 'x"\n,'], ["", ""],
    ]  # fmt: skip
    assert run("in", "--to", "o.tsv", "--columns", "c,a").code == 0
    assert (folder / "o.tsv").read_text() == "c\ta\n\t1\n\t\n[1]\t3\n"


def test_a_record_without_its_key_or_that_is_no_object(run, files):
    files({"a.json": '[{"id": 1}, {"id": null}, {}, 5]'})
    outcome = run("a.json", "--to", "sqlite:///t.db", "--table", "t", "--key", "id", "-o", "json")
    kinds = [failure["kind"] for failure in outcome.json["failures"]]
    assert kinds == ["missing_field", "missing_field", "sink"]
    assert outcome.json["records"]["written"] == 1


def test_a_worker_that_dies_leaves_nothing_of_its_file(run, folder):
    arguments = ("in", "--call", "fn.py:kill", "-w", "2", "-o", "json", "--dead-letter", "d.jsonl")
    report = run(*arguments, "--to", "o.jsonl").json
    assert records(report) == {"read": 4, "passed": 4, "written": 4}
    assert [one["id"] for one in lines(folder / "o.jsonl")] == [1, 2, 3, 7]
    letters = lines(folder / "d.jsonl")
    assert [(one["file"], one["kind"]) for one in letters] == [
        ("in/b.jsonl", "worker_crash"), ("in/bad.json", "invalid_json"),
    ]  # fmt: skip
    assert all("data" not in one for one in letters)
    run(*arguments, "--to", "out/")
    assert sorted(os.listdir(folder / "out" / "in")) == ["a.json", "c.json"]


def test_a_stopped_run_leaves_files_as_they_were_and_dead_letters_in_place(folder):
    (folder / "o.jsonl").write_text("old")
    (folder / "in" / "b.jsonl").write_text('{"id": 1}\n' * 200)
    process = CommandProcess(
        ["run", "in", "--call", "fn.py:slow", "--to", "o.jsonl", "--dead-letter",
         "d.jsonl", "-o", "json", "--grace", "1"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until((folder / "slow-began").exists)
    process.send_signal(signal.SIGINT)
    report = json.loads(process.communicate(timeout=PATIENCE)[0])
    assert (process.returncode, report["status"], report["records"]["written"]) == (
        130,
        "interrupted",
        0,
    )
    assert (folder / "o.jsonl").read_text() == "old"
    assert (folder / "d.jsonl").exists()
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


@pytest.mark.parametrize("target", ["o.jsonl", "o.csv", "o.parquet"])
def test_a_full_disk_is_told_and_the_run_can_be_carried_on(run, files, target):
    rows = [json.dumps({"text": os.urandom(30_000).hex()}) for _ in range(160)]
    folder = files({f"in/{n:03}.json": row for n, row in enumerate(rows)})
    limited = ("sh", "-c", 'ulimit -f 9000; exec "$@"', "-")
    outcome = run("in", "--to", target, "--load-batch", "10", "-o", "json", prefix=limited)
    assert outcome.code == 1, outcome.stderr
    report = outcome.json
    assert (report["status"], report["records"]["written"]) == ("failed", 0)
    assert (report["failures"][0]["kind"], report["failures"][0]["file"]) == ("sink", target)
    assert not (folder / target).exists()
    carried_on = run("in", "--to", target, "--resume", "-o", "json")
    assert carried_on.code == 0, carried_on.stderr
    assert (carried_on.json["files"]["skipped"] > 0) == (target != "o.parquet")
    undisturbed = f"whole{os.path.splitext(target)[1]}"
    assert run("in", "--to", undisturbed).code == 0
    assert (folder / target).read_bytes() == (folder / undisturbed).read_bytes()
    assert sorted(os.listdir(folder)) == sorted(["in", target, undisturbed])


def test_targets_that_cannot_be_used(run, folder):
    (folder / "text.db").write_text("no database, just text" * 100)
    database = sqlite3.connect(folder / "locked.db", isolation_level=None)
    database.execute("CREATE TABLE t (id)")
    database.execute("BEGIN EXCLUSIVE")
    for target, words in {
        "nowhere/o.jsonl": "there is no folder nowhere",
        "sqlite:///nowhere/t.db": "folder exists",
        "sqlite:///text.db": "not a database",
        "sqlite:///locked.db": "another process has locked it",
        "sqlite:t.db": "unknown kind of target; write sqlite:///t.db",
        "duckdb:/t.db": "unknown kind of target; write duckdb:////t.db",
        "t.sqlite": "for an SQLite database write sqlite:///t.sqlite",
        "o.txt": "unknown kind of target",
    }.items():
        table_ = ("--table", "t") if ":///" in target else ()
        outcome = run("in", "--to", target, *table_)
        assert (outcome.code, words in outcome.stderr) == (2, True), (target, outcome.stderr)
    database.close()
    assert "needs --table" in run("in", "--to", "sqlite:///t.db").stderr


SCHEMA = '{"properties": {"id": {"maximum": 5}, "name": {"type": "string"}}}'


def test_dead_letters_are_run_again_until_none_are_left(run, folder):
    (folder / "schema").write_text(SCHEMA)
    (folder / "in" / "b.jsonl").write_text(
        '{"id": 6, "n": 12345678901234567890.10}\nnope\n\xff\n{"id": 5}\n', encoding="latin-1"
    )
    run("in", "--schema", "schema", "--dead-letter", "d.jsonl")
    first, bad, latin, failed, last = lines(folder / "d.jsonl")
    assert list(first) == ["file", "record", "line", "kind", "message", "pointer", "data"]
    assert (first["file"], first["record"], first["line"]) == ("in/b.jsonl", 1, 1)
    assert (first["kind"], first["pointer"]) == ("schema", "/id")
    assert b'"n":12345678901234567890.10}' in (folder / "d.jsonl").read_bytes()
    assert (bad["kind"], bad["line"], bad["data"]) == ("invalid_json", 2, "nope")
    assert latin["kind"] == "encoding"
    assert (failed["file"], "data" in failed) == ("in/bad.json", False)
    assert (last["file"], last["data"]) == ("in/c.json", PEOPLE[6])
    # Repaired: the file, the schema, and the line in its dead letter.
    (folder / "in" / "bad.json").write_text('{"id": 100}')
    mended = (folder / "d.jsonl").read_text().replace('"nope"', '"{\\"id\\": 9}"')
    (folder / "d.jsonl").write_text(mended)
    outcome = run("--from-dead-letter", "d.jsonl", "--to", "o.jsonl", "--dead-letter", "e.jsonl")
    assert outcome.code == 1
    assert [one["id"] for one in lines(folder / "o.jsonl")] == [100, 6, 9, 7]
    (left,) = lines(folder / "e.jsonl")
    assert {name: left[name] for name in ("file", "record", "line", "kind")} == {
        "file": "in/b.jsonl", "record": 3, "line": 3, "kind": "encoding",
    }  # fmt: skip
    assert run("in/a.json", "--dead-letter", "e.jsonl").code == 0
    assert (folder / "e.jsonl").read_bytes() == b""


def test_one_record_of_many_rows_is_written_whole_or_not_at_all(run, files):
    folder = files({"a.json": '[{"n": 1000000}, {"n": 2}]'})
    program = 'if .n > 2 then range(.n), error("late") else range(.n) end | {id: .}'
    outcome = run("a.json", "--jq", program, "--to", "sqlite:///t.db", "--table", "t", "-o", "json")
    assert records(outcome.json) == {"read": 2, "passed": 1, "rejected": 1, "written": 2}
    assert outcome.json["peak_memory_bytes"] < 300e6
    assert len(table(folder / "t.db")) == 2
