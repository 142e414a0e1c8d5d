"""The reader of events from JSON Lines."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import UNSET, MsgspecError, Struct, field

from asyncbatch.core.progress import Progress
from asyncbatch.core.records import Failure, MissingNames, Position, display_path
from asyncbatch.formats.decoder import allow_deep_nesting, check_utf8, decode, encode
from asyncbatch.formats.detect import as_line_of_stream
from asyncbatch.formats.failures import InvalidTextError, file_failure, line_failure
from asyncbatch.formats.lines import InvalidLine, total_lines, validate_lines
from asyncbatch.formats.positions import BOM, TextPosition
from asyncbatch.formats.validator import make_validator
from asyncbatch.sinks.dead_letters import file_dead_letter, record_dead_letter
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.windows.times import ConstantTime
from asyncbatch.workers.tasks.event_fields import EventFields, RowEvents, RowReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.core.records import FailureKind, Json
    from asyncbatch.formats.grammar import Fault
    from asyncbatch.transforms.base import MissingName
    from asyncbatch.transforms.chain import Chain
    from asyncbatch.windows.aggregates import AggregateSet
    from asyncbatch.windows.events import Events
    from asyncbatch.windows.times import EventTimes


class EventBlock(Struct):
    """The outcome of some lines: the number of records, the `events`, and their texts.

    The texts are `lines`, or `kept_texts` one by one. The events' records and lines, from 1, follow
    `start`, or are `places`.
    """

    records: int
    events: Events | None = None
    lines: bytes = b""
    kept_texts: list[bytes] | None = None
    dropped: int = 0
    # the reasons, and the dead letters
    rejected: list[tuple[Failure, bytes]] = field(default_factory=list)
    missing: MissingNames = field(default_factory=MissingNames)
    start: Position = Position()
    places: list[tuple[int, int]] = field(default_factory=list)

    def place(self, event: int) -> tuple[int, int]:
        """Return the record and the line of an event."""
        if self.kept_texts is None:
            return self.start.record + event + 1, self.start.line + event + 1
        return self.places[event]

    def texts(self) -> Sequence[bytes]:
        """Return each event's text."""
        return self.lines.split(b"\n") if self.kept_texts is None else self.kept_texts


class Line(NamedTuple):
    """A valid line of JSON, and its origin."""

    file: str
    record: int
    line: int
    text: bytes

    def context(self) -> Context:
        """Return the origin of the line."""
        return Context(self.file, self.record, self.line)


class LineReader:
    """Validates lines as JSON."""

    def __init__(self) -> None:
        allow_deep_nesting()
        self._validator = make_validator()

    def read(
        self, builder: EventBlockBuilder, lines: bytes, at: Position
    ) -> Iterator[Line | InvalidLine]:
        """Yield each line that is not blank, and count the lines in `builder`."""
        for found in validate_lines((lines,), self._validator, at if at.byte else None):
            builder.block.records += found.records
            for some in found.split():
                if isinstance(some, InvalidLine):
                    yield some._replace(fault=as_line_of_stream(some.fault))
                    continue
                for place, text in enumerate(some.texts):
                    yield Line(
                        builder.file, some.record + place, some.line + place, text.removeprefix(BOM)
                    )


