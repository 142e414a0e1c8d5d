"""Everything a person sees: commands, options, terminal output, report files.

The only room that imports typer or rich.
"""

from __future__ import annotations

import os
import signal

from asyncbatch.cli import exit_codes
from asyncbatch.cli.terminal import open_closed_streams
from asyncbatch.workers.wire import STOP_SIGNALS


def main() -> None:
    """Run the command that the arguments name; the entry point of `asyncbatch`."""
    # Until a command handles them itself, these end the process quietly, nothing being done
    # yet. (They stay ignored if the parent process ignores them: nohup, background jobs.)
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda got, _: os._exit(exit_codes.of_signal(got)))
    open_closed_streams()
    from asyncbatch.cli.app import app

    app(prog_name="asyncbatch")
