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
        """Return the largest value of these records of `file` and the one `previous`.

        Records without it do not count. Raises FeedError if two cannot be compared.
        """
        newest = previous
        for record in records:
            if type(record) is dict:
                value = self._get(record)
                if type(value) in (str, int, float):
                    newest = larger_value(newest, value, file)
        return newest


def larger_value(first: Scalar | None, second: Scalar | None, file: str) -> Scalar | None:
    """Return the larger of two values: numbers, times by instant, other text by letters.

    Beside a time, other text is ignored. Raises FeedError for a number beside a text.
    """
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, str) != isinstance(second, str):
        what = f"{first!r} and {second!r} cannot be compared, so nobody can tell which is newer"
        raise FeedError(Failure(file, "http", f"incremental.field: {what}"))
    return max(first, second, key=_sort_key)


def _sort_key(value: Scalar) -> tuple[bool, Any]:
    """Return a sort key for values: times last."""
    time = _parse_time(value) if isinstance(value, str) else None
    return (False, value) if time is None else (True, time)


def _parse_time(text: str) -> datetime | None:
    """Return the time of a text with a time zone, else None."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None
