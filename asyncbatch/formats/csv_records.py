"""CSV texts with a header to records."""

from __future__ import annotations

import csv
from io import StringIO
from typing import TYPE_CHECKING

from asyncbatch.core.records import InvalidRecord
from asyncbatch.core.units import format_count
from asyncbatch.formats.decoder import encode
from asyncbatch.formats.positions import BOM

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_CELL_CHARACTERS = 2**31 - 1  # the reader of a text limits its size


class CsvError(ValueError):
    """A text is not CSV with a header. The message has the reason."""


def csv_rows(body: bytes) -> Iterator[list[str]]:
    """Yield the header of a CSV text in UTF-8, then its rows, without empty lines.

    Raises CsvError.
    """
    try:
        text = body.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        raise CsvError(f"byte {error.start + 1} is not UTF-8") from None
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            if not row:
                continue
            if header is None:
                header = row
                _check_header(header)
            yield row
    except csv.Error as error:
        raise CsvError(f"line {reader.line_num}: {error}") from None


def csv_records(body: bytes) -> Iterator[bytes | InvalidRecord]:
    """Yield the rows of a CSV text as texts of objects, whose values are texts. Raises CsvError.

    A row with more or fewer cells than the header is an invalid record.
    """
    rows = csv_rows(body)
    header = next(rows, [])
    for row in rows:
        if len(row) == len(header):
            yield encode(dict(zip(header, row, strict=True)))
        else:
            cells = format_count(len(row), "cell")
            yield InvalidRecord(encode(row), f"has {cells}, and the header {len(header):,}")


def _check_header(header: list[str]) -> None:
    seen = set[str]()
    for name in header:
        if name in seen:
            raise CsvError(f"two columns have the name {name!r}")
        seen.add(name)
