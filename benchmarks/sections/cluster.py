"""The same job in local processes and on the workers of a Dask cluster."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks import filesets, goals
from benchmarks.corpora import Corpus
from benchmarks.measure import CommandError
from benchmarks.races import CPUS, Agreement, Racer, race
from benchmarks.sections.query import SELECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.setting import Setting

# The number of copies of the mixed corpus, for a job of at least 20 s.
COPIES = 2
SHAPE = "--jq, log-normal sizes"
_START_SECONDS = 60


def use_cluster(setting: Setting) -> None:
    """Compare a jq program on Dask with the local engine; results go to one file in order."""
    if not _has_dask(setting):
        print("left out: asyncbatch's environment has no `distributed` (its extra `dask`)\n")
        return
    with tempfile.TemporaryDirectory() as folder, _cluster(setting, folder) as address:
        corpus = _copies(filesets.mixed(setting), folder)
        local, dask = Agreement("rows"), _Tasks()
        target = setting.output("out.jsonl")
        inputs = corpus.path.split("\n")
        run = [setting.asyncbatch, "run", *inputs, "--jq", SELECT, "--to", target, "-o", "json"]

        def check(output: bytes) -> None:
            report = json.loads(output)
            local.check(report["records"]["written"])
            dask.add(report)

        cluster = [*run, "--engine", "dask", "--scheduler", address]
        racers = [
            Racer(f"asyncbatch --engine dask, {CPUS} workers that run already", cluster, check),
            Racer(f"asyncbatch --engine local, {CPUS} workers", run, check, goals.DASK),
        ]
        race(setting, SHAPE, corpus, racers)
    dask.show(setting)


class _Tasks:
    """The time of the tasks of all timed runs, and the idle time of the threads."""

    def __init__(self) -> None:
        self._tasks, self._busy, self._offered = 0, 0.0, 0.0

    def add(self, report: dict[str, Any]) -> None:
        """Add the tasks of a run, if it had any."""
        if (told := report.get("dask")) is not None:
            self._tasks += told["tasks"]
            self._busy += told["tasks_s"]
            self._offered += told["threads"] * report["elapsed_s"]

    def show(self, setting: Setting) -> None:
        """Print the totals, and add the idle time to the results."""
        idle = self._offered - self._busy
        share, mean = 100 * idle / self._busy, self._busy / self._tasks
        goal = " ".join(setting.results.add(goals.DASK_IDLE, SHAPE, share))
        print(
            f"{self._tasks:,} tasks of {mean:.2f} s; {1000 * idle / self._tasks:.0f} ms between "
            f"two of a thread ({share:.1f}%, start and end of the run included; goal {goal})\n"
        )


def _copies(corpus: Corpus, folder: str) -> Corpus:
    """Return copies of a corpus under other names: the folders, one per line."""
    links = [os.path.join(folder, f"copy-{number}") for number in range(COPIES)]
    for link in links:
        os.symlink(corpus.path, link)
    counts = (corpus.files, corpus.bytes, corpus.records)
    return Corpus("\n".join(links), *(COPIES * count for count in counts))


def _has_dask(setting: Setting) -> bool:
    probe = [setting.asyncbatch_python, "-c", "import distributed"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


@contextmanager
def _cluster(setting: Setting, folder: str) -> Iterator[str]:
    """Run a scheduler, and a worker for each CPU. Provide the address."""
    file = os.path.join(folder, "scheduler.json")
    python = setting.asyncbatch_python
    options = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0", "--no-show")
    processes = [
        _start([python, "-m", "distributed.cli.dask_scheduler", *options, "--scheduler-file", file])
    ]
    try:
        address = _when_ready(file)
        worker = [python, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
        worker += ["--nthreads", "1", "--nworkers", str(CPUS), "--local-directory", folder]
        processes.append(_start(worker))
        count = (
            "import sys; from distributed import Client\n"
            "Client(sys.argv[1]).wait_for_workers(int(sys.argv[2]), timeout=60)\n"
        )
        subprocess.run([python, "-c", count, address, str(CPUS)], check=True, capture_output=True)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)


def _address(file: str) -> str | None:
    try:
        with open(file, encoding="utf-8") as stream:
            return str(json.load(stream)["address"])
    except (OSError, ValueError):  # the file does not exist yet, or is not complete
        return None


def _when_ready(file: str) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while (found := _address(file)) is None:
        if time.monotonic() > deadline:
            raise CommandError("the Dask scheduler does not start")
        time.sleep(0.05)
    return found
