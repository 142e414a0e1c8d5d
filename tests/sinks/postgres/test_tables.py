"""PostgreSQL tables: the rules of all tables, and lost connections."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing, suppress
from urllib.parse import quote_plus

import asyncpg
import pytest

from asyncbatch.core.secrets import redact_address, redact_text
from asyncbatch.core.settings import ServerSettings
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.base import Refusal
from asyncbatch.sinks.column_block import make_block
from asyncbatch.sinks.postgres.sink import PostgresSink
from tests.conftest import COMMAND, PATIENCE, environment, python
from tests.processes import wait_until
from tests.servers.postgres import PASSWORD


def types(sql, table="t"):
    query = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
    where = f"WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    return dict(sql(f"{query} {where} ORDER BY attnum"))


def messages(report):
    return [failure["message"] for failure in report["failures"]]


def write(url, *blocks, mode="append", key=(), table="t", groups=None):
    """Load blocks of rows with the sink; return all refusals."""
    sink = PostgresSink(url, table=table, mode=mode, key=key)
    sink.open()
    refusals: list[Refusal] = []
    try:
        for rows in blocks:
            refusals += sink.load(make_block(rows), groups)
            sink.commit()
    finally:
        sink.finish(succeeded=True, ended=True)
    return refusals


def test_a_table_is_made_of_the_records(load, sql):
    records = [
        {"id": 1, "x": 0.5, "ok": True, "name": "é", "tags": ["a"], "big": 5, "mixed": 1},
        {"id": 2, "x": 1, "ok": False, "name": "", "big": 2**64, "mixed": "a", "none": None},
        {"id": 2**63 - 1, "x": -1e300, "tags": {"k": [1.5, 2**70]}, "mixed": [1]},
    ]
    report = load(records)
    assert (report["exit_code"], report["records"]["written"]) == (0, 3)
    assert types(sql) == {
        "id": "bigint",
        "x": "double precision",
        "ok": "boolean",
        "name": "text",
        "tags": "jsonb",
        "big": "numeric",
        "mixed": "text",
    }
    assert sql("SELECT id, x, ok, name, big::text, mixed, tags::text FROM t ORDER BY id") == [
        (1, 0.5, True, "é", "5", "1", '["a"]'),
        (2, 1.0, False, "", str(2**64), "a", None),
        (2**63 - 1, -1e300, None, None, None, "[1]", '{"k": [1.5, 1180591620717411303424]}'),
    ]


def test_columns_widen_as_values_come(url, sql):
    records = [
        {"a": True, "b": 1, "c": 2**53 + 1, "d": 1.0, "e": None, "f": 0.1, "g": 1},
        {"a": 7, "b": 1.5, "c": 0.5, "d": "x", "e": {"k": 1}, "f": 2**70, "g": 1},
        {"a": False, "b": 2, "c": 1, "d": 2.5, "e": "text", "f": 0.2, "g": [1]},
    ]
    assert write(url, *([record] for record in records)) == []
    assert types(sql) == {
        "a": "text",
        "b": "double precision",
        "c": "numeric",
        "d": "text",
        "f": "numeric",
        "g": "text",
        "e": "text",
    }
    assert sql("SELECT a, b, c::text, d, e::text, f::text, g FROM t") == [
        ("true", 1.0, str(2**53 + 1), "1", None, "0.1", "1"),
        ("7", 1.5, "0.5", "x", '{"k": 1}', str(2**70), "1"),
        ("false", 2.0, "1", "2.5", "text", "0.2", "[1]"),
    ]


TIMES = ["2026-01-01T12:00:00Z", "2026-01-01T12:00:00.5+05:30", None, "1999-12-31T23:59:59.123456Z"]


def test_times_with_a_zone_are_timestamptz(load, sql):
    fields = {"day": "2026-01-01", "local": "2026-01-01T12:00:00"}
    records = [
        {"id": f"2026-01-01T12:00:0{number}Z", "at": time, "n": [time], **fields}
        for number, time in enumerate(TIMES)
    ]
    assert load(records, "--key", "id")["exit_code"] == 0
    assert types(sql) == {
        "id": "text",
        "at": "timestamp with time zone",
        "day": "text",
        "local": "text",
        "n": "jsonb",
    }
    query = "SELECT (at AT TIME ZONE 'UTC')::text FROM t ORDER BY id"
    assert sql(query) == [
        ("2026-01-01 12:00:00",),
        ("2026-01-01 06:30:00.5",),
        (None,),
        ("1999-12-31 23:59:59.123456",),
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["soon"], "soon"),
        ([TIMES[0], "2026-02-30T00:00:00Z"], "2026-02-30T00:00:00Z"),
        (["2026-01-01T00:00:60Z"], "2026-01-01T00:00:60Z"),
        (["2026-01-01T00:00:00.1234567Z"], "2026-01-01T00:00:00.1234567Z"),
        ([5], "5"),
        ([{"at": 1}], '{"at":1}'),
        ([TIMES[0], 1.5], "1.5"),
        (["2026-01-01 00:00:00"], "2026-01-01 00:00:00"),
    ],
)
def test_a_column_of_times_becomes_text_if_something_else_comes(load, sql, values, text):
    load([{"at": time} for time in TIMES])
    assert types(sql) == {"at": "timestamp with time zone"}
    report = load([{"at": value} for value in values], name="b.jsonl")
    assert (report["exit_code"], report["records"]["written"]) == (0, len(values))
    assert types(sql) == {"at": "text"}
    found = [value for (value,) in sql("SELECT at FROM t")]
    assert text in found
    assert set(found) >= {
        "2026-01-01T12:00:00Z", "2026-01-01T06:30:00.500Z", None, "1999-12-31T23:59:59.123456Z",
    }  # fmt: skip
    load([{"at": TIMES[0]}], name="c.jsonl")
    assert types(sql) == {"at": "text"}


def test_a_column_of_times_that_is_none_of_ours_refuses_what_is_no_time(load, sql):
    sql("CREATE TABLE t (at timestamptz); SELECT 1")
    report = load([{"at": TIMES[0]}, {"at": "2026-01-01 12:00+00"}, {"at": "soon"}])
    assert [failure["record"] for failure in report["failures"]] == [3]
    assert types(sql) == {"at": "timestamp with time zone"}


def test_new_columns_may_be_of_times(url, sql):
    assert write(url, [{"id": 1}], [{"id": 2, "at": TIMES[0]}], [{"id": 3, "at": TIMES[3]}]) == []
    assert types(sql)["at"] == "timestamp with time zone"
    assert write(url, [{"id": 4, "at": None}], [{"id": 5, "at": "x"}, {"id": 6, "at": 1}]) == []
    found = [None, TIMES[0], TIMES[3], None, "x", "1"]
    assert [at for (at,) in sql("SELECT at FROM t ORDER BY id")] == found


def test_integers_of_thousands_of_digits_arrive(load, sql):
    load([{"n": 10**4000 + 1}, {"n": -5}])
    assert sql("SELECT n = 10::numeric ^ 4000 + 1 OR n = -5 FROM t") == [(True,)] * 2


def test_rows_of_a_key_are_replaced_and_the_last_wins(load, sql):
    load([{"a": 1, "b": "x", "v": 1, "w": 1}, {"a": 1, "b": "y", "v": 2}], "--key", "a,b")
    report = load(
        [{"a": 1, "b": "x", "v": 3}, {"a": 1, "b": "x", "v": 4}, {"a": 2, "b": "x", "v": 5}],
        *("--key", "a,b"),
        name="more.jsonl",
    )
    assert report["records"]["written"] == 3
    rows = [(1, "x", 4, None), (1, "y", 2, None), (2, "x", 5, None)]
    assert sql("SELECT a, b, v, w FROM t ORDER BY a, b") == rows


def test_keys_that_only_the_server_takes_for_one_replace_each_other_too(load, sql):
    sql("CREATE TABLE t (day date PRIMARY KEY, v bigint); SELECT 1")
    days = [
        {"day": "2026-01-01", "v": 1},
        {"day": "20260101", "v": 2},
        {"day": "Jan 1, 2026", "v": 3},
    ]
    assert load(days, "--key", "day")["exit_code"] == 0
    assert sql("SELECT day::text, v FROM t") == [("2026-01-01", 3)]


def test_tables_that_take_no_copies_take_rows_of_a_key(server, database, load, sql):
    """A table with row policies allows no COPY; superusers bypass the policies."""
    sql(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY all_rows ON t USING (true); CREATE ROLE plain LOGIN;"
        " GRANT ALL ON t TO plain; GRANT CREATE ON SCHEMA public TO plain"
    )
    to = f"postgresql://plain@127.0.0.1:{server.port}/{database}"
    assert load([{"id": 1, "v": "a"}, {"id": 1, "v": "b"}], "--key", "id", to=to)["exit_code"] == 0
    assert sql("SELECT * FROM t") == [(1, "b")]


def test_new_keys_before_and_behind_known_ones_are_loaded(load, sql):
    """Rows copied before the first existing key, and staged rows after it, all arrive."""
    load([{"id": 500, "v": 0}, {"id": 700, "v": 0}], "--key", "id")
    records = [{"id": number, "v": number} for number in (*range(1000), 3, 999)]
    records[-2:] = [{"id": 3, "v": -3}, {"id": 999, "v": -9}]
    options = ("--key", "id", "--load-batch", "150")
    assert load(records, *options, name="more.jsonl")["records"]["written"] == 1002
    expected = [(number, {3: -3, 999: -9}.get(number, number)) for number in range(1000)]
    assert sql("SELECT id, v FROM t ORDER BY id") == expected


def test_several_loads_share_a_transaction(run, sql, url, tmp_path):
    expected = _inputs(tmp_path)
    run("in", "--to", url, "--table", "t", "--load-batch", "100", "-w", "0")
    assert sql("SELECT id FROM t ORDER BY id") == expected
    (counts,) = sql("SELECT count(*), count(DISTINCT xmin::text) FROM asyncbatch_ledger")
    assert counts[0] == 30
    assert counts[1] < 30


def test_a_table_that_lacks_an_index_for_its_key_gets_one(load, sql):
    sql("CREATE TABLE t (id bigint, v bigint); INSERT INTO t VALUES (1, 1)")
    assert load([{"id": 1, "v": 2}], "--key", "id")["exit_code"] == 0
    assert sql("SELECT * FROM t") == [(1, 2)]


def test_appending_refuses_rows_whose_key_is_there(load, sql, tmp_path):
    load([{"id": 1}, {"id": 2}], "--key", "id", "--mode", "append")
    report = load(
        [{"id": 3}, {"id": 2}, {"id": 4}],
        *("--key", "id", "--mode", "append", "--dead-letter", "bad.jsonl"),
        name="more.jsonl",
    )
    (message,) = messages(report)
    assert "Key (id)=(2) already exists. (SQLSTATE 23505)" in message
    assert report["failures"][0]["record"] == 2
    assert '"id":2' in (tmp_path / "bad.jsonl").read_text().replace(" ", "")
    assert sql("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,), (4,)]


def test_a_replacement_is_there_when_the_run_succeeds_and_not_before(load, sql):
    load([{"id": 1}])
    report = load([{"id": 2}, {"id": "\0"}], "--mode", "replace", name="b.jsonl")
    assert report["exit_code"] == 1
    assert sql("SELECT id FROM t") == [(1,)]
    assert sql("SELECT count(*) FROM pg_class WHERE relname LIKE '%asyncbatch-new%'") == [(0,)]
    assert load([{"name": "x"}], "--mode", "replace", name="c.jsonl")["exit_code"] == 0
    assert sql("SELECT * FROM t") == [("x",)]
    assert types(sql) == {"name": "text"}


def test_a_table_that_a_view_needs_is_not_replaced(run, files, sql, url):
    sql("CREATE TABLE t (id bigint); CREATE VIEW v AS SELECT id FROM t")
    files({"a.json": '{"id": 1}'})
    finished = run("a.json", "--to", url, "--table", "t", "--mode", "replace")
    assert finished.code == 2
    assert "other objects depend on it (v)" in finished.stderr


def test_what_the_server_refuses_is_told_and_the_rest_is_loaded(load, sql):
    sql("CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL CHECK (v < 5)); SELECT 1")
    records: list[dict[str, int | None]] = [{"id": n, "v": n % 4} for n in range(200)]
    records[17] |= {"v": 9}
    records[18] |= {"v": None}
    records[150]["id"] = 3
    report = load(records)
    codes = ["23514", "23502", "23505"]
    assert [message[-6:-1] for message in messages(report)] == codes
    assert [failure["record"] for failure in report["failures"]] == [18, 19, 151]
    assert sql("SELECT count(*) FROM t") == [(197,)]


def test_text_that_postgres_cannot_hold_is_refused(load, sql):
    records = [{"a": "x"}, {"a": "nul\0"}, {"a": "y", "b": ["\0"]}, {"a": "z", "b": []}]
    report = load(records)
    assert all("does not allow a NUL character" in message for message in messages(report))
    assert [failure["record"] for failure in report["failures"]] == [2, 3]
    assert sql("SELECT a FROM t") == [("x",), ("z",)]


def test_names_that_cannot_be_kept_are_refused_not_cut(load, sql):
    long = "é" * 31 + "xx"
    records = [{long[:-1]: 1}, {long: 1}, {"": 1}, {"ctid": 1}, {"n\0": 1}, {'"; DROP': 2}]
    report = load(records)
    assert [failure["record"] for failure in report["failures"]] == [2, 3, 4, 5]
    assert "its name has 64 bytes" in messages(report)[0]
    assert list(types(sql)) == [long[:-1], '"; DROP']


def test_there_are_no_more_columns_than_postgres_has_room_for(load, sql):
    records = [{f"c{n}": 1 for n in range(800)}, {f"c{n}": 1 for n in range(800, 1601)}, {"c0": 2}]
    report = load(records, "--load-batch", "1")
    assert ["already has 1,600 columns" in message for message in messages(report)] == [True]
    assert sql("SELECT c0 FROM t") == [(1,), (2,)]


def test_columns_of_other_types_take_what_they_can(load, sql):
    sql(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE t (day date, small smallint,"
        " short varchar(3), price numeric(5, 2), uid uuid, mood mood, list int[], made bigint"
        " GENERATED ALWAYS AS (small * 2) STORED, j jsonb, at timestamptz, n int)"
    )
    good = {
        "day": "2026-02-03", "small": 7.0, "short": "abc", "price": 12.5, "n": 1.0,
        "uid": "6f1c2a36-6c54-4f8e-9c39-0d8f8f8f8f8f", "mood": "bad", "list": "{1,2}",
        "j": "text", "at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    bad = [
        {"day": "soon"}, {"small": 70000}, {"short": "abcd"}, {"price": 1.005}, {"uid": "x"},
        {"mood": "so so"}, {"small": 1.5}, {"made": 3}, {"price": 12345},
    ]  # fmt: skip
    report = load([good, *bad, {"j": {"k": 1}}, {"j": 5}])
    assert [failure["record"] for failure in report["failures"]] == list(range(2, 11))
    told = messages(report)
    assert "would round 1.005" in told[3]
    assert "22001" in told[2]
    assert "generates the values" in told[7]
    found = sql("SELECT day::text, small, short, price::text, mood::text, list, made, n FROM t")
    assert found[0] == ("2026-02-03", 7, "abc", "12.50", "bad", [1, 2], 14, 1)
    assert sql("SELECT j::text FROM t") == [('"text"',), ('{"k": 1}',), ("5",)]


def test_rows_of_one_record_are_refused_together(url, sql):
    rows = [{"id": 1}, {"id": 2}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 1}]
    refusals = write(url, rows, key=("id",), groups=[0, 1, 2, 2, 3, 3])
    assert [refusal.row for refusal in refusals] == [2, 3, 4, 5]
    assert sql("SELECT id FROM t") == [(1,), (2,)]


def test_rows_without_any_value_count(url, sql):
    refusals = write(url, [{}], [{"a": None}], [{}, {}], [{"a": 1}])
    assert [refusal.row for refusal in refusals] == [0]
    assert sql("SELECT a FROM t") == [(None,), (None,), (None,), (1,)]
    assert types(sql) == {"a": "bigint"}


def test_tables_may_be_in_a_schema(load, sql):
    sql("CREATE SCHEMA sales; SELECT 1")
    load([{"id": 1}], table="sales.people")
    load([{"id": 2}], "--mode", "replace", table="sales.people", name="b.jsonl")
    assert sql("SELECT * FROM sales.people") == [(2,)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--table", "é" * 32), "its name has 64 bytes"),
        (("--table", ""), "needs --table"),
        (("--table", "t", "--key", "xmin"), "cannot be the key"),
        (("--table", "a_view"), "is not a table, but a view"),
        (("--table", "pg_class"), "a system table of the server"),
        (("--table", "twice", "--key", "id"), "cannot be the key"),
        (("--table", "twice", "--key", "other"), "lacks these columns of the key: other"),
        (("--table", "t", "--ledger", "x.ledger"), "keeps its own"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_read(  # noqa: PLR0917 - all by their names
    run, files, sql, url, options, told
):
    sql(
        "CREATE TABLE twice (id int); INSERT INTO twice VALUES (1), (1);"
        " CREATE VIEW a_view AS SELECT 1"
    )
    files({"a.json": '{"id": 1}'})
    finished = run("a.json", "--to", url, *options)
    assert finished.code == 2
    assert told in finished.stderr


def test_without_the_library_it_is_told_what_to_install(url):
    finished = python(
        "import sys; sys.modules['asyncpg'] = None\n"
        "from asyncbatch.sinks.postgres.sink import PostgresSink\n"
        f"PostgresSink({url!r}, table='t', mode='append', key=()).open()"
    )
    assert "pip install 'asyncbatch[postgres]'" in finished.stderr


@pytest.mark.parametrize(
    ("query", "settings", "expected"),
    [
        ("", None, ("asyncbatch", "10min")),
        ("?statement_timeout=7min", None, ("asyncbatch", "7min")),
        (
            "?statement_timeout=7min",
            ServerSettings(statement_timeout=1.5),
            ("asyncbatch", "1500ms"),
        ),
        ("", ServerSettings(name="asyncbatch x"), ("asyncbatch x", "10min")),
        ("?application_name=x", ServerSettings(name="asyncbatch x"), ("x", "10min")),
    ],
)
def test_sessions_say_who_they_are_and_end_long_statements(url, query, settings, expected):
    sink = PostgresSink(f"{url}{query}", table="t", mode="append", key=(), settings=settings)
    sink.open()
    asked = "SELECT current_setting('application_name'), current_setting('statement_timeout')"
    assert tuple(sink._server.fetch(asked)[0]) == expected
    sink.finish(succeeded=True, ended=True)


PIPELINE = """
name = "people"
[[source]]
type = "files"
paths = ["in"]
[[transform]]
type = "call"
function = "slow.py:slow"
[sink]
to = "URL"
table = "t"
key = ["id"]
batch_size = 150
"""


def _etl(folder, url, more):
    (folder / "slow.py").write_text(SLOW)
    (folder / "p.toml").write_text(PIPELINE.replace("URL", url) + more)
    return subprocess.Popen(
        [*COMMAND, "etl", "p.toml", "--output", "json"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_pipeline_file_says_how_many_connections_there_are(sql, server, url, tmp_path):
    expected = _inputs(tmp_path)
    (tmp_path / "hold").write_text("3000")
    process = _etl(tmp_path, url, "pool = { min = 3, max = 3 }")
    ours = "FROM pg_stat_activity WHERE application_name = 'asyncbatch people'"

    def count():
        [(found,)] = server.execute(f"SELECT count(*) {ours}")
        return found

    wait_until(lambda: count() == 3, running=process)
    (tmp_path / "hold").unlink()
    seen = [3]
    while process.poll() is None:
        seen.append(count())
    assert process.returncode == 0, process.communicate()
    process.communicate()
    assert max(seen) == 3
    assert sql("SELECT id FROM t ORDER BY id") == expected


def test_a_statement_that_takes_too_long_ends_the_run(sql, url, tmp_path):
    _inputs(tmp_path, files=2)
    sql("CREATE TABLE t (id bigint PRIMARY KEY, v text); SELECT 1")

    async def run():
        other = await asyncpg.connect(url)
        await other.execute("BEGIN; LOCK TABLE t")
        process = _etl(tmp_path, url, 'statement_timeout = "300ms"')
        stdout, _ = await asyncio.to_thread(process.communicate)
        await other.close()
        return process.returncode, json.loads(stdout)

    code, report = asyncio.run(run())
    assert code == 1
    expected = (
        "statement timeout (SQLSTATE 57014); the limit is 300ms: set statement_timeout in [sink]"
    )
    assert expected in str(report)
    assert sql("SELECT * FROM t") == []


# Again, and after a kill


def test_what_is_done_is_not_done_again(load, sql):
    load([{"id": 1}])
    again = load([{"id": 1}], "--resume")
    assert again["files"]["skipped"] == 1
    doubled = load([{"id": 1}])
    assert "in the table already" in messages(doubled)[0]
    assert sql("SELECT count(*) FROM t") == [(1,)]
    sql("DROP TABLE t; SELECT 1")
    assert load([{"id": 1}], "--resume")["records"]["written"] == 1


def test_the_ledger_is_shown_and_forgotten(server, database, load, run, sql):
    load([{"id": 1}, {"id": "x"}])
    load([{"id": 2}], table="other", name="b.jsonl")
    address = f"postgresql://loader:{quote_plus(PASSWORD)}@127.0.0.1:{server.port}/{database}"
    shown = show_ledger("show", address, "--files")
    name = f"postgresql://loader@127.0.0.1:{server.port}/{database}"
    assert shown.splitlines()[0] == name
    assert shown.count("1 success, last at") == 2
    assert "in.jsonl  2 read, 2 written" in shown
    assert show_ledger("path", address) == f"{name}\n"
    job = shown.splitlines()[1].split()[0]
    assert len(show_ledger("show", address, "--files", "--job", job).splitlines()) == 4
    assert show_ledger("clear", address, "--job", job) == "forgot 1 inputs\n"
    assert show_ledger("clear", address) == "forgot 1 inputs\n"
    assert sql("SELECT * FROM asyncbatch_ledger") == []


def test_a_ledger_of_many_inputs_is_shown_in_pages(url, files, run):
    files({f"in/{number:04}.json": "{}" for number in range(2500)})
    run("in", "--to", url, "--table", "t", "--jq", '{"id": 1}')
    assert show_ledger("show", url, "--files").count("1 read, 1 written") == 2500


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://u:s3cr3t@127.0.0.1:1/d", "cannot use postgresql://u@127.0.0.1:1/d"),
        (None, "has no ledger: no run of asyncbatch has written to it"),
    ],
)
def test_a_database_that_has_no_ledger_to_show(url, address, told):
    finished = _ledger_command("show", address or url)
    assert finished.returncode == 2
    words = " ".join(finished.stderr.replace("│", " ").split())
    assert told in words
    assert "s3cr3t" not in words


def show_ledger(*arguments):
    finished = _ledger_command(*arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _ledger_command(*arguments):
    return subprocess.run(
        [*COMMAND, "ledger", *arguments],
        check=False, capture_output=True, text=True, env=environment(), timeout=PATIENCE,
    )  # fmt: skip


def _inputs(folder, files=30, rows=200):
    """Write files of rows; return the numbers in them."""
    (folder / "in").mkdir()
    for file in range(files):
        lines = "".join(f'{{"id": {file * rows + row}, "v": "é"}}\n' for row in range(rows))
        (folder / "in" / f"{file:03}.jsonl").write_text(lines)
    return [(number,) for number in range(files * rows)]


SLOW = """
import pathlib, time

