"""Bounded samples of a run or stream: its course over time, files, messages, windows."""

from __future__ import annotations

from collections import deque
from functools import reduce
from math import gcd
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from msgspec import Struct

from asyncbatch.core.batches import BatchPart
from asyncbatch.core.report import StreamReport
from asyncbatch.core.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.cli.display.stream_output import StreamPart
    from asyncbatch.cli.render import Outcomes
    from asyncbatch.core.ledger_entries import FileStatus
    from asyncbatch.core.records import Failure
    from asyncbatch.core.report import AnyReport
    from asyncbatch.core.tally import FailureGroup
    from asyncbatch.windows.events import Window, WindowSchema

MAX_POINTS = 600  # points over time; more cannot be told apart in a chart
MAX_FILES = 2000
MAX_MESSAGES = 1000
MAX_WINDOW_BARS = 600
MAX_RECENT_WINDOWS = 100
_MAX_NAME_CHARACTERS = 200  # the end of a longer name is kept
_SECONDS = 1e6  # microseconds

Column = list[float | None]


class TimeSeries:
    """Counts and memory over time, in columns of at most MAX_POINTS values.

    Call `add` while the work goes on, and `end` once. When the columns are full, every second point
    is dropped, and the interval between points doubles.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        self._interval = self._next = 0.0  # in seconds

    def add(self, report: AnyReport) -> None:
        """Add a point, if the last one is an interval ago."""
        if report.elapsed_s >= self._next:
            if not self.columns:
                self._append(_start(report))
            self._append(_point(report))

    def end(self, report: AnyReport) -> None:
        """Add the last point. It replaces one before it that is too close for a rate."""
        seconds = self.columns.get("seconds", [])
        if len(seconds) > 2 and report.elapsed_s - (seconds[-1] or 0.0) < self._spacing / 2:
            for column in self.columns.values():
                column.pop()
        self._next = 0.0
        self.add(report)
        # The workers are gone at the end, and their memory with them.
        memory = self.columns["memory_bytes"]
        memory[-1] = max(memory[-2:], key=lambda value: value or 0.0)

    @property
    def _spacing(self) -> float:
        """The mean of the seconds between points."""
        seconds = self.columns["seconds"]
        return (seconds[-1] or 0.0) / (len(seconds) - 1)

    def _append(self, point: dict[str, float | None]) -> None:
        for name, value in point.items():
            self.columns.setdefault(name, []).append(value)
        if len(self.columns["seconds"]) >= MAX_POINTS:
            self._interval = 2 * (self._interval or self._spacing)
            for column in self.columns.values():
                del column[1::2]
        self._next = (self.columns["seconds"][-1] or 0.0) + self._interval


def _point(report: AnyReport) -> dict[str, float | None]:
    """Return the values of this moment. Those before the memory are counts that grow."""
    seconds = round(report.elapsed_s, 3)
    if isinstance(report, StreamReport):
        tally = report.tally
        lag = None if report.lag is None else report.lag / _SECONDS
        return {
            "seconds": seconds, "events": report.read, "bytes": report.bytes,
            "windows": tally.windows, "late": tally.late, "rejected": tally.rejected,
            "memory_bytes": report.memory_bytes, "lag_s": lag,
        }  # fmt: skip
    return {
        "seconds": seconds, "files": report.tally.files, "records": report.tally.read,
        "bytes": report.tally.bytes, "memory_bytes": report.memory_bytes,
    }  # fmt: skip


def _start(report: AnyReport) -> dict[str, float | None]:
    """Return the values at the start. The counts of earlier runs of a stream were there then."""
    point = _point(report)
    if isinstance(report, StreamReport):
        return {**point, "seconds": 0.0, "events": 0, "bytes": 0, "lag_s": None}
    return {**dict.fromkeys(point, 0.0), "memory_bytes": point["memory_bytes"]}


class SampledFile(NamedTuple):
    """The size and the duration of one file."""

    number: int  # of the file within the run
    file: str
    bytes: int
    elapsed_ms: float
    status: FileStatus


class FileSample:
    """At most MAX_FILES files of a run, the same ones in whatever order they finish.

    A file is taken if the hash of its number is below a limit, which is halved when the sample is
    full. Multiples of the golden ratio are spread evenly, also those of every second number, so the
    sample does not prefer one of two kinds of files that alternate.
    """

    def __init__(self) -> None:
        self._limit = 2**32
        self._files: list[SampledFile] = []

    def add(self, found: BatchPart) -> None:
        """Add the finished files of a part that belong to the sample."""
        part, limit = found.part, self._limit
        numbers = range(part.start, part.start + len(part))
        chosen = [number for number in numbers if number * _GOLDEN & _MASK < limit]
        for number in chosen:
            index = number - part.start
            if index not in part.skipped:
                name, took = _short_name(found.file(index)), round(part.elapsed_ms[index], 3)
                status = part.status(index)
                self._files.append(SampledFile(number, name, part.bytes[index], took, status))
        while len(self._files) > MAX_FILES:
            self._limit = limit = limit // 2
            self._files = [one for one in self._files if one.number * _GOLDEN & _MASK < limit]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The sample in columns, in the order of the files."""
        files = sorted(self._files)
        return {
            "file": [one.file for one in files],
            "bytes": [one.bytes for one in files],
            "elapsed_ms": [one.elapsed_ms for one in files],
            "status": [one.status for one in files],
        }


_MASK = 2**32 - 1
_GOLDEN = 2654435769  # 2**32 divided by the golden ratio


def _short_name(file: str) -> str:
    shown = printable(file[-_MAX_NAME_CHARACTERS:])
    return shown if len(file) <= _MAX_NAME_CHARACTERS else f"…{shown}"


