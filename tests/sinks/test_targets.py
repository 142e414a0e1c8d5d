"""All kinds of targets as the command writes them, and their failures."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import re
import signal
import sqlite3
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.formats.compression import compression_by_name
from tests.commands import COMMAND, PATIENCE, CommandProcess, environment
from tests.faults.disks import LIMITED, unprivileged
from tests.processes import holds_open, wait_until
from tests.reports import balanced, rows

FILES = ["o.jsonl", "o.jsonl.gz", "o.ndjson.zst", "o.csv", "o.parquet"]
DATABASES = ["sqlite:///o.db", "duckdb:///o.duckdb"]
FUNCTIONS = """
import os, pathlib, sqlite3, time

def dies(r):
    if r.get("n") == 3000: os._exit(1)
    return r
def waits(r):
    if r.get("n") == 30:
        pathlib.Path("waiting").touch()
        while not pathlib.Path("go-on").exists():
            time.sleep(0.01)
    return r
def hangs(r):
    if r.get("n") == 30:
        pathlib.Path("waiting").touch()
        time.sleep(3600)
    return r
def locks(r):
    if r.get("n") == 5000:
        global connection
        connection = sqlite3.connect("midway.db", isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    return r
"""


def options(target: str, *more: str) -> tuple[str, ...]:
    """Return the options that name a target."""
    return ("--to", target, *(("--table", "t") if "://" in target else ()), *more)


def query(folder: Path, target: str, statement: str = "SELECT * FROM t") -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    path = folder / target.partition(":///")[2]
    connection: Any
    if target.startswith("sqlite"):
        connection = sqlite3.connect(path, isolation_level=None)
    else:
        connection = duckdb.connect(str(path))
    try:
        return [tuple(row) for row in connection.execute(statement).fetchall()]
    finally:
        connection.close()


def lines(path: Path) -> list[Any]:
    """Return the values in a file of JSON Lines."""
    data = path.read_bytes()
    if compression := compression_by_name(path.name):
        data = b"".join(compression.chunks(io.BytesIO(data), 1 << 20))
    values: list[Any] = rows(data.decode())
    return values


def table(path: Path) -> list[list[str]]:
    """Return the header and the rows of a CSV or TSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


def numbers(folder: Path, target: str) -> list[int]:
    """Return field `n` of all rows of a target, in their order."""
    if "://" in target:
        return [number for (number,) in query(folder, target, "SELECT n FROM t")]
    path = folder / target
    if target.endswith((".csv", ".tsv")):
        header, *found = table(path)
        return [int(row[header.index("n")]) for row in found]
    if target.endswith(".parquet"):
        values: list[int] = pyarrow.parquet.read_table(path)["n"].to_pylist()
        return values
    if target.endswith("/"):
        outputs = sorted(path.rglob("*.jsonl"))
        return [row["n"] for output in outputs for row in lines(output)]
    return [row["n"] for row in lines(path)]


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files."""
    return [str(path) for path in folder.rglob("*") if ".tmp" in path.name or ".old" in path.name]


@pytest.fixture
def uneven(files):
    """Write files of numbered records, of very different sizes, to in/, and fn.py."""
    sizes = [5000, 1, 3, 1, 1200, 0, 1, 2, 2000, *[1] * 30]
    count, texts = itertools.count(), {}
    for place, size in enumerate(sizes):
        wanted = [json.dumps({"n": next(count), "file": place}) + "\n" for _ in range(size)]
        texts[f"in/{place:02}.jsonl"] = "".join(wanted)
    return files({"fn.py": FUNCTIONS, **texts})


# The number of records in the fixture above.
UNEVEN = 8238


# The result of each target


@pytest.mark.parametrize("target", [*FILES, *DATABASES, "out/"])
def test_targets_hold_all_records_in_input_order(run, uneven, target):
    how = ("-w", "2", "-b", "1", "--load-batch", "700")
    outcome = run("in", *options(target), *how, "-o", "json")
    report = balanced(outcome.json)
    assert report["records"]["written"] == report["records"]["passed"] == UNEVEN
    assert (report["status"], outcome.stderr) == ("success", "")
    assert numbers(uneven, target) == list(range(UNEVEN))
    assert leftovers(uneven) == []


@pytest.mark.parametrize("target", ["o.jsonl.gz", "sqlite:///o.db"])
def test_unordered_targets_hold_all_records(run, uneven, target):
    outcome = run("in", *options(target, "--unordered", "-w", "2", "-b", "1"))
    assert outcome.code == 0
    assert sorted(numbers(uneven, target)) == list(range(UNEVEN))


def test_the_content_is_the_same_however_the_work_is_cut(run, uneven):
    ways = [("-w", "0"), ("-w", "2", "-b", "3", "-c", "4"), ("--load-batch", "1")]
    for target in ("o.jsonl", "o.csv"):
        contents = set()
        for way in ways:
            assert run("in", *options(target), *way).code == 0
            contents.add((uneven / target).read_bytes())
        assert len(contents) == 1


def test_standard_output_has_records_and_nothing_else(run, files):
    folder = files({"in/a.json": '[{"b": 1, "a": "é"}, 2]', "in/b.json": "[1,"})
    outcome = run("in", "--to", "-", "-v")
    assert outcome.stdout == '{"b":1,"a":"é"}\n2\n'
    assert "in/b.json:1:4" in outcome.stderr
    assert "written  2 to -" in outcome.stderr
    assert run("in", "--to", "-", "-q", "--exclude", "b.json") == (0, outcome.stdout, "")
    for output in ("json", "jsonl", "junit", "github"):
        refused = run("in", "--to", "-", "-o", output)
        assert (refused.code, refused.stdout) == (2, "")
    outcome = run("in", "--to", "-", "--report", "r.json", "--max-failures", "1")
    assert outcome.code == 0
    report = json.loads((folder / "r.json").read_text())
    assert (report["status"], report["exit_code"]) == ("partial", 0)
    assert report["records"]["written"] == 2


def test_a_reader_that_leaves_ends_the_run_quietly(uneven):
    command = f"{' '.join(COMMAND)} run in --to - | head -n 1; echo ${{PIPESTATUS[0]}}"
    finished = subprocess.run(
        ["bash", "-c", command], check=True, capture_output=True, text=True, cwd=uneven,
        env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert finished.stdout.splitlines()[-1] == "141"
    assert finished.stderr == ""


def test_several_rows_of_one_record(run, files):
    folder = files({"a.json": '[{"n": 1}, {"n": 2}, {"n": 3}]'})
    program = "if .n == 2 then empty else ., {n: -.n} end"
    for target in ("o.jsonl", "o.csv", "sqlite:///o.db"):
        outcome = run(
            "a.json", "--jq", program, *options(target, "--load-batch", "1", "-o", "json")
        )
        assert outcome.json["records"] == {
            "read": 3, "passed": 2, "dropped": 1, "rejected": 0, "written": 4,
        }  # fmt: skip
        assert numbers(folder, target) == [1, -1, 3, -3]


@pytest.mark.parametrize("target", ["o.csv", "o.parquet", *DATABASES])
def test_only_objects_can_be_rows(run, files, target):
    folder = files({"a.json": '[{"n": 1}, [2], "x", null, {"n": 5}]'})
    outcome = run("a.json", *options(target), "-o", "json")
    report = balanced(outcome.json)
    assert [(f["record"], f["kind"]) for f in report["failures"]] == [
        (2, "sink"), (3, "sink"), (4, "sink"),
    ]  # fmt: skip
    assert "an array" in report["failures"][0]["message"]
    assert report["records"]["written"] == 2
    assert numbers(folder, target) == [1, 5]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
RECORDS = st.fixed_dictionaries(
    {"s": TEXTS, "i": st.integers(-(2**63), 2**63 - 1)},
    optional={
        "f": st.floats(allow_nan=False, allow_infinity=False),
        "b": st.booleans(),
        "t\n\"'é": st.none() | TEXTS,
        "big": st.integers(2**64, 2**90),
        "x": st.lists(st.none() | TEXTS | st.booleans(), max_size=3),
    },
)
KEYS = ("s", "i", "f", "b", "t\n\"'é", "big", "x")


def written_out(record: dict[str, Any], *, booleans: bool) -> dict[str, Any]:
    """Return a record as a table holds it: nested values and big integers as text."""
    row = {key: record.get(key) for key in KEYS}
    if row["b"] is not None and not booleans:
        row["b"] = int(row["b"])
    row["big"] = None if row["big"] is None else str(row["big"])
    return row


@settings(max_examples=2)
@given(st.lists(RECORDS, min_size=30, max_size=60))
def test_what_is_written_reads_back_equal(records):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # One record with all fields creates the columns.
        records = [dict.fromkeys(KEYS), *records]
        (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        for target in ("o.jsonl", "o.csv", "o.parquet", *DATABASES):
            subprocess.run(
                [*COMMAND, "run", "a.jsonl", *options(target, "--load-batch", "7"), "-q"],
                check=True, cwd=folder, env=environment(), timeout=PATIENCE,
            )  # fmt: skip
        assert lines(folder / "o.jsonl") == records
        found: dict[str, list[dict[str, Any]]] = {
            "parquet": pyarrow.parquet.read_table(folder / "o.parquet").to_pylist()
        }
        for target in DATABASES:
            # A field gets its column with its first value.
            keys = [key for key in KEYS if any(row.get(key) is not None for row in records)]
            names = ", ".join('"' + key.replace('"', '""') + '"' for key in keys)
            answers = query(folder, target, f"SELECT {names} FROM t") if keys else []
            nothing = dict.fromkeys(KEYS)
            found[target] = [
                nothing | dict(zip(keys, answer, strict=True)) for answer in answers
            ] or [nothing] * len(records)
        for kind, read in found.items():
            for row in read:
                row["x"] = None if row["x"] is None else json.loads(row["x"])
            booleans = not kind.startswith("sqlite")
            assert read == [written_out(record, booleans=booleans) for record in records]
        header, *lists = table(folder / "o.csv")
        assert sorted(header) == sorted(KEYS)
        for record, cells in zip(records, lists, strict=True):
            cell = dict(zip(header, cells, strict=True))
            assert cell["s"] == (record["s"] or "")
            assert cell["i"] == ("" if record["i"] is None else str(record["i"]))
            for key in ("f", "big", "b", "x"):
                value = record.get(key)
                assert (json.loads(cell[key]) if cell[key] else None) == value


# Files


@pytest.mark.parametrize("target", ["o.jsonl.gz", "o.csv", "o.parquet"])
def test_a_file_is_replaced_when_complete(run, files, target):
    folder = files({target: "old", "a.json": '{"n": 7}', "bad.jsonl": '{"n": 8}\nx\n'})
    assert run("a.json", "bad.jsonl", "nosuch.json", *options(target)).code == 1
    assert numbers(folder, target) == [7, 8]
    assert leftovers(folder) == []


@pytest.mark.parametrize("target", ["o.jsonl", "o.csv", "o.parquet"])
def test_a_run_that_is_cut_short_leaves_the_file_as_it_was(run, uneven, target):
    (uneven / target).write_text("old")
    for call, budget in (("hangs", ()), ("dies", ("--fail-fast", "-b", "1"))):
        command = ["run", "in", "--call", f"fn.py:{call}", *options(target), *budget,
                   "-o", "json", "--grace", "0.1"]  # fmt: skip
        with CommandProcess(
            command, cwd=uneven, env=environment(), stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            if call == "hangs":
                wait_until((uneven / "waiting").exists)
                process.send_signal(signal.SIGTERM)
            stdout, _ = process.communicate(timeout=PATIENCE)
        report = json.loads(stdout)
        assert process.returncode == report["exit_code"] == (143 if call == "hangs" else 1)
        assert target in report["target_discarded"]
        assert report["records"]["written"] == 0
        assert (uneven / target).read_text() == "old"
        assert leftovers(uneven) == []


@pytest.mark.parametrize("target", ["o.jsonl", "o.csv", "o.parquet", "sqlite:///o.db"])
def test_a_full_disk(run, uneven, target):
    if "://" not in target:
        (uneven / target).write_text("old")
    noise = '.pad = "\\(.n * 7919)\\(.n * 104729)\\(.n * 15485863)"'
    outcome = run("in", "--jq", noise, *options(target, "-o", "json"), prefix=LIMITED)
    report = outcome.json
    assert outcome.code == report["exit_code"] == 1
    assert report["status"] == "failed"
    [failure] = report["failures"]
    assert failure["kind"] == "sink"
    assert re.search("too large|larger than|disk", failure["message"])
    assert "Traceback" not in outcome.stderr
    if "://" not in target:
        assert report["records"]["written"] == 0
        assert target in report["target_discarded"]
        assert (uneven / target).read_text() == "old"
    assert leftovers(uneven) == []


def test_a_device_that_is_full(run, files):
    folder = files({"a.json": "[1, 2]"})
    (folder / "o.jsonl").symlink_to("/dev/full")
    outcome = run("a.json", "--to", "o.jsonl", "-o", "json")
    [failure] = outcome.json["failures"]
    assert (failure["kind"], outcome.code) == ("sink", 1)
    assert "No space left" in failure["message"]
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(
            [*COMMAND, "run", "a.json", "--to", "-"], check=False, stdout=full, text=True,
            stderr=subprocess.PIPE, cwd=folder, env=environment(), timeout=PATIENCE,
        )  # fmt: skip
    assert finished.returncode == 1
    assert "No space left" in finished.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("run", "a.json"),
        ("run", "a.json", "-o", "json", "--report", "r.json"),
        ("run", "a.json", "-o", "jsonl", "--report", "r.json"),
        ("run", "a.json", "--agg", "count"),
        ("run", "a.json", "--dry-run"),
        ("profile", "a.json"),
        ("schema", "infer", "a.json"),
        ("stream", "a.json", "--time", "arrival"),
        ("generate", "events"),
    ],
)
def test_a_full_disk_of_standard_output_is_named(files, command):
    folder = files({"a.json": '{"a": 1}\n'})
    with (
        open("/dev/full", "wb") as full,
        CommandProcess(
            command, stdout=full, stderr=subprocess.PIPE, cwd=folder, env=environment()
        ) as process,
    ):
        errors = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == 1
    message = "cannot write to standard output: No space left on device"
    assert message in errors
    if "jsonl" in command:
        assert json.loads((folder / "r.json").read_text())["error"] == message


def test_a_named_pipe_is_written_to(run, files):
    folder = files({"a.json": '[1, "é"]'})
    os.mkfifo(folder / "pipe.jsonl")
    found = []
    reader = threading.Thread(target=lambda: found.append((folder / "pipe.jsonl").read_text()))
    reader.start()
    assert run("a.json", "--to", "pipe.jsonl").code == 0
    reader.join(10)
    assert found == ['1\n"é"\n']


def test_targets_that_may_not_be_written(run, files):
    folder = files({"a.json": '{"n": 1}', "closed/x": "", "old.db": ""})
    sqlite3.connect(folder / "closed/o.db").execute("CREATE TABLE t (n)").connection.close()
    (folder / "closed/o.db").chmod(0o400)
    (folder / "closed").chmod(0o500)
    try:
        for name in ("o.jsonl", "o.csv", "o.parquet", "sqlite:///{}/o.db", "duckdb:///{}/o.duckdb"):
            target = name.format("closed") if "{}" in name else f"closed/{name}"
            outcome = run("a.json", "nosuch.json", *options(target), prefix=unprivileged())
            assert outcome.code == 2, target
            assert "closed/" in outcome.stderr
            assert "Traceback" not in outcome.stderr
            assert outcome.stdout == ""
        outcome = run("a.json", "--to", "closed/out/", "-o", "json", prefix=unprivileged())
        [failure] = outcome.json["failures"]
        assert (failure["file"], failure["kind"]) == ("a.json", "sink")
        assert "Permission denied" in failure["message"]
    finally:
        (folder / "closed").chmod(0o700)


@pytest.mark.parametrize(
    "target",
    [
        ("--to", "o.json"),
        ("--to", "o.csv.gz"),
        ("--to", ""),
        ("--to", "nosuch/o.jsonl"),
        ("--to", "sqlite:///o.db"),
        ("--to", "sqlite://o.db", "--table", "t"),
        ("--to", "sqlite:///nosuch/o.db", "--table", "t"),
        ("--to", "sqlite:///o.db", "--table", "sqlite_x"),
        ("--to", "mysql:///o.db", "--table", "t"),
        ("--to", "sqlite:///o.db", "--table", "t", "--mode", "upsert"),
        ("--to", "o.jsonl", "--table", "t"),
        ("--to", "o.jsonl", "--columns", "a"),
        ("--to", "o.jsonl", "--to-format", "json"),
        ("--to", "o.jsonl", "--load-batch", "0"),
        ("--table", "t"),
    ],
)
def test_targets_that_cannot_be_meant_are_usage_errors(run, files, target):
    folder = files({"a.json": "1"})
    outcome = run("a.json", *target)
    assert outcome.code == 2
    assert "Error" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_nothing_to_do_touches_no_target(run, files):
    folder = files({"o.jsonl": "old", "empty/x.txt": ""})
    assert run("empty", "--to", "o.jsonl").code == 2
    assert (folder / "o.jsonl").read_text() == "old"
    assert run("empty", "--to", "o.jsonl", "--allow-empty").code == 0
    assert (folder / "o.jsonl").read_text() == ""


# CSV


def test_csv_cells(run, files):
    folder = files({"a.json": json.dumps([
        {"id": 1, "t": 'a,"b"\nc\r', "x": {"k": [1, None]}, "b": True, "f": 1e300},
        {"id": 2**70, "t": "", "x": None, "b": False, "f": 0.1},
    ])})  # fmt: skip
    run("a.json", "--to", "o.csv")
    assert table(folder / "o.csv") == [
        ["id", "t", "x", "b", "f"],
        ["1", 'a,"b"\nc\r', '{"k":[1,null]}', "true", "1e+300"],
        [str(2**70), "", "", "false", "0.1"],
    ]
    run("a.json", "--to", "o.tsv", "--columns", '"t,2",id,b')
    assert (folder / "o.tsv").read_text() == f"t,2\tid\tb\n\t1\ttrue\n\t{2**70}\tfalse\n"


@pytest.mark.parametrize("cut", [(), ("-b", "2"), ("-b", "1", "-w", "1")])
def test_a_field_after_the_first_batch_is_rejected_however_the_work_is_cut(run, files, cut):
    alike = '[{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]'
    folder = files({
        "in/1.json": alike, "in/2.json": alike, "in/3.json": '[{"a": 5, "new": 1}, {"a": 6}]',
    })  # fmt: skip
    outcome = run("in", "--to", "o.csv", "--load-batch", "5", *cut, "-o", "json")
    [failure] = balanced(outcome.json)["failures"]
    assert (failure["file"], failure["record"], failure["kind"]) == ("in/3.json", 1, "sink")
    assert "'new'" in failure["message"]
    assert "--columns" in failure["message"]
    assert numbers_of(folder / "o.csv") == ["a", *"12341234", "6"]
    kept = run("in", "--to", "o.csv", "--load-batch", "5", *cut, "--columns", "new,a")
    assert kept.code == 0
    assert table(folder / "o.csv")[-2:] == [["1", "5"], ["", "6"]]


def numbers_of(path: Path) -> list[str]:
    return [cell for (cell,) in table(path)]


# Parquet


def test_parquet_types(run, files):
    folder = files({"a.json": json.dumps([
        {"i": 1, "f": 1, "s": 1, "b": True, "x": [1]},
        {"i": -(2**63), "f": 0.5, "s": "é", "new": 1},
    ])})  # fmt: skip
    run("a.json", "--to", "o.parquet", "--load-batch", "1")
    found = pyarrow.parquet.read_table(folder / "o.parquet")
    types = {field.name: str(field.type) for field in found.schema}
    assert types == {
        "i": "int64", "f": "double", "s": "string", "b": "bool",
        "x": "list<element: int64>", "new": "int64",
    }  # fmt: skip
    assert found.to_pylist() == [
        {"i": 1, "f": 1.0, "s": "1", "b": True, "x": [1], "new": None},
        {"i": -(2**63), "f": 0.5, "s": "é", "b": None, "x": None, "new": 1},
    ]


# Folders


TREE = {
    "in/a.json": '[{"n": 1}, {"n": 2}]', "in/b.jsonl": '{"n": 3}\n\n{"n": 4}\n',
    "in/sub/c.json": '{"n":5}', "in/sub/d.json.gz": gzip.compress(b'[{"n": 6}]'),
    "in/e.jsonl": "", "in/f.json": "[]",
}  # fmt: skip


def tree(folder: Path) -> dict[str, str]:
    """Return the contents of the files below a folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            compression = compression_by_name(path.name)
            data = path.read_bytes()
            if compression:
                data = b"".join(compression.chunks(io.BytesIO(data), 1 << 20))
            found[str(path.relative_to(folder))] = data.decode()
    return found


def test_a_folder_mirrors_the_inputs(run, files):
    folder = files(TREE)
    outcome = run("in", "--to", "out/", "-o", "json")
    assert balanced(outcome.json)["records"]["written"] == 6
    found = {name: text.replace("\n", "") for name, text in tree(folder / "out").items()}
    assert found == {
        "in/a.json": '[{"n":1},{"n":2}]', "in/b.jsonl": '{"n":3}{"n":4}',
        "in/sub/c.json": '{"n":5}', "in/sub/d.json.gz": '[{"n":6}]',
        "in/e.jsonl": "", "in/f.json": "[]",
    }  # fmt: skip
    again = run("out", "--to", "out2/", "--root", "out")
    assert again.code == 0
    assert tree(folder / "out2") == tree(folder / "out")
    assert (folder / "out2/in/sub/d.json.gz").read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (("--to-format", "jsonl"), "a.jsonl b.jsonl e.jsonl f.jsonl sub/c.jsonl sub/d.jsonl.gz"),
        (
            ("--to-format", "json", "--to-compression", "zst"),
            "a.json.zst b.json.zst e.json.zst f.json.zst sub/c.json.zst sub/d.json.zst",
        ),
        (("--to-compression", "none"), "a.json b.jsonl e.jsonl f.json sub/c.json sub/d.json"),
    ],
)
def test_formats_and_compressions_of_a_folder(run, files, form, names):
    folder = files(TREE)
    assert run("in", "--to", "out/", *form, "--root", "in").code == 0
    found = tree(folder / "out")
    assert sorted(found) == names.split()
    for name, text in found.items():
        if ".jsonl" in name:
            assert all(isinstance(row, dict) for row in rows(text))
        elif "c.json" in name:
            assert json.loads(text) == {"n": 5}
        else:
            assert isinstance(json.loads(text), list)
    again = run("out", "--to", "-", "-q")
    assert sorted(row["n"] for row in rows(again.stdout)) == [1, 2, 3, 4, 5, 6]


