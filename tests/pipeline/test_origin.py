"""The origin of records in columns, in jq programs and in `fields`."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import json
import os
import sqlite3
import tarfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

from asyncbatch import Pipeline, UsageError, field, fields
from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
from asyncbatch.core.origin import added_columns
from asyncbatch.core.settings import FileWorkSettings, Sizes
from asyncbatch.pipeline.run import Run
from asyncbatch.sinks.target import Target
from asyncbatch.sources.inputs import Inputs
from tests.commands import run_command_text
from tests.servers.api import ApiServer

# Lines, one of them blank and one escaped; an array over several lines; a document; an array below
# a pointer is left to its own test. Truth: the records by file, each with its number and its line.
FILES = {
    "in/a.jsonl": '{"id": 1}\n\n{"id":2, "name":"\\u00e9_file"}\r\n  {"id": 3}',
    "in/b.json": '[{"id": 4},\n {"id": 5,\n  "x": 1.50}, {"id": 6}]',
    "in/c.json": '\n{\n "id": 7}',
    "in/d.jsonl.gz": gzip.compress(b'{"id": 8}\n{}\n'),
}
TRUTH: list[tuple[dict[str, Any], str, int, int]] = [
    ({"id": 1}, "in/a.jsonl", 1, 1),
    ({"id": 2, "name": "é_file"}, "in/a.jsonl", 2, 3),
    ({"id": 3}, "in/a.jsonl", 3, 4),
    ({"id": 4}, "in/b.json", 1, 1),
    ({"id": 5, "x": 1.5}, "in/b.json", 2, 2),
    ({"id": 6}, "in/b.json", 3, 3),
    ({"id": 7}, "in/c.json", 1, 2),
    ({"id": 8}, "in/d.jsonl.gz", 1, 1),
    ({}, "in/d.jsonl.gz", 2, 2),
]
EXPECTED = [
    {**record, "_file": file, "_record": number, "_line": line}
    for record, file, number, line in TRUTH
]
COLUMNS = ("--add", "file,record,line")


def read_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without their nulls, in the order of the input."""
    kept = [{name: cell for name, cell in row.items() if cell is not None} for row in rows]
    return sorted(kept, key=lambda row: (row["_file"], row["_record"]))


def read_sqlite(path: Path, query: str = "SELECT * FROM t") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query)]


