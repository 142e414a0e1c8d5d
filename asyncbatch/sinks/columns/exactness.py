"""Checks whether the type of a column would change a value: times, numbers, nested values."""

from __future__ import annotations

import re
import struct
from decimal import Decimal
from math import inf, isinf
from typing import TYPE_CHECKING, NamedTuple

from msgspec.json import Decoder, Encoder

from asyncbatch.formats.decoder import encode

if TYPE_CHECKING:
    from asyncbatch.core.records import Json

# The words of messages about a loss, before the value.
ROUNDS, CHANGES = "would round", "would change"

# The words that a database replaces by the time of its clock.
_CLOCK_WORDS = frozenset(("now", "today", "tomorrow", "yesterday"))
_MONTHS = "january february march april may june july august september october november december"
_DAYS = "sunday monday tuesday wednesday thursday friday saturday"
# Words in the text of a time that name no time zone.
_PLAIN_WORDS = frozenset(
    ["t", "am", "pm", "bc", "ad", "j", "jd", "julian", "epoch", "infinity", "allballs", "at", "on"]
    + f"{_MONTHS} {_DAYS}".split()
    + [word[:3] for word in f"{_MONTHS} {_DAYS}".split()]
    + ["sept", "tues", "wednes", "thur", "thurs"]
)  # fmt: skip
_OF_CLOCKS = {"t", "am", "pm", "allballs"}
_WORD = re.compile(r"[a-z_]+(?:/[a-z_]+)*")
# The time of day: 12:00, 12:00:00.5, or T120000 and " 120000" behind a date.
_OF_DAY = re.compile(
    r"(?P<clock>\d{1,2}:\d{1,2}(?::\d{1,2})?"
    r"|(?:(?<=\dt)|(?<=\d\d\d\d-\d\d-\d\d )|(?<=\d{8} ))\d{2,6})(?:[.,](?P<fraction>\d+))?"
)
_DATE = re.compile(r"\d{4,}-\d{1,2}-\d{1,2}|\d{1,4}[-/]\w{1,9}[-/]\d{1,4}|\d{8,}")
_OFFSET = re.compile(r"[+-]\s*\d")
_FRACTION = re.compile(r"\d+[.,](\d+)")  # of a second, in an interval
_NUMBER_TYPES = (int, Decimal)
_decode_exactly = Decoder(float_hook=Decimal).decode
_encode_exactly = Encoder(decimal_format="number").encode
_EASY_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.(?P<fraction>\d+))?(?P<zone>Z|[+-]\d\d:\d\d)?"
)


class TimeText(NamedTuple):
    """The parts of the text of a time."""

    has_date: bool
    clock: str  # the time of day, without a fraction
    fraction: str  # the digits of the fraction of a second
    has_zone: bool
    is_of_now: bool  # the database would read its clock

    @classmethod
    def parse(cls, text: str) -> TimeText:
        """Return the parts of a text that a database can read as a time."""
        if found := _EASY_TIME.fullmatch(text):
            return cls(True, text[11:19], found["fraction"] or "", bool(found["zone"]), False)
        lowered = text.lower()
        words = set(_WORD.findall(lowered))
        of_day = _OF_DAY.search(lowered)
        rest = lowered[of_day.end() :] if of_day else _DATE.sub("", lowered, count=1)
        has_date = bool(_DATE.search(lowered) or words & (_PLAIN_WORDS - _OF_CLOCKS))
        has_zone = bool(_OFFSET.search(_DATE.sub("", rest)) or words - _PLAIN_WORDS)
        return cls(
            has_date,
            of_day["clock"] if of_day else "",
            (of_day["fraction"] if of_day else "") or "",
            has_zone and (has_date or of_day is not None),  # else it is no time at all
            bool(words & _CLOCK_WORDS),
        )


class TimeType(NamedTuple):
    """The parts of a time that a type keeps."""

    has_date: bool
    has_clock: bool
    has_zone: bool
    digits: int  # of a second

    def loss(self, text: str) -> str | None:
        """Return the loss ("would round") of a readable text in this type, or None."""
        time = TimeText.parse(text)
        losses = (
            (time.is_of_now, "would read the clock for"),
            (not self.has_clock and time.clock.strip("0:"), "would drop the time of day of"),
            (not self.has_zone and time.has_zone, "would drop the time zone of"),
            (not self.has_date and time.has_date, "would drop the date of"),
            # A leap second becomes the next minute.
            (self.has_clock and time.clock.endswith(":60"), "would move"),
            (len(time.fraction.rstrip("0")) > self.digits, ROUNDS),
        )
        return next((loss for is_so, loss in losses if is_so), None)


def is_rounded(text: str, places: int) -> bool:
    """Whether a decimal with so many places behind the point cannot hold the number in a text."""
    try:
        number = Decimal(text).normalize()
    except ArithmeticError:  # not a number: the database rejects it
        return False
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and bool(number) and exponent < -places


def interval_loss(text: str, digits: int = 6) -> str | None:
    """Return the loss of an interval in a type that keeps so many digits of a second, or None."""
    fractions = (found[1].rstrip("0") for found in _FRACTION.finditer(text))
    return ROUNDS if any(len(fraction) > digits for fraction in fractions) else None


def loss_in_json(text: str, shown: str) -> str | None:
    """Return the loss of a nested value ("would round 0.5"), or None.

    `text` is the JSON of the value, and `shown` that of the value which the type holds.
    """
    try:
        return _loss_in(_decode_exactly(text), _decode_exactly(shown))
    except (ValueError, OverflowError, RecursionError):  # NaN is no JSON
        return f"{CHANGES} {text}"


def _loss_in(value: Json, found: Json) -> str | None:
    if isinstance(value, dict) and isinstance(found, dict) and value.keys() == found.keys():
        return next(filter(None, (_loss_in(value[name], found[name]) for name in value)), None)
    if isinstance(value, list) and isinstance(found, list) and len(value) == len(found):
        return next(filter(None, map(_loss_in, value, found)), None)
    kinds = type(value), type(found)
    if kinds[0] in _NUMBER_TYPES and kinds[1] in _NUMBER_TYPES:
        if value == found:
            return None
        text = str(value) if kinds[0] is int else encode(float(value)).decode()
        is_single = _single(float(value)) == float(found)
        return None if is_single and not is_changed_by_float32(text) else f"{ROUNDS} {text}"
    if kinds[0] is kinds[1] and value == found:
        return None
    return f"{CHANGES} {_encode_exactly(value).decode()}"


def is_changed_by_float32(text: str) -> bool:
    """Whether a single precision number, as databases print it, differs from that in a text."""
    try:
        wanted = Decimal(text)
        single = _single(float(wanted)) if wanted.is_finite() else None
    except (ArithmeticError, ValueError):  # not a number: the database rejects it
        return False
    if single is None or Decimal(single) == wanted:
        return False
    if isinf(single):  # DuckDB makes a number that is too large infinite
        return True
    if single == float(wanted) and not text.lstrip("-").isdecimal():  # JSON's are doubles
        return False
    for digits in range(1, 10):  # nine digits tell all single precision numbers apart
        shown = f"{single:.{digits}g}"
        if _single(float(shown)) == single:
            return Decimal(shown) != wanted
    return True


def _single(number: float) -> float:
    """Return the nearest single precision number; infinity for a number that is too large."""
    try:
        found: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return inf
    return found
