"""SQLite tables: a row arrives with its exact values, or it alone is rejected."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from itertools import accumulate, groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.columns.block import make_block
from asyncbatch.sinks.databases.sqlite import SqliteSink
from asyncbatch.state.ledger import sqlite as sqlite_module
from tests.conftest import python
from tests.sinks.test_block import PLAIN_ROWS, TEXTS, is_held

EXACT = 2**53


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "out.db")


def load(sink, rows, groups=None):
    """Load rows in their own transaction; return the refusals."""
    refusals = sink.load(make_block(rows), groups)
    sink.commit()
    return refusals


def write(path, *blocks, mode="append", key=(), table="t", groups=None):
    """Load blocks of rows; return all refusals."""
    sink = SqliteSink(path, table=table, mode=mode, key=key)
    sink.open()
    try:
        return [refusal for rows in blocks for refusal in load(sink, rows, groups)]
    finally:
        sink.finish(succeeded=True, ended=True)


def execute(path, *statements):
    """Run statements in a transaction; return the rows of the last statement."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


def read(path, query="SELECT * FROM t"):
    return execute(path, query)


def types(path, table="t"):
    return dict(execute(path, f"SELECT name, type FROM pragma_table_info('{table}')"))


def test_a_table_is_made_of_the_first_rows(path):
    rows = [
        {"id": 1, "x": 0.5, "ok": True, "name": "é", "tags": ["a"]},
        {"id": 2, "x": 1, "ok": False, "name": "", "tags": None, "big": 2**64},
    ]
    assert write(path, rows) == []
    assert types(path) == {
        "id": "INTEGER",
        "x": "REAL",
        "ok": "BOOLEAN",
        "name": "TEXT",
        "tags": "TEXT",
        "big": "TEXT",
    }
    assert read(path) == [
        (1, 0.5, 1, "é", '["a"]', None),
        (2, 1.0, 0, "", None, "18446744073709551616"),
    ]
    assert read(path, "PRAGMA journal_mode") == [("wal",)]
    assert os.listdir(os.path.dirname(path)) == ["out.db"]


def test_fields_that_come_later_are_added(path):
    write(path, [{"a": 1}], [{"b": "x", "a": 2}])
    write(path, [{"c": 1.5}])
    assert read(path) == [(1, None, None), (2, "x", None), (None, None, 1.5)]


