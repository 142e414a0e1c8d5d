"""Comma-separated values: one file with a header, complete or not there."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.columns import NO_FIELDS, admit
from asyncbatch.sinks.refusing import refusals
from asyncbatch.sinks.single import FileSink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.entries import Extent
    from asyncbatch.sinks import Refusal
    from asyncbatch.sinks.block import Block


class CsvSink(FileSink):
    """Writes the fields that `columns` names, in that order; without it, the first block's.

    Null and missing are empty cells. Fields beside named columns are left out on purpose; a
    row with a value beside columns that were not named is refused.
    """

    def __init__(
        self,
        path: str,
        stores: StoreSettings | None = None,
        *,
        delimiter: str,
        columns: tuple[str, ...] | None,
    ) -> None:
        super().__init__(path, stores)
        self._row_sizes: list[int] = []
        self._kept: dict[str, tuple[str, ...]] = {}
        """The columns of files that rows are kept from, by path."""
        self._delimiter, self._columns, self._are_named = delimiter, columns, columns is not None

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        if len(self._delimiter) != 1 or self._delimiter in '"\r\n':
            raise UsageError(f"a delimiter is one character, not a quote: {self._delimiter!r}")
        self.file.open()
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
        rows = zip(*(cells.get(name, missing) for name in self._columns), strict=True)
        self._row_sizes = self._write(rows)
        return refused

    @property
    def row_sizes(self) -> list[int]:
        """See `FileSink`."""
        return self._row_sizes

    def keep(self, path: str, extent: Extent) -> Extent:
        """See `FileSink`; the file at `path` must have the same columns."""
        columns = self._kept.get(path) or self._header(path)
        if self._columns is None:
            self._columns = columns
            self._write([columns])
        elif columns != self._columns:
            raise SinkError(
                f"{self.file.path} now begins with other columns than it had: name them with "
                "--columns, or run without --resume",
                self.file.path,
            )
        return super().keep(path, extent)

    def _header(self, path: str) -> tuple[str, ...]:
        with open(path, encoding="utf-8", newline="") as stream:
            self._kept[path] = tuple(next(csv.reader(stream, delimiter=self._delimiter)))
        return self._kept[path]

    def _write(self, rows: Any) -> list[int]:  # noqa: ANN401 - typeshed's row type is private
        """Write rows; return how many bytes each takes."""
        encoded = csv_lines(rows, self._delimiter)
        self.file.write(b"".join(encoded))
        return list(map(len, encoded))


def csv_lines(rows: Any, delimiter: str) -> list[bytes]:  # noqa: ANN401 - see `_write`
    """Return rows, which are iterables of cells, as lines."""
    lines: list[str] = []
    # The module's own line end makes it quote a lone CR, too; our lines end with LF.
    csv.writer(SimpleNamespace(write=lines.append), delimiter=delimiter).writerows(rows)
    return [f"{line[:-2]}\n".encode() for line in lines]


def _booleans(column: list[bool | None]) -> list[str | None]:
    return [None if value is None else "true" if value else "false" for value in column]
