"""The formats of texts: dates, times, e-mail addresses, identifiers, URLs, numbers."""

from __future__ import annotations

import re
from datetime import date, datetime
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_ZONE = r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_TIME_PART = re.compile(rf"T{_CLOCK}{_ZONE}")
_LOCAL_PART = re.compile(rf"[T ](?:{_CLOCK}|[0-9]{{2}}:[0-9]{{2}})")
_NANOSECONDS = re.compile(r"\.[0-9]{6}([0-9]{1,3})")
_MICROSECONDS_END = 26  # of a date and a time
# Narrower than RFC 5321: no quoted names, no addresses of hosts, no encoded names (xn--).
_ATOM = r"[A-Za-z0-9_+-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(
    rf"(?=[^@]{{1,64}}@[^@]{{1,253}}\Z){_ATOM}(?:\.{_ATOM})*"
    rf"@(?:(?!..--){_LABEL}\.){{1,8}}[A-Za-z]{{2,24}}"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")
_URI = re.compile(
    rf"(?:https?|ftp)://{_LABEL}(?:\.{_LABEL}){{0,30}}(?::[0-9]{{1,4}})?"
    r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:#(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?")
_HEX = re.compile(r"(?:[0-9a-f]{8}){1,16}|[0-9a-f]{12}|[0-9a-f]{20}|(?:[0-9A-F]{8}){1,16}")


def _is_date(text: str) -> bool:
    if _DATE.fullmatch(text) is None or text < "0001":
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_date_time(text: str) -> bool:
    return _TIME_PART.fullmatch(text, 10) is not None and _is_date(text[:10])


def _is_local_time(text: str) -> bool:
    return _LOCAL_PART.fullmatch(text, 10) is not None and _is_date(text[:10])


def _matches(pattern: re.Pattern[str]) -> Callable[[str], object]:
    return pattern.fullmatch


# Each format, and its test. The most special one comes first: it is the one to show.
TESTS: dict[str, Callable[[str], object]] = {
    "date": _is_date,
    "date-time": _is_date_time,
    "local-time": _is_local_time,  # a date and a time without its zone
    "uuid": _matches(_UUID),
    "email": _matches(_EMAIL),
    "ipv4": _matches(_IPV4),
    "uri": _matches(_URI),
    "number": _matches(_NUMBER),
    "hex": _matches(_HEX),
}
# Formats whose texts are in another order than their values.
INSTANT_FORMATS = frozenset({"date-time", "local-time"})
# The formats that JSON Schema knows; each text that passes our test passes that of the schema.
SCHEMA_FORMATS = frozenset({"date", "date-time", "uuid", "email", "ipv4", "uri"})
# The formats of names that are data, so that an object with these names is a map.
KEY_FORMATS = ("date", "date-time", "local-time", "uuid", "email", "ipv4", "uri", "number", "hex")


def formats_of_all(texts: Collection[str], among: Collection[str]) -> frozenset[str]:
    """Return the formats, of those given, that all texts have."""
    return frozenset(name for name in among if all(map(TESTS[name], texts)))


def instant(text: str) -> tuple[datetime, str, str]:
    """Return the order of a time among others of one of the `INSTANT_FORMATS`."""
    beyond = _NANOSECONDS.search(text, 19) if len(text) > _MICROSECONDS_END else None
    return datetime.fromisoformat(text), beyond[1] if beyond else "", text


def have_order(texts: Collection[str]) -> bool:
    """Whether times have the order of their texts: all are written alike, with the same zone."""
    if len(set(map(len, texts))) > 1 or len(set(map(itemgetter(10), texts))) > 1:
        return False
    ends = {"Z" if text[-1] == "Z" else text[-6:] for text in texts}
    return len(ends) == 1 or all(end[0] not in "+-Z" for end in ends)


def format_shares(texts: Collection[str]) -> dict[str, float]:
    """Return the share of the texts that have a format, for each format that any has."""
    found: dict[str, float] = {}
    left = list(texts)
    for name, test in TESTS.items():
        rest = [text for text in left if not test(text)]
        if len(rest) < len(left):
            found[name] = (len(left) - len(rest)) / len(texts)
        left = rest
    return found
