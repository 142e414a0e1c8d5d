"""The tasks of a stream: batches of lines in, events or partial windows out."""

from __future__ import annotations

import time
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.core.progress import Progress
from asyncbatch.core.records import Position, display_path
from asyncbatch.core.retry import Retrier
from asyncbatch.formats.lines import count_lines, total_lines
from asyncbatch.transforms.chain import make_chain
from asyncbatch.windows.aggregates import AggregateSet
from asyncbatch.windows.events import Events, PartialWindows
from asyncbatch.windows.fixed import group_by_pane
from asyncbatch.windows.times import NumericTimes
from asyncbatch.workers.tasks.event_reader import EventBlock, EventReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.windows.events import Group

    Folded = PartialWindows | EventBlock | None


class LineBatch(Struct, frozen=True):
    """Whole lines of a file, which begin at `position`. The file's last line may lack its LF."""

    start: int  # the number of the first line: no two lines of a stream have the same
    file: str
    position: Position
    pieces: Sequence[bytes]  # whole lines each

    moment: ClassVar[str] = "at this event"
    advice: ClassVar[str] = ""

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Let the pickler hand over the lines without a copy."""
        pieces = list(map(PickleBuffer, self.pieces))
        return LineBatch, (self.start, self.file, self.position, pieces)

    @property
    def lines(self) -> bytes:
        """All lines."""
        return b"".join(self.pieces)

    @property
    def count(self) -> int:
        """The number of lines."""
        return total_lines(self.lines)

    def name(self, number: int) -> str:  # noqa: ARG002 - they have the same file
        """Return the display name of the file of line `number`."""
        return display_path(self.file)

    def may_retry(self, number: int) -> bool:  # noqa: ARG002 - nothing of a batch counts early
        """Whether line `number` can be read again."""
        return True

    def split_at(self, number: int) -> tuple[LineBatch, LineBatch, LineBatch]:
        """Return the lines before line `number`, that line, and the lines after it."""
        lines, begin = self.lines, 0
        for _ in range(number - self.start):
            begin = lines.find(b"\n", begin) + 1
        end = lines.find(b"\n", begin) + 1 or len(lines)
        before, rest = self._cut(lines, begin)
        return before, *rest._cut(lines[begin:], end - begin)

    def halves(self) -> tuple[LineBatch, LineBatch]:
        """Return about half of the lines, and the others."""
        lines, half = self.lines, len(self.lines) // 2
        return self._cut(lines, lines.rfind(b"\n", 0, half) + 1 or lines.find(b"\n", half) + 1)

    def _cut(self, lines: bytes, size: int) -> tuple[LineBatch, LineBatch]:
        first = replace(self, pieces=(lines[:size],))
        if not size:
            return first, self
        position = position_after(lines[:size], self.position)
        start = self.start + first.count
        return first, LineBatch(start, self.file, position, (lines[size:],))


def position_after(lines: bytes, at: Position) -> Position:
    """Return the position after whole lines that begin at a position."""
    count = count_lines(lines, len(lines), first=not at.byte)
    ends = count.ends + (not lines.endswith(b"\n"))
    return Position(at.byte + len(lines), at.record + count.records, at.line + ends)


class EventsPart(Struct):
    """The outcome of a batch of lines: blocks of events, or what the lines were folded into."""

    blocks: list[EventBlock] | None = None
    folded: list[Folded] = []  # for each piece; None if its lines must be read one by one
    seconds: float = 0.0  # the time that it took
    retries: int = 0


class EventsTask:
    """Reads and transforms lines. `keeps_texts`: the events are returned with their texts."""

    def __init__(self, settings: StreamSettings, *, keeps_texts: bool) -> None:
        self._retrier = Retrier(settings.retries)
        self._reader = EventReader(
            settings, AggregateSet(settings.aggregates), "", lambda: time.time_ns() // 1000,
            chain=make_chain(settings.transforms, self._retrier), keeps_texts=keeps_texts,
        )  # fmt: skip
        # as that of `TransformTask`, but counts lines instead of files
        self.progress: Progress = Progress()

    def __call__(self, batch: LineBatch) -> Iterator[EventsPart]:
        """Yield the events of a batch."""
        began, reader = time.perf_counter(), self._reader
        reader.progress = self.progress
        reader.begin_file(batch.file, batch.position, batch.start)
        blocks = list(reader.read(batch.lines))
        seconds, retries = time.perf_counter() - began, self._retrier.take_retry_count()
        yield EventsPart(blocks, seconds=seconds, retries=retries)


# Groups with fewer events on average are sent as values: their totals would be larger.
_MIN_EVENTS_PER_GROUP = 8


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

    def __call__(self, batch: LineBatch) -> Iterator[EventsPart]:
        """Yield the windows of a batch."""
        yield EventsPart(folded=[self._fold(lines) for lines in batch.pieces])

    def _fold(self, lines: bytes) -> Folded:
        events = self._reader.read_fast(lines)
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
