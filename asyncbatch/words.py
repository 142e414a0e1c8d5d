"""Numbers, sizes and names as people read them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncbatch.records import Failure

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_KEPT = "\u200d"  # joins emoji into one; harmless


def parse_size(text: str) -> int:
    """Return the bytes that `text` stands for: 500, 64K or 64KiB (1,024 each), 10MB (1,000 each).

    Raises ValueError with what to write.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 500, 64K, 10MB or 1.5GiB")
    number, unit, ending = match[1], match[2].lower(), (match[3] or "").lower()
    base = 1000 if ending == "b" else 1024
    return int(float(number) * base ** _POWERS[unit])


def size(count: float) -> str:
    """Return bytes in the unit that fits, powers of 1,000: 12.3 MB."""
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {'BkMGT'[power]}B"


def duration(seconds: float) -> str:
    """Return a time span: 0.123 s, 12.3 s, 5 m 07 s, 2 h 05 m."""
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def count(number: int, noun: str) -> str:
    """Return `1 file`, `1,234 files`."""
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{ending}"


def printable(text: str) -> str:
    """Return `text` with whatever could steer a terminal written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == _KEPT else char.encode("unicode_escape").decode()
        for char in text
    )


def location(failure: Failure) -> str:
    """Return where a failure is, in the form that editors open: file:line:column."""
    where = printable(failure.file)
    place = (number for number in (failure.line, failure.column) if number is not None)
    return ":".join((where, *map(str, place)))
