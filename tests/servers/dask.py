"""A Dask cluster of real processes on loopback, for tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import IO, TypeAlias

import psutil

from tests.commands import PATIENCE, environment
from tests.processes import wait_until

Process: TypeAlias = "subprocess.Popen[bytes]"


class DaskCluster:
    """A scheduler, and workers that are started and killed one by one.

    They are somewhere else in the file system, and find this package like any other's.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="asyncbatch-dask-")
        self.folder = Path(self._folder.name)
        file = self.folder / "scheduler.json"
        options = (
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--dashboard-address",
            "127.0.0.1:0",
            "--no-show",
        )
        self.scheduler = self._start("dask_scheduler", *options, "--scheduler-file", str(file))
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        self.address: str = json.loads(file.read_text())["address"]
        self.workers: list[Process] = []
        self._threads: dict[int, int] = {}

    def worker(self, *, threads: int = 1, **env: str) -> Process:
        """Start a worker, and wait until it has joined."""
        number = len(self.workers)
        file = self.folder / f"worker-{number}.log"
        options = (
            "--nthreads",
            str(threads),
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            "0",
        )
        with file.open("wb") as log:
            worker = self._start(
                "dask_worker",
                *(
                    self.address,
                    *options,
                    "--memory-limit",
                    "0",
                    "--local-directory",
                    str(self.folder),
                ),
                log=log,
                **env,
            )
        self.workers.append(worker)
        self._threads[worker.pid] = threads
        wait_until(lambda: b"Registered to" in file.read_bytes())
        return worker

    def restore(self, *threads: int, **env: str) -> None:
        """Have workers with these numbers of threads and no others, whatever a test has ended."""
        missing = Counter(threads)
        for worker in self.workers:
            if worker.poll() is None:
                if missing[self._threads[worker.pid]]:
                    missing[self._threads[worker.pid]] -= 1
                else:
                    self.end(worker)
        for count in missing.elements():
            self.worker(threads=count, **env)

    def _start(
        self, module: str, *options: str, log: IO[bytes] | None = None, **env: str
    ) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *options],
            cwd=self.folder,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.DEVNULL,
            stderr=log or subprocess.DEVNULL,
        )

    def beside(self) -> list[psutil.Process]:
        """Return the processes that the workers have started."""
        found: list[psutil.Process] = []
        for worker in self.workers:
            if worker.poll() is None:
                found += psutil.Process(worker.pid).children()
        return found

    def end(self, worker: Process) -> None:
        """Have a worker leave."""
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE)

    def close(self) -> None:
        """End everything."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        self._folder.cleanup()
