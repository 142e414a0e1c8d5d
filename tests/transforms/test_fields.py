"""`fields`: values of new records, and runs with this transform."""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncbatch
from asyncbatch.config.fingerprint import describe, fingerprint
from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.errors import UsageError
from asyncbatch.sinks.target import Target
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.transforms.chain import make_chain
from asyncbatch.transforms.fields import Fields, to_datetime
from asyncbatch.transforms.spec import (
    CallSpec,
    FieldRule,
    FieldsSpec,
    JqSpec,
    RequireSpec,
    TransformSpec,
)


class Here:
    file, record = "a.json", 1
    line: int | None = None

    def context(self) -> Context:
        return Context("a.json", 1)


NOW = 1_767_323_045_006_000_999  # 2026-01-02T03:04:05.006Z, in nanoseconds


def made(record, /, **rules):
    spec = FieldsSpec(tuple(rules.items()))
    (found,) = Fields(spec, lambda: NOW)(record, Here())
    return found


def applied(value, *functions):
    return made({"f": value}, f=FieldRule("f", functions))["f"]


def refusal(value, *functions):
    with pytest.raises(RecordError) as caught:
        applied(value, *functions)
    assert caught.value.kind == "transform"
    return caught.value.message


def test_where_values_come_from():
    record = {"a": {"b": [{"c": 1}]}, "x.y": 2, "": 3, "n": None}
    assert made(
        record,
        nested=FieldRule("a.b.0.c"),
        pointer=FieldRule("/a/b/0/c"),
        dotted=FieldRule("/x.y"),
        empty=FieldRule("/"),
        whole=FieldRule("a.b"),
        missing=FieldRule("a.z.c"),
        beyond=FieldRule("a.b.1"),
        of_text=FieldRule("n.z", ("lower",)),
        default=FieldRule("n", ("lower",), "D"),
        now=FieldRule(now=True),
        value=FieldRule(value=[1]),
    ) == {
        "nested": 1, "pointer": 1, "dotted": 2, "empty": 3, "whole": [{"c": 1}], "missing": None,
        "beyond": None, "of_text": None, "default": "D", "now": "2026-01-02T03:04:05.006000Z",
        "value": [1],
    }  # fmt: skip


def test_now_goes_on():
    ticks = iter([0, 999_999_999, 10**9, 86_400 * 10**9])
    fields = Fields(FieldsSpec((("at", FieldRule(now=True)),)), lambda: next(ticks))
    assert [fields({}, Here())[0]["at"] for _ in range(4)] == [
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:00.999999Z",
        "1970-01-01T00:00:01.000000Z",
        "1970-01-02T00:00:00.000000Z",
    ]


def test_constants_are_not_shared():
    fields = Fields(FieldsSpec((("a", FieldRule(value=[])), ("b", FieldRule("x", (), {})))))
    (first,) = fields({}, Here())
    first["a"].append(1)
    first["b"]["c"] = 1
    assert fields({}, Here()) == ({"a": [], "b": {}},)


@pytest.mark.parametrize(
    ("value", "functions", "expected"),
    [
        (" a b ", ("strip", "title"), "A B"),
        ("Ä", ("lower", "upper"), "Ä"),
        (" -7 ", ("int",), -7),
        (7.0, ("int",), 7),
        (True, ("int",), 1),
        (2**80, ("int",), 2**80),
        ("1e3", ("float",), 1000.0),
        (3, ("float",), 3.0),
        (" Yes", ("bool",), True),
        (0, ("bool",), False),
        ("off", ("bool",), False),
        (1.5, ("str",), "1.5"),
        ({"a": [None]}, ("str",), '{"a":[null]}'),
        ("2024-01-01T10:00:00+02:00", ("datetime",), "2024-01-01T08:00:00Z"),
        ("2024-01-01 10:00:00.5", ("datetime",), "2024-01-01T10:00:00.500000Z"),
        ("20240101", ("datetime",), "2024-01-01T00:00:00Z"),
        (1700000000, ("datetime",), "2023-11-14T22:13:20Z"),
        ("1700000000", ("datetime",), "2023-11-14T22:13:20Z"),
        (1700000000123, ("datetime",), "2023-11-14T22:13:20.123000Z"),
        (1700000000.25, ("datetime",), "2023-11-14T22:13:20.250000Z"),
        (-1, ("datetime",), "1969-12-31T23:59:59Z"),
        ("2024-01-01T01:00:00+02:00", ("date",), "2023-12-31"),
        (' {"a": 1} ', ("json",), {"a": 1}),
        ({"a": 1}, ("json",), {"a": 1}),
        ("12", ("json", "str"), "12"),
    ],
)
def test_functions(value, functions, expected):
    found = applied(value, *functions)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "functions", "told"),
    [
        (5, ("strip",), "field 'f': strip cannot take 5"),
        (5, ("str", "int", "title"), "field 'f': title cannot take 5"),
        ("a", ("strip", "int"), "field 'f': int cannot take \"a\""),
        (7.5, ("int",), "field 'f': int cannot take 7.5: it has a fraction"),
        ("1_000", ("int",), "field 'f': int cannot take \"1_000\""),
        ([1], ("float",), "field 'f': float cannot take [1]"),
        ("nan", ("float",), "field 'f': float cannot take \"nan\""),
        ("1e999", ("float",), ("field 'f': float cannot take \"1e999\": it is beyond double "
                              "precision")),
        (10**400, ("float",), f"field 'f': float cannot take 1{'0' * 59}…"),
        (2, ("bool",), "field 'f': bool cannot take 2"),
        ("", ("bool",), "field 'f': bool cannot take \"\""),
        ("soon", ("datetime",), "field 'f': datetime cannot take \"soon\""),
        (True, ("datetime",), "field 'f': datetime cannot take true"),
        (10**30, ("datetime",), f"field 'f': datetime cannot take 1{'0' * 30}"),
        ("0001-01-01T00:00:00+05:00", ("datetime",), ("field 'f': datetime cannot take "
                                                     '"0001-01-01T00:00:00+05:00"')),
        ("2024-13-01", ("date",), "field 'f': date cannot take \"2024-13-01\""),
        ("[1", ("json",), "field 'f': json cannot take \"[1\": ends early: expected ',' or ']'"),
    ],
)  # fmt: skip
def test_what_functions_cannot_take(value, functions, told):
    assert refusal(value, *functions) == told


