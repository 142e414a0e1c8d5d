"""Tests of `--log-file` and `--log-format`."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.cli.jobs import ARGUMENTS, GOOD
from tests.commands import COMMAND, PATIENCE, environment, run_command_text
from tests.processes import holds_open, wait_until
from tests.servers.api import ApiServer, status

SECRET = "hunter2-of-the-database"
FIXED = ["time", "level", "run_id", "event", "message"]
TEXT_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) ([0-9a-f]{12}) (\w+): .+"
)


def events_of_text(text):
    """Return the names of the events of a text log, each line of which has the form."""
    found = [TEXT_LINE.fullmatch(line) for line in text.splitlines()]
    return [match[3] if match else None for match in found]


@pytest.fixture
def command(tmp_path):
    """Run a command in the folder of the test."""

    def _command(*arguments, **env):
        return run_command_text(*arguments, cwd=tmp_path, env=env)

    return _command


def lines(text):
    """Return the objects of a log; check the fields that each line has."""
    objects = [json.loads(line) for line in text.splitlines()]
    assert all(list(one)[: len(FIXED)] == FIXED for one in objects)
    return objects


def events(objects):
    return [one["event"] for one in objects]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_log_has_start_settings_and_end(name, files, command):
    folder = files(GOOD)
    more = ("--log-file", "log", "--log-format", "json", "--report", "r.json", "--history")
    finished = command(name, *ARGUMENTS[name], *more, XDG_STATE_HOME=str(folder / "state"))
    assert finished.returncode == 0, finished.stderr
    found = lines((folder / "log").read_text())
    assert events(found) == ["start", "settings", "end"]
    start, settings, end = found
    assert start["command"] == name
    assert settings["settings"]
    report = json.loads((folder / "r.json").read_text())
    assert {one["run_id"] for one in found} == {report["run_id"]}
    shared = end.keys() & report.keys() - {"event"}
    assert {"status", "exit_code", "elapsed_s", "rates"} < shared
    assert {key: end[key] for key in shared} == {key: report[key] for key in shared}
    with closing(sqlite3.connect(folder / "state/asyncbatch/history.sqlite")) as history:
        assert history.execute("SELECT run_id FROM runs").fetchall() == [(report["run_id"],)]


def test_the_text_has_a_line_for_each_failed_file(files, command):
    """A file name with a line end stays in one line; a second run appends."""
    folder = files({"in/1.json": "[1,", "in/2\nx.json": "", "in/3.json": "[1]"})
    for _ in range(2):
        assert command("run", "in", "--log-file", "log").returncode == 1
    text = (folder / "log").read_text()
    assert events_of_text(text) == ["start", "settings", "failed", "failed", "end"] * 2
    runs = [line.split()[2] for line in text.splitlines()]
    assert len(set(runs[:5])) == len(set(runs[5:])) == 1
    assert runs[0] != runs[5]
    assert "invalid_json: in/1.json:1:4: " in text
    assert r"empty: in/2\nx.json: " in text


def test_rejected_records_are_one_line_a_file(files, command):
    folder = files(GOOD | {"in/1.json": '[{"a": 1}, {"b": 2}, {"b": 3}]', "in/3.json": "[1,"})
    options = ("--schema", "s.json", "--log-file", "log", "--log-format", "json")
    assert command("run", "in", *options, "-w", "0").returncode == 1
    found = lines((folder / "log").read_text())
    lost = {(one["event"], one["file"], one["count"]) for one in found if "kind" in one}
    assert {("rejected", "in/1.json", 2), ("failed", "in/3.json", 1)} <= lost
    first = next(one for one in found if one.get("file") == "in/1.json")
    assert (first["kind"], first["record"], first["line"]) == ("schema", 2, 1)


def test_a_plan_is_no_success_of_its_files(files, command):
    folder = files({"in/a.json": b"1", "in/b.json": b"{"})
    finished = command("run", "in", "--dry-run", "--log-file", "log", "--log-format", "json")
    assert finished.returncode == 0, finished.stderr
    end = lines((folder / "log").read_text())[-1]
    counts = end["files"]
    assert (counts["total"], counts["planned"], counts["succeeded"]) == (2, 2, 0)
    assert end["dry_run"] is True
    assert end["message"].endswith(": 2 planned")


def test_without_a_file_stderr_has_only_the_log(files, command):
    """Also with a note, an error of the target, and the summary that gives way to results."""
    folder = files(GOOD | {"in/bad.json": "{"})
    for more in ((), ("-q",), ("-v",), ("--to", "-"), ("-o", "json"), ("--max-failures", "0")):
        finished = command("run", "in", "--log-format", "json", *more)
        assert finished.returncode == 1
        found = lines(finished.stderr)
        assert events(found)[0] == "start"
        assert "failed" in events(found)
        assert events(found)[-1] == "end"
    (folder / "locked").mkdir()
    finished = command("run", "in", "--to", "locked/x/y.csv", "--log-format", "json")
    assert finished.returncode == 2
    assert "locked/x" in lines(finished.stderr)[-1]["message"]


@pytest.mark.parametrize("arguments", [
    ("run", "in", "-w", "x"),
    ("run", "in", "--no-such-option"),
    ("run", "in", "--max-failures", "many"),
    ("run", "in", "--lock-wait", "1s"),
    ("stream", "in/1.json", "--window", "x"),
    ("etl", "nowhere.toml"),
    ("validate", "in"),
])  # fmt: skip
def test_each_mistake_of_use_is_reported_and_logged(arguments, files, command):
    folder = files(GOOD)
    told = ("--report", "r.json", "--log-format", "json", "--log-file", "log")
    finished = command(*arguments, *told)
    assert finished.returncode == 2
    report = json.loads((folder / "r.json").read_text())
    end = lines((folder / "log").read_text())[-1]
    assert (end["event"], end["level"], end["exit_code"]) == ("end", "error", 2)
    assert report["error"] == end["message"]
    assert report["run_id"] == end["run_id"]
    assert report["error"].splitlines()[-1] in finished.stderr


def test_a_mistake_is_reported_where_a_variable_or_a_file_says(files, command):
    folder = files(GOOD | {"asyncbatch.toml": 'run.log_file = "log"'})
    finished = command("run", "in", "-w", "x", ASYNCBATCH_RUN_REPORT="r.json")
    assert finished.returncode == 2
    assert (folder / "r.json").exists()
    assert "'x' is not a whole number" in (folder / "log").read_text()


def test_a_mistake_in_a_configuration_file_is_told_once(files, command):
    folder = files(GOOD | {"asyncbatch.toml": "run.workers = 'x'", "o.toml": 'run.report = ["o"]'})
    finished = command("run", "in", "--report", "r.json")
    assert finished.returncode == 2
    assert finished.stderr.count("Error:") == 1
    assert "run.workers" in json.loads((folder / "r.json").read_text())["error"]
    assert command("run", "in", "--no-such", "--config", "o.toml").returncode == 2
    assert (folder / "o").exists()


def test_a_held_lock_ends_the_log(files, command):
    folder = files(GOOD)
    with (folder / "l.lock").open("w") as held:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        finished = command("run", "in", "--lock=l.lock", "--log-format", "json")
    assert finished.returncode == 75
    assert [(one["event"], one["level"]) for one in lines(finished.stderr)] == [
        ("start", "info"), ("note", "error"), ("end", "error"),
    ]  # fmt: skip


def test_a_log_never_touches_a_file_that_is_none(files, command):
    folder = files(GOOD)
    for path in ("in/1.json", "nowhere/log", "in", "-", "s3://bucket/log"):
        finished = command("run", "in", "--log-file", path)
        assert finished.returncode == 2
        assert "--log-file" in finished.stderr
    assert (folder / "in/1.json").read_text() == GOOD["in/1.json"]


def test_a_log_in_the_input_folder_is_not_read(files, command):
    files(GOOD)
    for _ in range(2):
        finished = command(
            "run", "in", "--log-file", "in/log.jsonl", "--log-format", "json", "-o", "json"
        )
        assert json.loads(finished.stdout)["files"]["total"] == 2


def test_secrets_stay_out_of_the_log(files, command):
    files(GOOD)
    target = f"postgresql://ann:{SECRET}@127.0.0.1:1/x?password={SECRET}"
    for form in ("text", "json"):
        finished = command(
            "run", "in", "--to", target, "--table", "t", "--retries", "1", "--retry-delay", "0.01",
            "--ping", f"http://127.0.0.1:1/{SECRET}", "--log-format", form,
        )  # fmt: skip
        assert finished.returncode == 2
        assert "127.0.0.1" in finished.stderr
        assert SECRET not in finished.stderr + finished.stdout


def test_retries_of_requests_are_logged(files, command):
    with ApiServer(records=[{"id": 1}], size=10) as api:
        api.misbehave(status(503), times=2)
        url = f"{api.url('/page')}?token={SECRET}"
        source = f'type = "http"\nurls = ["{url}"]\nrecords = "/items"\nretry_delay = 0.01'
        source += '\npagination = { type = "page", total = "/total" }'
        files({"p.toml": f'name = "p"\n[[source]]\n{source}\n[sink]\nto = "out.jsonl"\n'})
        finished = command("etl", "p.toml", "--log-format", "json")
    found = [one for one in lines(finished.stderr) if one["event"] == "retry"]
    assert [one["attempt"] for one in found] == [1, 2]
    assert all("503" in one["message"] for one in found)
    assert SECRET not in finished.stderr


def test_the_crash_of_a_worker_is_logged(files, command):
    files({f"in/{n}.json": f'{{"a": {n}}}' for n in range(3)} | {
        "kill.py": "import os\n\ndef work(record):\n"
        "    if record['a'] == 1:\n        os.kill(os.getpid(), 9)\n    return record\n",
    })  # fmt: skip
    finished = command("run", "in", "--call", "kill.py:work", "-w", "1", "--log-format", "json")
    assert finished.returncode == 1
    found = lines(finished.stderr)
    crashes = [one for one in found if one["event"] == "worker_crash"]
    assert {one["file"] for one in crashes} == {"in/1.json"}
    assert all("SIGKILL" in one["message"] for one in crashes)
    assert [one["kind"] for one in found if one["event"] == "failed"] == ["worker_crash"]


@pytest.fixture
def waiting(files):
    """Start a run that has a log and waits for a pipe; return it and the pipe."""
    folder = files({})
    os.mkfifo(folder / "pipe")
    process = subprocess.Popen(
        [*COMMAND, "run", "pipe", "--log-file", "log"], cwd=folder, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with (folder / "pipe").open("r+b", buffering=0) as pipe:
        log = folder / "log"
        wait_until(
            lambda: holds_open(process.pid, folder / "pipe") and "settings" in log.read_text()
        )
        yield process, pipe, log
    process.kill()
    process.communicate()


@pytest.mark.parametrize("way", ["copytruncate", "rename"])
def test_a_log_goes_on_after_its_rotation(waiting, way):
    process, pipe, log = waiting
    if way == "rename":
        log.rename(log.with_suffix(".1"))
    else:
        os.truncate(log, 0)
    pipe.write(b"[1,")
    pipe.close()
    process.communicate(timeout=PATIENCE)
    assert events_of_text(log.read_text()) == ["failed", "end"]  # without a hole of zeros


def test_a_signal_is_logged(waiting):
    process, pipe, log = waiting
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline().startswith("Stopping")
    pipe.write(b"[1]")
    pipe.close()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert events_of_text(log.read_text()) == ["start", "settings", "signal", "end"]
    assert "Interrupted (exit status 143)" in log.read_text().splitlines()[-1]


def test_a_full_disk_under_the_log_ends_nothing(files, command):
    files(GOOD)
    finished = command("run", "in", "--log-file", "/dev/full")
    assert finished.returncode == 0
    assert finished.stderr.count("the log /dev/full cannot be written: No space left") == 1


def test_a_history_of_an_earlier_version_gets_the_ids(files, command):
    folder = files(GOOD)
    state = {"XDG_STATE_HOME": str(folder / "state")}
    assert command("run", "in", "--history", **state).returncode == 0
    path = folder / "state/asyncbatch/history.sqlite"
    with closing(sqlite3.connect(path)) as history, history:
        history.execute("ALTER TABLE runs DROP COLUMN run_id")
    shown = json.loads(command("history", "-o", "json", **state).stdout)
    assert [one["run_id"] for one in shown["runs"]] == [None]
    assert command("run", "in", "--history", **state).returncode == 0
    shown = json.loads(command("history", "-o", "json", **state).stdout)
    assert [one["run_id"] is None for one in shown["runs"]] == [True, False]
