"""Profiles of records: statistics against plain loops, merging, bounds, schemas."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from copy import deepcopy
from itertools import pairwise

import jsonschema_rs
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from asyncbatch.core.settings import ProfileSettings
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.transforms.profile import fields, scalars
from asyncbatch.transforms.profile.compare import restrictions
from asyncbatch.transforms.profile.fields import Field
from asyncbatch.transforms.profile.infer import infer_schema
from asyncbatch.transforms.profile.profile import Profile
from asyncbatch.transforms.profile.scalars import Scalars
from asyncbatch.transforms.profile.text_formats import SCHEMA_FORMATS, TESTS
from asyncbatch.transforms.profile.widen import widen_schema
from tests.transforms.test_schema import SCHEMAS

allow_deep_nesting()  # hypothesis warns if the recursion limit changes during a test

NAMES = st.sampled_from(["a", "b", "c d", "2024-01-01", "2024-01-02", "2024-01-03", ""])
TEXTS = st.text("ab", max_size=2) | st.sampled_from(
    ["2024-02-29", "2024-02-30", "2024-01-01T10:00:00Z", "a@b.org", "10.0.0.1", "https://a.b/c"]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.just(10**30) | st.sampled_from([0.5, 1.0])
)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
RECORDS = st.lists(VALUES, max_size=8)


def profiled(values) -> Field:
    """Return the statistics of values, without changing these."""
    found = Field()
    if values:
        found.add(values)
    return found


def is_valid(schema, value) -> bool:
    return jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value)


def plain(one: Field) -> object:
    """Return statistics as plain values that can be compared."""
    return json.loads(json.dumps(one, default=_plain, sort_keys=True))


def _plain(value):
    if isinstance(value, Scalars):
        return {
            "count": value.count, "distinct": value.distinct, "unique": value.is_unique,
            "extremes": value.extremes(), "kept": value.kept(), "frequent": value.frequent(1000),
            "formats": sorted(value.formats_of_all()) if type(value.kept()[0]) is str else None,
        }  # fmt: skip
    return {name: getattr(value, name) for name in value.__struct_fields__}


@given(RECORDS, st.lists(st.integers(0, 8), max_size=4))
def test_merged_parts_are_the_whole(values, cuts):
    ends = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [profiled(values[a:b]) for a, b in pairwise(ends)]
    merged = Field()
    for part in parts[::-1]:  # in another order
        merged.merge([pickle.loads(pickle.dumps(part))])
    assert plain(merged) == plain(profiled(values))


@given(
    st.lists(st.integers(-50, 50) | st.text("abc", max_size=3), max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_merged_sketches_are_the_whole(values, cuts):
    """Beyond the limits too, except for the counts of frequent values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scalars, "MAX_COUNTED", 4)
        patch.setattr(scalars, "MAX_HASHES", 8)
        patch.setattr(scalars, "MAX_SAMPLES", 3)
        patch.setattr(scalars, "MAX_CHARACTERS", 2)
        ends = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
        merged, whole = Field(), profiled(values)
        for a, b in pairwise(ends):
            merged.merge([profiled(values[a:b])])
        for one, other in zip(merged.scalars(), whole.scalars(), strict=True):
            kind = type(one.extremes()[0])
            given = [value for value in values if type(value) is kind]
            for name in ("count", "distinct", "hashes", "samples", "lowest", "highest", "formats"):
                assert getattr(one, name) == getattr(other, name)
            assert one.is_unique or len(set(given)) < len(given) or not one.is_complete
            if one.is_complete:
                assert one.counts == Counter(given)
                continue
            for few in (one, other):
                assert few.missed <= len(given) / 5
                for value, count in Counter(given).items():
                    if kind is int or len(value) <= 2:
                        assert 0 <= count - few.counts[value] <= few.missed


