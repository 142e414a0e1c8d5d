"""Two runs of one job never overlap: tests with real processes, locks and kills."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from asyncbatch.cli.command import with_lock_file
from asyncbatch.errors import LockHeldError, UsageError
from asyncbatch.state.lock import Lock, job_key, state_folder
from tests.commands import PATIENCE, CommandProcess, environment
from tests.conftest import many
from tests.processes import children, wait_until

SLOW = ("-b", "1", "--pause", "0.2")


@pytest.fixture
def start(tmp_path):
    """A function that starts `asyncbatch run`; the processes are killed at the end."""
    started = []

    def _start(*arguments, **env):
        process = CommandProcess(
            ["run", *arguments], cwd=tmp_path, env=environment(**env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield _start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def held(files):
    """A folder with inputs, and a lock that the test process holds."""
    folder = files({f"data/{name}": text for name, text in many(3).items()})
    lock = Lock(str(folder / "job.lock"))
    lock.acquire()
    yield folder, lock
    lock.release()


def holder_of(path):
    def says():
        try:
            return json.loads(Path(path).read_text())["pid"]
        except (OSError, ValueError):
            return None

    wait_until(says)
    return says()


# While it is held


def test_a_second_run_leaves_at_once_and_says_who_has_the_lock(run, start, files):
    folder = files({f"data/{name}": text for name, text in many(600).items()})
    (folder / "out.jsonl").write_text("as it was")
    first = start("data", "--lock", "job.lock", *SLOW)
    assert holder_of(folder / "job.lock") == first.pid
    second = run("data", "--lock", "job.lock", "--to", "out.jsonl", "--report", "r.json")
    assert (second.code, second.stdout) == (75, "")
    assert re.fullmatch(
        rf"Not run: the lock job\.lock is held by process {first.pid} since [-\dT:]+Z\n",
        second.stderr,
    )
    assert (folder / "out.jsonl").read_text() == "as it was"
    assert not (folder / "r.json").exists()


def test_quiet_says_it_too(run, held):
    outcome = run("data", "-q", "--lock=job.lock")
    assert outcome.code == 75
    assert outcome.stderr.count("\n") == 1
    assert str(os.getpid()) in outcome.stderr


def test_nothing_is_read_before_the_lock_is_ours(run, held):
    nowhere = ("--schema", "nowhere.json", "--call", "nowhere.py:f", "--files-from", "nowhere")
    assert run("data", *nowhere, "--lock=job.lock").code == 75


def test_waiting_ends_when_the_lock_is_free(start, held):
    folder, lock = held
    process = start("data", "--lock=job.lock", "--lock-wait", "3600", "-o", "json")
    assert process.stderr.readline().startswith(
        "Waiting for at most 3600 s: the lock job.lock is held by process"
    )
    lock.release()
    stdout, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert json.loads(stdout)["files"]["succeeded"] == 3
    assert holder_of(folder / "job.lock") == process.pid


def test_waiting_has_an_end(run, held):
    outcome = run("data", "-q", "--lock=job.lock", "--lock-wait", "0.2")
    assert outcome.code == 75
    assert outcome.stderr.endswith("Z (waited 0.2 s)\n")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait(start, held, number, code):
    process = start("data", "--lock=job.lock", "--lock-wait", "3600")
    assert process.stderr.readline()
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE) == code


def test_a_lock_file_that_was_replaced_while_we_waited_is_not_the_lock(start, held):
    folder, lock = held
    process = start("data", "--lock=job.lock", "--lock-wait", "3600")
    assert process.stderr.readline()
    (folder / "job.lock").unlink()
    lock.release()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert holder_of(folder / "job.lock") == process.pid


def test_a_holder_that_has_not_yet_said_who_it_is(run, files):
    folder = files({"data/a.json": "1"})
    with open(folder / "job.lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        outcome = run("data", "--lock=job.lock")
    assert outcome.code == 75
    assert "the lock job.lock is held by another process\n" in outcome.stderr


def test_a_dry_run_needs_no_lock(run, held):
    assert run("data", "--lock=job.lock", "--dry-run").code == 0


# When it is free


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_the_lock_of_a_killed_run_is_free_at_once(run, start, files):
    folder = files({f"data/{name}": text for name, text in many(600).items()})
    first = start("data", "--lock=job.lock", "-w", "2", *SLOW)
    wait_until(lambda: children(first.pid))
    workers = children(first.pid)
    lock = str(folder / "job.lock")
    assert lock in open_files(first.pid)
    # Between fork and exec, a worker has all open files of its parent.
    wait_until(lambda: all(lock not in open_files(worker) for worker in workers))
    first.kill()
    first.wait()
    outcome = run("data", "--lock=job.lock", "--limit", "2")
    assert outcome.code == 0, outcome.stderr


def open_files(pid):
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            found.append(os.readlink(link))
    return found


def test_what_a_function_starts_does_not_keep_the_lock(run, files):
    """A process that a user's function starts does not inherit the open lock file."""
    files({
        "data/a.json": "1",
        "leave.py": "import subprocess\nasync def f(record):\n"
        "    return subprocess.Popen(['sleep', '60'], stdin=-3, stdout=-3, stderr=-3).pid\n",
    })  # fmt: skip
    first = run("data", "--call", "leave.py:f", "--to", "-", "--lock=job.lock")
    left = int(first.stdout)
    try:
        assert run("data", "--lock=job.lock").code == 0
        os.kill(left, 0)
    finally:
        os.kill(left, signal.SIGKILL)


