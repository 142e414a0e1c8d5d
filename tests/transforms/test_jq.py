"""The transform `jq`."""

from __future__ import annotations

import itertools
import json
import sqlite3
from contextlib import closing
from decimal import Decimal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncbatch.errors import UsageError
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.transforms.jq.transform import Jq
from tests.conftest import python


class Here:
    """A position of a record, which these transforms do not use."""

    file, record = "a.json", 1
    line: int | None = None

    def context(self) -> Context:
        return Context("a.json", 1)


def outputs(program, text: bytes | str | msgspec.Raw = b'{"a": 1}', **settings):
    return list(Jq(program, **settings)(text, Here()))


def rejection(program, text: bytes | str = b'{"a": 1}', **settings) -> str:
    with pytest.raises(RecordError) as caught:
        outputs(program, text, **settings)
    assert caught.value.kind == "transform"
    return caught.value.message


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (".a", [1]),
        ("objects | {id: .a}", [{"id": 1}]),
        ("empty", []),
        (".a, .b", [1, None]),
        (".a # the end", [1]),
        ("# first\ndef f: .a;\nf", [1]),
        ("nan, infinite", [None, 1.7976931348623157e308]),
        ('try error("x") catch .', ["x"]),
        ("label $out | 1, break $out, 2", [1]),
        ("def input: 7; input", [7]),
        ("{input: .a}", [{"input": 1}]),
        ("debug, stderr", [{"a": 1}, {"a": 1}]),
    ],
)
def test_a_program_makes_records(program, expected):
    assert outputs(program) == expected


@pytest.mark.parametrize("text", ["[1]", b"[1]", memoryview(b"[1]"), msgspec.Raw(b"[1]")])
def test_any_form_of_text_will_do(text):
    assert outputs(".[0]", text) == [1]


def test_outputs_come_as_they_are_made():
    assert list(itertools.islice(Jq("range(1e9)")(b"1", Here()), 3)) == [0, 1, 2]


def test_an_error_midway_comes_after_what_went_before():
    run = iter(Jq('1, error("oh")')(b"null", Here()))
    assert next(run) == 1
    with pytest.raises(RecordError, match="oh"):
        next(run)


def test_a_program_goes_on_after_an_error():
    program = Jq(".[] | error")
    for _ in range(3):
        with pytest.raises(RecordError):
            list(program(b"[1, 2]", Here()))
    assert list(program(b"[]", Here())) == []


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (".a.b", 'Cannot index number with string ("b")'),
        ("error({a: 1})", '{"a": 1}'),
        ("error(null)", "null"),
        ("input", "there is no further input"),
        ("[inputs]", "there is no further input"),
        ("halt", "halt cannot stop a run"),
        ('"bye" | halt_error', "bye"),
        ('"bye" | halt_error(3)', "bye"),
        ('"m" | modulemeta', "modules are not available"),
        ('"a" | test("(")', "Regex failure"),
    ],
)
def test_a_program_that_fails_rejects_the_record(program, words):
    assert words in rejection(program)


def test_a_long_error_is_cut():
    assert len(rejection('error("x" * 100000)')) < 600


@pytest.mark.parametrize("program", ["env", "$ENV", "def f: $ENV; f", "env as $e | $e"])
def test_the_environment_is_hidden(program, monkeypatch):
    monkeypatch.setenv("SECRET", "s")
    assert outputs(program) == [{}]
    assert outputs(f"({program}).SECRET", env=True) == ["s"]


@pytest.mark.parametrize(
    ("program", "line", "column", "words", "marked"),
    [
        (".a | foo(1)", 1, 6, "foo/1 is not defined", "foo"),
        (".a\n| bar", 2, 3, "bar/0 is not defined", "bar"),
        ('"日本" | foo', 1, 8, "foo/0 is not defined", "foo"),
        ("\t.a | $x", 1, 7, "$x is not defined", "$x"),
        (".a |", 1, 5, "unexpected end of the program", " "),
        ("\n\n.a[", 3, 4, "unexpected end of the program", " "),
        ('{a: "b', 1, 6, "a string is not closed", "b"),
        (".) | 1", 1, 2, "unexpected ')'", ")"),
        ("break $x", 1, 1, "there is no label $x to break to", "break $x"),
        ('.a "b"', 1, 4, "unexpected string", '"'),
    ],
)
def test_a_program_that_does_not_compile_shows_its_place(program, line, column, words, marked):
    with pytest.raises(UsageError) as caught:
        Jq(program)
    _, complaint, shown, caret, *_ = str(caught.value).split("\n")
    assert complaint.startswith(f"line {line}, column {column}: {words}")
    assert shown.strip() == program.split("\n")[line - 1].strip()
    if program.isascii():
        at = caret.index("^")
        assert shown[at : at + caret.count("^")] == marked.strip() or marked == " "


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("", "not given"),
        ("# nothing", "not given"),
        ('import "m" as m; .', "cannot import modules"),
        ('# c\n include "m"; .', "cannot import modules"),
        ("module {}; .", "cannot import modules"),
        ("a\0b", "NUL"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_what_is_no_program_is_refused(program, words):
    with pytest.raises(UsageError, match=words):
        Jq(program)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"9007199254740993", "9007199254740993"),
        (b'{"a": [-9007199254740993]}', "-9007199254740993"),
        (b'["1234567890123456789", 1.5e3,12345678901234567890]', "12345678901234567890"),
        (b'{"\\"": 12345678901234567890}', "12345678901234567890"),
        (b"[" * 1024 + b"12345678901234567890" + b"]" * 1024, "12345678901234567890"),
    ],
)
def test_integers_that_jq_would_round_are_refused(text, number):
    assert f"integer {number} " in rejection("1", text)
    assert outputs("1", text, lossy=True) == [1]


