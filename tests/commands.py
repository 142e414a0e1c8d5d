"""The command, in processes that fork from one that has imported its modules.

A cold start takes 0.2 s of processor time, and the suite runs thousands of commands. Tests of the
start itself, of signals and of kills use `COMMAND`.
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
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "asyncbatch")
# Seconds after which a command counts as hanging, also on a busy machine.
PATIENCE = 300
# Variables that an interpreter reads at its start, which a forked one has behind it.
_START_VARIABLES = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
_PRELOADED = (
    "asyncbatch.cli.app",
    "asyncbatch.cli.file_job",
    "asyncbatch.cli.stream_work",
    "asyncbatch.pipeline.run",
    "asyncbatch.workers.tasks.transform",
    "asyncbatch.sinks.text_files",
    "asyncbatch.state.ledger.file",
)

_fork_server = multiprocessing.get_context("forkserver")
_fork_server.set_forkserver_preload([*_PRELOADED, __name__])


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


def run_command(
    *arguments: str | bytes | Path,
    cwd: Path | str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run `asyncbatch` with arguments to its end."""
    # Plain texts: those of a subclass may not be pickled.
    words = [os.fsdecode(os.fsencode(argument)) for argument in arguments]
    if any(name.startswith(_START_VARIABLES) for name in env or ()):
        return subprocess.run(
            [*COMMAND, *words], check=False, capture_output=True, input=stdin, cwd=cwd,
            env=environment(**(env or {})), timeout=PATIENCE,
        )  # fmt: skip
    pipes = [os.pipe() for _ in range(3)]
    theirs = [Connection(pipe[0 if number == 0 else 1]) for number, pipe in enumerate(pipes)]
    place = Surroundings(os.fspath(cwd), environment(**(env or {})), _search_path(), _umask())
    process = _fork_server.Process(target=_become_command, args=(words, place, theirs))
    process.start()
    for connection in theirs:
        connection.close()
    outputs = [_Reader(pipe[0]) for pipe in pipes[1:]]
    try:
        _write(pipes[0][1], stdin)
        process.join(PATIENCE)
        if process.exitcode is None:
            raise subprocess.TimeoutExpired(words, PATIENCE)
        texts = [output.text() for output in outputs]
        return subprocess.CompletedProcess(words, process.exitcode, *texts)
    finally:
        process.kill()
        process.join()
        process.close()


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


class _Reader(Thread):
    """A thread that reads a pipe to its end."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._text = b""
        self.start()

    def run(self) -> None:
        """Read until every process has closed the other end."""
        with open(self._descriptor, "rb") as pipe:
            self._text = pipe.read()

    def text(self) -> bytes:
        """Return all bytes."""
        self.join(PATIENCE)
        assert not self.is_alive(), "a process that has outlived the command has its output open"
        return self._text


def _write(descriptor: int, text: bytes) -> None:
    """Write a command's standard input; it need not read all."""
    with open(descriptor, "wb", buffering=0) as pipe:
        view = memoryview(text)
        try:
            while view:
                view = view[pipe.write(view) :]
        except BrokenPipeError:
            return


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


def _become_command(arguments: list[str], place: Surroundings, streams: list[Connection]) -> None:
    """Turn this process, a new fork, into the command."""
    for descriptor, stream in enumerate(streams):
        os.dup2(stream.fileno(), descriptor)
        stream.close()
    os.chdir(place.folder)
    os.umask(place.umask)
    os.environ.clear()
    os.environ.update(place.variables)
    sys.argv = ["asyncbatch", *arguments]
    sys.path[:] = [place.folder, *place.search_path]  # as `python -m` has it
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - they stay open
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115 - as above
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]  # a new interpreter's
    runpy.run_module("asyncbatch", run_name="__main__", alter_sys=True)