@pytest.mark.parametrize(
    ("first", "second", "declared", "values"),
    [
        (1, "007", "TEXT", ["1", "007"]),
        (1.0, "007", "TEXT", ["1", "007"]),
        (0.1, "x", "TEXT", ["0.1", "x"]),
        (1e300, "x", "TEXT", ["1e300", "x"]),
        (EXACT, 0.5, "REAL", [float(EXACT), 0.5]),
        (EXACT + 1, 0.5, "TEXT", [str(EXACT + 1), "0.5"]),
        (0.5, EXACT + 1, "TEXT", ["0.5", str(EXACT + 1)]),
        (0.5, 3, "REAL", [0.5, 3.0]),
        (True, 7, "TEXT", ["true", "7"]),
        (7, True, "TEXT", ["7", "true"]),
        (True, 0.5, "TEXT", ["true", "0.5"]),
        ("007", 7, "TEXT", ["007", "7"]),
        ("x", True, "TEXT", ["x", "true"]),
        (2**63 - 1, 2**63, "TEXT", [str(2**63 - 1), str(2**63)]),
        (None, 5, "INTEGER", [None, 5]),
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


def test_a_field_without_a_value_has_no_column_yet(path):
    write(path, [{"v": None, "w": 1}])
    assert types(path) == {"w": "INTEGER"}
    write(path, [{"v": None, "w": 1}], [{"v": 5, "w": 1}])
    assert read(path, "SELECT v FROM t") == [(None,), (None,), (5,)]


def test_a_table_of_nulls_gets_its_types_later(path):
    write(path, [{"a": None, "b": None}], [{"a": 5}], [{"c": 1}])
    assert types(path) == {"a": "INTEGER", "c": "INTEGER"}
    assert read(path) == [(None, None), (5, None), (None, 1)]


def test_objects_without_fields(path):
    refusals = write(path, [{}, {}], [{"a": 1}, {}], [{}])
    assert [refusal.row for refusal in refusals] == [0, 1]
    assert read(path) == [(1,), (None,), (None,)]


@pytest.mark.parametrize(
    ("declared", "value", "stored"),
    [
        ("DATETIME", "2024-01-01", "2024-01-01"),
        ("DECIMAL(10, 2)", "12.50", "12.50"),
        ("DECIMAL(10, 2)", 12.5, 12.5),
        ("VARCHAR(9)", 5, "5"),
        ("", "5", "5"),
        ("BLOB", 5, 5),
        ("INT", "5", "5"),
        ("NUMERIC", " .5e1 ", " .5e1 "),
    ],
)
def test_types_of_an_existing_table(path, declared, value, stored):
    execute(path, f"CREATE TABLE t (v {declared})", "INSERT INTO t VALUES (NULL)")
    write(path, [{"v": value}])
    assert read(path) == [(None,), (stored,)]


def test_widening_keeps_what_a_table_has(path):
    execute(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INT, note /* no CHECK */ TEXT, raw)",
        "CREATE INDEX t_v ON t (v) WHERE v > 0",
        "CREATE TABLE log (v)",
        "CREATE TRIGGER t_insert AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.v); END",
        "CREATE VIEW doubled AS SELECT v * 2 AS v FROM t",
        "INSERT INTO t VALUES (7, 1, 'a', x'00ff'), (3, 2, NULL, 1.5)",
    )
    write(path, [{"id": 9, "v": "x"}])
    assert types(path) == {"id": "INTEGER", "v": "TEXT", "note": "TEXT", "raw": ""}
    assert read(path) == [(3, "2", None, 1.5), (7, "1", "a", b"\x00\xff"), (9, "x", None, None)]
    assert read(path, "SELECT v FROM log") == [(1,), (2,), ("x",)]
    assert read(path, "SELECT name FROM sqlite_schema WHERE type = 'index'") == [("t_v",)]
    assert len(read(path, "SELECT * FROM doubled")) == 3
    assert read(path, "SELECT rowid, * FROM t WHERE id = 9")[0][0] == 9


def test_widening_keeps_row_numbers(path):
    execute(
        path,
        "CREATE TABLE t (v INT, rowid TEXT)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "DELETE FROM t WHERE v = 2",
    )
    write(path, [{"v": "x"}])
    assert read(path, "SELECT oid, v, rowid FROM t") == [
        (1, "1", "a"),
        (3, "3", "c"),
        (4, "x", None),
    ]


def test_columns_that_a_sink_added_widen_in_a_table_with_more_to_it(path):
    execute(
        path,
        'CREATE TABLE t (id INTEGER PRIMARY KEY DESC, "a, (b" TEXT NOT NULL DEFAULT \'x, "v" INT\','
        " n INT CHECK (n > 0), UNIQUE (n))",
    )
    write(path, [{"n": 1, "v": 2, "a, (b": "y"}])
    write(path, [{"n": 2, "v": "z"}], [{"n": 2}, {"n": -1}])
    assert read(path, 'SELECT "a, (b", n, v FROM t') == [("y", 1, "2"), ('x, "v" INT', 2, "z")]


@pytest.mark.parametrize(
    ("definition", "word"),
    [
        ("v INT CHECK (v > 0)", "CHECK"),
        ("v INT NOT NULL", "NOT NULL"),
        ("v INT, w AS (v * 2)", "AS"),
        ("v INT UNIQUE", "UNIQUE"),
        ("v INT DEFAULT 3", "DEFAULT"),
        ("v INT REFERENCES other (id)", "REFERENCES"),
        ("v INT, w TEXT COLLATE NOCASE", "COLLATE"),
    ],
)
def test_a_type_in_a_definition_with_more_to_it_is_not_changed(path, definition, word):
    execute(path, "CREATE TABLE other AS SELECT value AS id FROM json_each('[5, 6, 7, 8]')")
    execute(path, "CREATE UNIQUE INDEX i ON other (id)")
    execute(path, f"CREATE TABLE t ({definition})", "INSERT INTO t (v) VALUES (5)")
    write(path, [{"v": 6}])
    [refusal] = write(path, [{"v": 7}], [{"v": "x"}, {"v": 8}])
    assert refusal.row == 0
    assert f" cannot change the types of a table that has {word} in" in refusal.message
    assert [row[0] for row in read(path)] == [5, 6, 7, 8]


def test_strict_tables_take_what_fits(path):
    execute(path, "CREATE TABLE t (v INTEGER, w TEXT) STRICT")
    assert write(path, [{"v": 1, "w": 2}]) == []
    assert read(path) == [(1, "2")]


def test_the_key_becomes_the_primary_key(path):
    refusals = write(path, [{"id": 1, "v": 1}, {"id": 2, "v": 2}, {"id": 1, "v": 3}], key=("id",))
    assert [(refusal.row, refusal.message) for refusal in refusals] == [
        (2, "UNIQUE constraint failed: t.id")
    ]
    again = write(path, [{"id": 2}, {"id": 3, "v": 4}, {"id": 3}], key=("id",))
    assert [refusal.row for refusal in again] == [0, 2]
    assert read(path) == [(1, 1), (2, 2), (3, 4)]


def test_upsert_replaces_whole_rows(path):
    first = [{"id": 1, "a": 1, "b": 1}, {"id": 2, "a": 2}, {"id": 2, "a": 3}]
    assert write(path, first, mode="upsert", key=("id",)) == []
    assert write(path, [{"id": 1, "c": 9}], mode="upsert", key=("id",)) == []
    assert read(path) == [(1, None, None, 9), (2, 3, None, None)]


def test_upsert_where_all_is_key(path):
    rows = [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 1, "b": "x"}]
    assert write(path, rows, mode="upsert", key=("a", "b")) == []
    assert read(path) == [(1, "x"), (1, "y")]