def test_a_document_in_a_folder_becomes_what_is_made_of_it(run, files):
    folder = files({"none.json": '{"n": 0}', "one.json": '{"n": 1}', "two.json": '{"n": 2}'})
    program = "if .n == 0 then empty elif .n == 1 then . else ., . end"
    run("none.json", "one.json", "two.json", "--jq", program, "--to", "out/")
    found = {name: json.loads(text) for name, text in tree(folder / "out").items()}
    assert found == {"one.json": {"n": 1}, "two.json": [{"n": 2}, {"n": 2}]}


def test_in_a_folder_good_records_of_a_bad_file_are_kept(run, files):
    folder = files({
        "s.json": '{"properties": {"n": {"type": "integer"}}}', "out/in/c.json": "old",
        "in/a.json": '[{"n": 1}, {"n": "x"}, {"n": 3}]', "in/b.json": '[{"n": "x"}]',
        "in/c.json": "[1",
    })  # fmt: skip
    outcome = run("in", "--schema", "s.json", "--to", "out/", "-o", "json")
    report = balanced(outcome.json)
    assert [report["files"][status] for status in ("partial", "failed")] == [1, 2]
    assert report["records"]["written"] == 2
    found = tree(folder / "out")
    assert json.loads(found.pop("in/a.json")) == [{"n": 1}, {"n": 3}]
    assert found == {"in/c.json": "old"}


