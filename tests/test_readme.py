"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment, python

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines()]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A folder on PATH in which `asyncbatch` is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "asyncbatch"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m asyncbatch "$@"\n')
    script.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_there_are_commands_to_run():
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, path):
    finished = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, cwd=ROOT,
        env=environment(PATH=path), timeout=60,
    )  # fmt: skip
    expected = 1 if command.endswith("# exit 1") else 0
    assert finished.returncode == expected, finished.stderr
    assert finished.stdout
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block):
    finished = python(block)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 11


def test_every_option_named_exists(run):
    shown = run("--help").stdout
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - {"--help", "--version"}:
        assert option in shown, option
