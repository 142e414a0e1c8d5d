"""DuckDB tables: the same rules as for SQLite, with strict types."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.columns.block import make_block
from asyncbatch.sinks.databases.duckdb import DuckdbSink
from tests.conftest import python
from tests.sinks.test_block import PLAIN_ROWS, is_held
from tests.sinks.test_sqlite import NAMES

EXACT = 2**53


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "out.duckdb")


def load(sink, rows, groups=None):
    """Load rows in their own transaction; return the refusals."""
    refusals = sink.load(make_block(rows), groups)
    sink.commit()
    return refusals


def write(path, *blocks, mode="append", key=(), table="t", succeeded=True, groups=None):
    """Load blocks of rows; return all refusals."""
    sink = DuckdbSink(path, table=table, mode=mode, key=key)
    sink.open()
    try:
        return [refusal for rows in blocks for refusal in load(sink, rows, groups)]
    finally:
        sink.finish(succeeded=succeeded, ended=True)


def execute(path, *statements):
    """Run statements; return the rows of the last statement."""
    with closing(duckdb.connect(path)) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


def read(path, query="SELECT * FROM t"):
    return execute(path, query)


def types(path, table="t"):
    return {name: declared for name, declared, *_ in execute(path, f"DESCRIBE {table}")}


def test_a_table_is_made_of_the_first_rows(path):
    rows = [
        {"id": 1, "x": 0.5, "ok": True, "name": "é", "tags": ["a"], "none": None},
        {"id": 2, "x": 1, "ok": False, "name": "", "tags": None, "big": 2**64},
    ]
    assert write(path, rows, [{"id": 3}]) == []
    assert types(path) == {
        "id": "BIGINT",
        "x": "DOUBLE",
        "ok": "BOOLEAN",
        "name": "VARCHAR",
        "tags": "VARCHAR",
        "big": "VARCHAR",
    }
    assert read(path) == [
        (1, 0.5, True, "é", '["a"]', None),
        (2, 1.0, False, "", None, "18446744073709551616"),
        (3, None, None, None, None, None),
    ]
    assert os.listdir(os.path.dirname(path)) == ["out.duckdb"]


@pytest.mark.parametrize(
    ("first", "second", "declared", "values"),
    [
        (1, "007", "VARCHAR", ["1", "007"]),
        (1.0, "007", "VARCHAR", ["1", "007"]),
        (1e300, "x", "VARCHAR", ["1e300", "x"]),
        (EXACT, 0.5, "DOUBLE", [float(EXACT), 0.5]),
        (EXACT + 1, 0.5, "VARCHAR", [str(EXACT + 1), "0.5"]),
        (0.5, EXACT + 1, "VARCHAR", ["0.5", str(EXACT + 1)]),
        (True, 7, "VARCHAR", ["true", "7"]),
        (7, True, "VARCHAR", ["7", "true"]),
        (True, 0.5, "VARCHAR", ["true", "0.5"]),
        (True, "x", "VARCHAR", ["true", "x"]),
        ("007", 7, "VARCHAR", ["007", "7"]),
        (2**63 - 1, 2**63, "VARCHAR", [str(2**63 - 1), str(2**63)]),
        (None, 5, "BIGINT", [None, 5]),
        (None, "x", "VARCHAR", [None, "x"]),
    ],
)
def test_columns_widen_so_that_no_value_changes(path, first, second, declared, values):
    write(path, [{"v": first, "w": 1}], [{"v": second, "w": 1}])
    assert types(path)["v"] == declared
    again = f"{path}.2"
    write(again, [{"v": first, "w": 1}])
    write(again, [{"v": second, "w": 1}])
    for found in (path, again):
        stored = [value for (value,) in read(found, "SELECT v FROM t")]
        assert (stored, list(map(type, stored))) == (values, list(map(type, values)))


def test_values_survive_exactly(path):
    texts = ["", "NULL", "null", "a\0b", '"', "\\", "\r\n", " 007 ", "é😀\u2028", "[1]", "\\N"]
    numbers = [-0.0, 5e-324, 1.7976931348623157e308, 0.1, 1e22, -1e-7]
    write(path, [{"v": text} for text in [*texts, None]])
    assert [value for (value,) in read(path)] == [*texts, None]
    write(path, [{"v": number} for number in numbers], table="u")
    found = [value for (value,) in read(path, "SELECT * FROM u")]
    assert list(map(repr, found)) == list(map(repr, numbers))
    write(path, [{"v": 2**63 - 1}, {"v": -(2**63)}], table="w")
    assert read(path, "SELECT * FROM w") == [(2**63 - 1,), (-(2**63),)]


def test_types_that_no_json_value_has(path):
    execute(
        path,
        "CREATE TABLE t (n INTEGER, d DATE, p DECIMAL(10, 2), f FLOAT, l INTEGER[],"
        " v FLOAT[], s STRUCT(a INTEGER, b VARCHAR), u UUID)",
    )
    rows = [
        {"n": 1, "d": "2024-01-31", "p": "12.5", "f": 0.1, "l": [1, 2]},
        {"n": 2**31},
        {"n": 1.5},
        {"n": 2.0, "d": None},
        {"d": "soon"},
        {"p": 12.345},
        {"l": ["x"]},
        {"l": [1.5]},
        {"v": [1, "x"]},
        {"s": {"a": 1, "c": 2}},
        {"u": "x"},
        {},
        {"v": [1, 0.1, None], "s": {"a": 1, "b": "é"}, "u": "ec2ef1b3-0000-4000-8000-000000000001"},
    ]
    refusals = write(path, rows)
    assert [refusal.row for refusal in refusals] == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert refusals[2].message == "column d is DATE, which cannot hold 'soon'"
    assert read(path, "SELECT n, d::VARCHAR, p::VARCHAR, l FROM t") == [
        (1, "2024-01-31", "12.50", [1, 2]),
        (2, None, None, None),
        (None, None, None, None),
        (None, None, None, None),
    ]
    ((vector, pair),) = read(path, "SELECT v, s FROM t WHERE u NOTNULL")
    assert (vector[0], vector[2], pair) == (1.0, None, {"a": 1, "b": "é"})


def test_objects_without_fields(path):
    refusals = write(path, [{}, {}], [{"a": 1}, {}], [{}])
    assert [refusal.row for refusal in refusals] == [0, 1]
    assert read(path) == [(1,), (None,), (None,)]


def test_rows_that_a_constraint_forbids_are_refused_alone(path):
    execute(path, "CREATE TABLE t (v BIGINT CHECK (v > 0), w VARCHAR NOT NULL, n BIGINT UNIQUE)")
    rows = [{"v": row % 5, "w": None if row % 7 == 0 else "x", "n": row} for row in range(100)]
    rows += [{"w": "y", "n": 1}, {"w": "y"}, {"w": "y"}]
    bad = [row for row in range(100) if row % 5 == 0 or row % 7 == 0] + [100]
    refusals = write(path, rows)
    assert [refusal.row for refusal in refusals] == bad
    assert {refusal.message for refusal in refusals} == {
        "the table's check fails: (v > 0)",
        "column w cannot be null",
        "a row with the same n exists already",
    }
    assert len(read(path)) == len(rows) - len(bad)


def test_what_cannot_be_judged_beforehand_ends_the_run(path):
    execute(path, "CREATE TABLE t (v BIGINT PRIMARY KEY, w BIGINT REFERENCES t (v))")
    with pytest.raises(SinkError, match=r"cannot write .*: Constraint Error: Violates foreign key"):
        write(path, [{"v": 1, "w": 2}])


def test_append_refuses_keys_that_are_there(path):
    refusals = write(path, [{"id": 1, "v": 1}, {"id": 2, "v": 2}, {"id": 1, "v": 3}], key=("id",))
    assert [(refusal.row, refusal.message) for refusal in refusals] == [
        (2, "a row with the same id exists already")
    ]
    again = write(path, [{"id": 2}, {"id": 3, "v": 4}, {"id": 3}], key=("id",))
    assert [refusal.row for refusal in again] == [0, 2]
    assert read(path) == [(1, 1), (2, 2), (3, 4)]


def test_rows_of_one_record_are_refused_together(path):
    rows = [{"id": 1}, {"id": 2}, {"id": 2}, {"id": 1}, {"id": 3}, {"id": 3}, {"id": 4}, {"id": 5}]
    refusals = write(path, rows, key=("id",), groups=[0, 0, 1, 1, 2, 2, 3, 4])
    assert [refusal.row for refusal in refusals] == [2, 3, 4, 5]
    assert read(path) == [(1,), (2,), (4,), (5,)]
    execute(path, "CREATE TABLE u (d INTEGER)")
    refusals = write(path, [{"d": 1}, {"d": "x"}, {"d": 3}], table="u", groups=[0, 1, 1])
    assert [refusal.row for refusal in refusals] == [1, 2]
    assert len({refusal.message for refusal in refusals}) == 1
    assert read(path, "SELECT * FROM u") == [(1,)]


@pytest.mark.parametrize("definition", ["id BIGINT, a BIGINT", "id BIGINT PRIMARY KEY, a BIGINT"])
def test_upsert_replaces_whole_rows(path, definition):
    execute(path, f"CREATE TABLE t ({definition})")
    first = [{"id": 1, "a": 1, "b": 1}, {"id": 2, "a": 2}, {"id": 2, "a": 3}]
    assert write(path, first, mode="upsert", key=("id",)) == []
    assert write(path, [{"id": 1, "c": 9}], mode="upsert", key=("id",)) == []
    assert write(path, [{"id": 1, "c": 8}, {"id": 1, "c": 9}], mode="upsert", key=("id",)) == []
    assert sorted(read(path)) == [(1, None, None, 9), (2, 3, None, None)]


def test_upsert_where_all_is_key(path):
    rows = [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 1, "b": "x"}]
    assert write(path, rows, mode="upsert", key=("a", "b")) == []
    assert sorted(read(path)) == [(1, "x"), (1, "y")]


def test_a_key_that_widens_stays_the_key(path):
    write(path, [{"id": 1, "v": 1}], [{"id": "x", "v": 2}], mode="upsert", key=("id",))
    write(path, [{"id": "1", "v": 3}], mode="upsert", key=("ID",))
    assert sorted(read(path)) == [("1", 3), ("x", 2)]


@pytest.mark.parametrize(
    ("before", "same", "other"), [(1, "1", "x"), (0.5, "0.5", "x"), (True, "true", 0.5)]
)
def test_a_key_that_widens_in_the_batch_that_has_it_replaces_its_row(path, before, same, other):
    write(path, [{"id": before, "v": 1}], mode="upsert", key=("id",))
    write(path, [{"id": same, "v": 2}, {"id": other, "v": 3}], mode="upsert", key=("id",))
    assert sorted(read(path)) == sorted([(same, 2), (str(other), 3)])


def test_keys_that_an_existing_table_cannot_have(path):
    execute(path, "CREATE TABLE t (id BIGINT, v BIGINT)", "INSERT INTO t VALUES (1, 1), (1, 2)")
    with pytest.raises(
        UsageError, match="several rows of table t have the same id, so this cannot be the key"
    ):
        write(path, mode="upsert", key=("id",))
    with pytest.raises(UsageError, match="table t lacks these columns of the key: nr, x"):
        write(path, mode="upsert", key=("nr", "id", "x"))


@pytest.mark.parametrize(
    "definition", ["v BIGINT PRIMARY KEY", "v BIGINT CHECK (v > 0)", "v BIGINT UNIQUE"]
)
def test_a_column_that_is_bound_does_not_widen(path, definition):
    execute(path, f"CREATE TABLE t ({definition})")
    [refusal] = write(path, [{"v": 1}], [{"v": "x"}, {"v": 2}])
    assert refusal.row == 0
    assert "DuckDB cannot change the type of a column with a constraint" in refusal.message
    assert read(path) == [(1,), (2,)]


def test_replace_takes_the_place_at_the_end(path):
    execute(path, "CREATE TABLE t (old BIGINT)", "INSERT INTO t VALUES (1)")
    assert [r.row for r in write(path, [{"id": 1}, {"id": 1}], mode="replace", key=("id",))] == [1]
    assert read(path) == [(1,)]
    assert types(path) == {"id": "BIGINT"}
    write(path, [{"b": 2}], mode="replace", succeeded=False)
    assert types(path) == {"id": "BIGINT"}
    assert read(path, "SHOW TABLES") == [("t",)]


def test_a_replacement_that_was_killed_is_cleared_away(path):
    execute(path, 'CREATE TABLE "t.asyncbatch-new" (stale BIGINT)')
    write(path, [{"a": 1}], mode="replace")
    assert read(path) == [(1,)]
    assert read(path, "SHOW TABLES") == [("t",)]


def test_replacing_by_nothing(path):
    write(path, mode="replace")
    assert read(path, "SHOW TABLES") == []
    write(path, [{"a": 1}])
    write(path, mode="replace")
    assert read(path) == []
    assert types(path) == {"a": "BIGINT"}


def test_names_that_differ_only_in_case(path):
    refusals = write(path, [{"id": 1, "ID": 2}, {"id": 3, "ID": None}, {"id": 4}])
    assert [(refusal.row, refusal.message) for refusal in refusals] == [
        (0, "fields 'id' and 'ID' have the same name in a table")
    ]
    execute(path, "CREATE TABLE u (Name VARCHAR)")
    assert write(path, [{"name": "a"}], table="U") == []
    assert read(path, "SELECT * FROM u") == [("a",)]


def test_names_that_cannot_be(path):
    (refusal,) = write(path, [{"": 1, "c": 1}, {"c": 2}])
    assert (refusal.row, refusal.message) == (0, "field '': DuckDB does not allow an empty name")
    assert read(path) == [(2,)]
    with pytest.raises(UsageError, match="does not allow an empty table name"):
        write(path, table="")


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_view_is_no_table(path, mode):
    execute(path, "CREATE VIEW t AS SELECT 1")
    with pytest.raises(UsageError, match="t is a view, not a table"):
        write(path, mode=mode)


def test_paths_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("no database")
    for name, reason in (
        ("missing/x.db", "No such file or directory"),
        ("", "it is a folder"),
        ("file", "not a valid DuckDB database"),
    ):
        with pytest.raises(UsageError, match=rf"cannot use {tmp_path}.*{reason}"):
            write(os.path.join(tmp_path, name))
    assert os.listdir(tmp_path) == ["file"]


def test_another_kind_of_database_is_left_alone(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    with open(path, "rb") as file:
        before = file.read()
    with pytest.raises(UsageError, match="it is an SQLite database"):
        write(path, [{"a": 1}])
    with open(path, "rb") as file:
        assert file.read() == before


def test_a_path_that_is_no_text(tmp_path):
    with pytest.raises(UsageError, match=r"cannot use .*surrogates not allowed"):
        write(os.path.join(tmp_path, os.fsdecode(b"\xff.duckdb")))
    with pytest.raises(UsageError, match=r"cannot use .*surrogates not allowed"):
        write(os.path.join(tmp_path, "out.duckdb"), table=os.fsdecode(b"\xff"))
    assert os.listdir(tmp_path) == []


def test_without_duckdb(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UsageError, match=r"pip install 'asyncbatch\[duckdb\]'"):
        DuckdbSink(path, table="t", mode="append", key=()).open()


def test_a_locked_database(path):
    holder = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True);"
    with subprocess.Popen(
        [sys.executable, "-c", f"{holder} sys.stdin.read()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UsageError, match="Conflicting lock is held"):
            write(path)
        process.communicate()


FULL_DISK = """
import os, resource, sys
from asyncbatch.errors import SinkError
from asyncbatch.sinks.columns.block import make_block
from asyncbatch.sinks.databases.duckdb import DuckdbSink
sink = DuckdbSink(sys.argv[1], table="t", mode="append", key=())
sink.open()
sink.load(make_block([{"a": "kept"}]))
sink.commit()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    for _ in range(100):
        sink.load(make_block([{"a": os.urandom(500).hex()} for _ in range(1000)]))
        sink.commit()