def test_outputs_of_one_file_fail_alone(run, files):
    """A file stands at the path of a folder, and a folder at the path of an output."""
    folder = files({
        "in/a.json": "1", "in/c.json": "3", "in/sub/b.json": "2",
        "out/in/sub": "", "out/in/a.json/x": "",
    })  # fmt: skip
    outcome = run("in", "--to", "out/", "-o", "json")
    failures = balanced(outcome.json)["failures"]
    assert {f["file"]: f["kind"] for f in failures} == {
        "in/a.json": "sink", "in/sub/b.json": "sink",
    }  # fmt: skip
    assert all("out/in/" in f["message"] for f in failures)
    assert (folder / "out/in/c.json").read_text() == "3\n"
    assert leftovers(folder) == []


def test_names_of_outputs_in_a_folder(run, files):
    folder = files({"x/in/a.json": "1"})
    assert run("x/in/../in/a.json", "--to", "o1/").code == 0
    assert list(tree(folder / "o1")) == ["x/in/a.json"]
    assert run(folder / "x", "--to", "o2/").code == 0
    assert list(tree(folder / "o2")) == [str(folder / "x/in/a.json")[1:]]
    assert run(folder / "x", "--to", "o3/", "--root", "x").code == 0
    assert list(tree(folder / "o3")) == ["in/a.json"]
    outside = run("../x", "--to", "../o4/", cwd=folder / "x")
    assert outside.code == 2
    assert "--root" in outside.stderr
    assert run("-", "--to", "o5/", stdin=b"[1]").code == 0
    assert list(tree(folder / "o5")) == ["stdin.json"]


