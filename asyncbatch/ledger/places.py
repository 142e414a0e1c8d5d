"""Where ledgers are that have no database to be in."""

from __future__ import annotations

import hashlib
import os
import re

_STATE_HOME = os.path.join("~", ".local", "state")  # as the XDG base directory specification has it
_NAME_LENGTH = 40


def state_folder() -> str:
    """Return the folder of what is kept between runs."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser(_STATE_HOME)
    return os.path.join(home, "asyncbatch")


def default_path(target: str | None, fingerprint: str, root: str | None) -> str:
    """Return the ledger's path for a target, or for a job without one in the current folder.

    With `root` names do not depend on the current folder.
    """
    if target is not None:
        key = os.path.realpath(target)
        name = os.path.basename(key)
    else:
        key = f"{fingerprint}\0{os.getcwd() if root is None else os.path.realpath(root)}"
        name = "checks"
    digest = hashlib.blake2b(os.fsencode(key), digest_size=6).hexdigest()
    tidy = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:_NAME_LENGTH]
    return os.path.join(state_folder(), f"{tidy}-{digest}.ledger")
