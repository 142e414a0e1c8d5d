"""The progress display of a stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from asyncbatch.cli.terminal import is_terminal, stdout, to_stderr
from asyncbatch.cli.text import LINE_EVERY_SECONDS, stream_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.windows.events import Window


class StreamDisplay(Protocol):
    """A display of the progress of a stream."""

    def add(self, windows: Sequence[Window]) -> bool:
        """Show closed windows. Return False if standard output must print them."""
        ...

    def show(self, snapshot: StreamSnapshot, *, last: bool = False) -> None:
        """Show a snapshot. A display may skip snapshots that come too soon."""
        ...

    def log(self, line: str) -> None:
        """Write an important line, also in quiet mode."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


def make_display(
    stream: StreamCore, *, quiet: bool, stdout_is_taken: bool = False
) -> StreamDisplay:
    """Return a live table on a terminal, else plain lines. `quiet` hides the progress."""
    if is_terminal(stdout().fileno()) and not (quiet or stdout_is_taken):
        from asyncbatch.cli.rich import LiveWindows

        return LiveWindows(stream)
    return PlainStream(quiet=quiet)


class PlainStream:
    """A display that writes a progress line to stderr every few seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._last = time.monotonic()

    def add(self, windows: Sequence[Window]) -> bool:  # noqa: ARG002 - a parameter of StreamDisplay
        """Return False: standard output prints the windows."""
        return False

    def show(self, snapshot: StreamSnapshot, *, last: bool = False) -> None:
        """Write a progress line if the last one is old enough."""
        now = time.monotonic()
        if not self._quiet and not last and now - self._last >= LINE_EVERY_SECONDS:
            self._last = now
            to_stderr(", ".join(stream_facts(snapshot)))

    def log(self, line: str) -> None:
        """Write a line to stderr, also in quiet mode."""
        to_stderr(line)

    def close(self) -> None:
        """Do nothing: the lines stay on the screen."""
