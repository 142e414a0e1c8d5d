"""JSON Lines, for every division of the stream into chunks."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.grammar import Fault, examine
from asyncbatch.formats.lines import InvalidLine, ValidLines, detect_lines, validate_lines
from asyncbatch.formats.positions import BOM, locate_byte
from asyncbatch.formats.validator import make_validator

JUDGE = make_validator()

lines = st.sampled_from(
    [b"1", b"[1, 2]", b'{"a": "\xc3\xa9"}', b"", b" ", b"\r", b"nope", b'"\xff"', b"[1,]", b"\x0c"]
)
texts = st.builds(
    lambda parts, ending: b"\n".join(parts) + ending,
    st.lists(lines, max_size=12),
    st.sampled_from([b"", b"\n"]),
)


def cut(text, places):
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)] or [b""]


@given(texts, st.lists(st.integers(0, 60), max_size=6))
def test_chunks_make_no_difference(text, places):
    count = 0
    good: list[ValidLines] = []
    bad: list[InvalidLine] = []
    for block in validate_lines(cut(text, places), JUDGE):
        count += block.records
        for split in block.split():
            if isinstance(split, InvalidLine):
                bad.append(split)
            else:
                good.append(split)
    numbered = list(enumerate(text.split(b"\n")))
    expected = [(number, line) for number, line in numbered if line.strip(b" \t\r")]
    assert count == len(expected)
    faults = [
        (record, number, fault)
        for record, (number, line) in enumerate(expected, 1)
        if isinstance(fault := examine(line), Fault)
    ]
    assert [(one.record, one.position.line) for one in bad] == [(r, n + 1) for r, n, _ in faults]
    for one, (_, number, fault) in zip(bad, faults, strict=True):
        start = sum(len(line) + 1 for _, line in numbered[:number])
        assert one.position == locate_byte(text, start + fault.byte)
        assert text[start:].startswith(one.text)
    found = [
        (split.record + at, split.line + at, line)
        for split in good
        for at, line in enumerate(split.texts)
    ]
    refused = {record for record, _, _ in faults}
    assert found == [
        (record, number + 1, line)
        for record, (number, line) in enumerate(expected, 1)
        if record not in refused
    ]
    for split in good:
        assert text[split.offset :].startswith(b"\n".join(split.texts))


@given(texts, st.lists(st.integers(0, 60), max_size=6))
def test_telling_lines_loses_nothing(text, places):
    is_lines, chunks = detect_lines(cut(text, places), JUDGE)
    assert b"".join(chunks) == text
    first, newline, rest = text.lstrip(b" \t\r\n").partition(b"\n")
    follows = bool(newline and rest.strip(b" \t\r\n"))
    assert is_lines == (follows and not isinstance(examine(first), Fault))


def judge_line_by_line(text):
    """Return the faults of lines by index, each line judged by itself; blank lines have one."""
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    faults: dict[int, Fault] = {}
    for index, line in enumerate(lines):
        verdict = examine(line) if line else Fault("empty", 0, "a blank line")
        if line.startswith(BOM) and index:
            verdict = Fault("invalid_json", 0, "a byte order mark inside the file")
        if isinstance(verdict, Fault):
            faults[index] = verdict
    return len(lines), faults


def judge_in_blocks(text, validator):
    """Return the number of lines and the faults as `validate_lines` finds them."""
    faults: dict[int, Fault] = {}
    count, blanks = 0, 0
    for block in validate_lines([text], validator):
        faults |= {count + index: fault for index, fault in block.faults.items()}
        count += block.lines
        blanks += block.lines - block.records
    assert blanks == sum(fault.kind == "empty" for fault in faults.values())
    return count, faults


# Lines that are valid or invalid only together with others, and values at the limits of parsers.
pieces = st.one_of(
    st.sampled_from(
        [
            *(
                b"1",
                b"-0",
                b"1.5e3",
                b'"a"',
                b"null",
                b"{}",
                b"[]",
                b'{"a":[{"b":[1]}]}',
                b"[[[0]]]",
            ),
            *(
                b"1,2",
                b"[1,",
                b"2]",
                b"]",
                b"[",
                b"],[",
                b"1],[2",
                b"{",
                b"}",
                b'{"a":1',
                b'"b":2}',
            ),
            *(b"1 2", b"1,", b",1", b",", b'"', b'"a', b'b"', b'":"', b"[0]],[[0", b"[1]", b"2],3"),
            *(b'{"a":1,"a":2}', b"18446744073709551616", b"1e400", b"01", b"NaN", b"tru", b"e"),
            *(b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\', b'"\xff"', b"\xe3\x81", b"\x82", b"\x00"),
            *(b'"\x01"', b"\xef\xbb\xbf1", b"\xef\xbb\xbf", b" ", b"\r", b"1\r", b"\t2 ", b"\x0c"),
            *(b"[" * 20 + b"]" * 20, b"[" * 1024 + b"]" * 1024, b"[" * 1025 + b"]" * 1025),
            *(b"[" * 30, b"]" * 30, b"9" * 4301, b'{"a":' * 1023 + b"1" + b"}" * 1023),
        ]
    ),
    st.binary(max_size=6),
    st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"a":', b"1", b'"']), max_size=8).map(
        b"".join
    ),
)


@given(st.lists(pieces, max_size=3), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_blocks_of_lines_are_judged_as_each_line_is(parts, end, ends):
    # Many valid lines around them: so that the lines are joined, as short lines are.
    around = [b'{"id":1,"tags":["x"]}'] * 20
    text = end.join([*around, *parts, *around]) + (end if ends else b"")
    assert judge_in_blocks(text, make_validator()) == judge_line_by_line(text)


good_lines = st.sampled_from(
    [b'{"a":[1,{"b":"c"}],"d":"\xc3\xa9"}', b"[[1,2],[3]]", b'"x"', b'{"a":{"b":[0,[0]]}}']
)
byte_changes = st.tuples(
    st.integers(0, 10**6),
    st.sampled_from(["insert", "delete", "replace"]),
    st.sampled_from(list(b'[]{},:"\\\n\r\t 0e-\x00\xff\xc3')),
)


@given(st.lists(good_lines, min_size=20), st.lists(byte_changes, max_size=4))
def test_blocks_with_changed_bytes_are_judged_as_each_line_is(parts, changes):
    text = bytearray(b"\n".join(parts))
    for place, change, byte in changes:
        at = place % len(text)
        if change == "insert":
            text.insert(at, byte)
        elif change == "delete":
            del text[at]
        else:
            text[at] = byte
    changed = bytes(text)
    assert judge_in_blocks(changed, make_validator()) == judge_line_by_line(changed)


nested = st.recursive(
    st.sampled_from([1, "a,b", "],[", "\\"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from("ab"), values),
    max_leaves=8,
)


@given(
    st.lists(st.lists(st.lists(nested, max_size=3), max_size=3), min_size=1, max_size=3),
    st.integers(1, 3),
    st.lists(st.booleans(), max_size=30),
)
def test_an_array_that_is_cut_at_commas_is_not_taken_for_lines(value, stripped, cuts):
    # The lines are valid if they are joined by commas between brackets, but few of them are alone.
    text = json.dumps(value, separators=(",", ":")).encode()[stripped:-stripped]
    parts = [bytes([byte]) for byte in text]
    commas = [at for at, part in enumerate(parts) if part == b","]
    for at, is_cut in zip(commas, cuts, strict=False):
        parts[at] = b"\n" if is_cut else b","
    around = [b'{"id":1,"tags":["x"]}'] * 20
    lines = b"\n".join([*around, b"".join(parts), *around])
    assert judge_in_blocks(lines, make_validator()) == judge_line_by_line(lines)


@pytest.mark.parametrize(
    "forged",
    [
        b"1,2",
        b'"a\nb",1,2',  # a string over two lines, and commas that make up for them
        b"[1\n2],3,4",
        b"[1\n2\n3],4,5,6,7",
        b'{"a":[1\n2]},3,4',
        b'{"a":[{"b":[{"c":[1\n2]}]}]},3,4',
        b'{"a":1\n"b":2},3,4',
        b"1],[2",
        b"1,2,3],[4",  # the array around all lines ends here, and another one begins
        b"1,2" + b",3" * 80 + b"],[4",
        b'1],"x":[2',
        b"1]],[[2",
        b"[0]],[[1",
    ],
)
def test_lines_that_are_valid_only_together_are_rejected(forged):
    around = [b'{"id":1,"tags":["x"]}'] * 20
    lines = b"\n".join([*around, forged, *around])
    expected = judge_line_by_line(lines)
    assert expected[1]
    assert judge_in_blocks(lines, make_validator()) == expected


def test_short_lines_are_judged_together():
    pytest.importorskip("simdjson")
    line = b'{"a":' * 15 + b"[1]" + b"}" * 15
    for end in (b"\n", b"\r\n"):
        lines = [b'{"id":1,"name":"n"}', b"[]", b'"1,2"', line] * 50
        assert make_validator().count_lines(end.join(lines)) == 200
        assert make_validator().count_lines(end.join([*lines, b""])) == 200
        for bad in (b"1,2", b"", b"[1,", BOM + b"1", b"]"):
            assert make_validator().count_lines(end.join([*lines, bad, *lines])) == 0


def test_one_bad_line_among_blocks_has_its_place():
    line = b'{"id":1,"name":"n","tags":[{"deep":[[1]]}]}'
    lines = [line] * 60_000
    lines[31_234] = b'{"id":1,}'
    text = b"\n".join(lines) + b"\n"
    blocks = list(validate_lines([text[:999_999], text[999_999:]], make_validator()))
    assert sum(block.records for block in blocks) == 60_000
    bad = [one for block in blocks for one in block.split() if isinstance(one, InvalidLine)]
    start = 31_234 * (len(line) + 1)
    assert [(one.record, one.text, one.position) for one in bad] == [
        (31_235, b'{"id":1,}', locate_byte(text, start + 8))
    ]
