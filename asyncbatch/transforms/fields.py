"""The transforms `fields` and `require`, field paths, and conversions of values."""

from __future__ import annotations

import math
import re
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import TYPE_CHECKING, Any

from asyncbatch.formats.decoder import allow_deep_nesting, decode, encode
from asyncbatch.formats.grammar import MAX_INTEGER_DIGITS
from asyncbatch.formats.positions import format_pointer, parse_pointer
from asyncbatch.formats.validator import make_validator
from asyncbatch.transforms.base import RecordError, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.base import RecordPosition
    from asyncbatch.transforms.spec import FieldRule, FieldsSpec, Function, RequireSpec

    Apply = Callable[[Any], Any]
    Make = Callable[[dict[str, Any]], Any]

_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")


def parse_path(text: str) -> tuple[str, ...]:
    """Return the tokens of a path: names separated by dots, or a JSON Pointer.

    Raises ValueError with the reason.
    """
    if text.startswith("/"):
        return parse_pointer(text)
    tokens = tuple(text.split("."))
    if "" in tokens:
        raise ValueError(
            f"{text!r} is not a path: write a.b.c, or a JSON Pointer (/a/b) for names with dots"
        )
    return tokens


def make_getter(tokens: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
    """Return a function from an object to its value at `tokens`, or None."""
    first, *rest = tokens

    def get_first(record: dict[str, Json]) -> Json:
        return record.get(first)

    def get(record: dict[str, Json]) -> Json:
        value = record.get(first)
        for token in rest:
            if type(value) is dict:
                value = value.get(token)
            elif type(value) is list:
                value = _element(value, token)
            else:
                return None
        return value

    return get if rest else get_first


def make_field_getter(path: str) -> Callable[[dict[str, Any]], Any]:
    """Return a function from an object to its value at `path`, or None.

    A field with the whole path as its name comes before a nested one. A JSON Pointer names a
    nested field only. Raises ValueError for an invalid path.
    """
    get = make_getter(parse_path(path))
    if not has_dots(path):
        return get
    return lambda record: record[path] if path in record else get(record)


def has_dots(path: str) -> bool:
    """Whether a path is either the name of a field or names separated by dots."""
    return "." in path and not path.startswith("/")


def _element(array: list[Any], token: str) -> Any:
    if _INDEX.fullmatch(token) and int(token) < len(array):
        return array[int(token)]
    return None


_INTEGER = re.compile(
    rf"\s*(\+?[0-9]{{1,{MAX_INTEGER_DIGITS}}}|-[0-9]{{1,{MAX_INTEGER_DIGITS - 1}}})\s*", re.ASCII
)
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# An epoch time as text. A shorter number is a date, for example 20260131.
_EPOCH_TEXT = re.compile(r"-?[0-9]{9,17}(?:\.[0-9]+)?", re.ASCII)
# Epoch times from this number on are in milliseconds. In seconds it is in the year 5138.
_FIRST_MILLISECONDS = 100_000_000_000
_TRUE = frozenset(("true", "t", "yes", "y", "on", "1"))
_FALSE = frozenset(("false", "f", "no", "n", "off", "0"))


def to_int(value: Json) -> int:
    """Return a number, text or boolean as an integer. Raises ValueError."""
    if type(value) is str:
        match = _INTEGER.fullmatch(value)
        if match is None:
            raise ValueError
        return int(match[1])
    number = int(value)  # never NaN, which is not JSON
    if number != value:
        raise ValueError("it has a fraction")
    return number


def to_float(value: Json) -> float:
    """Return a number, text or boolean as a float. Raises ValueError."""
    if type(value) is str and not _NUMBER.fullmatch(value):
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("it is beyond double precision")
    return number


def to_bool(value: Json) -> bool:
    """Return the boolean for true, yes, on, 1 and their opposites, in any case."""
    if type(value) is bool:
        return value
    if type(value) is str:
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    elif value in (0, 1):
        return bool(value)
    raise ValueError


def to_text(value: Json) -> str:
    """Return text as it is, and anything else as its JSON text."""
    return value if type(value) is str else encode(value).decode()


def to_datetime(value: Json) -> str:
    """Return a time in UTC as ISO 8601.

    `value` is ISO 8601, in UTC unless it has an offset, or seconds or milliseconds since the epoch.
    """
    return utc_text(to_time(value))


def to_date(value: Json) -> str:
    """Return the day, in UTC, of a time that `to_datetime` takes."""
    return to_time(value).date().isoformat()


def utc_text(time: datetime) -> str:
    """Return a time in UTC as ISO 8601 with Z. A fraction of zero is left out."""
    return time.isoformat()[:-6] + "Z"  # instead of +00:00


def to_time(value: Json) -> datetime:
    """Return a time in UTC. Raises ValueError, TypeError or OverflowError."""
    if type(value) is str:
        text = value.strip()
        # The first check is only for speed: nearly all texts are dates such as 2026-01-31.
        if text[4:5] == "-" or not _EPOCH_TEXT.fullmatch(text):
            time = datetime.fromisoformat(text)
            if time.tzinfo is UTC:
                return time
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        value = float(text) if "." in text else int(text)
    elif type(value) is bool:
        raise TypeError
    if abs(value) < _FIRST_MILLISECONDS:
        return _EPOCH + timedelta(seconds=value)
    return _EPOCH + timedelta(milliseconds=value)


_FUNCTIONS: dict[Function, Apply] = {
    "strip": str.strip,
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "int": to_int,
    "float": to_float,
    "bool": to_bool,
    "str": to_text,
    "datetime": to_datetime,
    "date": to_date,
}


def make_apply(name: Function) -> Apply:
    """Return the function with this name, for use in one thread."""
    return _make_parser() if name == "json" else _FUNCTIONS[name]


def _make_parser() -> Apply:
    allow_deep_nesting()
    validator = make_validator()

    def parse(value: Json) -> Json:
        """Return the value of a JSON text. Other values are returned unchanged."""
        if type(value) is not str:
            return value
        text = value.encode()
        fault = validator(text)
        if type(fault) is not int:
            raise ValueError(getattr(fault, "message", ""))
        return decode(text)

    return parse


_LONGEST = 60  # characters of a value that a message shows
_CANNOT = (ValueError, TypeError, OverflowError)  # errors of functions
_EXPLAIN = ("int", "float", "json")  # functions whose ValueError has a helpful message


class Fields:
    """A transform that makes a new object with exactly the fields of `spec`.

    `clock` returns nanoseconds since the epoch. Raises ValueError for an invalid path.
    """

    def __init__(self, spec: FieldsSpec, clock: Callable[[], int] = time_ns) -> None:
        self._makes = [(name, _make(name, rule, clock)) for name, rule in spec.fields]

        # The fields of a record's origin; each is None in the new record until it is set.
        self._origins = [(name, rule.origin) for name, rule in spec.fields if rule.origin]

    def __call__(self, value: Json, position: RecordPosition) -> tuple[Json]:
        """Return the new record. Raises RecordError if a function fails."""
        if type(value) is not dict:
            raise RecordError("transform", f"fields needs an object, not {kind_of(value)}")
        record = {name: make(value) for name, make in self._makes}
        for name, origin in self._origins:
            record[name] = getattr(position, origin)
        return (record,)


def _make(name: str, rule: FieldRule, clock: Callable[[], int]) -> Make:
    if rule.source is not None:
        return _make_of_source(name, rule, rule.source)
    if rule.now:
        return _make_now(clock)
    return _constant(rule.value)


def _make_now(clock: Callable[[], int]) -> Make:
    second, text = -1, ""

    def now(_: dict[str, Any]) -> str:
        """Return the time in UTC. The text of the current second is cached."""
        nonlocal second, text
        at, rest = divmod(clock(), 1_000_000_000)
        if at != second:
            second, text = at, utc_text(datetime.fromtimestamp(at, UTC))[:-1]
        return f"{text}.{rest // 1000:06}Z"

    return now


def _constant(value: Json) -> Make:
    if isinstance(value, dict | list):
        return lambda _: deepcopy(value)  # a later transform may change the record
    return lambda _: value


def _make_of_source(name: str, rule: FieldRule, source: str) -> Make:
    get = make_field_getter(source)
    default = None if rule.default is None else _constant(rule.default)
    functions = [make_apply(function) for function in rule.apply]
    if not functions and default is None:
        return get
    only = functions[0] if len(functions) == 1 else None

    def make(record: dict[str, Json]) -> Json:
        value = get(record)
        if value is None:
            return default(record) if default else None
        try:
            if only is not None:
                return only(value)
            for function in functions:
                value = function(value)
        except _CANNOT:
            raise _refusal(name, source, rule.apply, functions, get(record)) from None
        return value

    return make


def _refusal(
    name: str,
    source: str,
    names: Sequence[Function],
    functions: Sequence[Apply],
    value: Json,
) -> RecordError:
    """Return the error for a field: calls the functions again until one fails."""
    reason = ""
    for function_name, function in zip(names, functions, strict=True):
        try:
            value = function(value)
        except _CANNOT as error:
            if type(error) is ValueError and str(error) and function_name in _EXPLAIN:
                reason = f": {error}"
            break
    shown = encode(value).decode()
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}…"
    origin = "" if source == name else f" (from {source})"
    return RecordError(
        "transform", f"field {name!r}{origin}: {function_name} cannot take {shown}{reason}"
    )