def test_a_key_that_widens_stays_the_key(path):
    write(path, [{"id": 1, "v": 1}], [{"id": "x", "v": 2}], mode="upsert", key=("id",))
    write(path, [{"id": "1", "v": 3}], mode="upsert", key=("id",))
    assert sorted(read(path)) == [("1", 3), ("x", 2)]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_an_existing_table_gets_an_index_on_the_key(path, mode):
    execute(path, "CREATE TABLE t (Id INT, v)", "INSERT INTO t VALUES (1, 1), (NULL, 2), (NULL, 3)")
    refusals = write(path, [{"id": 1, "v": 4}, {"id": 2, "v": "x"}], mode=mode, key=("id",))
    assert len(refusals) == (mode == "append")
    changed = 1 if mode == "append" else 4
    assert read(path) == [(1, changed), (None, 2), (None, 3), (2, "x")]
    write(path, [{"id": "z"}], mode="upsert", key=("id",))
    assert len(write(path, [{"id": "z"}], key=("id",))) == 1


def test_keys_that_an_existing_table_cannot_have(path):
    execute(path, "CREATE TABLE t (id, v)", "INSERT INTO t VALUES (1, 1), (1, 2)")
    with pytest.raises(
        UsageError, match="several rows of table t have the same id, so this cannot be the key"
    ):
        write(path, mode="upsert", key=("id",))
    with pytest.raises(UsageError, match="table t lacks these columns of the key: nr, x"):
        write(path, mode="upsert", key=("nr", "id", "x"))
    assert read(path, "SELECT count(*) FROM sqlite_schema") == [(1,)]


def test_rows_that_a_constraint_forbids_are_refused_alone(path):
    execute(path, "CREATE TABLE t (v INT CHECK (v > 0), w NOT NULL)")
    rows = [{"v": number % 5, "w": None if number % 7 == 0 else "x"} for number in range(100)]
    refusals = write(path, rows, [{}])
    bad = [number for number in range(100) if number % 5 == 0 or number % 7 == 0]
    assert [refusal.row for refusal in refusals] == [*bad, 0]
    assert {refusal.message for refusal in refusals} >= {
        "CHECK constraint failed: v > 0",
        "NOT NULL constraint failed: t.w",
    }
    assert len(read(path)) == 100 - len(bad)


