"""Transient errors are retried, permanent ones are not, and no record appears twice."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import socket
import subprocess
import sys
from urllib.error import URLError

import pytest

from asyncbatch import process_files
from asyncbatch.core.batches import Batch
from asyncbatch.core.retry import Retrier, Retries, attempts_note, is_transient
from asyncbatch.core.settings import FileWorkSettings
from asyncbatch.storage import local as content
from asyncbatch.storage.local import open_with_retries
from asyncbatch.workers.tasks.count import CountTask
from tests.commands import ROOT, run_command

AT_ONCE = Retries(2, 0.0)
RETRY = ("--retries", "2", "--retry-delay", "0")
FUNCTIONS = """
import asyncio, os

def fails(record, times, error=ConnectionResetError("the server is gone")):
    "Fail the first times for each record, after spoiling it."
    name = f"tries-{record['n']}"
    with open(name, "a") as tries:
        tries.write(".")
    record["n"] = "spoiled"
    if os.path.getsize(name) <= times:
        raise error

def once(record):
    n = record["n"]
    if n % 2:
        fails(dict(record), 1)
    return record

def returned(record):
    whole = dict(record)
    fails(record, 2)
    return whole

def many(record):
    whole = dict(record)
    yield whole
    fails(record, 2)
    yield whole

async def awaited(record):
    whole = dict(record)
    await asyncio.sleep(0)
    fails(record, 2)
    return whole

async def iterated(record):
    whole = dict(record)
    yield whole
    await asyncio.sleep(0)
    fails(record, 2)
    yield whole

def never(record):
    fails(record, 99)

async def never_async(record):
    fails(record, 99)

def wrong(record):
    fails(record, 99, ValueError("no"))

async def wrong_async(record):
    fails(record, 99, ValueError("no"))

def many_before(record):
    for _ in range(5000):
        yield {"n": 1}
    fails(record, 2)
