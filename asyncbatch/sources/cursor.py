"""The cursor of an incremental source: the largest value of one field."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncbatch.core.records import Failure
from asyncbatch.formats.failures import FeedError
from asyncbatch.transforms.fields import make_getter, parse_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.records import Scalar


class LargestCursor:
    """Finds the largest value of the field at `path`. Raises ValueError for an invalid path."""

    def __init__(self, path: str) -> None:
        self._get = make_getter(parse_path(path))

    def largest(self, records: Sequence[Any], previous: Scalar | None, file: str) -> Scalar | None:
        """Return the largest value of `previous` and the field of each record of `file`.

        Records without the field are skipped. Raises FeedError if two values cannot be compared.
        """
        newest = previous
        for record in records:
            if type(record) is dict:
                value = self._get(record)
                if type(value) in (str, int, float):
                    newest = larger_value(newest, value, file)
        return newest


def larger_value(first: Scalar | None, second: Scalar | None, file: str) -> Scalar | None:
    """Return the larger of two values. Times are compared as instants.

    A time is larger than any other text. Raises FeedError for a number and a text.
    """
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, str) != isinstance(second, str):
        problem = f"{first!r} and {second!r} cannot be compared, so the newer one is unknown"
        raise FeedError(Failure(file, "http", f"incremental.field: {problem}"))
    return max(first, second, key=_sort_key)


def _sort_key(value: Scalar) -> tuple[bool, Any]:
    """Return a sort key in which times come after other text."""
    time = _parse_time(value) if isinstance(value, str) else None
    return (False, value) if time is None else (True, time)


def _parse_time(text: str) -> datetime | None:
    """Parse an ISO 8601 time with a time zone; return None for other text."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None