@given(st.lists(st.dictionaries(NAMES, SCALARS, max_size=3), min_size=1, max_size=8))
def test_statistics_equal_those_of_plain_loops(records):
    found = profiled(records)
    for name, one in found.names.items():
        values = [record[name] for record in records if name in record]
        assert one.count == len(values)
        assert one.nulls == sum(value is None for value in values)
        assert one.trues == sum(value is True for value in values)
        for kind, stats in ((int, one.integers), (float, one.numbers)):
            numbers = [value for value in values if type(value) is kind]
            assert (stats is None) == (not numbers)
            if stats is not None:
                assert stats.extremes() == (min(numbers), max(numbers))
                assert dict(stats.frequent(99)) == Counter(numbers)
                assert stats.distinct == len(set(numbers))
                assert stats.is_unique == (len(set(numbers)) == len(numbers))


@given(RECORDS, st.booleans())
def test_each_value_satisfies_the_inferred_schema(values, strict):
    schema = infer_schema(profiled(values), strict=strict)
    for value in values:
        assert is_valid(schema, value)


@given(RECORDS, RECORDS, st.booleans())
def test_an_updated_schema_has_the_old_and_the_new_values(old, new, strict):
    before = infer_schema(profiled(old), strict=strict)
    updated = widen_schema(deepcopy(before), profiled(new), strict=strict)
    for value in (*old, *new):
        assert is_valid(updated, value)
    again = widen_schema(deepcopy(updated), profiled(new), strict=strict)
    assert again == updated


@given(SCHEMAS, RECORDS, RECORDS)
def test_an_update_only_widens_any_schema(schema, values, others):
    updated = widen_schema(deepcopy(schema), profiled(values))
    for value in values:
        assert is_valid(updated, value)
    for other in others:
        assert is_valid(updated, other) or not is_valid(schema, other)


@given(
    st.lists(st.dictionaries(st.text("abcd", max_size=2), VALUES), max_size=5), st.integers(1, 9)
)
def test_a_profile_is_bounded_and_its_schema_is_still_right(records, limit):
    profile = Profile(ProfileSettings(limit))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "MAX_DEPTH", 3)
        patch.setattr(fields, "MAX_NAMES", 6)
        for record in records:
            profile.add_records([record], in_array=False)
    found = profile.records()
    assert found.size() <= limit
    schema = infer_schema(found)
    for record in records:
        assert is_valid(schema, record)


def _types(values) -> Counter[str]:
    """Return the number of values of each type in values, by a plain loop."""
    kinds: Counter[str] = Counter()
    queue = list(values)
    for one in queue:
        kinds[type(one).__name__] += 1
        if isinstance(one, (dict, list)):
            queue += one.values() if isinstance(one, dict) else one
    return kinds


@given(RECORDS, st.integers(1, 12), st.integers(1, 3))
def test_no_value_is_lost_where_fields_become_maps(records, limit, together):
    """Wherever it stops to make maps, and however many records wait to be counted."""
    profile, whole = Profile(ProfileSettings(limit)), Profile()
    for at in range(0, len(records), together):
        profile.collect(records[at : at + together], in_array=False)
        whole.add_records(records[at : at + together], in_array=False)
    profile.settle()
    assert plain(whole.documents) == plain(profiled(records))
    found: Counter[str] = Counter()
    fields_found = profile.documents.all()
    for one in fields_found:
        kinds = ((one.strings, "str"), (one.integers, "int"), (one.numbers, "float"))
        found += Counter({kind: stats.count for stats, kind in kinds if stats is not None})
        found += Counter({"NoneType": one.nulls, "bool": one.booleans})
        found += Counter({"list": one.arrays, "dict": one.objects})
    if any(one.is_cut for one in fields_found):
        assert profile.documents.count == len(records)
    else:
        assert found == _types(records)


