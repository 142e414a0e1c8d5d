"""`asyncbatch etl`: a pipeline file carried out on files."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from typing import Any

import pytest

from tests.conftest import COMMAND, environment

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


@pytest.fixture
def etl(tmp_path):
    """Run `asyncbatch etl` in a folder of its own."""

    def _etl(*arguments):
        return subprocess.run(
            [*COMMAND, "etl", *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=60,
        )

    return _etl


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


def test_what_is_done_is_skipped_the_next_time(etl, files):
    pipeline = PIPELINE.replace("ON_MISSING", "drop")
    folder = files({"p.toml": pipeline, "in/1.json": json.dumps(PEOPLE)})
    assert etl("p.toml").returncode == 0
    files({"in/2.json": json.dumps([{**PEOPLE[0], "id": 9}])})
    report = json.loads(etl("p.toml", "--output", "json").stdout)
    assert (report["files"]["skipped"], report["files"]["succeeded"]) == (1, 1)
    assert [row[0] for row in rows(folder)] == [1, 3, 9]


def test_values_are_overridden(etl, files):
    folder = files({"p.toml": PIPELINE.replace("ON_MISSING", "drop"), "in/1.json": "[]"})
    files({"other/1.json": json.dumps(PEOPLE)})
    assert etl("p.toml", "--set", "source.0.paths=['other']").returncode == 0
    assert len(rows(folder)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((), "choose it with --only"),
        (("--only", "http"), "a source of type http cannot be carried out yet"),
        (("--only", "files", "--set", "sink.flush_interval=5"), "cannot be obeyed yet"),
        (("--only", "files", "--set", "sink.schema_contract='freeze'"), "cannot be obeyed yet"),
    ],
)
def test_what_cannot_be_done_is_refused(etl, files, change, words):
    http = '[[source]]\ntype = "http"\nurls = ["https://example.org/x"]\n'
    text = PIPELINE.replace("ON_MISSING", "drop").replace("[[source]]", f"{http}[[source]]", 1)
    folder = files({"p.toml": text, "in/1.json": json.dumps(PEOPLE)})
    outcome = etl("p.toml", *change)
    assert outcome.returncode == 2
    assert words in outcome.stderr
    assert not (folder / "people.db").exists()


def test_dedupe_is_refused(etl, files):
    dedupe = '[[transform]]\ntype = "dedupe"\nkey = ["id"]\n[sink]'
    text = PIPELINE.replace("ON_MISSING", "drop").replace("[sink]", dedupe)
    files({"p.toml": text, "in/1.json": json.dumps(PEOPLE)})
    outcome = etl("p.toml")
    assert outcome.returncode == 2
    assert "dedupe cannot be carried out yet" in outcome.stderr
