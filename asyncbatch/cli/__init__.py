"""The command line: commands, options, terminal output and report files.

May import every other room. The only room that imports typer or rich. `main` sets signal handlers
before it imports anything else, because the imports are slow (typer: 58 ms measured).
"""

from __future__ import annotations

import os
import signal

from asyncbatch.cli import exit_codes


def main() -> None:
    """Run the command that the arguments name: the entry point of `asyncbatch`."""
    # Until the command sets its own handlers, a stop signal ends the process without a traceback.
    # No work has started yet. Signals that the parent process ignores (nohup, background jobs)
    # stay ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)
    from asyncbatch.cli.terminal import open_closed_streams

    open_closed_streams()
    from asyncbatch.cli.app import app

    app(prog_name="asyncbatch")


def _leave(number: int, _: object) -> None:
    os._exit(exit_codes.of_signal(number))
