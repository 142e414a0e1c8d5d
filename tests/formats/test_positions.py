"""JSON Pointers, and the offsets of the values that they identify."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.formats.positions import (
    count_code_points,
    find_elements,
    find_values,
    format_pointer,
    offset_of,
    parse_pointer,
)

allow_deep_nesting()  # before the tests: hypothesis warns if the recursion limit changes during one

BOM = b"\xef\xbb\xbf"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


def places(value, tokens=()):
    """Yield each value within `value` with its path."""
    yield tokens, value
    if not isinstance(value, dict | list):
        return
    for token, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(item, (*tokens, token))


@given(JSON, st.sampled_from([None, 1, "\t"]), st.sampled_from([b"", BOM, b" \n", BOM + b"\r\n"]))
def test_every_value_is_found(value, indent, before):
    text = before + json.dumps(value, indent=indent).encode() + b" \n"
    known = list(places(value))
    offsets = find_values(text, [tokens for tokens, _ in known])
    for (_, expected), offset in zip(known, offsets, strict=True):
        assert offset is not None
        found, _ = json.JSONDecoder().raw_decode(text[offset:].decode())
        assert found == expected


@given(st.lists(st.text()))
def test_pointers_survive_being_written(tokens):
    assert list(parse_pointer(format_pointer(tokens))) == tokens


@pytest.mark.parametrize("text", ["a", "a/b", "/~", "/~2", "/a~"])
def test_malformed_pointers_are_refused(text):
    with pytest.raises(ValueError, match="is not a JSON Pointer"):
        parse_pointer(text)


@pytest.mark.parametrize(
    ("pointer", "rest"),
    [
        ("", b'{"a"'),
        ("/a", b"[10"),
        ("/a/1", b"{"),
        ("/a/1/~1~0", b"null"),
        ("/ab", b'"x"'),
        ("/a/2", None),
        ("/a/01", None),
        ("/a/-", None),
        ("/a/99999999999999999999999", None),
        ("/ab/c", None),
        ("/nope/at/all", None),
    ],
)
def test_the_last_of_repeated_keys_counts(pointer, rest):
    text = b' {"a": 1, "a\\u0062" : "x", "a":[10 , {"/~": null}]}'
    (offset,) = find_values(text, [parse_pointer(pointer)])
    assert rest is None if offset is None else text[offset:].startswith(rest)


def test_integers_name_elements_too():
    assert find_values(b'[[1, 2], {"0": 3}]', [(0, 1), (1, 0)]) == [5, 15]


@pytest.mark.parametrize("levels", [1000, 1024])
def test_deep_values_are_found(levels):
    text = b"[" * levels + b"]" * levels
    assert find_values(text, [(0,) * (levels - 1)]) == [levels - 1]


def test_the_elements_of_an_array_know_where_they_stand():
    text = BOM + b' {"data": [ 1 ,  {"a": 2}, 1 ]}'
    parts = find_elements(text, ("data",))
    assert parts is not None
    assert [bytes(part) for part in parts] == [b"1", b'{"a": 2}', b"1"]
    assert [text[offset_of(text, part) :][:2] for part in parts] == [b"1 ", b'{"', b"1 "]
    inner = msgspec.json.decode(parts[1], type=dict[str, msgspec.Raw])["a"]
    assert text[offset_of(text, inner) :] == b"2}, 1 ]}"


@pytest.mark.parametrize("pointer", [(), ("data", 0), ("nope",)])
def test_what_is_no_array_has_no_elements(pointer):
    assert find_elements(b'{"data": [1]}', pointer) is None


@given(st.binary(max_size=40), st.sampled_from([0, 1, 3]))
def test_code_points_of_pieces_are_those_of_the_whole_text(end, start):
    filler = "aé€😀".encode() * 6_554  # pieces of 64 KiB end inside a character
    text = filler + end + filler
    assert count_code_points(text, start) == len(text[start:].decode("utf-8", "replace"))