def is_held(number):
    try:
        return number >= int(pathlib.Path("hold").read_text() or 0)
    except FileNotFoundError:
        return False

def slow(record):
    while is_held(record["id"]):
        time.sleep(0.005)
    time.sleep(0.0002)
    return record
"""
"""A function for --call that waits at the number in the file `hold`, while there is one."""


def _started(folder, url, *options, call=True):
    (folder / "slow.py").write_text(SLOW)
    calls = ("--call", "slow.py:slow") if call else ()
    return subprocess.Popen(
        [*COMMAND, "run", "in", "--to", url, "--table", "t", *calls, *options],
        cwd=folder, env=environment(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_killed_at_any_instant_it_carries_on_exactly(sql, url, tmp_path, mode):
    expected = _inputs(tmp_path)
    pick = random.Random(mode)
    key = ("--key", "id") if mode == "upsert" else ()
    options = ("--mode", mode, *key, "--resume", "--load-batch", "150", "-w", "1")
    for _ in range(4):
        process = _started(tmp_path, url, *options)
        with suppress(subprocess.TimeoutExpired):
            process.wait(pick.uniform(0.4, 1.6))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = _started(tmp_path, url, *options, call=True)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert b"Traceback" not in stderr
    assert sql("SELECT id FROM t ORDER BY id") == expected


def test_a_server_that_dies_and_comes_back_costs_nothing(server, sql, url, tmp_path):
    expected = _inputs(tmp_path)
    hold = tmp_path / "hold"
    hold.write_text("2500")
    process = _started(tmp_path, url, "--load-batch", "150", "-w", "1")
    try:
        for more_than, held_at in ((0, 5000), (2500, 6000)):
            _wait_for_rows(sql, process, more_than)
            server.kill()
            hold.write_text(str(held_at))
            server.start()
    finally:
        hold.unlink()
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert b"Traceback" not in stderr
    assert sql("SELECT id FROM t ORDER BY id") == expected


def test_sessions_that_are_ended_cost_nothing(server, sql, url, tmp_path):
    expected = _inputs(tmp_path)
    (tmp_path / "hold").write_text("5000")
    process = _started(tmp_path, url, "--load-batch", "150", "-w", "1")
    ours = "FROM pg_stat_activity WHERE application_name = 'asyncbatch'"
    ended = 0
    while process.poll() is None:
        ended += len(server.execute(f"SELECT pg_terminate_backend(pid) {ours}"))
        if ended >= 3:
            (tmp_path / "hold").unlink(missing_ok=True)
        time.sleep(0.7)  # in which it goes on
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert ended >= 3
    assert sql("SELECT id FROM t ORDER BY id") == expected


def _wait_for_rows(sql, process, more_than=0):
    def has_rows():
        with suppress(asyncpg.UndefinedTableError):
            [(count,)] = sql("SELECT count(*) FROM t")
            return count > more_than
        return False

    wait_until(has_rows, running=process)


def test_a_server_that_stays_away_ends_the_run(server, url, sql, tmp_path):
    _inputs(tmp_path)
    (tmp_path / "hold").write_text("3000")
    process = _started(tmp_path, url, "--load-batch", "150", "-w", "1", "--retries", "1")
    _wait_for_rows(sql, process)
    server.kill()
    (tmp_path / "hold").unlink()
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        server.start()
    assert process.returncode == 1
    assert b"cannot write postgresql://" in stdout
    assert b"Traceback" not in stderr
    assert b"retrieved" not in stderr
    process = _started(tmp_path, url, "--resume", "--load-batch", "150", "-w", "1")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert sql("SELECT count(*), count(DISTINCT id) FROM t") == [(6000, 6000)]


class Severing:
    """A proxy of the server that breaks at commit `at`, before or after passing it on."""

    def __init__(self, port, at, *, after):
        self._port, self._at, self._after = port, at, after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.commits = 0
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        _cut(*self._sockets)
        for one in self._sockets:
            one.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, upstream]
                is_cut = threading.Event()
                for carry in (self._up, self._down):
                    threading.Thread(
                        target=carry, args=(client, upstream, is_cut), daemon=True
                    ).start()

    def _up(self, client, upstream, is_cut):
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if b"Q\0\0\0\x0bCOMMIT\0" in data:
                    self.commits += 1
                    if self.commits == self._at:
                        if self._after:
                            is_cut.set()
                            upstream.sendall(data)
                            return
                        break
                upstream.sendall(data)
        _cut(client, upstream)

    def _down(self, client, upstream, is_cut):
        # Only this task reads from the server: two readers would race for the answer.
        with suppress(OSError):
            while (data := upstream.recv(1 << 16)) and not is_cut.is_set():
                client.sendall(data)
        _cut(client, upstream)


def _cut(*sockets):
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("mode", "at", "after"),
    [
        *(("append", 2, True), ("append", 2, False)),
        *(("replace", 2, True), ("replace", 2, False)),
        *(("replace", 3, True), ("replace", 3, False)),
    ],
)
def test_a_commit_whose_answer_is_lost_is_looked_for(  # noqa: PLR0917 - all by their names
    server, url, run, tmp_path, mode, at, after
):
    """`open` makes the first commit; the last one of a replacement swaps the tables."""
    expected = _inputs(tmp_path, files=3)
    database = url.rpartition("/")[2]
    with closing(Severing(server.port, at, after=after)) as way:
        finished = run(
            *("in", "--to", server.url(database, way.port), "--table", "t", "--mode", mode),
            *("--load-batch", "200", "-w", "0"),
        )
    assert finished.code == 0, finished.stderr
    assert way.commits >= at
    assert server.execute("SELECT id FROM t ORDER BY id", database) == expected


def test_two_runs_make_one_table(sql, url, tmp_path):
    expected = _inputs(tmp_path)
    both = [
        _started(
            tmp_path, url, "--shard", f"{part}/2", "--load-batch", "100", "-w", "0", call=False
        )
        for part in (1, 2)
    ]
    for process in both:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, (stdout, stderr)
    assert sql("SELECT id FROM t ORDER BY id") == expected


# Secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:p@h/d", "postgresql://u@h/d"),
        ("postgresql://u:p/w@x@h:5/d", "postgresql://u@h:5/d"),
        ("postgresql://u@h:5432/d?password=p&sslmode=require", "postgresql://u@h:5432/d?password=***&sslmode=require"),
        ("postgresql://h/d?PASS%77ord=p", "postgresql://h/d?PASS%77ord=***"),
        ("postgresql://:p@/d", "postgresql://@/d"),
        ("postgresql:///d", "postgresql:///d"),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_passwords(address, shown):
    assert redact_address(address) == shown


def test_texts_are_cleared_of_passwords():
    text = "bad: p@ss%20x and p%40ss%2520x"
    assert redact_text(text, "postgres://u:p%40ss%2520x@h") == "bad: *** and ***"


@pytest.mark.parametrize("kind", ["right", "wrong", "no server", "unescaped", "unknown"])
def test_a_password_is_never_told(  # noqa: PLR0917 - all by their names
    server, database, files, run, sql, tmp_path, kind
):
    secret = "s3cr%26t%2Fp%40ss" if kind == "right" else "s3cr%26t%2Fwr0ng"
    if kind == "unescaped":
        secret = "s3cr/wr0ng"
    port = 1 if kind == "no server" else server.port
    scheme = "mysql" if kind == "unknown" else "postgres"
    files({"a.json": '[{"id": 1}, {"id": "\\u0000"}]'})
    finished = run(
        *("a.json", "--to", f"{scheme}://loader:{secret}@127.0.0.1:{port}/{database}"),
        *("--table", "t", "--report", "r.json", "--report", "r.md", "--output", "jsonl"),
        *("--dead-letter", "bad.jsonl", "--lock"),
        env={"XDG_STATE_HOME": str(tmp_path / "state")},
    )
    assert finished.code == (1 if kind == "right" else 2)
    told = finished.stdout + finished.stderr
    told += "".join(p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file())
    if kind == "right":
        told += repr(sql("SELECT * FROM asyncbatch_ledger"))
    assert "s3cr" not in told
    assert "wr0ng" not in told
    assert kind == "right" or "@127.0.0.1" in told


def test_passwords_come_from_where_postgres_keeps_them(server, database, load, tmp_path):
    to = f"postgresql://loader@127.0.0.1:{server.port}/{database}"
    assert load([{"id": 1}], to=to, env={"PGPASSWORD": PASSWORD})["exit_code"] == 0
    keys = tmp_path / "pgpass"
    keys.write_text(f"127.0.0.1:{server.port}:*:loader:{PASSWORD}\n")
    keys.chmod(0o600)
    env = {"PGPASSFILE": str(keys)}
    assert load([{"id": 2}], to=to, env=env, name="b.jsonl")["exit_code"] == 0
    env = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGDATABASE": database,
    }
    assert load([{"id": 3}], to="postgresql://", env=env, name="c.jsonl")["exit_code"] == 0


def test_a_lost_target_is_no_use_any_more(server, url):
    sink = PostgresSink(url, table="t", mode="append", key=())
    sink.open()
    server.execute("SELECT 1")
    sink.load(make_block([{"id": 1}]))
    with pytest.raises(SinkError, match="the connection was lost"):
        _lose(sink, server, url)
    assert sink.finish(succeeded=False, ended=False)


def _lose(sink, server, url):
    """Make the server reject the loaded rows when they are loaded again."""
    name = url.rpartition("/")[2]
    server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    wait_until(lambda: server.execute(sessions) == [(0,)])
    server.execute("CREATE TABLE t (id bigint CHECK (id > 5)); SELECT 1", name)
    sink.load(make_block([{"id": 7}]))


def test_a_server_that_cannot_be_reached_is_a_usage_error():
    with pytest.raises(UsageError, match=r"cannot use postgresql://u@127\.0\.0\.1:1/d"):
        PostgresSink("postgresql://u:p@127.0.0.1:1/d", table="t", mode="append", key=()).open()