# Overlapping paths


def test_outputs_that_would_overwrite_an_input_are_refused(run, files):
    before = {"in/a.jsonl": "1\n", "in/b.jsonl": "2\n", "in/r.json": "3"}
    folder = files(before)
    (folder / "link").symlink_to("in")
    options: list[tuple[str | Path, ...]] = [
        ("in", "--to", "in/a.jsonl"), ("in", "--to", "link/a.jsonl"),
        ("in/a.jsonl", "--to", folder / "in/a.jsonl"), ("link", "--to", "./in/b.jsonl"),
        ("in", "--dead-letter", "in/b.jsonl"), ("in", "--report", "in/r.json"),
        ("in", "--to", "./"), ("in", "--to", "in/"), ("in", "--to", "in/out/"),
        ("in", "--to", "link/out/"), (".", "--to", "out/"), ("in/a.jsonl", "--to", "./"),
        ("*/a.jsonl", "--to", "./"), (folder / "in", "--to", "/"),
    ]  # fmt: skip
    for wish in options:
        outcome = run(*wish)
        assert outcome.code == 2, wish
        assert "Traceback" not in outcome.stderr
        assert tree(folder) == before, wish
    assert run("in", "--to", "in/out/", "--exclude", "out").code == 0


def test_two_outputs_cannot_be_one(run, files):
    before = {
        "in/a.json": "1",
        "in/a.jsonl": "2\n",
        "in/a.json.gz": gzip.compress(b"1"),
        "x.json": "",
    }
    folder = files(before)
    kept = tree(folder)
    for wish in (
        ("--to", "x.jsonl", "--dead-letter", "./x.jsonl"),
        ("--dead-letter", "x.json", "--report", "x.json"),
        ("--report", "x.json", "--report", "./x.json"),
        ("--to", "out/", "--to-format", "json"),
        ("--to", "out/", "--to-compression", "none"),
    ):
        outcome = run("in", *wish)
        assert outcome.code == 2, wish
        assert tree(folder) == kept, wish
    same = run("in", folder / "in/a.json", "./in", "--to", "out/", "-o", "json")
    assert (same.code, same.json["files"]["total"]) == (0, 3)


