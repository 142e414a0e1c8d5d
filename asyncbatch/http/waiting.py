"""How long a server asks to be left alone: the Retry-After header."""

from __future__ import annotations

import calendar
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait; None if it does not, or not in a known way.

    A date is taken against the server's own, so that its clock may be wrong; without one,
    against `now`, in seconds since 1970.
    """
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdecimal():
        return float(asked)
    until = _seconds(asked)
    if until is None:
        return None
    there = _seconds(headers.get("Date", ""))
    return max(0.0, until - (now if there is None else there))


def _seconds(date: str) -> float | None:
    try:
        return calendar.timegm(parsedate_to_datetime(date).utctimetuple())
    except (ValueError, OverflowError):  # no date, or none that there can be
        return None
