"""A display that redraws itself in place: typed keys, stops and new sizes of the terminal."""

from __future__ import annotations

import atexit
import os
import termios
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.text import Text

from asyncbatch.cli.display.folding import fold_text
from asyncbatch.core.units import printable_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LOCAL_MODES = 3  # the index of these flags in the attributes of a terminal


class Screen:
    """The last lines of a terminal, which `show` draws anew, below the lines of `log`.

    It appears with the first `show`, and only while this process is in the foreground: call `show`
    again and again. Meanwhile typed keys are not echoed, because each would break a line. Call
    `suspend` before the process stops, and `close` at the end. `is_kept`: the last lines stay.
    """

    def __init__(self, console: Console, *, is_kept: bool) -> None:
        self._console, self._is_kept = console, is_kept
        self._descriptor = console.file.fileno()
        self._live: Live | None = None
        self._is_silent = False  # whether we have turned the echo off
        self._shown: list[int] = []  # the widths of the drawn lines
        self._width = console.width
        self._lock = Lock()  # the prints of workers come from a thread

    def show(self, lines: RenderableType) -> None:
        """Draw lines in place of those before."""
        if not self._is_in_foreground():
            return
        self._set_echo(is_on=False)
        with self._lock:
            if self._live is None:
                self._live = Live(
                    console=self._console, auto_refresh=False, transient=not self._is_kept
                )
                self._live.start()
            self._adapt_to_width()
            self._live.update(lines, refresh=True)
            drawn = self._console.render_lines(lines, pad=False)
            self._shown = [Segment.get_line_length(line) for line in drawn]

    def log(self, line: str, style: str = "") -> None:
        """Write a line above the drawn ones. Safe for several threads."""
        folded = fold_text(printable_lines(line), self._console.width)
        with self._lock:
            self._adapt_to_width()
            self._console.print(Text(folded, style), soft_wrap=True)

    def suspend(self) -> None:
        """Leave the terminal to others. The next `show` begins anew."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None
            self._shown = []
        self._set_echo(is_on=True)

    close = suspend

    def _is_in_foreground(self) -> bool:
        """Whether the terminal is ours. A change of its modes from the background would stop us."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # it is not our controlling terminal
            return True

    def _set_echo(self, *, is_on: bool) -> None:
        """Turn the echo of keys off, or on again if we have turned it off."""
        if (is_on and not self._is_silent) or not self._is_in_foreground():
            return
        with suppress(termios.error):  # the terminal is gone
            modes = termios.tcgetattr(self._descriptor)
            has_echo = bool(modes[_LOCAL_MODES] & termios.ECHO)
            if has_echo != is_on:  # a shell may turn it on, when it stops us
                modes[_LOCAL_MODES] ^= termios.ECHO
                termios.tcsetattr(self._descriptor, termios.TCSANOW, modes)
                if not self._is_silent:
                    atexit.register(self._set_echo, is_on=True)
                self._is_silent = not is_on

    def _adapt_to_width(self) -> None:
        """Erase the rows that the drawn lines gained if the terminal became narrower.

        Terminals wrap lines that no longer fit: then the lines have more rows than were drawn.
        """
        width, before = max(1, self._console.width), self._width
        self._width = width
        if width >= before or self._live is None:
            return
        gained = sum(max(0, (length - 1) // width) for length in self._shown)
        up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * gained
        self._console.control(
            Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)
        )
        self._shown = [min(length, width) for length in self._shown]
