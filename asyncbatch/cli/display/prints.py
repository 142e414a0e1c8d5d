"""The prints of user functions in workers, which would break a display of the same screen."""

from __future__ import annotations

import atexit
import os
import sys
from threading import Thread
from typing import TYPE_CHECKING

from asyncbatch.cli.terminal import is_terminal
from asyncbatch.transforms.spec import CallSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncbatch.config.options.control import OutputFlags

_STDERR = 2
_END_SECONDS = 0.5  # for the last prints of workers that end


class Prints:
    """Hands the lines that workers print to `show`, until `close`.

    Create it before the workers start. From then on, descriptor 2 is a pipe, which they inherit;
    `sys.stderr` of this process still is the terminal.
    """

    def __init__(self) -> None:
        self._terminal = os.dup(_STDERR)
        sys.stderr.flush()
        sys.stderr = os.fdopen(os.dup(_STDERR), "w", buffering=1, errors="backslashreplace")
        self._lines, writer = os.pipe()
        os.dup2(writer, _STDERR)
        os.close(writer)
        self.show: Callable[[str], None] = self._write
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _write(self, line: str) -> None:
        os.write(self._terminal, f"{line}\n".encode(errors="backslashreplace"))

    def _read(self) -> None:
        with os.fdopen(self._lines, errors="backslashreplace") as lines:
            for line in lines:
                self.show(line.rstrip("\n"))

    def close(self) -> None:
        """Show the rest, and leave the terminal to the workers again."""
        os.dup2(self._terminal, _STDERR)  # closes our end of the pipe; theirs end with them
        self._thread.join(_END_SECONDS)


def capture_prints(options: OutputFlags, transforms: Iterable[object]) -> Prints | None:
    """Return the prints of a job that calls user functions, if it may have a display."""
    if options.quiet or not options.progress or not is_terminal(_STDERR):
        return None
    has_calls = any(isinstance(one, CallSpec) for one in transforms)
    return Prints() if has_calls else None
