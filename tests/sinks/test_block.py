"""Column blocks: the kinds of columns, and the values after encoding and decoding."""

from __future__ import annotations

import json
import math
from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.errors import SinkError
from asyncbatch.sinks import column_block as block_module
from asyncbatch.sinks.column_block import (
    ColumnBlock,
    common_kind,
    convert_values,
    is_exact,
    join_blocks,
    make_block,
)

KINDS = ("null", "boolean", "integer", "real", "text")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["a", "b", "c", "", "é"])
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=8)
PLAIN_ROWS = st.lists(st.dictionaries(NAMES, SCALARS, max_size=4), max_size=8)


def column(*values):
    block = make_block([{"x": value} for value in values])
    return block.kinds[0], block.values[0]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([None, None], "null", [None, None]),
        ([True, None, False], "boolean", [True, None, False]),
        ([1, None, -(2**63), 2**63 - 1], "integer", [1, None, -(2**63), 2**63 - 1]),
        ([2**63, 1], "text", ["9223372036854775808", "1"]),
        ([-(2**63) - 1], "text", ["-9223372036854775809"]),
        ([0.5, None, 1e300], "real", [0.5, None, 1e300]),
        ([1, 0.5, None], "real", [1.0, 0.5, None]),
        ([2**53, 0.5], "real", [float(2**53), 0.5]),
        ([2**53 + 1, 0.5], "text", ["9007199254740993", "0.5"]),
        ([True, 7, None], "integer", [1, 7, None]),
        ([True, 0.5], "real", [1.0, 0.5]),
        ([True, "yes"], "text", ["true", "yes"]),
        (["", None, "007"], "text", ["", None, "007"]),
        (["a", 1, 0.1, None], "text", ["a", "1", "0.1", None]),
        ([[1, {"é": None}], {}], "text", ['[1,{"é":null}]', "{}"]),
        ([10**4000], "text", ["1" + "0" * 4000]),
    ],
)
def test_kind_of_a_column(values, kind, expected):
    assert column(*values) == (kind, expected)


def test_booleans_among_numbers_are_numbers():
    assert list(map(type, column(True, 7)[1])) == [int, int]
    assert list(map(type, column(True, 7, 0.5)[1])) == [float, float, float]


def test_deep_nesting_becomes_text():
    value: list[object] = []
    for _ in range(900):
        value = [value]
    kind, values = column(value)
    assert (kind, values[0]) == ("text", "[" * 901 + "]" * 901)


def test_columns_come_in_order_of_appearance():
    block = make_block([{"b": 1}, {"a": 2, "b": 3}, {}])
    assert (block.names, block.values, block.count) == (
        ["b", "a"],
        [[1, 3, None], [None, 2, None]],
        3,
    )


def test_no_rows_and_no_fields():
    assert make_block([]) == ColumnBlock([], [], [], 0)
    assert make_block([{}, {}]) == ColumnBlock([], [], [], 2)
    assert join_blocks([]) == ColumnBlock([], [], [], 0)
    assert join_blocks([make_block([{}]), make_block([{"a": 1}])]).values == [[None, 1]]


def test_keys_that_are_data_are_refused(monkeypatch):
    monkeypatch.setattr(block_module, "MAX_FIELDS", 3)
    make_block([{"a": 1, "b": 1}, {"c": 1}])
    with pytest.raises(SinkError, match="more than 3 different fields, such as 'd'"):
        make_block([{"a": 1, "b": 1}, {"c": 1, "d": 1}])


@settings(max_examples=50)
@given(ROWS)
def test_bytes_give_the_block_back(rows):
    block = make_block(rows)
    again = ColumnBlock.from_bytes(block.to_bytes())
    assert again == block
    assert repr(again) == repr(block)  # types, and the sign of zero


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_exactly(number):
    again = ColumnBlock.from_bytes(make_block([{"x": number}]).to_bytes()).values[0][0]
    assert math.copysign(1, again) == math.copysign(1, number)
    assert again == number
    assert float(convert_values([number], "real", "text")[0]) == number


