"""Tests of `asyncbatch ledger`: show, clear, path."""

from __future__ import annotations

import importlib
import os
import sqlite3
from contextlib import closing

import pytest

from tests.commands import run_command_text

RECORDS = {"in/1.json": '[{"id": 1}, {"id": 2}]', "in/2.json": '[{"id": 3}, 4]', "in/3.json": "{"}
TARGETS = {
    "out.jsonl": (),
    "out/": (),
    "sqlite:///out.db": ("--table", "people"),
    "duckdb:///out.duckdb": ("--table", "people"),
}


@pytest.fixture
def ledger(tmp_path):
    """Return a function that runs `asyncbatch ledger` in the folder of the runs."""

    def _ledger(*arguments):
        return run_command_text(
            "ledger", *arguments, cwd=tmp_path, env={"XDG_STATE_HOME": str(tmp_path / "state")}
        )

    return _ledger


@pytest.fixture
def run_here(run, tmp_path):
    """Return a function that runs `asyncbatch run` with the state folder of the test."""

    def _run(*arguments):
        return run(*arguments, env={"XDG_STATE_HOME": str(tmp_path / "state")})

    return _run


@pytest.mark.parametrize("target", TARGETS)
def test_done_inputs_are_shown_and_can_be_cleared(run_here, files, ledger, target):
    files(RECORDS)
    options = ("in", "--to", target, *TARGETS[target], "--jq", "{id}")
    assert run_here(*options).code == 1
    shown = ledger("show", target)
    assert shown.returncode == 0, shown.stderr
    assert "1 failed, 1 partial, 1 success" in shown.stdout
    each = ledger("show", target, "--files").stdout
    assert "in/1.json  2 read, 2 written" in each
    assert "in/2.json  2 read, 1 written, 1 rejected" in each
    assert run_here(*options, "--resume", "-o", "json").json["files"]["skipped"] == 2
    assert ledger("clear", target).stdout == "forgot 3 inputs\n"
    assert run_here(*options, "--resume", "-o", "json").json["files"]["skipped"] == 0


def test_one_job_of_several_is_shown_and_cleared(run_here, files, ledger):
    files({"in/1.json": '{"a": 1}'})
    for table in ("some", "others"):
        assert run_here("in", "--to", "sqlite:///out.db", "--table", table).code == 0
    lines = ledger("show", "out.db").stdout.splitlines()
    assert [line.split()[1:3] for line in lines if "success" in line] == [["1", "success,"]] * 2
    jobs = [line.split()[0] for line in lines if "success" in line]
    assert jobs[1] not in ledger("show", "out.db", "--job", jobs[0]).stdout
    assert ledger("clear", "out.db", "--job", jobs[0]).stdout == "forgot 1 input\n"
    left = ledger("show", "out.db").stdout
    assert jobs[0] not in left
    assert jobs[1] in left


@pytest.mark.parametrize("job", ["wrong", ""])
def test_a_job_that_is_not_there_is_told(ledger, run, files, job):
    files({"a.json": "1"})
    assert run("a.json", "--resume", "--ledger", "x.ledger").code == 0
    for command in ("clear", "show"):
        found = ledger(command, "x.ledger", "--job", job)
        assert (found.returncode, found.stdout) == (2, "")
        assert f"Invalid value for '--job': there is no job '{job}'" in found.stderr
    assert "1 success" in ledger("show", "x.ledger").stdout


def test_all_ledgers_of_this_user_are_shown(run_here, files, ledger, tmp_path):
    files({"in/1.json": '{"a": 1}'})
    assert ledger("show").stdout == "no ledger found\n"
    assert run_here("in", "--to", "out.jsonl", "--jq", ".").code == 0
    assert run_here("in", "--resume").code == 0
    shown = ledger("show").stdout
    assert "--jq '.' --to out.jsonl" in shown
    assert "check that files are JSON" in shown
    assert ledger("path").stdout == f"{tmp_path}/state/asyncbatch\n"
    path = ledger("path", "out.jsonl").stdout.strip()
    assert os.path.exists(path)
    assert ledger("path", "sqlite:///out.db").stdout == "out.db\n"
    assert ledger("show", path).stdout == ledger("show", "out.jsonl").stdout


def test_a_ledger_at_a_given_path(run_here, files, ledger):
    files({"in/1.json": '{"a": 1}'})
    assert run_here("in", "--ledger", "done.ledger").code == 0
    assert "1 success" in ledger("show", "done.ledger").stdout
    again = run_here("in", "--ledger", "done.ledger", "--resume", "-o", "json")
    assert again.json["files"]["skipped"] == 1


def test_a_file_that_is_not_a_ledger_is_an_error(files, ledger):
    files({"text.db": "text" * 1000, "empty.ledger": ""})
    for name, words in {
        "text.db": "cannot read the ledger",
        "none.ledger": "No such file",
        "out.jsonl": "no ledger at",
        "nonsense": "neither a ledger file nor a target",
    }.items():
        shown = ledger("show", name)
        assert shown.returncode == 2
        assert words in shown.stderr


def make_old(folder):
    """Remove from each ledger the columns that the first version did not have."""
    new = ("reached_byte", "reached_record", "reached_line", "reached_column", "bookmark")
    drops = [f"ALTER TABLE asyncbatch_ledger DROP COLUMN {name}" for name in new]
    for path in [*folder.glob("out.db"), *folder.glob("state/asyncbatch/*.ledger")]:
        with closing(sqlite3.connect(path)) as database:
            for drop in drops:
                database.execute(drop)
    if (folder / "out.duckdb").exists():
        with importlib.import_module("duckdb").connect(folder / "out.duckdb") as database:
            for drop in drops:
                database.execute(drop)


@pytest.mark.parametrize("target", TARGETS)
def test_a_ledger_of_an_earlier_version_is_read_and_continued(run_here, files, ledger, target):
    folder = files(RECORDS)
    options = ("in", "--to", target, *TARGETS[target], "--jq", "{id}")
    run_here(*options)
    make_old(folder)
    assert "in/1.json  2 read, 2 written" in ledger("show", target, "--files").stdout
    files({"in/3.json": '{"id": 5}'})
    again = run_here(*options, "--resume", "-o", "json")
    assert (again.json["files"]["skipped"], again.json["files"]["succeeded"]) == (2, 1)
    assert run_here(*options, "--resume", "-o", "json").json["files"]["skipped"] == 3
