"""Tables of one's own that cannot change: what does not fit is rejected, and the rest is loaded."""

from __future__ import annotations

import json
import sqlite3
import struct
from contextlib import closing
from typing import Any

import duckdb
import pytest

CONNECT: dict[str, Any] = {"sqlite": sqlite3.connect, "duckdb": duckdb.connect}


@pytest.fixture
def load(run, tmp_path):
    """Load records into a table made by statements; return its rows, and the failures by record."""

    def _load(database, records, *statements, rows="1000"):
        path = str(tmp_path / "own.db")
        with closing(CONNECT[database](path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "in.jsonl").write_text(lines)
        target = ("--to", f"{database}:///own.db", "--table", "t", "--load-batch", rows)
        report = run("in.jsonl", *target, "-o", "json").json
        assert report["files"]["partial"] == 1
        with closing(CONNECT[database](path)) as connection:
            found = connection.execute("SELECT * FROM t").fetchall()
        assert report["records"]["written"] == len(found)
        return found, {one["record"]: one["message"] for one in report["failures"]}

    return _load


@pytest.mark.parametrize("rows", ["1", "1000"])
@pytest.mark.parametrize(("definition", "word"), [
    ("(i INTEGER, r REAL) STRICT", "STRICT"), ("(i INTEGER NOT NULL, r REAL)", "NOT NULL"),
    ("(i INTEGER CHECK (i < 100), r REAL)", "CHECK"), ("(i INTEGER DEFAULT 5, r REAL)", "DEFAULT"),
])  # fmt: skip
def test_sqlite_tables_that_cannot_be_rebuilt(load, definition, word, rows):
    records = [
        {"i": 1, "r": 0.5}, {"i": "x", "r": 1}, {"i": 2, "r": 2**53 + 1}, {"i": 2.5, "r": 1},
        {"i": 3.0, "r": 7, "new": "a"},
    ]  # fmt: skip
    found, failures = load("sqlite", records, f"CREATE TABLE t {definition}", rows=rows)
    assert found == [(1, 0.5, None), (3, 7.0, "a")]
    assert failures.keys() == {2, 3, 4}
    assert failures[2] == (
        "field 'i' is a string, which its column of 64-bit integers cannot hold, and SQLite cannot"
        f" change the types of a table that has {word} in its definition"
    )


@pytest.mark.parametrize("rows", ["1", "1000"])
@pytest.mark.parametrize(("definition", "more", "reason"), [
    ("(a BIGINT, b BIGINT CHECK (b < 9))", (), "of a column with a constraint (CHECK)"),
    ("(a BIGINT, b BIGINT UNIQUE)", (), "of a column with a constraint (UNIQUE)"),
    ("(a BIGINT, b BIGINT)", ("CREATE INDEX x ON t (a)",), "s of a table with an index (x)"),
    ("(a BIGINT, b BIGINT, g BIGINT AS (b * 2))", (), "of a column that generates another"),
])  # fmt: skip
def test_duckdb_columns_that_cannot_change(load, definition, more, reason, rows):
    records = [{"a": 1, "b": 1}, {"a": 2, "b": "x"}, {"a": 3, "b": 3, "new": "n"}]
    found, failures = load("duckdb", records, f"CREATE TABLE t {definition}", *more, rows=rows)
    assert [(row[:2], row[-1]) for row in found] == [((1, 1), None), ((3, 3), "n")]
    assert failures.keys() == {2}
    assert reason in failures[2]


def test_a_duckdb_column_that_nothing_fixes_still_changes(load):
    records = [{"a": 1, "b": 1}, {"a": "x", "b": "y"}, {"a": "z"}]
    found, failures = load("duckdb", records, "CREATE TABLE t (a BIGINT, b BIGINT UNIQUE)")
    assert (found, failures.keys()) == ([("1", 1), ("z", None)], {2})


def test_values_for_generated_duckdb_columns_are_rejected(load):
    records = [{"n": 1}, {"n": 2, "G": 4}, {"n": 2_000_000_000}, {"n": None}, {"n": 4, "g": None}]
    found, failures = load("duckdb", records, "CREATE TABLE t (n INTEGER, g INTEGER AS (n * 2))")
    assert found == [(1, 2), (None, None), (4, 8)]
    assert failures == {
        2: "field 'G': the table generates the values of this column",
        3: "column g cannot be generated as CAST((n * 2) AS INTEGER)",
    }


@pytest.mark.parametrize("rows", ["1", "1000"])
def test_duckdb_constraints_on_fields_that_no_record_has(load, rows):
    records = [{"b": 1}, {"b": 2, "a": 3}, {"b": 2}]
    table = "CREATE TABLE t (a INTEGER NOT NULL, b INTEGER, c INTEGER NOT NULL DEFAULT 7)"
    found, failures = load("duckdb", records, table, rows=rows)
    assert found == [(3, 2, 7)]
    assert failures == dict.fromkeys((1, 3), "column a cannot be null")


def test_duckdb_foreign_keys_reject_single_rows(load):
    parents = "CREATE TABLE p (i INTEGER, j INTEGER, PRIMARY KEY (i, j))"
    table = "CREATE TABLE t (i INTEGER, j INTEGER, FOREIGN KEY (i, j) REFERENCES p (i, j))"
    records = [{"i": 1, "j": 1}, {"i": 1, "j": 2}, {"i": 2}, {"i": 2, "j": 2}]
    statements = (parents, "INSERT INTO p VALUES (1, 1), (2, 2)", table)
    found, failures = load("duckdb", records, *statements)
    assert found == [(1, 1), (2, None), (2, 2)]
    assert failures == {2: "no row of table p has this i, j"}


@pytest.mark.parametrize(("declared", "wrap"), [
    ("FLOAT[]", lambda value: [1, value]), ("FLOAT[2]", lambda value: [1, value]),
    ("FLOAT[][]", lambda value: [[1], [0.5, value]]),
])  # fmt: skip
def test_lists_of_duckdb_floats_are_exact_or_rejected(load, declared, wrap):
    kept = [0.1, -1.5e-7, 16777216, 0.0023064255, None]
    lost = [0.12345678901, 16777217, 3.141592653589793, 10**39]
    records = [{"v": wrap(value)} for value in [*kept, *lost]]
    found, failures = load("duckdb", records, f"CREATE TABLE t (v {declared})")
    assert [list(row[0]) for row in found] == [wrap(as_single(value)) for value in kept]
    assert failures == {
        number: f"column v is {declared}, which would round {value}"
        for number, value in enumerate(lost, len(kept) + 1)
    }


def as_single(value):
    """Return the nearest single precision number."""
    return None if value is None else struct.unpack("f", struct.pack("f", value))[0]
