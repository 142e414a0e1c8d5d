"""`asyncbatch validate`: whole documents against a JSON Schema."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET

import jsonschema_rs
import pytest

from tests.commands import run_command_text
from tests.conftest import Outcome

OBJECT = {"type": "object", "required": ["name"]}
DOCUMENTS = {
    "cfg/array.json": '[{"name": "a"}]',
    "cfg/empty.json": "[]",
    "cfg/good.json": '{"name": "c"}',
    "cfg/lines.jsonl": '{"name": "a"}\n{"nam": 1}\n[]\n',
    "cfg/number.json": "5",
}


@pytest.fixture
def validate(tmp_path):
    """Run `asyncbatch validate` in a folder of its own."""

    def _validate(*arguments, stdin=None, **env):
        done = run_command_text("validate", *arguments, cwd=tmp_path, stdin=stdin, env=env)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return _validate


def documents(texts):
    """Yield the name, record number and value of each document."""
    for name, text in texts.items():
        lines = text.splitlines() if name.endswith(".jsonl") else [text]
        for number, line in enumerate(lines, 1):
            yield name, number, json.loads(line)


@pytest.mark.parametrize(
    "schema",
    [
        OBJECT,
        {"type": "array"},
        {"type": "array", "items": OBJECT, "minItems": 1},
        {"type": ["object", "number"]},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "array"}}},
        {},
        False,
    ],
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_documents_are_judged_as_a_whole(files, validate, schema, workers):
    files({"s.json": json.dumps(schema), **DOCUMENTS})
    outcome = validate("cfg", "--schema", "s.json", "-o", "json", "--workers", workers)
    report = outcome.json
    validator = jsonschema_rs.validator_for(schema)
    wrong = [
        (name, number)
        for name, number, value in documents(DOCUMENTS)
        if not validator.is_valid(value)
    ]
    assert [(one["file"], one["record"]) for one in report["failures"]] == wrong
    assert report["command"] == "validate"
    assert report["records"]["read"] == 7
    assert report["exit_code"] == outcome.code == (1 if wrong else 0)


def test_outputs_are_those_of_run(files, validate, run):
    folder = files({"s.json": json.dumps(OBJECT), **DOCUMENTS})
    reports = ("--report", "r.xml", "--report", "r.md", "--report", "r.json")
    outcome = validate(
        "cfg", "--schema", "s.json", "-o", "github", *reports, "--dead-letter", "d.jsonl"
    )
    assert outcome.code == 1
    places = ("array.json,1", "empty.json,1", "lines.jsonl,2", "lines.jsonl,3", "number.json,1")
    for name, line in (place.split(",") for place in places):
        assert re.search(rf"::error file=cfg/{name},[^:]*line={line},col=1::", outcome.stdout)
    assert len(ET.parse(folder / "r.xml").findall(".//failure")) == 4
    assert json.loads((folder / "r.json").read_text())["records"]["rejected"] == 5
    letters = [json.loads(line) for line in (folder / "d.jsonl").read_text().splitlines()]
    assert [letter["data"] for letter in letters] == [[{"name": "a"}], [], {"nam": 1}, [], 5]
    assert validate("cfg", "--schema", "s.json", "-q").stdout == ""
    assert validate("cfg", "--schema", "s.json", "--max-failures", "8").code == 0


def test_formats_are_checked_unless_they_are_not(files, validate):
    files({"s.json": '{"items": {"format": "email"}}', "a.json": '["x"]', "b.json": "{"})
    (failure,) = validate("a.json", "--schema", "s.json", "-o", "json").json["failures"]
    assert (failure["kind"], failure["pointer"], failure["column"]) == ("schema", "/0", 2)
    assert validate("a.json", "--schema", "s.json", "--no-check-formats").code == 0
    (failure,) = validate("b.json", "--schema", "s.json", "-o", "json").json["failures"]
    assert failure["kind"] == "invalid_json"


def test_standard_input_and_lists(files, validate):
    files({"s.json": json.dumps(OBJECT), "list.txt": "cfg/good.json\n", **DOCUMENTS})
    assert validate("-", "--schema", "s.json", stdin='{"name": 1}').code == 0
    assert validate("-", "--schema", "s.json", stdin='{"name": 1}\n[]\n').code == 1
    assert validate("--files-from", "list.txt", "--schema", "s.json").code == 0


REMOTE = {
    "s.json": json.dumps(
        {
            "properties": {
                "a": {"$ref": "https://example.com/s/a.json#/$defs/n"},
                "b": {"$ref": "https://example.com/s/b?x=1"},
            }
        }
    ),
    "copies/a.json": '{"$defs": {"n": {"type": "integer"}}}',
    "b=1.json": '{"type": "null"}',
    "good.json": '{"a": 1, "b": null}',
    "bad.json": '{"a": "1", "b": 0}',
}
REFS = ("--ref", "https://example.com/s=copies", "--ref", "https://example.com/s/b?x=1=b=1.json")


class TestReferences:
    def test_are_read_from_copies(self, files, validate, run):
        files(REMOTE)
        outcome = validate("good.json", "bad.json", "--schema", "s.json", *REFS, "-o", "json")
        pointers = {one["pointer"] for one in outcome.json["failures"][0]["violations"]}
        assert pointers == {"/a", "/b"}
        assert outcome.json["files"]["succeeded"] == 1
        assert run("good.json", "--schema", "s.json", *REFS).code == 0
        assert run("bad.json", "--schema", "s.json", *REFS).code == 1

    def test_that_are_missing_are_told_at_once(self, files, validate):
        files(REMOTE)
        outcome = validate("good.json", "--schema", "s.json")
        assert outcome.code == 2
        for uri in ("https://example.com/s/a.json", "https://example.com/s/b?x=1"):
            assert f"refers to {uri}, which is not a local file" in outcome.stderr
        assert "--ref URI=FILE" in outcome.stderr

    @pytest.mark.parametrize(
        ("ref", "words"),
        [
            ("https://example.com/s", "write URI=FILE"),
            ("https://example.com/s=nope", "no file nope"),
        ],
    )
    def test_that_are_no_references(self, files, validate, ref, words):
        files(REMOTE)
        outcome = validate("good.json", "--schema", "s.json", "--ref", ref)
        assert outcome.code == 2
        assert words in outcome.stderr

    def test_in_pipeline_files(self, files, etl):
        folder = files(
            {
                **REMOTE,
                "p.toml": (
                    'name = "n"\n[[source]]\ntype = "files"\npaths = ["good.json", "bad.json"]\n'
                    '[[transform]]\ntype = "schema"\nfile = "s.json"\n[transform.refs]\n'
                    '"https://example.com/s" = "copies"\n'
                    '"https://example.com/s/b?x=1" = "b=1.json"\n[sink]\nto = "o.jsonl"\n'
                ),
            }
        )
        outcome = etl("p.toml")
        assert outcome.returncode == 1, outcome.stderr
        assert (folder / "o.jsonl").read_text() == '{"a":1,"b":null}\n'


def test_options_come_from_the_environment(files, validate):
    files({"s.json": json.dumps(OBJECT), **DOCUMENTS})
    assert validate("cfg/good.json", ASYNCBATCH_VALIDATE_SCHEMA="s.json").code == 0
    assert validate("cfg/good.json").code == 2


class TestWarnings:
    ARRAYS = '{"$ref": "#/$defs/x", "$defs": {"x": {"type": "array"}}}'

    def test_if_no_record_can_fit(self, files, run):
        files({"s.json": self.ARRAYS, **DOCUMENTS})
        outcome = run("cfg", "--schema", "s.json")
        assert "Warning: s.json is for arrays" in outcome.stderr
        assert "asyncbatch validate" in outcome.stderr
        assert run("cfg", "--schema", "s.json", "-q").stderr.count("Warning") == 0

    @pytest.mark.parametrize(
        "options",
        [
            ("cfg", "--schema", "s.json", "--unit", "file"),
            ("cfg/lines.jsonl", "--schema", "s.json"),
            ("cfg", "--schema", "s.json", "--format", "jsonl"),
            ("cfg", "--schema", "s.json", "--jq", "[.]"),
            ("cfg", "--schema", "o.json"),
        ],
    )
    def test_only_then(self, files, run, options):
        files({"s.json": self.ARRAYS, "o.json": json.dumps(OBJECT), **DOCUMENTS})
        assert "Warning" not in run(*options).stderr


def test_nothing_is_read_but_the_documents(files, validate, tmp_path):
    """The order of files is that of `run`, and nothing is written."""
    files({"s.json": json.dumps(OBJECT), **DOCUMENTS})
    before = sorted(os.listdir(tmp_path))
    outcome = validate("cfg", "--schema", "s.json", "-o", "jsonl")
    names = [event["file"] for event in outcome.events if event["event"] == "file"]
    assert names == sorted(name for name in DOCUMENTS)
    assert sorted(os.listdir(tmp_path)) == before
