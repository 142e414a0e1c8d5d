"""Pipelines from an API into each database: state between runs, and databases that die midway."""

from __future__ import annotations

import importlib
import json
import random
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.commands import PATIENCE, CommandProcess, environment, run_command_text
from tests.pipeline.test_etl_http import CURSOR, INCREMENTAL, PAGE, asked, people, pipeline, source
from tests.servers.api import ApiServer, status, value


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def target(request, tmp_path):
    """A database of each kind: its address, and a function that queries it."""
    if request.param != "postgresql":
        path = tmp_path / "out.db"
        if request.param == "sqlite":

            def ask(query):
                with closing(sqlite3.connect(path)) as database:
                    return database.execute(query).fetchall()
        else:

            def ask(query):
                with importlib.import_module("duckdb").connect(str(path)) as database:
                    return database.execute(query).fetchall()

        return f"{request.param}:///out.db", ask
    server = request.getfixturevalue("server")
    name = server.empty_database()
    return server.url(name), lambda query: [tuple(row) for row in server.execute(query, name)]


def etl(tmp_path, text, *arguments):
    (tmp_path / "p.toml").write_text(text)
    return run_command_text("etl", "p.toml", "--output", "json", *arguments, cwd=tmp_path)


def ids(ask):
    return [row[0] for row in ask("SELECT id FROM people ORDER BY id")]


def test_bookmarks_are_kept_with_the_rows(tmp_path, target):
    to, ask = target
    with ApiServer(people(40), size=10) as api:
        text = pipeline(source(api.url("/cursor"), more=INCREMENTAL), to=to)
        first = {"items": people(10), "next_cursor": "after 10"}
        api.misbehave(value(first), path="/cursor")
        api.misbehave(status(500), path="/cursor")
        outcome = etl(tmp_path, text)
        assert outcome.returncode == 1, outcome.stderr
        assert ids(ask) == [*range(10)]
        api.seen.clear()
        assert etl(tmp_path, text).returncode == 0
        assert asked(api, "cursor") == ["after 10", "after 20", "after 30"]
        assert ids(ask) == [*range(40)]
        api.records = people(43)
        outcome = etl(tmp_path, text)
        assert outcome.returncode == 0, outcome.stderr
        assert asked(api, "since") == ["2026-01-02T15:00:00Z"]
        assert json.loads(outcome.stdout)["records"]["written"] == 3
        assert ids(ask) == [*range(43)]
    query = "SELECT outcome, records_written, bookmark FROM asyncbatch_ledger"
    assert ask(query) == [("success", 3, '{"since":"2026-01-02T18:00:00Z","kind":"time"}')]


def test_pages_are_upserted_in_their_order(tmp_path, target):
    """If keys repeat, the table has the last row of each key at the end."""
    to, ask = target
    records = [{"id": number % 7, "updated_at": f"{number:04}"} for number in range(200)]
    with ApiServer(records, size=9) as api:
        text = pipeline(source(api.url("/page"), PAGE), to=to, sink='key = ["id"]')
        outcome = etl(tmp_path, text)
        assert outcome.returncode == 0, outcome.stderr
    last = {record["id"]: record["updated_at"] for record in records}
    assert dict(ask("SELECT id, updated_at FROM people")) == last


@pytest.mark.parametrize("sink", ["", 'key = ["id"]', 'mode = "replace"'])
def test_a_server_that_dies_midway_loses_and_doubles_nothing(server, tmp_path, sink):
    pick = random.Random(sink)
    name = server.empty_database()
    with ApiServer(people(900), size=5) as api:
        text = pipeline(source(api.url("/cursor"), CURSOR), to=server.url(name), sink=sink)
        (tmp_path / "p.toml").write_text(text)
        command = ["etl", "p.toml", "--output", "json"]
        kills = ends = 0
        while True:
            with CommandProcess(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
                env=environment(),
            ) as running:  # fmt: skip
                if ends < 4 and api.answer(pick.randint(5, 90), running):
                    if pick.random() < 0.5:
                        server.kill()
                        server.start()
                    else:
                        running.send_signal(signal.SIGKILL)
                    kills += 1
                api.answers = None
                code = running.wait(timeout=PATIENCE)
                ends += 1
                if code == 0:
                    break
                assert ends < 30
        assert kills
    found = server.execute("SELECT id FROM people ORDER BY id", name)
    assert [row[0] for row in found] == [*range(900)]
