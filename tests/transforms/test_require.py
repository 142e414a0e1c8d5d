"""`require`: records without a required field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.transforms.fields import Require
from asyncbatch.transforms.spec import RequireSpec


class Here:
    file, record = "a.json", 1
    line: int | None = None

    def context(self) -> Context:
        return Context("a.json", 1)


def rejection(fields, value):
    with pytest.raises(RecordError) as caught:
        Require(RequireSpec(fields))(value, Here())
    return caught.value


def test_what_passes_is_unchanged():
    for value in ({"id": 0, "b": {"c": False}}, {"id": [], "b": {"c": {}}}):
        assert tuple(Require(RequireSpec(("id", "b.c")))(value, Here())) == (value,)


@pytest.mark.parametrize(
    ("value", "message", "pointer"),
    [
        ({"b": {"c": 1}}, "'id' is missing or null", "/id"),
        ({"id": None, "b": {"c": 1}}, "'id' is missing or null", "/id"),
        ({"id": "", "b": {"c": 1}}, "'id' is empty", "/id"),
        ({"id": 1, "b": 3}, "'b.c' is missing or null", "/b/c"),
        ({"id": 1, "b": [1]}, "'b.c' is missing or null", "/b/c"),
        ({}, "'id' is missing or null; also missing, null or empty: 'b.c'", "/id"),
        ([1], "has no 'id': it is an array", ""),
    ],
)
def test_what_is_rejected(value, message, pointer):
    error = rejection(("id", "b.c"), value)
    assert (error.kind, error.message, error.pointer) == ("missing_field", message, pointer)


def test_pointers_and_elements():
    assert tuple(Require(RequireSpec(("/a.b", "c.0.d")))({"a.b": 1, "c": [{"d": 1}]}, Here()))
    assert rejection(("/a.b",), {"a": {"b": 1}}).pointer == "/a.b"
    assert rejection(("/a~1b",), {}).pointer == "/a~1b"
    assert rejection(("c.01",), {"c": [1, 2]}).pointer == "/c/01"


@given(st.dictionaries(st.sampled_from("abc"), st.none() | st.sampled_from(["", "x", 0])))
def test_dropped_is_what_would_be_rejected(value):
    dropped = not tuple(Require(RequireSpec(("a", "b"), "drop"))(value, Here()))
    assert dropped == any(value.get(name) in (None, "") for name in "ab")
    if dropped:
        rejection(("a", "b"), value)
