"""The search for a configuration file. It loads nothing else: most folders have none."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE_NAME = "asyncbatch.toml"
PROJECT_NAME = "pyproject.toml"
COMMANDS = ("run", "validate", "etl", "stream")  # that have a table in the file


def find_config(note: Callable[[str], None]) -> str | None:
    """Return the path of the first configuration file in the current folder or above.

    The folder of a repository, the home folder and the root are the last that are searched. A file
    of another user is passed over with a `note`.
    """
    for folder in _folders():
        for name in (FILE_NAME, PROJECT_NAME):
            path = os.path.relpath(os.path.join(folder, name))
            if not _is_config(path):
                continue
            if owner := _other_owner(path):
                note(f"{path} is not read, because it belongs to user {owner}: name it by --config")
                continue
            return path
    return None


def _folders() -> Iterator[str]:
    """Yield the folders that are searched."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it has been removed
        return
    home = os.path.realpath(os.path.expanduser("~"))
    while True:
        yield folder
        above = os.path.dirname(folder)
        if folder in (above, home) or os.path.exists(os.path.join(folder, ".git")):
            return
        folder = above


def _is_config(path: str) -> bool:
    """Whether a configuration file is at `path`; that of a Python project has our table.

    Anything but a regular file could block: a pipe, a device.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        if os.path.basename(path) == FILE_NAME:
            return True
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError):
        return False
    if b"asyncbatch" not in data:
        return False
    import tomllib

    try:
        return "asyncbatch" in tomllib.loads(data.decode()).get("tool", ())
    except (ValueError, RecursionError):
        return b"tool.asyncbatch" in data  # reading it raises the error, with the position


def _other_owner(path: str) -> int | None:
    """Return the owner of a file or of the link to it, if that is another user, but not root."""
    owners = [os.lstat(path).st_uid, os.stat(path).st_uid]
    return next((owner for owner in owners if owner not in (os.geteuid(), 0)), None)
