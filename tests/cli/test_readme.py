"""Tests that the examples of the README and of the recipes work unchanged."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.cli.pages import blocks, command_path, cron, shell
from tests.commands import ROOT
from tests.conftest import python

pytestmark = pytest.mark.xdist_group("readme")  # commands read what others have written

README = (ROOT / "README.md").read_text()
FOLDER = ROOT / "docs" / "recipes"
RECIPES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
ALL = "\n".join((README, *RECIPES.values()))
COMMANDS = [line[2:] for block in blocks(ALL, "console") for line in block.splitlines()]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A PATH on which the command `asyncbatch` runs this checkout."""
    return command_path(tmp_path_factory.mktemp("bin"))


def test_there_are_commands_to_run():
    assert len(COMMANDS) >= 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the inputs of the examples, for their outputs."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("sample_data", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(ROOT / "sample_data" / "users", folder / "exports")
    for name in ("user.schema.json", "clean.py"):
        shutil.copy(ROOT / "docs" / "examples" / name, folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, path, folder):
    finished = shell(command, path, folder)
    expected = 1 if command.endswith("# exit 1") else 0
    assert finished.returncode == expected, finished.stderr
    assert finished.stdout or "  windows  " in finished.stderr  # a stream into a table
    assert "Traceback" not in finished.stderr


def test_nights_of_the_cron_recipe(path, tmp_path):
    nights = [
        block for block in blocks(ALL, "sh") if block.startswith("15 3 * * *  asyncbatch run")
    ]
    [line] = set(nights)
    assert len(nights) == 2
    assert {"--resume", "--lock", "--report"} < set(line.split())
    inputs = tmp_path / "srv" / "exports"
    shutil.copytree(ROOT / "sample_data" / "users", inputs)
    (tmp_path / "var" / "lib").mkdir(parents=True)

    def night():
        run = cron(line, tmp_path, path)
        report = json.loads((tmp_path / "var" / "lib" / "exports.json").read_text())
        files = report["files"]
        return run.returncode, run.stdout + run.stderr, (files["succeeded"], files["skipped"])

    assert night() == (0, "", (3, 0))
    assert night() == (0, "", (0, 3))
    (inputs / "late.json").write_text('[{"id": 999999}]')
    assert night() == (0, "", (1, 3))
    (inputs / "bad.json").write_text("[{")
    code, said, counts = night()
    assert (code, counts) == (1, (0, 4))
    assert "bad.json:1:3" in said
    with closing(sqlite3.connect(tmp_path / "srv" / "users.db")) as database:
        assert database.execute("SELECT count(*) FROM users").fetchone() == (37,)
    [lock] = (tmp_path / ".local" / "state" / "asyncbatch" / "locks").iterdir()
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cron(line, tmp_path, path).returncode == 75


def test_examples_of_the_help(run, path, folder):
    examples = re.findall(r"^ +(asyncbatch run .*)$", run("--help").stdout, re.MULTILINE)
    assert len(examples) >= 5
    endless = [example for example in examples if "--watch" in example]  # see `test_watch`
    assert len(endless) == 1
    for example in examples:
        if example in endless:
            continue
        finished = shell(example, path, folder)
        assert finished.returncode == 0, f"{example}\n{finished.stderr}"


@pytest.mark.parametrize("block", blocks(ALL, "python"))
def test_python(block):
    finished = python(block)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 11


def test_every_option_named_exists(run):
    shown = run("--help-all").stdout
    for command in ("etl --help-all", "stream --help-all", "generate events --help"):
        asked = [sys.executable, "-m", "asyncbatch", *command.split()]
        shown += subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ALL)) - {"--help", "--version"}:
        assert option in shown, option
