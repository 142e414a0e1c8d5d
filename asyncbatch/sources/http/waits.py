"""The time for which an error response asks to wait, by its headers."""

from __future__ import annotations

import calendar
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?", re.ASCII)
_MAX_SECONDS = 1e15  # so long that the difference to a longer wait means nothing
_REMAINING = ("X-RateLimit-Remaining", "X-Rate-Limit-Remaining", "RateLimit-Remaining")
_RESET = (
    "X-RateLimit-Reset", "X-Rate-Limit-Reset", "RateLimit-Reset", "X-RateLimit-Reset-After"
)  # fmt: skip
# A larger number of a reset is a time since 1970, in seconds or in milliseconds.
_MIN_EPOCH_SECONDS = 1e9
_MIN_EPOCH_MILLISECONDS = 1e12
_LIMITED_STATUSES = {403, 429}


class Wait(NamedTuple):
    """What an error response says about a retry."""

    seconds: float | None = None  # None if it names no time
    header: str = ""  # the header that names it
    is_rate_limited: bool = False  # whether the response is about a rate limit


def requested_wait(status: int, headers: Mapping[str, str], now: float) -> Wait:
    """Return the wait that a response with this error status asks for.

    Times are compared with the Date header, because the clock of the server may be wrong. Without
    that header they are compared with `now`, in seconds since 1970.
    """
    server_now = _timestamp(headers.get("Date", ""))
    now = now if server_now is None else server_now
    remaining = next((headers[name].strip() for name in _REMAINING if name in headers), None)
    is_used_up = remaining is not None and _number(remaining) == 0
    after = _retry_after(headers.get("Retry-After", "").strip(), now)
    is_limited = status in _LIMITED_STATUSES and (status != 403 or is_used_up or after is not None)
    if after is not None:
        return Wait(after, "Retry-After", is_limited)
    if is_limited and (is_used_up or remaining is None):
        for name in _RESET:
            if (seconds := _reset(headers.get(name, "").strip(), now)) is not None:
                return Wait(seconds, name, is_limited)
    return Wait(is_rate_limited=is_limited)


def _retry_after(value: str, now: float) -> float | None:
    """Return the seconds of a Retry-After header, None if it is missing or invalid."""
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _timestamp(value)
    return None if until is None else max(0.0, until - now)


def _reset(value: str, now: float) -> float | None:
    """Return the seconds until a rate limit is reset, None for an invalid value."""
    number = _number(value)
    if number is None:
        until = _timestamp(value)
        return None if until is None else max(0.0, until - now)
    if number < _MIN_EPOCH_SECONDS:
        return number
    return max(0.0, (number / 1000 if number >= _MIN_EPOCH_MILLISECONDS else number) - now)


def _number(value: str) -> float | None:
    return min(float(value), _MAX_SECONDS) if _SECONDS.fullmatch(value) else None


def _timestamp(date: str) -> float | None:
    """Return the seconds since 1970 of a date of HTTP or ISO 8601, None for another text."""
    try:
        return calendar.timegm(parsedate_to_datetime(date).utctimetuple())
    except (ValueError, OverflowError):  # not a date, or an impossible one
        pass
    try:
        time = datetime.fromisoformat(date)
        return time.timestamp() if time.tzinfo else None
    except (ValueError, OverflowError):
        return None
