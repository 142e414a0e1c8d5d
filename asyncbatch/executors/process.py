"""The engine for large jobs: worker processes, each behind a pair of sockets.

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
from collections import deque
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
main{descriptors!r}
"""
_STDERR = 2
_EXIT_SECONDS = 5.0
"""How long a killed worker may take to be gone (one in a device's hands may not be)."""


class WorkerProcess:
    """A lane into a worker, which is started again whenever it is found dead.

    Several batches may be sent to it at a time; they wait in its socket for their turn.
    """

    def __init__(self, make_work: WorkFactory, *, reads_stdin: bool) -> None:
        self._turn = asyncio.Lock()
        self._queue: deque[Batch] = deque()  # in the order of turns; sent while there is a process
        self._hello = frame(make_work)
        self._stdin = None if reads_stdin else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._closing: asyncio.StreamWriter

    @property
    def pid(self) -> int | None:
        """The process number, or None while there is no process."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process, in place of one that died."""
        # Two sockets, since an error of writing to a dead worker would end the reading of
        # what it had still to say.
        requests, replies = socket.socketpair(), socket.socketpair()
        with requests[1], replies[1]:
            process = self._spawn(requests[1].fileno(), replies[1].fileno())
        try:
            _, self._writer = await asyncio.open_connection(sock=requests[0])
            self._reader, self._closing = await asyncio.open_connection(sock=replies[0])
        except BaseException:
            process.kill()
            raise
        self._writer.write(self._hello)
        for batch in self._queue:  # those that were sent to one that died
            self._writer.write(frame(batch))
        self._process = process

    def _spawn(self, *descriptors: int) -> subprocess.Popen[bytes]:
        program = _PROGRAM.format(path=sys.path, descriptors=descriptors)
        # Blocked signals stay so across exec: no stop signal can hit a worker that has not
        # yet got round to ignoring it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", program],
                stdin=self._stdin,
                stdout=_STDERR,  # what user code prints must not mix with results
                pass_fds=descriptors,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield what becomes of `batch`, when those sent before it are done; see `Lane.run`."""
        self._queue.append(batch)
        if self._process is not None:
            self._writer.write(frame(batch))
        try:
            async with self._turn:
                if self._process is None:
                    await self.start()
                while (part := await self._receive()) is not None:
                    yield part
        finally:
            self._queue.remove(batch)

    async def _receive(self) -> Part | None:
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
        self._closing.close()
        exited = process.poll()
        if exited is None:
            process.kill()
            process.wait(_EXIT_SECONDS)
        code = process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


class ProcessEngine:
    """Worker processes; each is a lane, several times over if there are more lanes."""

    def __init__(self, workers: Sequence[WorkerProcess], count: int) -> None:
        self._workers = workers
        self.lanes: Sequence[Lane] = [workers[number % len(workers)] for number in range(count)]

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
