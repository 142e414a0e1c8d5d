"""The core of a stream: it cuts chunks of sources into events, and adds these to windows."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncbatch.core.records import Failure, display_path
from asyncbatch.core.retry import Retrier
from asyncbatch.core.tally import StreamTally
from asyncbatch.errors import UsageError
from asyncbatch.formats.detect import find_stream_fault
from asyncbatch.formats.lines import LineSplitter, count_lines, first_lines
from asyncbatch.formats.positions import BOM
from asyncbatch.sources.base import LiveChunk
from asyncbatch.state.checkpoint import SourceState, StreamState
from asyncbatch.transforms.chain import chain_of, is_async, make_stages
from asyncbatch.windows.aggregates import AggregateSet
from asyncbatch.windows.events import KeyFields, PartialWindows, WindowSchema
from asyncbatch.windows.fixed import FixedWindows, make_windower
from asyncbatch.windows.times import utc_text
from asyncbatch.windows.watermark import NEVER, Watermark
from asyncbatch.workers.tasks.event_reader import EventBlock, EventReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.core.records import Position
    from asyncbatch.formats.grammar import Fault
    from asyncbatch.transforms.base import Transform
    from asyncbatch.transforms.call import AsyncCall
    from asyncbatch.windows.events import Window
    from asyncbatch.workers.tasks.events import EventsPart, Folded


class SourceReader:
    """Cuts the chunks of one source into lines; its `reader` makes events of the lines.

    `position` is the position of the last chunk that was cut; None if it cannot be replayed.
    """

    file: str
    reader: EventReader

    def __init__(self, make_reader: Callable[[str], EventReader], file: str) -> None:
        self._make_reader = make_reader
        self.file, self.reader = file, make_reader(file)
        self.position: Any = None
        self._splitter = LineSplitter()
        self._is_skipped = False
        self._fault: Fault | None = None

    def begin(self, file: str) -> None:
        """Start another file at its beginning."""
        self.file, self.reader = file, self._make_reader(file)
        self._is_skipped = False

    def skips(self, chunk: LiveChunk) -> bool:
        """Whether a chunk belongs to a file that is not JSON Lines, which is rejected as a whole.

        Call it for each chunk, before `cut`.
        """
        if chunk.is_head:
            self._fault = find_stream_fault(chunk.data)
            self._is_skipped = self._fault is not None
        if self._is_skipped:
            self.position = chunk.position
        return self._is_skipped

    def take_fault(self) -> Fault | None:
        """Return the error of the file that is skipped, for its first chunk only."""
        fault, self._fault = self._fault, None
        return fault

    def cut(self, chunk: LiveChunk) -> bytes:
        """Return the lines whose end is in a chunk. Raises LineTooLongError."""
        self.position = chunk.position
        lines = self._splitter.feed(chunk.data)
        return lines + self._splitter.flush() if chunk.ends_file else lines

    def give_back(self, lines: bytes) -> None:
        """Put lines back, so that a resumed stream reads them."""
        self._splitter.push_back(lines)

    @property
    def has_lines(self) -> bool:
        """Whether lines are held that the next `cut` returns."""
        return self._splitter.has_pushed_back

    def state(self, highest_time: int, *, is_over: bool = False) -> SourceState:
        """Return the state. `highest_time` is the largest event time of the source.

        A source that cannot be replayed has no position.
        """
        at, arrived = self.reader.state
        if self.position is None:
            return SourceState(highest_time, is_over, arrived=arrived)
        return SourceState(
            highest_time, is_over, self.position, self.file, self._splitter.buffered, at, arrived,
            self._is_skipped,
        )  # fmt: skip

    def restore(self, state: SourceState) -> None:
        """Restore a new reader from a `state`."""
        if state.position is not None:
            self.position = state.position
            self.begin(state.file)
            self._splitter.restore(state.held)
            self._is_skipped = state.is_skipped
        self.reader.resume(state.at, state.arrived)


def _wall_clock() -> int:
    return time.time_ns() // 1000


def _steady_clock() -> int:
    return time.monotonic_ns() // 1000


class StreamCore:
    """Takes bytes of JSON Lines from sources, and returns closed windows. It reads nothing itself.

    Each source joins before its first chunk, and leaves after its last. `reject` is called with
    rejected lines, `late` with late ones, `on_failure` with the failure of each rejected or late
    event and of each loss. The tally keeps up to `failure_groups` groups of equal rejections, if
    that is more than its default. After `max_events` records the stream `is_full`. The clocks
    return microseconds, `wall_clock` since the epoch, `clock` since any moment; tests replace them.
    Raises UsageError, also for an invalid aggregate.
    """

    settings: StreamSettings
    recipe: AggregateSet

    def __init__(
        self,
        settings: StreamSettings,
        *,
        reject: Callable[[bytes], None] | None = None,
        late: Callable[[bytes], None] | None = None,
        on_failure: Callable[[Failure], None] | None = None,
        failure_groups: float = 0,
        max_events: int | None = None,
        wall_clock: Callable[[], int] = _wall_clock,
        clock: Callable[[], int] = _steady_clock,
    ) -> None:
        self.settings, self.recipe = settings, AggregateSet(settings.aggregates)
        self.keys: KeyFields = KeyFields(settings.by)
        self.schema: WindowSchema = WindowSchema(settings.window, self.keys, self.recipe)
        self.tally: StreamTally = StreamTally()
        self._wall_clock = wall_clock
        if settings.time is None:
            try:
                settings.window.check_time(wall_clock())
            except ValueError as error:
                raise UsageError(f"the present time {error}: use shorter windows") from None
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
        self._readers: dict[str, SourceReader] = {}
        self._finished_sources: dict[str, SourceState] = {}  # the states of sources that have left
        self._source_names: dict[str, None] = {}  # all sources, in the order of their joining
        self._reject, self._late = reject, late
        self._on_failure, self._failure_groups = on_failure, failure_groups
        self._events_left = max_events
        self._retrier = Retrier(settings.retries)
        self.stages: list[Transform | AsyncCall] = make_stages(settings.transforms, self._retrier)
        self.runs_async: bool = is_async(self.stages)
        self._chain = None if self.runs_async else chain_of(self.stages, settings.transforms)

    @property
    def is_full(self) -> bool:
        """Whether the limit of events is reached."""
        return self._events_left == 0

    @property
    def lag(self) -> int | None:
        """The distance of the watermark from the clock, in microseconds; None before any event."""
        value = self._watermark.value
        return None if value == NEVER else self._wall_clock() - value

    @property
    def open_windows(self) -> list[Window]:
        """The open windows in their current state."""
        return self._windower.open

    @property
    def keeps_texts(self) -> bool:
        """Whether the text and the place of events must be kept, for late ones."""
        return self._late is not None or self._on_failure is not None

    def check(self) -> None:
        """Raise UsageError or ValueError for an invalid field."""
        self.new_reader()

    def join(self, source: str) -> None:
        """Add a source. Raises UsageError for an invalid field."""
        self._watermark.join(source)
        self._readers[source] = SourceReader(partial(self.new_reader, source), source)
        self._source_names[source] = None
        if left_state := self._finished_sources.pop(source, None):
            self._resume_source(source, left_state)

    def begin_at(self, source: str, position: Any) -> None:
        """Set the position of a source before its first chunk."""
        self._readers[source].position = position

    def leave(self, source: str) -> list[Window]:
        """Remove a source that has ended; return the windows that this closes."""
        self._finished_sources[source] = self._state_of(source, is_over=True)
        del self._readers[source]
        self._watermark.leave(source)
        return self._count_windows(self._windower.advance()) if self._readers else []

    def highest_time(self, source: str) -> int | None:
        """Return the largest event time of a source, None before any event."""
        highest = self._watermark.highest(source) if source in self._readers else NEVER
        return None if highest == NEVER else highest

    def has_left(self, source: str) -> bool:
        """Whether a source has left. It may join again if it has more events after all."""
        return source in self._finished_sources

    def state(self) -> StreamState:
        """Return the state, between two chunks. Its tally is live, and still changes."""
        return StreamState(
            self._watermark.value,
            [
                self._finished_sources.get(name) or self._state_of(name)
                for name in self._source_names
            ],
            self._windower.state(),
            self.tally,
        )

    def restore(self, state: StreamState) -> None:
        """Restore a new stream, which all sources have joined, from a `state`.

        Raises ValueError or msgspec.ValidationError for an invalid state.
        """
        for name, source in zip(self._source_names, state.sources, strict=True):
            if source.is_over and not source.held:
                del self._readers[name]
                self._watermark.leave(name)
                self._finished_sources[name] = source
            else:
                self._resume_source(name, source)
        self._watermark.raise_to(state.watermark)
        self._windower.restore(state.windows)
        self.tally = state.tally

    def held_chunks(self) -> list[tuple[str, LiveChunk]]:
        """Return an empty chunk for each source with held lines, after `restore`."""
        readers = self._readers.items()
        return [
            (name, LiveChunk(one.file, b"", position=one.position))
            for name, one in readers
            if one.has_lines
        ]

    def _state_of(self, source: str, *, is_over: bool = False) -> SourceState:
        return self._readers[source].state(self._watermark.highest(source), is_over=is_over)

    def _resume_source(self, source: str, state: SourceState) -> None:
        self._watermark.restore(source, state.top)
        self._readers[source].restore(state)

    def feed(self, source: str, chunk: LiveChunk) -> list[Window]:
        """Add a chunk; return the windows that it closes.

        Raises TooManyKeysError, LineTooLongError, SinkError.
        """
        if self.starts_file(source, chunk):
            self.begin_file(source, chunk)
        if self.rejects(source, chunk):
            return self.reject_chunk(source, chunk)
        return self.take(source, self.cut(source, chunk))

    def starts_file(self, source: str, chunk: LiveChunk) -> bool:
        """Whether a chunk belongs to another file than the chunk before it."""
        return chunk.begins_file or self._readers[source].file != chunk.file

    def begin_file(self, source: str, chunk: LiveChunk) -> None:
        """Start the file of a chunk. All lines of the file before must be taken."""
        self._readers[source].begin(chunk.file)

    def cut(self, source: str, chunk: LiveChunk) -> bytes:
        """Return the lines whose end is in a chunk, up to the limit of events.

        Raises LineTooLongError.
        """
        self._count_chunk(chunk)
        reader = self._readers[source]
        lines = reader.cut(chunk)
        if self._events_left is None:
            return lines
        first = first_lines(lines, self._events_left)
        if len(first) < len(lines):
            reader.give_back(lines[len(first) :])
        self._events_left -= count_lines(first, len(first), first=False).records
        return first

    def _count_chunk(self, chunk: LiveChunk) -> None:
        self.tally.bytes += len(chunk.data)
        if chunk.loss is not None:
            self.tally.add_loss(chunk.loss)
            if self._on_failure is not None:
                self._on_failure(chunk.loss)

    def give_back(self, source: str, lines: bytes) -> int:
        """Put back the last lines of a source; return the number of their events."""
        self._readers[source].give_back(lines)
        count = count_lines(lines, len(lines), first=False).records
        if self._events_left is not None:
            self._events_left += count
        return count

    @property
    def is_replayable(self) -> bool:
        """Whether all sources can be read again by a resumed stream."""
        return all(reader.position is not None for reader in self._readers.values())

    def rejects(self, source: str, chunk: LiveChunk) -> bool:
        """Whether a chunk has no events. Call it for each chunk, before `cut`."""
        return bool(chunk.line_error) or self._readers[source].skips(chunk)

    def reject_chunk(self, source: str, chunk: LiveChunk) -> list[Window]:
        """Reject a chunk that is not an event, or the file of one that is not JSON Lines.

        Raises the exceptions of `feed`.
        """
        reader = self._readers[source]
        if chunk.line_error:
            block = reader.reader.reject_line(chunk.data, "invalid_json", chunk.line_error)
            return self._count_windows(self._put(block))
        self._count_chunk(chunk)
        fault = reader.take_fault()
        return [] if fault is None else self._put(reader.reader.reject_file(fault))

    def mark_active(self, sources: Iterable[str]) -> None:
        """Note that sources have events under way in a pool, so that they are not idle."""
        for source in set(sources):
            self._watermark.mark_active(source)

    def reader(self, source: str) -> EventReader:
        """Return the reader of a source's current file."""
        return self._readers[source].reader

    def new_reader(self, source: str = "", file: str = "") -> EventReader:
        """Return a reader of the lines of a file."""
        return EventReader(
            self.settings, self.recipe, file, self._wall_clock, source,
            chain=self._chain, keeps_texts=self.keeps_texts,
        )  # fmt: skip

    def tick(self) -> list[Window]:
        """Return the windows that the clock closes."""
        if self.settings.time is None:
            self._watermark.raise_to(self._wall_clock())
        else:
            self._watermark.tick()
        return self._count_windows(self._windower.advance())

    def finish(self, *, partial: bool) -> list[Window]:
        """Close and return all open windows. `partial`: more events might have come."""
        windows = self._windower.finish(partial=partial)
        if windows and not partial:  # so that a resumed stream does not open them again
            self._watermark.raise_to(max(window.end for window in windows))
        return self._count_windows(windows)

    def take_part(
        self, source: str, pieces: Sequence[bytes], part: EventsPart, after: Position
    ) -> list[Window]:
        """Add the outcome of lines; blocks end at position `after` of the file."""
        if part.blocks is not None:
            self.tally.retries += part.retries
            return self._take_blocks(source, part.blocks, after)
        return [
            window
            for lines, folded in zip(pieces, part.folded, strict=True)
            for window in self._take_folded(source, lines, folded)
        ]

    def reject_event(self, source: str, line: bytes, failure: Failure) -> list[Window]:
        """Reject the next line of a source, at which a worker was lost."""
        text = line.removesuffix(b"\n").removeprefix(BOM)
        reader = self._readers[source].reader
        return self.put([reader.reject_line(text, failure.kind, failure.message)])

    def _take_folded(self, source: str, lines: bytes, folded: Folded) -> list[Window]:
        """Add lines that were folded; `folded` is None if they could not be folded."""
        reader = self._readers[source].reader
        if isinstance(folded, EventBlock) and folded.events is not None:
            if not self._is_plausible_time(folded.events.moments.highest):
                return self.take(source, lines)
            folded.lines, folded.start = lines, reader.state[0]
            reader.skip(lines, folded.records)
            return self._take_blocks(source, [folded], reader.state[0])
        windows = self._add_partial(source, folded) if isinstance(folded, PartialWindows) else None
        if windows is None or not isinstance(folded, PartialWindows):
            return self.take(source, lines)
        reader.skip(lines, folded.count)
        self.tally.read += folded.count
        self.tally.events += folded.count
        return self._count_windows(windows)

    def _add_partial(self, source: str, folded: PartialWindows) -> list[Window] | None:
        """Add partial windows; return the closed windows.

        Returns None and changes nothing if some events may be late, or are too far in the future.
        """
        assert isinstance(self._windower, FixedWindows)
        if self.settings.time is None:
            folded = folded.at(
                self._readers[source].reader.set_arrival(), self.settings.window.pane
            )
        return (
            self._windower.add_partial(folded, source)
            if self._is_plausible_time(folded.highest)
            else None
        )

    def _is_plausible_time(self, time: int) -> bool:
        """Whether an event time is not too far ahead of the clock."""
        ahead = self.settings.max_future
        return ahead is None or time <= self._wall_clock() + ahead

    def _take_blocks(
        self, source: str, blocks: Sequence[EventBlock], after: Position
    ) -> list[Window]:
        """Add blocks of events, up to position `after` of the file of the source."""
        reader = self._readers[source].reader
        arrived = reader.set_arrival()
        reader.resume(after, arrived)
        for block in blocks:
            if block.events is not None:
                block.events.arrival_times(source, None if reader.fields.have_time else arrived)
        return self._count_windows([window for block in blocks for window in self._put(block)])

    def take(self, source: str, lines: bytes) -> list[Window]:
        """Add whole lines. Raises the exceptions of `feed`."""
        return self.put(self._readers[source].reader.read(lines)) if lines else []

    def read(self, source: str, lines: bytes) -> list[EventBlock]:
        """Return the blocks of whole lines, for `put`. May run in another thread."""
        return list(self._readers[source].reader.read(lines)) if lines else []

    def put(self, blocks: Iterable[EventBlock]) -> list[Window]:
        """Add blocks of events. Raises the exceptions of `feed`."""
        return self._count_windows([window for block in blocks for window in self._put(block)])

    def _put(self, block: EventBlock) -> list[Window]:
        tally = self.tally
        tally.read += block.records
        tally.dropped += block.dropped
        tally.retries += self._retrier.take_retry_count()
        if block.rejected:
            for failure, _ in block.rejected:
                tally.reject(failure, self._failure_groups)
                if self._on_failure is not None:
                    self._on_failure(failure)
            tally.missing.update(block.missing)
            if self._reject is not None:
                self._reject(b"".join(dead_letter for _, dead_letter in block.rejected))
        if block.events is None:
            return []
        taken = self._windower.add(block.events)
        tally.late += len(taken.late)
        tally.late_in_part += taken.late_in_part
        tally.events += block.events.count - len(taken.late)
        if taken.late and self._late is not None:
            texts = block.texts()
            self._late(b"".join(texts[place].rstrip() + b"\n" for place in taken.late))
        if taken.late and self._on_failure is not None:
            file = display_path(self._readers[block.events.source].file)
            times = block.events.moments.all()
            for place in taken.late:
                record, line = block.place(place)
                reason = f"is late: the windows of {utc_text(times[place])} are over"
                self._on_failure(Failure(file, "late", reason, record, line))
        return taken.closed

    def _count_windows(self, windows: list[Window]) -> list[Window]:
        self.tally.windows += len(windows)
        return windows
