"""Concatenated values and JSON text sequences, value by value; files of another format."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.core.records import Position
from asyncbatch.formats.failures import InvalidTextError
from asyncbatch.formats.lines import InvalidLine
from asyncbatch.formats.positions import BOM
from asyncbatch.formats.sequences import read_concatenated, read_sequence
from asyncbatch.formats.validator import make_validator

VALIDATOR = make_validator()
LIMIT = 1 << 20
SPACE = ["", " ", "\n", "\r", "\r\n", "\t \n\n"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(['}{"a":1}', "} {", '{"', '\\"}', "]\u2028[", "}x", "} 1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def pieces(data, text):
    """Return a text in pieces, cut at some places."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def collect(blocks):
    """Return the values, each with its place, and the faults."""
    found, faults = [], []
    for block in blocks:
        for part in block.split():
            if isinstance(part, InvalidLine):
                faults.append(part)
                continue
            for offset, text in zip(part.offsets, part.texts, strict=True):
                found.append((part.locator.locate(offset), text))
    return found, faults


@settings(deadline=None, max_examples=150)
@given(data=st.data(), values=st.lists(VALUES, max_size=8))
def test_concatenated_values_are_found_however_they_are_read(data, values):
    text, places = "", []
    for value in values:
        space = data.draw(st.sampled_from(SPACE))
        encoded = json.dumps(
            value, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=False
        )
        needs_space = encoded[0] not in '[{"' and text[-1:] not in ("", " ", "\n", "\r", "\t")
        if needs_space and text[-1:] not in ']}"':
            space = space or " "
        text += space
        places.append(len(text.encode("utf-8", "surrogatepass")))
        text += encoded
    raw = text.encode("utf-8", "surrogatepass")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    found, faults = collect(read_concatenated(pieces(data, raw), VALIDATOR, LIMIT))
    assert not faults
    assert [json.loads(text) for _, text in found] == values
    assert [place.byte for place, _ in found] == places
    for place, _ in found:
        before = raw[: place.byte].decode()
        assert place.line == before.count("\n") + 1
        assert place.column == len(before) - before.rfind("\n")


@settings(deadline=None, max_examples=100)
@given(data=st.data(), values=st.lists(VALUES, max_size=8))
def test_sequences_are_found_however_they_are_read(data, values):
    raw = b"".join(b"\x1e" + json.dumps(value).encode() + b"\n" for value in values)
    found, faults = collect(read_sequence(pieces(data, raw), VALIDATOR, LIMIT))
    assert not faults
    assert [json.loads(text) for _, text in found] == values
    assert all(raw[place.byte :].startswith(text) for place, text in found)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), text=st.text(alphabet='{}[]",:1a \n\\', max_size=30))
def test_any_text_ends_and_nothing_of_it_is_passed_over(data, text):
    """Every byte that is not blank is in a value, in a fault, or after the place of the error."""
    raw = text.encode()
    seen = []
    end = len(raw)
    try:
        for block in read_concatenated(pieces(data, raw), VALIDATOR, LIMIT):
            base = block.start.byte
            for offset, value in zip(block.offsets, block.texts, strict=True):
                assert raw[base + offset :].startswith(value)
                seen.append((base + offset, base + offset + len(value)))
    except InvalidTextError:
        end = seen[-1][1] if seen else 0
    left = bytearray(raw[:end])
    for start, stop in seen:
        left[start:stop] = b" " * (stop - start)
    assert not left.strip()


def test_a_position_in_the_middle_resumes():
    raw = b'{"a":1}{"a":2}\n[3]'
    blocks = list(read_concatenated([raw[:9], raw[9:]], VALIDATOR, LIMIT))
    assert [block.end for block in blocks] == [Position(7, 1, 0, 7), Position(18, 3, 1, 3)]
    first = blocks[0].end
    found, _ = collect(read_concatenated([raw[first.byte :]], VALIDATOR, LIMIT, first))
    assert [(tuple(place), text) for place, text in found] == [
        ((1, 8, 7), b'{"a":2}'), ((2, 1, 15), b"[3]"),
    ]  # fmt: skip


