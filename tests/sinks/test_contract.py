"""`--schema-contract`: each database accepts the same rows for an existing table."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.sinks.columns.block import make_block
from asyncbatch.sinks.columns.schema_contract import SchemaContractCheck
from asyncbatch.sinks.columns.table import Columns

FIRST = [{"id": 1, "n": 0.5, "ok": True, "name": "a"}]
LATER = [
    {"id": 2, "n": 1, "ok": False, "name": 7},
    {"id": 3, "n": "x"},
    {"id": 4, "age": 9},
    {"id": 5, "age": None, "n": True},
    {"id": "six"},
    {"id": 7.0, "name": {"a": [1]}, "age": {"years": 3}, "n": [1]},
]


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def database(request, tmp_path):
    """Return the address of a database, and a function that runs a statement in it."""
    if request.param == "postgres":
        server = request.getfixturevalue("server")
        name = server.empty_database()
        return server.url(name), lambda query: server.execute(query, name)
    connect: Any = sqlite3.connect if request.param == "sqlite" else duckdb.connect

    def execute(query):
        with closing(connect(str(tmp_path / "x.db"))) as connection, connection:
            return connection.execute(query).fetchall()

    return f"{request.param}:///x.db", execute


@pytest.fixture
def load(run, tmp_path, database):
    """Load records into table t; return the report."""

    def _load(records, *options):
        (tmp_path / "in.json").write_text(json.dumps(records))
        target = ("--to", database[0], "--table", "t", "--key", "id", "--force")
        finished = run("in.json", *target, "--output", "json", *options)
        assert finished.stdout, finished.stderr
        return finished.json

    return _load


def by_id(rows):
    return {row[0]: tuple(row[1:]) for row in rows}


def test_freeze_rejects_what_does_not_fit_and_loads_the_rest(load, database, tmp_path):
    load(FIRST)
    report = load(LATER, "--schema-contract", "freeze", "--dead-letter", "bad.jsonl")
    assert (report["exit_code"], report["records"]["written"]) == (1, 1)
    assert by_id(database[1]("SELECT * FROM t")) == {
        1: (0.5, True, "a"), 2: (1, False, "7")
    }  # fmt: skip
    told = {failure["record"]: failure["message"] for failure in report["failures"]}
    assert list(told) == [2, 3, 4, 5, 6]
    assert {failure["kind"] for failure in report["failures"]} == {"sink"}
    assert "field 'n' is a string, which its column of floating-point numbers" in told[2]
    assert "field 'age' is new, and the schema contract is freeze: add a column" in told[3]
    assert "field 'n' is a boolean, which its column of floating-point numbers" in told[4]
    assert "field 'id' is a string" in told[5]
    assert "'age' is new" in told[6]
    assert "'n' is an array" in told[6]
    letters = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [letter["data"] for letter in letters] == [LATER[at - 1] for at in told]


def test_discard_leaves_out_what_does_not_fit(load, database, run):
    load(FIRST)
    report = load(LATER, "--schema-contract", "discard")
    assert report["records"]["written"] == 5
    (failure,) = report["failures"]
    assert failure["record"] == 5
    assert "without it the key would be incomplete" in failure["message"]
    rows = by_id(database[1]("SELECT * FROM t"))
    nested = rows.pop(7)
    assert (nested[:2], json.loads(nested[2])) == ((None, None), {"a": [1]})
    assert rows == {
        1: (0.5, True, "a"), 2: (1, False, "7"), 3: (None,) * 3, 4: (None,) * 3, 5: (None,) * 3
    }  # fmt: skip
    again = ("--to", database[0], "--table", "t", "--key", "id", "--force")
    told = run("in.json", *again, "--schema-contract", "discard").stdout
    assert "fields without a column ('age')" in told
    assert "values that do not fit their column ('n')" in told


def test_evolve_changes_the_table(load, database):
    load(FIRST)
    assert load(LATER[:4], "--schema-contract", "evolve")["exit_code"] == 0
    assert by_id(database[1]("SELECT * FROM t"))[4] == (None, None, None, 9)


@pytest.mark.parametrize("contract", ["freeze", "discard"])
def test_the_first_batch_makes_the_table(load, database, contract):
    records = [{"id": 1}, {"id": 2, "n": 1, "none": None}, {"id": 3, "n": 2**70}]
    records += [{"id": 4, "none": 1, "late": 2}, {"id": 5, "n": 1.5, "deep": {}}]
    report = load(records, "--schema-contract", contract, "--load-batch", "2")
    refused = [failure["record"] for failure in report["failures"]]
    rows = by_id(database[1]("SELECT id, n FROM t"))
    assert refused == ([3, 4, 5] if contract == "freeze" else [])
    assert {key: row[0] for key, row in rows.items()} == {1: None, 2: 1} | (
        {} if contract == "freeze" else {3: None, 4: None, 5: None}
    )


def test_records_that_become_rows_together_are_refused_together(load, database, files):
    load(FIRST)
    files({"fn.py": "def parts(r):\n    return r['parts']\n"})
    records = [{"parts": [{"id": 2}, {"id": 3, "new": 1}]}, {"parts": [{"id": 4}, {"id": 5}]}]
    report = load(records, "--schema-contract", "freeze", "--call", "fn.py:parts")
    assert report["records"]["rejected"] == 1
    assert sorted(by_id(database[1]("SELECT * FROM t"))) == [1, 4, 5]


def test_a_text_that_sqlite_would_make_a_number_of(run, files):
    folder = files(
        {
            "in.jsonl": '{"day": "2024-01-02"}\n{"day": "007"}\n{"day": 8.5}\n{"day": [1]}\n'
            '{"day": 18446744073709551616}'
        }
    )
    for contract, expected in (("freeze", 3), ("discard", 5)):
        path = folder / f"{contract}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (day DATE)")
        target = ("--to", f"sqlite:///{path.name}", "--table", "t")
        report = run(
            "in.jsonl", *target, "--schema-contract", contract, "--output", "json"
        ).json  # fmt: skip
        assert report["records"]["written"] == expected
        with closing(sqlite3.connect(path)) as connection:
            values = [row[0] for row in connection.execute("SELECT day FROM t")]
            assert connection.execute("SELECT type FROM pragma_table_info('t')").fetchone() == (
                "DATE",
            )
        assert [value for value in values if value is not None] == ["2024-01-02", 8.5, "[1]"]


@pytest.mark.parametrize("to", ["out.csv", "out.parquet", "out.jsonl", "out/"])
def test_only_databases_have_one(run, files, to):
    files({"in.json": "{}"})
    outcome = run("in.json", "--to", to, "--schema-contract", "freeze")
    assert outcome.code == 2
    assert "for databases" in outcome.stderr
    outcome = run("in.json", "--schema-contract", "freeze")
    assert "name it with --to" in outcome.stderr


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(-(2**65), 2**65),
    st.sampled_from([0.0, 1.0, -0.0, 1.5, 2.0**62, 1e300, "", "1", "a", [], {"a": 1}, [2**70]]),
)


@given(
    st.lists(st.tuples(VALUES, st.booleans()), max_size=12),
    st.sampled_from(["boolean", "integer", "real", "numeric"]),
    st.sampled_from(["freeze", "discard"]),
)
def test_what_fits_does_not_depend_on_the_batches(values, have, contract):
    together = _taken([[value for value, _ in values]], have, contract)
    blocks: list[list[Any]] = [[]]
    for value, begins in values:
        if begins:
            blocks.append([])
        blocks[-1].append(value)
    assert _taken(blocks, have, contract) == together
    if contract == "freeze":  # a column with only nulls has the kind null
        assert None not in [
            new
            for value, new in zip((v for v, _ in values), together, strict=True)
            if value is not None
        ]


def _taken(blocks, have, contract):
    """Return each value as its column stores it, or "refused" for a rejected value."""
    columns = Columns({"v": have}, limit=9, rich=True, contract=SchemaContractCheck(contract))
    taken = []
    for values in blocks:
        admitted = columns.admit(make_block([{"v": v} for v in values]), None)
        block, rows = admitted.block, admitted.rows
        assert columns.changes(block, lambda _: True) == {}
        cells = columns.cells(block)[0] if block.names else [None] * len(rows)
        found = dict(zip(rows, cells, strict=True))
        refused = [one.row for one in admitted.refused]
        assert sorted([*found, *refused]) == list(range(len(values)))
        taken += [found.get(row, "refused") for row in range(len(values))]
    return [_plain(value, have) for value in taken]


def _plain(value, have):
    if have == "numeric" and value not in (None, "refused"):
        value = json.loads(value)
    return (type(value) if have != "numeric" else None, value) if value is not None else None


@pytest.mark.parametrize("declared", ["INTEGER", "BIGINT", "SMALLINT", "REAL", "DECIMAL(5,2)"])
@pytest.mark.parametrize(("check", "contract", "kept"), [
    (" CHECK (v < 9)", "evolve", [5]), ("", "freeze", [5]), ("", "discard", [None, 5]),
])  # fmt: skip
def test_a_column_of_numbers_holds_no_boolean(load, database, declared, check, contract, kept):  # noqa: PLR0917 - all by their names
    database[1](f"CREATE TABLE t (id BIGINT PRIMARY KEY, v {declared}{check})")
    report = load([{"id": 1, "v": True}, {"id": 2, "v": 5}], "--schema-contract", contract)
    stored = [value for (value,) in database[1]("SELECT v FROM t ORDER BY id")]
    rejected = [failure["record"] for failure in report["failures"]]
    if declared != "BIGINT" and not database[0].startswith("sqlite"):
        kept = [5]  # no contract decides about types that JSON does not have
    assert (stored, rejected) == (kept, [1] if None not in kept else [])
