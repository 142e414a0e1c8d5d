"""Checks whether the type of a column would change a value: times, decimals, floats, blanks."""

from __future__ import annotations

import re
import struct
from decimal import Decimal
from typing import NamedTuple

# The words that a database replaces by the time of its clock.
_CLOCK_WORDS = frozenset(("now", "today", "tomorrow", "yesterday"))
_MONTHS = "january february march april may june july august september october november december"
_DAYS = "sunday monday tuesday wednesday thursday friday saturday"
# Words in the text of a time that name no time zone.
_PLAIN_WORDS = frozenset(
    ["t", "am", "pm", "bc", "ad", "j", "jd", "julian", "epoch", "infinity", "allballs", "at", "on"]
    + [word for word in f"{_MONTHS} {_DAYS}".split()]
    + [word[:3] for word in f"{_MONTHS} {_DAYS}".split()]
    + ["sept", "tues", "wednes", "thur", "thurs"]
)  # fmt: skip
_OF_CLOCKS = {"t", "am", "pm", "allballs"}
_WORD = re.compile(r"[a-z_]+(?:/[a-z_]+)*")
# The time of day: 12:00, 12:00:00.5, or T120000 and " 120000" behind a date.
_OF_DAY = re.compile(
    r"(?P<clock>\d{1,2}:\d{1,2}(?::\d{1,2})?|(?:(?<=\dt)|(?<=\d\d\d\d-\d\d-\d\d )|(?<=\d{8} ))\d{2,6})"
    r"(?:[.,](?P<fraction>\d+))?"
)
_DATE = re.compile(r"\d{4,}-\d{1,2}-\d{1,2}|\d{1,4}[-/]\w{1,9}[-/]\d{1,4}|\d{8,}")
_OFFSET = re.compile(r"[+-]\s*\d")
_EASY_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.(?P<fraction>\d+))?(?P<zone>Z|[+-]\d\d:\d\d)?"
)


class TimeType(NamedTuple):
    """The parts of a time that a type keeps."""

    has_date: bool
    has_clock: bool
    has_zone: bool
    digits: int  # of a second

    def loss(self, text: str) -> str | None:
        """Return what the type would do to a text that it can read, or None if it changes nothing."""
        if found := _EASY_TIME.fullmatch(text):
            has_date, zone = True, found["zone"]
            clock, fraction = text[11:19], found["fraction"] or ""
        else:
            lowered = text.lower()
            words = set(_WORD.findall(lowered))
            if words & _CLOCK_WORDS:
                return "would read the clock for"
            of_day = _OF_DAY.search(lowered)
            has_date = bool(_DATE.search(lowered) or words & (_PLAIN_WORDS - _OF_CLOCKS))
            rest = lowered[of_day.end() :] if of_day else _DATE.sub("", lowered, count=1)
            zone = _OFFSET.search(_DATE.sub("", rest)) or words - _PLAIN_WORDS
            clock, fraction = (of_day["clock"], of_day["fraction"] or "") if of_day else ("", "")
        if not self.has_clock and clock.strip("0:") + fraction.strip("0"):
            return "would drop the time of day of"
        if not self.has_zone and zone:
            return "would drop the time zone of"
        if not self.has_date and has_date:
            return "would drop the date of"
        if clock.endswith(":60"):  # a leap second becomes the next minute
            return "would move"
        if self.has_clock and len(fraction.rstrip("0")) > self.digits:
            return "would round"
        return None


def is_rounded(text: str, places: int) -> bool:
    """Whether a decimal with so many places behind the point cannot hold the number in a text."""
    try:
        number = Decimal(text).normalize()
    except ArithmeticError:  # not a number: the database rejects it
        return False
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and bool(number) and exponent < -places


def is_changed_by_float32(text: str) -> bool:
    """Whether a single precision number, as databases print it, differs from that in a text."""
    try:
        wanted = Decimal(text)
        single = _single(float(wanted)) if wanted.is_finite() else None
    except (ArithmeticError, ValueError):  # not a number, or too large: the database rejects it
        return False
    if single is None or Decimal(single) == wanted:
        return False
    for digits in range(1, 10):  # nine digits tell all single precision numbers apart
        shown = f"{single:.{digits}g}"
        if _single(float(shown)) == single:
            return Decimal(shown) != wanted
    return True


def _single(number: float) -> float:
    """Return the nearest single precision number. Raises OverflowError."""
    found: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return found