# Databases


@pytest.mark.parametrize("target", DATABASES)
def test_modes(run, files, target):
    folder = files({
        "a.json": '[{"id": 1, "v": "a"}, {"id": 2, "v": "a"}]',
        "b.json": '[{"id": 2, "v": "b"}, {"id": 3, "v": "b"}, {"id": 3, "v": "c", "w": 1}]',
    })  # fmt: skip
    assert run("a.json", *options(target)).code == 0
    assert run("a.json", *options(target, "--mode", "append", "--allow-duplicates")).code == 0
    assert sorted(query(folder, target)) == [(1, "a"), (1, "a"), (2, "a"), (2, "a")]
    assert run("a.json", *options(target, "--mode", "replace")).code == 0
    assert sorted(query(folder, target)) == [(1, "a"), (2, "a")]
    outcome = run("b.json", *options(target, "--key", "id", "-o", "json"))
    assert outcome.json["records"]["written"] == 3
    assert sorted(query(folder, target)) == [(1, "a", None), (2, "b", None), (3, "c", 1)]
    failing = run("a.json", "nosuch.json", *options(target, "--mode", "replace", "-o", "json"))
    assert failing.code == 1
    assert failing.json["records"]["written"] == 0
    assert "left as it was" in failing.json["target_discarded"]
    assert len(query(folder, target)) == 3
    within = ("--max-failures", "1", "--mode", "replace")
    assert run("a.json", "nosuch.json", *options(target, *within)).code == 0
    assert sorted(query(folder, target)) == [(1, "a"), (2, "a")]


