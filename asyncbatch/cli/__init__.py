"""The command line: commands, options, terminal output and report files.

May import every other room. The only room that imports typer or rich. `main` sets signal handlers
before it imports anything else, because the imports are slow (typer: 58 ms measured).
"""

from __future__ import annotations

import os
import signal
import sys

from asyncbatch.cli import exit_codes


def main() -> None:
    """Run the command that the arguments name: the entry point of `asyncbatch`."""
    # Until the command sets its own handlers, a stop signal ends the process without a traceback.
    # No work has started yet. Signals that the parent process ignores (nohup, background jobs)
    # stay ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)
    from asyncbatch.cli.terminal import flush_or_drop, open_closed_streams, to_stderr
    from asyncbatch.core.system import delay_collection

    open_closed_streams()
    delay_collection()  # until a session begins
    from asyncbatch.cli.app import app

    try:
        app(prog_name="asyncbatch")
    except SystemExit as end:
        error = flush_or_drop()
        if error is None or end.code:  # a command that failed has told its reason
            raise
    except OSError:
        error = flush_or_drop()
        if error is None:  # it is not about standard output
            raise
    else:
        return
    if isinstance(error, BrokenPipeError):
        sys.exit(exit_codes.CLOSED_OUTPUT)
    to_stderr(f"Error: cannot write to standard output: {error.strerror}")
    sys.exit(exit_codes.FAILURES)


def _leave(number: int, _: object) -> None:
    os._exit(exit_codes.of_signal(number))