def test_a_policy_of_a_constraint_loses_no_row(path):
    """ON CONFLICT IGNORE would drop a row, and REPLACE another one."""
    execute(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY ON CONFLICT IGNORE,"
        " v UNIQUE ON CONFLICT REPLACE NOT NULL ON CONFLICT IGNORE)",
        "INSERT INTO t VALUES (1, 'old')",
    )
    rows = [{"id": 1, "v": "a"}, {"id": 2, "v": "old"}, {"id": 3}, {"id": 4, "v": "b"}]
    assert [refusal.row for refusal in write(path, rows)] == [0, 1, 2]
    assert read(path) == [(1, "old"), (4, "b")]
    rows = [{"id": 1, "v": "new"}, {"id": 4, "v": "new"}]
    assert [refusal.row for refusal in write(path, rows, mode="upsert", key=("id",))] == [1]
    assert read(path) == [(1, "new"), (4, "b")]


@pytest.mark.parametrize("mode", ["append", "upsert", "mirror"])
def test_foreign_keys_are_checked(path, mode):
    execute(
        path,
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "INSERT INTO p VALUES (1)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INT REFERENCES p (id), _file TEXT)",
    )
    rows = [{"id": n, "p": p, "_file": "a"} for n, p in ((1, 1), (2, 7), (3, None))]
    refusals = write(path, rows, mode=mode, key=("id",))
    assert [(one.row, one.message) for one in refusals] == [(1, "FOREIGN KEY constraint failed")]
    assert read(path, "SELECT id, p FROM t") == [(1, 1), (3, None)]


def test_a_table_that_others_refer_to_may_change(path):
    execute(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE TABLE child (t REFERENCES t (id) ON DELETE CASCADE)",
        "INSERT INTO child VALUES (1)",
    )
    assert write(path, [{"id": 2, "v": "x"}]) == []
    assert read(path) == [(1, "1"), (2, "x")]
    assert read(path, "SELECT * FROM child") == [(1,)]


@pytest.mark.parametrize(
    ("definition", "bad", "message"),
    [
        ("v CHECK (json_extract(v, '$.x') > 0)", "no", "malformed JSON"),
        ("v, g AS (abs(v))", -(2**63), "integer overflow"),
        ("v); CREATE INDEX i ON t (json_extract(v, '$.x')", "no", "malformed JSON"),
    ],
)
def test_a_row_for_which_the_table_cannot_compute_is_refused_alone(path, definition, bad, message):
    execute(path, *f"CREATE TABLE t (id INT, {definition})".split("; "))
    good = '{"x": 1}' if type(bad) is str else -5
    refusals = write(path, [{"id": 1, "v": good}, {"id": 2, "v": bad}, {"id": 3, "v": good}])
    assert [(one.row, one.message) for one in refusals] == [(1, message)]
    assert read(path, "SELECT id FROM t") == [(1,), (3,)]


def test_rows_of_one_record_are_refused_together(path):
    rows = [{"id": 1}, {"id": 2}, {"id": 2}, {"id": 1}, {"id": 3}, {"id": 3}, {"id": 4}, {"id": 5}]
    refusals = write(path, rows, key=("id",), groups=[0, 0, 1, 1, 2, 2, 3, 4])
    assert [refusal.row for refusal in refusals] == [2, 3, 4, 5]
    assert read(path) == [(1,), (2,), (4,), (5,)]
    rows = [{"id": 6}, {"id": 7, "ID": 1}, {"id": 8}, {"id": 1}, {"id": 9}]
    refusals = write(path, rows, key=("id",), groups=[0, 0, 1, 2, 2])
    assert [(refusal.row, refusal.message.split()[0]) for refusal in refusals] == [
        (0, "fields"),
        (1, "fields"),
        (3, "UNIQUE"),
        (4, "UNIQUE"),
    ]
    assert read(path) == [(1,), (2,), (4,), (5,), (8,)]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.booleans(), min_size=12))
def test_refusals_are_those_of_one_row_after_the_other(tmp_path_factory, ids, cuts):
    path = str(tmp_path_factory.mktemp("one") / "out.db")
    groups = list(accumulate(map(int, cuts[: len(ids)])))
    there: set[int] = set()
    refused = []
    for _, members in groupby(range(len(ids)), key=groups.__getitem__):
        rows = list(members)
        values = [ids[row] for row in rows]
        if len({*values}) < len(values) or there.intersection(values):
            refused += rows
        else:
            there.update(values)
    refusals = write(path, [{"id": value} for value in ids], key=("id",), groups=groups)
    assert [refusal.row for refusal in refusals] == refused


