"""Comma-separated values: one file with a header, complete or not there."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from asyncbatch.errors import UsageError
from asyncbatch.sinks.atomic import AtomicFile
from asyncbatch.sinks.columns import NO_FIELDS, admit
from asyncbatch.sinks.refusing import refusals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.sinks import Refusal
    from asyncbatch.sinks.block import Block


class CsvSink:
    """Writes the fields that `columns` names, in that order; without it, the first block's.

    Null and missing are empty cells. Fields beside named columns are left out on purpose; a
    row with a value beside columns that were not named is refused.
    """

    def __init__(self, path: str, *, delimiter: str, columns: tuple[str, ...] | None) -> None:
        self._file = AtomicFile(path)
        self._delimiter, self._columns, self._are_named = delimiter, columns, columns is not None

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        if len(self._delimiter) != 1 or self._delimiter in '"\r\n':
            raise UsageError(f"a delimiter is one character, not a quote: {self._delimiter!r}")
        self._file.open()
        if self._columns is not None:
            self._write([self._columns])

    def load(self, payload: Block, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        """Write rows. Raises SinkError."""
        if self._columns is None:
            if not payload.names:
                return refusals(dict.fromkeys(range(payload.count), NO_FIELDS))
            self._columns = tuple(payload.names)
            self._write([self._columns])
        unfit = {}
        if not self._are_named:
            unfit = {
                name: f"field {name!r} came after the header was written: name it with --columns"
                for name in payload.names
                if name not in self._columns
            }
        block, _, _, refused = admit(payload, groups, unfit)
        cells = {
            name: _booleans(column) if kind == "boolean" else column
            for name, kind, column in zip(block.names, block.kinds, block.values, strict=True)
        }
        missing = [None] * block.count
        self._write(zip(*(cells.get(name, missing) for name in self._columns), strict=True))
        return refused

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - a file ends as it is
        """Put the file in place if all input was taken. Raises SinkError."""
        if ended:
            self._file.commit()
        else:
            self._file.discard()
        return ended

    def _write(self, rows: Any) -> None:  # noqa: ANN401 - typeshed's row type is private
        lines: list[str] = []
        # The module's own line end makes it quote a lone CR, too; our lines end with LF.
        csv.writer(SimpleNamespace(write=lines.append), delimiter=self._delimiter).writerows(rows)
        self._file.write("".join([line[:-2] + "\n" for line in lines]).encode())


def _booleans(column: list[bool | None]) -> list[str | None]:
    return [None if value is None else "true" if value else "false" for value in column]
