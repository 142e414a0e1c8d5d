"""Lines read one by one: each is some events, none on purpose, or rejected with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import UNSET, Struct, field

from asyncbatch.codec.depth import allow_deep_nesting
from asyncbatch.codec.encode import encode
from asyncbatch.codec.judge import make_judge
from asyncbatch.codec.lines import BadLine, judge_lines
from asyncbatch.codec.place import BOM
from asyncbatch.dead_letters import letter_of_record
from asyncbatch.failures import line_failure
from asyncbatch.records import Failure
from asyncbatch.transforms import Context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.records import Position
    from asyncbatch.streams.fields import EventFields
    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.transforms import RecordError
    from asyncbatch.windows.events import Events


class Block(Struct):
    """What some lines came to: so many records, and what is in `events`, with their texts.

    These are `lines`, unless `kept` has them one by one.
    """

    records: int
    events: Events | None = None
    lines: bytes = b""
    kept: list[bytes] | None = None
    dropped: int = 0
    rejected: list[tuple[Failure, bytes]] = field(default_factory=list)
    """Why, and the line for a dead letter file."""

    def texts(self) -> Sequence[bytes]:
        """Return each event's text."""
        return self.lines.split(b"\n") if self.kept is None else self.kept


class Line(NamedTuple):
    """A line that is JSON, and where it comes from."""

    file: str
    record: int
    line: int
    text: bytes

    def context(self) -> Context:
        """Say where it comes from."""
        return Context(self.file, self.record, self.line)


class LineReader:
    """Tells lines that are JSON from those that are not."""

    def __init__(self) -> None:
        allow_deep_nesting()
        self._judge = make_judge()

    def read(self, draft: Draft, lines: bytes, at: Position) -> Iterator[Line | BadLine]:
        """Yield each line from a place on that is not blank; note in the draft how many."""
        for found in judge_lines((lines,), self._judge, at if at.byte else None):
            draft.block.records += found.records
            for some in found.split():
                if isinstance(some, BadLine):
                    yield some
                    continue
                for place, text in enumerate(some.texts):
                    yield Line(
                        draft.file, some.record + place, some.line + place, text.removeprefix(BOM)
                    )


class Draft:
    """A block in the making: what becomes of a file's lines, in order."""

    def __init__(
        self, file: str, settings: StreamSettings, fields: EventFields, *, keeps_texts: bool
    ) -> None:
        self.file, self.block = file, Block(0)
        self._settings, self._fields, self._keeps_texts = settings, fields, keeps_texts
        self._rows = list[tuple[Any, ...]]()
        self._texts = list[bytes]()

    def keep(self, line: Line, events: Iterable[Any]) -> None:
        """Keep what a line was made, all of it or nothing. Raises RecordError."""
        made = [(self._fields.row(event), event) for event in events]
        self.block.dropped += not made
        for row, event in made:
            self._rows.append(row)
            if self._keeps_texts:
                self._texts.append(encode(event) if self._settings.transforms else line.text)

    def reject(self, line: Line | BadLine, error: RecordError | None = None) -> None:
        """Reject a line, for an `error` if it is JSON."""
        if isinstance(line, BadLine):
            self.refuse(line_failure(self.file, line), line.text, bad=True)
        elif error is not None:
            self.refuse(self._failure(line, error), line.text)

    def refuse(self, failure: Failure, text: bytes, *, bad: bool = False) -> None:
        """Reject what has this text, `bad` if it is not JSON."""
        letter = letter_of_record(failure, text, bad=bad) if self._settings.letters else b""
        self.block.rejected.append((failure, letter))

    def done(self, source: str, arrived: int) -> Block:
        """Return the block; its events came at `arrived` if they have no time of their own."""
        block, rows = self.block, self._rows
        if rows:
            block.events = self._fields.events(rows, source, arrived)
        block.kept = self._texts
        return block

    def _failure(self, line: Line, error: RecordError) -> Failure:
        return Failure(
            self.file, error.kind, error.message, line.record, line.line,
            pointer=UNSET if error.pointer is None else error.pointer,
            violations=error.violations or UNSET,
            traceback=error.detail if error.detail and self._settings.tracebacks else UNSET,
        )  # fmt: skip
