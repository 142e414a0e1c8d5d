"""The cursor of an incremental source: the largest value of one field."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.core.records import CursorValues, Failure
from asyncbatch.formats.failures import FeedError
from asyncbatch.transforms.fields import make_field_getter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.records import CursorKind, Scalar

NOW = "now"  # as `max`: the time at which the work begins
# A time that is further ahead of the clock is not kept, unless `max` allows it.
DEFAULT_AHEAD = timedelta(days=1)
_MIN_MILLISECONDS = 10**11  # a larger number is a time in milliseconds since 1970, not in seconds
# Digits without an exponent: hexadecimal texts such as 1e5 are no numbers.
_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{1,400})?")
_DATE_DIGITS = 8  # of a date in the basic form of ISO 8601: 20260101
# A time of ISO 8601 in its extended or basic form, to the day, hour, minute or second.
_TIME_FORM = re.compile(
    r"[0-9]{4}(?P<hyphen>-?)[0-9]{2}(?P=hyphen)[0-9]{2}"
    r"(?:(?P<between>.)[0-9]{2}(?P<minute>(?P<colon>:?)[0-9]{2}"
    r"(?P<second>(?P=colon)[0-9]{2}(?:(?P<point>[.,])(?P<fraction>[0-9]+))?)?)?"
    r"(?P<zone>[zZ]|[+-][0-9:]+)?)?"
)
# The end of a day, and a leap second, which Python does not know (the former only since 3.14).
_END_OF_DAY = re.compile(r"(?<=[Tt ])24(?=(?::?00){0,2}(?:[.,]0+)?(?:[zZ]|[+-][0-9:]+)?$)")
_LEAP_SECOND = re.compile(r"(?<=[Tt ]23)(:?)59\1(60)(?=[.,zZ+-]|$)")


class CursorField(Struct, frozen=True):
    """The field of an incremental source whose largest value is kept."""

    path: str
    kind: CursorKind | None = None  # how values are compared; None: as they look
    max: Scalar | None = None  # larger values are not kept; `NOW` for the current time


class LargestCursor:
    """Finds the largest values of a cursor field. Raises ValueError for an invalid path."""

    def __init__(self, field: CursorField) -> None:
        self._get = make_field_getter(field.path)
        self._kind = field.kind
        now = datetime.now(UTC)
        self._max_time: datetime | None = now + DEFAULT_AHEAD if field.max is None else None
        self._max_number: float | Decimal | None = None
        self._max_text: str | None = None
        if field.max == NOW:
            self._max_time = now
        elif field.kind == "text":
            self._max_text = None if field.max is None else str(field.max)
        elif field.max is not None:
            self._max_number = None if field.kind == "time" else to_number(field.max)
            if self._max_number is None:
                self._max_time = to_time(field.max, "time")
            if self._max_number is None and self._max_time is None:
                self._max_text = str(field.max)

    def largest(self, records: Sequence[Any], found: CursorValues | None) -> CursorValues | None:
        """Return `found` merged with the values of the field in each record.

        Records without the field are skipped.
        """
        for record in records:
            if type(record) is dict:
                value = self._get(record)
                if type(value) in (str, int, float):
                    found = merge_values(found, self._classify(value))
        return found

    def _classify(self, value: Scalar) -> CursorValues:
        """Return the values for one record, without those beyond the maximum."""
        values = classify(value, self._kind)
        time, number = to_time(value, self._kind), to_number(value)
        if time is not None and self._max_time is not None and time > self._max_time:
            values = _without(values, "time", value)
        if number is not None and self._max_number is not None and number > self._max_number:
            values = _without(values, "number", value)
        if isinstance(value, str) and self._max_text is not None and value > self._max_text:
            values = _without(values, "text", value)
        return values


def _without(values: CursorValues, name: str, value: Scalar) -> CursorValues:
    return replace(values, **{name: None, "beyond": value})


def classify(value: Scalar, kind: CursorKind | None) -> CursorValues:
    """Return the values for one value, by each way to compare it that it allows."""
    is_text = isinstance(value, str)
    is_time, is_number = to_time(value, kind) is not None, to_number(value) is not None
    return CursorValues(
        number=value if is_number else None,
        time=value if is_time else None,
        text=str(value) if is_text else None,
        json_number=None if is_text or is_time else value,
        no_number=str(value) if not is_number else None,
        has_times=is_time,
    )


def merge_values(first: CursorValues | None, second: CursorValues | None) -> CursorValues | None:
    """Return the largest values of both."""
    if first is None or second is None:
        return second if first is None else first
    return CursorValues(
        number=_larger(first.number, second.number, "number"),
        time=_larger(first.time, second.time, "time"),
        text=_larger(first.text, second.text, "text"),
        json_number=second.json_number if first.json_number is None else first.json_number,
        no_number=second.no_number if first.no_number is None else first.no_number,
        has_times=first.has_times or second.has_times,
        beyond=second.beyond if first.beyond is None else first.beyond,
    )


def _larger(first: Scalar | None, second: Scalar | None, kind: CursorKind) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return max(first, second, key=lambda value: _sort_key(value, kind))


def _sort_key(value: Scalar, kind: CursorKind) -> Any:
    if kind == "number":
        return to_number(value)
    return to_time(value, kind) if kind == "time" else value


def kind_of(values: CursorValues) -> CursorKind | None:
    """Return how values are compared by the look of all of them; None without values."""
    if values.json_number is not None:
        return "number"
    if values.has_times:
        return "time"
    if values.number is not None and values.no_number is None:
        return "number"
    return "text" if values.text is not None else None


def largest_value(
    values: CursorValues | None, kind: CursorKind | None, file: str
) -> tuple[Scalar | None, CursorKind | None]:
    """Return the largest value of `file`, and how it was compared: by `kind` if it is set.

    Raises FeedError if the values cannot be compared.
    """
    if values is None:
        return None, kind
    kind = kind or kind_of(values)
    if kind == "number" and values.no_number is not None:
        number = values.number if values.json_number is None else values.json_number
        raise _not_comparable(number, values.no_number, file)
    if kind == "text" and values.json_number is not None:
        raise _not_comparable(values.text, values.json_number, file)
    if kind == "time" and values.json_number is not None:
        raise _not_comparable(values.time, values.json_number, file)
    return (None if kind is None else getattr(values, kind)), kind


def _not_comparable(first: Scalar | None, second: Scalar, file: str) -> FeedError:
    problem = f"{first!r} and {second!r} cannot be compared, so the newer one is unknown"
    advice = 'incremental.type says how: "number", "time" or "text"'
    return FeedError(Failure(file, "http", f"incremental.field: {problem}; {advice}"))


def to_number(value: object) -> int | float | Decimal | None:
    """Return the exact number that a value is, or that its text is; None for another value."""
    if not isinstance(value, str):
        return value if type(value) in (int, float) else None  # type: ignore[return-value]
    if _NUMBER.fullmatch(value) is None:
        return None
    return Decimal(value) if "." in value else int(value)


def to_time(value: object, kind: CursorKind | None) -> datetime | None:
    """Return the instant of a time of ISO 8601 with a zone; None for another value.

    With the kind "time", a time without a zone is one of UTC, and a number counts from 1970.
    """
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        time = _parse_time(value)
        if time is not None and time.tzinfo is not None:
            return time
        if time is not None and kind == "time":
            return time.replace(tzinfo=UTC)
    number = to_number(value) if kind == "time" else None
    if number is None:
        return None
    try:
        seconds = Decimal(number) / (1000 if _is_milliseconds(number) else 1)
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(seconds))
    except OverflowError:
        return None


def _parse_time(text: str) -> datetime | None:
    """Return the time of a text of ISO 8601, None for another text."""
    if text.isdecimal() and len(text) != _DATE_DIGITS:  # a number, though Python may read a time
        return None
    later = timedelta(0)
    if (end := _END_OF_DAY.search(text)) is not None:
        text, later = f"{text[: end.start()]}00{text[end.end() :]}", timedelta(days=1)
    elif (leap := _LEAP_SECOND.search(text)) is not None:
        text, later = f"{text[: leap.start(2)]}59{text[leap.end(2) :]}", timedelta(seconds=1)
    try:
        return datetime.fromisoformat(text) + later
    except (ValueError, OverflowError):
        return None


def is_ahead(value: Scalar, kind: CursorKind | None) -> bool:
    """Whether a cursor value is a time that is too far in the future to be kept."""
    time = to_time(value, kind)
    return time is not None and time > datetime.now(UTC) + DEFAULT_AHEAD


def _is_milliseconds(number: float | Decimal) -> bool:
    return abs(Decimal(number)) >= _MIN_MILLISECONDS


def minus_lag(value: Scalar, kind: CursorKind | None, lag: float) -> Scalar:
    """Return a cursor value less `lag`: seconds for a time, else a number.

    Raises ValueError for a text that is neither.
    """
    kind = kind or kind_of(classify(value, None))
    if kind == "number" and (number := to_number(value)) is not None:
        return _number_minus(value, number, lag)
    time = to_time(value, "time") if kind == "time" else None
    if time is None:
        raise ValueError(f"incremental.lag needs a number or a time, not {value!r}")
    number = to_number(value)
    if number is not None and not (isinstance(value, str) and _parse_time(value)):
        return _number_minus(value, number, lag * 1000 if _is_milliseconds(number) else lag)
    return _time_minus(str(value), time, lag)


def _number_minus(value: Scalar, number: float | Decimal, lag: float) -> Scalar:
    exact = Decimal(str(number)) - Decimal(str(int(lag) if lag == int(lag) else lag))
    text = format(exact, "f")
    if isinstance(value, str):
        return text
    return int(exact) if exact == exact.to_integral_value() else float(exact)


def _time_minus(text: str, time: datetime, lag: float) -> str:
    """Return a time less `lag` seconds, in the form of `text`: never later than that."""
    try:
        earlier = time - timedelta(seconds=lag)
    except OverflowError:
        return text
    form = _TIME_FORM.fullmatch(text)
    if form is None:  # a date by its week
        return earlier.isoformat().replace("+00:00", "Z")
    hyphen, colon = form["hyphen"], form["colon"] or ""
    shown = f"{earlier.year:04}{hyphen}{earlier.month:02}{hyphen}{earlier.day:02}"
    if form["between"] is None:
        return shown
    shown += f"{form['between']}{earlier.hour:02}"
    if form["minute"] is not None:
        shown += f"{colon}{earlier.minute:02}"
    if form["second"] is not None:
        shown += f"{colon}{earlier.second:02}"
    if form["fraction"] is not None:
        length = len(form["fraction"])
        shown += form["point"] + f"{earlier.microsecond:06}"[:length].ljust(length, "0")
    return shown + (form["zone"] or "")