@pytest.mark.parametrize(
    "values",
    [
        range(60_000), range(0, 60_000_000, 1000), range(-30_000, 30_000),
        [2**power + one for power in range(20, 120) for one in range(100)],
        [number / 100 for number in range(1, 60_000)],
        [number + 0.5 for number in range(60_000)],
        [str(number) for number in range(60_000)], [f"id{number:09}" for number in range(60_000)],
        [f"user{number}@example.com" for number in range(60_000)],
        [f"2024-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z" for n in range(60_000)],
    ],
)  # fmt: skip
@pytest.mark.parametrize("parts", [1, 37])
def test_different_values_of_a_pattern_are_estimated(values, parts):
    """Within four standard errors, though neighbours have similar hashes before these are mixed."""
    found = Scalars()
    for part in range(parts):
        other = Scalars()
        other.add(list(values[part::parts]))
        found.merge([other])
    assert found.distinct == pytest.approx(len(values), rel=0.125)
    assert found.is_unique


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (2**20 + 1, 2**81 + 1), (2**58, 2**119), (1.0, 2.0**61), (0.5, 2.0**60),
        ("a" * 9, "\0" + "a" * 9),
    ],
)  # fmt: skip
def test_values_of_one_quick_hash_are_different(one, other):
    others = [type(one)(number) for number in range(500, 1500)]
    found = Scalars()
    for value in (one, other):
        found.add([value, *others])
        others = others[:0]
    assert not found.is_complete
    assert found.is_unique
    assert found.distinct == 1002
    found.add([other])
    assert not found.is_unique


@given(SCHEMAS, SCHEMAS, RECORDS)
def test_schemas_without_restrictions_allow_the_same(old, new, values):
    if not restrictions(old, new, exact=True):
        for value in values:
            assert is_valid(new, value) or not is_valid(old, value)


_PLAIN = st.sampled_from(
    [True, False, {}, {"type": "string"}, {"type": "integer"}, {"minimum": 3}, {"minLength": 2}]
)
_ENTANGLED = st.recursive(
    _PLAIN | st.just({"$ref": "#/$defs/x"}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", ["object", "array"]]),
            **dict.fromkeys(
                ("properties", "dependentSchemas"),
                st.dictionaries(st.sampled_from(["a", "x1"]), inner, max_size=2),
            ),
            "patternProperties": st.dictionaries(st.sampled_from(["^x", "."]), inner, max_size=2),
            **dict.fromkeys(
                ("prefixItems", "allOf", "oneOf"), st.lists(inner, min_size=1, max_size=2)
            ),
            **dict.fromkeys(("additionalProperties", "unevaluatedProperties"), inner),
            **dict.fromkeys(("items", "unevaluatedItems", "contains"), inner),
            **dict.fromkeys(("not", "if", "then", "else"), inner),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "minContains": st.integers(0, 2),
            "required": st.lists(st.sampled_from(["a", "x1"]), unique=True, max_size=1),
            "$ref": st.just("#/$defs/x"),
        },
    ),
    max_leaves=6,
)
_SMALL_VALUES = st.recursive(
    st.sampled_from([1, 5, "s", "abcd", None]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "x1"]), inner)
    ),
    max_leaves=4,
)


def _changed(schema, chance, other):
    """Return a schema with another keyword, or without one, somewhere in it."""
    schema = deepcopy(schema)
    parts = [schema]
    for part in parts:
        if isinstance(part, (dict, list)):
            parts += part.values() if isinstance(part, dict) else part
    parts = [part for part in parts if isinstance(part, dict) and part]
    part = chance.choice(parts)
    name = chance.choice(sorted(part))
    if isinstance(other, dict) and name in other and chance.random() < 0.5:
        part[name] = other[name]
    elif isinstance(other, dict) and other and chance.random() < 0.3:
        part |= dict([chance.choice(sorted(other.items(), key=str))])
    else:
        del part[name]
    return schema


