"""Where ledgers are that have no database to be in."""

from __future__ import annotations

import hashlib
import os
import re

from asyncbatch.cloud.address import is_store_url
from asyncbatch.state import state_folder

_NAME_LENGTH = 40


def default_path(target: str | None, fingerprint: str, root: str | None) -> str:
    """Return the ledger's path for a target, or for a job without one in the current folder.

    With `root` names do not depend on the current folder. Raises UsageError if there is no
    place for it.
    """
    if target is not None:
        key = target if is_store_url(target) else os.path.realpath(target)
        name = os.path.basename(key)
    else:
        key = f"{fingerprint}\0{os.getcwd() if root is None else os.path.realpath(root)}"
        name = "checks"
    digest = hashlib.blake2b(os.fsencode(key), digest_size=6).hexdigest()
    tidy = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:_NAME_LENGTH]
    return os.path.join(state_folder(), f"{tidy}-{digest}.ledger")
