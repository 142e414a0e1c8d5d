"""The page of the documentation about one job in three forms: each gives the same."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.commands import ROOT, environment, run_command_text
from tests.conftest import SAMPLE_DATA

PAGE = (ROOT / "docs" / "one-job.md").read_text()
ADDRESSLESS = {"id": 1, "name": "A", "active": True, "address": {"city": "Ulm"}}


def block(language):
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def run_form(form, folder):
    if form == "sh":
        words = shlex.split(block("sh").replace("\\\n", " "))
        return run_command_text(*words[1:], cwd=folder)
    if form == "toml":
        (folder / "users.toml").write_text(block("toml"))
        return run_command_text("etl", "users.toml", cwd=folder)
    return subprocess.run(
        [sys.executable, "-c", block("python")], check=False, capture_output=True, text=True,
        cwd=folder, env=environment(),
    )  # fmt: skip


@pytest.mark.parametrize("form", ["sh", "toml", "python"])
def test_each_form_gives_the_same(tmp_path, form):
    shutil.copytree(SAMPLE_DATA / "users", tmp_path / "sample_data" / "users")
    (tmp_path / "sample_data" / "users" / "more.json").write_text(json.dumps([ADDRESSLESS]))
    (tmp_path / "user.schema.json").write_text(block("json"))
    finished = run_form(form, tmp_path)
    assert finished.returncode == (0 if form == "python" else 1), finished.stderr
    expected = [
        (user["id"], user["name"], user["email"], user["address"]["city"])
        for path in sorted((SAMPLE_DATA / "users").iterdir())
        for user in json.loads(path.read_text())
        if user["active"]
    ]
    assert len(expected) > 10
    with closing(sqlite3.connect(tmp_path / "users.db")) as database:
        rows = database.execute("SELECT id, name, email, city FROM users").fetchall()
    assert sorted(rows) == sorted(expected)
    letter = json.loads((tmp_path / "rejected.jsonl").read_text())
    assert letter["data"] == ADDRESSLESS
