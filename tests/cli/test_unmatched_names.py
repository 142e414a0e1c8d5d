"""Names of fields on the command line: blanks, paths, and names that no record has."""

from __future__ import annotations

import csv
import json

import pytest

RECORDS = [
    {"date": "2026-01-01", "team1": "A", "score": {"ft": [2, 1], "ht": None}, "a.b": 5},
    {"date": "2026-01-02", "team1": "B", "score": {"ft": [0, 0]}, "a": {"b": 6}},
]


@pytest.fixture
def folder(files):
    return files({f"in/{n}.json": json.dumps(record) for n, record in enumerate(RECORDS)})


def cells(folder):
    with (folder / "out.csv").open(newline="") as lines:
        return list(csv.reader(lines))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_columns_may_be_paths_and_have_blanks_around_them(run, folder, workers):
    columns = 'date , score.ft,score.ft.0 ,/a/b,a.b, "a.b"'
    outcome = run("in", "--to", "out.csv", "--columns", columns, "-w", workers, "-q")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert cells(folder) == [
        ["date", "score.ft", "score.ft.0", "/a/b", "a.b", "a.b"],
        ["2026-01-01", "[2,1]", "2", "", "5", "5"],  # a field of this name comes first
        ["2026-01-02", "[0,0]", "0", "6", "6", "6"],
    ]


@pytest.mark.parametrize(("name", "nearest"), [
    ("dat", "; the nearest one is 'date'"), ("score.fulltime", "; the nearest one is 'score'"),
    ("team2", "; the nearest one is 'team1'"), ("nothing_like_it", ""),
])  # fmt: skip
def test_a_column_that_no_record_has_is_noted(run, folder, name, nearest):
    outcome = run("in", "--to", "out.csv", "--columns", f"team1,{name}")
    assert outcome.code == 0
    assert f"no record has a value for '{name}' of --columns{nearest}\n" in outcome.stdout


def test_columns_that_some_record_has_are_not_noted(run, folder):
    outcome = run("in", "--to", "out.csv", "--columns", "team1,date,score.ft,a.b")
    assert "--columns" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize(("fields", "count", "is_noted"), [
    ("nope.nope", 2, True), (" team1 , date", 2, False), ("nope, team1", 2, False),
    ("score.ht", 2, True),
])  # fmt: skip
def test_dedupe_by_a_field_that_no_record_has_is_noted(run, folder, fields, count, is_noted):
    outcome = run("in", "--to", "out.jsonl", "--dedupe", fields)
    assert outcome.code == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == count
    assert ("no record has a value for --dedupe" in outcome.stdout) == is_noted


def test_keys_have_no_blanks_either(run, folder):
    job = ("in", "--to", "sqlite:///out.db", "--table", "t", "--key", "date , team1", "-o", "json")
    assert run(*job).json["records"]["written"] == 2
    assert run(*job, "--force").json["records"]["rejected"] == 0
