"""`python -m asyncbatch` is the command `asyncbatch`."""

import os
import sys

import asyncbatch


def use_safe_path() -> None:
    """Take the current folder, which `-m` has put first, from the search path.

    A `json.py` beside the data must not be imported. If the package itself is found there, it
    comes last, for the worker processes.
    """
    if sys.flags.safe_path:  # `-P`: it has not been put there
        return
    del sys.path[0]
    home = os.path.dirname(asyncbatch.__path__[0])
    if home not in sys.path:
        sys.path.append(home)


use_safe_path()
try:
    from asyncbatch.cli import main
except KeyboardInterrupt:  # Ctrl-C before `main` has set its handlers
    os._exit(130)

main()
