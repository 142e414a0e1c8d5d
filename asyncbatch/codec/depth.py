"""Room for the deepest values that are accepted."""

from __future__ import annotations

import sys

_LIMIT = 4000
"""Python's own default is 1,000 calls, C functions included; a value of `grammar.MAX_DEPTH`
levels takes as many in msgspec, on top of what is running, and a user's function some more."""


def allow_deep_nesting() -> None:
    """Let this interpreter recurse as deep as the values that we accept; to be called once."""
    if sys.getrecursionlimit() < _LIMIT:
        sys.setrecursionlimit(_LIMIT)