CONCATENATED = {
    "firehose.json": '{"a":1}{"a":2}{"a":3}',
    "pretty.json": '{\n  "a": 1\n}\n{\n  "a": 2\n}\n{"a":3}',
    "mac.jsonl": '{"a":1}\r{"a":2}\r{"a":3}\r',
    "lines.jsonl": '{"a":1}\n{"a":2}\n\n{"a":3}\n',
    "mark.json": '\ufeff{"a":1} {"a":2}\n{"a":3}',
    "strings.json": '{"a":1,"b":"}{"}{"a":2,"b":"} \\" } x } {"}{"a":3}',
}


@pytest.mark.parametrize("options", [(), ("--jq", "."), ("-w", "1", "--schema", "s")])
def test_concatenated_files(run, files, options):
    folder = files({**CONCATENATED, "s": '{"type": "object"}'})
    packed = {f"{name}.gz": gzip.compress(text.encode()) for name, text in CONCATENATED.items()}
    files(packed)
    names = [*CONCATENATED, *packed]
    outcome = run(
        *names, *options, "--format", "concat", "--to", "out.jsonl", "--resume", "-o", "jsonl"
    )
    events = [event for event in outcome.events if event["event"] == "file"]
    assert [(event["file"], event["status"], event["records"]) for event in events] == [
        (name, "success", 3) for name in names
    ]
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["a"] for row in rows] == [1, 2, 3] * len(names)
    expected = [json.loads(text)["b"] for text in ('{"b":"}{"}', '{"b":"} \\" } x } {"}')]
    assert [row["b"] for row in rows if "b" in row] == expected * 2


def test_values_of_many_lines(run, files):
    values = [
        {"n": n, "deep": {"list": [n, [str(n)]], "é": None}, "s": "}{" * n} for n in range(50)
    ]
    text = "".join(json.dumps(value, indent=n % 3 or None) for n, value in enumerate(values))
    folder = files({"a.json": text})
    run("a.json", "--format", "concat", "--jq", ".", "--to", "out.jsonl")
    found = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert found == values


def test_a_bad_value_is_rejected_and_the_others_are_read(run, files):
    folder = files({"a.json": '{"a":1}{"a":NaN}\n{"a":"\\ud800"}{"a":4}'})
    outcome = run("a.json", "--format", "concat", "--to", "out.jsonl", "--dead-letter", "bad.jsonl",
                  "-o", "json")  # fmt: skip
    places = [
        (one["record"], one["line"], one["column"], one["byte"]) for one in outcome.json["failures"]
    ]
    assert places == [(2, 1, 13, 12), (3, 2, 7, 23)]
    assert (folder / "out.jsonl").read_text() == '{"a":1}\n{"a":4}\n'
    assert outcome.json["records"]["rejected"] == 2


@pytest.mark.parametrize("value", [b'{"a":2}', b"2", b'"2"'])
@pytest.mark.parametrize("form", ["concat", "seq"])
def test_a_byte_order_mark_inside_the_file_is_told(run, files, form, value):
    start = b"\x1e" if form == "seq" else b""
    files({"f": BOM + start + b'{"a":1}\n' + start + BOM + value + b"\n"})
    for options in ((), ("--jq", ".")):
        report = run("f", "--input-format", form, *options, "-o", "json").json
        [failure] = report["failures"]
        assert failure["message"] == "a byte order mark inside the file"
        assert (failure["kind"], failure["record"], failure["line"]) == ("invalid_json", 2, 2)
        assert report["records"]["passed"] >= 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a":1}{"a":', (1, 13, 12)),
        ('{"a":1}\n,{"a":2}', (2, 1, 8)),
        ('{"a":1}"x', (1, 10, 9)),
        ('{"a":1}]', (1, 8, 7)),
    ],
)
def test_without_an_end_the_rest_of_the_file_fails(run, files, text, place):
    files({"a.json": text})
    for options in ((), ("--jq", ".")):
        [failure] = run("a.json", "--format", "concat", "-o", "json", *options).json["failures"]
        assert (failure["line"], failure["column"], failure["byte"]) == place
        assert (failure["kind"], failure["record"]) == ("invalid_json", None)


