"""The transform `schema`, and the loading of schema files."""

from __future__ import annotations

import json
import pickle

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.transforms.schema import MAX_VIOLATIONS, SchemaCheck, SchemaSource, load_schema
from tests.conftest import python

allow_deep_nesting()  # hypothesis warns if the recursion limit changes during a test

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
LATEST = "https://json-schema.org/draft/2020-12/schema"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.just(10**30) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.booleans()
    | st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "array", "object"])})
    | st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=3)})
    | st.fixed_dictionaries({"maximum": st.sampled_from([0, 3, 10**29])}),
    lambda inner: (
        st.fixed_dictionaries({"items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"properties": st.fixed_dictionaries({"a": inner, "b": inner})})
    ),
    max_leaves=5,
)


class Here:
    """A position of a record, which these transforms do not use."""

    file, record = "a.json", 1
    line: int | None = None

    def context(self) -> Context:
        return Context("a.json", 1)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that writes schema files and loads the first as workers get it."""
    monkeypatch.chdir(tmp_path)

    def _load(schema, *, check_formats=True, **others):
        for name, content in {"main": schema, **others}.items():
            path = tmp_path / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
        source = load_schema("main.json", check_formats=check_formats)
        return SchemaCheck(pickle.loads(pickle.dumps(source)))

    return _load


def fits(check, value) -> bool:
    try:
        return list(check(value, Here())) == [value]
    except RecordError:
        return False


def misfit(check, value) -> RecordError:
    with pytest.raises(RecordError) as caught:
        check(value, Here())
    assert caught.value.kind == "schema"
    assert caught.value.pointer == caught.value.violations[0].pointer
    return caught.value


@given(SCHEMAS, VALUES)
def test_verdicts_are_the_librarys(schema, value):
    text = json.dumps(schema).encode()
    check = SchemaCheck(SchemaSource("s.json", (("file:///s.json", text),), check_formats=True))
    assert fits(check, value) == jsonschema_rs.is_valid(schema, value, validate_formats=True)


@pytest.mark.parametrize(
    ("schema", "value", "where", "message"),
    [
        ({"type": "string"}, 5, ("", "type"), '5 is not of type "string"'),
        (
            {"properties": {"age": {"minimum": 0}}},
            {"age": -1},
            ("/age", "minimum"),
            "at /age: -1 is less than the minimum of 0",
        ),
        (
            {"items": {"required": ["id"]}},
            [{"id": 1}, {}],
            ("/1", "required"),
            'at /1: "id" is a required property',
        ),
        (
            {"properties": {"a/~": False}},
            {"a/~": 1},
            ("/a~1~0", "falseSchema"),
            "at /a~1~0: is not allowed here",
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
            5,
            ("", "anyOf"),
            'fits none of 2 alternatives: 5 is not of type "string"; 5 is not of type "null"',
        ),
        (
            {
                "oneOf": [
                    {"properties": {"kind": {"const": "a"}, "v": {"type": "string"}}},
                    {"properties": {"kind": {"const": "b"}, "v": {"type": "integer"}}},
                    {"type": "null"},
                ]
            },
            {"kind": "b", "v": "x"},
            ("", "oneOf"),
            'fits none of 3 alternatives; the nearest: at …/v: "x" is not of type "integer"',
        ),
        (
            {"oneOf": [{"type": "integer"}, {"minimum": 3}]},
            5,
            ("", "oneOf"),
            "5 is valid under more than one of the schemas listed in the 'oneOf' keyword",
        ),
    ],
)
def test_a_misfit_is_told_with_its_place(load, schema, value, where, message):
    error = misfit(load(schema), value)
    (violation,) = error.violations
    assert (violation.pointer, violation.rule) == where
    assert error.message == f"{message} ({violation.rule})"
    assert error.message.endswith(f"{violation.message} ({violation.rule})")


@pytest.mark.parametrize(
    ("count", "more"), [(1, None), (3, "and 2 more"), (10, "and 9 more"), (30, "at least 10 more")]
)
def test_many_misfits_are_counted(load, count, more):
    error = misfit(load({"items": {"type": "integer"}}), ["x"] * count)
    assert len(error.violations) == min(count, MAX_VIOLATIONS)
    assert error.message.endswith(more or "(type)")


def test_a_large_value_is_cut(load):
    message = misfit(load({"enum": [1]}), "x" * 100_000).message
    assert message.endswith("is not one of 1 (enum)")
    assert len(message) < 300


def test_integers_of_any_size_are_judged_right(load):
    check = load({"maximum": 10**30, "multipleOf": 7})
    assert fits(check, 7 * 10**28)
    assert not fits(check, 7 * 10**30)
    assert not fits(check, 10**4299)
    assert not fits(check, 10**29)


@pytest.mark.parametrize("levels", [200, 1000, 1024])
def test_nesting_is_no_obstacle(load, levels):
    value = json.loads("[" * levels + "]" * levels)
    check = load({"type": "array", "items": {"$ref": "#"}})
    assert list(check(value, Here())) == [value]
    assert "too deep" not in misfit(load({"type": "string"}), value).message
    value = json.loads("[" * levels + "1" + "]" * levels)
    assert misfit(check, value).pointer == "/0" * levels


@pytest.mark.parametrize(
    ("schema", "bad"),
    [
        ({"$schema": DRAFT_4, "minimum": 1, "exclusiveMinimum": True}, 1),
        ({"$schema": DRAFT_7, "items": [{"type": "string"}]}, [1]),
        ({"$schema": DRAFT_7.replace("http:", "https:").rstrip("#"), "items": [False]}, [1]),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema", "items": [False]}, [1]),
        ({"$schema": LATEST, "prefixItems": [{"type": "string"}]}, [1]),
        ({"prefixItems": [{"type": "string"}]}, [1]),
        ({"$ref": LATEST}, {"type": 5}),
        ({"$schema": DRAFT_7, "$ref": DRAFT_7}, {"type": 5}),
    ],
)
def test_each_draft_has_its_rules(load, schema, bad):
    assert not fits(load(schema), bad)


def test_formats_are_checked_if_asked(load):
    assert not fits(load({"format": "email"}), "x")
    assert fits(load({"format": "email"}, check_formats=False), "x")


@pytest.mark.parametrize(
    ("schema", "reference"),
    [
        ({}, "defs.json#/text"),
        ({}, "./defs.json#/text"),
        ({}, "FOLDER/defs.json#/text"),
        ({}, "file://FOLDER/defs.json#/text"),
        ({"$id": "https://example.com/schemas/main.json"}, "defs.json#/text"),
        ({"$id": "/schemas/main.json"}, "FOLDER/defs.json#/text"),
    ],
)
def test_files_refer_to_files(load, tmp_path, schema, reference):
    schema["properties"] = {"v": {"$ref": reference.replace("FOLDER", str(tmp_path))}}
    check = load(
        schema,
        defs={"text": {"type": "string", "allOf": [{"$ref": "sub%20dir/long.json"}]}},
        **{"sub dir/long": {"minLength": 2, "$ref": "../other.json#/$defs/short"}},
        other={"$defs": {"short": {"maxLength": 5}}},
    )
    assert fits(check, {"v": "abc"})
    assert [misfit(check, {"v": bad}).violations[0].rule for bad in (1, "a", "abcdef")] == [
        "type",
        "minLength",
        "maxLength",
    ]


def test_what_looks_like_a_reference_may_be_data(load):
    remote = {"$ref": "http://example.com/x.json"}
    check = load({"enum": [remote], "default": remote, "examples": [remote], "x-note": remote})
    assert fits(check, remote)


@pytest.mark.parametrize(
    ("schema", "place", "words"),
    [
        ("[1,]", "main.json:1:4: ", "not JSON: trailing comma"),
        ("", "main.json:1:1: ", "is empty"),
        ([], "main.json:1:1: ", "not a valid schema"),
        ({"type": "strin"}, "main.json:2:11: /type: ", '"strin" is not one of'),
        (
            {"properties": {"a": {"pattern": "("}}},
            "main.json:4:18: /properties/a/pattern: ",
            "regex",
        ),
        (
            {"$ref": "defs.json#/bad"},
            "defs.json:6:13: /bad/type: ",
            '"strin" is not a valid value for',
        ),
        ({"$ref": "defs.json#/nope"}, "main.json:2:11: /$ref: ", "'/nope' does not exist"),
        ({"$ref": "#/nope"}, "main.json:2:11: /$ref: ", "'/nope' does not exist"),
        ({"not": {"$ref": "#nope"}}, "main.json:3:13: /not/$ref: ", "'nope' does not exist"),
        ({"$ref": "nope.json"}, "main.json:2:11: /$ref: ", "nope.json, which is not a file"),
        ({"$ref": "a b.json"}, "main.json:2:11: /$ref: ", "Invalid URI reference"),
        ({"$ref": "http://[x"}, "main.json:2:11: /$ref: ", "broken reference"),
        ({"$ref": "http://example.com/x.json#/a"}, "main.json:2:11: /$ref: ", "never fetched"),
        (
            {"$id": "http://example.com/main.json", "$ref": "http://other.com/defs.json"},
            "main.json:3:11: /$ref: ",
            "never fetched",
        ),
        ({"$ref": "defs.json#/remote"}, "defs.json:3:13: /remote/$ref: ", "https://example.com/y"),
        (
            {"$schema": "http://example.com/s"},
            "main.json:2:14: /$schema: ",
            f"{DRAFT_7[:-1]}, https",
        ),
        ({"$schema": 5}, "main.json:2:14: /$schema: ", "not a valid schema"),
        ({"$ref": DRAFT_7}, "main.json:2:11: /$ref: ", "the meta-schema belongs to another draft"),
        ('{"not": ' * 300 + "{}" + "}" * 300, "main.json: ", "255 levels"),
    ],
)
def test_what_is_no_schema_is_told_with_its_place(load, schema, place, words):
    defs = {"remote": {"$ref": "https://example.com/y"}, "bad": {"type": "strin"}}
    with pytest.raises(UsageError) as caught:
        load(schema, defs=defs)
    assert str(caught.value).startswith(place)
    assert words in str(caught.value)


def test_a_missing_schema_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"nope\.json: the schema cannot be read: No such file"):
        load_schema(str(tmp_path / "nope.json"), check_formats=True)


def test_the_library_is_loaded_only_for_schemas():
    done = python("import sys, asyncbatch.transforms.schema; print('jsonschema_rs' in sys.modules)")
    assert done.stdout == "False\n"
