"""The command, in processes that fork from one that has imported its modules.

A cold start takes 0.2 s of processor time, of the command and of each of its workers, and the suite
runs thousands of commands. Tests of the start itself, of signals and of kills use `COMMAND`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.workers import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "asyncbatch")
# Seconds after which a command counts as hanging, also on a busy machine.
PATIENCE = 300
# Variables that an interpreter reads at its start, which a forked one has behind it.
_START_VARIABLES = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
_start_program = spawn.start_program
_fork_server = multiprocessing.get_context("forkserver")
_fork_server.set_forkserver_preload([__name__, "tests.preload"])


def environment(**more: str) -> dict[str, str]:
    """Return the environment for a command: ours, less the variables that change its looks."""
    changing = {"CI", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS"}
    changing.add("PYTHONUNBUFFERED")  # users' output has buffers, which hide faults
    changing.add("PYTEST_CURRENT_TEST")  # with a long parameter, it is too long for a command
    kept = {name: value for name, value in os.environ.items() if name not in changing}
    state = os.path.join(tempfile.gettempdir(), f"asyncbatch-tests-{os.getpid()}")
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", "XDG_STATE_HOME": state, **more}


class Surroundings(NamedTuple):
    """The state that a process has from its parent."""

    folder: str
    variables: dict[str, str]
    search_path: list[str]
    umask: int
    is_new_session: bool


class CommandProcess(subprocess.Popen[Any]):
    """A started `asyncbatch`: `Popen`, whose child is a fork of the process with our modules.

    Its arguments are those of `asyncbatch`. Variables that an interpreter reads at its start have
    no effect.
    """

    _process: BaseProcess

    def _execute_child(self, args: Sequence[str | bytes | Path], *others: Any) -> None:
        # The parameters of the base class that follow are those of its `__init__`, in their order.
        cwd, env, pipes, is_new_session = others[4], others[5], others[9:15], others[20]
        given = [pipes[0], pipes[3], pipes[5]]  # the child's ends, or -1 for ours
        theirs = [
            Connection(os.dup(standard if pipe == -1 else pipe), writable=bool(standard))
            for standard, pipe in enumerate(given)
        ]
        words = [os.fsdecode(os.fsencode(argument)) for argument in args]
        variables = dict(os.environ if env is None else env)
        place = Surroundings(
            os.fspath(cwd or os.getcwd()), variables, _search_path(), _umask(), is_new_session
        )
        is_ready, ready = _fork_server.Pipe(duplex=False)
        self._process = process = _fork_server.Process(
            target=_become_command, args=(words, place, theirs, ready)
        )
        process.start()
        for connection in (*theirs, ready):
            connection.close()
        with is_ready:
            is_ready.poll(PATIENCE)  # until the child has closed its end
        assert process.pid is not None
        self.pid, self._child_created = process.pid, True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # the child's ends

    def _internal_poll(self, *_unused: object, **_more: object) -> int | None:
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        self._process.join(timeout)
        if self._internal_poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode


def run_command(
    *arguments: str | bytes | Path,
    cwd: Path | str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run `asyncbatch` with arguments to its end."""
    command: Sequence[str | bytes | Path] = arguments
    start: type[subprocess.Popen[Any]] = CommandProcess
    if any(name.startswith(_START_VARIABLES) for name in env or ()):
        command, start = [*COMMAND, *arguments], subprocess.Popen
    pipe = subprocess.PIPE
    with start(
        command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=environment(**(env or {}))
    ) as running:
        try:
            outputs = running.communicate(stdin, timeout=PATIENCE)
        finally:
            running.kill()
    return subprocess.CompletedProcess(command, running.returncode, *outputs)


def run_command_text(
    *arguments: str | Path,
    cwd: Path | str,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `asyncbatch` with arguments to its end; its input and outputs are text."""
    finished = run_command(*arguments, cwd=cwd, stdin=(stdin or "").encode(), env=env)
    texts = finished.stdout.decode(), finished.stderr.decode()
    return subprocess.CompletedProcess(finished.args, finished.returncode, *texts)


def _umask() -> int:
    """Return the umask of this process, which a test may have changed."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


@cache
def _search_path() -> list[str]:
    """Return the search path of a cold start, without the current folder."""
    program = "import sys; print(*sys.path[1:], sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT,
        env=environment(),
    )  # fmt: skip
    return found.stdout.splitlines()


def _become_command(
    arguments: list[str], place: Surroundings, streams: list[Connection], ready: Connection
) -> None:
    """Turn this process, a new fork, into the command."""
    for descriptor, stream in enumerate(streams):
        os.dup2(stream.fileno(), descriptor)
        stream.close()
    if place.is_new_session:
        os.setsid()
    os.chdir(place.folder)
    os.umask(place.umask)
    os.environ.clear()
    os.environ.update(place.variables)
    sys.argv = ["asyncbatch", *arguments]
    sys.path[:] = [place.folder, *place.search_path]  # as `python -m` has it
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - they stay open
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115 - as above
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]  # a new interpreter's
    ready.close()
    spawn.start_program = _start_worker
    runpy.run_module("asyncbatch", run_name="__main__", alter_sys=True)


def _start_worker(descriptors: spawn.Descriptors, *, reads_stdin: bool) -> spawn.ChildProcess:
    """Start a worker by a fork, or by a cold start where threads make a fork unsafe."""
    if spawn.has_one_thread():
        return spawn.ForkedProcess(descriptors, reads_stdin=reads_stdin)
    return _start_program(descriptors, reads_stdin=reads_stdin)
