"""The standard streams of this process, and the abilities of its terminal."""

from __future__ import annotations

import os
import sys
from typing import Protocol, TextIO

from asyncbatch.cli.display.folding import fold_text
from asyncbatch.core.units import printable_lines
from asyncbatch.errors import SinkError


class MachineLines(Protocol):
    """The log for machines, as this module uses it."""

    @property
    def is_on_stderr(self) -> bool:
        """Whether all lines on stderr are lines of the log."""
        ...

    def note(self, line: str, event: str = "note") -> None:
        """Log a line for people."""
        ...


_STDOUT, _STDERR = 1, 2


_closed_streams: set[str] = set()


def open_closed_streams() -> None:
    """Open /dev/null for each closed standard stream.

    Otherwise the next opened file would get the descriptor, and receive printed lines. Prints of
    user functions are dropped. A result is not: a write to `stdout()` fails.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _closed_streams.add(name)
            os.open(os.devnull, os.O_RDWR)  # POSIX: open returns the lowest free number, this one
            stream = os.fdopen(descriptor, mode, closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if stdout_is_closed():  # after all three are open, so that it is none of them
        unwritable = os.open(os.devnull, os.O_RDONLY)
        sys.__stdout__ = os.fdopen(unwritable, "w")  # type: ignore[misc]  # `stdout()` reads it


def stdout() -> TextIO:
    """Return the original standard output. User functions may print to `sys.stdout`."""
    return sys.__stdout__ or sys.stdout


def stdout_error(error: OSError) -> SinkError:
    """Return an error of standard output with a message that names it."""
    return SinkError(f"cannot write to standard output: {error.strerror or error}")


def stdout_is_closed() -> bool:
    """Whether standard output was closed when the process began."""
    return "stdout" in _closed_streams


def flush_or_drop() -> OSError | None:
    """Flush standard output; return the error if it takes no more.

    The rest is dropped. Otherwise Python would try again at its end, and exit with status 120.
    """
    found = None
    for stream in (sys.stdout, stdout()):
        try:
            stream.flush()
        except OSError as error:
            found = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return found


def separate_results() -> None:
    """Redirect the prints of user functions in this process to stderr."""
    results = os.dup(stdout().fileno())
    sys.__stdout__ = os.fdopen(results, "w")  # type: ignore[misc]  # `stdout()` reads it
    os.dup2(_STDERR, _STDOUT)
    sys.stdout = sys.stderr


def is_terminal(descriptor: int) -> bool:
    """Whether a display can redraw: a terminal that is not dumb, outside of CI."""
    is_dumb = os.environ.get("TERM") in ("dumb", "unknown")
    is_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return os.isatty(descriptor) and not is_dumb and not is_ci


def columns_of(descriptor: int) -> int | None:
    """Return the columns of a terminal; None if it is none, or does not know."""
    if not os.isatty(descriptor):
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(descriptor).columns or None
    except OSError:
        return None


def set_color(choice: str) -> None:
    """Obey a choice of colors, `always` or `never`, in this process and in those that it starts."""
    if choice == "always":
        os.environ.pop("NO_COLOR", None)
        os.environ["FORCE_COLOR"] = "1"
    elif choice == "never":
        os.environ["NO_COLOR"] = "1"


def wants_style(descriptor: int) -> bool:
    """Whether to style text: a terminal or FORCE_COLOR, and no NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(descriptor)


def find_log() -> MachineLines | None:
    """Return the log for machines, if this process has one."""
    # Not imported: most runs have no log, and `logging` takes longer to load than a short run.
    module = sys.modules.get("asyncbatch.cli.observers.log")
    log: MachineLines | None = None if module is None else module.open_log()
    return log


def stderr_is_log() -> bool:
    """Whether stderr takes only lines of the log."""
    log = find_log()
    return log is not None and log.is_on_stderr


def to_stderr(text: str) -> None:
    """Write text for people to stderr, as `write_stderr`, and to the log if there is one."""
    log = find_log()
    if log is not None:
        log.note(text)
    if log is None or not log.is_on_stderr:
        write_stderr(text)


def write_stderr(text: str) -> None:
    """Write text to stderr and flush it. Its control characters are escaped, except line ends.

    On a terminal, lines that do not fit are folded.
    """
    try:
        width = columns_of(sys.stderr.fileno())
    except OSError:  # a program has put a stream without a file there
        width = None
    sys.stderr.write(fold_text(printable_lines(text), width) + "\n")
    sys.stderr.flush()