def test_a_constraint_that_undoes_everything_ends_the_run(path):
    undoes = "SELECT RAISE(ROLLBACK, 'no') WHERE NEW.v = 3"
    execute(path, "CREATE TABLE t (v)", f"CREATE TRIGGER u BEFORE INSERT ON t BEGIN {undoes}; END")
    with pytest.raises(SinkError, match="no"):
        write(path, [{"v": 1}], [{"v": 2}, {"v": 3}])
    assert read(path) == [(1,)]


def test_replace_takes_the_place_at_the_end(path):
    execute(
        path, "CREATE TABLE t (old)", "INSERT INTO t VALUES (1)", "CREATE VIEW w AS SELECT 1 FROM t"
    )
    sink = SqliteSink(path, table="t", mode="replace", key=("id",))
    sink.open()
    assert [refusal.row for refusal in load(sink, [{"id": 1}, {"id": 1}])] == [1]
    load(sink, [{"id": 2, "none": None}])
    assert read(path) == [(1,)]
    assert sink.finish(succeeded=True, ended=True)
    assert read(path) == [(1,), (2,)]
    assert len(write(path, [{"id": 2}], key=("id",))) == 1
    assert {name for (name,) in read(path, "SELECT name FROM sqlite_schema")} == {"t", "w"}


def test_a_replacement_that_fails_leaves_no_trace(path):
    write(path, [{"a": 1}])
    sink = SqliteSink(path, table="t", mode="replace", key=())
    sink.open()
    load(sink, [{"b": 2}])
    assert not sink.finish(succeeded=False, ended=True)
    assert read(path, "SELECT name FROM sqlite_schema") == [("t",)]
    assert read(path) == [(1,)]


def test_a_replacement_that_was_killed_is_cleared_away(path):
    execute(path, 'CREATE TABLE "t.asyncbatch-new" (stale)')
    write(path, [{"a": 1}], mode="replace")
    assert read(path) == [(1,)]
    assert read(path, "SELECT name FROM sqlite_schema") == [("t",)]


def test_replacing_by_nothing(path):
    write(path, mode="replace")
    assert read(path, "SELECT name FROM sqlite_schema") == []
    write(path, [{"a": 1}])
    write(path, mode="replace")
    assert read(path) == []
    assert types(path) == {"a": "INTEGER"}


def test_names_that_differ_only_in_case(path):
    refusals = write(path, [{"id": 1, "ID": 2}, {"id": 3, "ID": None}, {"id": 4}], [{"Id": 5}])
    assert [(refusal.row, refusal.message) for refusal in refusals] == [
        (0, "fields 'id' and 'ID' have the same name in a table"),
        (0, "fields 'id' and 'Id' have the same name in a table"),
    ]
    assert read(path) == [(3,), (4,)]


def test_one_field_may_fill_a_column_of_another_case(path):
    execute(path, "CREATE TABLE t (Name TEXT)")
    assert write(path, [{"name": "a"}], [{"name": "b", "É": 1, "é": 2}]) == []
    assert read(path) == [("a", None, None), ("b", 1, 2)]
    (refusal,) = write(path, [{"name": "c", "Name": "d"}, {"Name": "e"}])
    assert refusal.row == 0
    assert read(path, "SELECT Name FROM t") == [("a",), ("b",), ("e",)]


def test_names_that_cannot_be(path):
    (refusal,) = write(path, [{"a\0b": 1, "c": 1}, {"c": 2, "": 3}])
    assert (refusal.row, refusal.message) == (
        0,
        r"field 'a\x00b': SQLite does not allow a NUL character in a name",
    )
    assert read(path) == [(2, 3)]


def test_too_many_columns(path):
    wide = {f"f{number}": 1 for number in range(2000)}
    assert write(path, [wide]) == []
    (refusal,) = write(path, [{"f0": 2}, {"f0": 3, "more": 1}])
    assert (refusal.row, refusal.message) == (
        1,
        "field 'more': the table already has 2,000 columns",
    )
    assert read(path, "SELECT f0 FROM t") == [(1,), (2,)]


