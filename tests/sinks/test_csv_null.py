"""Null and empty strings in CSV, told apart by `--null-value`."""

from __future__ import annotations

import csv
import io
import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.sinks.text_files import csv_lines

VALUES = [None, "", "NULL", "null", '"', 'a"b', "a,b", "a\tb", "a\nb", "\r", " ", "\\N", "é"]
ROWS = [{"id": number, "v": value, "w": "x"} for number, value in enumerate(VALUES)]


def read(path, null_value, delimiter=","):
    """Return the column `v` as DuckDB reads it, which tells quoted cells from others."""
    query = (
        "SELECT v FROM read_csv(?, header = true, delim = ?, quote = '\"', escape = '\"', "
        "nullstr = ?, allow_quoted_nulls = false, all_varchar = true, auto_detect = false, "
        "columns = {'id': 'VARCHAR', 'v': 'VARCHAR', 'w': 'VARCHAR'}, new_line = '\\n') "
        "ORDER BY id::INT"
    )
    with duckdb.connect() as connection:
        rows = connection.execute(query, [str(path), delimiter, null_value]).fetchall()
    return [value for (value,) in rows]


@pytest.mark.parametrize("null_value", ["NULL", "", "\\N", "null", "é"])
@pytest.mark.parametrize("name", ["o.csv", "o.tsv"])
def test_a_reader_tells_null_from_any_string(run, files, name, null_value):
    folder = files({"a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS)})
    outcome = run("a.jsonl", "--to", name, "--null-value", null_value)
    assert outcome.code == 0, outcome.stderr
    found = read(folder / name, null_value, "\t" if name.endswith(".tsv") else ",")
    assert found == VALUES


def test_without_it_both_are_empty_cells(run, files):
    folder = files({"a.jsonl": '{"a":1,"b":null}\n{"a":2,"b":""}\n{"a":3,"b":"NULL"}\n'})
    run("a.jsonl", "--to", "o.csv")
    assert (folder / "o.csv").read_text() == "a,b\n1,\n2,\n3,NULL\n"
    run("a.jsonl", "--to", "o.csv", "--null-value", "")
    assert (folder / "o.csv").read_text() == 'a,b\n1,\n2,""\n3,NULL\n'
    run("a.jsonl", "--to", "o.csv", "--null-value", "NULL")
    assert (folder / "o.csv").read_text() == 'a,b\n1,NULL\n2,\n3,"NULL"\n'


def test_missing_fields_are_null(run, files):
    folder = files({"a.jsonl": '{"a":"x","b":true}\n{"a":"y"}\n'})
    run("a.jsonl", "--to", "o.csv", "--null-value", "-", "--columns", "b,a,c")
    assert (folder / "o.csv").read_text() == "b,a,c\ntrue,x,-\n-,y,-\n"


ROW = st.tuples(st.none() | st.text(), st.text())


@given(st.lists(ROW, min_size=1), st.text("aN\\", max_size=2))
def test_rows_are_those_that_were_written(rows, null_value):
    text = b"".join(csv_lines(rows, ",", null_value=null_value)).decode()
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    expected = [[null_value if cell is None else cell for cell in row] for row in rows]
    assert found == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--null-value", "x", "--to", "o.jsonl"), "is for .csv and .tsv"),
        (("--null-value", "x"), "needs a target"),
        (("--null-value", "a,b", "--to", "o.csv"), "would need quotes"),
    ],
)
def test_where_it_is_refused(run, files, options, words):
    files({"a.jsonl": "{}"})
    outcome = run("a.jsonl", *options)
    assert outcome.code == 2
    assert words in outcome.stderr


def test_in_pipeline_files(files, etl):
    folder = files(
        {
            "a.jsonl": '{"a":null}\n{"a":"x"}\n',
            "p.toml": (
                'name = "n"\n[[source]]\ntype = "files"\npaths = ["a.jsonl"]\n'
                '[sink]\nto = "o.csv"\nnull_value = "NULL"\n'
            ),
        }
    )
    outcome = etl("p.toml")
    assert outcome.returncode == 0, outcome.stderr
    assert (folder / "o.csv").read_text() == "a\nNULL\nx\n"
