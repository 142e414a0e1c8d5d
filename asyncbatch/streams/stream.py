"""One stream, from bytes to windows that are over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncbatch.streams.inlet import Inlet
from asyncbatch.streams.line_cutter import first_lines
from asyncbatch.streams.reader import EventReader
from asyncbatch.streams.tally import StreamTally
from asyncbatch.windows.aggregates import Recipe
from asyncbatch.windows.keys import KeyFields
from asyncbatch.windows.make import make_windower
from asyncbatch.windows.panes import FixedWindows
from asyncbatch.windows.watermark import NEVER, Watermark

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.streams.chunks import Chunk
    from asyncbatch.streams.reader import Block
    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.windows.events import Folded, Window


def _wall_clock() -> int:
    return time.time_ns() // 1000


def _steady_clock() -> int:
    return time.monotonic_ns() // 1000


class Stream:
    """Takes bytes of JSON Lines as they come, and gives back the windows that are over.

    Each source has joined before its first chunk, and leaves after its last. What is rejected or
    late goes to `reject` and `late`, as lines; nothing is kept of it but counts. After
    `max_events` records it `is_full` and takes no more. The clocks, which tests replace, tell
    microseconds: `wall_clock` since the epoch, `clock` since anywhere. Raises UsageError, also
    for an aggregate that cannot be meant.
    """

    def __init__(
        self,
        settings: StreamSettings,
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
        overflow = settings.overflow_key
        self._windower = make_windower(
            settings.window,
            self.recipe,
            self.keys,
            self._watermark,
            max_keys=settings.max_keys,
            overflow=None if overflow is None else self.keys.same(overflow),
        )
        self._inlets: dict[str, Inlet] = {}
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

    def join(self, source: str) -> None:
        """Expect chunks of a source. Raises UsageError for a field that cannot be meant."""
        self._watermark.join(source)
        self._inlets[source] = Inlet(
            lambda file: EventReader(self.settings, self.recipe, file, self._wall_clock, source),
            source,
        )

    def leave(self, source: str) -> list[Window]:
        """Expect no more of a source; return the windows that are therefore over."""
        del self._inlets[source]
        self._watermark.leave(source)
        return self._told(self._windower.advance()) if self._inlets else []

    def reached(self, source: str) -> int | None:
        """Return the largest time that a source has told of; None if it has told of none."""
        top = self._watermark.top(source)
        return None if top == NEVER else top

    def feed(self, source: str, chunk: Chunk) -> list[Window]:
        """Take a chunk. Raises TooManyKeysError, LineTooLongError, SinkError."""
        if self.begins_file(source, chunk):
            self.begin_file(source, chunk)
        return self.take(source, self.cut(source, chunk))

    def begins_file(self, source: str, chunk: Chunk) -> bool:
        """Whether a chunk is of another file than those before it."""
        return chunk.begins or self._inlets[source].file != chunk.file

    def begin_file(self, source: str, chunk: Chunk) -> None:
        """Go on with a chunk's file, once all lines of the one before are taken."""
        self._inlets[source].begin(chunk.file)

    def cut(self, source: str, chunk: Chunk) -> bytes:
        """Return the lines that end in a chunk, for `take`. Raises LineTooLongError."""
        self.tally.bytes += len(chunk.data)
        if chunk.loss is not None:
            self.tally.lose(chunk.loss)
        return self._inlets[source].cut(chunk)

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

    def take_folded(self, source: str, lines: bytes, folded: Folded | None) -> list[Window]:
        """Take lines of which somebody has made `folded`, None if that was not possible."""
        ahead = self.settings.max_future
        windows = None
        if (
            folded is not None
            and isinstance(self._windower, FixedWindows)
            and (ahead is None or folded.highest <= self._wall_clock() + ahead)
        ):
            windows = self._windower.take_folded(folded, source)
        if windows is None:
            return self.take(source, lines)
        assert folded is not None
        self._inlets[source].reader.skip(lines, folded.count)
        self.tally.read += folded.count
        self.tally.events += folded.count
        return self._told(windows)

    def take(self, source: str, lines: bytes) -> list[Window]:
        """Take whole lines; raises as `feed`."""
        if not lines:
            return []
        if self._room is not None:
            lines = first_lines(lines, self._room)
        blocks = self._inlets[source].reader.read(lines)
        return self._told([window for block in blocks for window in self._put(block)])

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