@pytest.mark.parametrize("table", ["", "sqlite_x", "SQLITE_stat1", "a\0b"])
def test_table_names_that_cannot_be(path, table):
    with pytest.raises(UsageError, match="is not a valid table name for SQLite"):
        write(path, table=table)
    assert not os.path.exists(path)


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_view_is_no_table(path, mode):
    execute(path, "CREATE VIEW t AS SELECT 1")
    with pytest.raises(UsageError, match="t is a view, not a table"):
        write(path, mode=mode)


def test_paths_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("no database, but long enough to be looked at as one " * 99)
    for name, reason in (
        ("missing/x.db", "check that its folder exists"),
        ("", "it is a folder"),
        ("file", "the file has other content; name another file"),
    ):
        with pytest.raises(UsageError, match=rf"cannot use {tmp_path}.*{reason}"):
            write(os.path.join(tmp_path, name))
    assert os.listdir(tmp_path) == ["file"]


def test_a_database_that_may_only_be_read(path):
    write(path, [{"a": 1}])
    # SQLite refuses to write a database that needs a newer version of SQLite.
    with open(path, "r+b") as file:
        file.seek(18)
        file.write(b"\x03\x02")
    with pytest.raises(UsageError, match="check the permissions"):
        write(path, [{"a": 2}])


