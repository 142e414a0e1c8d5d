"""Lines into events: those that cannot be are rejected one by one, with place and reason."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, MsgspecError, Struct, field

from asyncbatch.chain import make_chain
from asyncbatch.codec.decode import decode
from asyncbatch.codec.depth import allow_deep_nesting
from asyncbatch.codec.encode import encode
from asyncbatch.codec.judge import make_judge
from asyncbatch.codec.lines import BadLine, judge_lines
from asyncbatch.codec.place import BOM
from asyncbatch.dead_letters import letter_of_record
from asyncbatch.failures import line_failure
from asyncbatch.record_settings import RecordWorkSettings
from asyncbatch.records import Failure, Position
from asyncbatch.streams.fields import number_field, scalar_field, time_field
from asyncbatch.streams.rows import RowEvents, RowReader
from asyncbatch.transforms import Context, RecordError, kind_of
from asyncbatch.windows.events import Events
from asyncbatch.windows.keys import KeyFields
from asyncbatch.windows.times import Numbers, Same, TimeReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.codec.lines import GoodLines
    from asyncbatch.streams.chunks import Chunk
    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.windows.aggregates import Recipe
    from asyncbatch.windows.times import Moments

_FEW = 64
"""Of more lines than this, of which some cannot be read fast, each half is tried by itself."""


class Block(Struct):
    """What some lines came to: so many records, and what is in `events`, with their texts."""

    records: int
    events: Events | None = None
    texts: Callable[[], Sequence[bytes]] = tuple
    dropped: int = 0
    rejected: list[tuple[Failure, bytes]] = field(default_factory=list)
    """Why, and the line for a dead letter file."""


class EventReader:
    """Reads the events of one file of `source`; `now` tells microseconds since the epoch.

    What is not asked for of an event is checked for its structure only. Raises UsageError.
    """

    def __init__(
        self,
        settings: StreamSettings,
        recipe: Recipe,
        file: str,
        now: Callable[[], int],
        source: str = "",
    ) -> None:
        allow_deep_nesting()
        self._settings, self._file, self._now = settings, file, now
        self._source = source
        self._chain = make_chain(RecordWorkSettings(transforms=settings.transforms))
        self._keys, self._times = KeyFields(settings.by), TimeReader(settings.unit)
        numbers = recipe.number_fields
        self._time = None if settings.time is None else time_field(settings.time)
        self._fields = [
            *([] if self._time is None else [self._time]),
            *map(scalar_field, settings.by),
            *(number_field(path) if path in numbers else scalar_field(path)
              for path in recipe.fields),
        ]  # fmt: skip
        self._row_readers = [] if self._chain else self._make_row_readers()
        self._judge = make_judge()
        self._at = Position()
        self._arrived = 0

    def read(self, lines: bytes) -> Iterator[Block]:
        """Yield what whole lines come to (the last of all may lack its end)."""
        if self._time is None:  # clocks go back now and then; arrivals do not
            self._arrived = max(self._arrived, self._now())
        count = lines.count(b"\n") + (not lines.endswith(b"\n"))
        events = self.read_fast(lines, count)
        if events is not None:
            self.skip(lines, count)
            yield Block(count, events, lambda: lines.split(b"\n"))
        elif count > _FEW and self._row_readers:
            cut = lines.find(b"\n", len(lines) // 2) + 1 or lines.rfind(b"\n", 0, -1) + 1
            if cut == len(lines):
                cut = lines.rfind(b"\n", 0, -1) + 1
            yield from self.read(lines[:cut])
            yield from self.read(lines[cut:])
        else:
            yield self._read_each(lines, count)

    def refuse(self, chunk: Chunk) -> Block:
        """Return what a chunk that is no event comes to."""
        at = self._at
        self._at = Position(at.byte + len(chunk.data) + 1, at.record + 1, at.line + 1)
        failure = Failure(self._file, "invalid_json", chunk.flaw, self._at.record, self._at.line)
        block = Block(1)
        self._reject(block, failure, chunk.data, bad=True)
        return block

    @property
    def place(self) -> tuple[Position, int]:
        """How far it is in the file, and when the last events arrived if that is asked for."""
        return self._at, self._arrived

    def go_on(self, at: Position, arrived: int) -> None:
        """Go on at a `place`."""
        self._at, self._arrived = at, arrived

    def skip(self, lines: bytes, count: int) -> None:
        """Take note of so many lines that somebody else has read, none of them blank."""
        at = self._at
        self._at = Position(at.byte + len(lines), at.record + count, at.line + count)

    def read_fast(self, lines: bytes, count: int) -> Events | None:
        """Read so many lines, if all are as they should be; None if they may not be."""
        for at, reader in enumerate(self._row_readers):
            events = self._read_rows(reader, lines, count)
            if events is not None:
                del self._row_readers[:at]  # those before would fail most likely again
                return events
        return None

    def _read_rows(self, reader: RowReader, lines: bytes, count: int) -> Events | None:
        try:
            if not lines.isascii():
                lines.decode()  # as the decoder skips what nobody asks for
            rows = reader.read(lines)
            # Blank lines are no events, and an event that goes over two lines is none either.
            if len(rows) != count:
                return None
            moments = self._moments(rows, reader)
        except (MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
            return None
        return RowEvents(rows, reader, moments, self._source)

    def _moments(self, rows: list[Any], reader: RowReader) -> Moments:
        if self._time is None:
            return Same(self._arrived, len(rows))
        times = reader.times(rows)
        moments = self._times.texts(times) if reader.has_texts else self._times.column(times)
        self._check_future(moments.highest)
        return moments

    def _make_row_readers(self) -> list[RowReader]:
        """Return the quickest first; none if such fields cannot be read so."""
        readers = []
        for texts in (True, False):
            with suppress(ValueError):
                readers.append(
                    RowReader(self._fields, self._keys, timed=self._time is not None, texts=texts)
                )
        return readers

    def _check_future(self, time: int) -> None:
        ahead = self._settings.max_future
        if ahead is not None and time > self._now() + ahead:
            raise ValueError("is further in the future than --max-future allows")

    def _read_each(self, lines: bytes, count: int) -> Block:
        """Read lines one by one."""
        block, rows, texts = Block(0), list[Any](), list[bytes]()
        for found in judge_lines((lines,), self._judge, self._at if self._at.byte else None):
            block.records = found.records
            for some in found.split():
                if isinstance(some, BadLine):
                    failure = line_failure(self._file, some)
                    self._reject(block, failure, some.text, bad=True)
                else:
                    self._read_good(some, block, rows, texts)
        at = self._at
        self._at = Position(at.byte + len(lines), at.record + block.records, at.line + count)
        if rows:
            columns = list(zip(*rows, strict=True))
            moments = Same(self._arrived, len(rows))
            times = Numbers(columns[0]) if self._time else moments
            by = 1 + len(self._settings.by)
            keys = self._keys.column(columns[1:by])
            block.events = Events(len(rows), times, keys, tuple(columns[by:]), self._source)
            block.texts = lambda: texts
        return block

    def _read_good(
        self, some: GoodLines, block: Block, rows: list[Any], texts: list[bytes]
    ) -> None:
        for at, line in enumerate(some.texts):
            text = line.removeprefix(BOM)
            place = _Line(self._file, some.record + at, some.line + at)
            try:
                made = [(self._row(event), event) for event in self._made(text, place)]
            except RecordError as error:
                self._reject(block, self._failure(place, error), text)
                continue
            block.dropped += not made
            for row, event in made:
                rows.append(row)
                texts.append(encode(event) if self._chain else text)

    def _made(self, text: bytes, place: _Line) -> Iterator[Any]:
        if self._chain is None:
            yield decode(text)
        else:
            yield from self._chain(text if self._chain.reads_text else decode(text), place)

    def _row(self, event: Any) -> tuple[Any, ...]:  # noqa: ANN401 - JSON
        """Return the time, the key's fields and the values of an event. Raises RecordError."""
        if type(event) is not dict:
            raise RecordError("transform", f"an event is an object, not {kind_of(event)}")
        values = [one.of(event) for one in self._fields]
        if self._time is None:
            return (None, *values)
        try:
            time = self._times.one(values[0])
            self._check_future(time)
        except ValueError as error:
            raise self._time.error(str(error)) from None
        return (time, *values[1:])

    def _failure(self, place: _Line, error: RecordError) -> Failure:
        return Failure(
            self._file, error.kind, error.message, place.record, place.line,
            pointer=UNSET if error.pointer is None else error.pointer,
            violations=error.violations or UNSET,
            traceback=error.detail if error.detail and self._settings.tracebacks else UNSET,
        )  # fmt: skip

    def _reject(self, block: Block, failure: Failure, text: bytes, *, bad: bool = False) -> None:
        letter = letter_of_record(failure, text, bad=bad) if self._settings.letters else b""
        block.rejected.append((failure, letter))


class _Line:
    """The line that is being worked on."""

    def __init__(self, file: str, record: int, line: int) -> None:
        self._file, self.record, self.line = file, record, line

    def context(self) -> Context:
        """Say where it comes from."""
        return Context(self._file, self.record, self.line)
