"""Tests of stdout, stderr, output formats and the exit status."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import subprocess
from datetime import datetime

import pytest

from tests.commands import COMMAND, PATIENCE, environment
from tests.conftest import many

MIXED = {"good.json": "[1, 2]", "bad.json": "[1,]", "lines.jsonl": "1\nx\n3\n"}


def test_the_report_object(run, files):
    files(MIXED)
    outcome = run(".", "-o", "json")
    report = outcome.json
    assert outcome.stderr == ""
    assert report["schema_version"] == 1
    assert report["command"] == "run"
    assert report["status"] == "partial"
    assert datetime.fromisoformat(report["started_at"]).tzinfo is not None
    assert report["files"] == {
        "total": 3, "succeeded": 1, "partial": 1, "failed": 1, "skipped": 0, "bytes": 16,
    }  # fmt: skip
    assert report["records"] == {"read": 5, "passed": 4, "dropped": 0, "rejected": 1, "written": 0}
    assert set(report["rates"]) == {"files_per_s", "records_per_s", "bytes_per_s"}
    assert report["peak_memory_bytes"] > 10_000_000
    assert report["failures"] == [
        {
            "file": "./bad.json", "kind": "invalid_json", "message": "trailing comma before ']'",
            "record": None, "line": 1, "column": 4, "byte": 3,
        },
        {
            "file": "./lines.jsonl", "kind": "invalid_json",
            "message": "expected a value, found 'x'",
            "record": 2, "line": 2, "column": 1, "byte": 2,
        },
    ]  # fmt: skip
    assert report["failures_omitted"] == 0
    assert report["exit_code"] == outcome.code == 1


def test_the_events(run, files):
    files(MIXED)
    bad, good, rejected, lines = run(".", "-o", "jsonl").events
    assert set(good) == {"event", "file", "status", "records", "bytes", "elapsed_ms"}
    assert (good["event"], good["status"], good["records"]) == ("file", "success", 2)
    assert (bad["status"], bad["error"]["line"]) == ("failed", 1)
    assert (rejected["event"], rejected["record"]) == ("failure", 2)
    assert (lines["status"], lines["rejected"]) == ("partial", 1)


def test_the_object_lists_a_thousand_failures_in_input_order(run, files):
    files({**many(1500, "nope"), "lines.jsonl": "x\n" * 20 + "1\n"})
    report = run(".", "-o", "json").json
    assert [failure["file"] for failure in report["failures"]] == [
        f"./{number:05}.json" for number in range(1000)
    ]
    assert report["failures_omitted"] == 520


def test_a_file_of_bad_lines_alone_streams_its_failures(run, files):
    files({"lines.jsonl": "x\n" * 5000})
    *failures, file = run(".", "-o", "jsonl").events
    assert [failure["record"] for failure in failures] == list(range(1, 5001))
    assert (file["status"], file["rejected"], file["error"]["record"]) == ("failed", 5000, 1)


def test_report_file(run, files):
    folder = files(MIXED)
    outcome = run(".", "-q", "--report", "report.json")
    written = json.loads((folder / "report.json").read_text())
    assert written["exit_code"] == outcome.code == 1
    assert [path.name for path in folder.iterdir() if "tmp" in path.name] == []


@pytest.mark.parametrize("target", ["no/such/folder.json", "."])
def test_a_report_that_cannot_be_written_is_known_before_the_work(run, files, target):
    files(MIXED)
    outcome = run(".", "--report", target)
    assert outcome.code == 2
    assert "--report" in outcome.stderr
    assert outcome.stdout == ""


def test_the_text_summary(run, files):
    files(MIXED)
    outcome = run(".")
    assert "./bad.json:1:4: trailing comma before ']' (byte 3)" in outcome.stdout
    assert "./lines.jsonl:2:1: expected a value, found 'x' (record 2, byte 2)" in outcome.stdout
    assert "Processed 3 files" in outcome.stdout
    assert "1 succeeded, 1 partial, 1 failed" in outcome.stdout
    assert "\x1b" not in outcome.stdout
    assert outcome.stderr == ""


@pytest.mark.parametrize(
    ("given", "options", "first"),
    [
        ({"a.json": "1"}, (), "Success (exit status 0)"),
        (MIXED, (), "Partial (exit status 1): 1 file failed and 1 record was rejected"),
        (
            {**MIXED, "2.json": "", "3.jsonl": "1\nx\ny\n"},
            (),
            "Partial (exit status 1): 2 files failed and 3 records were rejected",
        ),
        (MIXED, ("--max-failures", "2"), "Partial (exit status 0): the failures are within"),
        (
            {"1.json": "1", "2.json": "[", "3.json": "1"},
            ("--fail-fast",),
            "Partial (exit status 1): more failures than --max-failures",
        ),
        ({"a.json": "["}, (), "Failed (exit status 1): no file succeeded"),
        ({"a.txt": "["}, ("--allow-empty",), "Success (exit status 0): there was no input"),
    ],
)
def test_the_summary_begins_with_the_status_and_its_reason(run, files, given, options, first):
    files(given)
    outcome = run(".", *options, "--concurrency", "1", "-b", "1")
    lines = outcome.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("Processed "))
    assert lines[place - 1].startswith(first)
    assert f"(exit status {outcome.code})" in lines[place - 1]


def steps_of(outcome):
    """Return the next steps that a summary names."""
    found = re.search(r"^  next  +(.*\n(?: {11}.*\n)*)", outcome.stdout, re.MULTILINE)
    return [line.strip() for line in found[1].splitlines()] if found else []


def test_the_summary_names_what_to_do_next(run, files):
    files(MIXED)
    keep = "--dead-letter FILE keeps what failed, so that it can be run again"
    discarded = "the results are discarded: --to - prints them, --to FILE keeps them"
    assert steps_of(run("good.json")) == []
    assert steps_of(run(".")) == [keep]
    again = "--from-dead-letter bad.dl runs again what failed"
    assert steps_of(run(".", "--dead-letter", "bad.dl")) == [again]
    assert steps_of(run("good.json", "--jq", ".")) == [discarded]
    both = run(".", "--jq", ".")
    assert steps_of(both) == [discarded, keep]
    assert max(map(len, both.stdout.splitlines())) <= 80, "the width of a terminal"
    assert steps_of(run("good.json", "--jq", ".", "--to", "out.jsonl")) == []
    assert steps_of(run("good.json", "--jq", "empty")) == []


def test_a_percentage_of_failures_is_one_of_files_and_records(run, files):
    files({"good.json": "[1, 2, 3]", "bad.json": "{"})
    found = run(".", "--max-failures", "20%")
    assert found.code == 0
    assert "budget: 1 failure in 5 files and records, at most 20%" in found.stdout
    found = run(".", "--max-failures", "19%")
    assert found.code == 1
    assert "Stopped: 1 failure in 5 files and records, more than the 19%" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "is_kept"),
    [
        (("nowhere.json",), False),
        (("nowhere.json", "bad.json"), True),
        (("good.json", "other.json", "--by", "misspelt"), False),
        (("good.json", "bad.json", "--by", "misspelt"), True),
        (("good.json", "other.json", "--by", "b"), True),  # not each record lacks the field
        (("good.json", "--to", "sqlite:///x.db", "--table", "loaded"), False),
        (("good.json", "bad.json", "--to", "sqlite:///x.db", "--table", "loaded"), True),
    ],
)
def test_a_dead_letter_file_is_proposed_only_if_it_helps(run, files, arguments, is_kept):
    files({"good.json": '{"a": 1}', "other.json": '{"a": 1, "b": 2}', "bad.json": "{"})
    assert run("good.json", "--to", "sqlite:///x.db", "--table", "loaded").code == 0
    outcome = run(*arguments)
    assert outcome.code == 1
    assert ("--dead-letter" in outcome.stdout) is is_kept, outcome.stdout


def test_the_slowest_files_are_listed_if_they_say_something(run, files):
    files({"slow.py": SLOW.replace("11.5", "1.2"), **{f"in/{n}.json": f"{n}" for n in (1, 2, 3)}})
    assert "slowest" not in run("in").stdout
    slow = run("in", "--call", "slow.py:first").stdout
    assert re.search(r"^  slowest  [1-9]\.\d{3} s  in/1\.json$", slow, re.MULTILINE)
    assert slow.count("in/") == 1
    two = run("in", "--slowest", "2").stdout
    assert (
        len(re.findall(r"^(?:  slowest  | {11})<?\d+\.\d ms  in/\d\.json$", two, re.MULTILINE)) == 2
    )


def test_reports_list_more_slow_files_on_demand(run, files):
    files(many(9))
    assert len(run(".", "-o", "json").json["slowest_files"]) == 5
    found = run(".", "-o", "json", "--slowest", "7").json["slowest_files"]
    times = [one["elapsed_ms"] for one in found]
    assert len(found) == 7
    assert times == sorted(times, reverse=True)


def test_failures_shown_are_limited_and_counted(run, files):
    files(many(30, "x"))
    assert "... and 10 more failures" in run(".").stdout
    assert run(".", "--show-failures", "3").stdout.count(".json:1:1") == 3
    assert run(".", "--show-failures", "all").stdout.count(".json:1:1") == 30


def test_the_numbers_by_kind_count_all_failures(run, files):
    folder = files(
        {
            **{f"a{number:02}.json": "x" for number in range(60)},
            **{f"b{number:02}.json": "" for number in range(30)},
        }
    )
    outcome = run(".", "--report", "r.json")
    assert "invalid_json (60)\n" in outcome.stdout
    assert "empty (30)\n" in outcome.stdout
    assert "... and 70 more failures" in outcome.stdout
    report = json.loads((folder / "r.json").read_text())
    assert report["failure_kinds"] == {"empty": 30, "invalid_json": 60}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_equal_failures_of_a_file_are_one_line_with_their_number(run, files, workers):
    lines = "".join(f'{{"n": {number}}}\n' for number in range(1500))
    folder = files({"a.jsonl": lines, "b.jsonl": lines + "x\n", "c.json": "x"})
    names = ("a.jsonl", "b.jsonl", "c.json")
    outcome = run(*names, "--jq", '"no" | error', "--workers", workers, "--report", "r.json")
    told = [line.strip() for line in outcome.stdout.splitlines() if ".json" in line]
    assert [line.split(": ")[0] for line in told[:4]] == [
        "b.jsonl:1501:1",
        "c.json:1:1",
        "1,500 times, first a.jsonl:1:1",
        "1,500 times, first b.jsonl:1:1",
    ]
    assert "transform (3,000)\n" in outcome.stdout
    assert "invalid_json (2)\n" in outcome.stdout
    assert "more failure" not in outcome.stdout
    report = json.loads((folder / "r.json").read_text())
    assert report["failure_kinds"] == {"invalid_json": 2, "transform": 3000}
    assert len(report["failures"]) == 1000  # each of the first ones, with its place


def test_quiet_prints_nothing_without_failures(run, files):
    files(many(3))
    assert run(".", "-q") == (0, "", "")


def test_quiet_leaves_the_failures_on_stderr(run, files):
    files(MIXED)
    outcome = run(".", "-q")
    assert outcome.stdout == ""
    assert "./bad.json:1:4" in outcome.stderr
    assert "Processed" not in outcome.stderr


def test_verbose_names_each_file_on_stderr(run, files):
    files(MIXED)
    outcome = run(".", "-v", "-o", "json")
    assert len(outcome.stderr.splitlines()) == 4
    assert outcome.json["files"]["total"] == 3


def test_dry_run_reads_nothing_and_lists_batches(run, files):
    folder = files({**many(5), "big.json": " " * (9 << 20), "bad.json": "x"})
    (folder / "00001.json").chmod(0)
    outcome = run(".", "--dry-run", "-b", "3")
    assert outcome.code == 0
    assert re.findall(r"batch (\d+): (\d+) file", outcome.stdout) == [
        ("1", "3"),
        ("2", "3"),
        ("3", "1"),
    ]
    assert "Would process 7 files, 9.4 MB, in 3 batches" in outcome.stdout
    planned = run(".", "--dry-run", "-b", "3", "-o", "jsonl").events
    assert [event["batch"] for event in planned] == [1, 1, 1, 2, 2, 2, 3]


def test_dry_run_ends_a_batch_at_its_bytes(run, files):
    files(dict.fromkeys(("a.json", "b.json", "c.json"), " " * (5 << 20)))
    planned = run(".", "--dry-run", "-o", "jsonl").events
    assert [event["batch"] for event in planned] == [1, 1, 2]


def test_a_dry_run_counts_nothing_as_succeeded(run, files):
    files({**many(3), "big.json": "1" * 100})
    report = run(".", "--dry-run", "-o", "json", "--max-file-size", "50").json
    assert report["files"] == {
        "total": 4, "succeeded": 0, "partial": 0, "failed": 1, "skipped": 0, "bytes": 24,
        "planned": 3,
    }  # fmt: skip
    assert "planned" not in run(".", "-o", "json").json["files"]
    assert "in 1 batch\n" in run(".", "--dry-run").stdout


@pytest.mark.parametrize(
    ("contents", "options", "code"),
    [
        (many(3), (), 0),
        (MIXED, (), 1),
        (MIXED, ("--max-failures", "2"), 0),
        (MIXED, ("--max-failures", "1"), 1),
        (MIXED, ("--fail-fast",), 1),
        (MIXED, ("--max-failures", "50%"), 0),  # 2 failures of 3 files and 5 records
        (MIXED, ("--max-failures", "20%"), 1),
        ({}, (), 2),
        ({}, ("--allow-empty",), 0),
        ({"a.txt": "1"}, (), 2),
    ],
)
def test_exit_codes(run, files, contents, options, code):
    files(contents)
    outcome = run(".", *options)
    assert outcome.code == code
    if code == 2:
        assert "no JSON files in ." in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--nonsense",),
        (".", "-b", "0"),
        (".", "--max-failures", "many"),
        (".", "--max-failures", "101%"),
        (".", "--max-failures", "1", "--fail-fast"),
        (".", "--max-file-size", "huge"),
        (".", "--show-failures", "some"),
        (".", "--pause", "-1"),
        ("-", "--files-from", "-"),
        ("-", "-"),
        ("--files-from", "no-such-list"),
        ("--files-from", "."),
    ],
)
def test_usage_errors(run, files, arguments):
    files(many(1))
    outcome = run(*arguments)
    assert outcome.code == 2
    assert "Error" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_past_its_budget_a_run_takes_no_more_input(run, files):
    files(many(3000, "x"))
    report = run(".", "-o", "json", "--max-failures", "10", "-b", "10", "-w", "1").json
    assert 10 < report["files"]["total"] < 200
    assert report["exit_code"] == 1
    assert "Stopped: " in run(".", "--max-failures", "10").stdout
    assert run(".", "--max-failures", "10", "-o", "json").stderr.startswith("Stopped: ")


def test_options_come_from_the_environment(run, files):
    files(many(5))
    env = {"ASYNCBATCH_RUN_LIMIT": "2", "ASYNCBATCH_RUN_OUTPUT": "json"}
    assert run(".", env=env).json["files"]["total"] == 2


def test_a_closed_pipe_ends_quietly(files):
    folder = files(many(5000))
    command = f"{' '.join(COMMAND)} run . -o jsonl | head -n 1; echo ${{PIPESTATUS[0]}}"
    finished = subprocess.run(
        ["bash", "-c", command], check=True, capture_output=True, text=True, cwd=folder,
        env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert finished.stdout.splitlines()[-1] == "141"
    assert finished.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("options", ["", "-w 2", "-o jsonl"])
def test_closed_standard_streams_change_nothing_else(files, closed, options):
    folder = files(MIXED)
    command = f"{' '.join(COMMAND)} run . --report r.json {options} {closed}"
    finished = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, cwd=folder,
        env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert finished.returncode == 1
    assert ("standard output" in finished.stderr) is (options == "-o jsonl" and closed == ">&-")
    assert json.loads((folder / "r.json").read_text())["files"]["total"] == 3


@pytest.mark.parametrize("stdout", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    "command",
    [
        "run . -q --to -", "run . -q -o json", "run . -q --by id",
        "stream a.jsonl -q --time arrival",
        "stream a.jsonl -q --time arrival -o jsonl", "schema infer .", "ledger path", "--version",
    ],
)  # fmt: skip
def test_a_result_that_cannot_be_printed_is_an_error(files, command, stdout):
    folder = files(many(3))
    (folder / "a.jsonl").write_text('{"id": 1}\n')
    finished = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} {command} {stdout}"], check=False,
        capture_output=True, text=True, cwd=folder, env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert finished.returncode == 1
    assert "cannot write to standard output: " in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_full_disk_under_stdout_is_an_error(files):
    folder = files(many(3))
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(
            [*COMMAND, "run", "."], check=False, stdout=full, stderr=subprocess.PIPE, text=True,
            cwd=folder, env=environment(), timeout=PATIENCE,
        )  # fmt: skip
    assert finished.returncode == 1
    assert "No space left" in finished.stderr


def on_a_terminal(folder, *arguments, **env):
    """Run on a pseudo-terminal. Return the exit status and all output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "run", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
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


