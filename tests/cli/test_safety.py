"""Files beside the data are never imported, and a local run listens nowhere."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.commands import COMMAND, PATIENCE, CommandProcess, environment
from tests.processes import children, wait_until
from tests.servers.api import ApiServer

# All modules of the standard library, and those of others that are imported at some time.
NAMES = [
    *sorted(sys.stdlib_module_names), "sitecustomize", "usercustomize", "orjson", "msgspec",
    "simdjson", "jq", "typer", "click", "rich", "tenacity", "jsonschema_rs", "aiofiles", "pyarrow",
    "duckdb", "numpy", "pandas", "distributed", "dask", "cloudpickle", "tornado", "aiohttp", "yarl",
    "obstore", "boto3", "asyncpg", "prometheus_client", "watchfiles",
]  # fmt: skip
SCRIPT = ("-P", "-c", "from asyncbatch.cli import main; main()")  # as the installed command
DASK = [] if importlib.util.find_spec("distributed") is None else [("--engine", "dask", "-w", "1")]
RUNS = [
    ("-w", "2", "--to", "out.jsonl"),
    ("-w", "1", "--jq", ".", "--to", "out.csv"),
    ("--schema", "s.schema", "-w", "1", "-o", "junit"),
    ("--to", "sqlite:///out.db", "--table", "t", "--report", "r.md"),
    ("--to", "out.parquet"),
    ("--to", "duckdb:///out.duckdb", "--table", "t"),
    ("--call", "code/fn.py:same", "-w", "1", "--to", "out.jsonl"),
    *DASK,
]


def trap(folder, name):
    (folder / f"{name}.py").write_text(f"open({str(folder / ('IMPORTED-' + name))!r}, 'w')\n")


def imported(folder):
    return sorted(path.name for path in folder.glob("IMPORTED-*"))


@cache
def modules_of_python():
    """Return the modules that `python -m` imports before the first line of a program."""
    program = "import sys; print(*sys.modules)"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.py").write_text(program)
        finished = execute(folder, ("-m", "empty"))
    return set(finished.stdout.split())


@pytest.fixture
def place(files):
    folder = files({f"in/{number}.json": json.dumps({"n": number}) for number in range(20)})
    files({"s.schema": "{}", "code/fn.py": "def same(record):\n    return record\n"})
    files({"events.jsonl": '{"timestamp": "2026-01-01T00:00:00Z"}\n'})
    for name in set(NAMES) - modules_of_python():
        trap(folder, name)
    return folder


def execute(folder, program, *arguments, **env):
    return subprocess.run(
        [sys.executable, *program, *arguments],
        check=False, capture_output=True, text=True, cwd=folder, env=environment(**env),
        timeout=PATIENCE,
    )  # fmt: skip


@pytest.mark.parametrize("program", [("-m", "asyncbatch"), SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_a_run_imports_nothing_that_lies_beside_the_data(program, arguments, place):
    if program is SCRIPT:
        trap(place, "asyncbatch")
        for name in modules_of_python() & set(NAMES):
            trap(place, name)
    finished = execute(place, program, "run", "in", *arguments, "-q")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert imported(place) == []


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_stream_imports_nothing_that_lies_beside_the_data(workers, place):
    finished = execute(
        place, ("-m", "asyncbatch"), "stream", "events.jsonl", "--window", "tumbling:1m",
        "-w", workers, "--jq", ".", "-q",
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.count("\n") == 1
    assert imported(place) == []


def test_call_may_name_a_module_of_the_current_folder(files):
    folder = files({
        "in.json": '{"n": 1}',
        "mine.py": "import helper\n\ndef f(record):\n    return helper.f(record)\n",
        "helper.py": "def f(record):\n    return {'h': record['n']}\n",
    })  # fmt: skip
    how = ("run", "in.json", "--call", "mine:f", "--to", "-", "-q")
    finished = execute(folder, ("-m", "asyncbatch"), *how)
    assert (finished.returncode, finished.stdout) == (0, '{"h":1}\n')


def sockets(pid):
    """Return the inodes of the sockets of a process."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(descriptor)
        except FileNotFoundError:  # closed meanwhile
            continue
        if name.startswith("socket:["):
            found.add(name[len("socket:[") : -1])
    return found


def tree(pid):
    yield pid
    for child in children(pid):
        yield from tree(child)


def listening(pid):
    """Return the addresses, in hexadecimal, at which a process tree listens."""
    inodes = set().union(*map(sockets, tree(pid)))
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                found.add(fields[1].partition(":")[0])
    return found


WAITS = """
import pathlib, time

def waits(record):
    pathlib.Path("waiting").touch()
    while not pathlib.Path("go-on").exists():
        time.sleep(0.01)
    return record
"""
LOOPBACK = "0100007F"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc")
def test_workers_and_files_hold_no_secret_of_the_pipeline_file(files):
    secret, more = "s3cr3t-t0ken", "qu3ry-value"
    with ApiServer([{"n": 1}], size=1) as api:
        folder = files({
            "fn.py": WAITS,
            "p.toml": f"""
                name = "x"
                [[source]]
                name = "api"
                type = "http"
                urls = ["{api.url("/page?page=1")}&token=${{MORE}}"]
                records = "/items"
                auth = {{ type = "bearer", token = "${{SECRET}}" }}
                [[transform]]
                type = "call"
                function = "fn.py:waits"
                [sink]
                to = "sqlite:///out.db"
                table = "t"
            """,
        })  # fmt: skip
        env = environment(XDG_STATE_HOME=str(folder / "state"))
        process = subprocess.Popen(
            [*COMMAND, "etl", "p.toml", "-w", "1", "-q", "-v", "--lock", "--report", "r.json"],
            cwd=folder, env={**env, "SECRET": secret, "MORE": more},
        )  # fmt: skip
        try:
            wait_until((folder / "waiting").exists, running=process)
            (worker,) = children(process.pid)
            seen = Path(f"/proc/{worker}/cmdline").read_bytes()
            seen += b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
            variables = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
            ours = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            assert set(variables) <= set(ours)
            (folder / "go-on").touch()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait(PATIENCE)
        assert api.seen[0].headers["Authorization"] == f"Bearer {secret}"
    seen += b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"asyncbatch.workers.main" in seen
    assert secret.encode() not in seen
    assert more.encode() not in seen


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc")
@pytest.mark.parametrize("arguments", [("-w", "2"), *DASK], ids=" ".join)
def test_a_local_run_listens_nowhere_and_a_cluster_of_its_own_on_loopback_only(files, arguments):
    folder = files({"in/a.json": "{}", "fn.py": WAITS})
    process = CommandProcess(
        ["run", "in", "--call", "fn.py:waits", *arguments, "-q"],
        cwd=folder, env=environment(),
    )  # fmt: skip
    try:
        wait_until((folder / "waiting").exists, running=process)
        found = listening(process.pid)
        assert found == ({LOOPBACK} if "dask" in arguments else set())
        (folder / "go-on").touch()
        assert process.wait(PATIENCE) == 0
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
