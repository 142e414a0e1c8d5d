"""The standard streams as this process has them."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_STDOUT, _STDERR = 1, 2


def open_closed_streams() -> None:
    """Put /dev/null where a standard stream is closed, lest a file of ours takes its number."""
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            stream = os.fdopen(descriptor, mode, closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def stdout() -> TextIO:
    """Return standard output as we found it: `sys.stdout` may be what user functions print to."""
    return sys.__stdout__ or sys.stdout


def set_results_apart() -> None:
    """Let whatever user functions of this process write to standard output go to stderr."""
    sys.__stdout__ = os.fdopen(os.dup(_STDOUT), "w")  # type: ignore[misc]  # where `stdout` looks
    os.dup2(_STDERR, _STDOUT)
    sys.stdout = sys.stderr
