"""Streams of the command and the library: real pipes, files and signals, manual clocks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from asyncbatch.config.job import StreamSettings
from asyncbatch.errors import TooManyKeysError
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sinks.windows import window_lines
from asyncbatch.sources.base import LiveChunk
from asyncbatch.windows.aggregates import parse_aggregate
from asyncbatch.windows.spec import parse_window
from tests.commands import COMMAND, PATIENCE, CommandProcess, environment
from tests.processes import wait_until, waiting_bytes

SECOND = 1_000_000
BY_KIND = ("--time", "t", "--by", "k")


def at(second, kind="a", **more):
    return json.dumps({"t": f"2026-01-01T00:00:{second:09.6f}Z", "k": kind, **more}) + "\n"


def short(windows):
    """Return the second of the start, the key's values, the aggregates' values, and `partial`."""
    return [
        (
            window["window_start"][17:-1],
            *window["key"].values(),
            *window["aggregates"].values(),
            *(["partial"] if window.get("partial") else []),
        )
        for window in windows
    ]


def give(process, text):
    process.stdin.write(text.encode())
    process.stdin.flush()


# --- the command


def test_windows_as_lines(stream):
    lines = (
        at(1, "login", v=100.25) + at(2, "login", v=20.25) + at(3, "login", v=0) + at(7, "x", v=1)
    )
    code, windows, errors = stream(
        "-", *BY_KIND, "--agg", "count", "--agg", "sum:v", "--agg", "avg:v", stdin=lines
    )
    assert code == 0
    assert windows[0] == {
        "event": "window",
        "window_start": "2026-01-01T00:00:00Z",
        "window_end": "2026-01-01T00:00:05Z",
        "key": {"k": "login"},
        "aggregates": {"count": 3, "sum_v": 120.5, "avg_v": 120.5 / 3},
    }
    assert short(windows[1:]) == [("05", "x", 1, 1, 1.0)]
    assert "Processed 4 events" in errors
    assert "4 in windows" in errors


def test_a_file_and_a_pipe_give_the_same(stream, tmp_path):
    text = "".join(at(number / 10, "abc"[number % 3], v=number) for number in range(300))
    (tmp_path / "events.jsonl").write_text(text)
    options = (*BY_KIND, "--agg", "n=count", "--agg", "p95:v", "--window", "hopping:6s/2s")
    assert stream("events.jsonl", *options)[:2] == stream("-", *options, stdin=text)[:2]


def test_a_pipe_that_trickles_is_not_waited_for(live):
    process = live("-", *BY_KIND)
    give(process, at(1) + at(2, "b") + at(5))
    assert json.loads(process.stdout.readline())["key"] == {"k": "a"}
    assert json.loads(process.stdout.readline())["key"] == {"k": "b"}
    give(process, at(12)[:20])
    give(process, at(12)[20:])
    assert short([json.loads(process.stdout.readline())]) == [("05", "a", 1)]
    output, errors = process.communicate()
    assert short(map(json.loads, output.splitlines())) == [("10", "a", 1)]
    assert b"Processed 4 events" in errors
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(live, number):
    process = live("-", *BY_KIND)
    give(process, at(1) + at(6))
    assert process.stdout.readline()
    process.send_signal(number)
    output, errors = process.stdout.read(), process.stderr.read()  # its standard input stays open
    assert short(map(json.loads, output.splitlines())) == [("05", "a", 1, "partial")]
    assert b"Stopped after 2 events" in errors
    assert process.wait() == 0


def test_a_duration_ends_it(live):
    process = live("-", *BY_KIND, "--duration", "2s")  # far more than it takes to read an event
    give(process, at(1))
    output = process.stdout.read()  # the pipe stays open
    assert short(map(json.loads, output.splitlines())) == [("00", "a", 1, "partial")]
    assert process.wait() == 0


def test_so_many_events_and_no_more(stream):
    text = at(1) + "\n" + at(2) + "oops\n" + at(3) + at(4)
    code, windows, errors = stream("-", *BY_KIND, "--max-events", "4", stdin=text)
    assert (code, short(windows)) == (0, [("00", "a", 3, "partial")])
    assert "Stopped after 4 events" in errors


def test_a_reader_that_leaves(live):
    process = live("-", *BY_KIND)
    process.stdout.close()
    give(process, at(1) + at(6))
    assert process.wait(timeout=PATIENCE) == 141
    assert process.stderr.read() == b""


def test_what_is_rejected_is_told_with_its_place(stream, tmp_path):
    lines = [
        at(1), "\n", '{"t": oops}\n', at(2)[:-2] + "\n",
        '{"k": "a"}\n', '{"t": "soon", "k": "a"}\n', '{"t": null, "k": "a"}\n',
        '{"t": 5, "k": ["a"]}\n', "[1]\n", at(3, v="x"), at(4, v=1),
    ]  # fmt: skip
    code, windows, errors = stream(
        "-", *BY_KIND, "--agg", "sum:v", "--dead-letter", "bad.jsonl", stdin="".join(lines)
    )
    assert (code, short(windows)) == (0, [("00", "a", 1)])
    letters = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(one["line"], one["record"], one["kind"]) for one in letters] == [
        (1, 1, "missing_field"), (3, 2, "invalid_json"), (4, 3, "invalid_json"),
        (5, 4, "missing_field"), (6, 5, "missing_field"), (7, 6, "missing_field"),
        (8, 7, "transform"), (9, 8, "transform"), (10, 9, "transform"),
    ]  # fmt: skip
    assert letters[-1]["message"] == "'v' is a string, not a number"
    assert letters[-1]["data"]["v"] == "x"
    assert "rejected  -:3:7: invalid_json" in errors
    assert "9 rejected" in errors


def test_a_time_that_is_none_says_so(stream):
    _, _, errors = stream("-", *BY_KIND, stdin='{"t": "soon", "k": "a"}\n')
    assert "'t' is not an RFC 3339 time" in errors


@pytest.mark.parametrize("more", [(), ("--workers", "0"), ("--jq", "."), ("-q",)])
def test_a_stream_of_which_everything_is_rejected_fails(stream, tmp_path, more):
    lines = "".join(at(number, v=1) for number in range(30)) * 100
    code, windows, errors = stream("-", "--report", "r.json", *more, stdin=lines)
    assert (code, windows) == (1, [])
    reason = "'timestamp' is missing or null; the event has 't', 'k', 'v' (--time names the time's"
    assert f"Error: all 3,000 events were rejected: {reason} field)" in errors
    if "-q" not in more:
        assert errors.count("rejected  ") == 1
        assert f"rejected  3,000 times, first -:1: missing_field: {reason}" in errors
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["exit_code"] == 1
    assert report["failure_kinds"] == {"missing_field": 3000}
    assert len(report["failures"]) + report["failures_omitted"] == 3000


@pytest.mark.parametrize(
    ("lines", "more", "expected"),
    [
        (at(1) + "oops\n", (), 0),  # one is of use
        ("oops\n" * 5, ("--max-failures", "5"), 0),  # allowed
        ("oops\n" * 5, ("--max-failures", "4"), 1),
        ("oops\n" * 5, (), 1),
        (at(1), ("--jq", "empty"), 0),  # dropped on purpose
        ("", (), 0),
    ],
)
def test_when_a_stream_fails(stream, lines, more, expected):
    assert stream("-", *BY_KIND, *more, stdin=lines)[0] == expected


def test_equal_rejections_are_one_line_with_their_number(stream, tmp_path):
    lines = (at(1) + "oops\n" + '{"t": "soon", "k": "a"}\n' + '{"k": "a"}\n') * 50
    _, _, errors = stream("-", *BY_KIND, "--report", "r.json", stdin=lines)
    told = [line for line in errors.splitlines() if line.startswith("rejected  ")]
    assert [line.split(": ")[:2] for line in told] == [
        ["rejected  50 times, first -:2:1", "invalid_json"],
        ["rejected  50 times, first -:3", "transform"],
        ["rejected  50 times, first -:4", "missing_field"],
    ]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["failure_kinds"] == {"invalid_json": 50, "missing_field": 50, "transform": 50}


def test_late_events_are_kept(stream, tmp_path):
    late = at(4, "b", note="late")
    code, windows, errors = stream(
        "-", *BY_KIND, "--late", "late.jsonl", stdin=at(1) + at(5) + late + at(6)
    )
    assert (code, short(windows)) == (0, [("00", "a", 1), ("05", "a", 2)])
    assert (tmp_path / "late.jsonl").read_text() == late
    assert "3 in windows, 1 late" in errors


@pytest.mark.parametrize(
    ("lines", "count", "late"),
    [
        (at(7).strip() + at(1) + "\n", 0, ""),  # two objects in the first of two lines
        (at(7) + at(1).replace(",", ",\n", 1).strip(), 1, ""),  # an object in two lines
        (at(7).replace("\n", "\r\n") + at(1).replace("\n", " \n") + at(8), 2, at(1)),
    ],
)
def test_each_line_is_one_event(stream, tmp_path, lines, count, late):
    _, windows, _ = stream("-", "--time", "t", "--late", "late.jsonl", stdin=lines)
    assert sum(one["aggregates"]["count"] for one in windows) == count
    assert (tmp_path / "late.jsonl").read_text().split() == late.split()


def test_a_late_event_begins_no_second_session_over_the_same_time(stream, tmp_path):
    lines = at(0) + at(6, "b") + at(3) + at(5)
    code, windows, errors = stream(
        "-", *BY_KIND, "--window", "session:5s", "--late", "late.jsonl", stdin=lines
    )
    assert code == 0
    assert short(windows) == [("00", "a", 1), ("05", "a", 1), ("06", "b", 1)]
    assert (tmp_path / "late.jsonl").read_text() == at(3)
    assert "1 late" in errors


def test_a_failure_budget(stream):
    text = at(1) + "oops\n" + at(6) + at(2)
    assert stream("-", *BY_KIND, "--max-failures", "2", stdin=text)[0] == 0
    code, windows, errors = stream("-", *BY_KIND, "--max-failures", "1", stdin=text)
    assert code == 1
    assert "2 failures, more than the 1 that --max-failures allows" in errors
    assert len(windows) == 2


def test_too_many_keys(stream):
    text = "".join(at(1, kind) for kind in "abcd")
    code, windows, errors = stream("-", *BY_KIND, "--max-keys", "2", stdin=text)
    assert (code, windows) == (1, [])
    assert "more than 2 keys" in errors
    assert "--overflow-key" in errors
    code, windows, _ = stream(
        "-", *BY_KIND, "--max-keys", "2", "--overflow-key", "others", stdin=text
    )
    assert (code, short(windows)) == (0, [("00", "a", 1), ("00", "b", 1), ("00", "others", 2)])


def test_events_are_transformed_first(stream, tmp_path):
    (tmp_path / "clean.py").write_text(
        "def both(event):\n    return [event, {**event, 'v': event['v'] * 10}]\n"
    )
    (tmp_path / "schema.json").write_text('{"properties": {"v": {"maximum": 30}}}')
    text = "".join(at(number, v=number) for number in range(5))
    code, windows, errors = stream(
        "-", "--time", "time", "--agg", "count", "--agg", "sum:v",
        "--jq", "select(.v != 1) | {time: .t, v}", "--call", "clean.py:both",
        "--schema", "schema.json", stdin=text,
    )  # fmt: skip
    assert (code, short(windows)) == (0, [("00", 6, 0 + 2 + 20 + 3 + 30 + 0)])
    assert "1 dropped, 1 rejected" in errors


def test_nested_fields(stream):
    text = '{"e": {"t": 1767225600, "u": {"id": 7}}, "n": [1, 2.5]}\n'
    code, windows, _ = stream(
        "-",
        "--time",
        "e.t",
        "--by",
        "e.u.id",
        "--agg",
        "sum:n.1",
        "--agg",
        "x=max:/n/0",
        stdin=text,
    )
    assert code == 0
    assert windows[0]["key"] == {"e.u.id": 7}
    assert windows[0]["aggregates"] == {"sum_n.1": 2.5, "x": 1}


def test_simulated_events(stream):
    code, windows, errors = stream(
        "simulate:", "--max-events", "200", "--rate", "200", "--types", "a,b"
    )
    assert code == 0
    assert {window["key"]["event_type"] for window in windows} == {"a", "b"}
    assert set(windows[0]["aggregates"]) == {"count", "sum_value", "avg_value"}
    assert windows[-1]["partial"]
    total = sum(window["aggregates"]["count"] for window in windows)
    assert total == 200
    assert "Stopped after 200 events" in errors


def test_time_of_arrival(live):
    process = live("simulate:", "--time", "arrival", "--window", "tumbling:200ms")
    starts: set[str] = set()
    while len(starts) < 3:
        window = json.loads(process.stdout.readline())
        assert not window.get("partial")
        starts.add(window["window_start"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_quiet(stream):
    code, windows, errors = stream("-", *BY_KIND, "-q", stdin=at(1) + "oops\n")
    assert (code, len(windows), errors) == (0, 1, "")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("nowhere.jsonl",), "cannot read nowhere.jsonl: No such file"),
        (("kafka:topic",), "is not a source"),
        ((".",), "no JSON files in ."),
        (("-", "--window", "tumbling:0s"), "a length of zero"),
        (("-", "--agg", "median:v"), "not an aggregate"),
        (("-", "--agg", 'sum:"v,w"'), 'a comma, quote the whole: "sum:a,b"'),
        (("-", "--agg", "count", "--agg", "count"), "two aggregates"),
        (("-", "--by", "a..b"), "not the path"),
        (("-", "--lateness", "soon"), "is not a duration"),
        (("-", "--time", "arrival", "--lateness", "5s"), "not the time of arrival"),
        (("-", "--overflow-key", "x"), "grouped by a field"),
        (("-", "--late", "no/such/folder.jsonl"), "cannot write"),
        (("-", "--max-failures", "many"), "neither a number"),
        (("-", "--check-formats"), "--check-formats needs --schema"),
        (("-", "--jq", ".["), "jq"),
    ],
)
def test_wrong_usage(stream, arguments, why):
    code, windows, errors = stream(*arguments)
    assert (code, windows) == (2, [])
    assert why in errors


def test_null_is_no_terminal(stream):
    finished = subprocess.run(
        [*COMMAND, "stream", "/dev/null"], check=False, capture_output=True, env=environment(),
        timeout=PATIENCE,
    )  # fmt: skip
    assert (finished.returncode, finished.stdout) == (0, b"")


@pytest.mark.parametrize("ci", ["", "true"])
def test_on_a_terminal(tmp_path, ci):
    (tmp_path / "events.jsonl").write_text(at(1, "login") + at(6, "view"))
    main, side = os.openpty()
    process = CommandProcess(
        ["stream", "events.jsonl", *BY_KIND],
        stdout=side, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(CI=ci),
    )  # fmt: skip
    os.close(side)
    shown = b""
    try:
        while chunk := os.read(main, 65536):
            shown += chunk
    except OSError:  # the other end was closed
        pass
    os.close(main)
    _, errors = process.communicate()
    assert b"Processed 2 events" in errors
    assert process.returncode == 0
    if ci:
        assert [json.loads(line)["key"]["k"] for line in shown.splitlines()] == ["login", "view"]
    else:
        assert b"00:00:00 - 00:00:05" in shown
        assert b"login" in shown
        assert b"window_start" not in shown


# --- workers


@pytest.fixture(scope="module")
def masses(tmp_path_factory):
    """A file large enough for workers: out of order, with some invalid lines."""
    path = tmp_path_factory.mktemp("masses") / "events.jsonl"
    options = ("-n", "120000", "--rate", "10000", "--disorder", "300ms", "--seed", "3")
    made = generate(*options, "--start", "2026-01-01T00:00:00Z").stdout.splitlines(keepends=True)
    made[89_999] = b"oops\n"
    made[100_000] = b'{"timestamp": "2026-01-01T00:00:01Z", "event_type": "late", "value": 1}\n'
    path.write_bytes(b"".join(made))
    return path


@pytest.mark.parametrize("window", ["tumbling:1s", "hopping:2s/1s", "session:1s"])
def test_workers_change_nothing(stream, masses, tmp_path, window):
    options = ("--by", "event_type", "--window", window, "--late", "late.jsonl")
    aggregates = [f"--agg={kind}:value" for kind in ("sum", "p95", "max", "stddev", "distinct")]
    options = (masses, *options, "--dead-letter", "bad.jsonl", *aggregates)
    outcomes = []
    for workers in (0, 2):
        code, windows, _ = stream(*options, "--workers", workers)
        side = [(tmp_path / name).read_bytes() for name in ("late.jsonl", "bad.jsonl")]
        outcomes.append((code, windows, side))
    assert outcomes[0] == outcomes[1]
    letter = json.loads(side[1])
    assert (letter["line"], letter["record"]) == (90_000, 90_000)
    assert b'"event_type": "late"' in side[0]


def test_many_keys_go_through_workers(stream, masses):
    options = (masses, "--by", "user_id", "--agg", "sum:value", "--lateness", "300ms")
    assert stream(*options, "--workers", 2)[:2] == stream(*options, "--workers", 0)[:2]


def test_several_sources_go_through_workers(stream, masses, tmp_path):
    """Their chunks alternate, and those of each go to a worker together."""
    lines = masses.read_bytes().splitlines(keepends=True)
    names = [f"{number}.jsonl" for number in range(3)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"".join(lines[number::3]))
    options = (*names, "--by", "event_type", "--agg", "sum:value", "--lateness", "300ms")
    outcomes = []
    for workers in (0, 2):
        code, windows, _ = stream(*options, "--workers", workers, "--report", "r.json")
        report = json.loads((tmp_path / "r.json").read_text())
        failures = [(one["file"], one["line"]) for one in report["failures"]]
        outcomes.append((code, windows, failures))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][2] == [("2.jsonl", 30_000)]


def test_workers_that_die_are_made_good(live, masses):
    with masses.open("rb") as file:
        data = file.read()
    process = live("-", "--by", "event_type", "--workers", "2", "--lateness", "300ms")
    half = data.rindex(b"\n", 0, len(data) * 4 // 5) + 1
    feeder = threading.Thread(target=lambda: process.stdin.write(data[:half]))
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout))
    reader.start()
    feeder.start()
    feeder.join()
    workers = psutil.Process(process.pid).children()
    assert workers
    for worker in workers:
        worker.kill()
    process.stdin.write(data[half:])
    process.stdin.close()
    assert process.wait(timeout=PATIENCE) == 0
    reader.join()
    assert sum(json.loads(line)["aggregates"]["count"] for line in lines) == 119_999 - 1


# --- examples


def generate(*arguments):
    return subprocess.run(
        [*COMMAND, "generate", "events", *arguments], check=False, capture_output=True,
        env=environment(), timeout=PATIENCE,
    )  # fmt: skip


def test_examples_are_the_same_each_time(tmp_path):
    options = ("--seed", "5", "--start", "2026-01-01T00:00:00Z", "--rate", "100")
    first = generate(*options, "--duration", "3s")
    assert first.stdout == generate(*options, "--count", "300").stdout
    generate(*options, "-n", "300", "--to", str(tmp_path / "events.jsonl"))
    assert (tmp_path / "events.jsonl").read_bytes() == first.stdout
    events = [json.loads(line) for line in first.stdout.splitlines()]
    assert events[-1]["timestamp"] == "2026-01-01T00:00:02.990000Z"
    assert {event["event_type"] for event in events} == {"login", "logout", "purchase", "view"}
    assert all(1 <= event["user_id"] <= 1000 and 0 <= event["value"] <= 100 for event in events)
    assert generate(*options, "-n", "300", "--disorder", "1s").stdout != first.stdout


@pytest.mark.parametrize(
    "arguments", [("-n", "5", "--duration", "5s"), ("--start", "soon"), ("--types", "a,,b")]
)
def test_examples_that_cannot_be(arguments):
    assert generate(*arguments).returncode == 2


# --- reports


def test_a_report_tells_what_a_stream_came_to(stream, tmp_path):
    report, metrics = tmp_path / "shop.json", tmp_path / "shop.prom"
    text = f"{at(1)}oops\n{at(20)}{at(2)}"
    options = (*BY_KIND, "--report", str(report), "--report", str(metrics))
    code, *_ = stream("-", *options, stdin=text)
    assert code == 0
    told = json.loads(report.read_text())
    assert told["events"] == {
        "read": 4, "in_windows": 2, "late": 1, "rejected": 1, "dropped": 0, "late_in_part": 0,
    }  # fmt: skip
    assert told["windows"] == {"over": 2, "refused": 0}
    assert [(one["line"], one["kind"]) for one in told["failures"]] == [(2, "invalid_json")]
    assert (told["status"], told["exit_code"], told["failures_omitted"]) == ("ended", 0, 0)
    assert told["failure_kinds"] == {"invalid_json": 1}
    found = {
        (sample.name.removeprefix("asyncbatch_stream_"), sample.labels.get("result")): sample.value
        for family in text_string_to_metric_families(metrics.read_text())
        for sample in family.samples
        if sample.labels["name"] == "shop"
    }
    assert (found["running", None], found["exit_code", None]) == (0, 0)
    assert (found["events", "in_windows"], found["events", "late"]) == (2, 1)
    assert found["read_bytes", None] == len(text)


def test_a_stream_that_cannot_begin_or_go_on_writes_its_reports(stream, tmp_path):
    reports = (*BY_KIND, "--report", "s.json", "--report", "s.prom")

    def told():
        found = {
            sample.name.removeprefix("asyncbatch_stream_"): sample.value
            for family in text_string_to_metric_families((tmp_path / "s.prom").read_text())
            for sample in family.samples
        }
        return found, json.loads((tmp_path / "s.json").read_text())

    assert stream("-", *reports, stdin=at(1))[0] == 0
    good, _ = told()
    for more, code in (
        (("no.jsonl",), 2),
        (("-", "--to", "sqlite:///no/such/x.db", "--table", "w"), 2),
        (("-", "--agg", "sum:k", "--agg", "sum:k"), 2),
        (("-", "--max-keys", "1"), 1),
    ):
        assert stream(*more, *reports, stdin=at(1) + at(2, "b"))[0] == code
        metrics, report = told()
        assert (metrics["exit_code"], report["exit_code"]) == (code, code)
        assert (report["status"], metrics["running"]) == ("failed", 0)
        assert report["error"]
        kept = metrics["last_success_timestamp_seconds"]
        assert kept == good["last_success_timestamp_seconds"]


def test_metrics_are_there_while_the_stream_goes_on(tmp_path):
    metrics = tmp_path / "live.prom"
    with CommandProcess(
        ["stream", "simulate:", "--report", str(metrics)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        try:
            wait_until(metrics.exists, running=running)
            assert 'asyncbatch_stream_running{name="live"} 1.0' in metrics.read_text()
            running.terminate()
            assert running.wait(timeout=PATIENCE) == 0
        finally:
            running.kill()
    assert 'asyncbatch_stream_running{name="live"} 0.0' in metrics.read_text()
    assert list(tmp_path.iterdir()) == [metrics]


@pytest.mark.parametrize("line", ['{"t": 1}{"t": 2}', '{"t": 1}\x1e{"t": 2}', '{"t": 1} [2]'])
def test_no_message_names_an_option_that_streams_have_not(stream, line):
    _, _, errors = stream("-", "--time", "t", stdin=f"{line}\n")
    assert "after the end of the value (each event needs a line of its own)" in errors
    assert "--input-format" not in errors


def test_an_unknown_report_names_those_of_streams(stream):
    code, _, errors = stream("-", "--report", "p.toml", stdin="")
    told = " ".join(errors.split())
    assert (code, "write one of .html, .json, .jsonl, .md, .prom" in told) == (2, True), told


@pytest.mark.parametrize("name", ["r.xml", "no/such/r.json", "."])
def test_reports_that_cannot_be(stream, tmp_path, name):
    code, *_ = stream("-", *BY_KIND, "--report", str(tmp_path / name), stdin="")
    assert code == 2


# --- the library, with manual clocks


class Fed:
    """A stream with one source, whose bytes the test feeds."""

    def __init__(self, settings, **options):
        self._stream = StreamCore(settings, **options)
        self._stream.join("-")

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def feed(self, data):
        return self._stream.feed("-", LiveChunk("-", data))

    def end(self):
        return self._stream.feed("-", LiveChunk("-", b"", ends_file=True))


class Clock:
    now = 1_767_225_600 * SECOND  # 2026-01-01

    def __call__(self):
        return self.now


def make(window="tumbling:5s", aggs=("count",), **more):
    kept = {name: more.pop(name) for name in ("late", "reject", "max_events") if name in more}
    clock = Clock()
    settings = StreamSettings(
        parse_window(window),
        tuple(map(parse_aggregate, aggs)),
        **{"by": ("k",), "time": "t", **more},
    )
    return Fed(settings, wall_clock=clock, clock=clock, **kept), clock


def lines_of(stream, windows):
    return short(map(json.loads, window_lines(stream.schema, windows).splitlines()))


def test_a_silent_source_does_not_hold_windows_open():
    stream, clock = make(idle=3 * SECOND)
    assert not stream.feed(at(4).encode())
    clock.now += 3 * SECOND - 1
    assert not stream.tick()
    clock.now += 1
    assert lines_of(stream, stream.tick()) == [("00", "a", 1)]  # 4 s and 3 s of silence
    assert not stream.feed(at(4.5).encode())
    assert stream.tally.late == 1


def test_one_bad_clock_does_not_end_all_windows():
    stream, clock = make(max_future=60 * SECOND)
    text = at(1) + '{"t": "2099-01-01T00:00:00Z", "k": "a"}\n' + at(2)
    assert not stream.feed(text.encode())
    assert (stream.tally.rejected, stream.tally.late, stream.tally.events) == (1, 0, 2)
    assert "--max-future" in stream.tally.rejections[0].message
    clock.now += 100 * 366 * 86_400 * SECOND
    assert stream.feed(b'{"t": "2099-01-01T00:00:00Z", "k": "a"}\n')


def test_a_clock_that_goes_back():
    stream, clock = make(time=None)
    stream.feed(b'{"k": "a"}\n')
    clock.now -= 60 * SECOND
    stream.feed(b'{"k": "a"}\n')
    assert not stream.tick()
    clock.now += 65 * SECOND
    assert lines_of(stream, stream.tick()) == [("00", "a", 2)]
    assert stream.tally.late == 0


def test_leap_days_and_seconds():
    stream, _ = make("tumbling:1d")
    texts = ["2024-02-28T23:59:59Z", "2024-02-29T00:00:00Z", "2024-02-29T23:59:60Z"]
    closed = [
        window
        for text in texts
        for window in stream.feed(f'{{"t": "{text}", "k": "a"}}\n'.encode())
    ]
    closed += stream.finish(partial=False)
    found = [
        json.loads(line)["window_start"]
        for line in window_lines(stream.schema, closed).splitlines()
    ]
    assert found == ["2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"]


ODD = [
    at(1).encode(), b"\xef\xbb\xbf" + at(2).encode(), at(1).encode().replace(b"\n", b"\r\n"), b"\n",
    b" \t\n", b'{"t":\n', b'"2026-01-01T00:00:01Z", "k": "a"}\n', b'{"t": 1} {"t": 2}\n',
    b'{"t": 1767225601, "k": "\xff"}\n', b'{"t": 1767225601, "k": "b", "x": "\xff"}\n',
    b'{"t": 1767225600123, "k": 1}\n', b'{"t": 1767225600123, "k": 1.0}\n',
    b'{"t": 1767225600.5, "k": true}\n', at(9).encode(), at(3, "\u00e9").encode(), b"nonsense\n",
    b'{"t": 1767225601, "k": "a", "k": "b"}\n', b"[" * 2000 + b"\n", b'{"t": 1e999, "k": "a"}\n',
    b'{"k": "a"}\n', b"{}\n", b'{"t": "2026-01-01T00:00:04+00:00", "k": "a"}\n',
    b'{"t": "2026-01-01T00:00:04", "k": "a"}\n', at(9).strip().encode() + at(1, "two").encode(),
    b'{"t": "2026-01-01T00:00:04Z",\n', b'"k": "a"}\n',
]  # fmt: skip


@given(
    st.lists(st.sampled_from(ODD), max_size=150),
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from(["tumbling:2s", "hopping:4s/2s", "session:1s"]),
)
def test_how_bytes_are_cut_changes_nothing(lines, sizes, ended, window):
    data = b"".join(lines)
    data = data if ended else data.removesuffix(b"\n")

    def run(pieces):
        late: list[bytes] = []
        rejected: list[bytes] = []
        stream, _ = make(window, letters=True, late=late.append, reject=rejected.append)
        closed = [one for piece in pieces for one in stream.feed(piece)]
        closed += stream.end() + stream.finish(partial=False)
        return window_lines(stream.schema, closed), b"".join(late), b"".join(rejected), stream.tally

    def pieces():
        start = 0
        while start < len(data):
            for size in sizes:
                yield data[start : start + size]
                start += size

    expected = run([data])
    assert run(piece for piece in pieces() if piece) == expected
    each = (
        run(line + b"\n" for line in data.split(b"\n")[:-1]) if data.endswith(b"\n") else expected
    )
    assert each == expected
    tally = expected[-1]
    assert tally.read == tally.events + tally.late + tally.rejected


def test_a_failure_says_which_of_many_lines(tmp_path):
    stream, _ = make()
    text = at(1).encode() * 1000
    stream.feed(text + b"oops\n" + text)
    assert [(one.line, one.record) for one in stream.tally.rejections] == [(1001, 1001)]
    assert stream.tally.events == 2000


def test_too_many_keys_is_an_error_of_its_own():
    stream, _ = make(max_keys=1)
    with pytest.raises(TooManyKeysError):
        stream.feed((at(1, "a") + at(1, "b")).encode())


def test_nothing_is_imported_that_is_not_needed():
    program = (
        "import sys; from asyncbatch.cli.app import app; "
        "print([m for m in sys.modules if m.split('.')[0] in ('fractions', 'numpy')"
        " or m.startswith(('asyncbatch.windows', 'asyncbatch.sources.live'))])"
    )
    finished = subprocess.run(
        [COMMAND[0], "-c", program], check=True, capture_output=True, text=True, env=environment()
    )
    assert finished.stdout == "[]\n"


# Locks and stops, as of the other commands


def test_a_stream_that_has_the_lock_keeps_others_out(live, stream):
    first = live("-", "--time", "t", "--lock", "--window", "tumbling:1s", "-q")
    first.stdin.write(b'{"t": 1}\n{"t": 100}\n')
    first.stdin.flush()
    assert json.loads(first.stdout.readline())["aggregates"] == {"count": 1}
    code, windows, errors = stream("-", "--time", "t", "--lock", "--window", "tumbling:1s")
    assert (code, windows) == (75, [])
    assert f"process {first.pid}" in errors
    # Another job has another lock.
    assert stream("-", "--time", "t", "--lock", "--window", "tumbling:2s")[0] == 0
    first.stdin.close()
    assert first.wait(PATIENCE) == 0
    assert stream("-", "--time", "t", "--lock", "--window", "tumbling:1s")[0] == 0


def test_a_reader_that_does_not_read_is_left_after_the_grace(live):
    process = live("-", "--time", "t", "--by", "k", "--window", "tumbling:1h", "--grace", "0.2")
    lines = [f'{{"t": 1, "k": "{number:060}"}}\n' for number in range(3000)]
    process.stdin.write("".join(lines).encode())
    process.stdin.flush()
    wait_until(lambda: not waiting_bytes(process.stdin), running=process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 143  # nobody reads its windows, which fill the pipe
    assert b"the stream did not end within 0.2 s of the signal" in process.stderr.read()


def test_a_folder_is_read_but_for_what_is_excluded(stream, tmp_path):
    for name in ("in/a.jsonl", "in/b.jsonl", "in/old/c.jsonl", "in/d.log"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"t": 1, "k": "{path.stem}"}}\n')
    options = ("--time", "t", "--by", "k", "--window", "tumbling:1s")

    def keys(*more):
        return sorted(one["key"]["k"] for one in stream("in", *options, *more)[1])

    assert keys() == ["a", "b", "c"]
    assert keys("--exclude", "old") == ["a", "b"]
    assert keys("--exclude", "old", "--exclude", "b.*") == ["a"]
    assert keys("--pattern", "*.log", "--pattern", "*.jsonl", "--exclude", "a*") == ["b", "c", "d"]
    assert stream("in/a.jsonl", *options, "--exclude", "x")[0] == 2
    (tmp_path / "s.toml").write_text(
        'source = {type = "folder", path = "in", exclude = ["old", "b.*"]}\n'
        '[window]\nspec = "tumbling:1s"\ntime = "t"\nby = ["k"]\n'
    )
    code, windows, _ = stream("s.toml")
    assert (code, [one["key"]["k"] for one in windows]) == (0, ["a"])


@pytest.mark.parametrize(
    ("number", "options", "code"),
    [
        (signal.SIGTERM, (), 0), (signal.SIGTERM, ("--signal-exit",), 143),
        (signal.SIGINT, ("--signal-exit",), 130),
    ],
)  # fmt: skip
def test_the_exit_status_of_a_stream_that_is_stopped(live, tmp_path, number, options, code):
    report = ("--report", str(tmp_path / "r.json"))
    process = live("-", "--time", "t", "--window", "tumbling:1s", *report, *options)
    process.stdin.write(b'{"t": 1}\n{"t": 9}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["aggregates"] == {"count": 1}
    process.send_signal(number)
    assert process.wait(PATIENCE) == code
    [last] = [json.loads(line) for line in process.stdout]
    assert (last["aggregates"], last["partial"]) == ({"count": 1}, True)
    assert json.loads((tmp_path / "r.json").read_text())["exit_code"] == code