def test_a_terminal_gets_a_live_display_and_a_styled_summary(files):
    code, drawn = on_a_terminal(files(many(40)), ".", "-b", "10", "--pause", "0.4")
    assert code == 0
    assert "files/s" in drawn
    assert re.search(r"\d+ of 40 files", drawn)
    assert "\x1b[?25l" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # the cursor is visible again
    assert "\x1b[1;32m" in drawn


@pytest.mark.parametrize("options", [("-o", "jsonl"), ("--dry-run",)])
def test_no_display_while_result_lines_are_printed(files, options):
    _, drawn = on_a_terminal(files(many(40)), ".", "-b", "10", "--pause", "0.3", *options)
    assert "\x1b[2K" not in drawn
    assert "\x1b[?25l" not in drawn


@pytest.mark.parametrize("env", [{"CI": "true"}, {"TERM": "dumb"}])
def test_ci_and_dumb_terminals_get_plain_text(files, env):
    _, drawn = on_a_terminal(files(many(40)), ".", "-b", "10", "--pause", "0.3", **env)
    assert "\x1b" not in drawn
    assert "Processed 40 files" in drawn


def test_no_color(files):
    _, drawn = on_a_terminal(files(MIXED), ".", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", drawn)
    assert "Processed 3 files" in drawn


def test_force_color(run, files):
    files(MIXED)
    assert "\x1b[1;31m" in run(".", env={"FORCE_COLOR": "1"}).stdout


def test_no_progress(files):
    _, drawn = on_a_terminal(files(many(20)), ".", "-b", "10", "--pause", "0.4", "--no-progress")
    assert "in flight" not in drawn


def test_a_long_run_without_a_terminal_prints_progress_lines(run, files):
    files(many(4))
    outcome = run(".", "-b", "1", "--pause", "4")
    [line] = outcome.stderr.splitlines()
    assert line.startswith("3 of 4 files (75%), ")
    assert " s left, " in line


SLOW = """
import time

def first(record):
    if record == 1:
        time.sleep(11.5)
    return record

def each(record):
    time.sleep(0.001)
    return record
"""


def test_a_file_that_takes_long_is_named_while_it_runs(files):
    folder = files({"slow.py": SLOW, "in/a.json": "1", "in/b.json": "2"})
    code, drawn = on_a_terminal(folder, "in", "--call", "slow.py:first")
    assert code == 0
    assert re.search(r"1 file for more than 10 s: in/a\.json \(1[0-9] s\)", drawn)


def test_progress_inside_a_compressed_file(files):
    """The bytes are those on the disk. Its text is incompressible, so that it is read in chunks."""
    folder = files({"slow.py": SLOW})
    lines = b"".join(b'"%s"\n' % os.urandom(500).hex().encode() for _ in range(4000))
    (folder / "big.jsonl.gz").write_bytes(gzip.compress(lines, 1))
    code, drawn = on_a_terminal(folder, "big.jsonl.gz", "--call", "slow.py:each")
    assert code == 0
    shown = re.findall(r"([\d.]+ [kM]?B) of 2\.\d MB", drawn)
    assert len(set(shown)) >= 3


def test_progress_inside_a_split_file(files):
    folder = files({"slow.py": SLOW, "big.jsonl": f'"{"x" * 9000}"\n' * 3000})
    code, drawn = on_a_terminal(folder, "big.jsonl", "--call", "slow.py:each")
    assert code == 0
    assert len(set(re.findall(r"([\d.]+ [kM]?B) of 27\.\d MB", drawn))) >= 3


def test_the_total_is_shown_long_before_the_search_has_found_all(files):
    _, drawn = on_a_terminal(files(many(4000)), ".", "-b", "700", "--pause", "0.5")
    shown = [int(done.replace(",", "")) for done in re.findall(r"([\d,]+) of 4,000 files", drawn)]
    # the search is held back by the batches: it has found the last files after 2,800 are done
    assert shown
    assert min(shown) <= 1400
