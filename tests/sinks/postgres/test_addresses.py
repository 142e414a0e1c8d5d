"""Addresses: the parameters of libpq, and poolers of transactions, like PgBouncer."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from asyncbatch.sinks.databases.postgres.address import ServerAddress
from tests.commands import run_command
from tests.servers.pooler import Pooler
from tests.sinks.postgres.test_tables import show_ledger

RECORDS = [{"id": number, "at": "2026-01-01T00:00:00Z", "v": [number]} for number in range(500)]


@pytest.mark.parametrize(
    ("query", "settings", "seconds", "ignored"),
    [
        ("", {}, 10.0, []),
        ("?connect_timeout=3", {}, 3.0, []),
        ("?connect_timeout=0", {}, None, []),
        ("?sslmode=disable&channel_binding=require", {}, 10.0, ["channel_binding"]),
        ("?channel_binding=prefer&gssencmode=disable", {}, 10.0, []),
        ("?keepalives=1&keepalives_idle=30", {}, 10.0, ["keepalives", "keepalives_idle"]),
        ("?load_balance_hosts=random", {}, 10.0, ["load_balance_hosts"]),
        ("?fallback_application_name=x", {"application_name": "x"}, 10.0, []),
        (
            "?fallback_application_name=x&application_name=y%20z",
            {"application_name": "y z"},
            10.0,
            [],
        ),
        ("?search_path=a%2Cb", {"search_path": "a,b"}, 10.0, []),
        (
            "?options=-c%20search_path%3Da%5C%20b%20--work-mem%3D4MB",
            {"search_path": "a b", "work_mem": "4MB"},
            10.0,
            [],
        ),
        ("?options=endpoint%3Dx", {"options": "endpoint=x"}, 10.0, []),
    ],
)
def test_the_parameters_of_libpq_are_obeyed_or_told(query, settings, seconds, ignored):
    address = ServerAddress.parse(f"postgresql://u:p%40@h:5/d{query}")
    assert address[1:] == (settings, seconds, False, ignored)
    kept = "?sslmode=disable" if "sslmode" in query else ""
    assert address.dsn == f"postgresql://u:p%40@h:5/d{kept}"


@pytest.mark.parametrize("address", ["postgresql://", "postgresql:///d", "postgres:///d?user=x"])
def test_an_address_without_a_host_stays_one(address):
    assert ServerAddress.parse(address).dsn == address


@pytest.mark.parametrize("query", ["connect_timeout=soon", "gssencmode=require"])
def test_what_cannot_be_obeyed_at_all_is_refused(run, files, query):
    files({"a.json": "{}"})
    finished = run("a.json", "--to", f"postgresql://u@127.0.0.1:1/d?{query}", "--table", "t")
    assert finished.code == 2
    assert query.partition("=")[0] in finished.stderr


def test_a_copied_address_is_taken_and_what_is_not_obeyed_is_told(load, sql, url, run):
    query = "?sslmode=prefer&channel_binding=require&connect_timeout=10&keepalives_idle=5"
    query += "&options=-c%20search_path%3Dthere"
    sql("CREATE SCHEMA there; SELECT 1")
    assert load([{"id": 1}], to=url + query)["exit_code"] == 0
    assert sql("SELECT id FROM there.t") == [(1,)]
    finished = run("in.jsonl", "--to", url + query, "--table", "u")
    told = "not obeyed in the address: channel_binding, keepalives_idle"
    assert told in finished.stdout + finished.stderr


@pytest.fixture(params=[(), ("statement_timeout", "search_path")], ids=["strict", "ignoring"])
def pooler(server, request):
    """Return a pooler in front of the server, which refuses or drops settings of sessions."""
    with closing(Pooler(server.port, request.param)) as found:
        yield found


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_runs_behind_a_pooler_load_all_rows(  # noqa: PLR0917 - all by their names
    load, sql, server, database, pooler, mode
):
    to = server.url(database, pooler.port)
    key = ("--key", "id") if mode == "upsert" else ()
    options = ("--mode", mode, *key, "--load-batch", "50", "-w", "0", "--resume")
    assert load(RECORDS, *options, to=to)["records"]["written"] == 500
    more = [{"id": number, "v": "x", "own": True} for number in range(400, 900)]
    report = load(more, *options, to=to, name="more.jsonl")
    assert (report["exit_code"], report["records"]["written"]) == (0, 500)
    ids = [number for (number,) in sql("SELECT id FROM t ORDER BY id")]
    expected = {
        "append": sorted([*range(500), *range(400, 900)]),
        "upsert": list(range(900)),
        "replace": list(range(400, 900)),
    }
    assert ids == expected[mode]
    again = load(more, *options, to=to, name="more.jsonl")
    assert again["files"]["skipped"] == (mode != "replace")
    assert [number for (number,) in sql("SELECT id FROM t ORDER BY id")] == ids
    # Nothing of ours stays in the sessions, which other clients get.
    assert sql("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [(0,)]
    assert pooler.transactions > 10


def test_own_types_and_settings_behind_a_pooler(load, sql, server, database, pooler):
    sql("CREATE SCHEMA there; CREATE TABLE there.t (day date, n smallint, v varchar(3))")
    to = server.url(database, pooler.port) + "?search_path=there&statement_timeout=7min"
    report = load([{"day": "2026-01-01", "n": 1.0, "v": "abc"}, {"v": "abcd"}], to=to)
    assert report["records"]["written"] == 1
    assert sql("SELECT day::text, n, v FROM there.t") == [("2026-01-01", 1, "abc")]
    assert sql("SELECT count(*) FROM there.asyncbatch_ledger") == [(1,)]


def test_a_statement_has_its_limit_behind_a_pooler(load, sql, server, database, pooler):
    sql(
        "CREATE TABLE t (id bigint); CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;"
        " CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    to = server.url(database, pooler.port) + "?statement_timeout=200ms"
    report = load([{"id": 1}], to=to)
    assert report["exit_code"] == 1
    assert "the limit is 200ms" in str(report)


def test_a_pooler_that_hides_itself_can_be_named(load, sql, server, database):
    """A limit that is the server's own looks as if it had been obeyed."""
    sql(f"ALTER DATABASE {database} SET statement_timeout = '10min'; SELECT 1")
    with closing(Pooler(server.port, ("statement_timeout",))) as pooler:
        to = server.url(database, pooler.port) + "?pgbouncer=true"
        for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
            assert load(RECORDS, "--load-batch", "50", to=to, name=name)["exit_code"] == 0
    assert sql("SELECT count(*) FROM t") == [(1500,)]