@pytest.mark.parametrize("target", DATABASES)
def test_keys(run, files, target):
    folder = files({
        "a.json": '[{"a": 1, "b": "x", "c": 1}, {"a": 1, "b": "y", "c": 2}, {"a": 1, "c": 3},'
        ' {"a": null, "b": "z"}, {"a": 1, "b": "x", "c": 4}]',
    })  # fmt: skip
    outcome = run("a.json", *options(target, "--key", "a,b", "-o", "json"))
    assert [(f["record"], f["kind"]) for f in balanced(outcome.json)["failures"]] == [
        (3, "missing_field"), (4, "missing_field"),
    ]  # fmt: skip
    assert sorted(query(folder, target)) == [(1, "x", 4), (1, "y", 2)]
    again = run(
        "a.json", *options(target, "--key", "a", "--key", "b", "--mode", "append", "-o", "json")
    )
    assert {f["kind"] for f in balanced(again.json)["failures"]} == {"sink", "missing_field"}
    assert sorted(query(folder, target)) == [(1, "x", 4), (1, "y", 2)]
    other = run("a.json", *options(target, "--key", "nosuch"))
    assert other.code == 2
    assert "nosuch" in other.stderr


@pytest.mark.parametrize("target", DATABASES)
@pytest.mark.parametrize("batch", ["1", "10000"])
def test_a_column_that_changes_midway_loses_nothing(run, files, target, batch):
    values = [1, 2.5, None, True, 2**53 + 1, "x", [1, {"y": None}], 10**30, 1e300]
    records: list[dict[str, Any]] = [{"n": n, "v": value} for n, value in enumerate(values)]
    records += [{"n": 9, "late": 1}, {"n": 10, "late": 0.5, "N": 1}, {"n": 11}]
    folder = files({"a.json": json.dumps(records)})
    outcome = run("a.json", *options(target, "--load-batch", batch, "-o", "json"))
    [failure] = balanced(outcome.json)["failures"]
    assert (failure["record"], failure["kind"]) == (11, "sink")  # N and n are one column
    found = query(folder, target, "SELECT v, late FROM t ORDER BY n")
    assert [value for value, _ in found[:9]] == [
        "1", "2.5", None, "true", str(2**53 + 1), "x", '[1,{"y":null}]', str(10**30), "1e300",
    ]  # fmt: skip
    assert [late for _, late in found[9:]] == [1, None]


