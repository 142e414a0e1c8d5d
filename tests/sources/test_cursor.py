"""The largest value of a cursor field: however records are split, in the way the source says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.failures import FeedError
from asyncbatch.sources.cursor import (
    CursorField,
    LargestCursor,
    is_ahead,
    largest_value,
    merge_values,
    minus_lag,
)

TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2025, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - hypothesis wants naive bounds
    lambda time: time.isoformat().replace("+00:00", "Z")
)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(-1e20, 1e20)
NUMBER_TEXTS = st.decimals(-(10**12), 10**12, places=3).map(lambda number: format(number, "f"))
WORDS = st.text("abcdefghi", min_size=1, max_size=4)


def largest(parts, kind=None, kept=None, maximum=None):
    """Return the value that is kept of values in these parts."""
    cursor = LargestCursor(CursorField("at", kind, maximum))
    merged = None
    for part in parts:
        merged = merge_values(merged, cursor.largest([{"at": value} for value in part], None))
    return largest_value(merged, kept or kind, "file")


@given(st.data())
def test_the_largest_value_depends_on_no_split(data):
    values, kind, key = data.draw(
        st.one_of(
            st.tuples(st.lists(NUMBERS, min_size=1), st.just("number"), st.just(lambda one: one)),
            st.tuples(st.lists(NUMBER_TEXTS, min_size=1), st.just("number"), st.just(Decimal)),
            st.tuples(
                st.lists(TIMES, min_size=1), st.just("time"), st.just(datetime.fromisoformat)
            ),
            st.tuples(st.lists(WORDS, min_size=1), st.just("text"), st.just(str)),
        )
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    bounds = [0, *cuts, len(values)]
    parts = [values[start:end] for start, end in pairwise(bounds)]
    found, found_kind = largest(parts)
    assert found_kind == kind
    assert key(found) == max(map(key, values))
    assert found in values


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["9", "10"], None, "10"),
        (["9", "10"], "text", "9"),
        (["9", "10.5", "10.25"], None, "10.5"),
        (["9007199254740993", "9007199254740992"], None, "9007199254740993"),
        (["9", "v10", "10"], None, "v10"),
        (["1e5", "9"], None, "9"),
        (["9", 10], None, 10),
        (["2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00Z", "soon"], None,
         "2026-01-01T09:00:00Z"),
        (["2026-01-01", "2025-12-31T23:00:00"], "time", "2026-01-01"),
        ([1767225600, 1767225600000, 1767225601], "time", 1767225601),
        ([1767225600, "2026-01-01T00:00:01Z"], "time", "2026-01-01T00:00:01Z"),
        ([True, None, [], {"a": 1}], None, None),
    ],
)  # fmt: skip
def test_values_are_compared_as_they_look_or_as_it_is_said(values, kind, expected):
    for order in (values, values[::-1]):
        assert largest([[value] for value in order], kind)[0] == expected
        assert largest([order], kind)[0] == expected


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        (["a", 1], None, None),
        (["2026-01-01T00:00:00Z", 1], None, None),
        (["2026-01-01T00:00:00Z", 1], None, "time"),
        (["9", "a"], None, "number"),
        (["9", "a"], "number", None),
        ([9], None, "text"),
    ],
)
def test_what_cannot_be_compared_is_a_failure(values, kind, kept):
    for order in (values, values[::-1]):
        with pytest.raises(FeedError) as caught:
            largest([[value] for value in order], kind, kept)
        assert "cannot be compared" in caught.value.failure.message
        assert "incremental.type" in caught.value.failure.message


@pytest.mark.parametrize(
    ("values", "kind", "maximum", "expected"),
    [
        (["2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z"], None, None, "2026-01-01T00:00:00Z"),
        (["9999-12-31T23:59:59Z"], None, None, None),
        (["9999-12-31"], "time", None, None),
        ([25340230079, 1767225600], "time", None, 1767225600),
        (["9999-12-31T23:59:59Z"], None, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        (["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"], None, "2026-01-01T12:00:00Z",
         "2026-01-01T00:00:00Z"),
        (["2026-01-01T00:00:00Z"], None, "now", "2026-01-01T00:00:00Z"),
        ([5, 500, 50], None, 100, 50),
        (["5", "500", "50"], None, 100, "50"),
        (["a", "zz"], None, "m", "a"),
        (["5", "500"], "text", "50", "5"),
    ],
)  # fmt: skip
def test_values_beyond_the_maximum_are_not_kept(values, kind, maximum, expected):
    for order in (values, values[::-1]):
        found, _ = largest([order], kind, None, maximum)
        assert found == expected


def test_a_day_ahead_is_not_the_future():
    soon = (datetime.now(UTC) + timedelta(hours=12)).isoformat()
    late = (datetime.now(UTC) + timedelta(hours=36)).isoformat()
    assert largest([[soon, late]])[0] == soon
    assert (is_ahead(soon, None), is_ahead(late, None), is_ahead("9" * 9, None)) == (
        False,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("value", "kind", "lag", "expected"),
    [
        ("2026-01-01T00:00:00Z", None, 90, "2025-12-31T23:58:30Z"),
        ("2026-01-01T00:00:00+02:00", None, 90, "2025-12-31T23:58:30+02:00"),
        ("2026-01-01T00:00:00.123Z", None, 0.5, "2025-12-31T23:59:59.623Z"),
        ("2026-01-01 00:00:00.123456+00:00", None, 1, "2025-12-31 23:59:59.123456+00:00"),
        ("2026-01-01T00:00:00", "time", 1, "2025-12-31T23:59:59"),
        ("2026-01-05", "time", 86400, "2026-01-04"),
        ("2026-01-05", "time", 1, "2026-01-04"),
        ("0001-01-01T00:00:00Z", None, 90, "0001-01-01T00:00:00Z"),
        (1767225600, "time", 60, 1767225540),
        (1767225600000, "time", 60, 1767225540000),
        (100, None, 10, 90),
        (2.5, None, 0.25, 2.25),
        ("9007199254740993", None, 1, "9007199254740992"),
        ("10.50", None, 0.25, "10.25"),
    ],
)  # fmt: skip
def test_a_lag_is_taken_off_in_the_form_of_the_value(value, kind, lag, expected):
    found = minus_lag(value, kind, lag)
    assert found == expected
    assert type(found) is type(expected)


def test_a_text_has_no_lag():
    for value, kind in (("abc", None), ("9", "text")):
        with pytest.raises(ValueError, match="needs a number or a time"):
            minus_lag(value, kind, 1)  # type: ignore[arg-type]


def test_records_without_the_field_are_passed_over():
    records: list[Any] = [{}, [], 5, {"at": None}, {"at": 3}]
    found = LargestCursor(CursorField("at")).largest(records, None)
    assert largest_value(found, None, "file") == (3, "number")
