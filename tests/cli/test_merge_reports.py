"""Tests of `asyncbatch merge-reports`, with real shards and with made reports."""

from __future__ import annotations

import json

import pytest

from tests.commands import run_command_text
from tests.conftest import SAMPLE_DATA, Outcome, many


@pytest.fixture
def merge(tmp_path):
    """Return a function that runs `asyncbatch merge-reports` in the folder of the test."""

    def _merge(*arguments):
        finished = run_command_text("merge-reports", *arguments, cwd=tmp_path)
        return Outcome(finished.returncode, finished.stdout, finished.stderr)

    return _merge


def failure(name, kind="empty"):
    places = {"record": None, "line": None, "column": None, "byte": None}
    return {"file": name, "kind": kind, "message": "is empty: no JSON value in it", **places}


def report(
    *, status="success", succeeded=0, failed=0, failures=(), omitted=0, start="00", elapsed=1.0,
    written=0, peak=1, code=0, **more,
):  # fmt: skip
    return {
        "schema_version": 1, "command": "run", "status": status,
        "started_at": f"2026-01-01T00:00:{start}.000000Z", "elapsed_s": elapsed,
        "files": {
            "total": succeeded + failed, "succeeded": succeeded, "partial": 0, "failed": failed,
            "skipped": 0, "bytes": 10 * succeeded,
        },
        "records": {
            "read": succeeded, "passed": succeeded, "dropped": 0, "rejected": 0,
            "written": written,
        },
        "rates": {"files_per_s": 0.0, "records_per_s": 0.0, "bytes_per_s": 0.0},
        "peak_memory_bytes": peak, "slowest_files": [], "failures": list(failures),
        "failures_omitted": omitted, "exit_code": code, **more,
    }  # fmt: skip


@pytest.fixture
def merged(files, merge):
    """Return a function that writes reports, merges them and returns the result."""

    def _merged(*reports):
        names = [f"{number}.json" for number in range(len(reports))]
        files({n: json.dumps(one) for n, one in zip(names, reports, strict=True)})
        outcome = merge(*names, "-o", "json")
        assert outcome.stderr == ""
        assert outcome.json["exit_code"] == outcome.code
        return outcome.json

    return _merged


def test_three_shards_merged_are_the_whole_run(run, merge):
    whole = run(SAMPLE_DATA, "-o", "json").json
    names = [f"{number}.json" for number in (1, 2, 3)]
    for name, number in zip(names, (1, 2, 3), strict=True):
        shard = ("--root", SAMPLE_DATA, "--shard", f"{number}/3")
        assert run(SAMPLE_DATA, *shard, "-q", "--report", name).code in (0, 1)
    outcome = merge(*names, "-o", "json")
    found = outcome.json
    assert outcome.code == whole["exit_code"] == 1
    assert set(found) == set(whole) - {"run_id"}  # it is of no single run
    for field in ("schema_version", "command", "status", "files", "records", "failures_omitted"):
        assert found[field] == whole[field], field
    by_file = {one["file"]: one for one in whole["failures"]}
    assert {one["file"]: one for one in found["failures"]} == by_file
    assert len(found["failures"]) == len(whole["failures"])
    again = merge(*names[:1], "-o", "json", "--report", "one.json").json
    assert merge("one.json", *names[1:], "-o", "json").json["files"] == found["files"]
    assert again["files"]["total"] < whole["files"]["total"]


def test_times_memory_and_rates(merged):
    found = merged(
        report(succeeded=10, start="10", elapsed=5.0, peak=300),
        report(succeeded=20, start="08", elapsed=3.0, peak=500),
        report(succeeded=30, start="11", elapsed=1.0, peak=400),
    )
    assert found["started_at"] == "2026-01-01T00:00:08.000000Z"
    assert found["elapsed_s"] == 7.0
    assert found["peak_memory_bytes"] == 500
    assert found["rates"] == {"files_per_s": 8.6, "records_per_s": 8.6, "bytes_per_s": 85.7}


def test_failures_by_kind_are_added(merged):
    old = report(
        status="failed", failed=3, failures=[failure("a"), failure("b", "http")], omitted=1
    )
    new = report(status="failed", failed=9, failures=[failure("c")], omitted=8, code=1,
                 failure_kinds={"empty": 4, "schema": 5})  # fmt: skip
    assert merged(old, new)["failure_kinds"] == {"empty": 5, "http": 1, "schema": 5}


def test_failures_come_in_the_order_of_the_reports_and_a_thousand_at_most(merged):
    first = [failure(f"a{number}") for number in range(700)]
    second = [failure(f"b{number}", "new_kind") for number in range(700)]
    found = merged(
        report(status="failed", failed=705, failures=first, omitted=5, code=1),
        report(status="failed", failed=700, failures=second, code=1),
    )
    assert found["failures"] == [*first, *second][:1000]
    assert found["failures_omitted"] == 405
    assert found["status"] == "failed"


def test_all_fields_of_a_failure_are_kept(run, merge, files):
    files({
        "s.json": '{"properties": {"n": {"type": "integer"}}}', "in/a.jsonl": '{"n": 1}\n{"n": ""}',
    })  # fmt: skip
    written = run("in", "--schema", "s.json", "-q", "-o", "json", "--report", "r.json").json
    assert written["failures"][0]["violations"]
    assert merge("r.json", "-o", "json").json["failures"] == written["failures"]


