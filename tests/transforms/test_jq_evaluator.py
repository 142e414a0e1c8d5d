"""The evaluator of common jq programs: its outputs are those of the library, for every record."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import decode
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.transforms.jq.evaluator import Evaluator
from asyncbatch.transforms.jq.functions import UnsureError
from asyncbatch.transforms.jq.parser import UnsupportedError
from asyncbatch.transforms.jq.transform import Jq
from asyncbatch.transforms.json_values import is_unchanged


class Here:
    """A position of a record, which jq programs do not use."""

    file, record = "a.json", 1
    line: int | None = None

    def context(self) -> Context:
        return Context("a.json", 1)


def spelled(value: Any) -> str:
    """Return a text that differs for 1 and 1.0, for 1 and true, and for another order of fields."""
    return repr(value)


def outcome(program: str, text: str, **options: bool) -> list[str]:
    """Return the outputs, and the error that ended them."""
    found = []
    try:
        for output in islice(iter(Jq(program, **options)(text, Here())), 1000):
            found.append(spelled(output))  # noqa: PERF401 - an error keeps those before it
    except RecordError as error:
        found.append(f"{error.kind}: {error.message}")
    return found


def by_library(program: str) -> str:
    """Return a program with the same outputs that only the library knows."""
    return f"def unused: .; {program}"


def is_supported(program: str) -> bool:
    try:
        Evaluator(program)
    except UnsupportedError:
        return False
    return True


def is_sure(program: str, text: str) -> bool:
    """Whether the evaluator gives all outputs itself."""
    try:
        list(Evaluator(program)(text.encode(), Here()))
    except UnsureError:
        return False
    return True


def containers(value: Any) -> list[int]:
    """Return the identity of each array and object in a value."""
    if not isinstance(value, (dict, list)):
        return []
    items = value.values() if isinstance(value, dict) else value
    return [id(value), *(found for item in items for found in containers(item))]


# Programs

NAMES = st.sampled_from(["a", "b", "c", "and", "e1"])
KEYS = st.sampled_from(["a", "b", "x y", "é😀", "", 'q"\\\n', "c\u007f"])
STRINGS = st.sampled_from(
    ["", "a", "b", "x y", "é", "\uffff", "😀", "A,b,Ç", "1", "-12", "012", '"\\']
)
LITERALS = st.one_of(
    STRINGS.map(json.dumps).filter(lambda text: "\\u" not in text),
    st.sampled_from(["null", "true", "false", "0", "1", "2", "-1", "10", "0.5", "1.25", "0.1",
                     "999999999999999", "-2.5"]),
)  # fmt: skip
MARKS = st.sampled_from(["", "", "", "?"])
QUOTED = KEYS.map(lambda key: json.dumps(key, ensure_ascii=False))


def _paths(terms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    suffixes = st.one_of(
        st.builds(".{}{}".format, NAMES, MARKS),
        st.builds(".{}{}".format, QUOTED, MARKS),
        st.builds("[{}]{}".format, QUOTED | st.sampled_from(["0", "1", "-1", "-3", ""]), MARKS),
        st.sampled_from(["[1:]", "[:2]", "[-2:]", "[1:-1]", "[2:1]", " .a"]),
    )
    return st.builds("{}{}".format, terms, suffixes)


FIRST_STEPS = st.one_of(
    st.just("."), st.builds(".{}{}".format, NAMES, MARKS), st.builds(".{}".format, QUOTED),
    st.builds(".[{}]{}".format, QUOTED | st.sampled_from(["0", "1", "-1", ""]), MARKS),
)  # fmt: skip
PATHS = st.recursive(FIRST_STEPS, _paths, max_leaves=4)
OPERATORS = ["//", "or", "and", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "|", ","]
PLAIN_CALLS = ["ascii_downcase", "ascii_upcase", "empty", "first", "keys", "last", "length", "not",
               "to_entries", "tonumber", "tostring", "type"]  # fmt: skip


def _larger(programs: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    terms = st.one_of(PATHS, LITERALS, programs.map("({})".format))
    values = st.one_of(
        st.builds(": {}".format, terms),
        st.builds(": {} | {}".format, terms, terms),
        st.builds(": {} {} {}".format, terms, st.sampled_from(OPERATORS[:13]), terms),
    )
    fields = st.builds(lambda name, value: f"{name}{value}", NAMES | QUOTED, values) | QUOTED
    return st.one_of(
        st.builds("{} {} {}".format, programs, st.sampled_from(OPERATORS), programs),
        st.builds("{}{}{}".format, terms, st.sampled_from(["//", "==", "<", "|", ","]), terms),
        st.lists(fields, max_size=3).map(lambda found: f"{{{', '.join(found)}}}"),
        programs.map("[{}]".format),
        programs.map("({})".format),
        programs.map("select({})".format),
        programs.map("map({})".format),
        st.builds('"<\\({})é\\n\\({})"'.format, programs, programs),
        st.builds("if {} then {} else {} end".format, programs, programs, programs),
        st.builds("if {} then {} elif {} then {} end".format, *([programs] * 4)),
        _paths(programs.map("({})".format)),
    )


SIMPLE = st.one_of(
    PATHS, PATHS, PATHS, LITERALS, st.sampled_from(PLAIN_CALLS),
    st.builds("{} | {}".format, PATHS, st.sampled_from(PLAIN_CALLS)),
    st.builds("{}({})".format, st.sampled_from(["has", "startswith", "endswith", "split"]),
              LITERALS),
)  # fmt: skip
PROGRAMS = st.recursive(SIMPLE, _larger, max_leaves=6)

# Records: JSON texts with odd spellings

NUMBERS = st.one_of(
    st.sampled_from([
        "0", "-0", "1", "2", "1.0", "1.50", "-0.0", "0.00", "1e2", "1E+2", "1e-5", "0.1", "0.30",
        "0.3", "0.30000000000000001", "0.30000000000000004", "0.1000000000000000055511151231257827",
        "5.0000000000000001", "9007199254740991", "9007199254740992", "9007199254740993.0",
        "9007199254740993e0", "1700000000123456",
        "1e17", "1e300", "1.7976931348623157e308", "5e-324", "4.9e-324",
        "1e-400", "123456789012345.6", "1234567890.12345678", "123456789012345678e-5", "2.5e15",
        "999999999999999", "1000000000000000.5", "0.12345678901234568", "12345678901234567890",
        "-9007199254740993", "1e15", "100000000000000000000", "9.99999999999999e22",
    ]),
    st.integers(-3, 12).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-100, 100, places=17).map(str),
)  # fmt: skip
TEXTS = st.one_of(
    STRINGS.map(json.dumps), STRINGS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\/\\u0041"', '"\\u0000"', '"\\ud83d\\ude00"', '" 1234567890123456789,"']),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4).map(json.dumps),
)  # fmt: skip
SPACES = st.sampled_from(["", "", " ", "\n\t"])
FIELD_NAMES = st.one_of(
    NAMES.map(json.dumps), KEYS.map(json.dumps), st.just('"\\u0061"'), NAMES.map(json.dumps)
)
SCALARS = st.one_of(NUMBERS, TEXTS, st.sampled_from(["null", "true", "false"]))


def _array(items: list[str], space: str) -> str:
    return f"[{space}{f'{space},'.join(items)}]"


def _object(fields: list[tuple[str, str]], space: str) -> str:
    return "{" + f",{space}".join(f"{name}{space}:{value}" for name, value in fields) + "}"


def _containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(_array, st.lists(values, max_size=3), SPACES),
        # fields may have the same name
        st.builds(_object, st.lists(st.tuples(FIELD_NAMES, values), max_size=5), SPACES),
        st.builds(_object, st.lists(st.tuples(FIELD_NAMES, values), max_size=5), SPACES),
    )


VALUES = st.recursive(SCALARS, _containers, max_leaves=12)
RECORDS = st.builds("{}{}{}".format, SPACES, VALUES | _containers(VALUES), SPACES)


@settings(max_examples=150)
@given(PROGRAMS, st.lists(RECORDS, min_size=1, max_size=4), st.booleans())
def test_outputs_and_errors_are_those_of_the_library(program, records, lossy):
    if not is_supported(program):
        return
    for record in records:
        expected = outcome(by_library(program), record, lossy=lossy)
        assert outcome(program, record, lossy=lossy) == expected


@given(PROGRAMS, RECORDS)
def test_a_record_that_stays_text_is_unchanged(program, record):
    if not is_supported(program):
        return
    transform = Jq(program)
    transform.returns_text = True
    try:
        found = list(islice(iter(transform(record, Here())), 1000))
    except RecordError:
        return
    expected = list(islice(iter(Jq(by_library(program))(record, Here())), 1000))
    assert len(found) == len(expected)
    for output, other in zip(found, expected, strict=True):
        if output is record:
            assert is_unchanged(other, decode(record))
        else:
            assert spelled(output) == spelled(other)


@given(PROGRAMS, RECORDS)
def test_no_two_places_of_the_outputs_are_one_object(program, record):
    """A function that changes one of them must not change the other."""
    try:
        found = list(islice(iter(Jq(program)(record, Here())), 1000))
    except (RecordError, UsageError):
        return
    places = containers(found)
    assert len(places) == len(set(places))


PEOPLE = [
    '{"id": 1, "name": "Ann", "ok": true, "address": {"city": "Rome"}, "tags": ["a"], "n": 2.0}',
    '{"id": 2, "name": null, "ok": false, "address": null, "tags": [], "n": -1.5, "n": 7}',
    '{"tags": [{"k": 1, "v": [1, 2]}, {"k": 2}], "id": 3, "x y": "z", "ok": null, "count": 12}',
    '{"id": "4", "name": "\\u00e9\\ud83d\\ude00", "address": {"city": 5, "zip": {"a": 1}}}',
    "null",
    "{}",
]
COMMON = r"""
.
.id
.address.city
."x y"
.["id"]
.tags[0]
.tags[-1]
.tags[1:]
{id, name}
{id, city: .address.city}
{"x y"}
{"id": .id, and: .and}
{id, id: 5}
.tags[]
.tags[]?
[.tags[]]
.tags | length
{n: (.tags | length), tags}
select(.name == "Ann")
select(.ok)
select(.ok | not)
select(.ok != false)
select(.ok and .name != null or .id == 3) | {id}
select(.id > 1)
select(.id >= 2 and .n < 3)
.name // "nobody"
{name: (.name // .address.city // 0)}
.id, .name
if .ok then "yes" elif .id == 2 then "no" else empty end
if .ok then . end
"\(.name): \(.count) \(.ok)"
.count | tostring
(.count // 0) + 1
.count * 2.5
.count / 5
.count - 12
[.id, .name]
[.tags[] | .k?]
.tags | map({k})
.tags[] | select(.k == 2)
.name | type
length
keys
to_entries
has("id")
.name | ascii_upcase
.name | ascii_downcase
.name | startswith("A")
.id | tonumber
.name | split("n")
.address | .city
.address | {city, zip}
[.tags[0], .tags[1]]
{a: .tags[0].k, b: .tags[0].v}
.tags == []
.address == null
select(.tags[0].k == 1 and (.tags[1].k | type) == "number")
[1, -2, 0.5, null, true, {}]
{n}
select(.n == 2)
.address.zip.a
empty
"a" < .name
.[]
""".strip().split("\n")


@pytest.mark.parametrize("program", COMMON)
def test_common_programs_do_not_need_the_library(program):
    assert is_supported(program)
    # Some records have errors, and a few values are left to the library.
    assert any(is_sure(program, record) for record in PEOPLE)
    for record in PEOPLE:
        assert outcome(program, record) == outcome(by_library(program), record)


@pytest.mark.parametrize(
    "program",
    [
        ".a |= 1", "..", "input", "env.HOME", "$ENV", ".a as $x | $x", "def f: 1; f",
        "reduce .[] as $x (0; . + $x)", "@base64", "{(.a): 1}", ".[.a]", "try .a", ".a?//1",
        "-.a", ".a % 2", "1e400", "1.0", "12345678901234567", r'"\u0000"', r'"\ud800"', ".a | 1",
        "., .", ".a # comment", "error", "{a: (1, 2)}", "select(.a, .b)", 'test("a")', "", "(",
        "{a", "'a'", ".a.", ". a", "1.a", "a::b", "{a b}", "1 == 1 == 1", "{a,}", ".[0], .[-1]",
        "(" * 200 + "." + ")" * 200, "\udcff", "if . then 1 else 2 end.a", "first(.a)",
        "length(.a)", ".a.b, .a", "tojson", 'ltrimstr("a")',
    ],
)  # fmt: skip
def test_all_other_programs_are_for_the_library(program):
    assert not is_supported(program)


def test_an_operator_in_an_object_is_checked_by_the_library():
    assert Evaluator("{a: .b // 1}").needs_check
    assert Evaluator("{a: (.b) == 1, c}").needs_check
    assert not Evaluator("{a: (.b // -1) | length, c: -2, d: [1 + .x]}").needs_check


def test_outputs_before_an_unsure_one_come_once():
    found = outcome(".[] | .a", '[{"a": 1}, {"a": 2}, 3, {"a": 4}]')
    assert found == ["1", "2", 'transform: jq: Cannot index number with string ("a")']


def test_only_the_needed_fields_are_decoded():
    """Numbers that make a record unsure do not matter in other fields."""
    record = '{"id": 1, "x": 0.30000000000000001}'
    assert is_sure("{id}", record)
    assert not is_sure("{x}", record)
