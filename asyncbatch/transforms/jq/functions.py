"""Functions and operators of jq on decoded values.

Each gives exactly the value of the library `jq`, or raises UnsureError: for an error of the
program, for containers that are compared or printed, and for numbers that jq may spell differently.

jq keeps the digits of a number that it has read: it compares such numbers as decimals, and prints
them as they were. So `number` accepts only numbers that are equal as doubles if their decimals are.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncbatch.core.records import Json

    Run = Callable[[Any], Any]

_EXACT = 2**53  # doubles hold every integer below it
# A text of so many characters, with a point or an exponent, has at most 15 digits. In this range,
# different decimals of 15 digits are different doubles.
_MAX_SHORT = 16
_LEAST, _MOST = 1e-300, 1e15
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")


class UnsureError(Exception):
    """A record must be left to the library."""


def number(text: str) -> int | float:
    """Return a number that was spelled with a point or an exponent; a whole one as an integer.

    Raises UnsureError for one that is not the shortest spelling of its double, if another decimal
    may be the same double.
    """
    value = float(text)
    size = abs(value)
    is_short = len(text) <= _MAX_SHORT and (
        _LEAST < size < _MOST or (not size and "e" not in text and "E" not in text)
    )
    if not is_short and (size >= _EXACT or repr(value) != text):
        raise UnsureError
    return int(value) if value.is_integer() else value


def unprinted_number(text: str) -> float:
    """Return a number like `number`, but only one that stays a float: jq prints 1.0 as 1.0."""
    value = number(text)
    if type(value) is int:
        raise UnsureError
    return value


def is_true(value: Json) -> bool:
    """Whether a value counts as true."""
    return value is not None and value is not False


# Steps of paths


def same(value: Any) -> Any:
    """Return a value."""
    return value


def value_at(run: Run, path: Iterable[str | int]) -> Run:
    """Return the function to the value at a path within the value that `run` returns."""
    for step in path:
        run = _field_of(run, step) if isinstance(step, str) else _element_of(run, step)
    return run


def _field_of(run: Run, name: str) -> Run:
    def field(value: Any) -> Any:
        found = run(value)
        if type(found) is dict:
            return found.get(name)
        if found is None:
            return None
        raise UnsureError

    return field


def _element_of(run: Run, at: int) -> Run:
    def element(value: Any) -> Any:
        found = run(value)
        if type(found) is list:
            return found[at] if -len(found) <= at < len(found) else None
        if found is None:
            return None
        raise UnsureError

    return element


def slice_of(run: Run, part: slice) -> Run:
    """Return the function to a part of the array or string that `run` returns."""

    def sliced(value: Any) -> Any:
        found = run(value)
        if type(found) is list or type(found) is str:
            return found[part]
        if found is None:
            return None
        raise UnsureError

    return sliced


def items_of(run: Run, *, optional: bool) -> Run:
    """Return the function to the elements or values of what `run` returns."""

    def items(value: Any) -> Any:
        found = run(value)
        if type(found) is list:
            return found
        if type(found) is dict:
            return found.values()
        if optional:
            return ()
        raise UnsureError

    return items


# Operators


def _rank(value: Json) -> int:
    """Return the place of a value's type in jq's order; numbers are 3."""
    kind = type(value)
    if kind is bool:
        return 2 if value else 1
    return 3 if kind is int or kind is float else _RANKS[kind]


_RANKS: dict[type, int] = {type(None): 0, str: 4, list: 5, dict: 6}
_CONTAINERS = 5


def _equal(left: Json, right: Json) -> bool:
    rank = _rank(left)
    if rank != _rank(right):
        return False
    if rank >= _CONTAINERS and left and right:
        raise UnsureError
    return bool(left == right)


def _less(left: Json, right: Json) -> bool:
    rank, other = _rank(left), _rank(right)
    if rank != other:
        return rank < other
    if rank >= _CONTAINERS:
        raise UnsureError
    return rank > 2 and bool(left < right)  # null, true and false have one value each


def comparison_with(run: Run, constant: Json, sign: str) -> Run:
    """Return the function that compares the value that `run` returns with a scalar."""
    kind, is_equal = type(constant), sign == "=="
    if kind is not int and kind is not float:
        if kind is str:
            return (
                (lambda value: run(value) == constant)
                if is_equal
                else (lambda value: run(value) != constant)
            )
        return (
            (lambda value: run(value) is constant)
            if is_equal
            else (lambda value: run(value) is not constant)
        )
    return lambda value: _equal(run(value), constant) is is_equal


def _calculator(calculate: Callable[[Any, Any], Any]) -> Callable[[Json, Json], Json]:
    def calculated(left: Json, right: Json) -> Json:
        if _rank(left) != 3 or _rank(right) != 3:
            raise UnsureError
        return _result(calculate(left, right))

    return calculated


def _result(value: float) -> int | float:
    """Return a result as jq's double: a whole one as an integer."""
    if not -_EXACT < value < _EXACT:
        raise UnsureError
    return int(value) if value == int(value) else value


