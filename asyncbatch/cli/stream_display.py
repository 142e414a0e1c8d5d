"""The display of a stream: while it runs, and at its end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from asyncbatch.cli.terminal import is_terminal, stdout
from asyncbatch.cli.text import LINE_EVERY_SECONDS, stream_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.windows.events import Window


class StreamDisplay(Protocol):
    """Shows how far a stream is."""

    def add(self, windows: Sequence[Window]) -> bool:
        """Show closed windows. Return whether no other output has to show them."""
        ...

    def show(self, snapshot: StreamSnapshot, *, last: bool = False) -> None:
        """Show a snapshot, or not yet."""
        ...

    def log(self, line: str) -> None:
        """Say something that must not be missed."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


def make_display(
    stream: StreamCore, *, quiet: bool, stdout_is_taken: bool = False
) -> StreamDisplay:
    """Return a table on a terminal, else a plain progress line; nothing if `quiet`."""
    if is_terminal(stdout().fileno()) and not (quiet or stdout_is_taken):
        from asyncbatch.cli.rich import LiveWindows

        return LiveWindows(stream)
    return PlainStream(quiet=quiet)


class PlainStream:
    """Writes a line now and then on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._last = time.monotonic()

    def add(self, windows: Sequence[Window]) -> bool:  # noqa: ARG002 - part of the contract
        """Leave windows to standard output."""
        return False

    def show(self, snapshot: StreamSnapshot, *, last: bool = False) -> None:
        """Write a progress line, if it is time."""
        now = time.monotonic()
        if not self._quiet and not last and now - self._last >= LINE_EVERY_SECONDS:
            self._last = now
            sys.stderr.write(", ".join(stream_facts(snapshot)) + "\n")
            sys.stderr.flush()

    def log(self, line: str) -> None:
        """Write a line on stderr, also if it is to be quiet."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Do nothing: lines stay."""
