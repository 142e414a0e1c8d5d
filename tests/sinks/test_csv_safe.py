"""`--csv-safe`: no cell of a CSV file is a formula, and each text can be had back."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.sinks.text_files import safe_cell

FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", '=HYPERLINK("http://x")', "=cmd|' /C calc'!A0", "  =1",
    "\t=1", "\ttext", "\r=1", "\n=1", "-", "+49 30 1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x",
    "\u00a0=1", "'=1", "''=1",
]  # fmt: skip
PLAIN = [
    "",
    "a",
    "1",
    "-5",
    "-1.5e+3",
    "'",
    "'tis",
    "a=1",
    "1+1",
    "2026-01-01",
    "x@y.org",
    "ü-",
    " a",
]
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def cells(path, delimiter=","):
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.reader(lines, delimiter=delimiter))


@pytest.mark.parametrize("name", ["out.csv", "out.tsv"])
def test_formulas_in_keys_and_values_become_texts(run, files, name):
    rows = [{"n": number, "=key": text} for number, text in enumerate([*FORMULAS, *PLAIN], -5)]
    folder = files({"in.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    outcome = run("in.jsonl", "--to", name, "--csv-safe", "-q")
    assert (outcome.code, outcome.stderr) == (0, "")
    header, *found = cells(folder / name, "\t" if name.endswith("tsv") else ",")
    assert header == ["n", "'=key"]
    assert [int(number) for number, _ in found] == list(range(-5, len(rows) - 5))
    texts = [text for _, text in found]
    assert texts == [f"'{text}" for text in FORMULAS] + PLAIN


def test_without_the_option_cells_are_as_the_records_say(run, files):
    folder = files({"in.jsonl": '{"=k": "=1+1"}\n'})
    assert run("in.jsonl", "--to", "out.csv").code == 0
    assert cells(folder / "out.csv") == [["=k"], ["=1+1"]]


@given(st.text() | st.sampled_from(FORMULAS))
def test_no_cell_begins_a_formula_and_each_text_comes_back(text):
    safe = safe_cell(text)
    assert safe in (text, f"'{text}")
    if safe == text and not text.removeprefix("-")[:1].isdigit():
        assert not text.lstrip().startswith(STARTS)
        assert not text.startswith(("\t", "\r", "\n"))


@given(st.text(), st.text())
def test_two_texts_stay_two(one, other):
    assert (safe_cell(one) == safe_cell(other)) == (one == other)


@pytest.mark.parametrize("value", [None, True, False, -5, -1.5, 10**30])
def test_values_that_are_no_texts_stay(value):
    assert safe_cell(value) is value


def test_a_resumed_run_finds_its_columns_again(run, files):
    folder = files({"in/a.json": '{"=a": "=1", "b": 1}', "in/b.json": "nonsense"})
    job = ("in", "--to", "out.csv", "--csv-safe", "--ledger", "l", "-q")
    assert run(*job, "--max-failures", "9").code == 0
    files({"in/b.json": '{"=a": "x", "b": 2}'})
    assert run(*job, "--resume").code == 0
    assert cells(folder / "out.csv") == [["'=a", "b"], ["'=1", "1"], ["x", "2"]]
    # Another job: the rows of the first one are not safe, and are made again.
    plain = tuple(word for word in job if word != "--csv-safe")
    assert run(*plain, "--resume").code == 0
    assert cells(folder / "out.csv") == [["=a", "b"], ["=1", "1"], ["x", "2"]]


def test_pipeline_files_and_streams_have_it_too(etl, stream, files):
    event = '{"timestamp": "2026-01-01T00:00:00Z", "user": "=1+1"}\n'
    folder = files({
        "in.jsonl": event,
        "job.toml": 'name = "j"\n[[source]]\ntype = "files"\npaths = ["in.jsonl"]\n'
        '[sink]\nto = "etl.csv"\ncsv_safe = true\n',
        "stream.toml": '[source]\npath = "in.jsonl"\n[window]\nspec = "tumbling:1m"\n'
        'by = ["user"]\n[sink]\nto = "toml.csv"\ncsv_safe = true\n',
    })  # fmt: skip
    assert etl("job.toml", "-q").returncode == 0
    code, _, stderr = stream(
        "in.jsonl", "--window", "tumbling:1m", "--by", "user", "--to", "windows.csv", "--csv-safe"
    )
    assert code == 0, stderr
    code, _, stderr = stream("stream.toml")
    assert code == 0, stderr
    for name in ("etl.csv", "windows.csv", "toml.csv"):
        header, row = cells(folder / name)
        assert row[header.index("user")] == "'=1+1"


@pytest.mark.parametrize(
    "target", [("--to", "out.jsonl"), ("--to", "sqlite:///a.db", "--table", "t"), ()]
)
def test_it_is_for_csv_files_only(run, stream, files, target):
    files({"in.jsonl": '{"a": 1}\n'})
    outcome = run("in.jsonl", *target, "--csv-safe")
    assert outcome.code == 2
    assert "--csv-safe" in outcome.stderr
    code, _, stderr = stream("in.jsonl", "--window", "tumbling:1m", *target, "--csv-safe")
    assert code == 2
    assert "--csv-safe" in stderr