"""


def eio():
    return OSError(errno.EIO, os.strerror(errno.EIO))


def tries(folder, number):
    return len((folder / f"tries-{number}").read_text())


# Functions


@pytest.fixture
def records(files):
    return files({"fn.py": FUNCTIONS, "a.jsonl": '{"n": 1}\n{"n": 2}\n{"n": 3}\n'})


@pytest.mark.parametrize(
    ("function", "each"), [("returned", 1), ("awaited", 1), ("many", 2), ("iterated", 2)]
)
def test_a_function_is_called_again_with_the_record_as_it_was(run, records, function, each):
    options = ("--call", f"fn.py:{function}", "--to", "o.jsonl", "-o", "json")
    outcome = run("a.jsonl", *options, *RETRY)
    assert outcome.code == 0
    rows = [json.loads(line)["n"] for line in (records / "o.jsonl").read_text().splitlines()]
    assert rows == [number for number in (1, 2, 3) for _ in range(each)]
    assert [tries(records, number) for number in (1, 2, 3)] == [3, 3, 3]
    assert outcome.json["retries"] == 6


@pytest.mark.parametrize("function", ["never", "never_async"])
def test_after_the_last_try_the_message_says_how_many(run, records, function):
    outcome = run("a.jsonl", "--call", f"fn.py:{function}", "-o", "json", *RETRY)
    messages = {failure["message"] for failure in outcome.json["failures"]}
    assert messages == {"ConnectionResetError: the server is gone (tried 3 times)"}
    assert tries(records, 1) == 3
    assert outcome.json["records"]["rejected"] == 3


@pytest.mark.parametrize("function", ["wrong", "wrong_async"])
def test_what_fails_for_good_is_not_tried_again(run, records, function):
    outcome = run("a.jsonl", "--call", f"fn.py:{function}", "-o", "json", *RETRY)
    assert {failure["message"] for failure in outcome.json["failures"]} == {"ValueError: no"}
    assert tries(records, 1) == 1
    assert outcome.json["retries"] == 0


def test_without_the_option_nothing_is_tried_again(run, records):
    outcome = run("a.jsonl", "--call", "fn.py:returned", "-o", "json")
    assert outcome.json["records"]["rejected"] == 3
    assert tries(records, 1) == 1


def test_a_generator_that_has_yielded_a_lot_is_not_begun_again(run, records):
    outcome = run("a.jsonl", "--call", "fn.py:many_before", "--to", "o.jsonl", "-o", "json", *RETRY)
    assert outcome.json["records"]["rejected"] == 3
    assert tries(records, 1) == 1
    assert (records / "o.jsonl").read_text() == ""


def test_the_summary_counts_retries_if_there_were_any(run, records):
    shown = run("a.jsonl", "--call", "fn.py:once", *RETRY).stdout
    assert "2 after temporary failures" in shown
    assert "retries" not in run("a.jsonl", "--call", "fn.py:once", *RETRY).stdout


def stream_of(folder, function, *options):
    events = "".join(f'{{"n": {n}, "timestamp": {1_767_225_600 + n}}}\n' for n in (1, 2, 3))
    (folder / "e.jsonl").write_text(events)
    done = run_command(
        *("stream", "e.jsonl", "--call", f"fn.py:{function}", "--to", "w.jsonl", "-o", "json"),
        *("--agg", "count", "--agg", "sum:n", *options),
        cwd=folder,
    )
    rows = [json.loads(line) for line in (folder / "w.jsonl").read_bytes().splitlines()]
    return done, json.loads(done.stdout), [row["aggregates"] for row in rows]


@pytest.mark.parametrize("workers", [(), ("-w", "0")])
@pytest.mark.parametrize("function", ["returned", "awaited"])
def test_a_stream_calls_it_again_too(records, function, workers):
    done, report, rows = stream_of(records, function, *RETRY, *workers)
    assert (done.returncode, rows) == (0, [{"count": 3, "sum_n": 6}])
    assert [tries(records, number) for number in (1, 2, 3)] == [3, 3, 3]
    assert report["retries"] == 6


@pytest.mark.parametrize("function", ["never", "never_async"])
def test_a_stream_rejects_what_fails_each_time(records, function):
    done, report, rows = stream_of(records, function, *RETRY)
    assert (done.returncode, rows) == (1, [])
    messages = [failure["message"] for failure in report["failures"]]
    assert messages == ["ConnectionResetError: the server is gone (tried 3 times)"] * 3
    assert report["retries"] == 6


def test_retries_of_a_stream_without_a_call_are_refused(stream, files):
    files({"e.jsonl": "{}"})
    code, _, stderr = stream("e.jsonl", "--jq", ".", *RETRY)
    assert code == 2
    assert "--retries is only for calls of functions" in stderr


def test_a_pipeline_file_of_a_stream_is_run_with_retries(stream, records):
    """The option says how to run the stream: no key of the file has its meaning."""
    (records / "e.jsonl").write_text('{"n": 1, "timestamp": 1767225600}\n')
    (records / "p.toml").write_text(
        'name = "p"\n[source]\ntype = "file"\npath = "e.jsonl"\n[window]\nspec = "tumbling:5s"\n'
        '[[transform]]\ntype = "call"\nfunction = "fn.py:returned"\n'
    )
    code, _, stderr = stream("p.toml")
    assert (code, tries(records, 1)) == (1, 1)
    assert "Error: the only event was rejected: ConnectionResetError" in stderr
    code, [window], stderr = stream("p.toml", *RETRY)
    assert (code, window["aggregates"], tries(records, 1)) == (0, {"count": 1}, 3)
    assert "  retries  1 after temporary failures" in stderr


# Files


def test_a_real_error_of_the_device_is_tried_again(run, files):
    folder = files({"in/a.json": "1"})
    (folder / "in/b.json").symlink_to("/proc/self/mem")  # a read at offset 0 raises EIO
    outcome = run("in", "missing.json", "-o", "json", *RETRY)
    assert {failure["file"]: failure["message"] for failure in outcome.json["failures"]} == {
        "in/b.json": "Input/output error (tried 3 times)",
        "missing.json": "no such file",
    }
    assert outcome.json["retries"] == 2
    assert outcome.json["files"]["succeeded"] == 1


def test_so_it_is_where_functions_are_async(run, records):
    (records / "b.json").symlink_to("/proc/self/mem")
    outcome = run("a.jsonl", "b.json", "--call", "fn.py:awaited", "-o", "json", *RETRY)
    [failure] = outcome.json["failures"]
    assert failure["message"] == "Input/output error (tried 3 times)"
    assert outcome.json["retries"] == 6 + 2


class Flaky:
    """`os.read` and `os.readv`, with every other call failing."""

    def __init__(self, monkeypatch):
        self.calls = 0
        for name in ("read", "readv"):
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))

    def _failing(self, read):
        def flaky(*arguments):
            self.calls += 1
            if self.calls % 2:
                raise eio()
            return read(*arguments)

        return flaky


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_read_in_the_midst_of_a_file_goes_on_where_it_was(files, monkeypatch, name):
    lines = "".join(f'{{"n": {n}, "hash": "{hash(str(n))}"}}\n' for n in range(200_000)).encode()
    text = gzip.compress(lines, 1) if name.endswith(".gz") else lines
    path = files({name: text}) / name
    monkeypatch.setattr(content, "FIRST_READ_BYTES", 1 << 20)
    flaky = Flaky(monkeypatch)
    # A retry reads the head again from the start. In several calls it would always fail, because
    # every other call fails. So one call reads it.
    work = CountTask(FileWorkSettings(retries=Retries(9, 0.0)))
    [part] = work(Batch(0, (str(path),)))
    assert part.errors == {}
    assert (part.records, part.bytes) == ([200_000], [len(text)])
    assert part.retries == flaky.calls // 2 > 2


def test_standard_input_is_never_read_again(files, monkeypatch):
    program = (
        "import errno, os\n"
        "from asyncbatch.storage.local import open_with_retries\n"
        "from asyncbatch.core.retry import Retrier, Retries\n"
        "calls, real = [], os.read\n"
        "def read(*arguments):\n"
        "    calls.append(real(*arguments))\n"
        "    if len(calls) == 2:\n"
        "        raise OSError(errno.EIO, 'no')\n"
        "    return calls[-1]\n"
        "os.read = read\n"
        "try:\n"
        "    open_with_retries(Retrier(Retries(2, 0.0)), '-')\n"
        "except OSError as error:\n"
        "    print(len(calls), error.errno == errno.EIO)\n"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(
        command, input=b"[1]", capture_output=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert found.stdout == b"2 True\n"


async def test_the_library_has_it_too(files):
    (files({}) / "a.json").symlink_to("/proc/self/mem")
    [result] = [one async for one in process_files(files({}), retries=1, retry_delay=0.0)]
    assert result.error is not None
    assert result.error.message == "Input/output error (tried 2 times)"


@pytest.mark.parametrize("options", [("--retries", "-1"), ("--retry-delay", "-1")])
def test_what_is_no_number_of_retries(run, files, options):
    files({"a.json": "1"})
    assert run("a.json", *options).code == 2


def test_the_library_for_it_is_loaded_only_if_it_is_needed(files):
    path = files({"a.json": "1"}) / "a.json"
    program = (
        "import sys\n"
        "from asyncbatch.storage.local import open_with_retries\n"
        "from asyncbatch.core.retry import Retrier, Retries\n"
        f"open_with_retries(Retrier(Retries()), {str(path)!r})\n"
        "print('tenacity' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, check=True, env={"PYTHONPATH": str(ROOT)})
    assert found.stdout == b"False\n"


# The retrier


def failing(*errors):
    """Return a function that raises one of the errors per call, then returns 7."""
    left = list(errors)

    def function():
        if left:
            raise left.pop(0)
        return 7

    return function


def test_waits_double_and_differ():
    slept: list[float] = []
    for _ in range(20):
        retrier = Retrier(Retries(4, 1.0), slept.append)
        assert retrier.call(failing(*[eio() for _ in range(4)])) == 7
        assert retrier.take_retry_count() == 4
        assert retrier.take_retry_count() == 0
    for number, least in enumerate((1, 2, 4, 8)):
        waits = slept[number::4]
        assert all(least <= wait <= least + 1 for wait in waits)
        assert len(set(waits)) > 1


def test_waits_do_not_grow_for_ever():
    slept: list[float] = []
    Retrier(Retries(12, 1.0), slept.append).call(failing(*[eio() for _ in range(12)]))
    assert 60 <= max(slept) <= 61


def test_the_last_error_is_raised_with_a_note():
    first, second, third = eio(), eio(), eio()
    with pytest.raises(OSError, match="Input/output") as caught:
        Retrier(AT_ONCE).call(failing(first, second, third))
    assert caught.value is third
    assert attempts_note(third) == " (tried 3 times)"
    assert attempts_note(eio()) == ""


def test_the_caller_may_know_better_what_is_transient():
    retrier = Retrier(AT_ONCE)
    busy = KeyError("busy")
    assert retrier.call(failing(busy), lambda error: error is busy) == 7
    with pytest.raises(KeyError):
        retrier.call(failing(busy))


async def test_async_retries_end_with_their_task():
    calls, called = 0, asyncio.Event()

    async def slow():
        nonlocal calls
        calls += 1
        called.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Retrier(AT_ONCE).call_async(slow))
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == 1


def of(error, *, context=None, cause=None):
    """Return an error with another one as its context, or its cause."""
    error.__context__, error.__cause__ = context or cause, cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (eio(), True),
        (OSError(errno.ESTALE, "stale"), True),
        (BlockingIOError(errno.EAGAIN, "busy"), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), True),
        (socket.gaierror(socket.EAI_AGAIN, "name server"), True),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (IsADirectoryError(errno.EISDIR, "folder"), False),
        (OSError(errno.ENOSPC, "full"), False),
        (ValueError("no"), False),
        (OSError("who knows"), False),
        (of(URLError("x"), context=ConnectionResetError()), True),
        (of(RuntimeError("x"), cause=TimeoutError()), True),
        (of(RuntimeError("x"), context=TimeoutError()), False),
        (of(asyncio.CancelledError(), cause=TimeoutError()), False),
    ],
    ids=repr,
)
def test_what_is_transient(error, expected):
    assert is_transient(error) is expected


def test_reading_without_retries_fails_at_once(files, monkeypatch):
    path = files({"a.json": "1"}) / "a.json"
    Flaky(monkeypatch)
    with pytest.raises(OSError, match="Input/output"):
        open_with_retries(Retrier(Retries()), str(path))


HOLDERS = {
    # SQLite itself waits for the lock first.
    "sqlite:///t.db": """
import sqlite3, time
held = sqlite3.connect("t.db", isolation_level=None)
held.execute("create table x (a)")
held.execute("begin immediate")
print(flush=True)
time.sleep(1)
held.close()
""",
    # The lock is held until the next attempt: each one opens the file, at most four times.
    "duckdb:///t.duckdb": """
import ctypes, duckdb, os
held = duckdb.connect("t.duckdb")
system = ctypes.CDLL(None)
watch, opened = system.inotify_init(), 0x20
system.inotify_add_watch(watch, b"t.duckdb", opened)
print(flush=True)
events = 0
while events < 6:
    events += len(os.read(watch, 1024)) // 16
held.close()
""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="watches a file by inotify")
@pytest.mark.parametrize("target", HOLDERS)
def test_a_database_that_another_process_is_at_is_tried_again(run, files, target):
    folder = files({"in/1.json": '{"a": 1}'})
    command = [sys.executable, "-c", HOLDERS[target]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        options = ("--retries", "30", "--retry-delay", "0.1", "-o", "json")
        outcome = run("in", "--to", target, "--table", "t", *options)
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["records"]["written"] == 1
    assert outcome.json["retries"] > 0 or target.startswith("sqlite")
