"""Rejected records made into data: the failure with its place, and the dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, structs

from asyncbatch.codec.place import Place
from asyncbatch.codec.pointer import find, parse_pointer
from asyncbatch.dead_letters import letter_of_record
from asyncbatch.failures import line_failure
from asyncbatch.records import Failure, display_path
from asyncbatch.transforms import Context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.codec.lines import BadLine
    from asyncbatch.drafts import FileDraft
    from asyncbatch.record_settings import RecordWorkSettings
    from asyncbatch.records import Violation
    from asyncbatch.stretches import Stretch
    from asyncbatch.transforms import RecordError


class Cursor:
    """The record being worked on: number `at` (from 0) of a stretch."""

    def __init__(self, path: str, stretch: Stretch, at: int = 0) -> None:
        self.stretch, self.at = stretch, at
        self._file = stretch.file or display_path(path)

    def context(self) -> Context:
        """Say where the record comes from."""
        line = self.stretch.line(self.at)
        if line is None and (place := self.stretch.place(self.at, 0)):
            line = place.line
        return Context(self._file, self.stretch.first + self.at, line)


class Rejecter:
    """Rejects records into a draft; keeps their texts if `letters` are wanted."""

    def __init__(self, settings: RecordWorkSettings) -> None:
        self._letters, self._tracebacks = settings.letters, settings.tracebacks
        # Places in a value are places in the file only while nothing has changed the value.
        self._keeps_source = not settings.changes_records

    def reject(self, draft: FileDraft, cursor: Cursor, error: RecordError) -> None:
        """Reject the record at `cursor`, which `error` is about."""
        stretch, at = cursor.stretch, cursor.at
        context = cursor.context()
        text = bytes(stretch.texts()[at])
        violations, place = error.violations, None
        if self._keeps_source and violations:
            violations = _located(violations, text, stretch, at)
            place = _place_of(violations[0])
        place = place or stretch.place(at, 0)
        line, column, byte = place or (context.line, None, None)
        failure = Failure(
            context.file, error.kind, error.message, context.record, line, column, byte,
            UNSET if error.pointer is None else error.pointer,
            violations or UNSET,
            error.detail if error.detail and self._tracebacks else UNSET,
        )  # fmt: skip
        letter = letter_of_record(failure, text, bad=stretch.is_text) if self._letters else None
        draft.reject(failure, letter)

    def reject_line(self, draft: FileDraft, file: str, bad: BadLine) -> None:
        """Reject a line that is not JSON."""
        failure = line_failure(file, bad)
        letter = letter_of_record(failure, bad.text, bad=True) if self._letters else None
        draft.reject(failure, letter)


def _located(
    violations: Sequence[Violation], text: bytes, stretch: Stretch, at: int
) -> tuple[Violation, ...]:
    """Return violations with their places in the file."""
    offsets = find(text, [parse_pointer(violation.pointer) for violation in violations])
    located = []
    for violation, offset in zip(violations, offsets, strict=True):
        place = None if offset is None else stretch.place(at, offset)
        line, column, byte = place or (None, None, None)
        located.append(structs.replace(violation, line=line, column=column, byte=byte))
    return tuple(located)


def _place_of(violation: Violation) -> Place | None:
    line, column, byte = violation.line, violation.column, violation.byte
    return None if line is None or column is None or byte is None else Place(line, column, byte)
