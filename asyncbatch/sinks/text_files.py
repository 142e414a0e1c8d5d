"""Sinks for JSON Lines and CSV files, and for standard output."""

from __future__ import annotations

import csv
import re
import sys
from io import BytesIO
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING

from asyncbatch.core.ledger_entries import Extent
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.sinks.columns.table import NO_FIELDS, make_refusals, spread_reasons
from asyncbatch.storage.opener import open_output
from asyncbatch.transforms.base import nearest_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry
    from asyncbatch.core.records import Json
    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.sinks.base import Refusal
    from asyncbatch.storage.atomic import AtomicFile


class FileSink:
    """The base of sinks that write one file, which is complete or not there.

    A resumed run calls `keep` for the rows that an earlier run wrote.
    """

    # Whether the sink reads its own file again, or seeks in it.
    goes_back = False

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        self.file: AtomicFile = open_output(path, stores, random_access=self.goes_back)

    @property
    def position(self) -> int:
        """The position of the next row, in the units of an `Extent`."""
        return self.file.size

    @property
    def row_sizes(self) -> list[int]:
        """The size of each accepted row of the last load, in the units of an `Extent`."""
        return []

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        self.file.open()

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: the file is put in place only at the end."""

    def keep(self, path: str, extent: Extent) -> Extent:
        """Copy rows from the earlier file at `path`; return their new extent.

        Raises SinkError.
        """
        at = self.position
        for chunk in read_extent(path, extent):
            self.file.write(chunk)
        return Extent(at, extent.length, 0, extent.take)

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - failures do not discard a file
        """Put the file in place if all input was read. Raises SinkError."""
        if ended:
            self.complete()
        else:
            self.file.discard()
        return ended

    def complete(self) -> None:
        """Put the file in place. Raises SinkError."""
        self.file.commit()

    def give_up(self) -> None:
        """End a blocked write. May be called from any thread."""
        self.file.abandon()


def read_extent(path: str, extent: Extent) -> Iterator[bytes]:
    """Yield the bytes of an extent. Raises SinkError if they are missing."""
    left = extent.length
    try:
        with open(path, "rb") as stream:
            stream.seek(extent.at)
            while left:
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    raise SinkError(f"{path} is shorter than before: run without --resume", path)
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise SinkError(f"cannot read {path} again: {error.strerror}", path) from None


_MAX_FOUND_NAMES = 10_000  # fields of records; beyond, it is not told which columns none had


class CsvSink(FileSink):
    """A CSV or TSV file.

    Its columns are `columns`, in this order, or else the fields of the first rows. Null and
    missing values are empty cells. With `columns`, other fields are dropped. Without, a row with
    another field is rejected. `is_safe`: no cell is a formula for a spreadsheet (see `safe_cell`).
    """

    def __init__(
        self,
        path: str,
        stores: StoreSettings | None = None,
        *,
        delimiter: str,
        columns: tuple[str, ...] | None,
        is_safe: bool = False,
        null_value: str | None = None,
    ) -> None:
        super().__init__(path, stores)
        self._is_safe, self._null_value = is_safe, null_value  # see `csv_lines`
        self._row_sizes: list[int] = []
        # The columns of earlier files, by path.
        self._kept_columns: dict[str, tuple[str, ...]] = {}
        self._delimiter, self._columns, self._are_named = delimiter, columns, columns is not None
        self._found_names: dict[str, None] = {}  # fields of the records, while there are few

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        if len(self._delimiter) != 1 or self._delimiter in '"\r\n':
            raise UsageError(
                f"a delimiter must be one character, not a quote or line end: {self._delimiter!r}"
            )
        super().open()
        if self._columns is not None:
            self._write_header(self._columns)

    def load(
        self, payload: Sequence[Mapping[str, str | int | None]], groups: Sequence[int] | None = None
    ) -> Sequence[Refusal]:
        """Write rows: their cells by field. Raises SinkError."""
        if self._columns is None:
            if not any(payload):
                return make_refusals(dict.fromkeys(range(len(payload)), NO_FIELDS))
            self._columns = tuple(dict.fromkeys(chain.from_iterable(payload)))
            self._write_header(self._columns)
        if self._are_named and len(self._found_names) < _MAX_FOUND_NAMES:
            self._found_names.update(dict.fromkeys(chain.from_iterable(payload)))
        reasons = {} if self._are_named else self._rejections(payload, self._columns)
        reasons = spread_reasons(reasons, groups)
        names, numbers = self._columns, range(len(payload))
        accepted = [number for number in numbers if number not in reasons] if reasons else numbers
        self._row_sizes = self._write(
            ([payload[number].get(name) for name in names] for number in accepted), accepted
        )
        return make_refusals(reasons)

    def _rejections(
        self, rows: Sequence[Mapping[str, str | int | None]], columns: Sequence[str]
    ) -> Mapping[int, str]:
        """Return the reasons against rows with values in other fields."""
        known = set(columns)
        reasons = {}
        for number, row in enumerate(rows):
            if not row.keys() <= known and (
                names := [name for name in row if name not in known and row[name] is not None]
            ):
                reasons[number] = "; ".join(
                    f"field {name!r} came after the header was written: name it with --columns"
                    for name in names
                )
        return reasons

    @property
    def row_sizes(self) -> list[int]:
        return self._row_sizes

    @property
    def notes(self) -> Sequence[str]:
        """A note for each named column that no record had."""
        if not self._found_names or len(self._found_names) >= _MAX_FOUND_NAMES:
            return ()
        found = self._found_names
        missing = [name for name in self._columns or () if name not in found]
        return [
            f"no record has a value for {name!r} of --columns{nearest_name(name, found)}"
            for name in missing
        ]

    def keep(self, path: str, extent: Extent) -> Extent:
        """Copy rows as `FileSink.keep` does. The earlier file must have the same columns."""
        columns = self._kept_columns.get(path) or self._header(path)
        if self._columns is None:
            self._columns = columns
            self._write_header(columns)
        elif columns != self._columns:
            raise SinkError(
                f"{self.file.path}: the rows of the earlier run have other columns: name the "
                "columns with --columns, or run without --resume",
                self.file.path,
            )
        return super().keep(path, extent)

    def _header(self, path: str) -> tuple[str, ...]:
        with open(path, encoding="utf-8", newline="") as stream:
            header = next(csv.reader(stream, delimiter=self._delimiter))
        if self._is_safe:
            header = [_unsafe_name(name) for name in header]
        self._kept_columns[path] = tuple(header)
        return self._kept_columns[path]

    def _write_header(self, columns: Sequence[str]) -> None:
        self.file.write(b"".join(self._encode([columns])))

    def _write(self, rows: Json, numbers: Sequence[int]) -> list[int]:  # noqa: ARG002 - used by partitions
        """Write the rows of a load with these numbers; return the size of each in bytes."""
        encoded = self._encode(rows)
        self.file.write(b"".join(encoded))
        return list(map(len, encoded))

    def _encode(self, rows: Json) -> list[bytes]:
        return csv_lines(rows, self._delimiter, is_safe=self._is_safe, null_value=self._null_value)


def csv_lines(
    rows: Json, delimiter: str, *, is_safe: bool = False, null_value: str | None = None
) -> list[bytes]:
    """Return rows (iterables of cells) as lines, with `safe_cell` for each cell if `is_safe`.

    With `null_value`, None is this text without quotes, and the same text in a cell has quotes.
    """
    if is_safe:
        rows = (map(safe_cell, row) for row in rows)
    if null_value is not None:
        needs_quotes = re.compile(rf'["\r\n{re.escape(delimiter)}]').search
        return [
            f"{delimiter.join(_cell(cell, null_value, needs_quotes) for cell in row)}\n".encode()
            for row in rows
        ]
    lines: list[str] = []
    # With its default line end, CRLF, the csv module also quotes a lone CR. Lines here end with LF.
    csv.writer(SimpleNamespace(write=lines.append), delimiter=delimiter).writerows(rows)
    return [f"{line[:-2]}\n".encode() for line in lines]


# The beginning of a formula in a spreadsheet, also behind blanks, and full-width. Some programs
# begin a new cell after a tab or a line end.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_QUOTE = "'"  # a spreadsheet takes a cell behind it as text


def safe_cell(cell: Json) -> Json:
    """Return a cell that no spreadsheet takes for a formula: a quote is put before its text.

    Numbers stay, also as text. A text that begins with the quote gets another one if it would look
    like the result for another text.
    """
    if type(cell) is str and _FORMULA.match(cell.lstrip(_QUOTE)) and not _NUMBER.fullmatch(cell):
        return _QUOTE + cell
    return cell


def _unsafe_name(cell: str) -> str:
    """Return the text that `safe_cell` made `cell` of."""
    name = cell.removeprefix(_QUOTE)
    return name if safe_cell(name) == cell else cell


def _cell(cell: Json, null_value: str, needs_quotes: Callable[[str], object]) -> str:
    if cell is None:
        return null_value
    text = str(cell)
    if text != null_value and not needs_quotes(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


_CHUNK = 1024 * 1024  # bytes


class LinesSink(FileSink):
    """A JSON Lines file. The workers encode the lines, and compress them by its name."""

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        super().__init__(path, stores)
        self._compression = compression_by_name(path)

    def load(
        self,
        payload: bytes | bytearray,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - a file of lines rejects no row
    ) -> Sequence[Refusal]:
        """Write lines. Raises SinkError."""
        self.file.write(payload)
        return ()

    def keep(self, path: str, extent: Extent) -> Extent:
        """Copy rows as `FileSink.keep` does; compressed rows are compressed again."""
        if self._compression is None:
            return super().keep(path, extent)
        start = self.position
        raw = BytesIO(b"".join(read_extent(path, extent)))
        at, end = 0, extent.skip + extent.take  # in decompressed bytes
        for chunk in self._compression.chunks(raw, _CHUNK):
            wanted = chunk[max(0, extent.skip - at) : max(0, end - at)]
            at += len(chunk)
            if wanted:
                self.file.write(self._compression.compress(wanted))
        return Extent(start, self.position - start, 0, extent.take)


class StdoutSink:
    """Standard output. Lines count as soon as they are written."""

    def __init__(self) -> None:
        # Not `sys.stdout`: user functions may print to it.
        self._stream = (sys.__stdout__ or sys.stdout).buffer

    def open(self) -> None:
        """Do nothing: standard output is open."""

    def load(
        self,
        payload: bytes | bytearray,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - a file of lines rejects no row
    ) -> Sequence[Refusal]:
        """Write lines. Raises SinkError; BrokenPipeError if the reader has ended."""
        try:
            self._stream.write(payload)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SinkError(f"cannot write to standard output: {error.strerror}") from None
        return ()

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: written lines count."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - written lines count
        """Do nothing: written lines count."""
        return True
