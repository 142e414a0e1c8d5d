"""The origin of a record as data: the columns that can be added, and the form of their values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_args

from msgspec import Struct

from asyncbatch.core.records import display_path
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# The fields of the origin of a record: its file, its number and its line there (both from 1), the
# time of the file's last change, the digest of its bytes, the time when it was read, the id of the
# run.
OriginField = Literal["file", "record", "line", "mtime", "sha256", "loaded_at", "run_id"]
ORIGIN_FIELDS: tuple[OriginField, ...] = get_args(OriginField)
WITH_SOURCE: tuple[OriginField, ...] = ("file", "record")  # the columns of --with-source
FILE_COLUMN = "_file"  # of --with-source the path of the file, of a mirror its identity
DELETED_COLUMN = "_deleted_at"  # when the file of the row was found to be gone; null: it is there
OWN_COLUMNS = frozenset((FILE_COLUMN, DELETED_COLUMN))  # the columns that a mirror sets itself
# These can be null: for a record without a line, a page of an API, standard input.
_NULLABLE: tuple[OriginField, ...] = ("line", "mtime")


class AddedColumn(Struct, frozen=True):
    """A column that is added to each record: the field of its origin, and the column's name."""

    field: OriginField
    name: str


def file_value(path: str) -> str:
    """Return the value of the column with the file: its path, as reports show it."""
    return display_path(path)


def time_value(nanoseconds: int) -> str:
    """Return nanoseconds since 1970 as ISO 8601 in UTC.

    All have microseconds, so texts are in the order of their times.
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:-6]  # without +00:00
    return f"{text}.{rest // 1000:06}Z"


def parse_column(text: str) -> AddedColumn:
    """Return the column of `FIELD` or `FIELD=NAME`. Raises ValueError with the reason."""
    field, sign, name = text.partition("=")
    for known in ORIGIN_FIELDS:
        if field == known:
            if sign and not name:
                raise ValueError(f"{text!r} names no column: write {field}=NAME")
            return AddedColumn(known, name or f"_{known}")
    raise ValueError(f"{field!r} is none of {', '.join(ORIGIN_FIELDS)}")


def added_columns(
    texts: Sequence[str], *, with_source: bool, key: Sequence[str] = ()
) -> tuple[AddedColumn, ...]:
    """Return the columns of `--add` and `--with-source`. Raises UsageError.

    A name in `texts` counts also for a column of `--with-source`. `key` has the key fields of the
    target.
    """
    try:
        named = {column.field: column for column in map(parse_column, texts)}
    except ValueError as error:
        raise UsageError(f"--add: {error}") from None
    if len(named) < len(texts):
        raise UsageError(f"--add {','.join(texts)}: add each of the columns only once")
    if with_source:
        named = {field: parse_column(field) for field in WITH_SOURCE} | named
    columns = tuple(named.values())
    names = [column.name for column in columns]
    for column in columns:
        if names.count(column.name) > 1:
            raise UsageError(f"--add: two columns cannot have the same name {column.name!r}")
        if column.name in key and column.field in _NULLABLE:
            raise UsageError(
                f"--key {column.name}: the column can be null, and so cannot identify a row; "
                "file and record can"
            )
    return columns
