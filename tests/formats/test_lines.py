"""JSON Lines, for every division of the stream into chunks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.grammar import Fault, examine
from asyncbatch.formats.lines import InvalidLine, ValidLines, detect_lines, validate_lines
from asyncbatch.formats.positions import locate_byte
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