def test_records_within_concatenated_documents(run, files):
    folder = files({"a.json": '{"r":[1,2]}{"r":[3]}\n{"x":0}{"r":[4]}'})
    outcome = run(
        "a.json", "--format", "concat", "--records", "/r", "--to", "o.jsonl", "-o", "json"
    )
    assert (folder / "o.jsonl").read_text().split() == ["1", "2", "3", "4"]
    [failure] = outcome.json["failures"]
    assert (failure["kind"], failure["line"], failure["column"]) == ("missing_field", 2, 1)


def test_sequences_of_rfc_7464(run, files):
    text = '\x1e{"a":1}\n\x1e\x1e{"a":\n\x1e{"a":3}\n\x1etrue\n\x1e12\x1e"x"'
    folder = files({"a.json-seq": text})
    outcome = run("a.json-seq", "--format", "seq", "--to", "out.jsonl", "-o", "json")
    lines = (folder / "out.jsonl").read_text().splitlines()
    assert lines == ['{"a":1}', '{"a":3}', "true", '"x"']
    failures = [(one["record"], one["line"], one["byte"]) for one in outcome.json["failures"]]
    assert failures == [(2, 2, 16), (5, 5, 35)]
    assert run("a.json-seq", "--format", "seq", "-o", "json").json["records"]["read"] == 6


def test_a_large_sequence_takes_little_memory_and_says_its_positions(run, files):
    value = {"n": 0, "text": '}{ \\ " ' * 40}
    text = "".join(json.dumps({**value, "n": n}) for n in range(130_000))
    assert len(text) > 40_000_000
    folder = files({"a.json": text})
    report = run("a.json", "--format", "concat", "--jq", ".n", "--to", "out.jsonl", "-w", "1",
                 "-o", "json").json  # fmt: skip
    assert (folder / "out.jsonl").read_text().split() == [str(n) for n in range(130_000)]
    assert report["peak_memory_bytes"] < 260_000_000


def test_a_value_beyond_the_limit_is_too_large(run, files):
    files({"a.json": '{"a":1}{"a":"' + "x" * 20_000_000 + '"}'})
    [failure] = run("a.json", "--format", "concat", "--max-memory", "200M", "-o", "json").json[
        "failures"
    ]
    assert failure["kind"] == "too_large"


def test_formats_in_a_pipeline_file(etl, files):
    folder = files(
        {
            "in/a.json": '{"a":1}{"a":2}',
            "p.toml": 'name = "p"\n[[source]]\ntype = "files"\npaths = ["in"]\n'
            'format = "concat"\n[sink]\nto = "out.jsonl"\n',
        }
    )
    done = etl("p.toml")
    assert done.returncode == 0, done.stderr
    assert (folder / "out.jsonl").read_text() == '{"a":1}\n{"a":2}\n'


LINES = '{"a":1}\n{"a":2}\n{"a":3}\n'
OTHER = {
    "array.jsonl": ('[{"a":1},\n{"a":2},\n{"a":3}]\n', "--input-format json"),
    "bare.jsonl": ('[\n{"a":1},\n{"a":2}\n]\n', "--input-format json"),
    "cut.jsonl": ('[\n{"a":1},\n{"a":2', "--input-format json"),
    "object.jsonl": ('{\n"a":1\n}\n', "--input-format json"),
    "long.jsonl": ("[" + ",\n".join(['{"a":1}'] * 20_000) + "]", "--input-format json"),
    "pretty.jsonl": ('{\n"a":1\n}\n{\n"a":2\n}\n', "--input-format concat"),
    "seq.jsonl": ('\x1e{"a":1}\n\x1e{"a":2}\n', "--input-format seq"),
    "seq.json": ('\x1e{"a":1}\n', "--input-format seq"),
    "two.json": ('{"a":1}{"a":2}', "--input-format concat"),
    "spread.json": ('{\n"a":1\n}\n{"a":2}', "--input-format concat"),
    "lines.json": ('{"a":1}\n{"a":2}', "--input-format jsonl"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("options", [(), ("--jq", ".")], ids=["count", "jq"])
def test_a_file_of_another_format_is_one_failure_with_the_option(run, files, options, packed):
    contents = {}
    for name, (text, _) in OTHER.items():
        contents[f"d/{name}.gz" if packed else f"d/{name}"] = (
            gzip.compress(text.encode()) if packed else text
        )
    files(contents)
    outcome = run("d", *options, "-o", "json").json
    found = {one["file"]: one for one in outcome["failures"]}
    assert len(found) == len(outcome["failures"]) == len(OTHER)
    for name in contents:
        told = OTHER[name.removeprefix("d/").removesuffix(".gz")][1]
        assert f"{told})" in found[name]["message"]
        assert (found[name]["kind"], found[name]["record"]) == ("invalid_json", None)
    assert outcome["records"]["read"] == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"a":\n{"a":2}\n',
        '[1,\n{"a":2}\n{"a":3}\n',
        '{"a":1\n{"a":2}\n{"a":3}\n',
        "[1,2\n[3]\n" * 2,
        '{"a":\n{"b":"' + "x" * 200_000 + '"}\n{"a":3}\n',
    ],
)
def test_a_bad_first_line_is_only_a_bad_line(run, files, text):
    files({"a.jsonl": text, "b.jsonl.gz": gzip.compress(text.encode())})
    outcome = run(".", "-o", "json").json
    assert {one["record"] for one in outcome["failures"]} >= {1}
    assert outcome["files"]["partial"] == 2