def read_duckdb(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect(str(path)) as database:
        found = database.execute("SELECT * FROM t")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.mark.parametrize(
    ("target", "read"),
    [
        ("o.jsonl", lambda path: read_lines(path.read_text())),
        ("o.jsonl.gz", lambda path: read_lines(gzip.decompress(path.read_bytes()).decode())),
        ("o.parquet", lambda path: pyarrow.parquet.read_table(path).to_pylist()),
        ("sqlite:///o.db", read_sqlite),
        ("duckdb:///o.duckdb", read_duckdb),
    ],
)
def test_each_target_has_the_columns(run, files, target, read):
    folder = files(FILES)
    table = ["--table", "t"] if "://" in target else []
    outcome = run("in", *COLUMNS, "--to", target, *table)
    assert outcome.code == 0, outcome.stderr
    assert in_order(read(folder / target.rpartition("/")[2])) == EXPECTED


@pytest.mark.parametrize(
    "how", [(), ("--jq", "."), ("--jq", ". + {}"), ("--call", "f.py:same"), ("--call", "f.py:slow")]
)
def test_each_way_of_a_record_to_the_target_gives_the_same(run, files, how):
    functions = "def same(record): return record\nasync def slow(record): return record\n"
    files({**FILES, "f.py": functions})
    outcome = run("in", *how, *COLUMNS, "--to", "-")
    assert read_lines(outcome.stdout) == EXPECTED
    # The records keep their spelling, and the columns come last.
    assert '"_file":"in/a.jsonl","_record":1,"_line":1}' in outcome.stdout


def test_a_csv_file_keeps_the_texts_of_numbers(run, files):
    folder = files(FILES)
    assert run("in", *COLUMNS, "--columns", "x,id,_line,_record,_file", "--to", "o.csv").code == 0
    with open(folder / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["x"] for row in rows if row["x"]] == ["1.50"]
    assert sorted((row["_file"], int(row["_record"]), int(row["_line"])) for row in rows) == [
        (file, number, line) for _, file, number, line in TRUTH
    ]


def test_a_folder_of_outputs_mirrors_the_inputs_with_the_columns(run, files):
    folder = files(FILES)
    assert run("in", "--with-source", "--root", "in", "--to", "out/").code == 0
    expected = [{k: v for k, v in row.items() if k != "_line"} for row in EXPECTED]
    assert read_lines((folder / "out/a.jsonl").read_text()) == expected[:3]
    assert json.loads((folder / "out/b.json").read_text()) == expected[3:6]
    assert json.loads((folder / "out/c.json").read_text()) == expected[6]
    text = gzip.decompress((folder / "out/d.jsonl.gz").read_bytes()).decode()
    assert read_lines(text) == expected[7:]


def test_times_and_digests_are_those_of_the_file_and_the_run(run, files):
    folder = files(
        {"a.json": '[{"id": 1}]', "b.jsonl": '{"id": 2, "pad": "%s"}\n' % ("x" * 900_000)}
    )
    os.utime(folder / "b.jsonl", ns=(0, 1_000_000_000_123_456_789))
    before = datetime.now(UTC)
    outcome = run(
        "a.json", "b.jsonl", "--add", "mtime,sha256,loaded_at,run_id", "--jq", "{id}", "--to",
        "o.jsonl", "-o", "json", "--workers", "1",
    )  # fmt: skip
    after = datetime.now(UTC)
    rows = read_lines((folder / "o.jsonl").read_text())
    for row, name in zip(rows, ("a.json", "b.jsonl"), strict=True):
        path = folder / name
        assert row["_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        seconds, rest = divmod(path.stat().st_mtime_ns // 1000, 1_000_000)
        assert row["_mtime"] == f"{datetime.fromtimestamp(seconds, UTC):%FT%T}.{rest:06}Z"
        assert before <= datetime.fromisoformat(row["_loaded_at"]) <= after
        assert row["_run_id"] == outcome.json["run_id"]
    assert rows[1]["_mtime"] == "2001-09-09T01:46:40.123456Z"


def test_standard_input_has_no_time_and_no_digest(run):
    outcome = run("-", "--add", "file,record,mtime,sha256", "--to", "-", stdin=b'{"a": 1}\n')
    assert read_lines(outcome.stdout) == [
        {"a": 1, "_file": "-", "_record": 1, "_mtime": None, "_sha256": None}
    ]


def test_the_members_of_an_archive_are_files(run, files):
    folder = files(FILES)
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        archive.add(folder / "in/a.jsonl", "a.jsonl")
        archive.add(folder / "in/b.json", "b.json")
    outcome = run("a.tar.gz", "--add", "file,record,sha256", "--to", "-")
    expected = [
        (f"a.tar.gz{file[2:]}", number, hashlib.sha256((folder / file).read_bytes()).hexdigest())
        for _, file, number, _ in TRUTH[:6]
    ]
    rows = read_lines(outcome.stdout)
    assert [(row["_file"], row["_record"], row["_sha256"]) for row in rows] == expected


def test_a_field_of_the_same_name_rejects_the_record(run, files):
    files(
        {
            "a.jsonl": '{"id": 1}\n{"id": 2, "_file": null}\n{"\\u005frecord": 3}\n'
            '{"in": {"_file": 4}}\n[5]\n"_file"\n'
        }
    )
    for how in ((), ("--jq", ". as $x | $x")):
        outcome = run("a.jsonl", *how, "--with-source", "--to", "-", "-o", "text", "-v")
        assert outcome.code == 1
        assert read_lines(outcome.stdout) == [
            {"id": 1, "_file": "a.jsonl", "_record": 1},
            {"in": {"_file": 4}, "_file": "a.jsonl", "_record": 4},
        ]
        for line, name in ((2, "file"), (3, "record")):
            assert (
                f"a.jsonl:{line}:1: has a field '_{name}' already: give the added column another "
                f"name, as --add {name}=NAME"
            ) in outcome.stderr
        assert "a.jsonl:5:1: columns can be added only to an object, and this is an array" in (
            outcome.stderr
        )
    outcome = run("a.jsonl", "--add", "file=source,record=at", "--to", "-")
    assert read_lines(outcome.stdout)[1] == {"id": 2, "_file": None, "source": "a.jsonl", "at": 2}


def test_a_record_is_rejected_with_all_of_its_outputs(run, files):
    folder = files({"a.jsonl": "3000\n5\n"})
    program = "range(.) | if . == 2500 then {_file: 1} else {a: .} end"
    outcome = run("a.jsonl", "--jq", program, "--with-source", "--to", "o.jsonl", "-o", "json")
    assert outcome.json["records"]["rejected"] == 1
    assert read_lines((folder / "o.jsonl").read_text()) == [
        {"a": number, "_file": "a.jsonl", "_record": 2} for number in range(5)
    ]


def test_one_object_of_a_function_for_many_records_gets_the_columns_of_each(run, files):
    files(
        {
            "f.py": "SAME = {'a': 1}\ndef one(_): return SAME\ndef two(_): return [SAME, SAME]\n",
            "a.jsonl": "{}\n{}\n",
        }
    )
    for name, numbers in (("one", [1, 2]), ("two", [1, 1, 2, 2])):
        for target in ("-", "sqlite:///o.db"):
            table = [] if target == "-" else ["--table", name]
            outcome = run(
                "a.jsonl", "--call", f"f.py:{name}", "--with-source", "--to", target, *table
            )
            assert outcome.code == 0, outcome.stderr
            if target == "-":
                assert [row["_record"] for row in read_lines(outcome.stdout)] == numbers


def test_file_and_record_can_be_the_key_of_a_table(run, files):
    folder = files(FILES)
    for _ in range(2):
        outcome = run(
            "in", "--with-source", "--to", "sqlite:///o.db", "--table", "t",
            "--key", "_file,_record",
        )  # fmt: skip
        assert outcome.code == 0, outcome.stderr
    rows = read_sqlite(folder / "o.db", "SELECT _file, _record FROM t ORDER BY 1, 2")
    assert [tuple(row.values()) for row in rows] == [(file, at) for _, file, at, _ in TRUTH]


def test_dedupe_can_read_the_columns(run, files):
    files({"a.json": '[{"id": 1}, {"id": 2}]', "b.json": '[{"id": 1}, {"id": 2}]'})
    outcome = run(
        "a.json", "b.json", "--add", "file,sha256,record", "--dedupe", "_sha256,_record",
        "--to", "-",
    )  # fmt: skip
    assert [(row["_file"], row["id"]) for row in read_lines(outcome.stdout)] == [
        ("a.json", 1), ("a.json", 2),
    ]  # fmt: skip


def test_replayed_records_keep_their_origin(run, files):
    files({"a.jsonl": '{"id": 1}\n{"id": 2, "x": 1}\n', "s.json": '{"maxProperties": 1}'})
    run("a.jsonl", "--schema", "s.json", "--to", "-", "--dead-letter", "bad.jsonl")
    outcome = run("--from-dead-letter", "bad.jsonl", "--add", "file,record,line,mtime", "--to", "-")
    assert read_lines(outcome.stdout) == [
        {"id": 2, "x": 1, "_file": "a.jsonl", "_record": 2, "_line": 2, "_mtime": None}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--with-source"], "--with-source needs a target: name it with --to"),
        (["--add", "file"], "--add needs a target: name it with --to"),
        (["--add", "path", "--to", "-"], "'path' is none of file, record, line, mtime"),
        (["--add", "file=", "--to", "-"], "'file=' names no column: write file=NAME"),
        (["--add", "file,file=x", "--to", "-"], "add each of the columns only once"),
        (["--add", "file=x,line=x", "--to", "-"], "two columns cannot have the same name 'x'"),
        (
            ["--with-source", "--columns", "id,_file", "--to", "o.csv"],
            "--columns leaves out the added column _record: name it there, too",
        ),
        (
            ["--add", "line", "--to", "sqlite:///o.db", "--table", "t", "--key", "id,_line"],
            "--key _line: the column can be null",
        ),
    ],
)
def test_wrong_usage_is_explained(run, files, arguments, message):
    files({"a.json": "{}"})
    outcome = run("a.json", *arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.stderr.split())


def test_another_choice_of_columns_is_another_job(run, files):
    folder = files({"a.json": '{"id": 1}'})
    table = ("--to", "sqlite:///o.db", "--table", "t", "--key", "id", "--resume")
    assert run("a.json", *table).code == 0
    assert run("a.json", *table, "--with-source").code == 0
    assert read_sqlite(folder / "o.db") == [{"id": 1, "_file": "a.json", "_record": 1}]


@pytest.mark.parametrize("name", ["big.jsonl", "big.json"])
def test_the_splits_of_a_huge_file_tell_the_same_of_it(tmp_path, name):
    path, target = tmp_path / name, tmp_path / "o.jsonl"
    texts = [json.dumps({"id": number}) for number in range(200)]
    path.write_text("\n".join(texts) if name == "big.jsonl" else f"[{', '.join(texts)}]")
    names = ("file", "record", "line", "sha256")
    work = RecordWorkSettings(
        FileWorkSettings(sizes=Sizes(split_threshold=100, split=40, part=1)),
        target=Target.parse(str(target)),
        added=added_columns(names, with_source=False),
    )

    async def run() -> None:
        async for _ in Run(Job((FileSource(Inputs((str(path),)), work),), workers=0)).parts():
            pass

    asyncio.run(run())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert [list(row.values()) for row in read_lines(target.read_text())] == [
        [number, str(path), number + 1, number + 1 if name == "big.jsonl" else 1, digest]
        for number in range(200)
    ]


def test_postgres_has_the_columns(run, files, server):
    files(FILES)
    server.execute("CREATE DATABASE origin")
    outcome = run(
        "in", *COLUMNS, "--to", server.url("origin"), "--table", "t", "--key", "_file,_record"
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    assert in_order(server.rows("SELECT * FROM t", "origin")) == EXPECTED
    server.execute("DROP DATABASE origin WITH (FORCE)")


# Pipeline files, HTTP, programs


def test_a_pipeline_file_adds_columns_and_reads_the_origin_in_fields(files, tmp_path):
    files(
        {
            **FILES,
            "p.toml": """\
name = "p"
[[source]]
type = "files"
paths = ["in"]
[[transform]]
type = "fields"
fields = { id = "id", from = { source = "file" }, at = { source = "line" } }
[sink]
to = "sqlite:///o.db"
table = "t"
key = ["_file", "number"]
with_source = true
add = ["record=number"]
""",
        }
    )
    outcome = run_command_text("etl", "p.toml", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    rows = read_sqlite(tmp_path / "o.db", "SELECT * FROM t ORDER BY _file, number")
    assert rows == [
        {"id": record.get("id"), "from": file, "at": line, "_file": file, "number": number}
        for record, file, number, line in TRUTH
    ]
    shown = run_command_text("etl", "p.toml", "--dry-run", cwd=tmp_path)
    assert "in/b.json" in shown.stdout
    wrong = run_command_text("etl", "p.toml", "--set", 'sink.add=["path"]', "--check", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "'path' is none of file, record, line" in wrong.stderr


def test_a_page_of_an_api_has_its_url_as_the_file(files, tmp_path):
    with ApiServer([{"id": 1}, {"id": 2}, {"id": 3}]) as server:
        url = server.url("/cursor")
        files(
            {
                "p.toml": f"""\
name = "p"
[[source]]
type = "http"
urls = ["{url}"]
records = "/items"
pagination = {{ type = "cursor", next = "/next_cursor" }}
[sink]
to = "o.jsonl"
add = ["file", "record", "mtime", "sha256"]
"""
            }
        )
        outcome = run_command_text("etl", "p.toml", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    rows = read_lines((tmp_path / "o.jsonl").read_text())
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert all(row["_file"].startswith(url) for row in rows)
    assert {(row["_mtime"], row["_sha256"]) for row in rows} == {(None, None)}


def test_a_program_adds_columns_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}\n')
    loaded: list[dict[str, Any]] = []

    class Sink:
        async def load(self, records: list[dict[str, Any]]) -> None:
            loaded.extend(records)

    pipeline = Pipeline(path, sink=Sink(), with_source=True, add=["file=source", "run_id"])
    report = asyncio.run(pipeline.run())
    assert report.run_id
    assert loaded == [
        {"id": number, "source": str(path), "_record": number, "_run_id": report.run_id}
        for number in (1, 2)
    ]
    loaded.clear()
    steps = [fields({"n": "id", "at": field(source="record"), "in": field(source="file")})]
    asyncio.run(Pipeline([{"id": 5}], steps, Sink(), add="record=number").run())
    assert [(row["n"], row["at"], row["number"]) for row in loaded] == [(5, 1, 1)]
    with pytest.raises(UsageError, match="name it"):
        Pipeline(path, add="file")


# jq


@pytest.mark.parametrize("form", ["{}", "({} | .) as $x | $x"])  # the second needs the library
def test_jq_knows_the_origin_of_a_record(run, files, form):
    files(FILES)
    program = form.format("{id, f: input_filename, l: input_line_number, $__file, r: $__record}")
    outcome = run("in", "--jq", program, "--to", "-")
    assert read_lines(outcome.stdout) == [
        {"id": record.get("id"), "f": file, "l": line, "__file": file, "r": number}
        for record, file, number, line in TRUTH
    ]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("select($__record == 2)", [{"id": 2}]),
        (r'"\($__file)#\($__record + 1)"', ["a.jsonl#2", "a.jsonl#3"]),
        ("input_filename | length", [7, 7]),
        (". as {id: $__record} | $__record * 0", [0, 0]),
        ("def input_filename: 5; input_filename", [5, 5]),
        ('{"input_filename": 1} | .input_filename, {input_filename}.input_filename', [1, 1] * 2),
        ("if input_line_number > 1 then empty else $__file end", ["a.jsonl"]),
        ("[$__record, input_line_number] | tojson", ["[1,1]", "[2,2]"]),
    ],
)
def test_origins_are_values_like_others(run, files, program, expected):
    files({"a.jsonl": '{"id": 1}\n{"id": 2}\n'})
    outcome = run("a.jsonl", "--jq", program, "--to", "-")
    assert read_lines(outcome.stdout) == expected, outcome.stderr


def test_jq_still_names_the_place_of_an_error(run, files):
    files({"a.json": "{}"})
    outcome = run("a.json", "--jq", "$__file |\n  oh", "--to", "-")
    assert outcome.code == 2
    assert "line 2, column 3: oh/0 is not defined" in outcome.stderr
    outcome = run("a.json", "--jq", "$__value", "--to", "-")
    assert "$__value is not defined" in outcome.stderr


def test_a_stream_knows_the_origin_of_its_events(stream, files):
    files({"a.jsonl": '{"timestamp": 1, "value": 2}\n\n{"timestamp": 1, "value": 3}\n'})
    program = "{timestamp, from: input_filename, value: ($__record * 10 + input_line_number)}"
    code, windows, stderr = stream(
        "a.jsonl", "--window", "tumbling:1m", "--jq", program, "--by", "from", "--agg", "sum:value"
    )
    assert code == 0, stderr
    assert [(window["key"], window["aggregates"]["sum_value"]) for window in windows] == [
        ({"from": "a.jsonl"}, 11 + 23)
    ]
