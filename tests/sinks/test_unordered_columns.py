"""The columns of new tables, if records are written in the order in which they are ready."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

# The first file is last, if `wait` is set: it waits for the last file.
FUNCTION = """
import os, time

def slow(record):
    if record.pop("last", False):
        open("ready", "w").close()
    while record.pop("first", False) and os.path.exists("wait") and not os.path.exists("ready"):
        time.sleep(0.01)
    return record
"""
RECORDS = [
    {"first": True, "z": 1, "b": 2, "id": 0, "at": "2026-01-01T00:00:00Z"},
    {"id": 1, "m": 1.5, "nothing": None}, {"m": 2, "id": 2}, {"last": True, "id": 3, "a": "x"},
]  # fmt: skip
NAMES = ["a", "at", "b", "id", "m", "nothing", "z"]
FILLED = [name for name in NAMES if name != "nothing"]  # a column of a table has values
ROWS: list[list[Any]] = [
    [None, "2026-01-01T00:00:00Z", 2, 0, None, None, 1], [None, None, None, 1, 1.5, None, None],
    [None, None, None, 2, 2.0, None, None], ["x", None, None, 3, None, None, None],
]  # fmt: skip
FILLED_ROWS = [row[:5] + row[6:] for row in ROWS]


@pytest.fixture(params=[False, True], ids=["at-once", "slow-first-file"])
def folder(request, files):
    contents = {f"in/{number}.json": json.dumps(one) for number, one in enumerate(RECORDS)}
    return files(contents | {"fn.py": FUNCTION} | ({"wait": ""} if request.param else {}))


OPTIONS = ("--call", "fn.py:slow", "--unordered", "-b", "1", "-w", "2", "-q")


def in_order(names, rows):
    place = names.index("id")
    return names, sorted((list(row) for row in rows), key=lambda row: row[place])


@pytest.mark.parametrize("more", [(), ("--key", "id"), ("--mode", "replace")])
@pytest.mark.parametrize("database", ["sqlite", "duckdb"])
def test_columns_of_a_table_come_by_name(run, folder, database, more):
    target = ("--to", f"{database}:///o.db", "--table", "t", "--load-batch", "1", *more)
    assert run("in", *target, *OPTIONS).code == 0
    connect: dict[str, Any] = {"sqlite": sqlite3.connect, "duckdb": duckdb.connect}
    with closing(connect[database](str(folder / "o.db"))) as connection:
        cursor = connection.execute("SELECT * FROM t")
        names = [column[0] for column in cursor.description]
        assert in_order(names, cursor.fetchall()) == (FILLED, FILLED_ROWS)
        if "--key" in more and database == "sqlite":
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute("INSERT INTO t (id) VALUES (3)")


def test_columns_of_a_table_that_exists_stay(run, folder):
    with closing(sqlite3.connect(folder / "o.db")) as connection:
        connection.execute("CREATE TABLE t (m REAL, id INTEGER)")
    target = ("--to", "sqlite:///o.db", "--table", "t")
    assert run("in", *target, *OPTIONS).code == 0
    with closing(sqlite3.connect(folder / "o.db")) as connection:
        names = [column[0] for column in connection.execute("SELECT * FROM t").description]
    assert names[:2] == ["m", "id"]


def test_columns_of_a_parquet_file_come_by_name(run, folder):
    assert run("in", "--to", "o.parquet", *OPTIONS).code == 0
    table = pq.read_table(folder / "o.parquet")
    assert in_order(table.column_names, zip(*table.to_pydict().values(), strict=True)) == (
        NAMES,
        ROWS,
    )


def test_the_header_of_a_csv_file_comes_by_name(run, folder):
    assert run("in", "--to", "o.csv", *OPTIONS).code == 0
    with (folder / "o.csv").open(newline="") as lines:
        header, *rows = csv.reader(lines)
    texts = [["" if value is None else f"{value:g}" if type(value) is float else str(value)
              for value in row] for row in ROWS]  # fmt: skip
    assert in_order(header, rows) == (NAMES, texts)


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_columns_of_a_postgres_table_come_by_name(run, folder, server, mode):
    server.execute("DROP DATABASE IF EXISTS unordered")
    server.execute("CREATE DATABASE unordered")
    keyed = ("--key", "id") if mode == "append" else ()
    target = ("--to", server.url("unordered"), "--table", "t", "--load-batch", "1", "--mode", mode)
    assert run("in", *target, *keyed, *OPTIONS).code == 0
    rows = [
        json.loads(text)
        for (text,) in server.execute("SELECT to_json(t)::text FROM t", "unordered")
    ]
    assert [list(row) for row in rows] == [FILLED] * len(ROWS)
    _, found = in_order(FILLED, (row.values() for row in rows))
    time = "2026-01-01T00:00:00+00:00"
    expected = [
        [time if name == "at" and value else value for name, value in zip(FILLED, row, strict=True)]
        for row in FILLED_ROWS
    ]
    assert found == expected
    # A later run finds its own columns: a value that is no time makes the column text.
    (folder / "wait").unlink(missing_ok=True)
    (folder / "more.json").write_text('{"id": 9, "at": "soon"}')
    assert run("more.json", *target[:4], *keyed, "-q").code == 0
    [(kind,)] = server.execute("SELECT pg_typeof(at)::text FROM t LIMIT 1", "unordered")
    assert kind == "text"
    if keyed:
        outcome = run("more.json", *target[:4], "--key", "id", "--mode", "append", "--force")
        assert "already exists" in outcome.stdout + outcome.stderr
