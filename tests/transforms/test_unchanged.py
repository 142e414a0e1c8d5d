"""Records that no transform has changed: written as they stood, but for white space."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.transforms.json_values import is_surely_changed, is_unchanged

# Texts of which Python values would keep the value, but not the spelling.
TEXTS = (
    '{"id":1,"a":1.10,"e":1e2,"d":1,"d":2}',
    '{"id":2,"f":12345678.123456789012345678,"u":"\\u00e9\\/","z":-0.0}',
    '{"id":3,"list":[1.0,{"b":1.50,"a":[]},null,true],"E":1E+5}',
    '{"id":4,"n":0.1000000000000000055511151231257827}',
)
DEEP = '{"id":5,"deep":' + "[" * 1000 + "1.0" + "]" * 1000 + "}"


@pytest.fixture
def folder(files):
    spaced = ",\n  ".join(text.replace(":", " : ", 1) for text in TEXTS)
    return files(
        {
            "in/lines.jsonl": "\n".join(TEXTS).replace(",", " ,"),
            "in/array.json": f"[ {spaced} ]",
            "in/one.json": TEXTS[0].replace(",", ",\n"),
            "in/deep.jsonl": DEEP,
            "any.json": '{"type": "object", "required": ["id"]}',
        }
    )


CHECKS = [
    (),
    ("--schema", "any.json"),
    ("--jq", "select(.id)"),
    ("--jq", "."),
    ("--jq", "if .id > 0 then . else empty end", "--schema", "any.json"),
    ("--jq", "select(.id)", "--jq", "select(.id > 0)"),
    ("--jq", "select(.id)", "--jq-lossy"),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("check", CHECKS, ids=" ".join)
class TestAsTheyStood:
    def test_in_a_file(self, run, folder, check):
        outcome = run("in", *check, "--to", "o.jsonl")
        assert outcome.code == 0
        expected = [*TEXTS, DEEP, *TEXTS, TEXTS[0]]  # array.json, deep.jsonl, lines.jsonl, one.json
        assert (folder / "o.jsonl").read_text().splitlines() == expected

    def test_without_duplicates(self, run, check):
        outcome = run("in", *check, "--dedupe", "id", "--to", "-")
        assert outcome.stdout.splitlines() == [*TEXTS, DEEP]

    def test_in_a_folder(self, run, folder, check):
        outcome = run("in", *check, "--to", "out/")
        assert outcome.code == 0
        assert (folder / "out/in/lines.jsonl").read_text().splitlines() == [*TEXTS]
        assert (folder / "out/in/one.json").read_text() == f"{TEXTS[0]}\n"
        array = ",\n".join(TEXTS)
        assert (folder / "out/in/array.json").read_text() == f"[\n{array}\n]\n"

    def test_in_workers_and_splits(self, run, files, check):
        many = [f'{{"id":{number},"a":{number}.10,"a":1e2}}' for number in range(1, 5000)]
        files({"m.jsonl": "\n".join(many), "any.json": "{}"})
        outcome = run("m.jsonl", *check, "--workers", "2", "--to", "-")
        assert outcome.stdout.splitlines() == many


@pytest.mark.parametrize(
    ("program", "record", "expected"),
    [
        (".a = 1", '{"a":1.0,"b":true}', '{"a":1.0,"b":true}'),
        (".b = 1", '{"a":1.10,"b":true}', '{"a":1.1,"b":1}'),
        ("{b, a}", '{"a":1.10,"b":2}', '{"b":2,"a":1.1}'),
        (".a += 0.1", '{"a":1.50}', '{"a":1.6}'),
        ("., .a", '{"a":1.10}', '{"a":1.10}\n1.1'),
        (".o |= {y, x}", '{"o":{"x":1.10,"y":2}}', '{"o":{"y":2,"x":1.1}}'),
        (".[1] = false", "[1.10,0]", "[1.1,false]"),
    ],
)
def test_only_a_changed_record_is_written_anew(run, files, program, record, expected):
    files({"a.jsonl": record})
    assert run("a.jsonl", "--jq", program, "--to", "-").stdout == f"{expected}\n"


def test_a_function_may_have_changed_its_record(run, files):
    files({"f.py": "def f(r):\n    r['b'] = 2\n    return r\n", "a.jsonl": '{"b":1.10}'})
    assert run("a.jsonl", "--call", "f.py:f", "--to", "-").stdout == '{"b":2}\n'


def test_rejected_records_are_not_written(run, files):
    files({"s.json": '{"required": ["a"]}', "a.jsonl": '{"a":1.10}\n{"b":1.10}\n{"a":1e1}'})
    outcome = run("a.jsonl", "--schema", "s.json", "--to", "-")
    assert (outcome.code, outcome.stdout) == (1, '{"a":1.10}\n{"a":1e1}\n')


@pytest.mark.parametrize("check", ["require", "jq", "schema"])
def test_in_pipeline_files(files, etl, check):
    transform = {
        "require": 'type = "require"\nfields = ["a"]',
        "jq": 'type = "jq"\nexpr = "select(.a)"',
        "schema": 'type = "schema"\nfile = "s.json"',
    }[check]
    folder = files(
        {
            "a.jsonl": '{"a":1.10,"a":1e2}\n',
            "s.json": "{}",
            "p.toml": (
                'name = "n"\n[[source]]\ntype = "files"\npaths = ["a.jsonl"]\n'
                f'[[transform]]\n{transform}\n[sink]\nto = "o.jsonl"\n'
            ),
        }
    )
    outcome = etl("p.toml")
    assert outcome.returncode == 0, outcome.stderr
    assert (folder / "o.jsonl").read_text() == '{"a":1.10,"a":1e2}\n'


SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "a"])
FLAT = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from("ab"), SCALARS)
VALUES = FLAT | st.lists(FLAT, max_size=2) | st.dictionaries(st.sampled_from("ab"), FLAT)


@given(VALUES, VALUES)
def test_a_value_is_unchanged_if_its_text_is(one, other):
    def spelled(value):  # 1.0 as 1, as jq does
        text = json.dumps(value)
        return text.replace("1.0", "1")

    assert is_unchanged(one, json.loads(json.dumps(one)))
    assert is_unchanged(one, other) == (spelled(one) == spelled(other))


@given(VALUES, VALUES, st.booleans(), st.integers(0, 2))
def test_only_a_changed_value_is_surely_changed(one, other, twice, spaces):
    """Also if the record is large, and has a field twice."""
    text = " " * spaces + json.dumps(other, indent=spaces or None)
    if isinstance(other, dict) and other and twice:
        text = f'{{"{next(iter(other))}": {[1] * 1000}, {text.strip()[1:]}'
    if is_surely_changed(one, text.encode()):
        assert not is_unchanged(one, other)


def test_a_large_record_is_surely_changed_by_a_missing_field():
    record = json.dumps({"id": 1, "many": [1] * 1000}).encode()
    assert is_surely_changed({"id": 1}, record)
    assert is_surely_changed([1], record)
    assert not is_surely_changed({"id": 1, "many": 2}, record)