def test_one_run_after_the_other(run, files):
    folder = files({"data/a.json": "1", "job.lock": ""})
    for _ in range(2):
        assert run("data", "--lock", "job.lock", "-q") == (0, "", "")
    longer = (folder / "job.lock").read_text() + "left of a longer one\n"
    (folder / "job.lock").write_text(longer)
    assert run("data", "--lock", "job.lock", "-q").code == 0
    assert (folder / "job.lock").read_text().count("\n") == 1


def test_the_library_lets_go(tmp_path):
    path = str(tmp_path / "job.lock")
    lock, other = Lock(path), Lock(path)
    lock.acquire()
    with pytest.raises(LockHeldError, match=f"held by process {os.getpid()} since"):
        other.acquire()
    lock.release()
    lock.release()
    other.acquire()
    other.release()


# The default file


def locks(folder):
    return sorted(path.name for path in (folder / "state/asyncbatch/locks").iterdir())


def test_each_job_has_a_lock_of_its_own(run, files):
    folder = files({"data/a.json": "1", "other/a.json": "1"})
    env = {"XDG_STATE_HOME": str(folder / "state")}

    def lock_count(*arguments):
        assert run(*arguments, "--lock", "-q", env=env).code == 0
        return len(locks(folder))

    assert lock_count("data") == 1
    assert lock_count("./data/") == lock_count(folder / "data") == 1
    assert lock_count("data", "-b", "7", "--report", "r.json") == 1
    assert lock_count("other", "data") == lock_count("data", "other") == 2
    assert lock_count("data", "--to", "x.csv", "--columns", "a", "--jq", "{a: .}") == 3
    assert lock_count("data", "--to", "./x.csv", "--columns", "a", "--jq", "{a: .}") == 3
    assert lock_count("data", "--to", "x.csv", "--columns", "a", "--jq", "{a: 1}") == 4
    assert lock_count("data", "--shard", "1/2") == 5
    assert lock_count("data", "--shard", "2/2") == 6
    assert (folder / "state/asyncbatch/locks").stat().st_mode & 0o077 == 0


def test_keys_know_targets_by_their_place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    same = [
        job_key(["x"], f"sqlite:///{name}", {}) for name in ("a.db", "./a.db", f"{tmp_path}/a.db")
    ]
    assert len(set(same)) == 1
    others = [
        job_key(["x"], name, {}) for name in (None, "-", "a.db", "sqlite://h/a", "duckdb:///a.db")
    ]
    assert len({*same, *others}) == 6
    assert job_key(["a\udcff"], None, {}) != job_key(["a\udcfe"], None, {})


