"""`asyncbatch etl` with a pipeline file whose sources are files."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

PIPELINE = """
name = "people"
[[source]]
type = "files"
paths = ["in"]
[[transform]]
type = "fields"
[transform.fields]
id = "id"
name = { from = "profile.name", apply = ["strip", "title"], default = "" }
email = { from = "email", apply = ["lower"] }
[[transform]]
type = "require"
fields = ["id", "email"]
on_missing = "ON_MISSING"
[sink]
to = "sqlite:///people.db"
table = "people"
key = ["id"]
[dead_letter]
to = "bad.jsonl"
"""
PEOPLE: list[dict[str, Any]] = [
    {"id": 1, "profile": {"name": " ada lovelace "}, "email": "ADA@example.org"},
    {"id": 2, "email": None},
    {"id": 3, "profile": {}, "email": "x@example.org"},
]


def rows(folder):
    with closing(sqlite3.connect(folder / "people.db")) as database:
        return database.execute("SELECT id, name, email FROM people ORDER BY id").fetchall()


def test_files_go_through_transforms_into_a_table(etl, files):
    pipeline = PIPELINE.replace("ON_MISSING", "reject")
    folder = files({"p.toml": pipeline, "in/1.json": json.dumps(PEOPLE)})
    outcome = etl("p.toml", "--output", "json", "--report", "r.json")
    assert outcome.returncode == 1, outcome.stderr
    report = json.loads(outcome.stdout)
    assert report == json.loads((folder / "r.json").read_text())
    assert (report["command"], report["status"]) == ("etl", "partial")
    assert report["records"] == {
        "read": 3, "passed": 2, "dropped": 0, "rejected": 1, "written": 2,
    }  # fmt: skip
    assert rows(folder) == [(1, "Ada Lovelace", "ada@example.org"), (3, "", "x@example.org")]
    letter = json.loads((folder / "bad.jsonl").read_text())
    assert (letter["kind"], letter["record"], letter["data"]) == ("missing_field", 2, PEOPLE[1])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--set", 'dead_letter.to="p.toml"'), "p.toml is read by this run"),
        (("--set", 'dead_letter.to="s.json"'), "s.json is read by this run"),
        (("--report", "s.json"), "s.json is read by this run"),
        (
            ("--to", "o.jsonl", "--report", "o.jsonl"),
            "--report o.jsonl and --to name the same file",
        ),
        (("--set", 'dead_letter.to="c.toml"', "--config", "c.toml"), "c.toml is read by this run"),
    ],
)
@pytest.mark.parametrize("source", ['type = "files"\npaths = ["a.json"]',
                                    'type = "http"\nurls = ["http://127.0.0.1:9/"]'])  # fmt: skip
def test_no_file_that_is_read_is_written_over(etl, files, arguments, why, source):
    pipeline = (
        f'name = "p"\n[[source]]\n{source}\n[[transform]]\ntype = "schema"\nfile = "s.json"\n'
        '[sink]\nto = "out.jsonl"\n'
    )
    texts = {"p.toml": pipeline, "s.json": "{}", "a.json": "{}", "c.toml": "[etl]\nquiet = false\n"}
    folder = files(texts)
    outcome = etl("p.toml", *arguments)
    assert outcome.returncode == 2
    assert why in outcome.stderr
    assert {name: (folder / name).read_text() for name in texts} == texts


def test_what_is_done_is_skipped_the_next_time(etl, files):
    pipeline = PIPELINE.replace("ON_MISSING", "drop")
    folder = files({"p.toml": pipeline, "in/1.json": json.dumps(PEOPLE)})
    assert etl("p.toml").returncode == 0
    files({"in/2.json": json.dumps([{**PEOPLE[0], "id": 9}])})
    report = json.loads(etl("p.toml", "--output", "json").stdout)
    assert (report["files"]["skipped"], report["files"]["succeeded"]) == (1, 1)
    assert [row[0] for row in rows(folder)] == [1, 3, 9]


def test_a_table_is_held_to_what_it_is(etl, files):
    pipeline = PIPELINE.replace("ON_MISSING", "drop")
    folder = files({"p.toml": pipeline, "in/1.json": json.dumps(PEOPLE)})
    etl("p.toml")
    files({"in/2.json": json.dumps([{"id": "new", "email": "y"}, {"id": 4, "email": "z"}])})
    outcome = etl("p.toml", "--set", "sink.schema_contract='freeze'", "--output", "json")
    (failure,) = json.loads(outcome.stdout)["failures"]
    assert (failure["kind"], failure["record"]) == ("sink", 1)
    assert [row[0] for row in rows(folder)] == [1, 3, 4]
    assert json.loads((folder / "bad.jsonl").read_text())["data"]["id"] == "new"


def test_files_have_no_schema_contract(etl, files):
    files({"p.toml": PIPELINE.replace("ON_MISSING", "drop").split("table =")[0]})
    outcome = etl(
        "p.toml", "--check", "--set", "sink.to='o.csv'", "--set", "sink.schema_contract='freeze'"
    )
    assert outcome.returncode == 2
    assert "sink.schema_contract" in outcome.stderr


def test_values_are_overridden(etl, files):
    folder = files({"p.toml": PIPELINE.replace("ON_MISSING", "drop"), "in/1.json": "[]"})
    files({"other/1.json": json.dumps(PEOPLE)})
    assert etl("p.toml", "--set", "source.0.paths=['other']").returncode == 0
    assert len(rows(folder)) == 2
