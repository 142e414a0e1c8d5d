"""The start of workers: copies of the command where that is safe, else new programs."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import COMMAND, environment
from tests.conftest import python
from tests.processes import alive, children, holds_open, open_links, wait_until


@contextmanager
def waiting_run(folder, *arguments):
    """Start a run of two workers that waits for standard input; yield it and its workers."""
    with subprocess.Popen(
        [*COMMAND, "run", "-", "-w", "2", *arguments],
        cwd=folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        wait_until(lambda: len(children(process.pid)) == 2, running=process)
        yield process, children(process.pid)


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def sockets(pid):
    """Return the sockets that a process has open."""
    return [link for link in open_links(pid) if link.startswith("socket:")]


def test_the_workers_of_a_command_are_copies_of_it(tmp_path):
    with waiting_run(tmp_path) as (process, workers):
        wait_until(lambda: all(len(sockets(one)) == 2 for one in workers))
        assert {command_line(one) for one in workers} == {command_line(process.pid)}
        output, _ = process.communicate(b'[{"a": 1}, {"a": 2}]')
    assert b"2 read" in output
    assert process.returncode == 0


def test_copies_keep_only_their_own_descriptors(tmp_path):
    lock = tmp_path / "lock"
    with waiting_run(tmp_path, "--lock", lock) as (process, workers):
        for worker in workers:
            wait_until(lambda one=worker: len(sockets(one)) == 2)
            assert not holds_open(worker, lock)
        assert holds_open(process.pid, lock)
        process.communicate(b"1")


def test_copies_end_with_a_command_that_is_killed(tmp_path):
    with waiting_run(tmp_path) as (process, workers):
        process.kill()
        wait_until(lambda: not any(map(alive, workers)))


def test_the_workers_of_a_function_are_new_programs(files):
    """A user's module may have opened connections, which copies would share."""
    folder = files({"cleaning.py": "def clean(record): return record\n"})
    with waiting_run(folder, "--call", "cleaning:clean") as (process, workers):
        own = command_line(process.pid)  # also that of a worker which is about to start its program
        wait_until(lambda: own not in map(command_line, workers))
        process.communicate(b"1")


THREAD = "from threading import Event, Thread\nThread(target=Event().wait, daemon=True).start()"


@pytest.mark.parametrize(("before", "is_copy"), [("", True), (THREAD, False)])
def test_a_process_with_threads_is_not_copied(before, is_copy):
    finished = python(
        f"{before}\n"
        "import sys\n"
        "from asyncbatch.workers.spawn import ForkedProcess, spawn\n"
        "sys.stdout.write('once ')\n"  # a copy must not write it again
        "handle = spawn(may_fork=True)\n"
        "handle.requests.close()\n"
        "print(isinstance(handle.process, ForkedProcess), handle.process.wait(60))\n"
    )
    assert (finished.stdout, finished.stderr) == (f"once {is_copy} 0\n", "")


def test_the_workers_of_a_library_are_new_programs(files):
    folder = files({f"{number}.json": "1" for number in range(3)})
    finished = python(
        "import asyncio, os, asyncbatch\n"
        "from pathlib import Path\n"
        "async def main():\n"
        f"    results = asyncbatch.process_files({os.fspath(folder)!r}, workers=1)\n"
        "    await anext(results)\n"
        "    me = Path(f'/proc/{os.getpid()}')\n"
        "    (worker,) = (me / f'task/{me.name}/children').read_text().split()\n"
        "    print(Path(f'/proc/{worker}/cmdline').read_bytes() == (me / 'cmdline').read_bytes())\n"
        "    await results.aclose()\n"
        "asyncio.run(main())\n"
    )
    assert finished.stdout == "False\n", finished.stderr