@pytest.mark.parametrize(("reports", "status", "code"), [
    ([report(succeeded=1), report(succeeded=2)], "success", 0),
    ([report(), report()], "success", 0),
    ([report(succeeded=1), report(status="failed", failed=1, code=1)], "partial", 1),
    ([report(status="failed", failed=2, code=1)] * 2, "failed", 1),
    ([report(succeeded=1), report(status="partial", succeeded=1, failed=1)], "partial", 0),
    ([report(status="interrupted", succeeded=1, code=143), report(succeeded=1)],
     "interrupted", 143),
    ([report(status="interrupted", code=130), report(status="failed", failed=1, code=1)],
     "interrupted", 130),
    ([report(status="failed", succeeded=3, code=1), report(succeeded=9)], "failed", 1),
    ([report(status="failed", code=1), report(succeeded=9)], "failed", 1),
])  # fmt: skip
def test_status_and_exit_code(merged, reports, status, code):
    found = merged(*reports)
    assert (found["status"], found["exit_code"]) == (status, code)


def test_slowest_files_and_discarded_targets(merged):
    slow = [{"file": f"{n}.json", "elapsed_ms": float(n)} for n in range(8)]
    found = merged(
        report(slowest_files=slow[:4], target_discarded="a.csv was left as it was"),
        report(slowest_files=slow[4:], something_new={"x": 1}),
    )
    assert found["slowest_files"] == slow[:2:-1]
    assert found["target_discarded"] == "a.csv was left as it was"
    assert "something_new" not in found


def test_report_formats(files, merge):
    folder = files({
        "a.json": json.dumps(report(succeeded=2, written=2)),
        "b.json": json.dumps(report(
            status="failed", failed=1, failures=[failure("x\x1b.json")], code=1
        )),
    })  # fmt: skip
    text = merge("a.json", "b.json", "--report", "all.md", "--report", "all.json")
    assert text.code == 1
    assert "Processed 3 files in 1.000 s: 2 succeeded, 1 failed" in text.stdout
    assert "  written  2\n" in text.stdout
    assert "\x1b" not in text.stdout
    assert "### asyncbatch run: partial, 3 files" in (folder / "all.md").read_text()
    assert "Exit status 1" in (folder / "all.md").read_text()
    assert json.loads((folder / "all.json").read_text())["files"]["total"] == 3
    quiet = merge("-q", "a.json", "b.json")
    assert quiet.stdout == ""
    assert "x\\x1b.json" in quiet.stderr
    assert merge("-q", "a.json") == (0, "", "")
    assert "::error file=x" in merge("a.json", "b.json", "-o", "github").stdout


def test_files_of_events_are_not_reports(run, merge, files):
    files({"in/a.json": "1"})
    run("in", "--report", "events.jsonl")
    outcome = merge("events.jsonl")
    assert outcome.code == 2
    assert "events.jsonl is not a report (write one with --report FILE.json" in outcome.stderr


GOOD = json.dumps(report())
BAD = {
    "other.json": ('{"a": 1}', "is not a report: it has no schema_version"),
    "array.json": ("[1]", "is not a report"),
    "empty.json": ("", "is not a report"),
    "later.json": (json.dumps(report(schema_version=2)), "has schema_version 2"),
    "cut.json": (GOOD[:-30], "is not a report"),
    "latin.json": (b'{"schema_version": "\xff"}', "is not a report"),
    "count.json": (json.dumps(report(omitted=-1)), "$.failures_omitted"),
    "missing-field.json": (json.dumps({"schema_version": 1}), "is not a report"),
    "time.json": (json.dumps(report(elapsed=1e300)), "$.elapsed_s"),
    "naive.json": (GOOD.replace("000Z", "000"), "$.started_at"),
    "plan.json": (json.dumps(report(dry_run=True)), "is a plan (--dry-run)"),
    "command.json": (
        json.dumps(report() | {"command": "watch"}),
        "reports of different commands cannot be merged",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_a_report_is_named_with_the_reason(files, merge, name):
    content, reason = BAD[name]
    files({"good.json": GOOD, name: content})
    outcome = merge("good.json", name)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert name in outcome.stderr
    assert reason in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(("arguments", "reason"), [
    ((), "Missing argument"),
    (("a.json", "nowhere.json"), "nowhere.json: No such file"),
    (("a.json", "folder"), "folder: Is a directory"),
    (
        ("a.json", "b.json", "./a.json"),
        "./a.json is the same file as a.json: it would be counted twice",
    ),
    (("a.json", "link.json"), "link.json is the same file as"),
    (("a.json", "--report", "a.json"), "is one of the reports to merge"),
    (("a.json", "--report", "all.xml"), "write a .html, .json, .md, .prom, .sarif or"),
    (("a.json", "--report", "nowhere/all.md"), "cannot write nowhere/all.md"),
])  # fmt: skip
def test_contradictory_arguments_are_refused(files, merge, arguments, reason):
    folder = files({"a.json": GOOD, "b.json": GOOD, "folder/x": ""})
    (folder / "link.json").symlink_to("a.json")
    outcome = merge(*arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert reason in outcome.stderr
    assert (folder / "a.json").read_text() == GOOD


def test_a_shard_that_failed_fails_the_last_job(run, merge, files):
    files({**many(20), "bad.json": "x"})
    codes = [
        run(".", "--exclude", "report*", "--shard", f"{n}/2", "--report", f"report-{n}.json").code
        for n in (1, 2)
    ]
    assert sorted(codes) == [0, 1]
    assert merge("report-1.json", "report-2.json").code == 1
