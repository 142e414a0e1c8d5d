"""Column blocks: the kinds of columns, and the values after encoding and decoding."""

from __future__ import annotations

import json
import math
from itertools import chain, pairwise
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.errors import SinkError
from asyncbatch.sinks.columns import block as block_module
from asyncbatch.sinks.columns.block import (
    ColumnBlock,
    block_objects,
    is_exact,
    join_blocks,
    joined_kind,
    json_texts,
    make_block,
    plain_texts,
)

KINDS = get_args(block_module.Kind)
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


def is_held(found, value):
    """Whether a column holds a value, unchanged or as its text."""
    if value is None or isinstance(value, str):
        return bool(found == value)
    if isinstance(found, str):
        found = json.loads(found)
    return bool(found == value and isinstance(found, bool) == isinstance(value, bool))


def column(*values):
    block = make_block([{"x": value} for value in values])
    return block.kinds[0], block.values[0]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([None, None], "null", [None, None]),
        ([True, None, False], "boolean", [True, None, False]),
        ([1, None, -(2**63), 2**63 - 1], "integer", [1, None, -(2**63), 2**63 - 1]),
        ([2**63, 1], "numeric", ["9223372036854775808", "1"]),
        ([-(2**63) - 1], "numeric", ["-9223372036854775809"]),
        ([0.5, None, 1e300], "real", [0.5, None, 1e300]),
        ([1, 0.5, None], "number", [1, 0.5, None]),
        ([2**53 + 1, 0.5], "number", [2**53 + 1, 0.5]),
        ([2**64, 0.5, None], "numeric", ["18446744073709551616", "0.5", None]),
        ([True, 7, None], "mixed", ["true", "7", None]),
        ([True, "yes"], "mixed", ["true", '"yes"']),
        (["", None, "007"], "text", ["", None, "007"]),
        (["a", 1, 0.1, None], "mixed", ['"a"', "1", "0.1", None]),
        ([[1, {"é": None}], {}], "json", ['[1,{"é":null}]', "{}"]),
        ([[1], 1], "mixed", ["[1]", "1"]),
        ([10**4000], "numeric", ["1" + "0" * 4000]),
    ],
)
def test_kind_of_a_column(values, kind, expected):
    assert column(*values) == (kind, expected)


def test_numbers_keep_their_types():
    assert list(map(type, column(1, 0.5, 2.0)[1])) == [int, float, float]


def test_deep_nesting():
    value: list[object] = []
    for _ in range(900):
        value = [value]
    kind, values = column(value)
    assert (kind, values[0]) == ("json", "[" * 901 + "]" * 901)


def test_columns_come_in_the_order_of_their_first_values():
    block = make_block([{"z": None, "c": None, "b": 1}, {"c": 4, "a": 2, "b": 3}, {}])
    assert (block.names, block.count) == (["b", "c", "a", "z"], 3)
    assert block.values == [[1, 3, None], [None, 4, None], [None, 2, None], [None, None, None]]


@given(ROWS, st.lists(st.integers(0, 8), max_size=3))
def test_the_order_of_columns_does_not_depend_on_blocks(rows, cuts):
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    names: dict[str, None] = {}
    for start, stop in pairwise(edges):
        block = make_block(rows[start:stop])
        pairs = zip(block.names, block.kinds, strict=True)
        names.update(dict.fromkeys(name for name, kind in pairs if kind != "null"))
    whole = make_block(rows)
    assert list(names) == [n for n, k in zip(whole.names, whole.kinds, strict=True) if k != "null"]


@given(ROWS | PLAIN_ROWS, st.integers(1, 4))
def test_rows_become_columns_in_any_chunks(rows, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_module, "_CHUNK_ROWS", size)
        block = make_block(rows)
    assert block == make_block(rows)
    assert set(block.names) == set(chain.from_iterable(rows))
    for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
        assert (kind, values) == column(*(row.get(name) for row in rows))
        there = bytes(name in row for row in rows)
        assert block.present.get(name, bytes([1] * len(rows))) == there


def test_a_row_with_other_fields_or_without_one_among_many():
    rows: list[dict[str, Any]]
    rows = [{"a": number, "b": str(number), "c": None} for number in range(600)]
    del rows[10]["b"], rows[300]["a"], rows[599]["c"]
    rows[20] = {"a": 20, "b": "20", "d": 1.5}
    block = make_block(rows)
    assert block.names == ["a", "b", "d", "c"]
    assert block.kinds == ["integer", "text", "real", "null"]
    assert block.values == [[row.get(name) for row in rows] for name in block.names]
    there = {name: bytes(name in row for row in rows) for name in block.names}
    assert block.present == there


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
    assert float(plain_texts([number], "real")[0] or "") == number


