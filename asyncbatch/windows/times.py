"""Event times: parsing and formatting of RFC 3339 texts and epoch numbers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.records import Json

Unit = Literal["auto", "s", "ms", "us", "ns"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000  # microseconds
_CYCLE = 146_097 * _DAY  # 400 years, after which the calendar repeats
# The range of the years 1 to 9999 in microseconds; the end is not part of it.
FIRST_TIME, END_OF_TIME = -62_135_596_800_000_000, 253_402_300_800_000_000
# By unit, a factor and a divisor that give microseconds.
_PER_MICROSECOND = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
# A number below a limit is in its unit. Each unit covers the years 1973 to 5138.
_AUTO = ((100_000_000_000, "s"), (10**14, "ms"), (10**17, "us"))
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]+)?", re.ASCII)
_MAX_FRACTION_DIGITS = 40  # further ones change no microsecond, and `int` takes at most 4,300
_LEAP_SECOND = re.compile(r"(.{10}[Tt ]..:..):60(\.[0-9]+)?([Zz]|[+-]..:..)?$")
_ADVICE = "an RFC 3339 time (2026-01-31T12:00:00Z) or a number since the epoch"


class EventTimes(Protocol):
    """The times of events, at least one, in order of arrival."""

    lowest: int  # microseconds since the epoch, as all times here
    highest: int

    def all(self) -> Sequence[int]:
        """Return each time, in microseconds."""
        ...


class NumericTimes:
    """Times that are already in microseconds."""

    lowest: int
    highest: int

    def __init__(self, micros: Sequence[int]) -> None:
        self._micros = micros
        self.lowest, self.highest = min(micros), max(micros)

    def all(self) -> Sequence[int]:
        """Return each time, in microseconds."""
        return self._micros


class ConstantTime:
    """One time for `count` events that arrived together."""

    highest: int

    def __init__(self, micros: int, count: int) -> None:
        self.lowest = self.highest = micros
        self._count = count

    def all(self) -> Sequence[int]:
        """Return each time, in microseconds."""
        return [self.lowest] * self._count


class DatetimeTimes:
    """Times that `all()` converts to microseconds; it is rarely called."""

    lowest: int
    highest: int

    def __init__(self, times: Sequence[datetime]) -> None:
        self._times = times
        self.lowest, self.highest = micros_of(min(times)), micros_of(max(times))

    def all(self) -> Sequence[int]:
        """Return each time, in microseconds."""
        return list(map(micros_of, self._times))


def micros_of(time: datetime) -> int:
    """Return a time in microseconds since the epoch. A time without offset is in UTC."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    span = time - _EPOCH
    return span.days * _DAY + span.seconds * 1_000_000 + span.microseconds


class TimeReader:
    """A parser of event times. `unit` is for numbers; `auto` derives it from each."""

    def __init__(self, unit: Unit = "auto") -> None:
        self._unit = unit

    def read_column(self, values: Sequence[Json]) -> EventTimes:
        """Return the times of values. Raises ValueError or TypeError for an invalid one."""
        if set(map(type, values)) == {str}:
            return self.read_texts(values)
        return NumericTimes([self.parse(value) for value in values])

    def read_texts(self, values: Sequence[str]) -> EventTimes:
        """Return the times of many texts. Raises ValueError if one is invalid."""
        times = list(map(datetime.fromisoformat, values))
        try:
            moments = DatetimeTimes(times)
        except TypeError:  # times with and without an offset cannot be compared
            return NumericTimes([self.parse(value) for value in values])
        if times[0].tzinfo is None and any(map(_NUMBER.fullmatch, values)):
            # `fromisoformat` takes a number such as 20260131 for a date; `parse` does not.
            return NumericTimes([self.parse(value) for value in values])
        return moments

    def parse(self, value: Json) -> int:
        """Return a time in microseconds. Raises ValueError with the reason."""
        if type(value) is str:
            if value[4:5] == "-" or not _NUMBER.fullmatch(value):
                return _parse(value)
            if "." in value:
                return self._parse_decimal(value)
            value = int(value)
        if type(value) is not int and type(value) is not float:
            raise ValueError(f"is not {_ADVICE}")
        if type(value) is float and not abs(value) < 10**24:
            raise ValueError("is beyond the years 1 to 9999")
        times, per = self._factors(value)
        if type(value) is int:
            return _checked(value * times // per)
        # A double stands for the decimal number that was written, which may be above it: so this is
        # the nearest microsecond, or the one before if that is later.
        micros = round(value * times / per)
        return _checked(micros - (micros * per / times > value))

    def _parse_decimal(self, text: str) -> int:
        """Return the time of a text with a decimal point, exactly."""
        times, per = self._factors(float(text))
        whole, _, fraction = text.partition(".")
        fraction = fraction[:_MAX_FRACTION_DIGITS]
        return _checked(int(whole + fraction) * times // (per * 10 ** len(fraction)))

    def _factors(self, value: float) -> tuple[int, int]:
        """Return the factor and the divisor that give microseconds."""
        return _PER_MICROSECOND[self._unit if self._unit != "auto" else _unit_of(value)]


def _checked(micros: int) -> int:
    """Return a time. Raises ValueError if it has no date."""
    if not FIRST_TIME <= micros < END_OF_TIME:
        raise ValueError("is beyond the years 1 to 9999")
    return micros


def _unit_of(value: float) -> str:
    size = abs(value)
    return next((unit for limit, unit in _AUTO if size < limit), "ns")


def _parse(text: str) -> int:
    """Return the time of an RFC 3339 text. Digits below a microsecond are ignored."""
    try:
        return micros_of(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    added = 0
    if leap := _LEAP_SECOND.match(text):  # a leap second is the second after :59, as in POSIX
        text, added = f"{leap[1]}:59{leap[2] or ''}{leap[3] or ''}", 1_000_000
    try:
        return micros_of(datetime.fromisoformat(text.upper())) + added
    except (ValueError, OverflowError):
        raise ValueError(f"is not {_ADVICE}") from None


def utc_text(micros: int) -> str:
    """Return a time as RFC 3339 in UTC. A fraction of zero is left out.

    A year outside the range of datetime has a sign: a checkpoint of an earlier version may have a
    window that starts or ends in one.
    """
    cycles = (micros - FIRST_TIME) // _CYCLE if not FIRST_TIME <= micros < END_OF_TIME else 0
    time = _EPOCH + timedelta(microseconds=micros - cycles * _CYCLE)
    text = time.isoformat()[:-6] + "Z"  # instead of +00:00
    return text if not cycles else f"{time.year + 400 * cycles:+06}{text[4:]}"
