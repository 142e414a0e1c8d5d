"""The user's own columns: each value is kept as it is, or rejected with the reason."""

from __future__ import annotations

import json
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncbatch.sinks.columns.exactness import is_changed_by_float32, is_rounded

Json: TypeAlias = str | float | bool
# Whether a type keeps a value: the text that the server shows, or a word of the message.
KEPT: dict[str, list[tuple[Json, str]]] = {
    "timestamp": [
        ("2026-01-01T12:00:00", "2026-01-01 12:00:00"),
        ("2026-01-01 12:00", "2026-01-01 12:00:00"),
        ("2026-01-01T12:00:00.1234560", "2026-01-01 12:00:00.123456"),
        ("20260101T120000", "2026-01-01 12:00:00"),
        ("infinity", "infinity"),
        ("2026-01-01", "2026-01-01 00:00:00"),
        ("9999-12-31T23:59:59.999999", "9999-12-31 23:59:59.999999"),
    ],
    "timestamp(3)": [("2026-01-01T12:00:00.123", "2026-01-01 12:00:00.123")],
    "timestamptz": [
        ("2026-01-01T12:00:00.123456Z", "2026-01-01 12:00:00.123456+00"),
        ("2026-01-01 12:00+02", "2026-01-01 10:00:00+00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31 23:59:59.999999+00"),
        ("9999-12-31T23:00:00-05:00", "10000-01-01 04:00:00+00"),
        ("infinity", "infinity"),
    ],
    "timestamptz(0)": [("2026-01-01T12:00:00.000Z", "2026-01-01 12:00:00+00")],
    "date": [
        ("2026-01-01", "2026-01-01"),
        ("20260101", "2026-01-01"),
        ("Jan 1, 2026", "2026-01-01"),
        ("1-Feb-2026", "2026-02-01"),
        ("2026-01-01T00:00:00", "2026-01-01"),
    ],
    "time": [("12:00", "12:00:00"), ("12:00:00.5", "12:00:00.5")],
    "time(0) with time zone": [("12:00+02", "12:00:00+02")],
    "interval": [("1 day 2 hours", "1 day 02:00:00"), ("1.5 seconds", "00:00:01.5")],
    "real": [
        (0.1, "0.1"),
        (1.5, "1.5"),
        (-0.0, "-0"),
        (16777216, "1.6777216e+07"),
        ("0.25", "0.25"),
        (1e30, "1e+30"),
        ("NaN", "NaN"),
        (1, "1"),
    ],
    "numeric(5,2)": [
        (1.25, "1.25"),
        (100, "100.00"),
        ("1.50", "1.50"),
        (0.0, "0.00"),
        ("NaN", "NaN"),
    ],
    "numeric(5,-2)": [(1200, "1200"), (0, "0")],
    "integer": [(1.0, "1"), (7, "7"), (100000.0, "100000"), ("5", "5")],
    "smallint": [(3.0, "3")],
    "money": [(1.25, "$1.25"), ("$5", "$5.00")],
    "varchar(3)": [("abc", "abc"), ("ab ", "ab "), (123, "123")],
    "char(3)": [("a", "a"), ("abc", "abc")],
    "bit(3)": [("101", "101")],
    "bit varying(3)": [("10", "10")],
    '"char"': [("a", "a")],
    "name": [
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        )
    ],
    "json": [("5", '"5"'), (5, "5"), (True, "true"), (2.5, "2.5"), ('{"a": 1}', '"{\\"a\\": 1}"')],
    "date[]": [("{2026-01-01}", "{2026-01-01}")],
    "numeric(5,2)[]": [("{1.25,NULL}", "{1.25,NULL}")],
    "daterange": [("[2026-01-01,2026-02-01)", "[2026-01-01,2026-02-01)")],
    "price": [(1.25, "1.25")],
    "code": [("abc", "abc")],
}
LOST: dict[str, list[tuple[Json, str]]] = {
    "timestamp": [
        ("2026-01-01T12:00:00+02:00", "time zone"),
        ("2026-01-01T12:00:00Z", "time zone"),
        ("2026-01-01 12:00 EST", "time zone"),
        ("2026-01-01 12:00 Europe/Berlin", "time zone"),
        ("20260101T120000Z", "time zone"),
        ("2026-01-01T12:00:00.123456789", "round"),
        ("9999-12-31T23:59:59.9999999", "round"),
        ("2026-06-30T23:59:60", "move"),
        ("now", "clock"),
        (" Tomorrow", "clock"),
        ("today 12:00", "clock"),
    ],
    "timestamp(3)": [
        ("2026-01-01T12:00:00.1234", "round"),
        ("2026-01-01T12:00:00.123Z", "time zone"),
    ],
    "timestamptz": [
        ("2026-01-01T12:00:00.123456789Z", "round"),
        ("9999-12-31T23:59:59.9999999Z", "round"),
        ("now", "clock"),
    ],
    "timestamptz(0)": [("2026-01-01T12:00:00.5Z", "round")],
    "date": [
        ("2026-01-01T12:00:00", "time of day"),
        ("2026-01-01 23:59", "time of day"),
        ("2026-01-01T00:00:00Z", "time zone"),
        ("2026-01-01T00:00:00.1", "round"),
        ("2026-01-01Z", "time zone"),
        ("2026-01-01+02", "time zone"),
        ("yesterday", "clock"),
    ],
    "time": [
        ("12:00:00+02", "time zone"),
        ("2026-01-01T12:00:00", "date"),
        ("12:00:00.1234567", "round"),
        ("now", "clock"),
    ],
    "time(0) with time zone": [("12:00:00.5+02", "round"), ("2026-01-01 12:00+02", "date")],
    "interval": [("0.1234567 seconds", "round")],
    "real": [
        (True, "invalid input"),
        (1e300, "round"),
        (16777217, "round"),
        (0.123456789, "round"),
        (3.141592653589793, "round"),
        ("0.1234567891", "round"),
    ],
    "numeric(5,2)": [(1.005, "round"), ("1.005", "round"), (True, "invalid input")],
    "numeric(5,-2)": [(1234, "round")],
    "integer": [
        (1.5, "invalid input"),
        (1099511627776, "out of range"),
        (1e300, "invalid input"),
        ("true", "invalid input"),
        (True, "invalid input"),
    ],
    "smallint": [(70000, "out of range"), (False, "invalid input")],
    "money": [(1.255, "round")],
    "varchar(3)": [("abc ", "cut"), ("abcd", "too long")],
    "char(3)": [("a ", "blanks"), ("abc  ", "blanks")],
    "bit(3)": [("10", "does not match"), ("1011", "does not match")],
    "bit varying(3)": [("1011", "too long")],
    '"char"': [("ab", "cut")],
    "name": [("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "cut")],
    "json": [],
    "date[]": [("{2026-01-01 12:00}", "time of day"), ('{"now"}', "clock")],
    "numeric(5,2)[]": [("{1.25,1.005}", "round")],
    "daterange": [("[2026-01-01 12:00,)", "time of day")],
    "price": [(1.005, "round")],
    "code": [("abc ", "cut"), ("abcd", "too long")],
}
DOMAINS = (
    "CREATE DOMAIN price AS numeric(5, 2); CREATE DOMAIN short AS varchar(3);"
    " CREATE DOMAIN code AS short CHECK (VALUE <> '')"
)


@pytest.mark.parametrize("contract", ["evolve", "freeze"])
@pytest.mark.parametrize("neighbours", ["one by one", "together"])
@pytest.mark.parametrize("declared", KEPT)
def test_a_value_is_kept_or_rejected_and_nothing_else(load, sql, declared, neighbours, contract):
    sql(f"{DOMAINS}; CREATE TABLE t (n bigint, \"value\" {declared}); SET timezone = 'UTC'")
    kept, lost = KEPT[declared], LOST[declared]
    values = [value for value, _ in kept + lost]
    records = [{"n": number, "value": value} for number, value in enumerate(values)]
    more = ("--batch-size", "1", "--load-batch", "1") if neighbours == "one by one" else ()
    report = load(records, "--schema-contract", contract, *more)
    shown = dict(sql("SELECT n, value::text FROM t"))
    assert shown == dict(enumerate(text for _, text in kept))
    told = {failure["record"] - 1: failure["message"] for failure in report["failures"]}
    assert sorted(told) == list(range(len(kept), len(values)))
    for number, (_, word) in enumerate(lost, len(kept)):
        assert word in told[number]
        assert "column value" in told[number] or "SQLSTATE" in told[number]


def test_the_last_instant_of_a_new_column_is_not_infinity(load, sql):
    times = {
        "9999-12-31T23:59:59.999999Z": "9999-12-31 23:59:59.999999+00",
        "9999-12-31T18:59:59.999999-05:00": "9999-12-31 23:59:59.999999+00",
        "9999-12-31T23:30:00-05:00": "10000-01-01 04:30:00+00",
        "1000-01-01T00:00:00Z": "1000-01-01 00:00:00+00",
        "2026-01-01T00:00:00Z": "2026-01-01 00:00:00+00",
    }
    load([{"id": n, "at": at} for n, at in enumerate(times)], "--key", "id")
    load([{"id": n, "at": at} for n, at in enumerate(times)], "--key", "id", name="again.jsonl")
    query = "SELECT at::text, isfinite(at), pg_typeof(at)::text FROM t ORDER BY id"
    found = sql(query)
    assert found == [(shown, True, "timestamp with time zone") for shown in times.values()]


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**33), 2**33),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.decimals(-999, 999, places=3).map(float),
    st.sampled_from(["1", "1.0", "x", "", " ", "2026-01-01", "true"]),
)
OWN = ("integer", "smallint", "real", "numeric(6,2)", "varchar(4)", "char(4)", "date", "json")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, min_size=1, max_size=8), st.sampled_from(OWN))
def test_the_verdict_on_a_value_does_not_depend_on_its_neighbours(
    server, run, tmp_path, values, declared
):
    """The same values, in one load and each in its own, give the same rows and rejections."""
    server.execute(
        f"DROP TABLE IF EXISTS o, p; CREATE TABLE o (n bigint, v {declared});"
        " CREATE TABLE p (LIKE o)"
    )
    lines = "".join(json.dumps({"n": n, "v": v}) + "\n" for n, v in enumerate(values))
    (tmp_path / "in.jsonl").write_text(lines)
    told = []
    for table, more in (("o", ()), ("p", ("--load-batch", "1"))):
        options = ("--table", table, "--output", "json", "-w", "0", "--force", *more)
        report = run("in.jsonl", "--to", server.url(), *options).json
        told.append([(one["record"], one["message"]) for one in report["failures"]])
    rows = server.execute("SELECT n, v::text FROM o ORDER BY n")
    assert rows == server.execute("SELECT n, v::text FROM p ORDER BY n")
    assert [record for record, _ in told[0]] == [record for record, _ in told[1]]


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_single_precision_numbers_are_kept(number):
    assert not is_changed_by_float32(repr(number))