def test_a_ledger_is_shown_behind_a_pooler(load, server, database, pooler):
    to = server.url(database, pooler.port)
    load([{"id": 1}], to=to)
    assert "1 success" in show_ledger("show", to)
    assert show_ledger("clear", to) == "forgot 1 input\n"


def test_streams_into_a_table_behind_a_pooler(server, database, sql, pooler, tmp_path):
    """The times of windows are in UTC, also in an own column without time zone."""
    sql(
        "CREATE TABLE w (window_start timestamp PRIMARY KEY, window_end timestamptz, count bigint);"
        " CREATE TABLE other (id int)"
    )
    lines = "".join(json.dumps({"time": number, "k": number % 3}) + "\n" for number in range(60))
    (tmp_path / "e.jsonl").write_text(lines)
    to = server.url(database, pooler.port)
    finished = run_command(
        "stream",
        "e.jsonl",
        "--time",
        "time",
        "--window",
        "tumbling:10s",
        "--to",
        to,
        "--table",
        "w",
        cwd=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    starts = [(f"1970-01-01 00:00:{second:02}", 10) for second in range(0, 60, 10)]
    assert sql("SELECT window_start::text, count FROM w ORDER BY 1") == starts


def test_a_pipeline_file_keeps_connections_open_behind_a_pooler(
    server, database, sql, pooler, tmp_path
):
    (tmp_path / "in.jsonl").write_text('{"id": 1}')
    (tmp_path / "p.toml").write_text(
        'name = "p"\n[[source]]\ntype = "files"\npaths = ["in.jsonl"]\n[sink]\n'
        f'to = "{server.url(database, pooler.port)}"\ntable = "t"\npool = {{ min = 2, max = 3 }}'
    )
    finished = run_command("etl", "p.toml", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert sql("SELECT id FROM t") == [(1,)]
