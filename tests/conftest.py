"""What many tests need: the command as a process, and folders of files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import settings

from asyncbatch.core.system import usable_cpus
from asyncbatch.formats.decoder import allow_deep_nesting
from tests.commands import (
    COMMAND,
    PATIENCE,
    ROOT,
    CommandProcess,
    environment,
    run_command,
    run_command_text,
)

if TYPE_CHECKING:
    from tests.servers.dask import DaskCluster
    from tests.servers.postgres import PostgresServer
    from tests.servers.s3 import S3Server

settings.register_profile("anywhere", deadline=None)  # no test depends on a machine's speed
# CI has the same examples each time, and a limit of time; `make test` elsewhere has new ones.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")

allow_deep_nesting()  # Hypothesis warns of a test that raises the limit of recursion itself

SAMPLE_DATA = ROOT / "sample_data"
# A parent may ignore signals (nohup, cron, `&` in a script). Commands inherit that, and would
# ignore the signals that tests send them.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        is_interrupt = _number == signal.SIGINT
        signal.signal(_number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())

# Tests start hundreds of commands, a third of whose start-up it would be to compile our modules.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".pytest_cache" / "bytecode")


def pytest_sessionfinish() -> None:
    """Remove the state that commands have left, each process of pytest its own."""
    shutil.rmtree(environment()["XDG_STATE_HOME"], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed
def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `-n auto` is: more than there are CPUs, since tests wait a lot."""
    return usable_cpus() + 1


class Outcome(NamedTuple):
    """What a finished command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        report: dict[str, Any] = json.loads(self.stdout)
        return report

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events on stdout, without the summary at the end."""
        lines = [json.loads(line) for line in self.stdout.splitlines()]
        assert lines[-1]["event"] == "summary"
        return lines[:-1]


def python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program text in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**env),
        timeout=PATIENCE,
    )


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Outcome]:
    """Run `asyncbatch run` with arguments, in a folder of its own."""

    def _run(
        *arguments: str | bytes | Path,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        cwd: Path = tmp_path,
    ) -> Outcome:
        if prefix:
            finished = subprocess.run(
                [*prefix, *COMMAND, "run", *arguments], check=False, capture_output=True,
                input=stdin or b"", env=environment(**(env or {})), cwd=cwd, timeout=PATIENCE,
            )  # fmt: skip
        else:
            finished = run_command("run", *arguments, stdin=stdin or b"", env=env, cwd=cwd)
        return Outcome(finished.returncode, finished.stdout.decode(), finished.stderr.decode())

    return _run


@pytest.fixture
def etl(tmp_path):
    """Run `asyncbatch etl` in a folder of its own."""

    def _etl(*arguments):
        return run_command_text("etl", *arguments, cwd=tmp_path)

    return _etl


@pytest.fixture
def files(tmp_path: Path) -> Callable[[Mapping[str, bytes | str]], Path]:
    """Write files below a new folder; return the folder."""

    def _files(contents: Mapping[str, bytes | str]) -> Path:
        for name, content in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return _files


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., tuple[int, list[Any], str]]:
    """Run `asyncbatch stream` to its end; return its exit status, its windows, its stderr."""

    def _stream(*arguments, stdin="", env=None):
        text = stdin.encode() if isinstance(stdin, str) else stdin
        finished = run_command("stream", *map(str, arguments), stdin=text, env=env, cwd=tmp_path)
        windows = [json.loads(line) for line in finished.stdout.splitlines()]
        return finished.returncode, windows, finished.stderr.decode()

    return _stream


@pytest.fixture
def live(tmp_path):
    """Start `asyncbatch stream` with pipes."""
    started = []

    def _live(*arguments):
        process = CommandProcess(
            ["stream", *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(), cwd=tmp_path,
        )  # fmt: skip
        started.append(process)
        return process

    yield _live
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, shared by the tests of a process."""
    from tests.servers.postgres import PostgresServer

    found = PostgresServer()
    yield found
    found.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server that speaks S3, shared by the tests of a process."""
    from tests.servers.s3 import S3Server

    with S3Server() as found:
        yield found


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    """The server that speaks S3, without buckets and counting from none."""
    s3_server.clear()
    return s3_server


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[DaskCluster]:
    """A Dask cluster, shared by the tests of a process."""
    from tests.servers.dask import DaskCluster

    found = DaskCluster()
    yield found
    found.close()


@pytest.fixture
def cluster(dask_cluster: DaskCluster, s3_server: S3Server) -> DaskCluster:
    """The cluster with two workers, which have credentials for the store, but not its address."""
    env = {name: value for name, value in s3_server.environment.items() if "ENDPOINT" not in name}
    dask_cluster.restore(1, 2, **env)
    return dask_cluster


def many(count: int, content: str = '{"a": 1}') -> dict[str, str]:
    """Return `count` good files."""
    return {f"{number:05}.json": content for number in range(count)}
