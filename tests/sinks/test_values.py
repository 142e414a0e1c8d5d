"""A value in a target is that of its record, whatever came beside it. The truth is the input."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing

import duckdb
import pytest

from tests.torture.cases import TARGETS, make_case
from tests.torture.check import check

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("target", TARGETS)
def test_values_do_not_depend_on_how_records_come(request, target):
    case = make_case(1, target, most_files=2)
    case = case._replace(is_killed=target == "sqlite")  # kills take long: `make torture` has more
    assert check(case, 1, lambda: request.getfixturevalue("server")) > 0


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def sqlite_rows(path, query="SELECT * FROM t"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def duckdb_rows(path, query="SELECT * FROM t"):
    with closing(duckdb.connect(str(path))) as connection:
        return connection.execute(query).fetchall()


READ = {"sqlite": sqlite_rows, "duckdb": duckdb_rows}


@pytest.mark.parametrize("options", [(), ("-b", "1"), ("--load-batch", "1")])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_cells_of_csv_have_no_types(run, files, name, options):
    folder = files(
        {
            "in/1.json": '{"edited": false, "n": 1, "m": "a"}',
            "in/2.json": '{"edited": 1293840000, "n": 2.5, "m": 12345678901234567890}',
        }
    )
    assert run("in", "--to", name, *options).code == 0
    with (folder / name).open(newline="") as stream:
        found = list(csv.reader(stream, delimiter="\t" if name.endswith("tsv") else ","))
    assert found == [
        ["edited", "n", "m"],
        ["false", "1", "a"],
        ["1293840000", "2.5", "12345678901234567890"],
    ]


@pytest.mark.parametrize(
    "options", [(), ("--schema", "s.json"), ("--jq", "select(.id > 0)"), ("--dedupe", "id")]
)
def test_numbers_in_csv_keep_their_spelling(run, files, options):
    large = "1.50" if "--jq" in options else "12345678901234567890"  # which jq would round
    text = f'{{"id":1,"a":1.10,"b":1e2,"c":{large},"d":0.123456789012345678901,"e":[1.0]}}'
    folder = files({"in/1.json": f"[{text}]", "in/2.jsonl": '{"id": 2}\n', "s.json": "{}"})
    outcome = run("in", "--to", "x.csv", *options)
    assert outcome.code == 0, outcome.stdout
    assert (folder / "x.csv").read_text().splitlines() == [
        "id,a,b,c,d,e",
        f"1,1.10,1e2,{large},0.123456789012345678901,[1.0]",
        "2,,,,,",
    ]


@pytest.mark.parametrize("batch", ["1", "2", "9"])
@pytest.mark.parametrize("form", ["sqlite", "duckdb"])
def test_booleans_beside_numbers_stay_booleans(run, files, form, batch):
    folder = files({"in.jsonl": lines({"v": True}, {"v": 1}, {"v": 2.5}, {"v": False})})
    to = ("--to", f"{form}:///x.db", "--table", "t", "--load-batch", batch)
    assert run("in.jsonl", *to).code == 0
    assert READ[form](folder / "x.db") == [("true",), ("1",), ("2.5",), ("false",)]


@pytest.mark.parametrize("batch", ["1", "2", "9"])
def test_a_column_of_booleans_that_gets_a_text(run, files, batch):
    folder = files(
        {"in.jsonl": lines({"b": True, "n": 1}, {"b": False, "n": 1.5}, {"b": "x", "n": "x"})}
    )
    assert run("in.jsonl", "--to", "x.parquet", "--load-batch", batch).code == 0
    to = ("--to", "sqlite:///x.db", "--table", "t", "--load-batch", batch)
    assert run("in.jsonl", *to).code == 0
    wanted = [("true", "1"), ("false", "1.5"), ("x", "x")]
    assert sqlite_rows(folder / "x.db") == wanted
    assert duckdb_rows(":memory:", f"SELECT * FROM '{folder / 'x.parquet'}'") == wanted


@pytest.mark.parametrize("form", ["sqlite", "duckdb"])
def test_keys_of_several_types_are_several_keys(run, files, form):
    folder = files(
        {
            "1.jsonl": lines({"k": "A17"}, {"k": 5}),
            "2.jsonl": lines({"k": 5, "v": "again"}, {"k": 2.5}),
            "3.jsonl": lines({"k": 1}, {"k": True}),
        }
    )
    to = ("--to", f"{form}:///x.db", "--table", "t", "--key", "k")
    for name in ("1.jsonl", "2.jsonl", "3.jsonl"):
        assert run(name, *to).code == 0
    found = READ[form](folder / "x.db", "SELECT k, v FROM t ORDER BY k")
    assert found == [("1", None), ("2.5", None), ("5", "again"), ("A17", None), ("true", None)]


@pytest.mark.parametrize("batch", ["1", "9"])
def test_the_fit_to_an_existing_column_is_that_of_the_value_alone(run, files, batch):
    folder = files({"in.jsonl": lines({"q": True}, {"q": 7}, {"q": 1.0}, {"q": 1.5})})
    with closing(duckdb.connect(str(folder / "x.db"))) as connection:
        connection.execute("CREATE TABLE t (q INTEGER)")
    to = ("--to", "duckdb:///x.db", "--table", "t", "--load-batch", batch)
    report = run("in.jsonl", *to, "-o", "json").json
    assert [failure["record"] for failure in report["failures"]] == [1, 4]
    assert duckdb_rows(folder / "x.db") == [(7,), (1,)]


@pytest.mark.parametrize("form", ["sqlite", "duckdb"])
def test_a_rejected_record_leaves_no_trace(run, files, form):
    folder = files(
        {
            "case.jsonl": lines(
                {"Id": "odd", "id": 0}, {"id": 1}, {"id": 2}, {"Id": None, "id": 3}
            ),
            "keys.jsonl": lines({"id": 1, "v": "text", "new": 1}, {"id": 9, "v": 5}),
        }
    )
    to = ("--to", f"{form}:///x.db", "--table", "t")
    report = run("case.jsonl", *to, "-o", "json").json
    assert [failure["record"] for failure in report["failures"]] == [1]
    assert READ[form](folder / "x.db") == [(1,), (2,), (3,)]
    append = ("--to", f"{form}:///y.db", "--table", "t", "--key", "id", "--mode", "append")
    files({"first.json": '{"id": 1, "v": 4}'})
    assert run("first.json", *append).code == 0
    report = run("keys.jsonl", *append, "-o", "json").json
    assert [failure["record"] for failure in report["failures"]] == [1]
    assert READ[form](folder / "y.db") == [(1, 4), (9, 5)]


def test_a_record_with_too_many_fields_adds_none(run, files):
    folder = files({"in.jsonl": lines(
        {f"c{n}": n for n in range(1_990)}, {f"d{n}": n for n in range(30)}, {"good": 5}
    )})  # fmt: skip
    report = run("in.jsonl", "--to", "sqlite:///x.db", "--table", "t", "-o", "json").json
    assert [failure["record"] for failure in report["failures"]] == [2]
    assert sqlite_rows(folder / "x.db", "SELECT good FROM t WHERE good NOTNULL") == [(5,)]
    names = [
        name for (name,) in sqlite_rows(folder / "x.db", "SELECT name FROM pragma_table_info('t')")
    ]
    assert len(names) == 1_991


@pytest.mark.parametrize("batch", ["1", "2", "9"])
@pytest.mark.parametrize("form", ["sqlite", "duckdb"])
def test_columns_come_in_the_order_of_their_first_values(run, files, form, batch):
    folder = files(
        {"in.jsonl": lines({"a": None, "b": 1}, {"c": 1}, {"e": 2, "a": 3}, {"z": None})}
    )
    to = ("--to", f"{form}:///x.db", "--table", "t", "--load-batch", batch)
    assert run("in.jsonl", *to).code == 0
    query = "SELECT name FROM pragma_table_info('t')"
    assert [name for (name,) in READ[form](folder / "x.db", query)] == ["b", "c", "e", "a"]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_key_stays_unique_after_a_change_of_the_table_is_undone(run, files, mode):
    records = [
        {"id": 1, "a": 1}, {"id": 1, "a": 2}, {"id": 2, "a": 7}, {"id": None, "a": 3},
        {"id": 1, "a": 4},
    ]  # fmt: skip
    folder = files({"in.jsonl": lines(*records)})
    with closing(sqlite3.connect(folder / "x.db")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER, b INTEGER CHECK (id <> 2))")
    to = ("--to", "sqlite:///x.db", "--table", "t", "--key", "id", "--mode", mode)
    report = run("in.jsonl", *to, "--load-batch", "3", "-o", "json").json
    rejected = [failure["record"] for failure in report["failures"]]
    assert rejected == ([2, 3, 4, 5] if mode == "append" else [3, 4])
    value = 1 if mode == "append" else 4
    assert sqlite_rows(folder / "x.db", "SELECT id, a FROM t") == [(1, value)]


@pytest.mark.parametrize("batch", ["1", "9"])
@pytest.mark.parametrize("form", ["sqlite", "duckdb"])
def test_a_missing_key_gets_the_default_and_null_stays_null(run, files, form, batch):
    records = [{"k": 1, "v": 5}, {"k": 2}, {"k": 3, "v": None}, {"k": 4}, {"k": 2}, {"k": 1}]
    folder = files({"in.jsonl": lines(*records)})
    opened = sqlite3.connect if form == "sqlite" else duckdb.connect
    with closing(opened(str(folder / "x.db"))) as connection:
        connection.execute("CREATE TABLE t (k BIGINT, v BIGINT DEFAULT (40 + 2))")
        connection.commit()
    to = ("--to", f"{form}:///x.db", "--table", "t", "--key", "k", "--load-batch", batch)
    assert run("in.jsonl", *to).code == 0
    found = READ[form](folder / "x.db", "SELECT k, v FROM t ORDER BY k")
    assert found == [(1, 42), (2, 42), (3, None), (4, 42)]


def test_a_field_without_a_value_in_kept_rows_gets_its_type_later(run, files):
    folder = files({"in/1.jsonl": lines({"k": 1, "v": None})})
    assert run("in", "--to", "x.parquet").code == 0
    files({"in/2.jsonl": lines({"k": 2, "v": 5})})
    assert run("in", "--to", "x.parquet", "--resume").code == 0
    assert duckdb_rows(":memory:", f"SELECT v FROM '{folder / 'x.parquet'}'") == [(None,), (5,)]
