"""Lines into events: in masses, or one by one with place and reason where that cannot be."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import MsgspecError

from asyncbatch.codec.decode import decode
from asyncbatch.codec.lines import BadLine
from asyncbatch.progress import Progress
from asyncbatch.records import Failure, Position
from asyncbatch.streams.fields import EventFields
from asyncbatch.streams.line_reader import Block, Draft, Line, LineReader
from asyncbatch.streams.rows import RowEvents, RowReader
from asyncbatch.transforms import RecordError
from asyncbatch.windows.times import Same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asyncbatch.chain import Chain
    from asyncbatch.streams.chunks import Chunk
    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.windows.aggregates import Recipe
    from asyncbatch.windows.events import Events
    from asyncbatch.windows.times import Moments

_FEW = 64
"""Of more lines than this, of which some cannot be read fast, each half is tried by itself."""


class EventReader:
    """Reads the events of one file of `source`; `now` tells microseconds since the epoch.

    What is not asked for of an event is checked for its structure only. Lines go through `chain`
    if there is one. `progress` tells which line that is, from 0. Raises ValueError for a path
    that is none.
    """

    def __init__(
        self,
        settings: StreamSettings,
        recipe: Recipe,
        file: str,
        now: Callable[[], int],
        source: str = "",
        *,
        chain: Chain | None = None,
        keeps_texts: bool = True,
    ) -> None:
        self._settings, self._file, self._now = settings, file, now
        self._source, self._chain, self._keeps_texts = source, chain, keeps_texts
        self.fields = EventFields(settings, recipe, now)
        self.lines = LineReader()
        self.progress = Progress()
        self._row_readers = [] if settings.transforms else self._make_row_readers()
        self._at = Position()
        self._arrived = 0

    def read(self, lines: bytes) -> Iterator[Block]:
        """Yield what whole lines come to (the last of all may lack its end)."""
        self.arrive()
        count = lines.count(b"\n") + (not lines.endswith(b"\n"))
        events = self.read_fast(lines, count)
        if events is not None:
            self.skip(lines, count)
            yield Block(count, events, lines)
        elif count > _FEW and self._row_readers:
            cut = lines.find(b"\n", len(lines) // 2) + 1 or lines.rfind(b"\n", 0, -1) + 1
            if cut == len(lines):
                cut = lines.rfind(b"\n", 0, -1) + 1
            yield from self.read(lines[:cut])
            yield from self.read(lines[cut:])
        else:
            yield self._read_each(lines, count)

    @property
    def place(self) -> tuple[Position, int]:
        """How far it is in the file, and when the last events arrived if that is asked for."""
        return self._at, self._arrived

    def go_on(self, at: Position, arrived: int) -> None:
        """Go on at a `place`."""
        self._at, self._arrived = at, arrived

    def begin(self, file: str, at: Position) -> None:
        """Go on with another file."""
        self._file, self._at = file, at

    def arrive(self) -> int:
        """Return when events arrive that come now: clocks go back now and then, but not so."""
        if not self.fields.are_timed:
            self._arrived = max(self._arrived, self._now())
        return self._arrived

    def refuse(self, chunk: Chunk) -> Block:
        """Return what a chunk that is no event comes to."""
        at = self._at
        self._at = Position(at.byte + len(chunk.data) + 1, at.record + 1, at.line + 1)
        failure = Failure(self._file, "invalid_json", chunk.flaw, self._at.record, self._at.line)
        draft = self.draft()
        draft.block.records = 1
        draft.refuse(failure, chunk.data, bad=True)
        return draft.block

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
        fields = self.fields
        if not fields.are_timed:
            return Same(self._arrived, len(rows))
        times = reader.times(rows)
        moments = fields.times.texts(times) if reader.has_texts else fields.times.column(times)
        fields.check_future(moments.highest)
        return moments

    def _make_row_readers(self) -> list[RowReader]:
        """Return the quickest first; none if such fields cannot be read so."""
        readers, fields = [], self.fields
        for texts in (True, False):
            with suppress(ValueError):
                readers.append(
                    RowReader(fields.all, fields.keys, timed=fields.are_timed, texts=texts)
                )
        return readers

    def draft(self) -> Draft:
        """Return a block to be made."""
        return Draft(self._file, self._settings, self.fields, keeps_texts=self._keeps_texts)

    def _read_each(self, lines: bytes, count: int) -> Block:
        """Read lines one by one."""
        draft, at = self.draft(), self._at
        for line in self.lines.read(draft, lines, at):
            if isinstance(line, BadLine):
                draft.reject(line)
                continue
            self.progress.begin(line.line - at.line - 1)
            try:
                draft.keep(line, self._made(line))
            except RecordError as error:
                draft.reject(line, error)
        self.progress.end_file()
        self._at = Position(at.byte + len(lines), at.record + draft.block.records, at.line + count)
        return draft.done(self._source, self._arrived)

    def _made(self, line: Line) -> Iterable[Any]:
        """Return what a line is made, lazily. Raises RecordError, also midway."""
        chain = self._chain
        if chain is None:
            return (decode(line.text),)
        return chain(line.text if chain.reads_text else decode(line.text), line)
