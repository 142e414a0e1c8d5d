"""The draft of each schema document, the content keywords of each draft, copies of references."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import jsonschema_rs
import pytest

from asyncbatch.errors import UsageError
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.transforms.schema import SchemaCheck, load_schema

DRAFTS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}
ORACLES = {
    4: jsonschema_rs.Draft4Validator,
    6: jsonschema_rs.Draft6Validator,
    7: jsonschema_rs.Draft7Validator,
    2019: jsonschema_rs.Draft201909Validator,
    2020: jsonschema_rs.Draft202012Validator,
}
INTEGER: dict[str, Any] = {
    "definitions": {"x": {"type": "integer"}},
    "$defs": {"x": {"type": "integer"}},
}
# Schemas whose verdict depends on the draft, and values.
PARTS: dict[str, Any] = {
    "siblings": {**INTEGER, "$ref": "#/definitions/x", "maximum": 1},
    "tuple": {"prefixItems": [{"type": "integer"}]},
    "contains": {"contains": {"type": "integer"}, "minContains": 2},
    "unevaluated": {"unevaluatedProperties": False},
    "dependent": {"dependentRequired": {"a": ["b"]}},
    "const": {"const": 1},
    "if": {"if": {"type": "integer"}, "then": {"maximum": 1}},
}
VALUES = [0, 5, "x", "!!!", {}, {"a": 1}, {"a": 1, "b": 2}, [], [1], ["x"], [1, "x"], [1, 2]]


class Here:
    file, record = "a.json", 1
    line: int | None = None

    def context(self) -> Context:
        return Context("a.json", 1)


def verdict(check, value) -> bool:
    try:
        return list(check(value, Here())) == [value]
    except RecordError:
        return False


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that writes schema files and loads `main.json`."""
    monkeypatch.chdir(tmp_path)

    def _load(files, **settings):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        return SchemaCheck(load_schema("main.json", check_formats=False, **settings))

    return _load


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("draft", DRAFTS)
class TestDraftOfAFile:
    def test_is_that_of_the_schema_which_refers_to_it(self, load, draft, part):
        main = {"$schema": DRAFTS[draft], "allOf": [{"$ref": "sub.json"}]}
        check = load({"main.json": main, "sub.json": PARTS[part]})
        oracle = ORACLES[draft](PARTS[part])
        expected = [oracle.is_valid(value) for value in VALUES]
        assert [verdict(check, value) for value in VALUES] == expected

    def test_is_inherited_over_several_files(self, load, draft, part):
        files = {
            "main.json": {"$ref": "old/a.json"},
            "old/a.json": {"$schema": DRAFTS[draft], "allOf": [{"$ref": "b.json"}]},
            "old/b.json": {"allOf": [{"$ref": "c.json"}]},
            "old/c.json": PARTS[part],
        }
        check = load(files)
        oracle = ORACLES[draft](PARTS[part])
        expected = [oracle.is_valid(value) for value in VALUES]
        assert [verdict(check, value) for value in VALUES] == expected

    def test_is_its_own_if_it_says_so(self, load, draft, part):
        main = {"$schema": DRAFTS[7], "allOf": [{"$ref": "sub.json"}]}
        sub = {"$schema": DRAFTS[draft], **PARTS[part]}
        check = load({"main.json": main, "sub.json": sub})
        oracle = ORACLES[draft](sub)
        expected = [oracle.is_valid(value) for value in VALUES]
        assert [verdict(check, value) for value in VALUES] == expected


def test_a_limit_of_draft_4_that_is_a_boolean(load):
    main = {"$schema": DRAFTS[4], "$ref": "sub.json"}
    check = load({"main.json": main, "sub.json": {"maximum": 10, "exclusiveMaximum": True}})
    assert [verdict(check, value) for value in (9, 10)] == [True, False]


