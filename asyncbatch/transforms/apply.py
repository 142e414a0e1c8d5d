"""Functions that clean a field's value; each raises ValueError or TypeError where it cannot."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.decode import decode
from asyncbatch.codec.depth import allow_deep_nesting
from asyncbatch.codec.encode import encode
from asyncbatch.codec.grammar import MAX_INTEGER_DIGITS
from asyncbatch.codec.judge import make_judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.transforms.specs import Function

    Apply = Callable[[Any], Any]

_INTEGER = re.compile(rf"\s*([+-]?[0-9]{{1,{MAX_INTEGER_DIGITS}}})\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_TEXT = re.compile(r"-?[0-9]{9,17}(?:\.[0-9]+)?", re.ASCII)
"""An epoch time as text; shorter ones are dates, such as 20260131."""
_FIRST_MILLISECONDS = 100_000_000_000
"""An epoch time is in milliseconds from here on: in seconds it would be in the year 5138."""
_TRUE = frozenset(("true", "t", "yes", "y", "on", "1"))
_FALSE = frozenset(("false", "f", "no", "n", "off", "0"))


def to_int(value: Any) -> int:  # noqa: ANN401 - JSON
    """Return the integer that a number or text is, or that a boolean stands for."""
    if type(value) is str:
        match = _INTEGER.fullmatch(value)
        if match is None:
            raise ValueError
        return int(match[1])
    number = int(value)  # of NaN there is none in JSON
    if number != value:
        raise ValueError("it has a fraction")
    return number


def to_float(value: Any) -> float:  # noqa: ANN401 - JSON
    """Return the number that a number or text is, or that a boolean stands for."""
    if type(value) is str and not _NUMBER.fullmatch(value):
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("it is beyond double precision")
    return number


def to_bool(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Return what true, yes, on, 1 and their opposites stand for, in any case."""
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


def to_text(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return text as it is, and anything else as its JSON text."""
    return value if type(value) is str else encode(value).decode()


def to_datetime(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return a time (ISO 8601, or since the epoch in seconds or milliseconds) in UTC, as ISO 8601.

    Without an offset it is in UTC already.
    """
    return utc_text(_time(value))


def to_date(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return the day, in UTC, of a time that `to_datetime` takes."""
    return _time(value).date().isoformat()


def utc_text(time: datetime) -> str:
    """Return a time in UTC as ISO 8601 that ends in Z, with fractions if there are any."""
    return time.isoformat()[:-6] + "Z"  # for +00:00


def _time(value: Any) -> datetime:  # noqa: ANN401 - JSON
    if type(value) is str:
        text = value.strip()
        if text[4:5] == "-" or not _EPOCH_TEXT.fullmatch(text):  # nearly always 2026-…
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
    """Return the function of this name, for use in one thread."""
    return _make_parser() if name == "json" else _FUNCTIONS[name]


def _make_parser() -> Apply:
    allow_deep_nesting()
    judge = make_judge()

    def parse(value: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the value of a JSON text; what is no text has been one already."""
        if type(value) is not str:
            return value
        text = value.encode()
        fault = judge(text)
        if type(fault) is not int:
            raise ValueError(getattr(fault, "message", ""))
        return decode(text)

    return parse
