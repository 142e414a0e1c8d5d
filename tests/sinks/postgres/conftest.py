"""Fixtures of the tests of PostgreSQL: a database for each, and loads by the command."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def database(server):
    """Return an empty database for each test."""
    return server.empty_database()


@pytest.fixture
def url(server, database):
    return server.url(database)


@pytest.fixture
def sql(server, database):
    return lambda query: server.execute(query, database)


@pytest.fixture
def load(run, url, tmp_path):
    """Load records from a file of this name with the command; return its report."""

    def _load(records, *options, to=url, name="in.jsonl", table="t", env=None):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text(lines)
        target = ("--to", to, "--table", table)
        finished = run(name, *target, "--output", "json", *options, env=env)
        assert finished.stdout, finished.stderr
        return finished.json

    return _load
