"""Validation of a text: its record count, or the position of its first error."""

from __future__ import annotations

import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.grammar import Fault, examine
from asyncbatch.formats.positions import locate_byte
from asyncbatch.formats.validator import make_validator


@pytest.fixture(scope="module", params=["simdjson", "orjson", "grammar"])
def validator(request):
    """Each implementation of validation. Their results must be equal."""
    if request.param == "grammar":
        yield examine
        return
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "orjson":
            patch.setitem(sys.modules, "csimdjson", None)
            patch.setitem(sys.modules, "simdjson", None)
        else:
            pytest.importorskip("simdjson")
        yield make_validator()


GOOD = {
    b"[]": 0,
    b"{}": 1,
    b" [1, [2, 3], {}] ": 3,
    b"null": 1,
    b"-0.0e+1": 1,
    b'"\\ud83d\\ude00"': 1,
    b'"\\\\ud800"': 1,
    b"\xef\xbb\xbf[1,2]": 2,
    b'{"a": 1, "a": 2}': 1,
    b"[18446744073709551616, -9223372036854775809]": 2,
    b"9" * 4300: 1,
    b"-" + b"9" * 4299: 1,
    b"1.7976931348623157e308": 1,
    b"1e-400": 1,
    b"[" * 1024 + b"]" * 1024: 1,
    b'{"a":' * 1000 + b"1" + b"}" * 1000: 1,
    '["\u2028é😀\x7f"]'.encode(): 1,
}

BAD = {
    b"": ("empty", 0),
    b" \n": ("empty", 2),
    b"\xef\xbb\xbf": ("empty", 3),
    b"[1,]": ("invalid_json", 3),
    b'{"a":1,}': ("invalid_json", 7),
    b"[1 2]": ("invalid_json", 3),
    b"[1, 2": ("invalid_json", 5),
    b'{"a"': ("invalid_json", 4),
    b'{"a" 1}': ("invalid_json", 5),
    b"{a: 1}": ("invalid_json", 1),
    b"{'a': 1}": ("invalid_json", 1),
    b"[1] x": ("invalid_json", 4),
    b"{}{}": ("invalid_json", 2),
    b"tru": ("invalid_json", 3),
    b"trux": ("invalid_json", 3),
    b"True": ("invalid_json", 0),
    b"NaN": ("invalid_json", 0),
    b"[-Infinity]": ("invalid_json", 2),
    b"01": ("invalid_json", 1),
    b"-01": ("invalid_json", 2),
    b"+1": ("invalid_json", 0),
    b".5": ("invalid_json", 0),
    b"1.": ("invalid_json", 2),
    b"1.x": ("invalid_json", 2),
    b"1e": ("invalid_json", 2),
    b"1e+": ("invalid_json", 3),
    b"-": ("invalid_json", 1),
    b"0x10": ("invalid_json", 1),
    b'"abc': ("invalid_json", 4),
    b'"a\nb"': ("invalid_json", 2),
    b'"\x00"': ("invalid_json", 1),
    b'"\\x"': ("invalid_json", 2),
    b'"\\u12g4"': ("invalid_json", 5),
    b'"\\u12': ("invalid_json", 5),
    b'"\\ud800"': ("invalid_json", 1),
    b'["\\udc00"]': ("invalid_json", 2),
    b'"\\ud800\\ud800"': ("invalid_json", 1),
    b'{"\\ud83d": 1}': ("invalid_json", 2),
    b"// no\n1": ("invalid_json", 0),
    b"[1, /* no */ 2]": ("invalid_json", 4),
    b"\x0c1": ("invalid_json", 0),
    b"[1]\x00": ("invalid_json", 3),
    b"[}": ("invalid_json", 1),
    b"]": ("invalid_json", 0),
    b"\xef\xbb\xbf[1,]": ("invalid_json", 6),
    b"9" * 4301: ("invalid_json", 0),
    b"-" + b"9" * 4300: ("invalid_json", 0),  # msgspec, which decodes it, counts the sign
    b"[1e400]": ("invalid_json", 1),
    b'"\xff"': ("encoding", 1),
    b'"caf\xe9"': ("encoding", 4),
    b'"\xed\xa0\x80"': ("encoding", 1),
    b'"\xc0\xaf"': ("encoding", 1),
    b'[1,] "\xff"': ("invalid_json", 3),
    b"\xff\xfe[\x00]\x00": ("encoding", 0),
    b"[" * 1025 + b"]" * 1025: ("too_deep", 1024),
    b'{"a":' * 1025: ("too_deep", 5 * 1024),
}