def _add(left: Json, right: Json) -> Json:
    if type(left) is str and type(right) is str:
        return left + right
    return _add_numbers(left, right)


def _divide(left: Json, right: Json) -> Json:
    if not right:
        raise UnsureError
    return _divide_numbers(left, right)


_add_numbers = _calculator(operator.add)
_divide_numbers = _calculator(operator.truediv)

OPERATORS: dict[str, Callable[[Json, Json], Json]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _less,
    ">": lambda left, right: _less(right, left),
    "<=": lambda left, right: not _less(right, left),
    ">=": lambda left, right: not _less(left, right),
    "+": _add,
    "-": _calculator(operator.sub),
    "*": _calculator(operator.mul),
    "/": _divide,
}


# Functions


def to_text(value: Json) -> str:
    """Return a scalar as `tostring` prints it."""
    if type(value) is str:
        return value
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int and value:  # 0 may be -0, which jq prints so
        return str(value)
    raise UnsureError


def _to_number(value: Json) -> Json:
    if type(value) is int or type(value) is float:
        return value
    if type(value) is str and _INTEGER.fullmatch(value):
        return int(value)
    raise UnsureError


def _length(value: Json) -> Json:
    if type(value) is str or type(value) is list or type(value) is dict:
        return len(value)
    if value is None:
        return 0
    if value is True or value is False:
        raise UnsureError
    return abs(value)


def _type(value: Json) -> str:
    return ("null", "boolean", "boolean", "number", "string", "array", "object")[_rank(value)]


def _keys(value: Json) -> Json:
    if type(value) is dict:
        return sorted(value)
    if type(value) is list:
        return list(range(len(value)))
    raise UnsureError


def _to_entries(value: Json) -> Json:
    if type(value) is not dict:
        raise UnsureError
    return [{"key": key, "value": item} for key, item in value.items()]


def _has(value: Json, key: str | int) -> bool:
    if type(value) is dict and type(key) is str:
        return key in value
    if type(value) is list and type(key) is int:
        return 0 <= key < len(value)
    raise UnsureError


_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_TO_UPPER = {lower: upper for upper, lower in _TO_LOWER.items()}


def _text(value: Json) -> str:
    if type(value) is not str:
        raise UnsureError
    return value


def _split(value: Json, separator: str) -> list[str]:
    text = _text(value)
    if not separator:
        raise UnsureError
    return text.split(separator) if text else []


FUNCTIONS: dict[str, Callable[..., Json]] = {
    "ascii_downcase": lambda value: _text(value).translate(_TO_LOWER),
    "ascii_upcase": lambda value: _text(value).translate(_TO_UPPER),
    "endswith": lambda value, end: _text(value).endswith(end),
    "has": _has,
    "keys": _keys,
    "length": _length,
    "not": lambda value: not is_true(value),
    "split": _split,
    "startswith": lambda value, start: _text(value).startswith(start),
    "to_entries": _to_entries,
    "tonumber": _to_number,
    "tostring": to_text,
    "type": _type,
}