@pytest.mark.parametrize("form", ["jsonl", "json", "jsonl.gz", "json.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf_16_is_told_once_a_file(run, files, form, encoding):
    raw = (LINES if form.startswith("jsonl") else '{"a": "é\n"}').encode(encoding)
    files({f"a.{form}": gzip.compress(raw) if form.endswith("gz") else raw})
    for options in ((), ("--jq", ".")):
        outcome = run(".", "-o", "json", *options).json
        [failure] = outcome["failures"]
        assert (failure["kind"], failure["byte"], failure["record"]) == ("encoding", 0, None)
        assert failure["message"].startswith(f"looks like {encoding[:6].upper()}")
        assert outcome["records"]["read"] == 0


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_archives_are_named(run, files, suffix):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.json", "{}")
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.json"), io.BytesIO())
    files(
        {
            f"a.{suffix}": packed.getvalue(),
            f"b.{suffix}": tarred.getvalue(),
            f"c.{suffix}.gz": gzip.compress(tarred.getvalue()),
        }
    )
    failures = run(".", "-o", "json").json["failures"]
    words = [" ".join(one["message"].split()[:4]) for one in failures]
    assert words == ["is a zip archive,", "is a tar archive,", "is a tar archive,"]


def test_a_word_of_an_archive_in_json_is_just_a_word(run, files):
    text = '{"a":"' + "x" * 251 + 'ustar"}'
    assert text.index("ustar") == 257
    files({"a.json": text, "b.jsonl": text, "c.jsonl.gz": gzip.compress(text.encode())})
    assert run(".").code == 0


@pytest.mark.parametrize("form", ["concat", "seq"])
def test_other_files_in_the_new_formats_are_one_failure(run, files, form):
    files({"a.json": LINES.encode("utf-16-le"), "b.json.gz": gzip.compress(LINES.encode("utf-16"))})
    failures = run(".", "--format", form, "-o", "json").json["failures"]
    assert [(one["kind"], one["record"]) for one in failures] == [("encoding", None)] * 2


def test_standard_input_in_the_new_formats(run):
    outcome = run("-", "--format", "concat", "--to", "-", stdin=b'{"a":1}{"a":2}')
    assert outcome.stdout == '{"a":1}\n{"a":2}\n'
    packed = gzip.compress(b'\x1e{"a":1}\n\x1e{"a":2}\n')
    outcome = run("-", "--format", "seq", "--to", "-", stdin=packed)
    assert outcome.stdout == '{"a":1}\n{"a":2}\n'


def test_a_large_file_of_another_format_is_one_failure(run, files):
    line = '{"a":"' + "x" * 1000 + '"}'
    files(
        {
            "a.jsonl": "[" + ",\n".join([line] * 36_000) + "]",
            "b.jsonl": (line + "\n").encode("utf-16-le") * 18_000,
        }
    )
    for options in ((), ("--jq", ".", "-w", "1")):
        failures = run(".", "-o", "json", *options).json["failures"]
        assert [(one["file"], one["kind"]) for one in failures] == [
            ("./a.jsonl", "invalid_json"), ("./b.jsonl", "encoding"),
        ]  # fmt: skip