class Require:
    """A check that some fields of a record are neither missing, null nor "".

    Raises ValueError for an invalid path.
    """

    def __init__(self, spec: RequireSpec) -> None:
        self._fields = spec.fields
        self._drops = spec.on_missing == "drop"
        self._tokens = [parse_path(field) for field in spec.fields]
        self._gets = [make_field_getter(field) for field in spec.fields]

    def __call__(
        self,
        value: Json,
        position: RecordPosition,  # noqa: ARG002 - a parameter of `Transform`
    ) -> Iterable[Json]:
        """Return the record, or nothing to drop it. Raises RecordError to reject it."""
        if type(value) is dict:
            for get in self._gets:
                found = get(value)
                if found is None or found == "":
                    break
            else:
                return (value,)
        if self._drops:
            return ()
        raise self._rejection(value)

    def _rejection(self, value: Json) -> RecordError:
        if type(value) is not dict:
            return RecordError(
                "missing_field", f"has no {self._fields[0]!r}: it is {kind_of(value)}", pointer=""
            )
        lacking = [
            at for at, get in enumerate(self._gets) if (found := get(value)) is None or found == ""
        ]
        first = lacking[0]
        state = "is empty" if self._gets[first](value) == "" else "is missing or null"
        more = [repr(self._fields[at]) for at in lacking[1:]]
        also = f"; also missing, null or empty: {', '.join(more)}" if more else ""
        return RecordError(
            "missing_field",
            f"{self._fields[first]!r} {state}{also}",
            pointer=format_pointer(self._tokens[first]),
        )
