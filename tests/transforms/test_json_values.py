"""Results of user functions as plain JSON."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.json_values import to_json_value

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Color(Enum):
    RED = "red"


class Name(StrEnum):
    KEY = "key"


class Level(IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Index:
    def __index__(self) -> int:
        return 7


@dataclass
class Point:
    x: Any
    y: tuple[int, ...] = (1, 2)


class Shape(msgspec.Struct, rename="camel", tag=True):
    corner_count: int
    note: str | msgspec.UnsetType = msgspec.UNSET


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - users return untyped named tuples, too


@given(JSON)
def test_plain_json_is_returned_as_it_is(value):
    assert to_json_value(value) is value


@given(JSON)
def test_a_copy_is_equal(value):
    assert to_json_value((value,)) == [value]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (Pair(1, 2), [1, 2]),
        (Color.RED, "red"),
        ({Name.KEY: Level.LOW}, {"key": 1}),
        (Text("kept"), "kept"),
        (Point(Point(1)), {"x": {"x": 1, "y": [1, 2]}, "y": [1, 2]}),
        (Shape(3), {"type": "Shape", "cornerCount": 3}),
        (Index(), 7),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.10"), "1.10"),
        (OrderedDict(a=Counter("aab")), {"a": {"a": 2, "b": 1}}),
    ],
)
def test_what_has_an_obvious_form_takes_it(value, expected):
    found = to_json_value(value)
    assert found == expected
    assert type(found) is type(expected)


def circle() -> list[Any]:
    inside: list[Any] = []
    inside.append({"a": inside})
    return inside


def circle_of_objects() -> Point:
    point = Point(1)
    point.x = [point]
    return point


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1}, "returned a set, which JSON cannot hold"),
        ({"tags": {1}}, "returned a set at /tags, which JSON cannot hold"),
        ({"a": [1, {"~/": b"x"}]}, "returned a bytes at /a/1/~0~1, which"),
        (math.nan, "returned nan, which"),
        ({"a": -math.inf}, "returned -inf at /a, which"),
        ([Decimal("NaN")], "returned the Decimal NaN at /0, which"),
        ({"a": {1: 2}}, "returned an object with an int for a key at /a, which"),
        ("\ud800", "half of a surrogate pair"),
        ({"a": {"\udfff": 1}}, "a key with half of a surrogate pair at /a"),
        (circle(), "a value that contains itself at /0/a"),
        (circle_of_objects(), "a value that contains itself at /x/0"),
        (nested(1025), "nested more than 1,024 levels deep"),
        ((10**4300,), "an integer of more than 4,300 digits at /0"),
        ({"a": [10**4300]}, "an integer of more than 4,300 digits at /a/0"),
        ((-(10**4299),), "an integer of more than 4,300 digits at /0"),
        ({"a": object()}, "returned an object at /a"),
        ({"a": int}, "returned a type at /a"),
        ({"a": (_ for _ in "")}, "returned a generator at /a"),
    ],
)
def test_what_json_cannot_hold_is_named_with_its_place(value, words):
    with pytest.raises(RecordError) as caught:
        to_json_value(value)
    assert caught.value.kind == "transform"
    assert words in caught.value.message


@pytest.mark.parametrize("levels", [1000, 1024])
def test_deep_values_are_fine(levels):
    allow_deep_nesting()
    assert msgspec.json.encode(to_json_value(nested(levels))) == b"[" * levels + b"]" * levels


def test_the_same_value_twice_is_no_circle():
    shared = [1]
    assert to_json_value({"a": shared, "b": (shared, shared)}) == {"a": [1], "b": [[1], [1]]}


def test_the_largest_integer_is_fine():
    assert to_json_value([10**4300 - 1, (1 - 10**4299,)]) == [10**4300 - 1, [1 - 10**4299]]
