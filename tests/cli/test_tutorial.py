"""Tests that the tutorial works as it stands: its commands, in order, and their outputs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.cli.pages import command_path, shell
from tests.commands import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILES = dict(
    re.findall(r"Save this as `([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A PATH on which the command `asyncbatch` runs this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    found = command_path(folder)
    (folder / "python3").symlink_to(sys.executable)
    return found


def steady(text):
    """Return a text without times, which differ from run to run."""
    return re.sub(r"(?<=files in )[\d.]+ s", "", text)


def test_the_tutorial(path, tmp_path):
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    assert set(FILES) == {"make_air.py", "air.schema.json"}
    said, count = "", 0
    for language, block in BLOCKS:
        if language == "console":
            said = ""
            for command in block.splitlines():
                ran = shell(command.removeprefix("$ "), path, tmp_path)
                assert ran.returncode == int(command.endswith("# exit 1")), ran.stderr
                assert "Traceback" not in ran.stderr
                said += steady(ran.stdout + ran.stderr)
                count += 1
        elif language == "text":
            for line in steady(block).splitlines():
                assert line in said, f"{line}\n\nis not in\n\n{said}"
    assert count >= 15


def test_its_cron_line(path, tmp_path):
    [line] = re.findall(r"^15 3 \* \* \*  cd /srv && (.*)$", PAGE, re.MULTILINE)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    subprocess.run([sys.executable, "make_air.py"], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "air" / "2026-02")
    shutil.rmtree(tmp_path / "air" / "2026-03")
    for _ in range(2):
        ran = shell(line, path, tmp_path)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