def test_numbers_become_wider_numbers(run, files):
    folder = files({"a.jsonl": '{"v": 1}\n{"v": -0.5}\n{"v": 1e300}\n{"v": 9007199254740992}'})
    for target in DATABASES:
        assert run("a.jsonl", *options(target, "--load-batch", "1")).code == 0
        assert query(folder, target, "SELECT v FROM t") == [
            (1.0,), (-0.5,), (1e300,), (2.0**53,),
        ]  # fmt: skip


NAMES = [
    'q"uote',
    "]",
    "`",
    "'",
    "; DROP TABLE t; --",
    "a.b",
    "x\ny",
    "%s?:@$1",
    "select",
    "é😀",
    " ",
]


@pytest.mark.parametrize("target", DATABASES)
def test_any_name_works_and_none_injects(run, files, target):
    folder = files({"a.json": json.dumps([dict.fromkeys(NAMES, 1), dict.fromkeys(NAMES, 2)])})
    for name in NAMES[:5]:
        keys = ",".join('"' + key.replace('"', '""') + '"' for key in NAMES[:3])
        outcome = run("a.json", "--to", target, "--table", name, "--key", keys, "--load-batch", "1")
        assert (outcome.code, outcome.stderr) == (0, ""), name
        if target == DATABASES[1] and name == NAMES[1]:
            break  # DuckDB starts slowly
    quoted = '"' + NAMES[0].replace('"', '""') + '"'
    assert query(folder, target, f"SELECT * FROM {quoted}") == [(1,) * 11, (2,) * 11]


