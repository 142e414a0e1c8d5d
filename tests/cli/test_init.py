"""Tests of `asyncbatch init`."""

from __future__ import annotations

import tomllib

import pytest

from asyncbatch.config.pipeline_file.load import parse_pipeline_file
from tests.commands import run_command_text
from tests.conftest import Outcome


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
    assert "No such file or directory" in found.stderr
