"""The outputs and reports of `asyncbatch stream`: events, objects, files, progress, signals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess

import pytest

from tests.commands import COMMAND, PATIENCE, CommandProcess, environment, run_command_text

TIMES = ("--time", "t", "--by", "k")
EVENTS = (
    '{"t": 1, "k": "a"}\n\n{"t": 2, "k": "b"}\noops\n{"t": 9, "k": "a"}\n'
    '{"t": 1, "k": "late"}\n{"k": 1}\n'
)
WINDOWS = [
    {"event": "window", "window_start": f"1970-01-01T00:00:0{start}Z",
     "window_end": f"1970-01-01T00:00:{end}Z", "key": {"k": key}, "aggregates": {"count": 1}}
    for start, end, key in ((0, "05", "a"), (0, "05", "b"), (5, "10", "a"))
]  # fmt: skip
NOWHERE = {"line": None, "column": None, "byte": None}


def failure(kind, record, **more):
    return {
        "event": "failure",
        "file": "e.jsonl",
        "kind": kind,
        "record": record,
        **NOWHERE,
        **more,
    }


FAILURES = [
    failure("invalid_json", 3, message="expected a value, found 'oops'", line=4, column=1, byte=39),
    failure("late", 5, message="is late: the windows of 1970-01-01T00:00:01Z are over", line=6),
    failure("missing_field", 6, line=7, pointer="/t",
            message="'t' is missing or null; the event has 'k' (--time names the time's field)"),
]  # fmt: skip


@pytest.fixture
def events(files):
    """Write the events; return their folder."""
    return files({"e.jsonl": EVENTS})


def of(lines, event):
    return [line for line in lines if line["event"] == event]


def in_order(failures):
    return sorted(failures, key=lambda one: one["record"])


@pytest.mark.parametrize(
    "more",
    [(), ("--workers", "0"), ("--workers", "1", "--jq", "."), ("--call", "c.py:same"),
     ("--late", "late.jsonl", "--dead-letter", "bad.jsonl")],
)  # fmt: skip
def test_events_as_json_lines(stream, events, more):
    (events / "c.py").write_text("async def same(event):\n    return event\n")
    code, lines, errors = stream("e.jsonl", *TIMES, "-o", "jsonl", "--report", "r.json", *more)
    assert (code, errors) == (0, "")
    assert of(lines, "window") == WINDOWS
    assert in_order(of(lines, "failure")) == FAILURES
    [summary] = of(lines, "summary")
    assert summary is lines[-1]
    report = json.loads((events / "r.json").read_text())
    assert summary == {"event": "summary"} | report
    assert list(summary)[:3] == ["event", "schema_version", "command"]
    assert report["events"] == {
        "read": 6, "in_windows": 3, "late": 1, "rejected": 2, "dropped": 0, "late_in_part": 0,
    }  # fmt: skip
    assert report["this_run"] == {"events": 6, "bytes": len(EVENTS)}


def test_places_of_late_events_in_sessions_and_many_lines(stream, files):
    lines = [f'{{"t": {number}, "k": "a"}}\n' for number in range(200)]
    lines[150] = '{"t": 3, "k": "b"}\n'
    files({"e.jsonl": "".join(lines)})
    for window in ("session:2s", "tumbling:1s"):
        _, found, _ = stream("e.jsonl", *TIMES, "--window", window, "-o", "jsonl")
        [late] = of(found, "failure")
        assert (late["kind"], late["record"], late["line"]) == ("late", 151, 151)


def test_partial_windows_and_the_status_of_a_stopped_stream(stream, events):
    code, lines, _ = stream("e.jsonl", *TIMES, "-o", "jsonl", "--max-events", "2")
    assert (code, lines[-1]["status"], lines[-1]["exit_code"]) == (0, "stopped", 0)
    assert [one.get("partial") for one in of(lines, "window")] == [True, True]


def test_one_object_needs_a_target_for_the_windows(stream, events):
    for form in ("json", "github"):
        code, lines, errors = stream("e.jsonl", *TIMES, "-o", form)
        assert (code, lines) == (2, [])
        assert f"--output {form} has no place for the windows" in errors
    for form in ("json", "jsonl", "github"):
        code, lines, errors = stream("e.jsonl", *TIMES, "-o", form, "--to", "-")
        assert (code, lines) == (2, [])
        assert f"--to - and --output {form} both write to standard output" in errors
    code, [report], errors = stream("e.jsonl", *TIMES, "-o", "json", "--to", "w.jsonl")
    assert (code, errors) == (0, "")
    assert report["windows"] == {"over": 3, "refused": 0}
    assert [json.loads(line) for line in (events / "w.jsonl").read_text().splitlines()] == WINDOWS


def test_with_a_target_windows_are_events_too(stream, events):
    _, lines, _ = stream("e.jsonl", *TIMES, "-o", "jsonl", "--to", "w.csv")
    assert of(lines, "window") == WINDOWS
    assert len((events / "w.csv").read_text().splitlines()) == 4


def test_outputs_beside_a_pipeline_file(stream, events):
    (events / "s.toml").write_text(
        'source = { path = "e.jsonl" }\nwindow = { spec = "tumbling:5s", time = "t", by = ["k"] }\n'
    )
    _, lines, errors = stream("s.toml", "-o", "jsonl", "--no-progress", "--show-failures", "1")
    assert (of(lines, "window"), errors) == (WINDOWS, "")
    assert "rejected  e.jsonl:4:1  expected" in stream("s.toml", "-v")[2]
    assert stream("s.toml", "-o", "json")[0] == 2
    assert stream("s.toml", "-o", "json", "--set", "sink.to=w.jsonl")[0] == 0


def test_annotations(events):
    finished = run_command_text(
        "stream", "e.jsonl", *TIMES, "-o", "github", "--to", "w.jsonl", cwd=events
    )
    assert finished.stdout.splitlines() == [
        f"::error file=e.jsonl,title=asyncbatch%3A {kind}::{FAILURES[at]['message']}"
        for kind, at in (("invalid_json,line=4,col=1", 0), ("missing_field,line=7", 2))
    ] + [
        "asyncbatch stream: ended, 6 events",
    ]


def test_report_files(stream, events):
    names = ("r.json", "r.jsonl", "r.md", "r.prom")
    reports = [word for name in names for word in ("--report", name)]
    code, windows, _ = stream("e.jsonl", *TIMES, *reports)
    assert (code, windows) == (0, WINDOWS)
    lines = [json.loads(line) for line in (events / "r.jsonl").read_text().splitlines()]
    assert lines[-1] == {"event": "summary"} | json.loads((events / "r.json").read_text())
    assert of(lines, "window") == WINDOWS
    assert in_order(of(lines, "failure")) == FAILURES
    page = (events / "r.md").read_text()
    assert page.startswith("### asyncbatch stream: ended, 6 events\n")
    for row in ("| in windows | 3 |", "| late | 1 |", "| rejected | 2 |", "| windows | 3 |"):
        assert row in page
    assert "| `e.jsonl:4:1` | invalid_json | expected a value, found 'oops' |" in page
    assert "Exit status 0." in page
    code, windows, errors = stream("e.jsonl", *TIMES, "--report", "r.xml")
    assert (code, windows) == (2, [])
    assert "a stream has no files to be test cases of JUnit" in errors
    assert not (events / "r.xml").exists()


def test_a_line_for_each_failure(stream, events):
    (events / "c.py").write_text("def bad(event):\n    raise ValueError(event['k'])\n")
    code, windows, errors = stream("e.jsonl", *TIMES, "-v")
    assert (code, windows) == (0, WINDOWS)
    for line in (
        "rejected  e.jsonl:4:1  expected a value, found 'oops'",
        "late      e.jsonl:6  is late: the windows of 1970-01-01T00:00:01Z are over",
    ):
        assert line in errors.splitlines()
    assert "window " not in errors
    _, windows, errors = stream("e.jsonl", *TIMES, "-v", "--to", "w.csv")
    assert windows == []
    shown = [line for line in errors.splitlines() if line.startswith("window  ")]
    assert [json.loads(line.removeprefix("window  ")) for line in shown] == WINDOWS
    _, _, errors = stream("e.jsonl", *TIMES, "-v", "--call", "c.py:bad")
    assert "        | ValueError: a" in errors
    _, _, errors = stream("e.jsonl", *TIMES, "-v", "-q")
    assert errors == ""


def test_a_key_with_a_line_separator_stays_in_its_line(stream, files):
    files({"e.jsonl": '{"t": 1, "k": "a\u2028##[b\x85"}\n'})
    for form in ("text", "jsonl"):
        _, lines, _ = stream("e.jsonl", *TIMES, "-o", form)
        assert lines[0]["key"] == {"k": "a\u2028##[b\x85"}
    _, _, errors = stream("e.jsonl", *TIMES, "-v", "--to", "w.csv")
    [line] = [line for line in errors.splitlines() if line.startswith("window  ")]
    assert line.endswith('"aggregates":{"count":1}}')


def test_the_number_of_failures_in_the_summary(stream, files):
    files({"e.jsonl": '{"t": 1}\n' + "".join(f'{{"k": {number}, "n{number}": 1}}\n'
                                             for number in range(30))})  # fmt: skip

    def rejected(*more):
        _, _, errors = stream("e.jsonl", "--time", "t", *more)
        lines = errors.splitlines()
        return sum(line.startswith("rejected  ") for line in lines), [
            line for line in lines if line.startswith("...")
        ]

    assert rejected() == (20, ["... and 10 more (--dead-letter keeps them all)"])
    assert rejected("--show-failures", "3")[0] == 3
    assert rejected("--show-failures", "0") == (
        0, ["... and 30 more (--dead-letter keeps them all)"],
    )  # fmt: skip
    assert rejected("--show-failures", "all") == (30, [])
    assert rejected("--show-failures", "25")[0] == 25


def test_quiet_leaves_machine_output(stream, events):
    code, lines, errors = stream("e.jsonl", *TIMES, "-q", "-o", "jsonl")
    assert (code, len(lines), errors) == (0, 7, "")


@pytest.mark.parametrize("more", [(), ("--to", "w.jsonl", "-o", "json")])
def test_quiet_tells_why_a_stream_has_failed(events, more):
    arguments = ["stream", "e.jsonl", "--time", "nothing", "--max-failures", "0", "-q", *more]
    ran = run_command_text(*arguments, cwd=events)
    assert ran.returncode == 1
    stopped, first = ran.stderr.splitlines()
    assert re.fullmatch(
        r"Stopped: [0-9]+ failures.*, more than the 0 that --max-failures allows", stopped
    )
    assert first.startswith("The first of them: e.jsonl:1: missing_field: 'nothing' is missing")


def test_a_closed_pipe_ends_quietly(events):
    command = (
        f"{' '.join(COMMAND)} stream simulate: --rate 1000 --window tumbling:100ms -o jsonl"
        " | head -n 1; echo ${PIPESTATUS[0]}"
    )
    finished = subprocess.run(
        ["bash", "-c", command], check=True, capture_output=True, text=True, cwd=events,
        env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert finished.stdout.splitlines()[-1] == "141"
    assert finished.stderr == ""


@pytest.mark.parametrize("command", ["run", "stream"])
def test_a_report_on_a_full_disk_fails_at_the_end(events, command):
    (events / "full.json").symlink_to("/dev/full")
    more = ("--report", "full.json", "--report", "r.json", "-o", "jsonl")
    options = TIMES if command == "stream" else ("--max-failures", "9")
    finished = run_command_text(command, "e.jsonl", *options, *more, cwd=events)
    assert finished.returncode == 1
    summary = json.loads(finished.stdout.splitlines()[-1])
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert "cannot write full.json: No space left on device" in finished.stdout
    assert json.loads((events / "r.json").read_text())["exit_code"] == 0  # written before it


def test_a_full_disk_under_stdout_is_an_error(events):
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(
            [*COMMAND, "stream", "e.jsonl", *TIMES, "-o", "jsonl", "--report", "r.json"],
            check=False, stdout=full, stderr=subprocess.PIPE, text=True, cwd=events,
            env=environment(), timeout=PATIENCE,
        )  # fmt: skip
    assert finished.returncode == 1
    assert "No space left" in finished.stderr
    report = json.loads((events / "r.json").read_text())
    assert (report["status"], report["exit_code"]) == ("failed", 1)
    assert "No space left" in report["error"]


@pytest.mark.parametrize(
    ("options", "code"), [((), 0), (("--signal-exit",), 143), (("--to", "w.jsonl"), 0)]
)
def test_a_signal_ends_with_the_summary(live, tmp_path, options, code):
    process = live("-", *TIMES, "-o", "jsonl", *options)
    process.stdin.write(b'{"t": 1, "k": "a"}\n{"t": 9, "k": "a"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline()) == WINDOWS[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == code
    window, summary = map(json.loads, process.stdout)
    assert window == WINDOWS[2] | {"partial": True}
    assert (summary["status"], summary["exit_code"]) == ("stopped", code)
    assert process.stderr.read().startswith(b"Stopping: ")
    if "--to" in options:
        assert len((tmp_path / "w.jsonl").read_text().splitlines()) == 2


def on_a_terminal(folder, *arguments, **env):
    """Run on a pseudo-terminal. Return the exit status and all output."""
    ours, theirs = pty.openpty()
    with CommandProcess(
        ["stream", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        env=environment(COLUMNS="120", **env),
    ) as process:  # fmt: skip
        os.close(theirs)
        drawn = b""
        while True:
            try:
                split = os.read(ours, 65536)
            except OSError:  # Linux raises EIO when the other side is closed
                break
            if not split:
                break
            drawn += split
    os.close(ours)
    return process.returncode, drawn.decode()


@pytest.mark.parametrize(
    ("options", "env"),
    [(("-o", "jsonl"), {}), (("--no-progress",), {}), ((), {"CI": "true"}), (("-q",), {}),
     (("--to", "-"), {})],
)  # fmt: skip
def test_lines_on_a_terminal_have_no_table(events, options, env):
    code, drawn = on_a_terminal(events, "e.jsonl", *TIMES, *options, **env)
    assert code == 0
    assert "\x1b" not in drawn
    lines = [json.loads(line) for line in drawn.splitlines() if line.startswith("{")]
    assert of(lines, "window") == WINDOWS


def test_a_terminal_has_a_table(events):
    code, drawn = on_a_terminal(events, "e.jsonl", *TIMES)
    assert code == 0
    assert "00:00:00 - 00:00:05" in drawn
    assert "window_start" not in drawn
    assert "Processed 6 events" in drawn
    assert "not shown" not in drawn


def test_the_table_says_how_many_windows_it_does_not_show(files):
    events = "".join(
        f'{{"timestamp": "2026-01-01T00:{n // 60:02}:{n % 60:02}Z"}}\n' for n in range(500)
    )
    folder = files({"e.jsonl": events})
    code, drawn = on_a_terminal(folder, "e.jsonl", "--window", "tumbling:5s", LINES="24")
    assert code == 0
    last = drawn[: drawn.rindex("not shown: ")].rindex("window")
    rows = len(re.findall(r"00:0\d:\d\d - 00:0\d:\d\d", drawn[last:]))
    assert rows > 10
    assert f"not shown: {100 - rows} closed windows" in drawn[last:]


@pytest.mark.parametrize(
    "arguments", [("run", "in", "--pattern", "x"), ("stream", "none.jsonl"),
                  ("stream", "e.jsonl", *TIMES, "--max-keys", "1")],
)  # fmt: skip
def test_a_pipe_gets_the_report_of_a_command_that_fails(events, arguments):
    (events / "in").mkdir()
    finished = run_command_text(
        *arguments, "--report", "/dev/stderr", cwd=events
    )  # the standard error of this test is a pipe
    [line] = [line for line in finished.stderr.splitlines() if line.startswith("{")]
    assert (json.loads(line)["status"], json.loads(line)["exit_code"]) == (
        "failed", finished.returncode,
    )  # fmt: skip


# Merged reports


def merged(folder, *arguments):
    return run_command_text("merge-reports", *arguments, cwd=folder)


def test_reports_of_streams_are_merged(stream, events):
    (events / "good.jsonl").write_text('{"t": 1, "k": "x"}\n' * 4)
    assert stream("e.jsonl", *TIMES, "-q", "--report", "1.json")[0] == 0
    assert stream("good.jsonl", *TIMES, "-q", "--report", "2.json")[0] == 0
    one, two = (json.loads((events / name).read_text()) for name in ("1.json", "2.json"))
    finished = merged(events, "1.json", "2.json", "-o", "json")
    assert (finished.returncode, finished.stderr) == (0, "")
    report = json.loads(finished.stdout)
    assert list(report) == [name for name in one if name != "run_id"]  # it is of no single run
    assert report["events"] == {
        "read": 10, "in_windows": 7, "late": 1, "rejected": 2, "dropped": 0, "late_in_part": 0,
    }  # fmt: skip
    assert report["windows"] == {"over": 4, "refused": 0}
    assert report["failures"] == one["failures"]
    assert report["failure_kinds"] == one["failure_kinds"]
    assert report["this_run"]["bytes"] == len(EVENTS) + 4 * 19
    assert report["started_at"] == one["started_at"]
    assert report["peak_memory_bytes"] == max(one["peak_memory_bytes"], two["peak_memory_bytes"])
    elapsed = report["elapsed_s"]
    assert elapsed > two["elapsed_s"]
    # The report rounds the time to milliseconds, which is much of so short a run.
    slowest, fastest = 10 / (elapsed + 0.001), 10 / (elapsed - 0.001)
    assert slowest < report["rates"]["events_per_s"] < fastest
    again = json.loads(
        merged(events, "1.json", "2.json", "-o", "json", "--report", "m.json").stdout
    )
    assert again == json.loads((events / "m.json").read_text())
    thrice = json.loads(merged(events, "m.json", "1.json", "-o", "json").stdout)
    assert thrice["events"]["read"] == 16
    text = merged(events, "1.json", "2.json", "--report", "m.md", "--report", "m.prom")
    assert "rejected  e.jsonl:4:1: invalid_json: expected a value, found 'oops'" in text.stdout
    assert "Processed 10 events in " in text.stdout
    assert "  events   7 in windows, 1 late, 2 rejected" in text.stdout
    assert "### asyncbatch stream: ended, 10 events" in (events / "m.md").read_text()
    assert 'asyncbatch_stream_windows{name="m"} 4.0' in (events / "m.prom").read_text()
    assert "e.jsonl:4:1" in merged(events, "1.json", "-q").stderr


def test_the_status_of_merged_streams(stream, events):
    ran = stream("e.jsonl", *TIMES, "-q", "--max-events", "1", "--report", "stopped.json")
    assert ran[0] == 0
    assert stream("e.jsonl", *TIMES, "-q", "--max-keys", "1", "--report", "failed.json")[0] == 1
    assert stream("e.jsonl", *TIMES, "-q", "--report", "good.json")[0] == 0
    for names, status, code in (
        (("good.json", "stopped.json"), "stopped", 0),
        (("stopped.json", "failed.json", "good.json"), "failed", 1),
    ):
        finished = merged(events, *names, "-o", "json")
        report = json.loads(finished.stdout)
        assert (report["status"], report["exit_code"], finished.returncode) == (status, code, code)
    assert "a window has more than 1 key" in report["error"]


def test_reports_of_earlier_streams_are_read(events):
    (events / "old.json").write_text(json.dumps({
        "schema_version": 1, "command": "stream", "status": "ended",
        "started_at": "2026-01-01T00:00:00.000000Z", "elapsed_s": 2.0,
        "events": {"read": 4, "in_windows": 4, "late": 0, "rejected": 0, "dropped": 0,
                   "late_in_part": 0},
        "left": 0, "losses": 0, "windows": {"over": 1, "refused": 0},
        "rates": {"events_per_s": 2.0, "bytes_per_s": 50.0}, "peak_memory_bytes": 1,
        "failures": [], "failures_omitted": 0, "failure_kinds": {}, "exit_code": 0,
    }))  # fmt: skip
    report = json.loads(merged(events, "old.json", "-o", "json").stdout)
    assert report["rates"] == {"events_per_s": 2.0, "bytes_per_s": 50.0}
    assert report["this_run"] == {"events": 4, "bytes": 100}


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_stream_and_a_run_are_not_merged(stream, events, command):
    (events / "s.json").write_text("{}")
    more = ("--schema", "s.json") if command == "validate" else ()
    run_command_text(command, "e.jsonl", *more, "-q", "--report", "r.json", cwd=events)
    stream("e.jsonl", *TIMES, "-q", "--report", "s.json")
    for names in (("r.json", "s.json"), ("s.json", "r.json")):
        finished = merged(events, *names)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert "reports of different commands cannot be merged" in finished.stderr


@pytest.mark.parametrize("command", ["run", "etl", "validate", "stream"])
def test_what_each_command_has_written_is_read_as_it_was(stream, events, command):
    (events / "schema.json").write_text("{}")
    (events / "p.toml").write_text(
        'source = { type = "files", paths = ["e.jsonl"] }\nsink = { to = "o.jsonl" }\n'
    )
    arguments = {
        "run": ("e.jsonl",), "etl": ("p.toml",), "stream": ("e.jsonl", *TIMES),
        "validate": ("e.jsonl", "--schema", "schema.json"),
    }[command]  # fmt: skip
    ran = run_command_text(command, *arguments, "-q", "--report", "r.json", cwd=events)
    written = json.loads((events / "r.json").read_text())
    finished = merged(events, "r.json", "-o", "json")
    assert finished.returncode == ran.returncode == written["exit_code"]
    again = json.loads(finished.stdout)
    assert list(again) == list(written)
    assert again == written | {"rates": again["rates"]}  # of a rounded time


@pytest.mark.parametrize("outputs", [(), ("--to", "o.jsonl")], ids=["shown", "written"])
def test_the_rows_of_a_window_of_many_keys_are_made_a_few_at_a_time(files, outputs):
    peaks, count = [], 200_000
    for number in (1, count):
        folder = files({"e.jsonl": "".join(f'{{"t": 1, "k": "k{n}"}}\n' for n in range(number))})
        more = ("--max-keys", str(count), "--workers", "0", "--report", "r.json")
        finished = run_command_text("stream", "e.jsonl", *TIMES, *more, *outputs, cwd=folder)
        assert finished.returncode == 0, finished.stderr
        lines = (folder / "o.jsonl").read_text() if outputs else finished.stdout
        assert [json.loads(line)["key"]["k"] for line in lines.splitlines()] == sorted(
            f"k{n}" for n in range(number)
        )
        peaks.append(json.loads((folder / "r.json").read_text())["peak_memory_bytes"])
        (folder / "o.jsonl").unlink(missing_ok=True)
    # A key with its count takes some 400 bytes; its row, as text and as an object, as much again.
    assert peaks[1] - peaks[0] < 600 * count
