"""Tests of the manual page."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from asyncbatch._version import __version__
from asyncbatch.cli.app import COMMANDS
from asyncbatch.cli.options.flags import flags
from tests.commands import run_command
from tests.reference import groups


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    ran = run_command("man", cwd=tmp_path_factory.mktemp("man"))
    assert (ran.returncode, ran.stderr) == (0, b"")
    return ran.stdout.decode()


def test_it_has_each_command_and_option(page):
    _, *parts = re.split(r'^\.SH "(.+)"$', page, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    commands = {title.split()[1] for title in sections if title.startswith("ASYNCBATCH ")}
    assert commands == {name.upper().replace("-", "\\-") for name in COMMANDS}
    for command, kind in groups():
        name = command.split("|")[0].upper().replace("-", "\\-")
        section = sections[f"ASYNCBATCH {name}"]
        for flag in flags(kind):
            for option in flag.names[0].split("/"):
                assert option.replace("-", "\\-") in section, (command, option)


def test_it_is_the_same_each_time_and_has_the_version(page, tmp_path):
    assert page.startswith(f'.TH ASYNCBATCH 1 "" "asyncbatch {__version__}" "User Commands"\n')
    assert run_command("man", cwd=tmp_path, env={"COLUMNS": "40"}).stdout.decode() == page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_finds_no_fault(page):
    shown = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-Kutf8"], input=page.encode(), capture_output=True,
        check=True,
    )  # fmt: skip
    assert shown.stderr == b""
    # Bold letters are struck twice, or have escape sequences, as the system prefers.
    text = re.sub(r".\x08|\x1b\[[0-9;]*m", "", shown.stdout.decode())
    assert "asyncbatch run exports/ --jq 'select(.active) | {id}' --to active.jsonl" in text
    assert "$XDG_STATE_HOME/asyncbatch" in text
    assert "~/.local/state/asyncbatch" in text