@settings(max_examples=50)
@given(ROWS, st.lists(st.integers(0, 8), max_size=3))
def test_slices_join_to_the_block(rows, cuts):
    block = make_block(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [block.slice(start, stop) for start, stop in pairwise(edges)]
    joined = join_blocks(parts)
    assert sorted(zip(joined.names, joined.kinds, joined.values, strict=True)) == sorted(
        zip(block.names, block.kinds, block.values, strict=True)
    )
    for part, (start, stop) in zip(parts, pairwise(edges), strict=True):
        own = make_block(rows[start:stop])
        kinds = dict(zip(part.names, part.kinds, strict=True))
        assert {name: kinds[name] for name in own.names} == dict(
            zip(own.names, own.kinds, strict=True)
        )
    assert [part.count for part in parts] == [stop - start for start, stop in pairwise(edges)]


@given(st.lists(ROWS, max_size=4))
def test_joined_blocks_are_one_block(groups):
    joined = join_blocks([make_block(rows) for rows in groups])
    whole = make_block(list(chain(*groups)))
    assert joined == whole
    assert repr(joined) == repr(whole)


@given(ROWS)
def test_values_are_those_of_the_rows(rows):
    wanted = [{name: v for name, v in row.items() if v is not None} for row in rows]
    assert repr(block_objects(make_block(rows))) == repr(
        [{name: row[name] for name in make_block(rows).names if name in row} for row in wanted]
    )


@settings(max_examples=50)
@given(ROWS, st.sets(st.integers(0, 8)))
def test_rows_can_be_left_out(rows, gone):
    kept = [row for number, row in enumerate(rows) if number not in gone]
    block, wanted = make_block(rows).without(gone & set(range(len(rows)))), make_block(kept)
    assert block.count == wanted.count
    found = zip(block.names, block.kinds, block.values, strict=True)
    columns = {name: (kind, values) for name, kind, values in found}
    for name, kind, values in zip(wanted.names, wanted.kinds, wanted.values, strict=True):
        assert kind == "null" or columns[name] == (kind, values)
    assert {n for n in columns if columns[n][0] != "null"} <= set(wanted.names)


def test_without_nothing_is_the_same_block():
    block = make_block([{"a": 1}])
    assert block.without(()) is block


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_joining_does_not_depend_on_the_order(one, two, three):
    assert joined_kind([one, two]) == joined_kind([two, one])
    left = joined_kind([joined_kind([one, two]), three])
    assert left == joined_kind([one, joined_kind([two, three])])
    assert left == joined_kind([one, two, three])


def test_integers_that_are_exact_as_doubles():
    assert is_exact([2**53, -(2**53)])
    assert is_exact([])
    assert not is_exact([2**53 + 1])
    assert not is_exact([-(2**53) - 1])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None], [None]),
        ([True, None, False], ["true", None, "false"]),
        ([1, None], ["1", None]),
        ([1.0, -0.0, 1e300, 5e-324, None], ["1", "-0", "1e300", "5e-324", None]),
        ([1, 1.0, 2.5, 1e15], ["1", "1", "2.5", "1000000000000000"]),
        ([2**64, 1.0], [str(2**64), "1"]),
        (
            [1, "a", 2**64, [1.0], True, 1.0, '"b'],
            ["1", "a", str(2**64), "[1.0]", "true", "1", '"b'],
        ),
        ([{"a": 1.0}], ['{"a":1.0}']),
        ([], []),
    ],
)  # fmt: skip
def test_values_as_texts(values, expected):
    kind, values = column(*values) if values else ("null", [])
    assert plain_texts(values, kind) == expected


@given(st.lists(VALUES))
def test_json_texts_read_back(values):
    kind, found = column(*values) if values else ("null", [])
    read = [None if text is None else json.loads(text) for text in json_texts(found, kind)]
    assert repr(read) == repr(values)


@given(st.lists(st.none() | st.integers(-(2**70), 2**70)))
def test_integers_as_text_read_back(values):
    kind, found = column(*values) if values else ("null", [])
    texts = plain_texts(found, kind)
    assert [None if text is None else json.loads(text) for text in texts] == values