@pytest.mark.parametrize("text", GOOD)
def test_good_text_gives_its_count(validator, text):
    assert validator(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_bad_text_gives_its_first_fault(validator, text):
    verdict = validator(text)
    assert isinstance(verdict, Fault)
    assert (verdict.kind, verdict.byte) == BAD[text]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (b"{'a': 1}", "double quotes"),
        (b"[NaN]", "NaN"),
        (b"[1, // x\n2]", "comments"),
        (b"[1,]", "trailing comma"),
        (b'["a\\x"]', "\\ before 'x' is no JSON escape"),
        (b'["a\\u12g4"]', "needs four hexadecimal digits, not 'g'"),
        (b'["\\u000]', "needs four hexadecimal digits, not ']'"),
        (b"007", "leading zeros"),
        (b'{"a": True}', "true"),
        (b"{}\n{}\n", "--input-format jsonl"),
        (b"\xff\xfe[\x00", "UTF-16"),
    ],
)
def test_message_says_what_to_do(text, hint):
    verdict = examine(text)
    assert isinstance(verdict, Fault)
    assert hint in verdict.message


def strict_count(text: bytes) -> int | None:
    """Return the record count by the standard library, made strict; None if invalid."""

    def refuse(_):
        raise ValueError

    def finite(number):
        return refuse(number) if math.isinf(float(number)) else float(number)

    try:
        decoded = text.decode("utf-8")
        value = json.loads(
            decoded.removeprefix("\ufeff"), parse_constant=refuse, parse_float=finite
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # UTF-8 has no lone surrogates
    except ValueError:
        return None
    return len(value) if isinstance(value, list) else 1


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
texts = st.builds(
    lambda value, escaped, indent: json.dumps(value, ensure_ascii=escaped, indent=indent).encode(
        "utf-8", "surrogatepass"
    ),
    values,
    st.booleans(),
    st.sampled_from([None, 1]),
)
splits = st.sampled_from(
    [b"", b",", b"]", b"[", b"}", b"{", b'"', b"\\", b"0", b"-", b".", b"e5", b"\n", b" ", b":",
     b"\xff", b"\xc3", b"NaN", b"\\ud800", b"\\u00e9", b"null", b"\x00", b"\xef\xbb\xbf"]
)  # fmt: skip


@st.composite
def mutated(draw):
    text = draw(texts)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 4)))
        text = text[:start] + draw(splits) + text[end:]
    return text


@given(texts | mutated() | st.binary(max_size=12))
def test_verdict_and_count_equal_the_standard_library(validator, text):
    verdict = validator(text)
    assert (None if isinstance(verdict, Fault) else verdict) == strict_count(text)


@pytest.mark.parametrize("ending", [b'"]', b'\\x"]', b"\n"])
def test_strings_of_many_escapes(ending):
    text = b'["' + rb"a\n\u00e9" * 30_000 + ending
    at = text.index(ending)
    expected = {b'"]': 1, b'\\x"]': at + 1, b"\n": at}[ending]
    found = examine(text)
    assert (found.byte if isinstance(found, Fault) else found) == expected


LIMITS = ("surrogate", "double precision", "digits; the limit")
"""Words of faults in what is JSON but beyond the limits: these are placed at its first byte."""


@given(mutated(), st.binary(max_size=6))
def test_fault_is_where_the_text_stops_being_a_beginning(text, other_end):
    verdict = examine(text)
    if not isinstance(verdict, Fault) or any(word in verdict.message for word in LIMITS):
        return
    before = examine(text[: verdict.byte])
    assert not isinstance(before, Fault) or before.byte == verdict.byte
    if verdict.kind == "invalid_json" and verdict.byte < len(text):
        goes_on = examine(text[: verdict.byte + 1] + other_end)
        assert isinstance(goes_on, Fault)
        if "UTF-16" not in goes_on.message:  # as b"n\0" does, of b"n\0ull"
            assert goes_on.byte == verdict.byte


@given(st.text(alphabet="aé😀\n\r", max_size=20), st.booleans())
def test_place_counts_like_an_editor(text, marked):
    data = ("\ufeff" * marked + text).encode()
    for at in range(len(text) + 1):
        byte = len(("\ufeff" * marked + text[:at]).encode())
        line = text.count("\n", 0, at) + 1
        column = at - (text.rfind("\n", 0, at) + 1) + 1
        assert locate_byte(data, byte) == (line, column, byte)


@pytest.mark.parametrize("member", [b'"k":1,', b' "k" : "\xc3\xa9",\n', b'"k":[1,-0.5,null,true],'])
def test_an_error_after_many_plain_members(member):
    members = member * 10_500  # more than one match of the grammar takes
    at = 1 + len(members)
    assert fault_of(b"{" + members + b"1}").byte == at
    trailing = fault_of(b"{" + members + b"}")
    assert (trailing.byte, trailing.message) == (at, "trailing comma before '}'")
    assert fault_of(b"[{" + members + b'"k":01}]').byte == at + len(b'["k":0')


def fault_of(text):
    found = examine(text)
    assert isinstance(found, Fault)
    return found


def test_plain_elements_are_counted_only_at_the_top():
    text = b"[" + b"[1,2,3,4]," * 300 + b"5,6,7]"
    assert examine(text) == 303