@settings(max_examples=300)
@given(
    *(_ENTANGLED, _ENTANGLED, _PLAIN, st.randoms(use_true_random=False)),
    st.lists(_SMALL_VALUES, min_size=4, max_size=12),
)
def test_no_keyword_restricts_unseen(old, other, referred, chance, values):
    """Keywords that lift others, and references, are seen too when they go or change."""
    old = {"$defs": {"x": referred}, "allOf": [True]} | (old if isinstance(old, dict) else {})
    new = _changed(old, chance, other)
    if "x" not in new.get("$defs", {}):
        new["$defs"] = {"x": referred}
    try:
        judges = [jsonschema_rs.validator_for(one) for one in (old, new)]
    except ValueError:  # no schema any more
        reject()
    before, after = judges
    if not restrictions(old, new, exact=True):
        for value in values:
            assert after.is_valid(value) or not before.is_valid(value)


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
OWN = "https://example.org/s"
DRAFT_4, DRAFT_7 = (f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 7))
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"allOf": [{"$ref": "#/$defs/x"}]}, "s"),
        ({"oneOf": [{"$ref": "#/$defs/x"}]}, "s"),
        ({"$ref": "#/$defs/x", "minLength": 1}, "s"),
        ({"$ref": "#name"}, "s"),
        ({"properties": {"a": {"not": {"not": {"$ref": "#name"}}}}}, {"a": "s"}),
        ({"contains": {"$ref": "#/$defs/x"}}, ["s"]),
    ],
)
def test_references_are_followed_wherever_they_are(schema, value):
    old, new = (schema | {"$defs": {"x": {"$anchor": "name"} | one}} for one in (TEXT, NUMBER))
    assert is_valid(old, value) > is_valid(new, value)
    assert restrictions(old, new)
    assert not restrictions(old, old)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ({"patternProperties": {"^x": {}}, "additionalProperties": False},
         {"additionalProperties": False}, {"x1": 1}),
        ({"prefixItems": [TEXT], "items": NUMBER}, {"items": NUMBER}, ["a", 1]),
        ({"$schema": DRAFT_7, "items": [TEXT]}, {"$schema": DRAFT_7, "items": [NUMBER]}, ["a"]),
        ({"properties": {"a": {}}, "unevaluatedProperties": False},
         {"unevaluatedProperties": False}, {"a": 1}),
        ({"prefixItems": [{}], "unevaluatedItems": False}, {"unevaluatedItems": False}, [1]),
        ({"contains": TEXT, "minContains": 0}, {"contains": TEXT}, []),
        ({"$schema": DRAFT_4, "minimum": 5},
         {"$schema": DRAFT_4, "minimum": 5, "exclusiveMinimum": True}, 5),
        ({"$schema": DRAFT_7, "$ref": "#/$defs/a", "type": "integer", "$defs": {"a": {}}},
         {"$schema": DRAFT_2020, "$ref": "#/$defs/a", "type": "integer", "$defs": {"a": {}}}, "s"),
        ({"allOf": [{"properties": {"title": TEXT}}]},
         {"allOf": [{"properties": {"title": NUMBER}}]}, {"title": "s"}),
        ({"const": 1}, {"const": 1, "enum": [2]}, 1),
        ({"const": 1, "enum": [1.0, 2]}, {"const": 1, "enum": [True]}, 1),
        ({"$schema": DRAFT_4, "const": 1}, {"$schema": DRAFT_7, "const": 1}, 2),
        ({"$schema": DRAFT_7, "allOf": [{"prefixItems": [TEXT]}]},
         {"allOf": [{"prefixItems": [TEXT]}]}, [1]),
        ({"$schema": DRAFT_7, "dependentRequired": {"a": ["b"]}},
         {"dependentRequired": {"a": ["b"]}}, {"a": 1}),
        ({"$schema": DRAFT_7, "format": "uuid"}, {"format": "uuid"}, "s"),
        (NUMBER, {"$schema": DRAFT_4} | NUMBER, 1.0),
        ({"allOf": [NUMBER]}, {"$schema": DRAFT_4, "allOf": [NUMBER]}, 1.0),
        ({"enum": [1, 2, "a"]}, {"type": "integer"}, "a"),
        ({"multipleOf": 4}, {"multipleOf": 3}, 4),
        ({"type": "boolean"}, {"enum": [True, 0]}, False),
        ({"type": ["string", "integer"], "minLength": 1},
         {"anyOf": [{"type": "string", "minLength": 2}, NUMBER]}, "a"),
    ],
)  # fmt: skip
def test_changes_that_break(old, new, value):
    assert is_valid(old, value) > is_valid(new, value)
    assert restrictions(old, new)
    assert not restrictions(old, old)
    assert not restrictions(new, new)


