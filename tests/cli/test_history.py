"""Tests of the history of runs: what is kept, and how it is listed, shown and compared."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from asyncbatch.state.history import MAX_FAILED_FILES, MAX_RUNS
from tests.cli.jobs import PIPELINE, SCHEMA
from tests.commands import COMMAND, PATIENCE, environment, run_command_text
from tests.conftest import many
from tests.processes import holds_open, wait_until
from tests.servers.pings import PingServer

ARGUMENTS = {
    "run": ("in", "--to", "out.jsonl"),
    "validate": ("in", "--schema", "s.json", "--history"),
    "etl": ("p.toml",),
    "stream": ("in/2.jsonl", "--time", "a", "--to", "windows.jsonl", "--checkpoint", "c"),
}
NAMES = {
    "run": "in → out.jsonl",
    "validate": "in",
    "etl": "nightly (p.toml) → out.jsonl",
    "stream": "in/2.jsonl → windows.jsonl",
}
FILES = {
    "in/1.json": '[{"a": 1}, {"a": 2}]', "in/2.jsonl": '{"a": 1}\n{"a": 2}\n{"b": 3}\n',
    "in/3.json": "{", "in/4.json": "[1", "s.json": SCHEMA, "p.toml": PIPELINE,
}  # fmt: skip


@pytest.fixture
def command(tmp_path):
    """Run a command in the folder of the test, with a state folder of its own."""

    def _command(*arguments, **env):
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        return run_command_text(*arguments, cwd=tmp_path, env=state | env)

    return _command


@pytest.fixture
def listed(command):
    """Return the listed runs as objects."""

    def _listed(*arguments):
        finished = command("history", "-o", "json", *arguments)
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)["runs"]

    return _listed


@pytest.fixture
def database(tmp_path):
    """The path of the history."""
    return tmp_path / "state" / "asyncbatch" / "history.sqlite"


def of_report(report):
    """Return what a history should have of a report object."""
    expected = {
        name: report[name] for name in ("command", "status", "started_at", "elapsed_s", "exit_code")
    }
    expected["failures"] = len(report["failures"]) + report["failures_omitted"]
    if report["command"] == "stream":
        events, windows = report["this_run"]["events"], report["windows"]["over"]
        rejected = report["events"]["rejected"]
        return expected | {"records": events, "rejected": rejected, "written": windows}
    files, records = report["files"], report["records"]
    for name in ("succeeded", "partial", "failed", "skipped"):
        expected[name] = files[name]
    return expected | {
        "files": files["total"], "records": records["read"], "rejected": records["rejected"],
        "written": records["written"],
    }  # fmt: skip


def failed_files(report):
    """Return the number of failures of each file and kind of a report object."""
    counts: dict[tuple[str, str], int] = {}
    for failure in report["failures"]:
        place = failure["file"], failure["kind"]
        counts[place] = counts.get(place, 0) + 1
    return counts


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_run_is_kept_as_its_report_says(name, files, command, listed):
    files(FILES)
    finished = command(name, *ARGUMENTS[name], "-o", "json")
    report = json.loads(finished.stdout)
    [run] = listed()
    assert {key: run[key] for key in of_report(report)} == of_report(report)
    assert run["exit_code"] == finished.returncode
    assert (run["run"], run["name"], run["error"], run["change"]) == (1, NAMES[name], None, None)
    shown = json.loads(command("history", "show", "1", "-o", "json").stdout)
    assert {key: shown[key] for key in run} == run
    kept = {(one["file"], one["kind"]): one["count"] for one in shown["failed_files"]}
    assert kept == failed_files(report)
    assert shown["failures_omitted"] == 0


def test_runs_without_a_ledger_are_kept_only_on_demand(files, command, listed, database):
    files(FILES)
    for arguments in (
        ("run", "in"),
        ("run", "in", "--to", "out.jsonl", "--no-history"),
        ("run", "in", "--to", "out.jsonl", "--dry-run", "--history"),
        ("etl", "p.toml", "--dry-run"),
        ("stream", "in/2.jsonl", "--time", "a"),
    ):
        command(*arguments)
        assert not database.exists(), arguments
    assert command("history").stdout == "no run found\n"
    command("run", "in", "--resume")
    command("stream", "in/2.jsonl", "--time", "a", ASYNCBATCH_STREAM_HISTORY="1")
    assert [run["command"] for run in listed()] == ["run", "stream"]


def test_the_change_is_against_the_run_before_of_the_same_job(files, command, listed):
    folder = files(FILES)
    reports: list[dict[str, Any]] = []
    for content in ("{}", "["):
        (folder / "in" / "1.json").write_text(content)
        if reports:
            command("run", "in/1.json", "--history")  # another job between
        finished = command("run", "in", "--to", "out.jsonl", "-o", "json")
        reports.append(of_report(json.loads(finished.stdout)))
    runs = [run for run in listed() if run["name"] == "in → out.jsonl"]
    assert len({run["job"] for run in runs}) == 1
    assert runs[0]["change"] is None
    before, now = reports
    change = runs[1]["change"]
    assert change["run"] == 1
    assert change["elapsed_s"] == round(now["elapsed_s"] - before["elapsed_s"], 3)
    for name in ("files", "records", "written", "failures"):
        assert change[name] == now[name] - before[name]
    everything = listed()
    text = command("history").stdout.splitlines()
    assert len(text) == 6
    for run, head, counts in zip(everything, text[::2], text[1::2], strict=True):
        earlier = [one for one in everything[: run["run"] - 1] if one["job"] == run["job"]]
        bars = re.search(r"[▁▂▃▄▅▆▇█]+", head)
        assert bars is not None
        assert len(bars[0]) == len(earlier) + 1
        assert head.split()[0] == str(run["run"])
        assert head.endswith(f"  run {run['name']}")
        change = (run["change"] or {"failures": 0})["failures"]
        moved = f" ({change:+})" if change else ""
        assert re.search(rf", {run['failures']} failures?{re.escape(moved)}$", counts)
        assert counts.strip().startswith(f"{run['status']} ({run['exit_code']}) in ")
    assert listed("-n", "2") == everything[-2:]
    assert listed("--failed", "-n", "1") == [run for run in everything if run["exit_code"]][-1:]


def test_a_comparison_names_the_files_that_began_or_ceased_to_fail(files, command):
    folder = files(FILES)
    command("run", "in", "--to", "out.jsonl")
    (folder / "in" / "1.json").write_text("[")  # begins; 3.json and 4.json fail as before
    (folder / "in" / "4.json").write_text("[4]")  # ceases
    command("run", "in", "--to", "out.jsonl")
    found = json.loads(command("history", "diff", "1", "2", "-o", "json").stdout)
    assert (found["a"]["run"], found["b"]["run"], found["notes"]) == (1, 2, [])
    assert found["began"] == [{"file": "in/1.json", "kinds": ["invalid_json"]}]
    assert found["ceased"] == [{"file": "in/4.json", "kinds": ["invalid_json"]}]
    assert found["still"] == ["in/3.json"]
    command("run", "in", "--history")  # a run of another job
    assert command("history", "diff", "1").stdout.splitlines()[2:] == [
        "began to fail (1)", "  in/1.json: invalid_json",
        "ceased to fail (1)", "  in/4.json: invalid_json",
        "still failing (1)",
    ]  # fmt: skip
    ids = [found[name]["run_id"] for name in "ab"]  # as logs and reports have them
    assert json.loads(command("history", "diff", *ids, "-o", "json").stdout) == found
    alone = command("history", "diff", "2")
    assert alone.returncode == 2
    assert "run 2 is the latest of its job: name another run, too" in alone.stderr


def test_a_comparison_says_what_it_cannot_know(files, command):
    files(FILES | {"in/1.json": '[{"id": 1}, 2]'})
    command("run", "in", "--to", "out.jsonl", "--jq", "{id}")  # 1.json is done, in part
    command("run", "in", "--to", "out.jsonl", "--jq", "{id}", "--resume")
    command("run", "in", "--history")
    found = json.loads(command("history", "diff", "1", "2", "-o", "json").stdout)
    assert [one["file"] for one in found["ceased"]] == ["in/1.json"]
    assert found["notes"] == ["run 2 skipped 2 files that were done: these did not fail in it"]
    assert "different jobs" in command("history", "diff", "1", "3").stdout


@pytest.mark.parametrize("arguments", [("show", "x"), ("diff", "1", "2"), ("show",)])
def test_a_run_that_is_not_there_is_named(arguments, command):
    finished = command("history", *arguments)
    assert finished.returncode == 2
    assert "the history has no run" in finished.stderr


def test_the_history_is_for_its_owner_only(files, command, database):
    files(FILES)
    command("run", "in", "--history")
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700


def test_a_history_that_cannot_be_written_is_a_note(files, command, database):
    folder = files(FILES | {"good/1.json": "{}", "state": "in the way"})
    for inputs, code in (("in", 1), ("good", 0)):
        finished = command("run", inputs, "--history", "-q", "--show-failures", "0")
        assert finished.returncode == code
        [note] = [line for line in finished.stderr.splitlines() if "history" in line]
        assert note.startswith("Note: this run is not in the history: cannot use the history ")
    (folder / "state").unlink()
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database" * 100)
    finished = command("run", "good", "--history", "-q")
    assert finished.returncode == 0
    assert "file is not a database" in finished.stderr
    listing = command("history")
    assert listing.returncode == 2
    assert "file is not a database" in listing.stderr
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "later version" in command("run", "good", "--history", "-q").stderr
    assert "later version" in command("history").stderr


def test_runs_that_end_at_the_same_time_are_all_kept(files, command, listed):
    files({f"{number}/a.json": "{}" for number in range(4)})
    with ThreadPoolExecutor(4) as pool:
        ends = pool.map(lambda number: command("run", str(number), "--history"), range(4))
        assert [end.returncode for end in ends] == [0] * 4
    assert [run["run"] for run in listed()] == [1, 2, 3, 4]
    assert sorted(run["name"] for run in listed()) == ["0", "1", "2", "3"]


def test_old_runs_are_forgotten_by_age_and_by_count(files, command, listed, database):
    files(FILES)
    for _ in range(2):
        command("run", "in", "--history")
    copied = "started_at, command, job, name, status, exit_code, elapsed_s, records, rejected"
    copied += ", written, failures"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET started_at = '2001-01-01T00:00:00.0Z' WHERE run = 1")
        numbers = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {MAX_RUNS})"
        )
        connection.execute(
            f"INSERT INTO runs ({copied}) {numbers} SELECT {copied} FROM runs, n WHERE run = 2"
        )
    assert len(listed("-n", "all")) == MAX_RUNS + 2
    command("run", "in", "--history")
    kept = [run["run"] for run in listed("-n", "all")]
    assert kept == list(range(4, MAX_RUNS + 4))
    with closing(sqlite3.connect(database)) as connection:
        left = connection.execute("SELECT DISTINCT run FROM failed_files").fetchall()
    assert left == [(MAX_RUNS + 3,)]


def test_the_failed_files_of_a_run_are_bounded(files, command):
    files(many(MAX_FAILED_FILES + 5, "{"))
    command("run", ".", "--history", "-q", "--show-failures", "0")
    shown = json.loads(command("history", "show", "last", "-o", "json").stdout)
    assert shown["failures"] == MAX_FAILED_FILES + 5
    names = [one["file"] for one in shown["failed_files"]]
    assert names == [f"./{number:05}.json" for number in range(MAX_FAILED_FILES)]
    assert shown["failures_omitted"] == 5
    text = command("history", "show").stdout
    assert "... and 5 more failures that the history does not keep" in text


def test_no_secret_is_in_the_history(command, listed, database):
    secret = "s3cr3t-signature"
    with PingServer(status=404) as server:
        address = server.origin.removeprefix("http://")
        url = f"http://user:{secret}@{address}/a.json?X-Amz-Signature={secret}"
        finished = command("run", url, "--history", "-q")
    assert finished.returncode == 1
    assert listed()[0]["name"] == f"http://user:***@{address}/a.json?X-Amz-Signature=***"
    content = b"".join(path.read_bytes() for path in database.parent.iterdir())
    assert secret.encode() not in content
    assert address.encode() in content


def test_a_run_without_input_is_kept_with_its_reason(files, command, listed):
    files({"in/a.txt": ""})
    finished = command("run", "in", "--history")
    assert finished.returncode == 2
    [run] = listed()
    assert (run["status"], run["exit_code"], run["files"]) == ("failed", 2, 0)
    assert run["error"] in finished.stderr
    assert run["error"] in command("history", "show").stdout


@pytest.mark.parametrize(("number", "kept"), [(signal.SIGTERM, True), (signal.SIGKILL, False)])
def test_a_run_that_is_stopped_is_kept_and_one_that_is_killed_is_not(
    files, command, listed, number, kept
):
    folder = files({})
    os.mkfifo(folder / "pipe")
    with (folder / "pipe").open("r+b", buffering=0), subprocess.Popen(
        [*COMMAND, "run", "pipe", "--history", "--grace", "0"], cwd=folder,
        env=environment(XDG_STATE_HOME=str(folder / "state")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        wait_until(lambda: holds_open(process.pid, folder / "pipe"))
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    found = [(run["status"], run["exit_code"]) for run in listed()]
    assert found == ([("interrupted", 143)] if kept else [])


def test_names_that_are_not_utf_8_are_kept(command, tmp_path, listed):
    (tmp_path / "in").mkdir()
    (tmp_path / os.fsdecode(b"in/\xff.json")).write_text("{")
    assert command("run", os.fsdecode(b"in/\xff.json"), "--history").returncode == 1
    assert command("run", "in/*.toml", os.fsdecode(b"\xfe*.x"), "--history").returncode == 2
    assert [run["name"] for run in listed()] == ["in/\\xff.json", "in/*.toml, \\xfe*.x"]
    assert "\\xff.json: invalid_json" in command("history", "show", "1").stdout


def test_names_from_data_are_escaped(files, command):
    files({"in/\x1b[31mred.json": "{"})
    command("run", "in/\x1b[31mred.json", "--history")
    for arguments in ((), ("show",)):
        shown = command("history", *arguments).stdout
        assert "\x1b" not in shown
        assert "\\x1b[31mred.json" in shown
