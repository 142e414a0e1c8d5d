"""Boundaries between the elements of arrays, against Python's json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.core.settings import Sizes
from asyncbatch.formats import array_cutter
from asyncbatch.formats.array_cutter import BoundaryScanner
from asyncbatch.formats.arrays import ArrayStream, as_array
from asyncbatch.formats.failures import InvalidTextError
from asyncbatch.formats.validator import make_validator

# Texts that look like structure, and escapes beside quotes and at the ends of steps.
TRAPS = st.lists(
    st.sampled_from(['"', "\\", "\\\\", "[", "]", "{", "}", ",", "},{", "\n", "é", "☃", "a", " "]),
    max_size=12,
).map("".join)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TRAPS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRAPS, inner, max_size=4),
    max_leaves=12,
)
SPACES = st.sampled_from(["", " ", "\n", "\r\n  ", "\t" * 9])


@st.composite
def arrays(draw) -> tuple[str, list[Any]]:
    """Draw the text of an array, and its elements."""
    values = draw(st.lists(VALUES, max_size=8))
    indent, is_ascii = draw(st.sampled_from([None, 0, 2])), draw(st.booleans())
    text = "["
    for number, value in enumerate(values):
        text += "," * (number > 0) + draw(SPACES)
        text += json.dumps(value, indent=indent, ensure_ascii=is_ascii) + draw(SPACES)
    return text + draw(SPACES) + "]", values


def boundaries(text: str) -> Iterator[int]:
    """Yield the offset in bytes of each comma between elements, and of the array's end."""
    decoder, at = json.JSONDecoder(), 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if text[at] != "]":
            _, at = decoder.raw_decode(text, at)
            at += len(text[at:]) - len(text[at:].lstrip())
        yield len(text[:at].encode())
        if text[at] == "]":
            return
        at += 1


@given(arrays(), st.integers(2, 40), st.lists(st.integers(0, 400), max_size=6), st.data())
def test_the_scanner_finds_the_last_boundary_of_each_beginning(array, step, ends, data):
    """However the text comes, and whatever its steps are."""
    text, _ = array
    known = list(boundaries(text))
    encoded = text.encode()
    scanner, start, byte = BoundaryScanner(), 0, data.draw(st.integers(0, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_cutter, "STEP_BYTES", step)
        patch.setattr(array_cutter, "_PART_BYTES", max(2, step // 3))
        seen = 1
        for end in [*sorted(ends), len(encoded)]:
            found = scanner.find(encoded[start:end], byte + start) + start
            new = [one for one in known if seen <= one < end]
            if new and new[-1] != start:
                assert found == new[-1]
                # The next text begins at a boundary, as that of a window does.
                start, seen = new[-1], max(end, new[-1])
            else:
                assert found == start
            if known[-1] < end:
                return


@given(arrays(), st.integers(8, 80), st.integers(2, 40), st.integers(1, 50))
def test_windows_hold_every_element_once(array, split, step, chunk):
    text, values = array
    encoded = text.encode()
    chunks = (encoded[at : at + chunk] for at in range(0, len(encoded), chunk))
    sizes = Sizes(split_threshold=4, split=split, record=100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_cutter, "STEP_BYTES", step)
        patch.setattr(array_cutter, "_PART_BYTES", max(2, step // 3))
        stream = ArrayStream(chunks, None, make_validator(), sizes)
        if not stream.begin():
            assert len(encoded) <= 5
            return
        found: list[Any] = []
        for window in stream.windows():
            assert window.start.record == len(found)
            elements = json.loads(as_array(window.text))
            assert len(elements) == window.elements
            found += elements
    assert found == values


@given(arrays(), st.integers(8, 80), st.data())
def test_the_elements_before_an_error_are_read_and_its_place_is_told(array, split, data):
    text, values = array
    known = list(boundaries(text))
    number = data.draw(st.integers(0, len(known) - 1))
    # An error right after a boundary.
    encoded = text.encode()[: known[number]] + b",!" + text.encode()[known[number] + 1 :]
    stream = ArrayStream(
        iter([encoded]), None, make_validator(), Sizes(split_threshold=4, split=split)
    )
    if not stream.begin():
        return
    found: list[Any] = []

    def read() -> None:
        for window in stream.windows():
            found.extend(json.loads(as_array(window.text)))

    with pytest.raises(InvalidTextError) as caught:
        read()
    assert found == values[: number + 1]
    line = encoded[: known[number]].count(b"\n") + 1
    assert caught.value.position.line == line


def test_the_work_for_a_large_element_grows_with_its_length(monkeypatch):
    """Each byte is scanned once, in however many windows the element arrives."""
    scanned: list[int] = []
    follow = array_cutter._Follower.follow

    def follow_counted(
        self: array_cutter._Follower, text: bytes, start: int, end: int, size: int
    ) -> Any:
        found = follow(self, text, start, end, size)
        if size == array_cutter.STEP_BYTES:
            scanned.append(self.at - start)
        return found

    monkeypatch.setattr(array_cutter._Follower, "follow", follow_counted)
    element = json.dumps({"a": ["},{" * 1000, {"b": [1, 2]}] * 300})
    text = f"[{element},{element},1]".encode()
    sizes = Sizes(split_threshold=1000, split=1000)
    chunks = (text[at : at + 512] for at in range(0, len(text), 512))
    stream = ArrayStream(chunks, None, make_validator(), sizes)
    assert stream.begin()
    assert sum(window.elements for window in stream.windows()) == 3
    assert sum(scanned) <= len(text)
