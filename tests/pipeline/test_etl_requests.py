"""`asyncbatch etl` on the shapes of public APIs: bodies, cursors, links, templates, other formats."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from textwrap import dedent
from typing import Any

import pytest

from tests.commands import run_command_text
from tests.servers.api import ApiServer, status
from tests.servers.shapes import COUNT, SHAPES, Shape, routes_of


@pytest.fixture
def etl(tmp_path, files):
    """Run `asyncbatch etl` on the text of a pipeline file, in its own folder."""

    def _etl(text: str, *arguments: str, **env: str) -> Any:
        files({"p.toml": text})
        return run_command_text("etl", "p.toml", *arguments, cwd=tmp_path, env=env)

    return _etl


def source(text: str, origin: str) -> str:
    """Return the table of a source without retries."""
    return '[[source]]\ntype = "http"\nretries = 0\n' + dedent(text).format(origin=origin)


def to_lines(*sources: str) -> str:
    """Return a pipeline file whose sink is a file of JSON Lines."""
    return f'name = "n"\n{"".join(sources)}\n[sink]\nto = "out.jsonl"\n'


def to_table(shape: Shape, origin: str, sink: str = "") -> str:
    """Return a pipeline file whose sink is a table of ids."""
    fields = f'[[transform]]\ntype = "fields"\nfields = {{ id = "{shape.id_path}" }}'
    table = f'[sink]\nto = "sqlite:///out.db"\ntable = "t"\n{sink}\n'
    return f'name = "n"\n{source(shape.source, origin)}\n{fields}\n{table}'


def lines(folder: Any) -> list[Any]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def ids(folder: Any) -> list[str]:
    """Return the ids in the table, in the order in which they were added."""
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return [row[0] for row in database.execute("SELECT id FROM t ORDER BY rowid")]


def failure_of(outcome: Any) -> str:
    (failure,) = json.loads(outcome.stdout)["failures"]
    return str(failure["message"])


@pytest.mark.parametrize("name", SHAPES)
def test_an_api_is_read_to_its_end(etl, tmp_path, name):
    shape = SHAPES[name]
    is_incremental = "incremental" in shape.source  # which needs a table
    with ApiServer(routes=routes_of(shape)) as api:
        lines_file = to_lines(source(shape.source, api.origin))
        text = to_table(shape, api.origin) if is_incremental else lines_file
        outcome = etl(text, "-o", "json")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "notes" not in json.loads(outcome.stdout)
    if is_incremental:
        assert ids(tmp_path) == [f"id-{number}" for number in range(COUNT)]
    else:
        assert lines(tmp_path) == [shape.record(number) for number in range(COUNT)]


RESUMABLE = [
    "notion", "github graphql", "stripe", "elasticsearch search_after", "zendesk", "confluence",
    "azure cosmos", "csv",
]  # fmt: skip


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_failed_url_continues_after_its_last_page(etl, tmp_path, name):
    shape = SHAPES[name]
    with ApiServer(routes=routes_of(shape)) as api:
        text = to_table(shape, api.origin)
        for behaviour in (None, None, status(500)):  # as usual for two pages
            api.misbehave(behaviour or _usual)
        assert etl(text).returncode == 1
        assert len(ids(tmp_path)) == 6
        api.seen.clear()
        assert etl(text).returncode == 0
        assert api.requests in (2, 3)  # `search_after` ends with a page without records
    assert ids(tmp_path) == [f"id-{number}" for number in range(COUNT)]


async def _usual(_: Any) -> None:
    return None