@pytest.mark.parametrize(
    "of",
    [
        lambda one: {"$ref": "#/$defs/a%20b", "$defs": {"a b": one}},
        lambda one: {"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": one}},
        lambda one: {"$id": OWN, "$ref": "item", "$defs": {"i": {"$id": "item"} | one}},
        lambda one: {"$ref": f"{OWN}/item#/$defs/x",
                     "$defs": {"i": {"$id": f"{OWN}/item", "$defs": {"x": one}}}},
        lambda one: {"$id": OWN, "properties": {"a": {"$ref": f"{OWN}#/$defs/i"}},
                     "$defs": {"i": one}},
        lambda one: {"properties": {"a": {"$id": OWN, "$ref": "#/$defs/i", "$defs": {"i": one}}}},
        lambda one: {"$ref": "#x", "$defs": {"i": {"$dynamicAnchor": "x"} | one}},
        lambda one: {"$dynamicRef": "#x", "$defs": {"i": {"$dynamicAnchor": "x"} | one}},
        lambda one: {"$ref": "#x", "$defs": {"y": {"const": {"$anchor": "x"}},
                                             "z": {"enum": [{"$anchor": "x"}]},
                                             "i": {"$anchor": "x"} | one}},
        lambda one: {"$schema": DRAFT_7, "$ref": "#x", "definitions": {"i": {"$id": "#x"} | one}},
        lambda one: {"$schema": DRAFT_4, "id": OWN, "allOf": [{"$ref": f"{OWN}#/definitions/i"}],
                     "definitions": {"i": one}},
        lambda one: {"allOf": [{"$ref": "#/$defs/a%20b", "minLength": 0}], "$defs": {"a b": one}},
    ],
)  # fmt: skip
def test_references_of_all_forms_are_followed(of):
    old, new = of(TEXT), of(NUMBER)
    value = {"a": "s"} if "properties" in old else "s"
    assert is_valid(old, value) > is_valid(new, value)
    assert restrictions(old, new)
    assert not restrictions(old, deepcopy(old))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": ["string", "integer"]}, {"anyOf": [TEXT, NUMBER]}),
        ({"type": ["string", "integer"], "minLength": 2}, {"anyOf": [NUMBER, TEXT]}),
        ({"enum": [1, 2]}, {"type": "integer", "minimum": 1}),
        ({"enum": ["a", "b"]}, {"enum": ["b", "a", "c"], "maxLength": 5}),
        ({"type": "string", "enum": ["a", "b", 5]}, {"maxLength": 1}),
        ({"enum": [1, [1]]}, {"enum": [[1.0], 1.0]}),
        ({"const": {"a": [1]}}, {"type": "object", "required": ["a"]}),
        ({"type": "array"}, {"type": "array", "minItems": 0, "uniqueItems": False}),
        (TEXT, TEXT | {"minLength": 0}),
        ({"type": "object"}, {"type": "object", "minProperties": 0}),
        ({"not": {"minLength": 2}}, {"not": {"minLength": 2, "minItems": 0}}),
        ({"multipleOf": 4}, {"multipleOf": 2}),
        ({"type": "array", "uniqueItems": True}, {"type": "array", "uniqueItems": False}),
        ({"type": "boolean"}, {"enum": [True, False]}),
        ({"type": ["null", "boolean"]}, {"enum": [True, None, False, 1]}),
        ({"$schema": DRAFT_7} | TEXT, {"$schema": DRAFT_4} | TEXT),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1]}}},
         {"$ref": "#/$defs/a", "$defs": {"a": {"minimum": 0}}}),
    ],
)  # fmt: skip
def test_changes_that_keep_all_values(old, new):
    assert not restrictions(old, new)


def _levels(end):
    """Return a schema of 40 levels, each with two references to the next: a tree of 2^40 parts."""
    parts = {
        f"t{n}": {"properties": {name: {"$ref": f"#/$defs/t{n + 1}"} for name in ("a", "b")}}
        for n in range(40)
    }
    return {"$ref": "#/$defs/t0", "$defs": parts | {"t40": end}}


def _network(names):
    """Return 12 schemas, each with references to all; the first requires some names."""
    kinds = {
        f"t{n}": {"properties": {f"p{m}": {"$ref": f"#/$defs/t{m}"} for m in range(12)}}
        for n in range(12)
    }
    kinds["t0"]["required"] = names
    return {"$ref": "#/$defs/t11", "$defs": kinds}


