"""Spans of time as people write them: 500ms, 5s, 1.5h."""

from __future__ import annotations

import re
from fractions import Fraction

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)", re.ASCII)
_MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}


def parse_duration(text: str) -> int:
    """Return the microseconds that `text` stands for; `0` needs no unit.

    Raises ValueError with what to write.
    """
    if text == "0":
        return 0
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no span of time; write 500ms, 5s, 1m or 1h")
    exact = Fraction(match[1]) * _MICROSECONDS[match[2]]
    if exact.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of microseconds")
    return int(exact)


def format_duration(microseconds: int) -> str:
    """Return a span in the largest unit that it is a whole number of; see `parse_duration`."""
    for unit, size in reversed(_MICROSECONDS.items()):
        if microseconds and microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return "0"
