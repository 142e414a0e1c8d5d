"""The command that installs an extra, for the way in which asyncbatch itself was installed."""

from __future__ import annotations

import os
import sys


def install_command(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    pipx and uv keep a tool in an environment of its own, which plain pip does not reach.
    """
    place = sys.prefix.replace(os.sep, "/")
    package = f"'asyncbatch[{extra}]'"
    if "/pipx/venvs/" in place:
        return f"pipx install --force {package}"
    if "/uv/tools/" in place:
        return f"uv tool install --force {package}"
    return f"pip install {package}"