@pytest.mark.parametrize(
    ("old", "new"), [(_levels(TEXT), _levels(NUMBER)), (_network(["a"]), _network(["b"]))]
)
@pytest.mark.parametrize("rule", ["$ref", "not"])
def test_shared_definitions_are_compared_once(old, new, rule):
    if rule == "not":
        old, new = ({"not": {"$ref": one["$ref"]}, "$defs": one["$defs"]} for one in (old, new))
    assert restrictions(old, deepcopy(old)) == []
    assert restrictions(old, new)
    alternatives = new | {"anyOf": [{"$ref": "#/$defs/t1"}, TEXT]}
    assert restrictions(alternatives, deepcopy(alternatives)) == []


def test_an_alternative_of_itself_hides_nothing():
    def make(kind):
        own = {"anyOf": [{"type": kind, "required": ["a"]}, {"$ref": "#/$defs/own"}]}
        return {"properties": {"x": {"$ref": "#/$defs/own"}}, "$defs": {"own": own}}

    old, new = make("object"), make("array")
    assert restrictions(old, new)
    assert not restrictions(old, deepcopy(old))


def test_a_tree_is_compared_with_itself_and_others():
    """Its nodes are alternatives of the parts in their fields, not of themselves."""

    def make(leaf):
        node = {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}
        tree = {"anyOf": [leaf, {"$ref": "#/$defs/node"}]}
        return {"$ref": "#/$defs/tree", "$defs": {"tree": tree, "node": node}}

    narrow, wide = make(NUMBER), make({"type": ["integer", "string"]})
    assert not restrictions(narrow, wide)
    assert restrictions(wide, narrow)


def test_a_pair_that_only_seemed_equal_is_compared_again():
    """A part is equal if the one around it is, which is not: elsewhere it differs."""

    def make(end):
        outer = {"type": "object", "required": ["z"], "properties": {
            "inner": {"$ref": "#/$defs/inner"}, "end": end}}  # fmt: skip
        inner = {"type": "object", "properties": {"outer": {"$ref": "#/$defs/outer"}}}
        return {
            "properties": {
                "a": {"anyOf": [{"$ref": "#/$defs/outer"}, {"type": "object"}]},
                "b": {"$ref": "#/$defs/inner"},
            },
            "$defs": {"outer": outer, "inner": inner},
        }  # fmt: skip

    value = {"b": {"outer": {"z": 1, "end": "s"}}}
    old, new = make(TEXT), make(NUMBER)
    assert is_valid(old, value) > is_valid(new, value)
    assert any(one.path.startswith("b.") for one in restrictions(old, new))


@given(RECORDS, RECORDS)
def test_an_update_of_a_schema_breaks_nothing(old, new):
    before = infer_schema(profiled(old))
    assert restrictions(before, before) == []
    assert restrictions(before, widen_schema(deepcopy(before), profiled(new))) == []


LABEL = r"[a-z0-9]([a-z0-9-]{0,3}[a-z0-9])?"
LIKE = {
    "date": r"20[0-9]{2}-[01][0-9]-[0-3][0-9]",
    "date-time": r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,9})?"
    r"(Z|[+-][0-2][0-9]:[0-6][0-9])",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "email": rf"[a-z.+_-]{{1,6}}@({LABEL}\.){{1,3}}[a-z]{{2,4}}",
    "ipv4": r"[0-9]{1,3}(\.[0-9]{1,3}){3}",
    "uri": rf"https?://{LABEL}(\.{LABEL}){{0,2}}(:[0-9]{{1,5}})?(/[a-z%0-9?#&=]{{0,6}}){{0,2}}",
}


@pytest.mark.parametrize("name", sorted(SCHEMA_FORMATS))
def test_formats_are_those_of_json_schema(name):
    check = jsonschema_rs.validator_for({"format": name}, validate_formats=True)

    @given(st.from_regex(LIKE[name], fullmatch=True))
    @example("a@xn--c.org")
    @example("a@" + ".".join(["b" * 63] * 4) + ".com")
    @example("a@" + ".".join(["b" * 63] * 3) + ".com")
    @example("a@" + ".".join(["b" * 61] * 4) + ".co.uk")
    @example("a@" + ".".join(["b" * 61] * 4) + ".com.uk")
    def agrees(text):
        assert not TESTS[name](text) or check.is_valid(text)

    agrees()
