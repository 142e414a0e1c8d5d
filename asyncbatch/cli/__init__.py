"""The command line: a thin shell over the library."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command that the arguments name; the entry point of `asyncbatch`."""
    # Until a command has its own handlers, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from asyncbatch.cli.app import app  # noqa: PLC0415 - imports take a while: see above

    app(prog_name="asyncbatch")