@pytest.mark.parametrize("text", ["3.4028235e38", "1e-45", "0", "-0.0", "NaN", "x", "0.1"])
def test_the_edges_of_single_precision(text):
    assert not is_changed_by_float32(text)


@given(st.integers(-(10**9), 10**9), st.integers(0, 6), st.integers(0, 6))
def test_decimals_fit_their_places(number, have, places):
    text = f"{number}e-{have}"
    assert is_rounded(text, places) == (number % 10 ** max(0, have - places) != 0)


def test_a_number_is_shown_alike_in_a_column_that_had_doubles_and_in_one_that_had_not(load, sql):
    small, large = [{"n": 0.0}, {"n": 2.0}, {"n": 1.5}], [{"n": 2**70}]
    load(small, name="a.jsonl", table="parts")
    load(large, name="b.jsonl", table="parts")
    load([*small, *large], name="c.jsonl", table="whole")
    found = [sql(f"SELECT n::text FROM {table} ORDER BY {table}.n") for table in ("parts", "whole")]
    assert found[0] == found[1] == [("0",), ("1.5",), ("2",), (str(2**70),)]


@pytest.mark.parametrize("number", [5e-324, 1e-7, 1e-5, 0.0001, 1e15, 1e16, 1e22, 1.5e300, -2.5e17])
def test_a_number_is_spelled_alike_in_a_column_of_texts_whatever_the_column_was(load, sql, number):
    """The column is double precision, then numeric, then text, or text at once."""
    parts = [[{"n": number}, {"n": 10**22}], [{"n": 2**70}], [{"n": "x"}, {"n": number}]]
    doubles = [[{"n": number}], [{"n": "x"}, {"n": number}, {"n": 10**22}, {"n": 2**70}]]
    for table, runs in (
        ("a", parts),
        ("b", doubles),
        ("c", [[row for one in parts for row in one]]),
    ):
        for run, rows in enumerate(runs):
            load(rows, name=f"{table}{run}.jsonl", table=table)
    a, b, c = (sorted({text for (text,) in sql(f"SELECT n FROM {table}")}) for table in "abc")
    assert a == b == c
    assert sorted(float(text) for text in a if text != "x") == sorted({number, 1e22, float(2**70)})
