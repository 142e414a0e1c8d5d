"""Tests of stopping by signals, with real processes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.commands import COMMAND, PATIENCE, environment
from tests.conftest import many, python
from tests.processes import alive, children, holds_open, wait_until, wait_until_still

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")

SLOW = ("-b", "1", "--pause", "0.2")


def start(folder, *arguments, stdout=subprocess.PIPE):
    return subprocess.Popen(
        [*COMMAND, "run", ".", *arguments], cwd=folder, env=environment(), text=True,
        stdout=stdout, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def wait_for_workers(process, count) -> list[int]:
    wait_until(lambda: len(children(process.pid)) == count)
    return children(process.pid)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_ends_a_run_with_its_summary(files, number, code):
    process = start(files(many(400)), *SLOW, "-o", "jsonl", "--report", "report.json")
    assert process.stdout.readline()  # one file is done, and more files follow
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert stderr.startswith("Stopping: finishing the work in flight")
    assert "Traceback" not in stderr
    report = json.loads(stdout.splitlines()[-1])
    assert report["status"] == "interrupted"
    assert report["exit_code"] == code
    assert 0 < report["files"]["total"] < 400
    assert report["failures"] == []


def test_ctrl_c_reaches_workers_too_but_only_the_run_reacts(files):
    """A terminal signals the whole process group. The work in flight still finishes."""
    process = start(files(many(600)), *SLOW, "-w", "2", "-o", "jsonl")
    workers = wait_for_workers(process, 1)  # with a pause, one batch runs at a time
    assert process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert json.loads(stdout.splitlines()[-1])["files"]["failed"] == 0
    assert stderr.count("\n") == 1
    wait_until(lambda: not any(map(alive, workers)))


@pytest.fixture
def stuck(files):
    """Return a function that starts a run on a named pipe without a writer.

    The read of this file never ends.
    """
    folder = files({})
    os.mkfifo(folder / "pipe")
    keeps_it_open = (folder / "pipe").open("r+b", buffering=0)
    started = []

    def _stuck(*arguments):
        process = start(folder, "pipe", *arguments)
        started.append(process)
        wait_until(lambda: holds_open(process.pid, folder / "pipe"))
        return process, keeps_it_open

    with keeps_it_open:
        yield _stuck
    for process in started:
        process.kill()
        process.communicate()


def test_a_file_in_flight_is_finished_within_the_grace(stuck):
    process, pipe = stuck("--grace", "3600", "-o", "json")
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline().startswith("Stopping")
    pipe.write(b"[1, 2]")
    pipe.close()
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert stderr == ""
    assert json.loads(stdout)["files"]["succeeded"] == 1


def test_a_file_in_flight_is_given_up_after_the_grace(stuck):
    process, _ = stuck("--grace", "1", "-o", "json")
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert "Stopped after 1 s, before the work in flight was done" in stderr
    assert json.loads(stdout)["files"]["total"] == 0


def test_rows_that_are_written_after_the_grace_are_counted(files):
    folder = files(many(400))
    options = ("-b", "1", "--pause", "0.02", "--load-batch", "1", "--grace", "0.1", "-o", "json")
    process = start(folder, *options, "--to", "sqlite:///rows.db", "--table", "t")
    wait_until((folder / "rows.db").exists, running=process)
    with closing(sqlite3.connect(folder / "rows.db", isolation_level=None)) as rows:

        def count():
            with suppress(sqlite3.OperationalError):  # there is no table yet
                return rows.execute("SELECT count(*) FROM t").fetchone()[0]
            return 0

        wait_until(count, running=process)
        rows.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000}")
        rows.execute("BEGIN IMMEDIATE")  # the next load waits
        process.send_signal(signal.SIGTERM)
        for line in process.stderr:
            if "before the work in flight was done" in line:
                break
        rows.execute("ROLLBACK")
        stdout, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
        assert json.loads(stdout)["records"]["written"] == count()


def test_the_second_signal_stops_at_once(stuck):
    process, _ = stuck("--grace", "3600")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("Stopping")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130


def test_a_signal_that_comes_twice_is_one_request(stuck):
    """timeout(1) signals the process, and its group."""
    process, pipe = stuck("--grace", "3600", "-o", "json")
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
    assert process.stderr.readline().startswith("Stopping")
    pipe.write(b"[1, 2]")
    pipe.close()
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (143, "")
    assert json.loads(stdout)["files"]["succeeded"] == 1


def test_a_stop_is_announced_while_workers_are_busy(files):
    process = start(files(many(20_000)), "-o", "jsonl", "--no-progress")
    assert process.stdout.readline()  # the run works, and cannot end before its output is read
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("Stopping")
    stdout, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert json.loads(stdout.splitlines()[-1])["status"] == "interrupted"


@pytest.mark.parametrize("after", [0.02, 0.05, 0.08, 0.11, 0.15])
def test_a_signal_during_start_up_leaves_only_its_status(files, after):
    process = start(files(many(1000)), *SLOW)
    time.sleep(after)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in stderr
    # Early signals arrive before the interpreter is ready, and kill the process.
    assert process.returncode in (143, -signal.SIGTERM)
    wait_until(lambda: not alive(process.pid))


@pytest.mark.parametrize("pause", [SLOW, ("-b", "1", "--pause", "60")])
def test_no_worker_outlives_a_killed_run(files, pause):
    process = start(files(many(600)), *pause, "-w", "1")
    workers = wait_for_workers(process, 1)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(alive, workers)))


def test_no_worker_outlives_a_run_that_is_killed_within_a_file(files):
    folder = files(many(600))
    os.mkfifo(folder / "pipe")
    keeps_it_open = os.open(folder / "pipe", os.O_RDWR)
    process = start(folder, "pipe", "-w", "1")
    [worker] = wait_for_workers(process, 1)
    wait_until(lambda: holds_open(worker, folder / "pipe"))
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(worker))
    os.close(keeps_it_open)


def test_a_reader_that_stops_reading_does_not_stop_the_signals(files):
    """Ctrl-C works while stdout is a full pipe without a reader."""
    counts = "def f(record):\n    with open('calls', 'a') as calls: calls.write('x')\n"
    folder = files({**many(20_000), "fn.py": counts})
    reader, writer = os.pipe()
    os.write(writer, b"x" * fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096))
    process = start(folder, "-o", "jsonl", "--grace", "0.5", "--call", "fn.py:f", stdout=writer)
    os.close(writer)
    calls = folder / "calls"
    wait_until(calls.exists, running=process)
    assert 0 < wait_until_still(lambda: calls.stat().st_size) < 20_000
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130
    os.close(reader)
    assert re.match("Stopping", process.stderr.read())
    process.stderr.close()


def test_under_nohup_a_hangup_changes_nothing(files):
    ignoring = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{ignoring} os.execv(sys.argv[1], sys.argv[1:])", *COMMAND,
         "run", ".", *SLOW, "-o", "jsonl"],
        cwd=files(many(10)), env=environment(), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == 0


NOTES_FIRST_HANDLER = """
import signal, sys
sys.argv = ["asyncbatch", "--version"]
before, set_handler = set(sys.modules), signal.signal

def noting(number, handler):
    loaded = set(sys.modules) - before
    print(sorted(name for name in loaded if not name.startswith(("encodings", "zipimport"))))
    signal.signal = set_handler
    return set_handler(number, handler)

signal.signal = noting
from asyncbatch.cli import main
main()
"""


def test_handlers_are_set_before_anything_else_is_imported():
    finished = python(NOTES_FIRST_HANDLER)
    assert eval(finished.stdout.splitlines()[0]) == [
        "__future__", "asyncbatch", "asyncbatch._version", "asyncbatch.cli",
        "asyncbatch.cli.exit_codes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
@pytest.mark.parametrize("module", ["asyncbatch.cli.terminal", "typer", "asyncbatch.cli.app"])
def test_a_signal_during_the_imports_ends_without_a_traceback(module, number, code):
    program = f"""
import os, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})

sys.meta_path.insert(0, Interrupter())
sys.argv = ["asyncbatch", "--version"]
from asyncbatch.cli import main
main()
"""
    finished = python(program)
    assert (finished.returncode, finished.stdout, finished.stderr) == (code, "", "")
