"""Arrays that do not fit into memory: windows have the same records and positions."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncbatch.core.batches import SplitFile
from asyncbatch.core.records import Position
from asyncbatch.core.settings import Sizes
from asyncbatch.formats.arrays import ArrayStream, as_array
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.formats.failures import InvalidTextError
from asyncbatch.formats.grammar import Fault, examine
from asyncbatch.formats.positions import BOM, TextPosition, find_elements, locate_byte
from asyncbatch.formats.validator import make_validator
from asyncbatch.sources.splitter import Splitter
from asyncbatch.workers.tasks.record_slices import slices_of_text

JUDGE = make_validator()
allow_deep_nesting()  # as every command that reads records does

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["},{", "],[", '"', "\\", '\\"},{"', "\n", "é", "𝄞"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
spaces = st.sampled_from([b"", b"", b"", b" ", b"\n", b"\r\n", b" \t \n  "])


@st.composite
def arrays(draw):
    """Generate the text of an array, in varied formatting, and the texts of its elements."""
    texts = []
    for value in draw(st.lists(values, max_size=12)):
        indent = draw(st.sampled_from([None, None, 1]))
        ascii_only = draw(st.booleans())
        texts.append(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode())
    parts = [draw(st.sampled_from([b"", BOM])), draw(spaces), b"["]
    for at, text in enumerate(texts):
        parts += [b"," if at else b"", draw(spaces), text, draw(spaces)]
    parts += [draw(spaces), b"]", draw(spaces)]
    return b"".join(parts), texts


splits = st.integers(1, 60)
cuts = st.lists(st.integers(0, 400), max_size=6)


def chunked(text, places):
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    return iter([text[start:end] for start, end in pairwise(ends)])


class Found(NamedTuple):
    """The result of an array stream: texts and positions of records, and the error."""

    texts: list[bytes]
    numbers: list[int]
    places: list[TextPosition]
    error: InvalidTextError | None
    ends: list[Position]


def stream_of(text, split, places=(), pointer=None):
    stream = ArrayStream(
        chunked(text, places), pointer, JUDGE, Sizes(split_threshold=1 << 20, split=split)
    )
    return stream if stream.begin(is_split=True) else None


def read(stream, resume=None):
    found = Found([], [], [], None, [])
    try:
        for window in stream.windows(resume):
            at = window.start
            records = 0
            for record_slice in slices_of_text(
                as_array(window.text),
                None,
                whole=False,
                first=at.record + 1,
                line=at.line + 1,
                column=at.column + 1,
                offset=at.byte,
            ):
                for place, one in enumerate(record_slice.texts()):
                    found.texts.append(bytes(one).strip())
                    found.numbers.append(record_slice.first + place)
                    where = record_slice.position(place, 0)
                    assert where is not None
                    found.places.append(where)
                    records += 1
            assert records == window.elements
            assert window.end.record == at.record + records
            found.ends.append(window.end)
    except InvalidTextError as error:
        return found._replace(error=error)
    return found


def expected_places(text):
    [*slices] = slices_of_text(text, None, whole=False, first=1, line=1, offset=0)
    return [one.position(at, 0) for one in slices for at in range(len(one.texts()))]


@given(arrays(), splits, cuts)
def test_windows_hold_each_record_once_at_its_place(array, split, places):
    text, texts = array
    found = read(stream_of(text, split, places))
    assert found.error is None
    assert found.texts == texts
    assert found.numbers == list(range(1, len(texts) + 1))
    assert found.places == expected_places(text)


@given(arrays(), splits, st.data())
def test_a_stream_is_taken_up_where_it_was_left(array, split, data):
    text, texts = array
    ends = read(stream_of(text, split)).ends
    if not ends:
        return
    resume = data.draw(st.sampled_from(ends))
    found = read(stream_of(text, data.draw(splits), data.draw(cuts)), resume)
    assert found.texts == texts[resume.record :]
    assert found.places == expected_places(text)[resume.record :]


@st.composite
def broken(draw):
    """Generate an array with a random change, removal, insertion or truncation."""
    text, _ = draw(arrays())
    at = draw(st.integers(0, len(text)))
    change = draw(st.sampled_from(["cut", "put", "replace", "remove"]))
    byte = draw(st.sampled_from([bytes([one]) for one in b'[]{},:"\\ x0-.e\n\x00\xff\xc3']))
    if change == "cut":
        return text[:at]
    return text[:at] + (b"" if change == "remove" else byte) + text[at + (change != "put") :]


@given(broken(), splits, cuts)
@example(b"[1, 2}3, 4]", 1, [])
def test_whatever_is_wrong_is_found_where_the_whole_text_has_it(text, split, places):
    verdict = examine(text)
    stream = stream_of(text, split, places)
    if stream is None:  # no array: the whole text is validated
        assert not text.removeprefix(BOM).lstrip(b" \t\r\n").startswith(b"[")
        return
    error = read(stream).error
    if isinstance(verdict, Fault):
        assert error is not None
        assert (error.fault.kind, error.position) == (verdict.kind, locate_byte(text, verdict.byte))
        assert error.fault.message == verdict.message
    else:
        assert error is None


@given(broken(), splits, splits)
@example(b'[1, 2, [3, "4},', 1, 7)
def test_how_many_records_come_before_a_fault_does_not_depend_on_the_pieces(text, one, other):
    streams = stream_of(text, one), stream_of(text, other)
    if streams[0] is not None:
        assert read(streams[0]).texts == read(streams[1]).texts


documents = st.sampled_from(
    [
        (b'{"a": 1, "rows": ', b"}", ("rows",)),
        (b'{"rows": ', b', "a": [1, 2]}', ("rows",)),
        (b'\n{"a": {"rows": [0]}, "x/y": {"r\\u006fws":', b'}, "z": "]"} ', ("x/y", "rows")),
        (b'[[1], {"rows": [2]}, ', b", [3]]", ("2",)),
    ]
)


@given(arrays(), documents, splits, cuts)
def test_an_array_inside_a_document(array, around, split, places):
    text, texts = array
    before, after, pointer = around
    text = before + text.removeprefix(BOM) + after
    found = read(stream_of(text, split, places, pointer))
    assert found.error is None
    assert (
        found.texts == texts == [bytes(one).strip() for one in find_elements(text, pointer) or ()]
    )
    [*slices] = slices_of_text(text, pointer, whole=False, first=1, line=1, offset=0)
    assert found.places == [s.position(at, 0) for s in slices for at in range(len(s.texts()))]


@given(broken(), documents, splits)
@example(b"0[]", (b'{"a": 1, "rows": ', b"}", ("rows",)), 1)
@example(b'"[\n]', (b'{"a": 1, "rows": ', b"}", ("rows",)), 1)
def test_a_fault_in_a_document_around_an_array(text, around, split):
    before, after, pointer = around
    text = before + text.removeprefix(BOM) + after
    verdict = examine(text)
    if not isinstance(verdict, Fault):
        return
    try:
        stream = stream_of(text, split, (), pointer)
        error = read(stream).error if stream else None
    except InvalidTextError as early:
        error = early
    if error is None:
        assert stream is None  # the array was not found: the whole document is validated
        return
    assert (error.fault.kind, error.position) == (verdict.kind, locate_byte(text, verdict.byte))


def test_of_an_array_that_is_named_twice_the_first_was_wrong():
    text = b'{"rows": [1, 2],\n "rows": [3]}'
    found = read(stream_of(text, 4, (), ("rows",)))
    assert found.error is not None
    assert "a second '/rows'" in found.error.fault.message
    assert found.error.position == TextPosition(2, 10, 26)


def test_a_nul_after_a_mark_is_no_sign_of_utf_16():
    found = read(stream_of(BOM + b"[\0" + b"1," * 50 + b"1]", 20))
    assert found.error is not None
    assert found.error.fault.kind == "invalid_json"
    assert found.error.position == TextPosition(1, 2, 4)


def test_elements_larger_than_a_window():
    big = b'{"a": [%b]}' % b",".join([b'{"b": "},{"}'] * 500)
    text = b"[" + b",\n".join([big, b"1", big, b"2"]) + b"]"
    found = read(stream_of(text, 50))
    assert found.texts == [big, b"1", big, b"2"]


def test_an_element_over_the_limit_is_too_large():
    from asyncbatch.storage.local import TooLargeError

    text = b'[1, 2, "%b", 3]' % (b"x" * 5000)
    sizes = Sizes(split_threshold=10, split=16, record=1000)
    stream = ArrayStream(iter([text]), None, JUDGE, sizes)
    assert stream.begin()
    windows = stream.windows()
    assert sum(window.elements for window in [next(windows)]) == 2
    with pytest.raises(TooLargeError, match="record 3 has more than 1,000 bytes"):
        next(windows)


@given(arrays(), splits, st.booleans())
def test_the_splitter_cuts_a_file_into_all_its_windows(tmp_path_factory, array, split, pretty):
    text, texts = array
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_bytes(text + b" " * 70_000)
    sizes = Sizes(split_threshold=1, split=split)
    *some, end = Splitter(str(path), SplitFile("array"), sizes).splits()
    assert end.is_end_marker
    assert end.error is None
    joined: list[Any] = []
    for number, one in enumerate(some):
        assert (one.number, one.start.record) == (number, len(joined))
        joined += json.loads(as_array(text[one.start.byte : one.start.byte + one.length]))
    assert json.dumps(joined) == json.dumps([json.loads(one) for one in texts])
    assert sum(one.length for one in (*some, end)) == len(text) + 70_000


def people(count):
    return [{"id": number, "text": "é},{" * 40} for number in range(count)]


@pytest.fixture
def huge_array(tmp_path):
    """An array of about 70 MB, with one element in each line."""
    block = b",\n".join(json.dumps(one).encode() for one in people(2000))
    path = tmp_path / "big.json"
    with path.open("wb") as stream:
        stream.write(b"[\n" + block)
        for _ in range(180):
            stream.write(b",\n" + block)
        stream.write(b"\n]\n")
    assert path.stat().st_size > 60_000_000
    return path


RECORDS = 181 * 2000


def test_a_huge_array_through_the_command(run, huge_array):
    report = run("big.json", "-o", "json").json
    assert report["records"]["read"] == RECORDS
    assert report["files"]["bytes"] == huge_array.stat().st_size
    assert report["peak_memory_bytes"] < 300_000_000
    to = run("big.json", "--jq", "select(.id == 7) | .id", "--to", "out.jsonl", "-o", "json")
    assert to.json["records"] == {
        "read": RECORDS, "passed": 181, "dropped": RECORDS - 181, "rejected": 0, "written": 181,
    }  # fmt: skip
    assert (huge_array.parent / "out.jsonl").read_text() == "7\n" * 181


@pytest.mark.parametrize(
    ("more", "read"),
    [((), 0), (("--dead-letter", "bad.jsonl"), 0), (("-w", "2"), 0), (("--jq", "."), 36_000)],
)
@pytest.mark.parametrize("name", ["big.json", "big.json.gz"])
def test_records_that_are_only_counted_do_not_count_in_a_failed_file(run, files, name, more, read):
    text = b'{"items": [%b]} x' % b",".join([b'{"text": "%b"}' % (b"x" * 1000)] * 36_000)
    files({name: gzip.compress(text, 1) if name.endswith(".gz") else text})
    outcome = run(name, "--records", "/items", *more, "-o", "json")
    assert outcome.json["files"]["failed"] == 1
    assert outcome.json["records"]["read"] == outcome.json["records"]["passed"] == read
    assert outcome.json["failures"][0]["message"].endswith("(after 36,000 records)")


def test_a_broken_huge_array_says_where_and_how_far_it_got(run, huge_array):
    lines = huge_array.read_bytes().split(b"\n")
    lines[300_001] = lines[300_001].replace(b'"text"', b"'text'")
    huge_array.write_bytes(b"\n".join(lines))
    byte = sum(len(line) + 1 for line in lines[:300_001]) + lines[300_001].index(b"'")
    place = {
        "file": "big.json",
        "kind": "invalid_json",
        "record": None,
        "line": 300_002,
        "column": 1 + lines[300_001].index(b"'"),
        "byte": byte,
    }
    counted = run("big.json", "-o", "json")
    assert counted.code == 1
    [failure] = counted.json["failures"]
    assert place.items() <= failure.items()
    assert failure["message"].endswith("(after 300,000 records)")
    assert counted.json["records"]["read"] == 0
    written = run("big.json", "--to", "out.jsonl", "--dead-letter", "bad.jsonl", "-o", "json")
    assert written.json["failures"] == [failure]
    assert written.json["records"] == {
        "read": 300_000, "passed": 300_000, "dropped": 0, "rejected": 0, "written": 300_000,
    }  # fmt: skip
    assert written.json["files"]["failed"] == 1
    [letter] = map(json.loads, (huge_array.parent / "bad.jsonl").read_text().splitlines())
    assert (letter["file"], letter["record"]) == ("big.json", None)


def test_a_huge_array_that_is_compressed(run, huge_array):
    packed = huge_array.with_suffix(".json.gz")
    packed.write_bytes(gzip.compress(huge_array.read_bytes(), 1))
    huge_array.unlink()
    counted = run(packed.name, "-o", "json").json
    assert counted["records"]["read"] == RECORDS
    assert counted["peak_memory_bytes"] < 300_000_000
    to = run(packed.name, "--jq", ".id", "--to", "out.jsonl", "-o", "json").json
    assert to["records"]["written"] == RECORDS
    ids = (huge_array.parent / "out.jsonl").read_text().split()
    assert ids == [str(number) for number in range(2000)] * 181
