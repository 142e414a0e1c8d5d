"""Windows, watermarks and aggregates, with event times and clocks set by the tests."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import zlib
from collections import Counter, defaultdict
from decimal import Decimal, localcontext
from fractions import Fraction
from sys import float_info
from typing import Any

import msgspec
import pytest
from ddsketch import DDSketch
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.core.units import format_duration, parse_duration
from asyncbatch.errors import TooManyKeysError
from asyncbatch.windows.aggregates import AggregateSet, parse_aggregate
from asyncbatch.windows.events import Events, KeyFields, WindowsState
from asyncbatch.windows.fixed import make_windower
from asyncbatch.windows.spec import parse_window
from asyncbatch.windows.statistics import Distinct, Percentiles, Squares
from asyncbatch.windows.times import NumericTimes, TimeReader, utc_text
from asyncbatch.windows.watermark import Watermark

SECOND = 1_000_000


def windower(window="tumbling:5s", aggs=("count",), by=("kind",), lateness=0, most=1000, **more):
    recipe = AggregateSet([parse_aggregate(text) for text in aggs])
    watermark = more.pop("watermark", None) or Watermark(lateness)
    watermark.join("")
    keys = KeyFields(by)
    spec = parse_window(window)
    return make_windower(spec, recipe, keys, watermark, max_keys=most, **more), recipe


def events(rows, source=""):
    """Make events from rows of (time, key) or (time, key, value)."""
    columns = list(zip(*rows, strict=True))
    moments = NumericTimes([int(time) for time in columns[0]])
    return Events(len(rows), moments, columns[1], tuple(columns[2:]), source)


def told(windows, recipe):
    return [
        (one.start / SECOND, one.end / SECOND, one.key, recipe.results(one.totals), one.partial)
        for one in windows
    ]


def seconds(*rows):
    return events([(time * SECOND, *more) for time, *more in rows])


# --- specs, spans and times


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("500ms", 500_000),
        ("5s", 5 * SECOND),
        ("5 s", 5 * SECOND),
        ("5", 5 * SECOND),
        ("1.5h", 5400 * SECOND),
        ("0", 0),
        ("2us", 2),
    ],
)
def test_spans(text, micros):
    assert parse_duration(text) == micros
    assert parse_duration(format_duration(micros)) == micros


@pytest.mark.parametrize("text", ["", "-5", "-5s", "s", "0.5us", "5w", "\u0665s"])
def test_what_is_no_span(text):
    with pytest.raises(ValueError, match=r"is not a duration|microseconds"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["tumbling:5s", "hopping:1m/10s", "session:30s"])
def test_windows_say_what_they_are(text):
    assert str(parse_window(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tumbling", "is not a window"),
        ("sliding:5s", "is not a window"),
        ("tumbling:0s", "a length of zero"),
        ("session:", "is not a window"),
        ("hopping:5s", "no EVERY"),
        ("hopping:5s/10s", "gaps"),
        ("hopping:1d/1ms", "10,000 windows"),
        ("tumbling:five", "is not a duration"),
    ],
)
def test_what_is_no_window(text, why):
    with pytest.raises(ValueError, match=why):
        parse_window(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31t12:00:00.5z", "2026-01-31T12:00:00.500000Z"),
        ("2026-01-31T12:00:00.999999999+05:30", "2026-01-31T06:30:00.999999Z"),
        ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31t23:59:60.5z", "2017-01-01T00:00:00.500000Z"),
        ("2016-12-31 23:59:60", "2017-01-01T00:00:00Z"),
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
        ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500000Z"),
        (1767225600, "2026-01-01T00:00:00Z"),
        (1767225600.123456, "2026-01-01T00:00:00.123456Z"),
        (1767225604.9999995, "2026-01-01T00:00:04.999999Z"),
        ("1767225604.9999999", "2026-01-01T00:00:04.999999Z"),
        ("1767225604." + "9" * 5000, "2026-01-01T00:00:04.999999Z"),
        (1767225604123.4567, "2026-01-01T00:00:04.123456Z"),
        ("1767225604123456.9", "2026-01-01T00:00:04.123456Z"),
        ("-0.0000001", "1969-12-31T23:59:59.999999Z"),
        (-0.0000001, "1969-12-31T23:59:59.999999Z"),
        (1767225600123, "2026-01-01T00:00:00.123000Z"),
        (1767225600123456, "2026-01-01T00:00:00.123456Z"),
        (1767225600123456789, "2026-01-01T00:00:00.123456Z"),
        ("1767225600", "2026-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
    ],
)
def test_times_are_read(value, expected):
    reader = TimeReader()
    assert utc_text(reader.parse(value)) == expected
    try:  # `read_column` may refuse unusual texts that `parse` accepts
        assert reader.read_column([value, value]).lowest == reader.parse(value)
    except ValueError:
        assert isinstance(value, str)


@given(st.integers(0, 4 * 10**15), st.sampled_from(["s", "ms", "us"]))
def test_numbers_are_truncated_as_they_are_written(micros, unit):
    digits = {"s": 6, "ms": 3, "us": 0}[unit]
    text = f"{micros // 10**digits}.{micros % 10**digits:0{digits}d}" if digits else f"{micros}.0"
    reader = TimeReader(unit)
    assert reader.parse(float(text)) == reader.parse(text) == micros
    assert reader.parse(f"{text}9") == micros


def test_a_unit_that_is_given():
    assert utc_text(TimeReader("ms").parse(5_000)) == "1970-01-01T00:00:05Z"
    assert utc_text(TimeReader("ns").parse(-1)) == "1969-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    "value",
    ["", "soon", "2025-02-29T00:00:00Z", "2026-01-01T25:00:00Z", None, True, [], {}, 10**30, 1e300,
     "9" * 21 + ".5", "2026-01-01T00:00:60Zx"],
)  # fmt: skip
def test_what_is_no_time(value):
    with pytest.raises(ValueError, match=r"RFC 3339|beyond"):
        TimeReader().parse(value)


def test_windows_beyond_the_calendar_have_a_name():
    late = TimeReader().parse("9999-12-31T23:59:59Z") + SECOND
    assert utc_text(late) == "+10000-01-01T00:00:00Z"
    assert (
        utc_text(TimeReader().parse("0001-01-01T00:00:00Z") - 1) == "+00000-12-31T23:59:59.999999Z"
    )


# --- exact emissions


def test_a_window_is_over_once_time_has_passed_its_end():
    windows, recipe = windower(aggs=("count", "sum:v"))
    first = windows.add(seconds((0, "b", 1), (4.999999, "a", 2), (4, "b", 3)))
    assert not first.closed
    second = windows.add(seconds((5, "a", 10)))
    assert told(second.closed, recipe) == [
        (0, 5, "a", {"count": 1, "sum_v": 2}, False),
        (0, 5, "b", {"count": 2, "sum_v": 4}, False),
    ]
    assert told(windows.finish(partial=True), recipe) == [
        (5, 10, "a", {"count": 1, "sum_v": 10}, True)
    ]
    assert not windows.finish(partial=True)


def test_lateness_holds_windows_open():
    windows, recipe = windower(lateness=2 * SECOND)
    assert not windows.add(seconds((6.999999, "a"), (3, "a"))).closed
    taken = windows.add(seconds((7, "a"), (4, "a")))
    assert told(taken.closed, recipe) == [(0, 5, "a", {"count": 1}, False)]
    assert taken.late == [1]


def test_late_events_are_told_one_by_one_by_those_before_them():
    windows, recipe = windower()
    taken = windows.add(seconds((1, "a"), (5, "a"), (4, "a"), (6, "a"), (0, "b")))
    assert taken.late == [2, 4]
    assert told(taken.closed, recipe) == [(0, 5, "a", {"count": 1}, False)]


def test_an_event_late_for_some_windows_is_in_the_others():
    windows, recipe = windower("hopping:10s/5s")
    taken = windows.add(seconds((7, "a"), (12, "a"), (8, "a"), (15, "a"), (4, "a")))
    assert (taken.late, taken.late_in_part) == ([4], 1)
    assert told(taken.closed, recipe) == [
        (0, 10, "a", {"count": 1}, False),
        (5, 15, "a", {"count": 3}, False),
    ]
    assert told(windows.finish(partial=False), recipe) == [
        (10, 20, "a", {"count": 2}, False),
        (15, 25, "a", {"count": 1}, False),
    ]


def test_sessions_end_after_a_gap_and_merge():
    windows, recipe = windower("session:5s", lateness=16 * SECOND)
    assert not windows.add(seconds((0, "a"), (8, "a"), (20, "b"), (4, "a"), (25, "b"))).closed
    taken = windows.add(seconds((29, "b")))
    assert told(taken.closed, recipe) == [(0, 13, "a", {"count": 3}, False)]
    assert told(windows.open, recipe) == [
        (20, 25, "b", {"count": 1}, False),
        (25, 34, "b", {"count": 2}, False),
    ]


def test_an_event_of_a_session_that_is_over_is_late():
    windows, _ = windower("session:5s")
    assert windows.add(seconds((0, "a"), (10, "b"), (5, "a"), (6, "a"))).late == [2]


def test_an_event_before_the_end_of_a_session_that_is_over_is_late():
    windows, recipe = windower("session:5s")
    taken = windows.add(seconds((0, "a"), (6, "b"), (3, "a"), (5, "a"), (11, "c")))
    assert taken.late == [2]
    assert told([*taken.closed, *windows.finish(partial=False)], recipe) == [
        (0, 5, "a", {"count": 1}, False),
        (5, 10, "a", {"count": 1}, False),
        (6, 11, "b", {"count": 1}, False),
        (11, 16, "c", {"count": 1}, False),
    ]


def test_before_the_epoch():
    windows, recipe = windower()
    windows.add(seconds((-1, "a")))
    assert told(windows.finish(partial=False), recipe) == [(-5, 0, "a", {"count": 1}, False)]


@given(st.sampled_from(["tumbling:7h", "hopping:5h/2h", "hopping:9h/9h", "session:3h"]), st.data())
def test_a_time_is_allowed_if_its_windows_have_dates(window, data):
    spec = parse_window(window)
    hour = 3600 * SECOND
    first, end = (TimeReader().parse(text) for text in ("0001-01-01", "9999-12-31T23:59:59.999999"))
    time = data.draw(st.sampled_from([first, end])) + data.draw(st.integers(-20 * hour, 20 * hour))
    every = spec.size if spec.kind == "tumbling" else spec.every
    if spec.kind == "session":
        bounds = [(time, time + spec.size)]
    else:
        starts = range((time - spec.size) // every * every, time + 1, every)
        bounds = [(start, start + spec.size) for start in starts if time < start + spec.size]
    if all(first <= start and stop <= end for start, stop in bounds):
        spec.check_time(time)
    else:
        with pytest.raises(ValueError, match=r"before the year 1|after the year 9999"):
            spec.check_time(time)


@pytest.mark.parametrize("window", ["tumbling:5s", "hopping:10s/5s", "session:5s"])
def test_keys_are_bounded(window):
    rows = [(0, "a"), (1, "b"), (2, "c"), (3, "a"), (4, "d")]
    windows, _ = windower(window, most=2)
    with pytest.raises(TooManyKeysError):
        windows.add(seconds(*rows))
    windows, _ = windower(window, most=2, overflow="other")
    windows.add(seconds(*rows))
    counts = defaultdict[str, int](int)
    last = windows.finish(partial=False)
    for one in last:
        if one.start == last[-1].start or window.startswith("session"):
            counts[one.key] += one.totals.count
    assert counts == {"a": 2, "b": 1, "other": 2}


def test_keys_in_order_and_apart():
    windows, _ = windower()
    keys = KeyFields(("k",)).column([["b", 10, 2.5, True, "B", 1, 1.0, "10"]])
    assert keys is not None
    windows.add(seconds(*((0, key) for key in keys)))
    found = windows.finish(partial=False)
    shown = [(KeyFields(("k",)).named(one.key)["k"], one.totals.count) for one in found]
    assert [(type(key), key, number) for key, number in shown] == [
        (bool, True, 1), (int, 1, 2), (float, 2.5, 1), (int, 10, 1), (str, "10", 1), (str, "B", 1),
        (str, "b", 1),
    ]  # fmt: skip


# --- watermarks


class ManualClock:
    now = 0

    def __call__(self):
        return self.now


def test_the_slowest_source_holds_the_watermark():
    watermark = Watermark(lateness=1)
    watermark.join("a")
    watermark.join("b")
    watermark.observe("a", 100)
    assert watermark.value < 0
    watermark.observe("b", 50)
    assert watermark.value == 49
    watermark.observe("b", 20)
    assert watermark.value == 49
    watermark.leave("b")
    assert watermark.value == 99


def test_a_silent_source_is_not_waited_for():
    clock = ManualClock()
    watermark = Watermark(idle=10, clock=clock)
    watermark.join("a")
    watermark.join("b")
    watermark.observe("b", 5)
    clock.now = 9
    watermark.observe("a", 100)
    assert watermark.value == 5
    clock.now = 10
    watermark.tick()
    assert watermark.value == 100
    clock.now = 19
    watermark.tick()
    assert watermark.value == 110  # all sources are idle: the watermark advances with the clock


def test_a_source_is_judged_by_the_slowest():
    watermark = Watermark()
    watermark.join("slow")
    windows, recipe = windower(watermark=watermark)
    taken = windows.add(seconds((1, "a"), (50, "a"), (2, "a")))
    assert not taken.closed
    assert not taken.late
    slow = windows.add(events([(6 * SECOND, "b")], "slow"))
    assert told(slow.closed, recipe) == [(0, 5, "a", {"count": 2}, False)]
    assert windows.add(seconds((4, "a"), (7, "a"))).late == [0]


# --- aggregates

ALL = ("count", "sum:v", "avg:v", "min:v", "max:v", "stddev:v", "p50:v", "p99:v", "distinct:v")
numbers = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(-1e300, 1e300),
    st.floats(-100, 100).map(lambda x: round(x, 2)),
    st.sampled_from([0.0, -0.0, 1, 1.0, 1e16, 1e-300, 1.7e308, -1.7e308, 2**60]),
)


def summed(recipe, values):
    totals = recipe.empty()
    totals.add(len(values), [values])
    return totals


@given(st.lists(numbers, min_size=1, max_size=80), st.randoms(use_true_random=False))
def test_any_split_and_order_of_merges_gives_the_same(values, chance):
    recipe = AggregateSet([parse_aggregate(text) for text in ALL])
    whole = recipe.results(summed(recipe, values))
    shuffled = chance.sample(values, len(values))
    cuts = sorted(chance.randrange(len(values) + 1) for _ in range(5))
    parts = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True) if a < b]
    merged = [summed(recipe, part) for part in parts]
    while len(merged) > 1:
        chance.shuffle(merged)
        merged[0].merge(merged.pop())
    found = recipe.results(merged[0])
    assert [(name, type(x), x) for name, x in found.items()] == [
        (name, type(x), x) for name, x in whole.items()
    ]


@given(st.lists(numbers, min_size=2, max_size=60))
def test_sums_and_deviations_are_the_nearest_to_the_exact_ones(values):
    recipe = AggregateSet([parse_aggregate(text) for text in ALL])
    found = recipe.results(summed(recipe, values))
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((x - mean) ** 2 for x in exact) / (len(exact) - 1)

    def near(number, fraction):
        try:
            return number == float(fraction)
        except OverflowError:
            return number == round(fraction)

    if all(type(value) is int for value in values):
        assert found["sum_v"] == sum(values)
    else:
        assert near(found["sum_v"], sum(exact))
    assert near(found["avg_v"], mean)
    assert (found["min_v"], found["max_v"]) == (min(values), max(values))
    if not variance or 1e-290 < variance < 1e300:
        assert found["stddev_v"] == math.sqrt(variance)


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**400), 10**400),
    st.sampled_from([0, 0.0, -0.0, 5e-324, 2.3e-308, -2.3e-308, 1e307, -1.7e308, 1.0, 1.01]),
)


@given(st.lists(st.lists(NUMBERS, min_size=1), min_size=1, max_size=5), st.floats(0, 100))
def test_percentiles_are_those_of_the_library_of_their_inventors(parts, percent):
    known, merged = DDSketch(0.01), Percentiles()
    for part in parts:
        for value in part:
            known.add(value if abs(value) <= 1e307 else 0.0)
        one = Percentiles()
        one.add(part)
        again = Percentiles()  # as from a checkpoint
        again.restore(msgspec.json.decode(msgspec.json.encode(one.state()), type=Percentiles.State))
        merged.merge(again)
    found = merged.at(percent)
    if any(abs(value) > 1e307 for part in parts for value in part):  # beyond their library
        values = sorted(
            max(-float_info.max, min(value, float_info.max)) for part in parts for value in part
        )
        exact = float(values[int(percent / 100 * (len(values) - 1))])
        assert found == pytest.approx(exact, rel=0.0101, abs=3e-308)
        return
    quantile: Any = known.get_quantile_value(percent / 100)
    assert found == float(min(max(quantile, known._min), known._max))
    state = merged.state()
    for store, bins in ((known._store, state.positive), (known._negative_store, state.negative)):
        assert bins == [
            (store.offset + place, count) for place, count in enumerate(store.bins) if count
        ]
    assert state.zeros == known._zero_count


def test_percentiles_and_distinct_counts_are_within_their_bounds():
    chance = random.Random(7)
    values = [chance.lognormvariate(3, 2) for _ in range(20_000)]
    recipe = AggregateSet(
        [parse_aggregate(text) for text in ("p50:v", "p95:v", "p99:v", "distinct:v")]
    )
    found = recipe.results(summed(recipe, values))
    values.sort()
    for percent in (50, 95, 99):
        exact = values[int(percent / 100 * (len(values) - 1))]
        assert abs(found[f"p{percent}_v"] - exact) <= 0.01 * exact
    assert abs(found["distinct_v"] - 20_000) < 3 * 0.01 * 20_000


@pytest.mark.parametrize("size", [1, 256, 257, 2_000, 30_000])
@pytest.mark.parametrize("kind", [str, int, float])
def test_distinct_counts_of_any_size(size, kind):
    """They are exact up to 256, else within four standard errors, also as parts and states."""
    recipe = AggregateSet([parse_aggregate("distinct:v")])
    values = [kind(7 * number) for number in range(size)]
    merged = recipe.empty()
    for part in (values[::2], values[1::2], values[: size // 3]):
        if part:
            one = summed(recipe, part)
            again = recipe.restored(
                len(part), [statistic.state() for _, statistic in one.statistics]
            )
            merged.merge(again)
    found = recipe.results(merged)["distinct_v"]
    assert found == recipe.results(summed(recipe, values))["distinct_v"]
    assert abs(found - size) <= (0 if size <= 256 else 4 * 0.0081 * size)


@pytest.mark.parametrize(
    "state", [b"", b"?", zlib.compress(b"123"), zlib.compress(b"\xff" * 2**14)]
)
def test_state_that_is_none_of_a_distinct_count(state):
    with pytest.raises(ValueError, match="other distinct counts"):
        Distinct().restore(state)


def test_distinct_knows_a_number_from_its_text():
    recipe = AggregateSet([parse_aggregate("distinct:v")])
    assert recipe.results(summed(recipe, [1, 1.0, "1", True, "true", 10**30, 2.5]))[
        "distinct_v"
    ] == 6  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("count", "count"),
        ("n=count", "n"),
        ("sum:value", "sum_value"),
        ("total=sum:order.value", "total"),
        ("p99.9:ms", "p99.9_ms"),
        ("avg:/a=b", "avg_/a=b"),
    ],
)
def test_aggregates_have_names(text, name):
    assert parse_aggregate(text).name == name


@pytest.mark.parametrize(
    "text", ["", "sum", "sum:", "count:x", "median:x", "=count", "p100:x", "p:x"]
)
def test_what_is_no_aggregate(text):
    with pytest.raises(ValueError, match="is not an aggregate"):
        parse_aggregate(text)


def test_two_aggregates_of_one_name():
    with pytest.raises(ValueError, match="two aggregates have the name 'n'"):
        AggregateSet([parse_aggregate("n=count"), parse_aggregate("n=sum:v")])


# --- against references

rows = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from("abc"), st.integers(-5, 5)),
    min_size=1,
    max_size=60,
)
kinds = st.sampled_from(
    ["tumbling:10us", "tumbling:1us", "hopping:30us/10us", "hopping:25us/10us", "hopping:10us/3us",
     "session:12us"]
)  # fmt: skip


def chunked(found, sizes):
    """Yield chunks of these sizes, which are repeated."""
    at = 0
    while at < len(found):
        for size in sizes:
            if found[at : at + size]:
                yield found[at : at + size]
            at += size


def run_through(spec, found, sizes, lateness):
    windows, recipe = windower(spec, ("count", "sum:v"), lateness=lateness)
    closed, late, at, partly = [], [], 0, 0
    for chunk in chunked(found, sizes):
        taken = windows.add(events(chunk))
        closed += taken.closed
        late += [at + place for place in taken.late]
        partly += taken.late_in_part
        at += len(chunk)
    closed += windows.finish(partial=False)
    return (
        [(w.start, w.end, w.key, *recipe.results(w.totals).values()) for w in closed],
        late,
        partly,
    )


def naive_fixed(spec, found, lateness):
    """Compute fixed windows event by event: a naive reference."""
    window = parse_window(spec)
    totals: dict[tuple[int, str], tuple[int, int]] = {}
    late, partly, top = [], 0, -math.inf
    for at, (time, key, value) in enumerate(found):
        top = max(top, time)
        starts = [
            start
            for start in range(-window.size // window.every * window.every, 500, window.every)
            if start <= time < start + window.size
        ]
        still = [start for start in starts if start + window.size > top - lateness]
        if not still:
            late.append(at)
        elif len(still) < len(starts):
            partly += 1
        for start in still:
            number, total = totals.get((start, key), (0, 0))
            totals[start, key] = number + 1, total + value
    ordered = sorted(totals.items())
    return [(start, start + window.size, key, *t) for (start, key), t in ordered], late, partly


def late_sessions(spec, found, lateness):
    """Compute sessions event by event, and remember all of them: a naive reference."""
    gap = parse_window(spec).size
    sessions: list[list[Any]] = []  # start, end, key, events
    floors: dict[str, int] = {}
    late, top = [], -math.inf
    for at, (time, key, value) in enumerate(found):
        top = max(top, time)
        mark = top - lateness
        mine = [one for one in sessions if one[2] == key]
        is_open = any(one[1] > mark for one in mine)
        over = max((one[1] for one in mine if one[1] <= mark), default=-math.inf)
        if not is_open:
            floors[key] = mark - 2 * gap
        near = [one for one in mine if one[1] > mark and one[0] < time + gap and time < one[1]]
        if time < max(over, floors[key]) or (not near and time + gap <= mark):
            late.append(at)
            continue
        sessions = [one for one in sessions if one not in near]
        merged = [one for old in near for one in old[3]]
        start, end = min([time, *(one[0] for one in near)]), time + gap
        end = max([end, *(one[1] for one in near)])
        sessions.append([start, end, key, [*merged, value]])
    return sorted((s, e, k, len(v), sum(v)) for s, e, k, v in sessions), late


@given(
    rows,
    kinds.filter(lambda kind: not kind.startswith("session")),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(0, 60),
    st.integers(1, 3),
)
def test_no_window_has_more_keys_than_allowed(found, kind, sizes, lateness, most):
    def run(sizes, cut=None, overflow="other"):
        more = {"lateness": lateness, "most": most, "overflow": overflow}
        windows, _ = windower(kind, **more)
        closed = []
        for number, chunk in enumerate(chunked(found, sizes)):
            if number == cut:
                state, watermark = windows.state(), windows._watermark
                windows, _ = windower(kind, **more)
                windows._watermark = watermark
                windows.restore(state)
            closed += windows.add(events(chunk)).closed
        closed += windows.finish(partial=False)
        return [(w.start, w.key, w.totals.count) for w in closed]

    closed = run(sizes)
    assert closed == run([1]) == run([1000]) == run(sizes, cut=1)
    keys, counts = defaultdict[int, set[str]](set), Counter[int]()
    for start, key, count in closed:
        keys[start].add(key)
        counts[start] += count
    assert all(len(some - {"other"}) <= most for some in keys.values())
    expected_keys, expected_counts = defaultdict[int, set[str]](set), Counter[int]()
    for start, _, key, count, _ in naive_fixed(kind, found, lateness)[0]:
        expected_keys[start].add(key)
        expected_counts[start] += count
    assert counts == expected_counts
    if all(len(some) <= most for some in expected_keys.values()):
        assert keys == expected_keys
        run(sizes, overflow=None)
    else:
        with pytest.raises(TooManyKeysError):
            run(sizes, overflow=None)


@pytest.mark.parametrize("kind", ["min", "max"])
@pytest.mark.parametrize(
    "equal", [(0, -0.0, 0.0), (10**20, 1e20), (-(2**60), -(2.0**60)), (7, 7.0)]
)
def test_extremes_of_equal_numbers_do_not_depend_on_the_order(kind, equal):
    recipe = AggregateSet([parse_aggregate(f"{kind}:v")])
    texts = set()
    for values in itertools.permutations(equal):
        parts = [summed(recipe, [value]) for value in values]
        for part in parts[1:]:
            parts[0].merge(part)
        texts.add(repr(recipe.results(parts[0])))
        texts.add(repr(recipe.results(summed(recipe, values))))
        texts.add(repr(recipe.results_of(len(values), [values])))
    assert len(texts) == 1
    assert "-0.0" not in texts.pop()


@given(rows, st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 30))
def test_sessions_of_a_key_never_overlap(found, sizes, lateness):
    windows, late, _ = run_through("session:12us", found, sizes, lateness)
    last: dict[str, int] = {}
    for start, end, key, *_ in sorted(windows):
        assert start >= last.get(key, start)
        last[key] = end
    assert (sorted(windows), late) == late_sessions("session:12us", found, lateness)
    assert sum(one[3] for one in windows) + len(late) == len(found)


@given(rows, st.integers(0, 60), st.integers(0, 30))
def test_restored_sessions_are_those_of_an_undisturbed_stream(found, cut, lateness):
    first, _ = windower("session:12us", lateness=lateness)
    second, _ = windower("session:12us", lateness=lateness)
    closed, late = [], 0
    if found[:cut]:
        taken = first.add(events(found[:cut]))
        closed, late = taken.closed, len(taken.late)
    state = msgspec.json.decode(msgspec.json.encode(first.state()), type=WindowsState)
    second.restore(state)
    if found[:cut]:
        second._watermark.observe("", max(time for time, *_ in found[:cut]))
    if found[cut:]:
        taken = second.add(events(found[cut:]))
        closed, late = closed + taken.closed, late + len(taken.late)
    closed += second.finish(partial=False)
    expected, expected_late, _ = run_through("session:12us", found, [1000], lateness)
    assert sorted((w.start, w.end, w.key, w.totals.count) for w in closed) == sorted(
        one[:4] for one in expected
    )
    assert late == len(expected_late)


def naive_sessions(spec, found):
    """Compute sessions from sorted events, none of them late: a naive reference."""
    gap = parse_window(spec).size
    sessions = []
    for key in {key for _, key, _ in found}:
        mine = sorted((time, value) for time, k, value in found if k == key)
        groups = [[mine[0]]]
        for one in mine[1:]:
            if one[0] - groups[-1][-1][0] >= gap:
                groups.append([])
            groups[-1].append(one)
        sessions += [
            (g[0][0], g[-1][0] + gap, key, len(g), sum(value for _, value in g)) for g in groups
        ]
    return sorted(sessions, key=lambda one: (one[1], one[0], one[2]))


@given(rows, kinds, st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 60))
def test_windows_equal_a_naive_reference_whatever_the_chunks(found, kind, sizes, lateness):
    ours = run_through(kind, found, sizes, lateness)
    assert ours == run_through(kind, found, [1], lateness)
    assert ours == run_through(kind, found, [1000], lateness)
    if not kind.startswith("session"):
        assert ours == naive_fixed(kind, found, lateness)


@given(rows, kinds, st.lists(st.integers(1, 20), min_size=1, max_size=4), st.randoms())
def test_disorder_within_the_lateness_changes_nothing(found, kind, sizes, chance):
    lateness = 50
    found.sort(key=lambda one: one[0] + chance.randrange(lateness))
    windows, late, partly = run_through(kind, found, sizes, lateness)
    assert (late, partly) == ([], 0)
    if kind.startswith("session"):
        assert windows == naive_sessions(kind, found)
    else:
        assert windows == naive_fixed(kind, sorted(found), 0)[0]


def test_windows_equal_those_of_sql(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    chance = random.Random(3)
    found = [
        (at * 1000 + chance.randrange(500_000), chance.choice("abcd"), round(chance.random(), 2))
        for at in range(20_000)
    ]
    windows, recipe = windower(
        "tumbling:3s", ("count", "min:v", "max:v", "avg:v", "stddev:v"), lateness=SECOND
    )
    closed = [
        window
        for chunk in chunked(found, [997, 3, 1])
        for window in windows.add(events(chunk)).closed
    ]
    closed += windows.finish(partial=False)
    table = tmp_path / "events.csv"
    table.write_text("".join(f"{t},{k},{v}\n" for t, k, v in found))
    with duckdb.connect() as database:
        expected = database.execute(
            "SELECT t // 3000000 * 3000000 AS s, k, count(*), min(v), max(v), avg(v), stddev(v) "
            "FROM read_csv(?, columns = {'t': 'BIGINT', 'k': 'VARCHAR', 'v': 'DOUBLE'}) "
            "GROUP BY s, k ORDER BY s, k",
            [str(table)],
        ).fetchall()
    ours = [(one.start, one.key, *recipe.results(one.totals).values()) for one in closed]
    assert [row[:5] for row in ours] == [row[:5] for row in expected]
    for row, reference in zip(ours, expected, strict=True):
        assert row[5:] == pytest.approx(reference[5:], rel=1e-12)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-155, 1e-150, 1.0, 1e150, 1e155, 1e200, 1e307])
def test_deviations_beyond_the_squares_of_floats(scale):
    values = [scale, 3 * scale, -scale, 2.5 * scale]
    squares = Squares()
    squares.add(values)
    exact = [Fraction(value) for value in values]
    variance = statistics.variance(exact)
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 999_999, -999_999
        root = (Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt()
        assert squares.result() == pytest.approx(float(root), rel=1e-15, abs=5e-324)
