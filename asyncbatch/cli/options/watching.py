"""Conversion of the options for watching to settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from asyncbatch.config.options.watching import WatchFlags
from asyncbatch.core.settings import WatchSettings
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def watch_settings(options: WatchFlags, excluded: Mapping[str, object]) -> WatchSettings | None:
    """Return the settings of a watch, or None without one. Raises UsageError.

    `excluded` has the values of other options that make no sense with a watch, by their names.
    """
    if not options.watch:
        return None
    for name, value in excluded.items():
        if value:
            raise UsageError(f"--watch, which waits for files without end, excludes {name}")
    if options.delete_done and options.move_done is not None:
        raise UsageError("--move-done keeps finished files, --delete-done does not: choose one")
    given = asdict(options)
    del given["watch"], given["metrics_port"]
    for field in ("move_done", "move_failed"):
        if given[field] is not None:
            given[field] = os.path.abspath(given[field])
            _check_folder(given[field], f"--{field.replace('_', '-')}")
    return WatchSettings(**given)


def _check_folder(path: str, option: str) -> None:
    """Create a folder. Raises UsageError if nothing can be written there."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: not writable")
