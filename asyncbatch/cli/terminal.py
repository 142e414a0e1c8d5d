"""The standard streams as this process has them."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_STDOUT, _STDERR = 1, 2


def open_closed_streams() -> None:
    """Open /dev/null for closed standard streams, so that no file gets their number."""
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            stream = os.fdopen(descriptor, mode, closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def stdout() -> TextIO:
    """Return the original standard output: user functions may print to `sys.stdout`."""
    return sys.__stdout__ or sys.stdout


def separate_results() -> None:
    """Redirect the prints of user functions in this process to stderr."""
    sys.__stdout__ = os.fdopen(os.dup(_STDOUT), "w")  # type: ignore[misc]  # where `stdout` looks
    os.dup2(_STDERR, _STDOUT)
    sys.stdout = sys.stderr


def is_terminal(descriptor: int) -> bool:
    """Whether a display may redraw: a terminal, not in CI, not a dumb one."""
    dumb = os.environ.get("TERM") in ("dumb", "unknown")
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return os.isatty(descriptor) and not dumb and not in_ci


def wants_style(descriptor: int) -> bool:
    """Whether to style text: on a terminal or with FORCE_COLOR, unless NO_COLOR is set."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(descriptor)


def to_stderr(line: str) -> None:
    """Write a line to stderr at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
