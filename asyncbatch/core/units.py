"""Sizes, durations, rates and plurals: parsing and formatting."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from asyncbatch.core.records import Failure

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_ZERO_WIDTH_JOINER = "\u200d"  # joins emoji into one character; harmless on a terminal
# GitHub's runner also takes ##[ in the middle of a line for a command, as Azure's does ##vso[.
_RUNNER_COMMAND = re.compile(r"(^\s*(?=::[a-z])|(?=##(?:vso)?\[))(.)", re.IGNORECASE)


def parse_share(text: str) -> tuple[float, bool]:
    """Return the number of `N` or `P%`, and whether it is a percentage. Raises ValueError."""
    is_percent = text.endswith("%")
    number = float(text[:-1]) if is_percent else int(text)
    if not 0 <= number <= (100 if is_percent else math.inf):
        raise ValueError(f"{text!r} is out of range")
    return number, is_percent


def parse_size(text: str) -> int:
    """Return the bytes of `text`: 500, 64K or 64KiB (1,024 each), 10MB (1,000 each).

    Raises ValueError that names the accepted forms.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 500, 64K, 10MB or 1.5GiB")
    number, unit, ending = match[1], match[2].lower(), (match[3] or "").lower()
    base = 1000 if ending == "b" else 1024
    return int(float(number) * base ** _POWERS[unit])


def format_size(count: float) -> str:
    """Return bytes in the largest unit that fits, powers of 1,000: 12.3 MB."""
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {'BkMGT'[power]}B"


def format_seconds(seconds: float) -> str:
    """Return a duration: 0.123 s, 12.3 s, 5 m 07 s, 2 h 05 m."""
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def format_elapsed(milliseconds: float) -> str:
    """Return the time that an input took: <0.1 ms, 0.4 ms, 37.4 s, 5 m 07 s."""
    if milliseconds < 0.1:
        return "<0.1 ms"
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms"
    return format_seconds(milliseconds / 1000)


def format_remaining(seconds: float) -> str:
    """Return an estimate of a duration, in whole seconds: 1 s, 12 s, 5 m 07 s."""
    return f"{max(1, math.ceil(seconds))} s" if seconds < 59 else format_seconds(max(60.0, seconds))


def format_rate(rate: float, noun: str) -> str:
    """Return a rate per second: 1,234 files/s, 1.5 files/s, 0.25 files/s."""
    if rate >= 10 or not rate:
        number = f"{rate:,.0f}"
    else:
        number = f"{rate:.1f}" if rate >= 1 else f"{max(rate, 0.001):.2g}"
    return f"{number} {noun}s/s"


def format_count(number: int, noun: str) -> str:
    """Return `1 file`, `1,234 files`."""
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{ending}"


def printable(text: str) -> str:
    """Return `text` safe for a terminal and for the log of a CI job.

    Escapes control characters and the beginnings of commands for CI runners: `##[` and `##vso[`,
    and `::name` at the beginning, because a caller may begin a line with `text`.
    """
    if not text.isprintable():
        text = "".join(
            char
            if char.isprintable() or char == _ZERO_WIDTH_JOINER
            else char.encode("unicode_escape").decode()
            for char in text
        )
    if "::" in text or "##" in text:
        text = _RUNNER_COMMAND.sub(lambda found: f"{found[1]}\\x{ord(found[2]):x}", text)
    return text


def printable_lines(text: str) -> str:
    """Return a text of several lines with each line made printable."""
    return "\n".join(map(printable, text.split("\n")))


def format_location(failure: Failure) -> str:
    """Return the place of a failure in the form that editors open: file:line:column."""
    where = printable(failure.file)
    numbers = (number for number in (failure.line, failure.column) if number is not None)
    return ":".join((where, *map(str, numbers)))


_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*/\s*(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Rate(NamedTuple):
    """A rate limit: at most `requests` within `seconds`."""

    requests: int
    seconds: float


def parse_rate(text: str) -> Rate:
    """Return the rate of `text`: 20/s, 600/m, 1000/h. Raises ValueError."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is not a rate; write 20/s, 600/m or 1000/h")
    number, seconds = float(match[1]), _SECONDS[match[2]]
    return Rate(int(number), seconds) if number.is_integer() else Rate(1, seconds / number)


_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|m|h|d|)", re.ASCII)
_MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}


def parse_duration(text: str) -> int:
    """Return the microseconds of `text`: 500ms, 5s, 1m, 1h, or a number of seconds.

    Raises ValueError that names the accepted forms.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write seconds, or 500ms, 5s, 1m, 1h")
    from fractions import Fraction

    exact = Fraction(match[1]) * _MICROSECONDS[match[2] or "s"]
    if exact.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of microseconds")
    return int(exact)


def format_duration(microseconds: int) -> str:
    """Return a duration in the largest unit that divides it, as `parse_duration` reads it."""
    for unit, size in reversed(_MICROSECONDS.items()):
        if microseconds and microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return "0"
