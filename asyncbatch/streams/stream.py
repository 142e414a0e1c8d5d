"""One stream, from bytes to windows that are over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncbatch.streams.line_cutter import LineCutter, first_lines
from asyncbatch.streams.reader import EventReader
from asyncbatch.streams.tally import StreamTally
from asyncbatch.windows.aggregates import Recipe
from asyncbatch.windows.keys import KeyFields
from asyncbatch.windows.make import make_windower
from asyncbatch.windows.panes import FixedWindows
from asyncbatch.windows.watermark import NEVER, Watermark

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.streams.reader import Block
    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.windows.events import Folded, Window


def _wall_clock() -> int:
    return time.time_ns() // 1000


def _steady_clock() -> int:
    return time.monotonic_ns() // 1000


class Stream:
    """Takes bytes of JSON Lines as they come, and gives back the windows that are over.

    What is rejected or late goes to `reject` and `late`, as lines; nothing is kept of it but
    counts. After `max_events` records it `is_full` and takes no more. The clocks, which tests
    replace, tell microseconds: `wall_clock` since the epoch, `clock` since anywhere. Raises
    UsageError, also for a field or aggregate that cannot be meant.
    """

    def __init__(
        self,
        settings: StreamSettings,
        file: str,
        *,
        reject: Callable[[bytes], None] | None = None,
        late: Callable[[bytes], None] | None = None,
        max_events: int | None = None,
        wall_clock: Callable[[], int] = _wall_clock,
        clock: Callable[[], int] = _steady_clock,
    ) -> None:
        self.settings, self.recipe = settings, Recipe(settings.aggregates)
        self.keys = KeyFields(settings.by)
        self.tally = StreamTally()
        self._wall_clock = wall_clock
        self._watermark = Watermark(settings.lateness, settings.idle, clock)
        self._watermark.join("")
        overflow = settings.overflow_key
        self._windower = make_windower(
            settings.window,
            self.recipe,
            self.keys,
            self._watermark,
            max_keys=settings.max_keys,
            overflow=None if overflow is None else self.keys.same(overflow),
        )
        self._reader = EventReader(settings, self.recipe, file, wall_clock)
        self._cutter = LineCutter()
        self._reject, self._late = reject, late
        self._room = max_events

    @property
    def is_full(self) -> bool:
        """Whether it has as many events as it may."""
        return self._room == 0

    @property
    def lag(self) -> int | None:
        """How far the watermark is behind the clock, in microseconds; None before any event."""
        value = self._watermark.value
        return None if value == NEVER else self._wall_clock() - value

    @property
    def open(self) -> list[Window]:
        """The windows that are not over, as they are now."""
        return self._windower.open

    def feed(self, data: bytes) -> list[Window]:
        """Take bytes. Raises TooManyKeysError, LineTooLongError, SinkError."""
        return self.take(self.cut(data))

    def end(self) -> list[Window]:
        """Take the last line, if it lacks its end; raises as `feed`."""
        return self.take(self._cutter.rest())

    def cut(self, data: bytes) -> bytes:
        """Return the lines that end in `data`, for `take`. Raises LineTooLongError."""
        self.tally.bytes += len(data)
        return self._cutter.take(data)

    def tick(self) -> list[Window]:
        """Return the windows that are over because time has passed."""
        if self.settings.time is None:
            self._watermark.raise_to(self._wall_clock())
        else:
            self._watermark.tick()
        return self._told(self._windower.advance())

    def finish(self, *, partial: bool) -> list[Window]:
        """Return all windows that are not over; `partial` if more events might have come."""
        return self._told(self._windower.finish(partial=partial))

    @property
    def can_fold(self) -> bool:
        """Whether others may put lines together with `Folding`, for `take_folded`."""
        settings = self.settings
        own = settings.transforms or settings.time is None or self._room is not None
        return not own and isinstance(self._windower, FixedWindows)

    def take_folded(self, lines: bytes, folded: Folded | None) -> list[Window]:
        """Take lines of which somebody has made `folded`, None if that was not possible."""
        ahead = self.settings.max_future
        windows = None
        if (
            folded is not None
            and isinstance(self._windower, FixedWindows)
            and (ahead is None or folded.highest <= self._wall_clock() + ahead)
        ):
            windows = self._windower.take_folded(folded)
        if windows is None:
            return self.take(lines)
        assert folded is not None
        self._reader.skip(lines, folded.count)
        self.tally.read += folded.count
        self.tally.events += folded.count
        return self._told(windows)

    def take(self, lines: bytes) -> list[Window]:
        """Take whole lines; raises as `feed`."""
        if not lines:
            return []
        if self._room is not None:
            lines = first_lines(lines, self._room)
        closed = [window for block in self._reader.read(lines) for window in self._put(block)]
        return self._told(closed)

    def _put(self, block: Block) -> list[Window]:
        tally = self.tally
        tally.read += block.records
        tally.dropped += block.dropped
        if self._room is not None:
            self._room -= block.records
        if block.rejected:
            for failure, _ in block.rejected:
                tally.reject(failure)
            if self._reject is not None:
                self._reject(b"".join(letter for _, letter in block.rejected))
        if block.events is None:
            return []
        taken = self._windower.take(block.events)
        tally.late += len(taken.late)
        tally.late_in_part += taken.late_in_part
        tally.events += block.events.count - len(taken.late)
        if taken.late and self._late is not None:
            texts = block.texts()
            self._late(b"".join(texts[place].rstrip() + b"\n" for place in taken.late))
        return taken.closed

    def _told(self, windows: list[Window]) -> list[Window]:
        self.tally.windows += len(windows)
        return windows