class MessageCount(Struct):
    """The failures with the same kind and message."""

    order: tuple[int, int, int]  # of `first`: the number of the file, the split, the record
    first: Failure
    count: int = 0
    files: int = 0
    last_file: int = -1  # the number of the last file with such a failure


class MessageCounts:
    """The failures of a run by kind and message, for the first MAX_MESSAGES of these."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], MessageCount] = {}
        # The parts of a split file come between others: the files of each message, by its `id`.
        self._split_files: set[tuple[int, int]] = set()

    def add(self, found: BatchPart) -> None:
        """Count the failures of a part. Those of one file follow each other."""
        split = found.batch.split
        for number, failure in found.part.failures():
            order = number, split.number if split else 0, failure.record or 0
            known = self._get(order, failure)
            if known is None:
                continue
            known.count += 1
            if order < known.order:
                known.order, known.first = order, failure
            if number == known.last_file or (id(known), number) in self._split_files:
                continue
            known.files += 1
            known.last_file = number
            if split is not None:
                self._split_files.add((id(known), number))

    def add_groups(self, groups: Iterable[FailureGroup]) -> None:
        """Count the failures of a report that came in no part."""
        known = {*self._messages}
        for group in groups:
            first = group.first
            if (first.kind, first.message) in known:
                continue
            message = self._get((len(self._messages), 0, 0), first)
            if message is not None:
                message.count += group.count
                message.files += 1

    def _get(self, order: tuple[int, int, int], failure: Failure) -> MessageCount | None:
        """Return the count of a message, or None if there are too many others."""
        key = failure.kind, failure.message
        known = self._messages.get(key)
        if known is None and len(self._messages) < MAX_MESSAGES:
            known = self._messages[key] = MessageCount(order, failure)
        return known

    @property
    def frequent(self) -> list[MessageCount]:
        """The counts, the largest first, equal ones in input order."""
        return sorted(self._messages.values(), key=lambda one: (-one.count, one.order))


class _Bar(Struct):
    """The windows that start within a span of event time."""

    windows: int = 0
    events: int = 0


class WindowSample:
    """The windows of a stream over event time in at most MAX_WINDOW_BARS bars, and the last ones.

    A bar is one start of windows, with all their keys. When there are too many, neighbours are
    added up.
    """

    def __init__(self) -> None:
        self._bars: dict[int, _Bar] = {}  # by the start in microseconds
        self._first = 0
        self._width = 0  # microseconds of a bar; 0: each start has a bar
        self._recent: deque[tuple[WindowSchema, Window]] = deque(maxlen=MAX_RECENT_WINDOWS)

    def add(self, schema: WindowSchema, windows: Sequence[Window]) -> None:
        """Add closed windows."""
        for window in windows:
            bar = self._bars.setdefault(self._start(window.start), _Bar())
            bar.windows += 1
            bar.events += window.totals.count
            if len(self._bars) > MAX_WINDOW_BARS:
                self._merge_bars()
        self._recent.extend((schema, window) for window in windows[-MAX_RECENT_WINDOWS:])

    def _start(self, start: int) -> int:
        """Return the start of the bar of a window."""
        if not self._width:
            return start
        return self._first + (start - self._first) // self._width * self._width

    def _merge_bars(self) -> None:
        """Double the width of the bars until half of them are left."""
        if not self._width:
            self._first = min(self._bars)
            # so that each bar has the same number of windows, if they follow each other regularly
            self._width = reduce(gcd, (start - self._first for start in self._bars))
        while len(self._bars) > MAX_WINDOW_BARS // 2:
            self._width *= 2
            merged: dict[int, _Bar] = {}
            for start, bar in self._bars.items():
                sum_of = merged.setdefault(self._start(start), _Bar())
                sum_of.windows += bar.windows
                sum_of.events += bar.events
            self._bars = merged

    @property
    def columns(self) -> dict[str, list[float]]:
        """The bars in columns: the start in seconds since the epoch, windows, events."""
        bars = sorted(self._bars.items())
        return {
            "start": [start / _SECONDS for start, _ in bars],
            "windows": [bar.windows for _, bar in bars],
            "events": [bar.events for _, bar in bars],
        }

    @property
    def recent(self) -> list[tuple[WindowSchema, Window]]:
        """The last windows, the newest first, each with its schema."""
        return [*reversed(self._recent)]


class Samples:
    """All samples of one run or stream: its course over time, its files or windows, its messages.

    Call `update` while the work goes on, `part` for each part, and `end` once.
    """

    series: TimeSeries
    files: FileSample
    windows: WindowSample

    def __init__(self) -> None:
        self.series, self.files, self.windows = TimeSeries(), FileSample(), WindowSample()
        self.messages: MessageCounts = MessageCounts()

    def update(self, report: AnyReport) -> None:
        """Take a point of the course over time."""
        self.series.add(report)

    def part(self, found: Outcomes) -> None:
        """Take some of the finished files or windows."""
        if isinstance(found, BatchPart):
            self.files.add(found)
            self.messages.add(found)
        else:
            part = cast("StreamPart", found)
            self.windows.add(part.schema, part.windows)

    def end(self, report: AnyReport) -> None:
        """Take the last point, and the failures that came in no part."""
        self.series.end(report)
        self.messages.add_groups(report.first_groups)

    @property
    def columns(self) -> dict[str, Any]:
        """The values of the charts, by the names that the scripts of pages know."""
        return {
            "series": self.series.columns,
            "files": self.files.columns,
            "windows": self.windows.columns,
        }
