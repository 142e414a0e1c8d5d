"""The examples of a page of the documentation, and the ways to run them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.commands import PATIENCE, ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code in a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)


def command_path(folder: Path) -> str:
    """Return a PATH on which the command `asyncbatch` runs this checkout."""
    script = folder / "asyncbatch"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m asyncbatch "$@"\n')
    script.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def below(root: Path, text: str) -> str:
    """Return a command with its absolute paths below `root`."""
    return re.sub(r"(?<=[ /])/(?=srv|var|etc|data)", f"{root}/", text)


def shell(command: str, path: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    return subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, cwd=folder,
        env=environment(PATH=path), timeout=PATIENCE,
    )  # fmt: skip


def cron(line: str, root: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a crontab as cron does, with its absolute paths below `root`."""
    command = re.fullmatch(r"(?:\S+ +){5}(.+)\n?", line)
    assert command is not None
    assert not re.search(r"(?<!\\)%", command[1]), "cron would end the command there"
    text = below(root, command[1].replace("\\%", "%"))
    return subprocess.run(
        ["sh", "-c", text], check=False, capture_output=True, text=True, cwd=root,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL, env={"HOME": str(root), "PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