@pytest.mark.parametrize(("draft", "word"), [(4, "id"), (6, "$id"), (7, "$id")])
def test_an_anchor_of_an_old_draft(load, draft, word):
    main = {"$schema": DRAFTS[draft], "allOf": [{"$ref": "sub.json#foo"}]}
    sub = {"definitions": {"a": {word: "#foo", "type": "integer"}}}
    check = load({"main.json": main, "sub.json": sub})
    assert [verdict(check, value) for value in (1, "x")] == [True, False]


JSON_IN_BASE64 = {"contentEncoding": "base64", "contentMediaType": "application/json"}
CONTENT = [
    ({"contentEncoding": "base64"}, {"!!!": False, "YQ==": True, "YQ": False, "": True}),
    ({"contentMediaType": "application/json"}, {"{": False, "[1]": True, "NaN": False}),
    (JSON_IN_BASE64, {"!!!": False, "YQ==": False, "e30=": True}),
    ({"contentEncoding": "base32", "contentMediaType": "image/png"}, {"!!!": True}),
]


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize(("schema", "texts"), CONTENT)
class TestContent:
    def test_is_an_annotation(self, load, draft, schema, texts):
        nested = {"properties": {"contentEncoding": schema}, "$schema": DRAFTS[draft]}
        for made in ({"$schema": DRAFTS[draft], **schema}, nested):
            check = load({"main.json": made})
            assert all(verdict(check, text) for text in texts)
            assert all(verdict(check, {"contentEncoding": text}) for text in texts)

    def test_is_checked_if_asked_for_where_the_draft_has_it(self, load, draft, schema, texts):
        made = {"properties": {"contentEncoding": schema}, "$schema": DRAFTS[draft]}
        check = load({"main.json": made}, check_content=True)
        found = {text: verdict(check, {"contentEncoding": text}) for text in texts}
        assert found == (texts if draft >= 7 else dict.fromkeys(texts, True))
        assert verdict(check, {"contentEncoding": 5})


def test_a_violation_of_the_content_names_the_rule_and_the_place(run, files):
    schema = {"properties": {"b": {"contentEncoding": "base64"}}}
    files({"s.json": json.dumps(schema), "a.json": '{"b": "!!!"}'})
    assert run("a.json", "--schema", "s.json").code == 0
    outcome = run("a.json", "--schema", "s.json", "--check-content", "-o", "json")
    (failure,) = outcome.json["failures"]
    assert (failure["kind"], failure["pointer"], failure["byte"]) == ("schema", "/b", 6)
    assert failure["violations"][0]["rule"] == "contentEncoding"
    assert run("a.json", "--check-content").code == 2


class TestCopies:
    MAIN: ClassVar[dict[str, Any]] = {
        "properties": {
            "a": {"$ref": "https://example.com/schemas/a.json"},
            "b": {"$ref": "https://example.com/schemas/deep/b.json#/definitions/x"},
            "c": {"$ref": "https://other.org/c"},
        }
    }
    FILES: ClassVar[dict[str, Any]] = {
        "main.json": MAIN,
        "copies/a.json": {"type": "integer"},
        "copies/deep/b.json": {**INTEGER, "allOf": [{"$ref": "../a.json"}]},
        "c.json": {"type": "null"},
    }

    def test_are_read_instead_of_the_net(self, load):
        copies = (("https://example.com/schemas", "copies"), ("https://other.org/c", "c.json"))
        check = load(self.FILES, copies=copies)
        assert verdict(check, {"a": 1, "b": 2, "c": None})
        assert not any(verdict(check, wrong) for wrong in ({"a": "x"}, {"b": "x"}, {"c": 1}))

    def test_all_missing_ones_are_told_at_once(self, load):
        with pytest.raises(UsageError) as caught:
            load(self.FILES, copies=(("https://example.com/schemas/deep", "copies/deep"),))
        told = str(caught.value)
        assert told.count("which is not a local file") == 2
        assert "https://example.com/schemas/a.json" in told
        assert "https://other.org/c" in told
        assert "main.json:1:" in told
