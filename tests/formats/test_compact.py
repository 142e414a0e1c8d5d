"""JSON texts without white space: compared with a reference that knows strings from the rest."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
from asyncbatch.core.origin import added_columns
from asyncbatch.core.settings import FileWorkSettings, Sizes
from asyncbatch.formats.compact import (
    array_lines,
    compact,
    compact_lines,
    is_surely_compact,
    text_lines,
)
from asyncbatch.pipeline.run import Run
from asyncbatch.sinks.target import Target
from asyncbatch.sources.inputs import Inputs

_STRING_OR_SPACE = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')

# Texts of strings that look like JSON: white space beside signs, records, and escapes.
STRINGS = st.sampled_from([
    '""', '" "', '"a b"', '", "', '" ,"', '": "', '"},{"', '"[ 1 ]"', '" {"', '"} "', '"%d %%"',
    r'"\" , \""', r'"\\"', r'"\n\t"', r'"\u005ffile"', '"é ü"', '"日本 語"', '"_file"', r'"\u0020"',
])  # fmt: skip
SCALARS = STRINGS | st.sampled_from([
    "0", "-0", "-0.0", "1.0", "1e5", "1E-7", "1.10", "12345678901234567890123", "true", "false",
    "null",
])  # fmt: skip
NAMES = st.sampled_from(['"id"', '"a b"', '", "', '""', '"x"', '"x"', r'"\u0041"', '"é"'])
SPACES = st.sampled_from(["", "", " ", "  ", "\t", "\n", "\r\n", " \n "])


def reference(text: bytes) -> bytes:
    """Return a JSON text without white space outside of its strings."""
    return _STRING_OR_SPACE.sub(lambda found: found[1] or b"", text)


def _objects(values):
    return st.lists(st.tuples(NAMES, values), max_size=3).map(
        lambda pairs: ["{", *_between([[name, ":", *value] for name, value in pairs]), "}"]
    )


def _arrays(values):
    return st.lists(values, max_size=3).map(lambda some: ["[", *_between(some), "]"])


def _between(parts):
    return [token for at, part in enumerate(parts) for token in ([",", *part] if at else part)]


# Values as lists of their tokens.
VALUES = st.recursive(
    SCALARS.map(lambda text: [text]),
    lambda values: _objects(values) | _arrays(values),
    max_leaves=8,
)


def spaced(tokens: list[str], spaces: list[str]) -> bytes:
    """Return the text of tokens, with white space between them."""
    return "".join(
        token + space for token, space in zip(tokens, cycle(spaces), strict=False)
    ).encode()


TEXTS = st.builds(spaced, VALUES, st.lists(SPACES, min_size=1, max_size=5) | st.just([""]))


@given(TEXTS)
def test_texts(text):
    expected = reference(text)
    assert compact(text) == expected
    assert compact(expected) == expected
    if is_surely_compact(text) and b"\n" not in text:
        assert text == expected


@given(st.lists(TEXTS, max_size=5), SPACES, st.booleans())
@example([b'{"a":\n1}', b"2"], "", False)
def test_arrays_and_their_elements(texts, space, views):
    array = b"[%b]" % b",".join(texts)
    around = space.encode()
    expected = b"".join(reference(text) + b"\n" for text in texts)
    assert array_lines(around + array + around) == (expected, len(texts))
    if texts:
        stripped = [text.strip(b" \t\r\n") for text in texts]
        assert text_lines(list(map(Raw, stripped)) if views else stripped) == expected


def as_line(text: bytes) -> bytes:
    """Return a text in one line, which may have white space of other kinds."""
    return text.replace(b"\n", b" ")


@given(st.lists(TEXTS.map(as_line), min_size=1, max_size=5), st.sampled_from([b"\n", b"\r\n"]))
def test_lines(texts, ending):
    expected = b"".join(reference(text) + b"\n" for text in texts)
    lines = ending.join(texts)
    assert compact_lines(lines) == expected
    assert compact_lines(lines + ending) == expected


@pytest.mark.parametrize("text", [b'{"a":1}', b'["a b","c,d"]', b'{"":"x y z"}', b"7"])
def test_a_compact_text_is_known_without_being_formatted(text):
    assert is_surely_compact(text)
    assert compact(text) is text


# -- files into JSON Lines, against the reference and the json module --

BOM = b"\xef\xbb\xbf"
OBJECTS = st.builds(
    spaced, _objects(VALUES), st.lists(SPACES, min_size=1, max_size=5) | st.just([""])
)
BLANK = st.sampled_from([b"", b"", b"", b" ", b"\r"])


def _write(folder: Path, at: int, records: list[bytes], form: str, blank: bytes) -> bytes:
    """Write a file of records; return the lines that they must become."""
    if form == "array":
        Path(folder, f"{at}.json").write_bytes(b"[%b]%b" % (b",".join(records), blank))
    else:
        lines = [as_line(record) for record in records]
        between = (b"\r\n" if form == "crlf" else b"\n") + (blank + b"\n" if blank else b"")
        mark = BOM if form == "bom" and records else b""
        Path(folder, f"{at}.jsonl").write_bytes(mark + between.join(lines))
    return b"".join(reference(record) + b"\n" for record in records)


async def _run(folder: str, out: Path, sizes: Sizes, added=()) -> Run:
    work = RecordWorkSettings(
        FileWorkSettings(sizes=sizes), target=Target.parse(str(out)), added=added
    )
    return await _run_work(folder, work)


async def _run_work(folder: str, work: RecordWorkSettings) -> Run:
    run = Run(Job((FileSource(Inputs((folder,)), work),), workers=0))
    async for _ in run.parts():
        pass
    return run


FORMS = st.sampled_from(["array", "lines", "crlf", "bom"])
SIZES = st.sampled_from([Sizes(), Sizes(part=1), Sizes(split_threshold=60, split=30)])


@given(
    st.lists(
        st.tuples(st.lists(TEXTS, min_size=1, max_size=6), FORMS, BLANK), min_size=1, max_size=4
    ),
    SIZES,
)
def test_files_into_lines(files, sizes):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        expected = [
            _write(Path(folder), at, records, form, blank)
            for at, (records, form, blank) in enumerate(files)
        ]
        out = Path(other, "out.jsonl")
        run = asyncio.run(_run(folder, out, sizes))
        assert out.read_bytes() == b"".join(expected)
        records = sum(len(records) for records, _, _ in files)
        assert (run.report.tally.read, run.report.tally.written) == (records, records)
        assert run.report.tally.rejected == 0


def test_elements_below_a_pointer_with_line_ends_in_them(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out.jsonl"
    folder.mkdir()
    (folder / "a.json").write_bytes(b'{"a":[{"x":\n1},{"y":2}],"b":1}')
    (folder / "b.json").write_bytes(b'{"a":[{"x":3},{"y":"4, "}]\n}')
    work = RecordWorkSettings(FileWorkSettings(), records="/a", target=Target.parse(str(out)))
    asyncio.run(_run_work(str(folder), work))
    assert out.read_bytes() == b'{"x":1}\n{"y":2}\n{"x":3}\n{"y":"4, "}\n'


CLASHES = st.sampled_from([
    b'{"_file": 1}', b'{"x":{},"_line":null}', rb'{"\u005ffile":1}', rb'{"_lin\u0065":"a"}', b"7",
    b"[]", b'"_file"', b"null", b'[{"_file":1}]',
])  # fmt: skip
FREE = st.sampled_from([
    b'{"a":"_file","b":["_line"],"c":{"_file":1,"_record":2}}', rb'{"_file ":1,"\u005f":2}', b"{}",
    rb'{"a":"\"_file\":1"}', b'{"_File":1}', b"{ }", b'{"a":"100% d %d"}',
])  # fmt: skip


@given(
    st.lists(
        st.tuples(st.lists(OBJECTS | CLASHES | FREE, min_size=1, max_size=6), FORMS, BLANK),
        min_size=1,
        max_size=3,
    ),
    SIZES,
)
def test_files_into_lines_with_their_origin(files, sizes):
    with (
        tempfile.TemporaryDirectory(prefix="100%d %% ") as folder,
        tempfile.TemporaryDirectory() as other,
    ):
        for at, (records, form, blank) in enumerate(files):
            _write(Path(folder), at, records, form, blank)
        out = Path(other, "out.jsonl")
        added = added_columns(("file", "record", "line"), with_source=False)
        run = asyncio.run(_run(folder, out, sizes, added))
        expected, rejected = b"", 0
        for at, (records, form, blank) in enumerate(files):
            name = Path(folder, f"{at}.{'json' if form == 'array' else 'jsonl'}")
            line = 1
            for number, record in enumerate(records, 1):
                # The record begins behind the white space before it.
                begins = line + _ends(record[: len(record) - len(record.lstrip())], form)
                value = json.loads(record)
                if type(value) is not dict or value.keys() & {"_file", "_record", "_line"}:
                    rejected += 1
                else:
                    cells = f'"_file":"{name}","_record":{number},"_line":{begins}}}\n'
                    comma = b"," if value else b""
                    expected += reference(record)[:-1] + comma + cells.encode()
                line += _ends(record, form) if form == "array" else 1 + bool(blank)
        tally = run.report.tally
        failed = [one for one in run.report.failures if one.record is None]
        assert not failed
        assert out.read_bytes() == expected
        assert (tally.rejected, tally.read) == (rejected, sum(len(one) for one, _, _ in files))


def _ends(text: bytes, form: str) -> int:
    return text.count(b"\n") if form == "array" else 0
