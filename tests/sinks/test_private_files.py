"""Files that hold data of others: only their owner may read them, and none is left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess

import pytest

from tests.commands import PATIENCE, CommandProcess, environment
from tests.processes import wait_until

WAITS = """
import pathlib, time

def waits(record):
    pathlib.Path("waiting").touch()
    while not pathlib.Path("go-on").exists():
        time.sleep(0.01)
    return record
"""
EVENTS = (
    '{"timestamp": "2026-01-01T00:00:00Z"}\n'
    '{"timestamp": "2026-01-01T01:00:00Z"}\n'
    '{"timestamp": "2026-01-01T00:00:01Z"}\n'
    "nonsense\n"
)


@pytest.fixture(autouse=True)
def _open_to_all():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def readable(folder, *names):
    """Create files that all may read."""
    for name in names:
        (folder / name).touch(0o644)


@pytest.mark.parametrize("to", ["out.jsonl", "mirror/", "sqlite:///out.db", None])
def test_dead_letters_and_ledgers_are_for_their_owner_only(to, run, files):
    folder = files({"in/a.jsonl": '{"n": 1}\nnonsense\n'})
    target = () if to is None else ("--to", to)
    readable(folder, "bad.jsonl")
    table = ("--table", "t") if to and "://" in to else ()
    ledger = () if table else ("--ledger", "my.ledger")
    outcome = run("in", *target, *table, *ledger, "--resume", "--dead-letter", "bad.jsonl", "-q")
    assert outcome.code == 1
    assert mode(folder / "bad.jsonl") == 0o600
    if not table:
        for path in folder.glob("my.ledger*"):
            assert mode(path) == 0o600
        assert (folder / "my.ledger").exists()
    if to == "out.jsonl":  # a result is as open as the user wants it
        assert mode(folder / "out.jsonl") == 0o666


@pytest.mark.parametrize("more", [(), ("--lock",), ("--lock", "--ledger", "my.ledger")])
def test_the_state_folder_is_for_its_owner_only(run, files, tmp_path, more):
    files({"in/a.json": "{}"})
    state = tmp_path / "home" / "state"
    assert run(*more, "in", "--to", "out.jsonl", env={"XDG_STATE_HOME": str(state)}).code == 0
    found = [state.parent, state, *state.rglob("*")]
    assert len(found) > 3
    assert {mode(path) for path in found} == {0o600, 0o700}
    assert {mode(path) for path in found if path.is_dir()} == {0o700}


def test_a_named_lock_is_for_its_owner_only(run, files):
    folder = files({"in/a.json": "{}"})
    assert run("in", "--lock=my.lock").code == 0
    assert mode(folder / "my.lock") == 0o600


def test_what_a_stream_remembers_is_for_its_owner_only(stream, files):
    folder = files({"in.jsonl": EVENTS})
    readable(folder, "late.jsonl", "bad.jsonl")
    code, _, _ = stream(
        "in.jsonl", "--window", "tumbling:1m", "--to", "out.jsonl", "--checkpoint", "at",
        "--late", "late.jsonl", "--dead-letter", "bad.jsonl", "-q",
    )  # fmt: skip
    assert code == 0
    for name in ("at", "at.lock", "late.jsonl", "bad.jsonl"):
        assert (folder / name).stat().st_size
        assert mode(folder / name) == 0o600


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith("bad.jsonl.")]


def start(folder, *more):
    (folder / "waiting").unlink(missing_ok=True)
    process = CommandProcess(
        ["run", "in", "--call", "fn.py:waits", "--dead-letter", "bad.jsonl", "-q", *more],
        cwd=folder, env=environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until((folder / "waiting").exists, running=process)
    return process


def kill(process):
    process.kill()
    process.wait(PATIENCE)
    process.stderr.close()


def test_the_next_run_removes_the_temporary_files_of_killed_ones(run, files):
    folder = files(
        {"in/a.json": "{}", "fn.py": WAITS, "bad.jsonl.kept.tmp": "", "bad.jsonl.tmp": ""}
    )
    for _ in range(2):
        kill(start(folder))
    assert len(leftovers(folder)) == 3  # the second run has removed that of the first
    living = start(folder)
    (folder / "in" / "a.json").write_text("nonsense")
    assert run("in", "--dead-letter", "bad.jsonl", "-q").code == 1
    mine = f"bad.jsonl.{living.pid}.tmp"
    assert sorted(leftovers(folder)) == sorted([mine, "bad.jsonl.kept.tmp", "bad.jsonl.tmp"])
    living.send_signal(signal.SIGKILL)
    kill(living)
    assert run("in", "--dead-letter", "bad.jsonl", "-q").code == 1
    assert sorted(leftovers(folder)) == ["bad.jsonl.kept.tmp", "bad.jsonl.tmp"]
