"""Tests of `asyncbatch init`."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tomllib
from contextlib import closing

import pytest

from asyncbatch.config.pipeline_file.load import parse_pipeline_file, parse_stream_file
from tests.commands import run_command_text
from tests.conftest import SAMPLE_DATA, Outcome


@pytest.fixture
def asyncbatch(tmp_path):
    """Return a function that runs `asyncbatch` in the folder of the test."""

    def _asyncbatch(*arguments):
        finished = run_command_text(*arguments, cwd=tmp_path)
        return Outcome(finished.returncode, finished.stdout, finished.stderr)

    return _asyncbatch


def test_the_written_file_is_valid(asyncbatch, tmp_path):
    found = asyncbatch("init", "people.toml")
    assert found == (
        0, "wrote people.toml; check it with `asyncbatch etl people.toml --check`\n", ""
    )  # fmt: skip
    checked = asyncbatch("etl", "people.toml", "--check")
    assert (checked.code, checked.stderr) == (0, "")
    assert "1 source (files), 2 transforms, into people of sqlite:///people.db" in checked.stdout


def test_the_commented_parts_are_valid_too(asyncbatch, tmp_path):
    asyncbatch("init")
    text = (tmp_path / "pipeline.toml").read_text()
    head, mark, rest = text.partition("# [[source]]")
    block, blank, rest = (mark + rest).partition("\n\n")
    text = head + "\n".join(line.removeprefix("# ") for line in block.split("\n")) + blank + rest
    pipeline = parse_pipeline_file(tomllib.loads(text), "x", (), {"API_TOKEN": "x"})
    assert pipeline.source_names() == ["files", "http"]


def test_the_file_of_a_stream_runs_on_the_sample_data(asyncbatch, tmp_path):
    found = asyncbatch("init", "shop.toml", "--kind", "stream")
    assert found == (
        0, "wrote shop.toml; check it with `asyncbatch stream shop.toml --check`\n", ""
    )  # fmt: skip
    checked = asyncbatch("stream", "shop.toml", "--check")  # wherever its events are
    assert (checked.code, checked.stderr) == (0, "")
    shutil.copytree(SAMPLE_DATA / "events", tmp_path / "sample_data" / "events")
    ran = asyncbatch("stream", "shop.toml", "-q")
    assert (ran.code, ran.stderr) == (0, "")
    events = [
        json.loads(line)
        for path in (SAMPLE_DATA / "events").iterdir()
        for line in path.read_text().split("\n")
        if line.strip()
    ]
    kept = [event for event in events if event["event_type"] != "logout"]
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        rows = database.execute("SELECT sum(events), round(sum(total), 2) FROM windows").fetchone()
    assert (tmp_path / "shop.late.jsonl").read_text() == ""
    assert len(kept) > 50
    assert rows == (len(kept), round(sum(event["value"] for event in kept), 2))
    wrong = asyncbatch("etl", "shop.toml", "--check")
    assert (wrong.code, "run it with `asyncbatch stream shop.toml`" in wrong.stderr) == (2, True)


def test_the_commented_parts_of_a_stream_are_valid_too(asyncbatch, tmp_path):
    asyncbatch("init", "--kind", "stream")
    lines = (tmp_path / "pipeline.toml").read_text().split("\n")
    commented = [one for one in lines if re.match(r"# (\[|\w+ = )", one)]
    text = "\n".join(one.removeprefix("# ") if one in commented else one for one in lines)
    stream = parse_stream_file(tomllib.loads(text), "x", (), {})
    assert len(commented) == 8
    assert len(stream.sources) == 2
    assert stream.checkpoint is not None


def test_nothing_is_overwritten(asyncbatch, tmp_path):
    (tmp_path / "pipeline.toml").write_text("mine")
    found = asyncbatch("init")
    assert found.code == 2
    assert "pipeline.toml exists already; --force overwrites it" in found.stderr
    assert (tmp_path / "pipeline.toml").read_text() == "mine"
    assert asyncbatch("init", "--force").code == 0
    assert "[[source]]" in (tmp_path / "pipeline.toml").read_text()


def test_a_path_that_cannot_be_written_is_an_error(asyncbatch):
    found = asyncbatch("init", "no/such/folder.toml")
    assert found.code == 2
    assert "cannot write no/such/folder.toml: there is no folder no/such" in found.stderr
