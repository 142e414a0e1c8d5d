"""Tests of the pace of a run, and of the time between progress lines."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from asyncbatch.cli.display.progress_lines import PaceMeter, PlainProgress, progress_line, slow_text
from asyncbatch.core.progress import FileInProgress, FileTimer, LongFile
from asyncbatch.core.tally import Tally
from asyncbatch.core.units import format_elapsed, format_rate, format_remaining
from asyncbatch.pipeline.run import Snapshot
from asyncbatch.sources.count_ahead import InputCount


def snapshot(elapsed, files, size=0, expected=None, skipped=0):
    tally = Tally(succeeded=files - skipped, skipped=skipped, bytes=size, read=2 * files)
    return Snapshot(elapsed, None, files, tally, 1, 1, 10**7, 0, expected=expected)


def test_rates_are_those_of_the_last_ten_seconds():
    meter = PaceMeter()
    for second in range(100):  # 100 files a second
        meter.measure(snapshot(second, 100 * second))
    for second in range(100, 120):  # and then one
        pace = meter.measure(snapshot(second, 9900 + second - 99))
    assert (pace.files, pace.records) == pytest.approx((1, 2))


def test_the_time_left_follows_from_the_recent_rate():
    total = InputCount(1000, None, is_complete=True)
    meter = PaceMeter()
    for second in range(31):
        pace = meter.measure(snapshot(second, min(200, 50 * second) + second, expected=total))
    assert pace.fraction == pytest.approx(0.23)
    assert pace.seconds_left == pytest.approx(770)


def test_a_step_that_takes_longer_than_the_window_leaves_a_rate():
    total = InputCount(10, None, is_complete=True)
    meter = PaceMeter()
    for second in range(60):  # a file every 20 s
        pace = meter.measure(snapshot(second, second // 20, expected=total))
        if second >= 20:
            assert 0.02 <= pace.files <= 0.1
            assert pace.seconds_left is not None


def test_the_start_of_workers_does_not_slow_the_estimate():
    total = InputCount(1000, None, is_complete=True)
    meter = PaceMeter()
    for second in range(8):
        meter.measure(structs.replace(snapshot(second, 0, expected=total), in_flight=0))
    for second in range(8, 12):
        pace = meter.measure(snapshot(second, 100 * (second - 7), expected=total))
    assert pace.seconds_left == pytest.approx(6)


def test_records_of_unfinished_inputs_count_while_no_batch_is_in_flight():
    """Those of a URL, whose pages come one after another."""
    meter = PaceMeter()
    for second in range(1, 5):
        found = structs.replace(snapshot(second, 0), in_flight=0)
        pace = meter.measure(structs.replace(found, tally=Tally(read=100 * second)))
    assert pace.records == pytest.approx(100)


def test_bytes_tell_more_than_files():
    total = InputCount(2, 10**9, is_complete=True)
    meter = PaceMeter()
    meter.measure(snapshot(0, 0, 0, total))
    pace = meter.measure(snapshot(2, 1, 10**8, total))
    assert pace.percent == "10%"
    assert pace.seconds_left == pytest.approx(18, rel=0.01)
    assert "1 of 2 files (10%), 100.0 MB of 1.0 GB, " in progress_line(snapshot(2, 1, 10**8, total))
    # those that are skipped are not read
    assert PaceMeter().measure(snapshot(2, 1, 0, total, skipped=1)).percent == "50%"


def test_files_tell_more_than_few_bytes():
    total = InputCount(4, 4000, is_complete=True)
    # the last file has most of the bytes, but takes as long as the others
    assert PaceMeter().measure(snapshot(2, 3, 30, total)).fraction == pytest.approx(0.61, abs=0.01)
    assert "B of" not in progress_line(snapshot(2, 3, 30, total))


def test_all_percent_are_the_end():
    total = InputCount(1000, None, is_complete=True)
    assert PaceMeter().measure(snapshot(1, 999, expected=total)).percent == "99%"
    assert PaceMeter().measure(snapshot(1, 1000, expected=total)).percent == "100%"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 500)), min_size=1), st.booleans())
def test_a_pace_is_never_negative(steps, has_total):
    total = InputCount(5000, None, is_complete=True) if has_total else None
    meter, elapsed, files = PaceMeter(), 0.0, 0
    for seconds, more in steps:
        elapsed, files = elapsed + seconds / 4, files + more
        pace = meter.measure(snapshot(elapsed, files, expected=total))
        assert min(pace.files, pace.records, pace.bytes) >= 0
        assert pace.seconds_left is None or pace.seconds_left >= 0
        assert (pace.fraction is not None) == has_total


def test_the_bytes_of_a_file_count_while_it_is_read():
    total = InputCount(1, 10**9, is_complete=True)
    inside = structs.replace(snapshot(4, 0, 0, total), bytes_in_progress=25 * 10**7)
    meter = PaceMeter()
    meter.measure(snapshot(0, 0, 0, total))
    pace = meter.measure(inside)
    assert (pace.percent, round(pace.seconds_left or 0)) == ("25%", 12)
    # the file has ended, and its part has not arrived
    assert meter.measure(snapshot(4.25, 0, 0, total)).percent == "25%"


LONG = [LongFile(f"in/a-rather-long-name-{number}.json", 25.0 - number) for number in range(9)]


def test_files_that_take_long_are_named():
    line = progress_line(structs.replace(snapshot(30.0, 5), slow=tuple(LONG[:2])))
    assert line.endswith(
        "; 2 files for more than 10 s: in/a-rather-long-name-0.json (25 s), "
        "in/a-rather-long-name-1.json (24 s)"
    )


@given(st.integers(40, 250), st.integers(1, 9), st.sampled_from(["", "x\x1b[2J", "n" * 300]))
def test_the_line_about_long_files_fits(width, count, name):
    files = [LongFile(name or one.name, one.seconds) for one in LONG[:count]]
    line = slow_text(files, width)
    assert len(line) <= width
    assert line.isprintable()
    assert line.startswith("1 file " if count == 1 else f"{count} files ")
    assert (name or ".json")[-1:] in line


def test_long_files_are_found_by_looking_now_and_then():
    timer = FileTimer()
    one, other = FileInProgress(1, "a", 0), FileInProgress(2, "b", 0)
    assert timer.find_long([one], 0.0) == ()
    assert timer.find_long([one, other], 5.0) == ()
    assert timer.find_long([one, other], 11.0) == (LongFile("a", 11.0),)
    assert timer.find_long([other], 16.0) == (LongFile("b", 11.0),)
    assert timer.find_long([one], 17.0) == ()


def test_a_count_that_goes_on_is_a_lower_bound():
    lower = InputCount(5000, None, is_complete=False)
    line = progress_line(snapshot(2.0, 40, expected=lower))
    assert line.startswith("40 of 5,000+ files, ")
    assert " left" not in line


def test_lines_come_less_often_in_long_runs():
    now, seen = 0.0, []
    shown = PlainProgress(lambda _: seen.append(now), lambda _: "", lambda: now)
    while now < 1800:
        now += 0.25
        shown.show(None)
    gaps = [round(later - earlier) for earlier, later in pairwise([0.0, *seen])]
    assert gaps[:6] == [10] * 6
    assert set(gaps[6:14]) == {30}
    assert set(gaps[15:]) == {60}


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0 files/s"), (0.004, "0.004 files/s"), (0.25, "0.25 files/s"), (1.26, "1.3 files/s"),
        (9.8, "9.8 files/s"), (12345.6, "12,346 files/s"),
    ],
)  # fmt: skip
def test_slow_rates_keep_their_digits(rate, text):
    assert format_rate(rate, "file") == text


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0.02, "<0.1 ms"), (0.1, "0.1 ms"), (999.9, "999.9 ms")]
)
def test_no_input_takes_no_time(milliseconds, text):
    assert format_elapsed(milliseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (11.2, "12 s"), (59.5, "1 m 00 s"), (307, "5 m 07 s"), (7500, "2 h 05 m")],
)
def test_the_time_left_is_in_whole_seconds(seconds, text):
    assert format_remaining(seconds) == text
