"""A cluster of real processes: the same results as a local run, also after crashes."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing

import psutil
import pytest

from tests.commands import COMMAND, PATIENCE, CommandProcess, environment, run_command_text
from tests.conftest import python
from tests.processes import wait_until
from tests.servers.api import ApiServer
from tests.servers.dask import DaskCluster

pytestmark = pytest.mark.xdist_group("dask")  # one cluster for all

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 900}}}
FUNCTIONS = """
import os, signal, time
from helpers import doubled

def twice(record):
    return {"n": record["n"], "twice": doubled(record["n"])}

def refuses(record):
    if record["n"] % 100 == 7:
        raise ValueError(f"no {record['n']}")
    return [record, None, record]

def passes(record):
    return record

def tells(record):
    with open(f"told-{os.getpid()}", "a") as stream:
        stream.write("x")
    if not os.path.exists("quick"):
        time.sleep(0.01)
    return record

def is_fatal(record):
    return os.kill(os.getpid(), signal.SIGKILL) if record["n"] == 250 else record

def hangs(record):
    if record["n"] != 250:
        return record
    with open("hung", "w") as stream:
        stream.write(str(os.getpid()))
    time.sleep(1000)
"""


@pytest.fixture
def own_cluster():
    """A cluster that a test may break."""
    found = DaskCluster()
    yield found
    found.close()


@pytest.fixture
def inputs(files):
    """1,000 records in 40 files, in several forms; a few files are bad."""
    contents = {}
    for start in range(0, 1000, 25):
        lines = [json.dumps({"n": n, "text": "ä" * (n % 50)}) for n in range(start, start + 25)]
        if start % 3:
            contents[f"in/{start // 200}/{start:04}.json"] = f"[{','.join(lines)}]"
        else:
            contents[f"in/{start // 200}/{start:04}.jsonl"] = "\n".join(lines)
    bad = {"in/0/cut-off.json": "[1, 2", "in/2/bad.jsonl": '{"n": 1}\nbad\n{"n": 2}\n'}
    code = {"code/fn.py": FUNCTIONS, "code/helpers.py": "def doubled(n):\n    return 2 * n\n"}
    return files({**contents, **bad, **code, "in/4/empty.json": "", "s.json": json.dumps(SCHEMA)})


def summary(report):
    """Return the parts of a report that do not depend on speed or engine."""
    varying = {"run_id", "started_at", "elapsed_s", "rates", "peak_memory_bytes", "slowest_files"}
    varying |= {"dask"}
    return {name: value for name, value in report.items() if name not in varying}


def events(lines):
    return Counter(re.sub(r'"elapsed_ms":[0-9.]+', "", line) for line in lines.splitlines()[:-1])


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(path, columns="n"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {columns} FROM t ORDER BY rowid").fetchall()


JOBS = {
    "counted": (),
    "tiny batches": ("-b", "3", "--to", "out.jsonl"),
    "jq": ("--jq", "select(.n % 3 == 0) | {n}, {n: -.n}", "--to", "out.csv"),
    "schema": ("--schema", "s.json", "--to", "out.jsonl.gz", "--dead-letter", "bad.jsonl"),
    "function": ("--call", "code/fn.py:twice", "--to", "out.jsonl"),
    "rejecting": ("--call", "code/fn.py:refuses", "--dead-letter", "bad.jsonl", "-v"),
    "folder": ("--call", "code/fn.py:twice", "--to", "out/"),
    "killed": ("--call", "code/fn.py:is_fatal", "--to", "out.jsonl"),
    "late": ("--call", "code/fn.py:hangs", "--timeout", "1", "--to", "out/"),
    "budget": ("--max-failures", "50%", "--call", "code/fn.py:refuses", "--to", "-"),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_cluster_gives_what_this_machine_gives(cluster, run, inputs, job):
    """Results, their order, failures, reports and exit codes are those of a local run."""
    found = []
    outputs = ("out", "out.jsonl", "out.jsonl.gz", "out.csv", "bad.jsonl")
    for engine in (("-w", "2"), ("--engine", "dask", "--scheduler", cluster.address)):
        report = ("--report", "r.json", "--report", "r.jsonl")
        form = () if "-" in JOBS[job] else ("-o", "json")
        outcome = run("in", *JOBS[job], *engine, *report, *form)
        told = json.loads((inputs / "r.json").read_text())
        written: dict[str, bytes] = {}
        for name in outputs:
            path = inputs / name
            written |= contents(path) if path.is_dir() else {}
            written |= {name: path.read_bytes()} if path.is_file() else {}
            subprocess.run(["rm", "-rf", path], check=True)
        if not form:
            written["-"] = outcome.stdout.encode()
        said = sorted(line for line in outcome.stderr.splitlines() if line.startswith("rejected"))
        results = events((inputs / "r.jsonl").read_text())
        found.append((outcome.code, summary(told), results, written, said))
    assert found[0] == found[1]
    assert told["dask"]["workers"] == 2
    assert told["dask"]["threads"] == 3
    assert "Dask: 2 workers, 3 threads; dashboard http://127.0.0.1:" in outcome.stderr
    assert "distributed" not in outcome.stderr


def test_a_cluster_profiles_as_this_machine_does(cluster, inputs):
    found = []
    for engine in (("-w", "2"), ("--engine", "dask", "--scheduler", cluster.address)):
        ended = run_command_text("profile", "in", "-o", "json", *engine, cwd=inputs)
        report = json.loads(ended.stdout)
        found.append((ended.returncode, report["records"], report["profile"]))
    assert found[0] == found[1]
    assert found[0][2]["fields"]


def test_huge_files_are_cut_and_streamed_in_the_cluster(cluster, run, files):
    lines = "".join(f'{{"n": {n}, "text": "{"x" * 1000}"}}\n' for n in range(35_000))
    folder = files({
        "in/a.jsonl": lines,
        "in/b.jsonl.gz": gzip.compress(lines.encode(), 1),
        "in/c.json": f"[{lines.replace('}', '},', 34_999)}]",
    })  # fmt: skip
    found = []
    for engine in (("-w", "2"), ("--engine", "dask", "--scheduler", cluster.address)):
        outcome = run("in", "--jq", "{n}", *engine, "--to", "o.jsonl", "-o", "json")
        found.append((outcome.code, summary(outcome.json), (folder / "o.jsonl").read_bytes()))
    assert found[0] == found[1]
    assert outcome.json["records"]["written"] == 105_000
    assert outcome.json["dask"]["tasks"] > 10


def test_a_ledger_is_kept_alike(cluster, run, inputs):
    """The local engine and Dask each process one half, and no file twice."""
    dask = ("--engine", "dask", "--scheduler", cluster.address)
    options = ("--to", "sqlite:///o.db", "--table", "t", "--resume", "-o", "json")
    assert run("in/0", "in/1", "in/2", *options).code == 1
    outcome = run("in", *options, *dask)
    files = outcome.json["files"]
    assert files["skipped"] == 25
    assert files["succeeded"] == 16
    assert run("in", *options, *dask).json["records"]["written"] == 0
    found = Counter(n for (n,) in rows(inputs / "o.db"))
    assert found == Counter([*range(1000), 1, 2])


def start(folder, *arguments):
    return CommandProcess(
        ["run", *arguments],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(folder):
    return sum(path.stat().st_size for path in folder.glob("told-*"))


def test_a_worker_that_is_killed_costs_nothing(cluster, run, inputs):
    """A worker leaves midway, while another joins."""
    victim = cluster.worker(threads=2)
    dask = ("--engine", "dask", "--scheduler", cluster.address)
    options = ("--call", "code/fn.py:tells", "-b", "2", "--to", "o.jsonl", "-o", "json")
    process = start(inputs, "in", *options, *dask)
    wait_until(lambda: told(inputs) > 100)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    wait_until(lambda: told(inputs) > 200)
    another = cluster.worker(threads=2)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    cluster.end(another)
    assert process.returncode == 1  # for the bad files
    report = json.loads(stdout)
    assert report["records"]["written"] == 1002
    assert {failure["kind"] for failure in report["failures"]} == {"invalid_json", "empty"}
    assert report["dask"]["workers_left"] == 1
    assert "has left, 2 remain" in stderr
    expected = (inputs / "o.jsonl").read_bytes()
    assert run("in", "--call", "code/fn.py:passes", "--to", "o.jsonl").code == 1
    assert (inputs / "o.jsonl").read_bytes() == expected


def test_a_scheduler_that_is_killed_ends_the_run_and_loses_nothing(own_cluster, run, inputs):
    own_cluster.worker()
    dask = ("--engine", "dask", "--scheduler", own_cluster.address)
    options = ("--call", "code/fn.py:tells", "-b", "2", "--to", "sqlite:///o.db", "--table", "t")
    process = start(inputs, "in", *options, "--load-batch", "50", *dask)
    wait_until(lambda: told(inputs) > 300)
    own_cluster.scheduler.kill()
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Error: cannot continue: the Dask scheduler" in stderr
    assert "Traceback" not in stderr
    assert len(rows(inputs / "o.db")) > 100
    (inputs / "quick").touch()
    assert run("in", *options, "--resume").code == 1
    assert Counter(n for (n,) in rows(inputs / "o.db")) == Counter([*range(1000), 1, 2])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_ends_what_is_in_flight(cluster, inputs, number, code):
    dask = ("--engine", "dask", "--scheduler", cluster.address)
    options = ("--call", "code/fn.py:tells", "-b", "2", "--to", "sqlite:///o.db", "--table", "t")
    process = start(inputs, "in", *options, "-o", "json", "--grace", str(PATIENCE), *dask)
    wait_until(lambda: told(inputs) > 100)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    report = json.loads(stdout)
    assert report["status"] == "interrupted"
    assert len(rows(inputs / "o.db")) == report["records"]["written"]
    assert not report["records"]["written"] % 25
    assert "before the work in flight was done" not in stderr
    wait_until(lambda: not cluster.beside())


@pytest.mark.parametrize("way", ["gives up", "is killed"])
def test_nothing_goes_on_when_the_run_is_gone(cluster, inputs, way):
    """A stop also ends a task that never ends and cannot be cancelled."""
    dask = ("--engine", "dask", "--scheduler", cluster.address)
    options = ("--call", "code/fn.py:hangs", "-b", "1", "--grace", "0.2")
    process = start(inputs, "in", *options, *dask)
    hung = inputs / "hung"
    wait_until(lambda: hung.exists() and hung.read_text())
    process.send_signal(signal.SIGTERM if way == "gives up" else signal.SIGKILL)
    _, stderr = process.communicate(timeout=PATIENCE)
    wait_until(lambda: not psutil.pid_exists(int(hung.read_text())))
    if way == "gives up":
        assert process.returncode == 143
        assert "Stopped after 0.2 s, before the work in flight was done" in stderr
        wait_until(lambda: not cluster.beside())


def test_a_cluster_is_started_if_there_is_none(run, inputs):
    options = ("--engine", "dask", "--no-progress", "--schema", "s.json", "--to", "o.jsonl")
    outcome = run("in", *options, "-w", "2", "-o", "json")
    assert outcome.json["dask"]["workers"] == 2
    assert outcome.json["records"]["rejected"] == 100
    assert outcome.stderr.count("\n") == 1
    expected = (inputs / "o.jsonl").read_bytes()
    assert run("in", *options[2:]).code == 1
    assert (inputs / "o.jsonl").read_bytes() == expected
    assert run("in/3", *options, "-q", env={"CI": "true"}).stderr == ""


def test_workers_that_do_not_see_the_files_are_told(cluster, run, inputs):
    """Each process has its own /proc/self."""
    dask = ("--engine", "dask", "--scheduler", cluster.address)
    outcome = run("/proc/self/cwd/in", *dask, "--to", "sqlite:///o.db", "--table", "t")
    assert outcome.code == 2
    pattern = r"Dask worker tcp://[0-9.:]+ cannot see /proc/self/cwd/in/0/0000.jsonl: No such file"
    assert re.search(pattern, " ".join(outcome.stderr.replace("│", " ").split()))
    assert not (inputs / "o.db").exists()


STUBS = {
    "__version__ = '0.0.1'\n": "has asyncbatch 0.0.1, but this process has ",
    "raise ModuleNotFoundError('No module named asyncbatch')\n": "has no asyncbatch (install ",
}


@pytest.mark.parametrize("stub", STUBS)
def test_workers_with_other_software_are_told(cluster, run, files, stub):
    folder = files({"stub/asyncbatch/__init__.py": stub, "a.json": "1"})
    worker = cluster.worker(PYTHONPATH=str(folder / "stub"))
    outcome = run("a.json", "--engine", "dask", "--scheduler", cluster.address)
    cluster.end(worker)
    assert outcome.code == 2
    assert STUBS[stub] in " ".join(outcome.stderr.split())


def test_pipelines_are_worked_on_in_a_cluster(cluster, etl, inputs):
    api = ApiServer(records=[{"n": n} for n in range(5000, 5100)], size=30)
    pipeline = (
        'name = "people"\n[[source]]\ntype = "files"\npaths = ["in/3"]\n'
        '[[source]]\ntype = "files"\nname = "more"\npaths = ["in/1"]\n'
        '[[source]]\ntype = "http"\nurls = ["URL"]\nrecords = "/items"\n'
        'pagination = { type = "page", pages = "/pages" }\n'
        '[[transform]]\ntype = "call"\nfunction = "code/fn.py:twice"\n'
        '[sink]\nto = "sqlite:///o.db"\ntable = "t"\n'
    )
    dask = ("--engine", "dask", "--scheduler", cluster.address)
    with api:
        (inputs / "p.toml").write_text(pipeline.replace("URL", api.url("/page")))
        finished = etl("p.toml", *dask, "-o", "json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["dask"]["workers"] == 2
    found = sorted(rows(inputs / "o.db", "n, twice"))
    assert found == [(n, 2 * n) for n in (*range(200, 400), *range(600, 800), *range(5000, 5100))]


def test_what_a_cluster_cannot_do_is_said(run, files):
    files({"a.json": "1", "fn.py": "async def f(record): return record\n"})
    dask = ("--engine", "dask")
    for arguments, words in {
        ("a.json", "--scheduler", "tcp://127.0.0.1:1"): "--scheduler needs --engine dask",
        ("-", *dask): "standard input exists only in this one",
        ("a.json", *dask, "-w", "0"): "--workers 0 is not possible",
        ("a.json", *dask, "--call", "fn.py:f"): "functions that exist only in this process",
        ("a.json", *dask, "--scheduler", "tcp://x:1", "-w", "2"): "leave out --workers",
        ("a.json", *dask, "--scheduler", "somewhere"): "write tcp://HOST:8786",
        ("a.json", *dask, "--scheduler", "tcp://127.0.0.1:1"): "no Dask scheduler answers at",
    }.items():
        outcome = run(*arguments)
        assert outcome.code == 2
        assert words in " ".join(re.sub("[│ ]+", " ", outcome.stderr).split()), arguments


def test_what_is_missing_is_said(files):
    folder = files({
        "site/sitecustomize.py": "import sys\nsys.modules['distributed'] = None\n", "a.json": "1",
    })  # fmt: skip
    finished = subprocess.run(
        [*COMMAND, "run", folder / "a.json", "--engine", "dask"],
        check=False,
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=f"{folder}/site:{os.getcwd()}"),
    )
    assert finished.returncode == 2
    assert "pip install 'asyncbatch[dask]'" in finished.stderr


def test_nobody_else_waits_for_dask():
    finished = python(
        "import sys, asyncbatch.pipeline.run, asyncbatch.cli\nprint('dask' in sys.modules)"
    )
    assert finished.stdout == "False\n", finished.stderr
