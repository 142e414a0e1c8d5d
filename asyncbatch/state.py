"""Where this program keeps what has to outlive a run, unless told otherwise."""

from __future__ import annotations

import os

from asyncbatch.errors import UsageError


def state_folder() -> str:
    """Return `$XDG_STATE_HOME/asyncbatch`, or that of `~/.local/state`; it may not exist yet.

    A relative XDG_STATE_HOME counts as none, as its specification has it. Raises UsageError if
    there is no home folder either.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise UsageError("no place for files of this program: set XDG_STATE_HOME or HOME")
    return os.path.join(base, "asyncbatch")