def test_a_refusal_names_where_the_value_is_from():
    with pytest.raises(RecordError, match=r"age.* \(from a\.b\): int cannot"):
        made({"a": {"b": "x"}}, age=FieldRule("a.b", ("int",)))


def test_records_that_are_no_objects():
    with pytest.raises(RecordError, match="fields needs an object, not an array"):
        made([], a=FieldRule("a"))


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-1439, 1439))  # noqa: DTZ001 - plus any offset
def test_times_keep_their_instant(naive, minutes):
    offset = timedelta(minutes=minutes)
    hours, rest = divmod(abs(minutes), 60)
    local = f"{naive.isoformat()}{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}"
    assert datetime.fromisoformat(to_datetime(local)) == (naive - offset).replace(tzinfo=UTC)


@given(
    st.integers(-62_000_000_000, 99_999_999_999), st.integers(100_000_000_000, 250_000_000_000_000)
)
def test_epochs(seconds, milliseconds):
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert datetime.fromisoformat(to_datetime(seconds)) - epoch == timedelta(seconds=seconds)
    assert datetime.fromisoformat(to_datetime(milliseconds)) - epoch == timedelta(
        milliseconds=milliseconds
    )


def outputs(record, *specs):
    chain = make_chain(specs)
    assert chain
    text = json.dumps(record).encode()
    return list(chain(text if chain.reads_text else record, Here()))


RENAME = FieldsSpec((("n", FieldRule("a")),))


class TestChains:
    def test_run_in_the_order_written(self):
        assert outputs({"a": 1}, RENAME, JqSpec("., {m: .n}")) == [{"n": 1}, {"m": 1}]
        assert outputs({"a": 1}, JqSpec("., {a: 2}"), RENAME) == [{"n": 1}, {"n": 2}]
        assert outputs({"a": 1}, RequireSpec(("n",), "drop"), RENAME) == []
        assert outputs({"a": 1}, RENAME, RequireSpec(("n",), "drop")) == [{"n": 1}]

    def test_only_what_jq_itself_has_made_of_numbers_is_no_loss(self):
        big = {"a": 2**60 + 1}
        assert outputs(big, JqSpec(".", lossy=True), JqSpec("."))
        with pytest.raises(RecordError, match="beyond 2"):
            outputs(big, RENAME, JqSpec("."))

    def test_bad_paths_are_no_paths(self):
        with pytest.raises(ValueError, match="is not a path"):
            outputs({}, FieldsSpec((("a", FieldRule("a..b")),)))

    @pytest.mark.parametrize("workers", [0, 2])
    async def test_in_worker_processes(self, files, workers):
        text = '[{"a": 1}, {"a": ""}, {"a": "x"}]'
        folder = files({f"{name}.json": text for name in "abc"})
        fields = FieldsSpec((("n", FieldRule("a", ("str", "int"))),))
        target = Target.parse(str(folder / "o.jsonl"))
        transforms = (RequireSpec(("a",), "drop"), fields)
        settings = RecordWorkSettings(transforms=transforms, target=target)
        run = asyncbatch.Run(
            asyncbatch.Job(
                (asyncbatch.FileSource(asyncbatch.Inputs((str(folder),)), settings),),
                workers=workers,
            )
        )
        async with aclosing(run.parts()) as parts:
            found = [outcome async for part in parts for outcome in part.outcomes()]
        assert (folder / "o.jsonl").read_text() == '{"n":1}\n' * 3
        failures = [one for one in found if isinstance(one, asyncbatch.Failure)]
        assert {(one.kind, one.record, one.column) for one in failures} == {("transform", 3, 23)}
        tally = run.report.tally
        assert (tally.read, tally.dropped, tally.rejected) == (9, 3, 3)


class TestFingerprints:
    def test_tell_jobs_apart(self):
        jobs: list[tuple[TransformSpec, ...]] = [
            (), (RENAME,), (FieldsSpec((("m", FieldRule("a")),)),),
            (FieldsSpec((("n", FieldRule("a", ("str",))),)),),
            (RequireSpec(("a",)),), (RequireSpec(("a",), "drop"),),
            (RENAME, RequireSpec(("a",))), (RequireSpec(("a",)), RENAME),
            (JqSpec("."),), (JqSpec(".", lossy=True),), (CallSpec("a.py:f"),),
        ]  # fmt: skip
        found = {fingerprint(RecordWorkSettings(transforms=specs)) for specs in jobs}
        assert len(found) == len(jobs)

    def test_are_described(self):
        specs: tuple[TransformSpec, ...] = (JqSpec("."), RENAME, RequireSpec(("n", "m")))
        described = describe(RecordWorkSettings(transforms=specs))
        assert described == "--jq '.' fields n require n,m"


def test_usage_errors_stay(tmp_path):
    with pytest.raises(UsageError):
        make_chain((JqSpec(".a |"),))
