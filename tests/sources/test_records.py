"""Records and their positions: elements, lines, documents, arrays in documents."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.commands import run_command
from tests.conftest import many
from tests.reports import balanced, rows

NO_TEXT = '{"not": {"type": "string"}}'
"""A schema that rejects every string and nothing else."""


def rejected(outcome):
    """Return the position of each failure: file, record, line, column, byte."""
    return [
        (f["file"], f["record"], f["line"], f["column"], f["byte"])
        for f in outcome.json["failures"]
    ]


def test_elements_lines_and_documents_are_records(run, files):
    files(
        {"a.json": "[1, [2], {}]", "b.jsonl": "[3]\n\n4\n", "c.json": '{"x": [5]}', "d.json": "6"}
    )
    outcome = run("a.json", "b.jsonl", "c.json", "d.json", "--to", "-")
    assert rows(outcome.stdout) == [1, [2], {}, [3], 4, {"x": [5]}, 6]
    assert "7 read: 7 passed" in outcome.stderr
    assert "written  7 to -" in outcome.stderr


def test_places_in_arrays_lines_and_compressed_files(run, files):
    array = '[1,\n  "é", "b" , [],\n"c"]'.encode()
    lines = b'1\n\n "a"\r\n{}\n"b"'
    files({
        "s.json": NO_TEXT,
        "in/a.json": array, "in/a.json.gz": gzip.compress(array),
        "in/l.jsonl": lines, "in/l.jsonl.bz2": bz2.compress(lines),
    })  # fmt: skip
    outcome = run("in", "--schema", "s.json", "-o", "json")
    in_array = [(2, 2, 3, 6), (3, 2, 8, 12), (5, 3, 1, 22)]
    in_lines = [(2, 3, 2, 4), (4, 5, 1, 12)]
    assert rejected(outcome) == [
        *(("in/a.json", *place) for place in in_array),
        *(("in/a.json.gz", *place) for place in in_array),
        *(("in/l.jsonl", *place) for place in in_lines),
        *(("in/l.jsonl.bz2", *place) for place in in_lines),
    ]
    assert {f["kind"] for f in outcome.json["failures"]} == {"schema"}
    assert balanced(outcome.json)["files"]["partial"] == 4


def test_a_byte_order_mark_counts_in_bytes_and_not_in_columns(run, files):
    mark = b"\xef\xbb\xbf"
    files({
        "s.json": NO_TEXT,
        "in/a.json": mark + b'["x"]', "in/d.json": mark + b'"x"', "in/l.jsonl": mark + b'"x"\n"y"',
        "in/p.json": mark + b'{"items": ["x"]}',
    })  # fmt: skip
    assert rejected(run("in", "--exclude", "p.json", "--schema", "s.json", "-o", "json")) == [
        ("in/a.json", 1, 1, 2, 4),
        ("in/d.json", 1, 1, 1, 3),
        ("in/l.jsonl", 1, 1, 1, 3),
        ("in/l.jsonl", 2, 2, 1, 7),
    ]
    nested = run("in/p.json", "--records", "/items", "--schema", "s.json", "-o", "json")
    assert rejected(nested) == [("in/p.json", 1, 1, 12, 14)]


def test_records_within_documents(run, files):
    files({
        "in/a.json": '{"items": [1, {"b": 2}], "more": [9]}', "in/b.json": '{"items": []}',
        "in/c.json.gz": gzip.compress(b'{"n": 2, "items": ["c"]}'),
        "in/d.jsonl": '{"items": [3]}\n\n{"items": [4, 5]}\n',
        "in/e.json": '{"items": [0], "items": [6]}',
    })  # fmt: skip
    outcome = run("in", "--records", "/items", "--to", "-", "--report", "r.json")
    assert rows(outcome.stdout) == [1, {"b": 2}, "c", 3, 4, 5, 6]
    assert outcome.code == 0


@pytest.mark.parametrize(
    ("pointer", "text"),
    [
        ("/a~1b/~0/1/", '{"a/b": {"~": [0, {"": ["x"]}]}}'),
        ("/é", '{"\\u00e9": ["x"]}'),
        ("/0", '[["x"], ["y"]]'),
        ("", '["x"]'),
        ("/" * 400, '{"": ' * 400 + '["x"]' + "}" * 400),
    ],
)
def test_pointers(run, files, pointer, text):
    files({"a.json": text})
    assert rows(run("a.json", "--records", pointer, "--to", "-").stdout) == ["x"]


def test_a_document_without_the_array_is_rejected(run, files):
    texts = ['{"other": 1}', '{"items": {"a": 1}}', '{"items": null}', "[[1]]", '"items"', "3"]
    files({
        **{f"in/{number}.json": text for number, text in enumerate(texts)},
        "in/l.jsonl": '{"items": [1]}\n{}\nx\n{"items": [2]}',
    })  # fmt: skip
    outcome = run("in", "--records", "/items", "--to", "o.jsonl", "-o", "json")
    report = balanced(outcome.json)
    assert [f["kind"] for f in report["failures"]] == ["missing_field"] * 7 + ["invalid_json"]
    assert all("'/items'" in f["message"] for f in report["failures"][:-1])
    assert (report["failures"][6]["record"], report["failures"][6]["line"]) == (2, 2)
    assert (report["failures"][7]["record"], report["failures"][7]["line"]) == (3, 3)
    assert (report["files"]["failed"], report["files"]["partial"]) == (6, 1)
    assert report["records"]["written"] == 2
    assert report["status"] == "partial"


def test_numbers_of_nested_records_go_on_through_the_lines(run, files):
    files({"s.json": NO_TEXT, "a.jsonl": '{"i": [1, "a"]}\n{"i": []}\n{"i": [[],\t"b"]}\n'})
    outcome = run("a.jsonl", "--records", "/i", "--schema", "s.json", "-o", "json")
    assert rejected(outcome) == [("a.jsonl", 2, 1, 11, 10), ("a.jsonl", 4, 3, 12, 37)]
    assert outcome.json["records"]["read"] == 4


def test_unit_file_takes_documents_whole(run, files):
    files({"a.json": "[1, 2]", "b.jsonl": "[1]\n[2]\n", "c.json": "{}"})
    outcome = run("a.json", "b.jsonl", "c.json", "--unit", "file", "--to", "-")
    assert rows(outcome.stdout) == [[1, 2], [1], [2], {}]
    assert json.loads(run("a.json", "--unit", "file", "-o", "json").stdout)["records"]["read"] == 1


@pytest.mark.parametrize("form", ["array", "pointer", "lines"])
def test_large_files_keep_numbers_and_places(run, files, form):
    """Texts over 4 MiB are read in slices, and lines in chunks of 1 MiB."""
    pad, count, bad = "x" * 80, 60_000, (1, 999, 1000, 1001, 31_007, 60_000)
    items = [
        json.dumps("é" if n in bad else [n, pad], ensure_ascii=False) for n in range(1, 60_001)
    ]
    start, end = {"array": ("[", "]"), "pointer": ('{"items":[', "]}"), "lines": ("", "")}[form]
    text = start + ("\n" if form == "lines" else ",\n").join(items) + end
    files({"s.json": NO_TEXT, "a.jsonl" if form == "lines" else "a.json": text})
    pointer = ("--records", "/items") if form == "pointer" else ()
    outcome = run("a.jsonl" if form == "lines" else "a.json", *pointer, "--schema", "s.json",
                  "-o", "json", "--to", "o.jsonl")  # fmt: skip
    expected = []
    for number in bad:
        column = len(start) + 1 if number == 1 else 1
        between = 1 if form == "lines" else 2
        before = len(start) + sum(len(item.encode()) + between for item in items[: number - 1])
        expected.append((number, number, column, before))
    assert [place[1:] for place in rejected(outcome)] == expected
    report = balanced(outcome.json)
    assert report["records"]["written"] == count - len(bad)
    assert report["peak_memory_bytes"] < 300_000_000


Pieces = list[tuple[str, str, str]]
"""Items as JSON, each with white space before and after it."""

SPACES = st.text(" \n\t\r", max_size=3)
ITEMS: st.SearchStrategy[object] = st.one_of(
    st.integers(), st.sampled_from(["é😀", [], "x", {"k": 'a"]'}])
)


@settings(max_examples=4)
@given(st.lists(st.tuples(SPACES, ITEMS, SPACES), min_size=20, max_size=40))
def test_every_place_is_where_the_record_begins(parts):
    """An array, an array in a document, lines and compressed files give the same records."""
    items = [(before, json.dumps(item, ensure_ascii=False), after) for before, item, after in parts]
    blank = str.maketrans("\n\r", "  ")
    lines = [(a.translate(blank), value, b.translate(blank)) for a, value, b in items]
    texts: dict[str, tuple[str, str, str, Pieces]] = {
        "a.json": ("[", ",", "]", items), "b.json": ('{"": 0,\n"é":[', ",", "]}", items),
        "c.jsonl": ("", "\n", "\n", lines),
    }  # fmt: skip
    expected = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "schema").write_text(NO_TEXT)
        for name, (start, between, end, splits) in texts.items():
            text, places = start, []
            for number, (before, value, after) in enumerate(splits, 1):
                at = text + (between if number > 1 else "") + before
                if value.startswith('"'):
                    line, column = at.count("\n") + 1, len(at) - at.rfind("\n")
                    places.append((number, line, column, len(at.encode())))
                text = at + value + after
            data = (text + end).encode()
            Path(folder, name).write_bytes(data)
            Path(folder, f"{name}.gz").write_bytes(gzip.compress(data))
            for file in (name, f"{name}.gz"):
                expected += [(file, *place) for place in places]
        found = []
        for pointer, names in (((), ("a.json", "c.jsonl")), (("--records", "/é"), ("b.json",))):
            inputs = [file for name in names for file in (name, f"{name}.gz")]
            finished = run_command(
                "run", *inputs, *pointer, "--schema", "schema", "-o", "json", cwd=folder
            )
            report = balanced(json.loads(finished.stdout))
            found += [
                (f["file"], f["record"], f["line"], f["column"], f["byte"])
                for f in report["failures"]
            ]
    assert sorted(found) == sorted(expected)


def test_wrong_places_for_records_are_usage_errors(run):
    for options in (("--records", "items"), ("--records", "/a~2"), ("--unit", "line")):
        assert run("nosuch.json", *options).code == 2
    outcome = run("nosuch.json", "--records", "/items", "--unit", "file")
    assert outcome.code == 2
    assert "choose one" in outcome.stderr


def test_records_of_standard_input(run, files):
    files({"s.json": NO_TEXT})
    both = ("-", "--schema", "s.json", "-o", "json")
    assert rejected(run(*both, stdin=b'1\n "x"\n')) == [("-", 2, 2, 2, 3)]
    outcome = run(*both, "--records", "/i", stdin=b'{"i":\n[1, "x"]}')
    assert rejected(outcome) == [("-", 2, 2, 5, 10)]


def test_many_lines_that_are_all_rejected(run, files):
    """The position of a record is found without another read of the lines before it."""
    files({"s.json": NO_TEXT, "a.jsonl": '"x"\n' * 40_000})
    report = balanced(run("a.jsonl", "--schema", "s.json", "-o", "json").json)
    assert report["records"]["rejected"] == report["failures_omitted"] + 1000 == 40_000
    assert (report["failures"][999]["line"], report["failures"][999]["byte"]) == (1000, 3996)


def test_many_small_files_on_two_workers(run, files):
    texts = {f"in/{name}": text for name, text in many(600).items()}
    texts |= {f"in/{number:05}.jsonl": '"x"\n1\n"y"' for number in range(0, 600, 50)}
    files({"s.json": NO_TEXT, **texts})
    outcome = run("in", "--schema", "s.json", "-o", "json", "-w", "2", "-b", "7")
    expected = [
        (f"in/{number:05}.jsonl", record) for number in range(0, 600, 50) for record in (1, 3)
    ]
    assert [place[:2] for place in rejected(outcome)] == expected
    assert balanced(outcome.json)["records"]["passed"] == 612


def test_events_of_records(run, files):
    numbers = list(range(40))
    random.Random(7).shuffle(numbers)
    files(
        {"s.json": '{"minimum": 20}', "in/a.jsonl": "\n".join(map(str, numbers)), "in/b.json": "[]"}
    )
    events = run("in", "--schema", "s.json", "-o", "jsonl").events
    assert [event["event"] for event in events] == ["failure"] * 20 + ["file", "file"]
    assert [event["record"] for event in events[:20]] == [
        record for record, number in enumerate(numbers, 1) if number < 20
    ]
    assert (events[-2]["status"], events[-2]["records"], events[-2]["rejected"]) == (
        "partial", 40, 20,
    )  # fmt: skip
    assert (events[-1]["status"], events[-1]["records"]) == ("success", 0)
