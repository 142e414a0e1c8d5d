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
    lost = [0.12345678901, 16777217, 3.141592653589793]
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


LONG = 12345678901234567890123
# Values of DuckDB types: those that a column holds, as it shows them, and those that are rejected.
OWN_TYPES: dict[str, tuple[list[tuple[Any, str]], list[Any]]] = {
    "DOUBLE[]": (
        [([0.1, 1e300, None, 5], "[0.1, 1e+300, NULL, 5.0]"), ([], "[]")],
        [[2**53 + 1], ["1.5", "nan"], [True], "[1]", 1, [[1]]],
    ),
    "BIGINT[]": ([([1.0, -5], "[1, -5]")], [["1"], [1.5], [1e300], [False]]),
    "FLOAT[]": ([([0.1], "[0.1]")], [[1e39], [10**39]]),
    "HUGEINT[]": ([([LONG], f"[{LONG}]")], [[10**39], [0.5]]),
    "DECIMAL(18,9)[]": ([([0.5], "[0.500000000]")], [[0.10000000149011612], ["0.5"]]),
    "VARCHAR[]": ([(["x\n", "null", None], "['x\n', 'null', NULL]")], [[1], ["a", {}]]),
    "BIT[]": ([(["101"], "[101]")], [[1], ["2"]]),
    "BIGNUM[]": ([([LONG, 5], f"[{LONG}, 5]")], [["1"], [1.5], [True]]),
    "STRUCT(a INTEGER, b VARCHAR)": (
        [({"b": "x", "a": 1}, "{'a': 1, 'b': x}")],
        [{"a": 1}, {"a": "1", "b": "x"}, {"A": 1, "b": "x"}, {"a": 1, "b": "x", "c": 1}],
    ),
    "MAP(VARCHAR, DOUBLE)": ([({"k": 0.5}, "{k=0.5}")], [{"k": "0.5"}, {"k": 2**53 + 1}, "{k=1}"]),
    "BIGNUM": ([(10**50, str(10**50)), ("5", "5")], [1.5, "1.5", "01", True]),
    "HUGEINT": ([(1e22, str(10**22)), ("-5", "-5")], [" 1", "1_0", "1e1", "+1", "007", 0.5, False]),
    "UTINYINT": ([("10", "10"), (10.0, "10")], ["1_0", "1e1", " 1", 256, -1]),
    "UBIGINT": ([(2**64 - 1, str(2**64 - 1))], [" 1", 2**64, 1.5]),
    "DECIMAL(20,2)": (
        [("12.5", "12.50"), (1e5, "100000.00")], [" 1", "12345678901234567.895", "1e1"],
    ),
    "FLOAT": (
        [("0.25", "0.25"), ("NaN", "nan"), (-0.0, "-0.0")], [" 1", "1e1", 1e300, -1e39, True],
    ),
    "BLOB": ([("A", "A"), (r"\xFF", r"\xFF")], [r"\x41", "é"]),
    "INTERVAL": ([("2 hours", "02:00:00")], ["0.1234567 seconds", "x"]),
    "UUID": ([(f"{'AB' * 16}", "abababab-abab-abab-abab-abababababab")], ["x", 1]),
    "ENUM('a', 'b')": ([("a", "a")], ["A", "c"]),
    "VARIANT": ([("1", "1"), ([1, "x"], "[1, x]"), (2**53 + 1, str(2**53 + 1))], [LONG]),
}  # fmt: skip


@pytest.mark.parametrize("declared", OWN_TYPES)
def test_a_duckdb_type_holds_a_value_as_it_is_or_the_record_is_rejected(load, declared):
    kept, lost = OWN_TYPES[declared]
    records = [{"v": value} for value in [*(value for value, _ in kept), *lost]]
    table = f"CREATE TABLE t (v {declared}, shown VARCHAR AS (v::VARCHAR))"
    found, failures = load("duckdb", records, table)
    assert [shown for *_, shown in found] == [shown for _, shown in kept]
    assert list(failures) == list(range(len(kept) + 1, len(records) + 1))
    assert all(f"column v is {declared}, which " in message for message in failures.values())


JSON_VALUES = ["true", "1", "null", "[1]", '{"a":1}', "x", "", 1, 1.0, True, [1, "1"], {"a": None}]


@pytest.mark.parametrize("rows", ["1", "1000"])
@pytest.mark.parametrize(("declared", "wrap"), [
    ("JSON", lambda value: value), ("JSON[]", lambda value: [value, None]),
    ("STRUCT(k BIGINT, j JSON)", lambda value: {"k": 5, "j": value}),
    ("STRUCT(a STRUCT(b JSON[]))", lambda value: {"a": {"b": [value]}}),
    ("MAP(VARCHAR, JSON)", lambda value: {"k": value}),
])  # fmt: skip
def test_duckdb_columns_of_json_hold_any_value(load, declared, wrap, rows):
    values = [wrap(value) for value in JSON_VALUES]
    table = f"CREATE TABLE t (v {declared} NOT NULL, j VARCHAR AS (to_json(v)::VARCHAR))"
    found, _ = load("duckdb", [*({"v": value} for value in values), {"v": None}], table, rows=rows)
    assert [json.loads(shown) for *_, shown in found] == values
    if declared == "JSON":
        assert [shown for shown, _ in found] == [
            json.dumps(value, separators=(",", ":")) for value in values
        ]