class EventBlockBuilder:
    """Builds the block of a file's lines, in order."""

    file: str
    block: EventBlock

    def __init__(
        self, file: str, settings: StreamSettings, fields: EventFields, *, keeps_texts: bool
    ) -> None:
        self.file, self.block = file, EventBlock(0)
        self._settings, self._fields, self._keeps_texts = settings, fields, keeps_texts
        self._rows = list[tuple[Any, ...]]()
        self._texts = list[bytes]()

    def add(self, line: Line, events: Iterable[Any]) -> None:
        """Add the events of a line, all or none. Raises RecordError."""
        made = [(self._fields.row(event), event) for event in events]
        self.block.dropped += not made
        for row, event in made:
            self._rows.append(row)
            if self._keeps_texts:
                self._texts.append(encode(event) if self._settings.transforms else line.text)
                self.block.places.append((line.record, line.line))

    def reject(self, line: Line | InvalidLine, error: RecordError | None = None) -> None:
        """Reject a line, for an `error` if it is JSON."""
        if isinstance(line, InvalidLine):
            self.reject_text(
                line_failure(display_path(self.file), line), line.text, is_invalid=True
            )
        elif error is not None:
            self.reject_text(self._failure(line, error), line.text, missing=error.missing)

    def reject_text(
        self,
        failure: Failure,
        text: bytes,
        *,
        is_invalid: bool = False,
        missing: MissingName | None = None,
    ) -> None:
        """Reject a record with this text; `is_invalid` if it is not JSON."""
        if missing is not None:
            self.block.missing.add(missing.subject, missing.note)
        else:
            self.block.missing.reject_other(failure.kind)
        dead_letter = (
            record_dead_letter(failure, text, bad=is_invalid) if self._settings.letters else b""
        )
        self.block.rejected.append((failure, dead_letter))

    def finish(self, source: str, arrival: int) -> EventBlock:
        """Return the block. Its events arrived at `arrival`, if they have no time."""
        block, rows = self.block, self._rows
        if rows:
            block.events = self._fields.events(rows, source, arrival)
        block.kept_texts = self._texts
        return block

    def _failure(self, line: Line, error: RecordError) -> Failure:
        return Failure(
            display_path(self.file), error.kind, error.message, line.record, line.line,
            pointer=UNSET if error.pointer is None else error.pointer,
            violations=error.violations or UNSET,
            traceback=error.detail if error.detail and self._settings.tracebacks else UNSET,
        )  # fmt: skip


_MAX_LINES_READ_EACH = (
    64  # Above this number, lines that cannot be read fast are halved and tried again.
)


