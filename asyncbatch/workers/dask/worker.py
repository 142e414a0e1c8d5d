"""The code inside a Dask worker: it runs batches in separate worker processes.

A Dask worker may have many threads and serve many users for weeks. Our tasks need a process: it has
a current folder and a search path, imports a user's modules as they are today, may crash or be
killed for a timeout, and holds the interpreter's lock while it parses. So each thread has a
process, as in the process engine, with the same guarantees. The processes end with the run, with
the Dask worker, or after some idle time.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.core.batches import Batch
from asyncbatch.errors import AsyncbatchError, NoWorkerError
from asyncbatch.workers.dask.code import CarriedCode, RemoteFactory
from asyncbatch.workers.engine import Loss
from asyncbatch.workers.process import BlockingWorker, ResultPart, TaskCancelledError
from asyncbatch.workers.wire import frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Worker

    from asyncbatch.workers.engine import WorkFactory

# Processes of an idle run end after this time: its main process may have been killed.
IDLE_SECONDS = 30.0
_EXTENSION = "asyncbatch"
_SAME_PATHS = (
    "with --engine dask, inputs and output folders must be at the same paths on all workers, for "
    "example on a shared file system"
)


class WorkerLocation(Struct, frozen=True):
    """The folder of the main process, and files that it sees there."""

    folder: str  # the current folder
    needs_folder: bool = False  # whether the workers need this folder
    files: tuple[tuple[str, int], ...] = ()  # some inputs, with their sizes in bytes
    probe_path: str | None = None  # a file that was just created beside the outputs

    def mismatch(self) -> str | None:
        """Return the difference to this process, as a message, or None."""
        if self.needs_folder and not os.path.isdir(self.folder):
            return f"cannot see the folder {self.folder}"
        for path, size in self.files:
            try:
                here = os.stat(path).st_size
            except OSError as error:
                return f"cannot see {path}: {error.strerror}"
            if here != size:
                return f"sees a different file at {path}: {here:,} bytes instead of {size:,}"
        if self.probe_path is not None:
            folder = os.path.dirname(self.probe_path)
            if not os.path.exists(self.probe_path):
                return f"does not see new files in {folder}"
            if not os.access(folder, os.W_OK | os.X_OK):
                return f"has no permission to write into {folder}"
        return None


class RunSetup(Struct, frozen=True):
    """The settings that all batches of a run share."""

    run_id: str
    make_work: WorkFactory
    code: CarriedCode
    location: WorkerLocation
    file_timeout: float | None  # the time limit of a file, in seconds
    grace: float = 0.0  # seconds for a process to clean up


class TaskResult(Struct, frozen=True):
    """The result of a task at a Dask worker; without a `part` the worker was not prepared.

    If the batch has not ended, the rest is fetched from there by the number `rest_number`. The task
    took `seconds`.
    """

    address: str
    part: ResultPart | None = None
    rest_number: int = 0
    seconds: float = 0.0


class WorkerRun:
    """One run at one Dask worker: its processes, idle, working, or holding results."""

    def __init__(self, setup: RunSetup) -> None:
        self._hello = frame(RemoteFactory(setup.make_work, setup.code, setup.location.folder))
        self._patience, self._grace = setup.file_timeout, setup.grace
        self._idle: list[BlockingWorker] = []
        self._busy: set[BlockingWorker] = set()
        self._unfinished: dict[int, BlockingWorker] = {}
        self._last_used = time.monotonic()
        self._last_number = 0
        self._lock = threading.Lock()
        self.is_over: bool = False

    def check(self) -> None:
        """Start one process. Raises its AsyncbatchError; OSError."""
        _, part = self.run_batch(frame(Batch(0, ())), lambda: True)
        for body, _ in part.frames:
            said = pickle.loads(body)  # noqa: S301 - our own process
            if isinstance(said, AsyncbatchError):
                raise said
        if part.loss is not None:
            raise NoWorkerError(f"its process {part.loss.description} before it began to work")

    def run_batch(
        self, request: bytes | int, is_wanted: Callable[[], bool], *, whole: bool = False
    ) -> tuple[int, ResultPart]:
        """Return the first part of a batch's result, or the next part of a numbered one.

        Also returns the number of the rest, 0 for a complete result. Raises
        TaskCancelledError, OSError.
        """
        worker = self._take_worker(request)
        if worker is None:
            lost = Loss("was ended because it was idle", in_batch=False)
            return 0, ResultPart([], is_complete=False, loss=lost, pid=0, peak_memory=0)
        try:
            if isinstance(request, bytes):
                worker.send_batch(request)
            part = worker.receive_part(lambda: not self.is_over and is_wanted(), whole=whole)
        except BaseException:
            with self._lock:
                self._busy.discard(worker)
            worker.kill()
            raise
        return self._return_worker(worker, part), part

    def _take_worker(self, request: bytes | int) -> BlockingWorker | None:
        with self._lock:
            self._last_used = time.monotonic()
            if isinstance(request, int):
                worker = self._unfinished.pop(request, None)
            else:
                worker = self._idle.pop() if self._idle else None
        if worker is None and isinstance(request, bytes):
            worker = BlockingWorker(self._hello, self._patience, self._grace)
        if worker is not None:
            with self._lock:
                self._busy.add(worker)
        return worker

    def _return_worker(self, worker: BlockingWorker, part: ResultPart) -> int:
        with self._lock:
            self._last_used = time.monotonic()
            self._busy.discard(worker)
            if self.is_over and part.loss is None:
                worker.kill()
            elif part.is_complete:
                self._idle.append(worker)
            elif part.loss is None:
                self._last_number += 1
                self._unfinished[self._last_number] = worker
                return self._last_number
            return 0

    def keep_alive(self) -> None:
        """Note that the run is alive."""
        self._last_used = time.monotonic()

    def close_idle(self) -> None:
        """End the processes if the run was idle for too long."""
        with self._lock:
            if time.monotonic() - self._last_used < IDLE_SECONDS:
                return
            relays = [*self._idle, *self._unfinished.values()]
            self._idle.clear()
            self._unfinished.clear()
        for worker in relays:
            worker.kill()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self.is_over = True
            relays = [*self._idle, *self._unfinished.values()]
            self._idle.clear()
            self._unfinished.clear()
            for worker in self._busy:
                worker.interrupt()
        for worker in relays:
            worker.kill()


class WorkerRuns:
    """All runs at one Dask worker, which closes them when it ends."""

    def __init__(self) -> None:
        self.by_id: dict[str, WorkerRun] = {}
        self._idle_task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, worker: Worker) -> WorkerRuns:
        """Return the runs of a worker."""
        runs: WorkerRuns = worker.extensions.setdefault(_EXTENSION, cls())
        return runs

    def begin(self, setup: RunSetup) -> WorkerRun:
        """Return the run of a setup, a new one if necessary."""
        if setup.run_id not in self.by_id:
            self.by_id[setup.run_id] = WorkerRun(setup)
        if self._idle_task is None:
            self._idle_task = asyncio.create_task(self._close_idle_runs())
        return self.by_id[setup.run_id]

    async def _close_idle_runs(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 3)
            for run in tuple(self.by_id.values()):
                await asyncio.to_thread(run.close_idle)

    async def end(self, run_id: str) -> None:
        """End a run, if there is one of this name."""
        if (found := self.by_id.pop(run_id, None)) is not None:
            await asyncio.to_thread(found.close)

    async def close(self) -> None:
        """End all runs."""
        if self._idle_task is not None:
            self._idle_task.cancel()
        for run in tuple(self.by_id):
            await self.end(run)


async def begin_run(setup: RunSetup, dask_worker: Worker) -> str | None:
    """Prepare a Dask worker for a run; return why it is unsuitable, or None."""
    problem = await asyncio.to_thread(setup.location.mismatch)
    if problem is not None:
        return f"{problem}: {_SAME_PATHS}"
    run = WorkerRuns.of(dask_worker).begin(setup)
    try:
        await asyncio.to_thread(run.check)
    except (AsyncbatchError, OSError) as error:
        await WorkerRuns.of(dask_worker).end(setup.run_id)
        return f"cannot do the work: {error}"
    return None


async def keep_run(run_id: str, dask_worker: Worker) -> None:
    """Note at a Dask worker that a run is alive."""
    if (here := WorkerRuns.of(dask_worker).by_id.get(run_id)) is not None:
        here.keep_alive()


async def end_run(run_id: str, dask_worker: Worker) -> None:
    """End a run at a Dask worker, with its tasks in progress."""
    await WorkerRuns.of(dask_worker).end(run_id)


def run_task(run_id: str, request: bytes | int, whole: bool) -> TaskResult:
    """Process a batch, or return more of its result: the function of a task. Raises OSError."""
    from distributed import get_worker

    worker: Any = get_worker()
    here = WorkerRuns.of(worker).by_id.get(run_id)
    if here is None:
        return TaskResult(worker.address)
    key = worker.get_current_task()

    def is_wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    began = time.monotonic()
    try:
        more, part = here.run_batch(request, is_wanted, whole=whole)
    except TaskCancelledError:
        return TaskResult(worker.address)
    return TaskResult(worker.address, part, more, time.monotonic() - began)


class RemoteCall:
    """A call of `run_task` that happens when it is unpickled: see `as_bytes`."""

    def __init__(self, run_id: str, request: bytes | int, *, whole: bool) -> None:
        self._arguments = run_id, request, whole

    def __reduce__(self) -> tuple[Callable[..., TaskResult], tuple[str, bytes | int, bool]]:
        return run_task, self._arguments

    def as_bytes(self) -> bytes:
        """Return a pickle whose loading, at a Dask worker, makes the call.

        A scheduler unpickles the functions of tasks: so it does not need this package.
        """
        return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)
