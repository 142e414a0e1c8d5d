"""A stream on a terminal, as a table that redraws itself; see `console` for who imports rich."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from asyncbatch.cli.stream_display import facts
from asyncbatch.windows.times import utc_text
from asyncbatch.words import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from asyncbatch.streams.run import StreamSnapshot
    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

_OTHER_LINES = 8
"""Of the screen: head, rules, facts, the prompt."""
_DAY = 10
"""A time's first characters are its day."""


class LiveWindows:
    """The windows that are open, above them those that were over last, and a line of facts."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._console = Console()
        self._over: deque[Window] = deque(maxlen=self._room())
        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def takes(self, windows: Sequence[Window]) -> bool:
        """Keep windows for the table, which is all that is shown."""
        self._over.extend(windows)
        return True

    def show(self, snapshot: StreamSnapshot, *, last: bool = False) -> None:  # noqa: ARG002 - part of the contract
        """Draw the table."""
        self._live.update(self._drawn(snapshot), refresh=True)

    def tell(self, line: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(line, style="yellow"))

    def close(self) -> None:
        """Leave the last table standing and give the cursor back."""
        self._live.stop()

    def _room(self) -> int:
        return max(4, self._console.height - _OTHER_LINES)

    def _drawn(self, snapshot: StreamSnapshot) -> RenderableType:
        stream, room = self._stream, self._room()
        opened = stream.open[: room // 2]
        over = list(self._over)[-(room - len(opened)) :]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("window")
        for name in stream.keys.names:
            table.add_column(printable(name))
        for aggregate in stream.recipe.aggregates:
            table.add_column(printable(aggregate.name), justify="right")
        for (start, end, is_open), group in groupby(
            [*((one, False) for one in over), *((one, True) for one in opened)],
            lambda found: (found[0].start, found[0].end, found[1]),
        ):
            span = f"{_shown_time(start)} - {_shown_time(end)}"
            style = "dim" if is_open else None
            for one, _ in group:
                key = map(_shown, stream.keys.named(one.key).values())
                values = map(_shown, stream.recipe.results(one.totals).values())
                if span:
                    span += " ..." if is_open else " partial" if one.partial else ""
                table.add_row(span, *key, *values, style=style)
                span = ""
        return Group(table, Text(""), Text("  ".join(facts(snapshot)), style="cyan"))


def _shown_time(micros: int) -> str:
    return utc_text(micros)[_DAY + 1 : -1]


def _shown(value: Any) -> Text:  # noqa: ANN401 - JSON
    if type(value) is float:
        return Text(f"{value:,.2f}")
    return Text(f"{value:,}" if type(value) is int else printable(str(value)))
