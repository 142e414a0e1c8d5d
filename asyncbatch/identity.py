"""What an input is called wherever it is remembered."""

from __future__ import annotations

import os

from asyncbatch.records import STDIN


def identity(path: str, root: str | None = None) -> str:
    """Return the name of the input at `path`: normalised, or its path below `root`."""
    if path == STDIN:
        return path
    return os.path.normpath(path) if root is None else os.path.relpath(path, root)
