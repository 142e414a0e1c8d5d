"""Files into records, stretch by stretch: where they are in a document, or in its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from asyncbatch.codec.depth import allow_deep_nesting
from asyncbatch.codec.fault import Fault
from asyncbatch.codec.judge import make_judge
from asyncbatch.codec.lines import BadLine, judge_lines
from asyncbatch.codec.place import Place
from asyncbatch.codec.pointer import elements, format_pointer, parse_pointer
from asyncbatch.content import Content
from asyncbatch.dead_letters import read_letter
from asyncbatch.documents import unpack
from asyncbatch.errors import UsageError
from asyncbatch.failures import judge_text
from asyncbatch.stretches import LineStretch, ReplayStretch, no_array, of_text
from asyncbatch.transforms import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.dead_letters import Letter
    from asyncbatch.reading import Opened
    from asyncbatch.record_settings import RecordWorkSettings
    from asyncbatch.stretches import Stretch


class Extractor:
    """Finds records; not for use by several threads at a time. Raises UsageError."""

    def __init__(self, settings: RecordWorkSettings) -> None:
        allow_deep_nesting()
        self._judge = make_judge()
        self._format = settings.files.format
        self._whole, self._replay = settings.whole, settings.replay
        self._records: Sequence[str] | None = None
        if settings.records is not None:
            try:
                self._records = parse_pointer(settings.records)
            except ValueError as error:
                raise UsageError(f"--records: {error}") from None

    def stretches(self, path: str, opened: Opened) -> Iterator[Stretch | BadLine]:
        """Yield the records of a file. Raises one of `FILE_ERRORS`; may then have yielded some."""
        if isinstance(opened, Exception):
            raise opened
        with opened if isinstance(opened, Content) else Content(opened) as content:
            is_replay = path == self._replay
            form = "jsonl" if is_replay else self._format
            is_lines, chunks = unpack(content, path, form, self._judge)
            if is_replay:
                yield from self._replayed(chunks)
            elif is_lines:
                yield from self._of_lines(chunks)
            else:
                text = b"".join(chunks)
                judge_text(text, self._judge)
                yield from of_text(
                    text, self._records, whole=self._whole, first=1, line=1, offset=0
                )

    def _of_lines(self, chunks: Iterable[bytes]) -> Iterator[Stretch | BadLine]:
        number = 1
        for lines in judge_lines(chunks, self._judge):
            for piece in lines.split():
                if isinstance(piece, BadLine):
                    yield piece._replace(record=number)
                    number += 1
                elif self._records is None:
                    yield LineStretch(piece._replace(record=number))
                    number += len(piece.texts)
                else:
                    offset = piece.offset
                    for line, text in enumerate(piece.texts, piece.line):
                        for stretch in of_text(
                            text, self._records, whole=True, first=number, line=line, offset=offset
                        ):
                            yield stretch
                            number += len(stretch.texts())
                        offset += len(text) + 1

    def _replayed(self, chunks: Iterable[bytes]) -> Iterator[Stretch | BadLine]:
        """Yield the records of a dead letter file; its failed files are run as files."""
        for lines in judge_lines(chunks, self._judge):
            for piece in lines.split():
                if isinstance(piece, BadLine):
                    yield piece
                    continue
                for at, text in enumerate(piece.texts):
                    here = Place(piece.line + at, 1, piece.offset)
                    try:
                        letter = read_letter(text)
                        record = letter.text()
                    except (msgspec.DecodeError, ValueError) as error:
                        fault = Fault("invalid_json", 0, f"is no dead letter: {error}")
                        yield BadLine(piece.record + at, fault, here, text)
                        continue
                    if not letter.is_record:
                        continue
                    yield self._replayed_record(letter, record)

    def _replayed_record(self, letter: Letter, record: bytes) -> Stretch:
        """Return the records of one letter: what it holds, or what is in a document."""
        verdict = self._judge(record)
        if isinstance(verdict, Fault):
            stretch = ReplayStretch(letter, [record], RecordError(verdict.kind, verdict.message))
            stretch.is_text = True
            return stretch
        records = self._records
        if records is None or letter.pointer != format_pointer(records):
            return ReplayStretch(letter, [record])
        parts = elements(record, records)
        if parts is None:
            return ReplayStretch(letter, [record], no_array(records))
        return ReplayStretch(letter, parts)