def test_a_locked_database(path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    write(path, [{"a": 1}])
    sink = SqliteSink(path, table="t", mode="append", key=())
    sink.open()
    holder = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
    holder += "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UsageError, match="another process has locked it"):
            write(path)
        with pytest.raises(SinkError, match="another process has locked it"):
            load(sink, [{"a": 2}])
        process.communicate()
    assert sink.finish(succeeded=False, ended=False)
    assert read(path) == [(1,)]


def test_a_lock_at_the_end_does_not_matter_to_rows(path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    sink = SqliteSink(path, table="t", mode="append", key=())
    sink.open()
    load(sink, [{"a": 1}])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert sink.finish(succeeded=True, ended=True)
    assert read(path) == [(1,)]


FULL_DISK = """
import resource, sys
from asyncbatch.errors import SinkError
from asyncbatch.sinks.columns.block import make_block
from asyncbatch.sinks.databases.sqlite import SqliteSink
sink = SqliteSink(sys.argv[1], table="t", mode="append", key=())
sink.open()
sink.load(make_block([{"a": "kept"}]))
sink.commit()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    sink.load(make_block([{"a": "x" * 1000}] * 1000))
    sink.commit()
except SinkError as error:
    print(error)
sink.finish(succeeded=False, ended=False)
"""


def test_a_full_disk(path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    finished = python(f"import sys; sys.argv.append({path!r})\n{FULL_DISK}")
    assert f"cannot write {path}: " in finished.stdout, finished.stderr
    assert "is full" in finished.stdout or "disk failed" in finished.stdout
    assert read(path) == [("kept",)]


def test_a_table_that_another_process_changes_meanwhile(path):
    sink = SqliteSink(path, table="t", mode="append", key=())
    sink.open()
    load(sink, [{"a": 1}])
    write(path, [{"a": "x", "b": 1}])
    load(sink, [{"a": EXACT + 1, "b": "y"}])
    sink.finish(succeeded=True, ended=True)
    assert read(path) == [("1", None), ("x", "1"), (str(EXACT + 1), "y")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE t RENAME COLUMN v TO w", [(1, "a", None), (2, None, "b")]),
        ("ALTER TABLE t DROP COLUMN v", [(1, None), (2, "b")]),
    ],
)
def test_a_column_that_another_process_takes_away_comes_again(path, change, expected):
    sink = SqliteSink(path, table="t", mode="append", key=())
    sink.open()
    load(sink, [{"id": 1, "v": "a"}])
    execute(path, change)
    load(sink, [{"id": 2, "v": "b"}])
    sink.finish(succeeded=True, ended=True)
    assert read(path) == expected
    assert read(path, "SELECT id, v FROM t")[-1] == (2, "b")


def test_a_table_that_another_process_drops_ends_the_run(path):
    sink = SqliteSink(path, table="t", mode="append", key=())
    sink.open()
    load(sink, [{"id": 1}])
    execute(path, "DROP TABLE t")
    with pytest.raises(SinkError, match="another program has dropped table t"):
        load(sink, [{"id": 2}])
    sink.finish(succeeded=True, ended=True)


def test_loads_may_come_from_any_thread(path):
    sink = SqliteSink(path, table="t", mode="append", key=())
    sink.open()
    for number in range(3):
        thread = threading.Thread(target=load, args=(sink, [{"a": number}]))
        thread.start()
        thread.join()
    sink.finish(succeeded=True, ended=True)
    assert read(path) == [(0,), (1,), (2,)]


NAMES = st.one_of(
    TEXTS,
    st.sampled_from(
        ['"', "'; DROP TABLE t; --", 'a"b', "select", "rowid", "oid", "[x]", "`", "?1"]
    ),
)


@settings(max_examples=50)
@given(NAMES, st.dictionaries(NAMES, st.integers(0, 9) | TEXTS, min_size=1, max_size=4))
def test_any_name_works_or_is_refused(tmp_path_factory, table, row):
    path = str(tmp_path_factory.mktemp("names") / "out.db")
    execute(path, "CREATE TABLE bystander (a)", "INSERT INTO bystander VALUES (1)")
    try:
        refusals = write(path, [row], [row | {"_later": "x"}], table=table)
    except UsageError:
        return
    quoted = table.replace('"', '""')
    found = read(path, f'SELECT * FROM "{quoted}"') if len(refusals) < 2 else []
    assert len(found) == 2 - len(refusals)
    if not refusals:
        assert found == [(*row.values(), None), (*row.values(), "x")]
    assert read(path, "SELECT * FROM bystander") == [(1,)]


@settings(max_examples=50)
@given(PLAIN_ROWS)
def test_rows_come_back_as_they_went_in(tmp_path_factory, rows):
    path = str(tmp_path_factory.mktemp("rows") / "out.db")
    block = make_block([{"_": 1, **row} for row in rows])
    assert write(path, [{"_": 1, **row} for row in rows]) == []
    if not rows:
        return
    with closing(sqlite3.connect(path)) as connection:
        cursor = connection.execute("SELECT * FROM t")
        found = cursor.fetchall()
    declared = dict(read(path, "SELECT name, type FROM pragma_table_info('t')"))
    names = [entry[0] for entry in cursor.description]
    kinds = zip(block.names, block.kinds, strict=True)
    assert names == [name for name, kind in kinds if kind != "null"]
    for row, values in zip(rows, found, strict=True):
        for name, value in zip(names[1:], values[1:], strict=True):
            is_boolean = declared[name] == "BOOLEAN" and value is not None
            assert is_held(bool(value) if is_boolean else value, row.get(name)), name


@settings(max_examples=50)
@given(PLAIN_ROWS, st.integers(1, 4))
def test_values_are_the_same_however_rows_are_split(tmp_path_factory, rows, size):
    rows = [{"_": number, **row} for number, row in enumerate(rows)]
    folder = tmp_path_factory.mktemp("split")
    whole, split = str(folder / "whole.db"), str(folder / "split.db")
    write(whole, rows)
    write(split, *(rows[start : start + size] for start in range(0, len(rows), size)))
    if not rows:
        return
    query = "SELECT {} FROM t ORDER BY _".format(
        ", ".join(f'"{name}"' for name in make_block(rows).names)
    )
    for one, other in zip(read(whole, query), read(split, query), strict=True):
        assert repr(one) == repr(other)


@pytest.mark.parametrize("contract", ["evolve", "freeze"])
@pytest.mark.parametrize("rows", ["1", "100"])
def test_values_for_a_generated_column_are_refused(run, tmp_path, contract, rows):
    with closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.execute("CREATE TABLE t (n INTEGER, made INTEGER AS (n * 2), kept AS (n) STORED)")
    lines = ['{"n": 1}', '{"n": 2, "made": 4}', '{"n": 3, "KEPT": 1}', '{"n": 4, "made": null}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    finished = run(
        *("in.jsonl", "--to", "sqlite:///x.db", "--table", "t", "--output", "json"),
        *("--schema-contract", contract, "--load-batch", rows),
    )
    failures = finished.json["failures"]
    assert [failure["record"] for failure in failures] == [2, 3]
    assert all("generates the values" in failure["message"] for failure in failures)
    with closing(sqlite3.connect(tmp_path / "x.db")) as database:
        assert database.execute("SELECT n, made FROM t").fetchall() == [(1, 2), (4, 8)]