def test_a_duckdb_key_of_json(run, tmp_path):
    with closing(duckdb.connect(str(tmp_path / "own.db"))) as connection:
        connection.execute("CREATE TABLE t (k JSON, n BIGINT)")
        connection.execute("""INSERT INTO t VALUES ('"1"', 0), ('1', 0)""")
    keys = ["1", "1", "true", 1, True]
    lines = "".join(json.dumps({"k": key, "n": n}) + "\n" for n, key in enumerate(keys, 1))
    (tmp_path / "in.jsonl").write_text(lines)
    assert run("in.jsonl", "--to", "duckdb:///own.db", "--table", "t", "--key", "k").code == 0
    with closing(duckdb.connect(str(tmp_path / "own.db"))) as connection:
        found = connection.execute("SELECT * FROM t ORDER BY n").fetchall()
    assert found == [('"1"', 2), ('"true"', 3), ("1", 4), ("true", 5)]


@pytest.fixture
def referred(run, tmp_path):
    """Load records into a DuckDB table, to whose first row another one refers."""
    path = str(tmp_path / "own.db")
    columns = "id BIGINT PRIMARY KEY, a INTEGER DEFAULT 7, u BIGINT UNIQUE, l INTEGER[]"
    statements = [
        f"CREATE TABLE t ({columns}, _file VARCHAR)",
        "INSERT INTO t VALUES (1, 1, 1, [1], 'm/a.jsonl'), (2, 2, 2, NULL, 'm/a.jsonl')",
        "CREATE TABLE c (id BIGINT REFERENCES t (id))", "INSERT INTO c VALUES (1)",
    ]  # fmt: skip
    with closing(duckdb.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)

    def _load(name, records, *options):
        (tmp_path / "m").mkdir(exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / "m" / name).write_text(lines)
        options = ("--to", "duckdb:///own.db", "--table", "t", "--key", "id", *options)
        report = run("m", *options, "-o", "json").json
        with closing(duckdb.connect(path)) as connection:
            return connection.execute("SELECT * FROM t ORDER BY id").fetchall(), report

    return _load


@pytest.mark.parametrize("rows", ["1", "1000"])
def test_a_duckdb_upsert_changes_rows_that_others_refer_to(referred, rows):
    row = {"id": 1, "a": 5, "u": 1, "l": [1]}
    lost = [row | {"u": 3}, row | {"l": [2]}, {"id": 2, "u": 1}]
    records = [row, {"id": 2, "u": 2}, *lost, row | {"new": "x"}, row | {"id": 3, "a": 9, "u": 9}]
    found, report = referred("b.jsonl", records, "--load-batch", rows)
    assert found == [
        (1, 5, 1, [1], None, "x"), (2, 7, 2, None, None, None), (3, 9, 9, [1], None, None)
    ]  # fmt: skip
    assert [(one["record"], one["message"]) for one in report["failures"]] == [
        (3, "table c has rows that refer to this id, so DuckDB cannot change its u"),
        (4, "table c has rows that refer to this id, so DuckDB cannot change its l"),
        (5, "a row with the same u exists already"),
    ]


def test_a_duckdb_mirror_changes_rows_that_others_refer_to(referred, tmp_path):
    mirror = ("--mode", "mirror", "--max-delete", "9")
    row = {"id": 1, "a": 5, "u": 1, "l": [1]}
    found, report = referred("a.jsonl", [row, {"id": 4}, row], *mirror)
    assert found == [(1, 5, 1, [1], "m/a.jsonl"), (4, 7, None, None, "m/a.jsonl")]
    assert [one["record"] for one in report["failures"]] == [3]
    (tmp_path / "m" / "a.jsonl").unlink()
    found, report = referred("b.jsonl", [row | {"a": 6}], *mirror)
    assert (found, report["exit_code"]) == ([(1, 6, 1, [1], "m/b.jsonl")], 0)
    for _ in range(2):
        found, report = referred("b.jsonl", [{"id": 5}], *mirror)
        (failure,) = report["failures"]
        assert "which no file has any more, such as that with the id 1: " in failure["message"]
        assert [row[0] for row in found] == [1, 5]
    assert referred("b.jsonl", [row | {"a": 8}], *mirror)[0] == [(1, 8, 1, [1], "m/b.jsonl")]


def test_types_of_a_duckdb_table_that_others_refer_to_stay(load):
    statements = (
        "CREATE TABLE t (id BIGINT PRIMARY KEY, b BIGINT)",
        "CREATE TABLE c (id BIGINT REFERENCES t (id))",
    )
    found, failures = load("duckdb", [{"id": 1, "b": 1}, {"id": 2, "b": "x"}], *statements)
    assert (found, failures.keys()) == ([(1, 1)], {2})
    assert "a table that another one refers to (c)" in failures[2]


def test_a_duckdb_table_that_others_refer_to_is_not_replaced(run, tmp_path):
    with closing(duckdb.connect(str(tmp_path / "own.db"))) as connection:
        connection.execute("CREATE TABLE T (id BIGINT PRIMARY KEY)")
        connection.execute("CREATE TABLE c (id BIGINT REFERENCES t (id))")
    (tmp_path / "in.jsonl").write_text('{"id": 1}\n')
    outcome = run("in.jsonl", "--to", "duckdb:///own.db", "--table", "t", "--mode", "replace")
    assert outcome.code == 2
    assert "cannot replace table t, because other tables refer to it (c)" in outcome.stderr
