"""The task that folds lines into partial windows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.core.records import Position
from asyncbatch.formats.lines import count_lines
from asyncbatch.windows.aggregates import AggregateSet
from asyncbatch.windows.events import Events, PartialWindows
from asyncbatch.windows.fixed import group_by_pane
from asyncbatch.windows.times import NumericTimes
from asyncbatch.workers.tasks.event_reader import EventBlock, EventReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.windows.events import Group


class LineRange(Struct, frozen=True):
    """Whole lines of a file from a position. The last line of the file may lack its LF."""

    file: str
    start: Position
    lines: bytes

    @property
    def end(self) -> Position:
        """The position after the last line."""
        lines, at = self.lines, self.start
        count = count_lines(lines, len(lines), first=not at.byte)
        ends = count.ends + (not lines.endswith(b"\n"))
        return Position(at.byte + len(lines), at.record + count.records, at.line + ends)

    def split_at_line(self, line: int) -> tuple[LineRange, LineRange, LineRange]:
        """Return the lines before line number `line` (from 0), that line, the lines after it."""
        lines, start = self.lines, 0
        for _ in range(line):
            start = lines.find(b"\n", start) + 1
        end = lines.find(b"\n", start) + 1 or len(lines)
        before = LineRange(self.file, self.start, lines[:start])
        one = LineRange(self.file, before.end if start else self.start, lines[start:end])
        return before, one, LineRange(self.file, one.end, lines[end:])

    def split_by_size(self, size: int) -> list[LineRange]:
        """Return ranges of about `size` bytes, of whole lines."""
        pieces, at, start, lines = list[LineRange](), self.start, 0, self.lines
        while len(lines) - start > size:
            end = lines.rfind(b"\n", start, start + size) + 1 or lines.find(b"\n", start) + 1
            if not end:
                break
            pieces.append(LineRange(self.file, at, lines[start:end]))
            at, start = pieces[-1].end, end
        if start < len(lines):
            pieces.append(LineRange(self.file, at, lines[start:]))
        return pieces


_MIN_EVENTS_PER_GROUP = (
    8  # Groups with fewer events on average are sent as values: their totals would be larger.
)


class FoldTask:
    """Folds lines into partial windows; None for lines that must be read one by one.

    Sessions get events in place of totals. The stream itself checks how far ahead of the clock
    events are, and sets their arrival.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._recipe = AggregateSet(settings.aggregates)
        self._reader = EventReader(
            replace(settings, max_future=None), self._recipe, "", now=lambda: 0
        )
        self._pane = settings.window.pane
        self._makes_windows = settings.window.kind != "session"

    def __call__(
        self, pieces: Sequence[bytes]
    ) -> Iterator[list[PartialWindows | EventBlock | None]]:
        """Yield, in one list, the outcome of each item."""
        yield [self._read(lines) for lines in pieces]

    def _read(self, lines: bytes) -> PartialWindows | EventBlock | None:
        events = self._reader.read_fast(lines, lines.count(b"\n"))
        if events is None:
            return None
        moments = events.moments
        if not self._makes_windows:
            times = NumericTimes(moments.all())
            return EventBlock(
                events.count, Events(events.count, times, events.keys, events.columns)
            )
        groups = list(group_by_pane(events, self._pane))
        if len(groups) * _MIN_EVENTS_PER_GROUP <= events.count:
            groups = [self._aggregate(group) for group in groups]
        return PartialWindows(events.count, moments.lowest, moments.highest, groups)

    def _aggregate(self, group: Group) -> Group:
        totals = self._recipe.empty()
        totals.add(group.count, group.columns)
        return replace(group, columns=(), totals=totals)


def fold_factory(settings: StreamSettings) -> Callable[[], Any]:
    """Return a picklable factory of a `FoldTask`."""
    return partial(FoldTask, settings)
