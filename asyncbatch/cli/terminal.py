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


def separate_results() -> None:
    """Let whatever user functions of this process write to standard output go to stderr."""
    sys.__stdout__ = os.fdopen(os.dup(_STDOUT), "w")  # type: ignore[misc]  # where `stdout` looks
    os.dup2(_STDERR, _STDOUT)
    sys.stdout = sys.stderr


def is_terminal(descriptor: int) -> bool:
    """Whether somebody watches and a display may redraw itself: not in CI, not on a dumb one."""
    dumb = os.environ.get("TERM") in ("dumb", "unknown")
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return os.isatty(descriptor) and not dumb and not in_ci


def wants_style(descriptor: int) -> bool:
    """Whether text is to be styled: on a terminal or with FORCE_COLOR, unless NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(descriptor)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
