"""Integers beyond 2^53 in the records and outputs of jq programs.

jq calculates with doubles, but keeps the digits of a number that is only passed on: one that it has
read from a text (`tonumber`, `fromjson`) or in the program. The library returns it as a double, and
only `tojson` within the program still prints its digits.
"""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import repeat
from typing import TYPE_CHECKING

from asyncbatch.transforms.base import RecordError

if TYPE_CHECKING:
    from asyncbatch.core.records import Json

LARGEST_EXACT = 2**53  # above it, a double cannot hold every integer
_INT64 = 2**63
_LARGEST_DOUBLE = 1.7976931348623157e308  # the library's value for any number beyond it
_SAME_DIGITS = bytes(ord("0") if chr(code).isdigit() else code for code in range(128)) + bytes(128)
_LONG_RUN = b"0" * 16
_NUMBERS_CHECKED = 20  # in a text: if there are more, it is as fast to decode the text
_NUMBER = re.compile(rb"[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")
_DIGITS = re.compile(rb"[0-9]++")
# the bytes before and after an integer within a JSON text
_BEFORE_INTEGER, _AFTER_INTEGER = b"[,:- \t\r\n", b"],} \t\r\n"
# The same with one sign for all bytes before a number, and with the point of a number as a digit.
_SAME_SIGNS = _SAME_DIGITS.translate(
    bytes(ord(",") if code in _BEFORE_INTEGER else code for code in range(256))
)
_SAME_POINTS = _SAME_SIGNS.replace(b".", b"0")
_LONG_NUMBER = b"0" * 18  # 17 digits and a point: so many digits are right in a double
# Matches whole strings and whole numbers (++ and *+ never backtrack), never digits inside them.
_TOKEN = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|-?[0-9]++(\.[0-9]++|[eE])?+[-+0-9eE]*+', re.DOTALL
)  # group 1: present if the number is not an integer


# The mark of an output whose numbers are not marked.
_UNKNOWN = object()
# A rounded result nearly always needs all 53 bits of a double. One that needs so few is exact.
_FEW_BITS = 40

# A jq filter: the text of an output in which each large integer that jq has computed is true. jq
# compares two numbers that it has read by their digits, and all others as doubles.
MARK_COMPUTED = (
    f'walk(if type == "number" and (. >= {LARGEST_EXACT} or . <= -{LARGEST_EXACT}) then'
    ' . as $n | tojson | if test("^-?[0-9]+$") then (. + ".1" | tonumber) as $next'
    " | if $n > 0 then $n >= $next else $n <= $next end else false end else . end) | tojson"
)


class AmbiguousIntegerError(Exception):
    """An integer is one that jq has read or one that it has rounded: `MARK_COMPUTED` knows."""


def check_record(data: bytes) -> None:
    """Raise RecordError for the first integer of a JSON text that jq would round."""
    alike = data.translate(_SAME_SIGNS)
    if (b"," + _LONG_RUN in alike or alike.startswith(_LONG_RUN)) and _may_round(
        data, data.translate(_SAME_DIGITS)
    ):
        _check_integers(data)


def may_shorten(data: bytes) -> bool:
    """Whether a JSON text may contain a number whose double jq rounds in another way than Python.

    Only a number of more than 17 digits can be one, and none that is the shortest for its double.
    """
    alike = data.translate(_SAME_POINTS)
    if alike.startswith(_LONG_NUMBER):
        return True
    at = 0
    for _ in range(_NUMBERS_CHECKED):
        at = alike.find(b"," + _LONG_NUMBER, at) + 1
        if not at:
            return False
        number = _NUMBER.match(data, at)
        if number is None or repr(float(number[0])).encode() != number[0]:
            return True
    return True


def has_large(value: Json, limit: int = LARGEST_EXACT - 1) -> bool:
    """Whether an output of jq has a whole number beyond `limit`, or the largest double.

    2^53 itself is large: as a double it may stand for 2^53 + 1.
    """
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        value = (value,)
    for item in value:
        kind = type(item)
        if kind is dict or kind is list:
            if has_large(item, limit):
                return True
        elif (kind is int and not -limit <= item <= limit) or (
            kind is float and not -_LARGEST_DOUBLE < item < _LARGEST_DOUBLE
        ):
            return True
    return False


def with_floats(value: Json) -> Json:
    """Return `value` with integers beyond 64 bits as floats.

    jq's numbers are doubles, but the library returns each whole double as an integer, even 1e300.
    """
    if isinstance(value, dict):
        return {name: with_floats(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_floats(item) for item in value]
    return float(value) if type(value) is int and not -_INT64 <= value < _INT64 else value


def with_digits(value: Json, printed: Json, marked: Json = _UNKNOWN) -> Json:
    """Return an output of jq with its large integers as jq prints them, in `printed`.

    `marked` is the output of `MARK_COMPUTED`. Raises AmbiguousIntegerError if it is needed, and
    RecordError for an integer that jq has probably rounded.
    """
    if isinstance(value, dict):
        return {
            name: with_digits(item, printed[name], marked if marked is _UNKNOWN else marked[name])
            for name, item in value.items()
        }
    if isinstance(value, list):
        marks = repeat(_UNKNOWN) if marked is _UNKNOWN else marked
        return list(map(with_digits, value, printed, marks))
    return _number(value, printed, marked) if has_large(value) else value


def _number(value: Json, printed: Json, marked: Json) -> Json:
    if isinstance(printed, float):
        # jq prints 1e17 with an exponent. Up to 64 bits it stays an integer.
        return value if printed == value and -_INT64 <= value < _INT64 else printed
    # A double that jq has computed is printed by its shortest digits, which may not be its value.
    is_shortest = isinstance(value, int) and printed == Decimal(repr(float(value)))
    if printed == value or not is_shortest:
        return printed
    if marked is _UNKNOWN:
        raise AmbiguousIntegerError
    if marked is not True:
        return printed
    if _significant_bits(int(value)) <= _FEW_BITS:
        return value
    raise RecordError(
        "transform",
        f"jq: the result {printed} is beyond 2^53, so jq has probably rounded it "
        "(--jq-lossy allows this)",
    )


def _significant_bits(number: int) -> int:
    number = abs(number)
    return number.bit_length() - (number & -number).bit_length() + 1


def _may_round(text: bytes, alike: bytes) -> bool:
    """Whether `text` may contain an integer beyond 2^53.

    `alike` is `text` with each digit replaced by 0. Digits between spaces in a string count, too:
    `_check_integers` is exact, but slower.
    """
    start = alike.find(_LONG_RUN)
    while start >= 0:
        run = _DIGITS.match(alike, start)
        end = run.end() if run else start
        if (
            text[max(0, start - 1) : start] in _BEFORE_INTEGER
            and text[end : end + 1] in _AFTER_INTEGER
            and (end - start > len(_LONG_RUN) or int(text[start:end]) > LARGEST_EXACT)
        ):
            return True
        start = alike.find(_LONG_RUN, end)
    return False


def _check_integers(text: bytes) -> None:
    """Raise RecordError for the first integer of a JSON text that jq would round."""
    for token in _TOKEN.finditer(text):
        number = token[0]
        if len(number) < 16 or number[:1] == b'"' or token[1] or b"e" in number.lower():
            continue
        if abs(int(number)) > LARGEST_EXACT:
            raise RecordError(
                "transform",
                f"jq: the integer {_shortened(number.decode())} is beyond 2^53, so jq would "
                "round it (--jq-lossy allows this)",
            )


def _shortened(digits: str) -> str:
    return digits if len(digits) <= 40 else f"{digits[:39]}…"