@example(["1, 12345678901234567890 ,", '"', "\\"], [0.12345678901234567, 1e300, 2**53])
@given(
    st.lists(st.text('0123456789,: "\\[]{}e.-', max_size=40)),
    st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)),
)
def test_no_other_digits_are(texts, numbers):
    text = json.dumps([texts, numbers])
    assert outputs(".[0]", text) == [texts]


@pytest.mark.parametrize(
    "program",
    [
        ".s | tonumber",
        ".j | fromjson | .[0]",
        "{n: (.s | tonumber)} | .n",
        "[.s | tonumber] | add",
        "[[.s | tonumber], []] | first | .[]",
        "null, (.s | tonumber) | numbers  # and a remark \\",
        "def tojson: 1; .s | tonumber",
    ],
)
@given(st.integers(-(10**25), 10**25) | st.integers(-(10**400), 10**400))
def test_integers_made_of_text_keep_their_digits(program, number):
    text = json.dumps({"s": str(number), "j": f"[{number}]"})
    found = outputs(program, text)
    assert found == [number]
    assert type(found[0]) is int


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1))
def test_each_output_has_its_own_digits(numbers):
    program = Jq(".[] | tonumber | {n: ., s: tojson}")
    text = json.dumps([str(number) for number in numbers])
    expected = [{"n": number, "s": str(number)} for number in numbers]
    for _ in range(3):  # with and without the memory of the record before
        assert list(program(text, Here())) == expected
        assert list(program('["1"]', Here())) == [{"n": 1, "s": "1"}]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("1234567890123456789", 1234567890123456789),
        ("-12345678901234567890", -12345678901234567890),
        ("1e17, 1e18 + 0 | [.]", [10**17]),
        ("1e300", 1e300),
        ("pow(2; 53) + 2", 2**53 + 2),
        ("100000000000000000 * 3", 3 * 10**17),
        ("[pow(2; 60), 36028797018963968 * 1]", [2**60, 2**55]),
        ("1234567890123456800", 1234567890123456800),
        ('"-1234567890123456800" | tonumber', -1234567890123456800),
        ("infinite", 1.7976931348623157e308),
        ("[1.5, -0.0, 12345678901234567890, true, null]", [1.5, 0, 12345678901234567890, 1, None]),
    ],
)
def test_numbers_of_a_program_are_those_that_jq_prints(program, expected):
    assert outputs(program)[0] == expected
    assert type(outputs(program)[0]) is type(expected)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ('"1e400" | tonumber', "beyond double precision"),
        ('"1" * 5000 | tonumber', "digits"),
        ('1, 1234567890123456789, error("x")', "jq: x"),
        ("1234567890123456789 + 1", "probably rounded"),
        ('"1234567890123456800" | tonumber - 0', "probably rounded"),
        ("[1, {n: (1234567890123456800, -1234567890123456789 * 1)}]", "probably rounded"),
        ("1732874584123456789 | floor", "probably rounded"),
    ],
)
def test_numbers_that_cannot_be_kept_reject_the_record(program, reason):
    assert reason in rejection(program)


@given(st.integers(2**53, 2**63), st.sampled_from(["+ 0", "* 1", "| floor"]))
def test_a_calculation_gives_what_jq_prints_or_rejects(number, rest):
    """The exact double, if jq prints it exactly or it has few bits, else a rejection."""
    program, text = f"(.s | tonumber) {rest}", json.dumps({"s": str(number)})
    double = int(float(number))
    bits = double.bit_length() - (double & -double).bit_length() + 1
    if Decimal(repr(float(number))) == double or bits <= 40:
        assert outputs(program, text) == [double]
    else:
        assert "probably rounded" in rejection(program, text)


@given(st.integers(10**15, 10**17), st.sampled_from([10, 100, 1000]))
def test_ids_that_end_with_zeros_are_kept(number, factor):
    text = json.dumps({"s": str(number * factor)})
    assert outputs("[.s | tonumber]", text) == [[number * factor]]


def test_a_second_program_passes_on_what_the_first_has_made(run, files, tmp_path):
    ids = [str(1234567890123456781 + number) for number in range(5)]
    files({"a.jsonl": "".join(json.dumps({"id_str": one}) + "\n" for one in ids)})
    programs = ("--jq", "{id: (.id_str | tonumber)}", "--jq", "., empty")
    assert run("a.jsonl", *programs, "--to", "-").stdout.split() == [f'{{"id":{i}}}' for i in ids]
    outcome = run("a.jsonl", *programs, "--to", "sqlite:///o.db", "--table", "t", "--key", "id")
    assert outcome.code == 0
    with closing(sqlite3.connect(tmp_path / "o.db")) as table:
        assert [str(i) for (i,) in table.execute("SELECT id FROM t ORDER BY id")] == ids


def test_nesting_is_no_obstacle():
    text = b"[" * 1024 + b"]" * 1024
    (found,) = outputs(".", text)
    assert msgspec.json.encode(found) == text


def test_nothing_reaches_the_terminal_or_ends_the_process():
    program = (
        "from asyncbatch.transforms.jq.transform import Jq\n"
        "for text in ('debug', 'stderr', 'halt?', '\"x\" | halt_error(3)?'):\n"
        "    list(Jq(text)(b'1', None))\n"
        "print('alive')"
    )
    done = python(program)
    assert (done.stdout, done.stderr) == ("alive\n", "")
