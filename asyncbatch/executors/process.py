"""The engine for large jobs: worker processes, each behind a socket.

Workers are started as new programs, not forked: the caller may have threads, and a worker
imports only what it needs. A worker that dies loses its current batch and nothing else.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from asyncbatch.errors import WorkerBugError
from asyncbatch.executors.lanes import WorkerLostError
from asyncbatch.executors.wire import LENGTH_BYTES, STOP_SIGNALS, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncbatch.executors.lanes import Lane, WorkFactory
    from asyncbatch.records import Batch, Part

_PROGRAM = """\
import sys
sys.path[:] = {path!r}
from asyncbatch.executors.worker import main
main({descriptor})
"""
_STDERR = 2
_EXIT_SECONDS = 5.0
"""How long a killed worker may take to be gone (one in a device's hands may not be)."""


class WorkerProcess:
    """A worker, started again whenever it is found dead. Several lanes may share it."""

    def __init__(self, make_work: WorkFactory, *, reads_stdin: bool) -> None:
        self.turn = asyncio.Lock()
        """Held by the lane whose batch the worker is at; lanes queue up in order of sending."""
        self.generation = 0
        """Counts the starts: what was sent to an earlier one is gone."""
        self._hello = frame(make_work)
        self._stdin = None if reads_stdin else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @property
    def pid(self) -> int | None:
        """The process number, or None while there is no process."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process, in place of one that died."""
        ours, theirs = socket.socketpair()
        with theirs:
            program = _PROGRAM.format(path=sys.path, descriptor=theirs.fileno())
            # Blocked signals stay so across exec: no stop signal can hit a worker that
            # has not yet got round to ignoring it.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            try:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - a few ms; our own program
                    [sys.executable, "-c", program],
                    stdin=self._stdin,
                    stdout=_STDERR,  # what user code prints must not mix with results
                    pass_fds=[theirs.fileno()],
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._writer.write(self._hello)
        self.generation += 1

    def send(self, batch: Batch) -> int:
        """Send a batch; return the generation that it went to."""
        self._writer.write(frame(batch))
        return self.generation

    async def receive(self) -> Part | None:
        """Return the next part, None at a batch's end. Raises WorkerLostError, WorkerBugError."""
        try:
            header = await self._reader.readexactly(LENGTH_BYTES)
            body = await self._reader.readexactly(int.from_bytes(header))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WorkerLostError(self.kill()) from None
        message: Any = pickle.loads(body)  # noqa: S301 - our own process
        if isinstance(message, str):
            raise WorkerBugError(message)
        part: Part | None = message
        return part

    def kill(self) -> str:
        """End the process at once, if it has not ended; return how it ended."""
        if self._process is None:
            return "is not running"
        process, self._process = self._process, None
        self._writer.close()
        exited = process.poll()
        if exited is None:
            process.kill()
            process.wait(_EXIT_SECONDS)
        code = process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


class ProcessLane:
    """Runs batches in a worker process; a batch waits in the worker's socket for its turn."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield what becomes of `batch`; see `Lane.run`."""
        worker = self._worker
        if worker.pid is None:
            await worker.start()
        generation = worker.send(batch)
        async with worker.turn:
            if worker.pid is None:
                await worker.start()
            if generation != worker.generation:
                worker.send(batch)
            while (part := await worker.receive()) is not None:
                yield part


class ProcessEngine:
    """Worker processes, and lanes spread evenly over them."""

    def __init__(self, workers: Sequence[WorkerProcess], count: int) -> None:
        self._workers = workers
        self.lanes: Sequence[Lane] = [
            ProcessLane(workers[number % len(workers)]) for number in range(count)
        ]

    @property
    def pids(self) -> Sequence[int]:
        """The workers' process numbers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]


@asynccontextmanager
async def process_engine(
    make_work: WorkFactory, workers: int, count: int, *, reads_stdin: bool = False
) -> AsyncIterator[ProcessEngine]:
    """Provide `count` lanes over up to `workers` processes; kill these at the end.

    `reads_stdin` hands our standard input on to the workers.
    """
    processes = [
        WorkerProcess(make_work, reads_stdin=reads_stdin) for _ in range(min(workers, count))
    ]
    try:
        for process in processes:
            await process.start()
        yield ProcessEngine(processes, count)
    finally:
        for process in processes:
            process.kill()