def test_an_interrupted_run_says_how_much_is_in_the_table(uneven):
    target = "sqlite:///o.db"
    query(uneven, target, "CREATE TABLE kept (x INTEGER)")
    calls = {"waits": (), "hangs": ("--mode", "replace")}
    for call, mode in calls.items():
        if mode:
            query(uneven, target, "DELETE FROM t")
        grace = "3600" if call == "waits" else "0.1"
        command = ["run", "in", "--call", f"fn.py:{call}", *options(target), *mode,
                   "-w", "1", "--load-batch", "7", "-o", "json", "--grace", grace]  # fmt: skip
        with CommandProcess(
            command, cwd=uneven, env=environment(), stdout=subprocess.PIPE, text=True,
            stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            wait_until((uneven / "waiting").exists)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Stopping")
            (uneven / "go-on").touch()
            stdout, _ = process.communicate(timeout=PATIENCE)
        (uneven / "waiting").unlink()
        report = json.loads(stdout)
        assert (process.returncode, report["status"]) == (130, "interrupted")
        there = numbers(uneven, target)
        assert there == list(range(report["records"]["written"]))
        assert bool(there) == (call == "waits")
        assert ("target_discarded" in report) == (call == "hangs")


def test_locked_databases(uneven):
    """Locked at the start, midway, for a moment; concurrent: each waits 5 seconds."""
    query(uneven, "sqlite:///midway.db", "CREATE TABLE t (n INTEGER, file INTEGER)")
    locks = {}
    for name in ("start", "moment"):
        locks[name] = sqlite3.connect(
            uneven / f"{name}.db", isolation_level=None, check_same_thread=False
        )
        locks[name].execute("CREATE TABLE other (a)")
        locks[name].execute("BEGIN EXCLUSIVE")
    processes = {
        name: CommandProcess(
            ["run", "in", *options(f"sqlite:///{name}.db"), "--load-batch", "1000",
             "-w", "1", "-b", "1", "--call", "fn.py:locks" if name == "midway" else "fn.py:dies",
             "-o", "json", "--exclude", "00.jsonl" if name == "moment" else "x"],
            cwd=uneven, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in ("start", "midway", "moment")
    }  # fmt: skip
    momentarily = processes["moment"]
    wait_until(lambda: holds_open(momentarily.pid, uneven / "moment.db"), running=momentarily)
    locks["moment"].close()
    outputs = {name: process.communicate(timeout=PATIENCE) for name, process in processes.items()}
    codes = {name: process.returncode for name, process in processes.items()}
    locks["start"].close()
    assert codes == {"start": 2, "midway": 1, "moment": 0}
    assert "start.db: database is locked" in outputs["start"][1]
    report = json.loads(outputs["midway"][0])
    assert report["failures"][-1]["kind"] == "sink"
    assert "database is locked" in report["failures"][-1]["message"]
    assert report["status"] == "failed"
    there = numbers(uneven, "sqlite:///midway.db")
    assert there == list(range(len(there)))
    assert len(numbers(uneven, "sqlite:///moment.db")) == UNEVEN - 5000


def test_files_that_are_no_database_are_left_alone(run, files):
    folder = files({"a.json": '{"n": 1}', "o.db": "x" * 5000, "o.duckdb": "x" * 5000})
    for target in DATABASES:
        outcome = run("a.json", *options(target))
        assert outcome.code == 2
        assert "Traceback" not in outcome.stderr
    assert (folder / "o.db").read_text() == (folder / "o.duckdb").read_text() == "x" * 5000


def test_paths_of_databases(run, files):
    folder = files({"a.json": '{"n": 1}'})
    assert run("a.json", *options("sqlite:///a%20b.db")).code == 0
    assert run("a.json", *options(f"sqlite:///{folder}/abs.db")).code == 0
    assert (folder / "a b.db").exists()
    assert numbers(folder, "sqlite:///abs.db") == [1]


# Workers that die


@pytest.mark.parametrize(
    ("target", "cut"),
    [
        ("o.jsonl", ("-b", "50")),
        ("o.csv", ("-b", "50")),
        ("sqlite:///o.db", ("--unordered",)),
        ("out/", ("-b", "50")),
    ],
)
def test_a_worker_that_dies_writes_nothing_twice_and_nothing_of_its_file(run, uneven, target, cut):
    outcome = run("in", "--call", "fn.py:dies", *options(target, *cut, "-w", "2", "-o", "json"))
    report = balanced(outcome.json)
    [failure] = report["failures"]
    assert (failure["file"], failure["kind"]) == ("in/00.jsonl", "worker_crash")
    assert report["files"]["failed"] == 1
    there = numbers(uneven, target)
    if target != "out/":
        assert (there == list(range(5000, UNEVEN))) or cut == ("--unordered",)
    assert sorted(there) == list(range(5000, UNEVEN))
    assert report["records"]["written"] == len(there)
    assert leftovers(uneven) == []


@pytest.mark.parametrize("target", ["sqlite:///t.db", "o.jsonl", "o.csv", "o.parquet"])
def test_an_integer_beyond_the_limit_is_the_failure_of_its_file(run, files, target):
    files({"a.json": "[1]", "b.json": f"[-{'1' * 4300}]", "c.json": "[3]"})
    outcome = run("a.json", "b.json", "c.json", *options(target), "--jq", "{n: .}", "-o", "json")
    counts = outcome.json["files"]
    assert (outcome.code, counts["succeeded"], counts["failed"]) == (1, 2, 1)
    [failure] = outcome.json["failures"]
    assert (failure["file"], failure["kind"]) == ("b.json", "invalid_json")
    assert "an integer of 4,300 digits and a sign; the limit is 4,300" in failure["message"]
