"""User functions as transforms: loading, calls, results and errors."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import pytest

from asyncbatch.errors import UsageError
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.transforms.call import AsyncCall, Call, is_async
from asyncbatch.transforms.load import load_function


class Here:
    """The position of a record."""

    file, record = "a.json", 3
    line: int | None = 7

    def context(self) -> Context:
        return Context("a.json", 3, 7)


def outputs(function, value=None):
    return list(Call(function)({"a": 1} if value is None else value, Here()))


def rejection(function) -> RecordError:
    with pytest.raises(RecordError) as caught:
        outputs(function)
    assert caught.value.kind == "transform"
    return caught.value


async def outputs_async(function):
    return [item async for item in AsyncCall(function).outputs({"a": 1}, Here())]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A temporary folder as the current one; modules from it are unloaded at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def several(record):
    yield record
    yield None
    yield [record]


async def wait(record):
    return record


async def wait_for_several(record):
    yield record
    yield None
    yield [record]


class Waiter:
    async def __call__(self, record):
        return record


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda record: record, [{"a": 1}]),
        (lambda _: None, []),
        (lambda _: [1, None, [2]], [1, [2]]),
        (lambda _: (1, 2), [1, 2]),
        (lambda _: iter((1, None, 2)), [1, 2]),
        (several, [{"a": 1}, [{"a": 1}]]),
        (lambda record, context: [record["a"], context.file, context.line], [1, "a.json", 7]),
        (lambda _, context=None: context.record, [3]),
        (lambda _, currency="EUR": currency, ["EUR"]),
        (lambda *arguments: len(arguments), [1]),
        (lambda _, *, flag=1: flag, [1]),
        (functools.partial(lambda factor, record: record["a"] * factor, 3), [3]),
        (len, [1]),
        (dict, [{"a": 1}]),
        (lambda _: 0, [0]),
        (lambda _: "", [""]),
    ],
)
def test_a_function_makes_records(function, expected):
    assert outputs(function) == expected


def test_a_record_may_be_changed_in_place():
    def change(record):
        record["b"] = (2,)
        return record

    assert outputs(change) == [{"a": 1, "b": [2]}]


@pytest.mark.parametrize("function", [lambda: 1, lambda *, a: a, lambda a, b, c: (a, b, c)])
def test_a_function_that_takes_no_record_is_refused(function):
    with pytest.raises(UsageError, match="cannot be called with a record"):
        Call(function)


def test_an_exception_rejects_the_record():
    def look(record):
        return record["b"]

    error = rejection(look)
    assert error.message == "KeyError: 'b'"
    assert error.detail is not None
    assert error.detail.startswith("Traceback")
    assert error.detail.count("File ") == 1
    assert 'record["b"]' in error.detail


def test_so_does_one_without_a_message_or_a_readable_one():
    class OddError(Exception):
        def __str__(self):
            raise ValueError

    def nothing(_):
        raise ValueError

    def odd(_):
        raise OddError

    assert rejection(nothing).message == "ValueError"
    assert rejection(odd).message == "OddError"


def test_so_does_leaving():
    assert rejection(lambda _: sys.exit("bye")).message == "SystemExit: bye"


def test_not_even_an_interrupt_goes_through():
    def interrupted(_):
        raise KeyboardInterrupt

    assert rejection(interrupted).message == "KeyboardInterrupt"


def test_many_calls_are_as_many_results_whatever_is_raised():
    def moody(value):
        if value % 3 == 0:
            raise (ValueError, StopIteration, KeyboardInterrupt)[value // 3 % 3](value)
        return value

    many = Call(moody).many
    assert many is not None
    results = [
        str(result) if isinstance(result, Exception) else result for result in many(range(9))
    ]
    kinds = ["ValueError: 0", "StopIteration", "KeyboardInterrupt: 6"]
    assert [result for result in results if isinstance(result, int)] == [1, 2, 4, 5, 7, 8]
    assert all(kind in found for kind, found in zip(kinds, results[::3], strict=True))


def test_an_exception_midway_comes_after_what_went_before():
    def one_and_a_half(record):
        yield record
        raise ValueError("half")

    drawn = iter(Call(one_and_a_half)(1, Here()))
    assert next(drawn) == 1
    with pytest.raises(RecordError, match="ValueError: half"):
        next(drawn)


@pytest.mark.parametrize("function", [lambda _: {1}, lambda _: [{1}], lambda _: iter([{1}])])
def test_what_json_cannot_hold_rejects_the_record(function):
    assert rejection(function).message == "returned a set, which JSON cannot hold"


def test_a_coroutine_from_a_plain_function_is_told():
    assert "async def" in rejection(lambda _: wait(1)).message


@pytest.mark.parametrize(
    "function",
    [
        wait,
        wait_for_several,
        functools.partial(functools.partial(wait)),
        Waiter(),
        functools.partial(Waiter()),
        Waiter().__call__,
        wrapped(wait),
    ],
)
def test_async_functions_are_known(function):
    assert is_async(function)


@pytest.mark.parametrize("function", [several, len, dict, Waiter, wrapped(several), print])
def test_others_are_not_async(function):
    assert not is_async(function)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (wait, [{"a": 1}]),
        (wait_for_several, [{"a": 1}, [{"a": 1}]]),
        (Waiter(), [{"a": 1}]),
        (wrapped(wait), [{"a": 1}]),
        (several, [{"a": 1}, [{"a": 1}]]),
    ],
)
async def test_async_functions_make_records(function, expected):
    assert await outputs_async(function) == expected


async def test_async_exceptions_reject_the_record():
    async def late(record):
        yield record
        raise ValueError("late")

    async def leave(_):
        sys.exit(3)

    for function, message in ((late, "ValueError: late"), (leave, "SystemExit: 3")):
        with pytest.raises(RecordError) as caught:
            await outputs_async(function)
        assert caught.value.message == message


async def test_an_abandoned_async_generator_is_closed():
    closed = []

    async def endless(_):
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    drawn = AsyncCall(endless).outputs(1, Here())
    assert await anext(drawn) == 1
    await drawn.aclose()
    assert closed


def test_functions_are_found_in_modules_and_files(home: Path):
    (home / "sub").mkdir()
    (home / "tools.py").write_text("class Kit:\n    def clean(self, r): return r\nkit = Kit()\n")
    (home / "sub" / "helper.py").write_text("FACTOR = 2\n")
    (home / "sub" / "my-fn.py").write_text(
        "import pickle\nfrom dataclasses import dataclass\nfrom helper import FACTOR\n"
        "@dataclass\nclass P:\n    x: int\n"
        "def double(r): return pickle.loads(pickle.dumps(P(r['a'] * FACTOR)))\n"
    )
    assert outputs("tools:kit.clean") == [{"a": 1}]
    assert load_function("tools.py:Kit") is load_function("tools:Kit")
    assert outputs("sub/my-fn.py:double") == [{"x": 2}]
    assert load_function("sub/my-fn.py:P") is load_function(f"{home}/sub/my-fn.py:P")


def test_a_file_may_have_the_name_of_a_known_module(home: Path):
    (home / "json.py").write_text("def clean(r): return 'mine'\n")
    assert outputs("json.py:clean") == ["mine"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("clean", "write MODULE:FUNCTION"),
        (":clean", "write MODULE:FUNCTION"),
        ("nope.py:clean", "nope.py: no such file"),
        ("nope:clean", "no module 'nope'"),
        ("tools:claen", "did you mean 'clean'?"),
        ("tools:zzz", "it has clean"),
        ("tools:NUMBER", "is 'int', not a function"),
        ("broken.py:f", "broken.py:2:"),
        ("broken:f", "SyntaxError"),
        ("raises.py:f", "RuntimeError: oh (HOME/raises.py:3)"),
        ("leaves:f", "SystemExit: 3"),
        ("needs:f", "No module named 'not_installed' (HOME/needs.py:1)"),
    ],
)
def test_what_cannot_be_found_is_told(home: Path, spec, words):
    (home / "tools.py").write_text("NUMBER = 3\ndef clean(r): return r\n")
    (home / "broken.py").write_text("x = 1\ndef f(:\n")
    (home / "raises.py").write_text("def g():\n    # here\n    raise RuntimeError('oh')\ng()\n")
    (home / "leaves.py").write_text("raise SystemExit(3)\n")
    (home / "needs.py").write_text("import not_installed\n")
    with pytest.raises(UsageError) as caught:
        load_function(spec)
    assert words.replace("HOME", os.fspath(home)) in str(caught.value)