class EventReader:
    """Reads the events of one file of `source`. `now` is in microseconds since the epoch.

    Fields that are not needed are checked for structure only. Lines go through `chain` if there is
    one. `progress` has the number of the current line. Raises ValueError for an invalid path.
    """

    def __init__(
        self,
        settings: StreamSettings,
        recipe: AggregateSet,
        file: str,
        now: Callable[[], int],
        source: str = "",
        *,
        chain: Chain | None = None,
        keeps_texts: bool = True,
    ) -> None:
        self._settings, self._file, self._now = settings, file, now
        self._source, self._chain, self._keeps_texts = source, chain, keeps_texts
        self.fields: EventFields = EventFields(settings, recipe, now)
        self.line_reader: LineReader = LineReader()
        self.progress: Progress = Progress()
        self._row_readers = [] if settings.transforms else self._make_row_readers()
        self._position = Position()
        # the number of the first line of the file, for `progress`
        self._first_number = 0
        self._arrival = 0

    def read(self, lines: bytes) -> Iterator[EventBlock]:
        """Yield the blocks of whole lines. The last line of a file may lack its LF."""
        self.set_arrival()
        events, start = self.read_fast(lines), self._position
        if events is not None:
            self.skip(lines, events.count)
            yield EventBlock(events.count, events, lines, start=start)
            return
        count = total_lines(lines)
        if count > _MAX_LINES_READ_EACH and self._row_readers:
            cut = lines.find(b"\n", len(lines) // 2) + 1 or lines.rfind(b"\n", 0, -1) + 1
            if cut == len(lines):
                cut = lines.rfind(b"\n", 0, -1) + 1
            yield from self.read(lines[:cut])
            yield from self.read(lines[cut:])
        else:
            yield self._read_each(lines, count)

    @property
    def state(self) -> tuple[Position, int]:
        """The position in the file, and the time of the last arrival if it is used."""
        return self._position, self._arrival

    def resume(self, at: Position, arrival: int) -> None:
        """Continue at a `state`."""
        self._position, self._arrival = at, arrival

    def begin_file(self, file: str, at: Position, number: int) -> None:
        """Continue with another file; `number` is the number of its line at a position."""
        self._file, self._position, self._first_number = file, at, number - at.line

    def set_arrival(self) -> int:
        """Return the time of arrival for events that come now. It never goes back."""
        if not self.fields.have_time:
            self._arrival = max(self._arrival, self._now())
        return self._arrival

    def reject_line(self, text: bytes, kind: FailureKind, message: str) -> EventBlock:
        """Return the block that rejects the next line, which cannot be read."""
        at = self._position
        self._position = Position(at.byte + len(text) + 1, at.record + 1, at.line + 1)
        record, line = self._position.record, self._position.line
        failure = Failure(display_path(self._file), kind, message, record, line)
        builder = self.new_builder()
        builder.block.records = 1
        builder.reject_text(failure, text, is_invalid=kind == "invalid_json")
        return builder.block

    def reject_file(self, fault: Fault) -> EventBlock:
        """Return the block that rejects a file that is not JSON Lines."""
        failure = file_failure(self._file, InvalidTextError(fault, TextPosition(1, 1, 0)))
        block = EventBlock(1, kept_texts=[])
        block.missing.reject_other(failure.kind)
        dead_letter = file_dead_letter(failure) if self._settings.letters else b""
        block.rejected.append((failure, dead_letter))
        return block

    def skip(self, lines: bytes, count: int) -> None:
        """Count lines that another reader has read, none of them blank."""
        at = self._position
        self._position = Position(at.byte + len(lines), at.record + count, at.line + count)

    def read_fast(self, lines: bytes) -> Events | None:
        """Return the events of valid lines; None if a line may be blank or invalid."""
        for at, reader in enumerate(self._row_readers):
            events = self._read_rows(reader, lines)
            if events is not None:
                del self._row_readers[:at]  # the faster readers would most likely fail again
                return events
        return None

    def _read_rows(self, reader: RowReader, lines: bytes) -> Events | None:
        try:
            check_utf8(lines)  # as the decoder skips unused fields
            rows = reader.read(lines)
            if not rows:
                return None
            moments = self._moments(rows, reader)
        except (MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
            return None
        return RowEvents(rows, reader, moments, self._source)

    def _moments(self, rows: list[Json], reader: RowReader) -> EventTimes:
        fields = self.fields
        if not fields.have_time:
            return ConstantTime(self._arrival, len(rows))
        times = reader.times(rows)
        moments = (
            fields.times.read_texts(times)
            if reader.reads_texts
            else fields.times.read_column(times)
        )
        fields.check_times(moments.lowest, moments.highest)
        return moments

    def _make_row_readers(self) -> list[RowReader]:
        """Return the fast readers, the fastest first; none for unsupported fields."""
        readers, fields = [], self.fields
        for texts in (True, False):
            with suppress(ValueError):
                readers.append(
                    RowReader(fields.readers, fields.keys, timed=fields.have_time, texts=texts)
                )
        return readers

    def new_builder(self) -> EventBlockBuilder:
        """Return a builder of the next block."""
        return EventBlockBuilder(
            self._file, self._settings, self.fields, keeps_texts=self._keeps_texts
        )

    def _read_each(self, lines: bytes, count: int) -> EventBlock:
        """Read lines one by one."""
        builder, at = self.new_builder(), self._position
        for line in self.line_reader.read(builder, lines, at):
            if isinstance(line, InvalidLine):
                builder.reject(line)
                continue
            self.progress.begin_file(self._first_number + line.line - 1)
            try:
                builder.add(line, self._transform(line))
            except RecordError as error:
                builder.reject(line, error)
        self.progress.end_file()
        self._position = Position(
            at.byte + len(lines), at.record + builder.block.records, at.line + count
        )
        return builder.finish(self._source, self._arrival)

    def _transform(self, line: Line) -> Iterable[Any]:
        """Return the outputs for a line, lazily. Raises RecordError, also midway."""
        chain = self._chain
        if chain is None:
            return (decode(line.text),)
        return chain(line.text if chain.reads_text else decode(line.text), line)