def test_where_state_is_kept(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_folder() == "/state/asyncbatch"
    for none in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", none)
        assert state_folder() == "/home/somebody/.local/state/asyncbatch"
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(UsageError, match="set XDG_STATE_HOME or HOME"):
        state_folder()


# How it is written


@pytest.mark.parametrize(("words", "parsed"), [
    ("data --lock", "data --lock=auto"),
    ("--lock data/", "--lock=auto data/"),
    ("--lock data", "--lock=auto data"),
    ("--lock missing/", "--lock=auto missing/"),
    ("--lock *.txt", "--lock=auto *.txt"),
    ("--lock missing.json", "--lock=auto missing.json"),
    ("--lock lines.jsonl.zst", "--lock=auto lines.jsonl.zst"),
    ("--lock -", "--lock=auto -"),
    ("--lock -q data", "--lock=auto -q data"),
    ("--lock -- data", "--lock=auto -- data"),
    ("--lock job.lock data", "--lock job.lock data"),
    ("--lock job data", "--lock job data"),
    ("--lock=data data", "--lock=data data"),
    ("--lock-wait 5 --lock", "--lock-wait 5 --lock=auto"),
    ("-- --lock data", "-- --lock data"),
    ("data", "data"),
])  # fmt: skip
def test_which_word_is_the_lock_file(tmp_path, monkeypatch, words, parsed):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert with_lock_file(words.split()) == parsed.split()


@pytest.mark.parametrize("arguments", [
    ("data", "--lock"), ("--lock", "data/"), ("--lock", "data"), ("--lock", "data/a.json"),
    ("--lock", "-o", "json", "data"), ("data", "--lock=auto"), ("--lock", "data/*.json"),
])  # fmt: skip
def test_the_lock_without_a_file(run, files, arguments):
    folder = files({"data/a.json": "[1, 2]"})
    outcome = run(*arguments, env={"XDG_STATE_HOME": str(folder / "state")})
    assert outcome.code == 0, outcome.stderr
    assert len(locks(folder)) == 1
    assert os.listdir(folder / "data") == ["a.json"]


@pytest.mark.parametrize("arguments", [
    ("data", "--lock", "my-lock"), ("--lock", "my-lock", "data"), ("--lock=my-lock", "data"),
])  # fmt: skip
def test_the_lock_with_a_file(run, files, arguments):
    folder = files({"data/a.json": "[1, 2]"})
    assert run(*arguments).code == 0
    assert json.loads((folder / "my-lock").read_text())["pid"]


def test_the_lock_from_the_environment(run, files):
    folder = files({"data/a.json": "[1, 2]"})
    env = {"XDG_STATE_HOME": str(folder / "state"), "ASYNCBATCH_RUN_LOCK": "auto"}
    assert run("data", env=env).code == 0
    assert len(locks(folder)) == 1


@pytest.mark.parametrize(("arguments", "reason"), [
    (("data", "--lock=notes.txt"), "--lock notes.txt is not a lock file but has content"),
    (("data", "--lock=data"), "is an input or an output"),
    (("data", "--lock=folder"), "--lock folder: Is a directory"),
    (("data", "--lock=pipe"), "--lock pipe is not a regular file"),
    (("data", "--lock=nowhere/job.lock"), "--lock nowhere/job.lock: there is no folder nowhere"),
    (("data", "--lock=x.jsonl", "--to", "x.jsonl"), "is an input or an output"),
    (("data", "--lock=r.json", "--report", "./r.json"), "is an input or an output"),
    (("data", "--lock=l.db", "--ledger", "l.db"), "is an input or an output"),
    (("data", "--lock=t.db", "--to", "sqlite:///t.db", "--table", "t"), "is an input or an output"),
    (("data", "--lock="), "--lock= names no file"),
    (("data", "--lock-wait", "1"), "--lock-wait needs --lock"),
    (("--lock", "notes.txt"), "--lock took 'notes.txt' as its file"),
    (("--lock",), "no input"),
])  # fmt: skip
def test_what_cannot_be_meant(run, files, arguments, reason):
    folder = files({"data/a.json": "1", "notes.txt": "mine", "folder/x": ""})
    os.mkfifo(folder / "pipe")
    outcome = run(*arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert reason in outcome.stderr
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_state_folder_that_cannot_be_made(run, files):
    folder = files({"data/a.json": "1", "state": "a file"})
    outcome = run("data", "--lock", env={"XDG_STATE_HOME": str(folder / "state")})
    assert outcome.code == 2
    assert "name a file with --lock=FILE" in outcome.stderr