except SinkError as error:
    print(error)
sink.finish(succeeded=False, ended=False)
"""


def test_a_full_disk(path):
    finished = python(f"import sys; sys.argv.append({path!r})\n{FULL_DISK}")
    assert f"cannot write {path}: " in finished.stdout, finished.stderr
    assert read(path)[0] == ("kept",)
    assert (len(read(path)) - 1) % 1000 == 0


def test_loads_may_come_from_any_thread(path):
    sink = DuckdbSink(path, table="t", mode="append", key=())
    sink.open()
    for number in range(3):
        thread = threading.Thread(target=load, args=(sink, [{"a": number}]))
        thread.start()
        thread.join()
    sink.finish(succeeded=True, ended=True)
    assert read(path) == [(0,), (1,), (2,)]


@settings(max_examples=20)
@given(NAMES, st.dictionaries(NAMES, st.integers(0, 9), min_size=1, max_size=4), st.booleans())
def test_any_name_works_or_is_refused(tmp_path_factory, table, row, is_key):
    path = str(tmp_path_factory.mktemp("names") / "out.duckdb")
    execute(path, "CREATE TABLE bystander (a BIGINT)", "INSERT INTO bystander VALUES (1)")
    key = (next(iter(row)),) if is_key and next(iter(row)) else ()
    mode = "upsert" if key else "append"
    try:
        refusals = write(path, [row], [row | {"_later": 10}], table=table, key=key, mode=mode)
    except UsageError:
        assert not table
        return
    quoted = table.replace('"', '""')
    if not refusals:
        found = read(path, f'SELECT * FROM "{quoted}"')
        kept = [] if key else [(*row.values(), None)]
        assert found == [*kept, (*row.values(), 10)]
    assert read(path, "SELECT * FROM bystander") == [(1,)]


@settings(max_examples=20)
@given(PLAIN_ROWS, st.integers(1, 4))
def test_rows_come_back_however_they_are_split(tmp_path_factory, rows, size):
    rows = [
        {"_": number, **{f"f{k}": v for k, v in row.items()}} for number, row in enumerate(rows)
    ]
    path = str(tmp_path_factory.mktemp("rows") / "out.duckdb")
    assert write(path, *(rows[start : start + size] for start in range(0, len(rows), size))) == []
    # A field gets its column with its first value.
    names = [n for n in make_block(rows).names if any(row.get(n) is not None for row in rows)]
    found = read(path, "SELECT * FROM t ORDER BY _") if rows else []
    for row, values in zip(rows, found, strict=True):
        for name, value in zip(names, values, strict=True):
            assert is_held(value, row.get(name)), name


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@settings(max_examples=20)
def test_widened_floats_read_back(tmp_path_factory, numbers):
    path = str(tmp_path_factory.mktemp("floats") / "out.duckdb")
    write(path, [{"v": number} for number in numbers], [{"v": "x"}])
    found = [float(value) for (value,) in read(path)[:-1]]
    assert found == numbers
    assert [math.copysign(1, value) for value in found] == [math.copysign(1, n) for n in numbers]


@pytest.mark.parametrize("contract", ["evolve", "freeze"])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("declared", "kept", "lost"),
    [
        (
            "TIMESTAMP",
            {"2026-01-01T12:00:00.123456": "2026-01-01 12:00:00.123456", "infinity": "infinity"},
            {
                "2026-01-01T12:00:00+02:00": "time zone",
                "2026-01-01T12:00:00Z": "time zone",
                "2026-01-01 12:00:00 Europe/Berlin": "time zone",
                "2026-01-01T12:00:00.123456789": "round",
                "9999-12-31T23:59:59.9999999": "round",
            },
        ),
        (
            "TIMESTAMP_S",
            {"2026-01-01T12:00:00": "2026-01-01 12:00:00"},
            {"2026-01-01T12:00:00.5": "round"},
        ),
        (
            "TIMESTAMP_MS",
            {"2026-01-01T12:00:00.5": "2026-01-01 12:00:00.5"},
            {"2026-01-01T12:00:00.1239": "round"},
        ),
        (
            "TIMESTAMP_NS",
            {"2026-01-01T12:00:00.123456789": "2026-01-01 12:00:00.123456789"},
            {"2026-01-01T12:00:00.1234567891": "round", "2026-01-01 12:00:00+02": "time zone"},
        ),
        (
            "TIMESTAMPTZ",
            {"9999-12-31T23:59:59.999999Z": "9999-12-31 23:59:59.999999+00"},
            {"2026-01-01T12:00:00.123456789Z": "round"},
        ),
        (
            "DATE",
            {"2026-01-01": "2026-01-01", "2026-01-02T00:00:00": "2026-01-02"},
            {
                "2026-01-01T12:00:00": "time of day",
                "2026-01-01T00:00:00Z": "time zone",
                "soon": "cannot hold",
            },
        ),
        (
            "TIME",
            {"12:00:00.5": "12:00:00.5"},
            {
                "12:00:00+02": "time zone",
                "2026-01-01 12:00:00": "date",
                "12:00:00.1234567": "round",
            },
        ),
        ("TIMETZ", {"12:00:00+02": "12:00:00+02"}, {"12:00:00.1234567+02": "round"}),
        (
            "FLOAT",
            {0.1: "0.1", 16777216: "16777216.0", 1e30: "1e+30"},
            {
                16777217: "round",
                0.123456789: "round",
                1e300: "round",
                -1e39: "round",
                10**50: "round",
            },
        ),
        ("INTEGER", {1.0: "1", 7: "7"}, {1.5: "round", 2**40: "cannot hold"}),
        ("DECIMAL(5,2)", {1.25: "1.25"}, {1.005: "round"}),
    ],
)
def test_own_columns_keep_a_value_or_refuse_it(  # noqa: PLR0917 - all by their names
    run, tmp_path, declared, kept, lost, together, contract
):
    execute(tmp_path / "x.db", f"CREATE TABLE t (n BIGINT, v {declared})")
    values = [*kept, *lost]
    lines = "".join(json.dumps({"n": n, "v": v}) + "\n" for n, v in enumerate(values))
    (tmp_path / "in.jsonl").write_text(lines)
    more = () if together else ("--load-batch", "1")
    options = ("--to", "duckdb:///x.db", "--table", "t", "--schema-contract", contract)
    report = run("in.jsonl", *options, "--output", "json", *more).json
    shown = read(tmp_path / "x.db", "SELECT v::VARCHAR FROM t ORDER BY n")
    assert shown == [(text,) for text in kept.values()]
    told = {failure["record"] - 1: failure["message"] for failure in report["failures"]}
    assert sorted(told) == list(range(len(kept), len(values)))
    for number, word in enumerate(lost.values(), len(kept)):
        assert word in told[number]


def test_no_other_process_writes_the_file_meanwhile(path):
    """Locks of a file end as soon as the process closes any descriptor of it."""
    sink = DuckdbSink(path, table="t", mode="append", key=())
    sink.open()
    sink.ledger().close()
    sink.load(make_block([{"id": 1}]))
    sink.commit()
    other = python(f"import duckdb; duckdb.connect({path!r})")
    assert "Conflicting lock" in other.stderr
    sink.finish(succeeded=True, ended=True)
    assert read(path) == [(1,)]