@settings(max_examples=50)
@given(ROWS, st.lists(st.integers(0, 8), max_size=3))
def test_slices_join_to_the_block(rows, cuts):
    block = make_block(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [block.slice(start, stop) for start, stop in pairwise(edges)]
    assert join_blocks(parts) == block
    assert [part.count for part in parts] == [stop - start for start, stop in pairwise(edges)]


@settings(max_examples=50)
def widen(one, two):
    return common_kind([one, two], lambda: True)


@given(st.lists(ROWS, max_size=4))
def test_joined_blocks_hold_what_one_block_would(groups):
    joined, whole = (
        join_blocks([make_block(rows) for rows in groups]),
        make_block(list(chain(*groups))),
    )
    assert (joined.names, joined.count) == (whole.names, whole.count)
    for kind, one, values, wanted in zip(
        joined.kinds, whole.kinds, joined.values, whole.values, strict=True
    ):
        assert widen(kind, one) == kind  # never narrower
        for value, other in zip(values, wanted, strict=True):
            assert (value is None) == (other is None)
        if kind == one != "text":
            assert values == wanted


@given(PLAIN_ROWS)
def test_values_are_of_their_kind(rows):
    block = make_block(rows)
    types = {"boolean": bool, "integer": int, "real": float, "text": str}
    for kind, values in zip(block.kinds, block.values, strict=True):
        assert {type(value) for value in values if value is not None} <= {types.get(kind)}


@settings(max_examples=50)
@given(ROWS, st.sets(st.integers(0, 8)))
def test_rows_can_be_left_out(rows, gone):
    kept = [row for number, row in enumerate(rows) if number not in gone]
    block, wanted = make_block(rows).without(gone & set(range(len(rows)))), make_block(kept)
    assert block.count == wanted.count
    columns = dict(zip(block.names, block.values, strict=True))
    for name, values in zip(wanted.names, wanted.values, strict=True):
        nulls = [value is None for value in values]
        assert [value is None for value in columns[name]] == nulls


def test_without_nothing_is_the_same_block():
    block = make_block([{"a": 1}])
    assert block.without(()) is block


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_widening_does_not_depend_on_the_order(one, two, three):
    assert widen(one, two) == widen(two, one)
    assert widen(widen(one, two), three) == widen(one, widen(two, three))
    assert common_kind([one, two, three], lambda: True) == widen(widen(one, two), three)


def test_integers_beside_floats_need_to_be_exact():
    assert common_kind(["integer", "real"], lambda: False) == "text"
    assert common_kind(["integer", "boolean"], lambda: False) == "integer"
    assert is_exact([2**53, None, -(2**53)])
    assert is_exact([])
    assert not is_exact([2**53 + 1])
    assert not is_exact([-(2**53) - 1])


@pytest.mark.parametrize(
    ("values", "kind", "wider", "expected"),
    [
        ([None], "null", "text", [None]),
        ([True, None, False], "boolean", "text", ["true", None, "false"]),
        ([1, None], "integer", "text", ["1", None]),
        (
            [1.0, -0.0, 1e300, 5e-324, None],
            "real",
            "text",
            ["1.0", "-0.0", "1e300", "5e-324", None],
        ),
        ([True, None], "boolean", "integer", [1, None]),
        ([3, None], "integer", "real", [3.0, None]),
        ([], "integer", "text", []),
    ],
)
def test_conversions(values, kind, wider, expected):
    assert convert_values(values, kind, wider) == expected


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_integers_as_text_read_back(values):
    texts = convert_values(values, "integer", "text")
    assert [None if text is None else json.loads(text) for text in texts] == values


def test_rich_blocks_keep_what_values_were():
    rows = [
        {"n": 1, "big": 2**64, "o": {"k": 1}, "m": "a", "s": "x", "x": 2**53 + 1},
        {"n": True, "big": 0.5, "o": [], "m": 5, "s": "", "x": 0.5},
    ]
    block = make_block(rows, rich=True)
    kinds = ["integer", "numeric", "json", "mixed", "text", "numeric"]
    assert block.kinds == kinds
    assert block.values[1:4] == [[str(2**64), "0.5"], ['{"k":1}', "[]"], ['"a"', "5"]]
    assert make_block(rows).kinds == ["integer", "text", "text", "text", "text", "text"]


def test_rich_blocks_join_exactly_and_become_text_as_others_do():
    found: list[object] = [1, "a", 2**64, [1], True, 0.5, '"b']
    blocks = [make_block([{"v": value}], rich=True) for value in found]
    block = join_blocks(blocks, rich=True)
    assert block.kinds == ["mixed"]
    assert block.values == [["1", '"a"', str(2**64), "[1]", "true", "0.5", '"\\"b"']]
    texts = convert_values(block.values[0], "mixed", "text")
    assert texts == ["1", "a", str(2**64), "[1]", "true", "0.5", '"b']
    numbers = [make_block([{"v": value}], rich=True) for value in (2**53 + 1, 0.5, False)]
    joined = join_blocks(numbers, rich=True)
    assert (joined.kinds, joined.values) == (["numeric"], [[str(2**53 + 1), "0.5", "0"]])
