"""An engine that runs batches on a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import uuid
import warnings
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distributed import Client, KilledWorker, LocalCluster

from asyncbatch.core.report import ClusterStatus
from asyncbatch.core.system import usable_cpus
from asyncbatch.errors import AsyncbatchError, UsageError, describe_error
from asyncbatch.workers.dask.members import ClusterMembers
from asyncbatch.workers.dask.worker import RemoteCall
from asyncbatch.workers.engine import Loss, WorkerLostError
from asyncbatch.workers.wire import frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from asyncbatch.core.batches import Batch, Part
    from asyncbatch.core.progress import FileInProgress
    from asyncbatch.workers.dask.members import ClusterMember
    from asyncbatch.workers.dask.worker import RunSetup, TaskResult
    from asyncbatch.workers.engine import Lane


class Limiter:
    """Lets `limit()` batches through at a time; `refresh` asks for the limit again."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._in_flight = 0
        self._changed = asyncio.Event()

    def refresh(self) -> None:
        """Note that the limit may have changed."""
        self._changed.set()

    async def admit(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        """Yield batches within the limit; the lane of `wrap_lane` releases each batch.

        Raises the errors of `limit()`.
        """
        while True:
            while self._in_flight >= self._limit():
                self._changed.clear()
                await self._changed.wait()
            batch = await anext(batches, None)
            if batch is None:
                return
            self._in_flight += 1
            yield batch

    def wrap_lane(self, lane: Lane) -> Lane:
        """Return a lane that reports the end of each batch."""
        return _LimitedLane(lane, self)

    def release(self) -> None:
        """Note that a batch is done."""
        self._in_flight -= 1
        self._changed.set()


class _LimitedLane:
    """A lane that releases a slot of a limiter after each batch."""

    def __init__(self, lane: Lane, limiter: Limiter) -> None:
        self._lane, self._limiter = lane, limiter

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        try:
            async for part in self._lane.run(batch):
                yield part
        finally:
            self._limiter.release()


TASKS_PER_THREAD = 2  # One being worked on and one waiting at the worker.
_MAX_LANES = 512  # Batches in flight, unless the cluster has more threads from the beginning.
_CONNECT_SECONDS = 5.0
_MAX_TRIES = 4  # tries of a task that is lost or cancelled
_LOST_TOO_OFTEN = "was lost with its Dask worker, and so were all retries,"
_LOGGERS = ("distributed", "distributed.client", "distributed.scheduler", "distributed.nanny")
# the preload script of workers on this machine: see `workers.wire`
_LOOPBACK = "127.0.0.1"  # no other machine may reach a cluster that a run starts
_SAFE_PATH = "PYTHONSAFEPATH"
_IGNORE_SIGNALS = """
import os
import signal
os.environ.pop("PYTHONSAFEPATH", None)
from asyncbatch.workers.wire import STOP_SIGNALS
for number in STOP_SIGNALS:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
"""


class DaskEngine:
    """Lanes into a cluster: as many as its threads, or `concurrency`, allow."""

    pids: Sequence[int] = ()
    run_id: str
    members: ClusterMembers

    def files_in_progress(self) -> Sequence[FileInProgress]:
        return ()  # the workers of a cluster share no memory with this process

    def __init__(
        self, client: Client, members: ClusterMembers, run_id: str, concurrency: int | None = None
    ) -> None:
        self.run_id, self.members = run_id, members
        self._client, self._concurrency = client, concurrency
        self._submitted = 0
        self._completed, self._busy_seconds = 0, 0.0
        self._peak_memory: dict[tuple[str, int], int] = {}
        self.limiter: Limiter = Limiter(self._free_slots)
        count = concurrency or max(_MAX_LANES, TASKS_PER_THREAD * members.threads)
        self.all_lanes: Sequence[Lane] = [_DaskLane(self)] * count

    @property
    def limit(self) -> int:
        """The number of batches that may be in flight now."""
        room = TASKS_PER_THREAD * self.members.threads
        return room if self._concurrency is None else min(room, self._concurrency)

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes within the current limit."""
        return self.all_lanes[: self.limit]

    @property
    def status(self) -> ClusterStatus:
        """The state of the cluster, and its work so far."""
        members = self.members
        return ClusterStatus(
            len(members.members),
            members.threads,
            members.left_count,
            self._completed,
            self._busy_seconds,
            sum(self._peak_memory.values()),
        )

    def _free_slots(self) -> int:
        """Return `limit`. Raises NoWorkerError if no worker is left."""
        if self.members.failure.done():
            self.members.failure.result()
        return self.limit

    async def follow_members(self) -> None:
        """Update the limit when workers join or leave."""
        while True:
            await self.members.changed.wait()
            self.members.changed.clear()
            self.limiter.refresh()

    async def call(
        self, request: bytes | int, address: str | None = None, *, whole: bool = False
    ) -> TaskResult:
        """Return the result of a task, at the worker `address` if it is given.

        With `whole` the result is not split, if possible. Raises WorkerLostError; NoWorkerError if
        no worker is left.
        """
        for _ in range(_MAX_TRIES):
            await self.members.wait_for_any()
            answer = await self._submit(RemoteCall(self.run_id, request, whole=whole), address)
            if answer is None:
                continue
            if answer.part is not None:
                self._note_result(answer)
                return answer
            await self.members.prepare_again(answer.address)
        raise WorkerLostError(Loss(_LOST_TOO_OFTEN))

    async def _submit(self, call: RemoteCall, address: str | None) -> TaskResult | None:
        """Return the result of one task, None if it was cancelled."""
        members = self.members
        member = None if address is None else members.members.get(address)
        if address is not None and member is None:
            raise _lost_result()
        self._submitted += 1
        future = self._client.submit(
            pickle.loads,
            call.as_bytes(),
            key=f"asyncbatch-{self.run_id}-{self._submitted}",
            pure=False,
            workers=members.allowed_addresses if address is None else [address],
            allow_other_workers=False,
        )
        waiting = asyncio.ensure_future(_await_result(future))
        try:
            return await self._wait_for_result(waiting, member)
        except KilledWorker:
            raise WorkerLostError(Loss(_LOST_TOO_OFTEN)) from None
        except CancelledError as error:
            if "connection-lost" in getattr(error, "reason", ""):
                members.fail("the Dask scheduler has disconnected")
                members.failure.result()
            return None
        except (AsyncbatchError, WorkerLostError):
            raise
        except Exception as error:  # noqa: BLE001 - any error of Dask or its worker
            raise WorkerLostError(
                Loss(f"could not work: {describe_error(error)}", in_batch=False)
            ) from None
        finally:
            waiting.cancel()
            future.release()  # which cancels the task, if it is not done

    async def _wait_for_result(
        self, waiting: asyncio.Future[TaskResult], member: ClusterMember | None
    ) -> TaskResult:
        """Return the result. Raises NoWorkerError or WorkerLostError if that comes first."""
        lost = self.members.failure
        ends: list[asyncio.Future[Any]] = [waiting, lost, *([member.departure] if member else [])]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        if lost.done():
            lost.result()
        raise _lost_result()

    def _note_result(self, answer: TaskResult) -> None:
        self._completed += 1
        self._busy_seconds += answer.seconds
        if (part := answer.part) is not None:
            process = answer.address, part.pid
            self._peak_memory[process] = max(self._peak_memory.get(process, 0), part.peak_memory)


class _DaskLane:
    """Runs batches in the cluster, one at a time."""

    def __init__(self, engine: DaskEngine) -> None:
        self._engine = engine

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        answer = await self._first_result(batch)
        while (part := answer.part) is not None:
            with self._keep_worker(answer):
                for body, rows in part.frames:
                    said: Any = pickle.loads(body)  # noqa: S301 - our own process
                    if isinstance(said, AsyncbatchError):
                        raise said
                    if rows:
                        said.rows.payload = rows
                    yield said
            if part.loss is not None:
                raise WorkerLostError(part.loss)
            if part.is_complete:
                return
            answer = await self._engine.call(answer.rest_number, answer.address)

    async def _first_result(self, batch: Batch) -> TaskResult:
        """Return the first part of a batch's result, the whole for a split.

        Parts of a split cannot be taken back: if it is lost midway, its file fails. After a loss of
        the Dask worker before any part, the batch is retried.
        """
        for _ in range(_MAX_TRIES if batch.split is not None else 0):
            try:
                return await self._engine.call(frame(batch), whole=True)
            except WorkerLostError as error:
                if error.loss.in_batch:
                    raise
        return await self._engine.call(frame(batch), whole=batch.split is not None)

    @contextmanager
    def _keep_worker(self, answer: TaskResult) -> Iterator[None]:
        """Keep the worker alive while it holds the rest of a result."""
        member = self._engine.members.members.get(answer.address) if answer.rest_number else None
        if member is not None:
            member.pending_results += 1
        try:
            yield
        finally:
            if member is not None:
                member.pending_results -= 1


def _lost_result() -> WorkerLostError:
    return WorkerLostError(Loss("was lost with its Dask worker", in_batch=False))


async def _await_result(future: Any) -> TaskResult:
    answer: TaskResult = await future
    return answer


@asynccontextmanager
async def dask_engine(
    scheduler: str | None,
    setup: Callable[[str], RunSetup],
    log: Callable[[str], None],
    *,
    workers: int | None = None,
    concurrency: int | None = None,
) -> AsyncIterator[DaskEngine]:
    """Provide lanes into the cluster of a scheduler, or of `workers` started here.

    `setup` returns the setup for a run id. Raises UsageError if the scheduler does not answer, if
    it has no workers, or if a worker is unsuitable.
    """
    with _silence_dask():
        async with _client(scheduler, workers) as client:
            run = uuid.uuid4().hex
            members = ClusterMembers(client, setup(run), log)
            tasks: list[asyncio.Task[None]] = []
            try:
                await members.wait_for_first()
                log(_connection_message(members, client))
                engine = DaskEngine(client, members, run, concurrency)
                tasks += map(asyncio.create_task, (members.watch(), engine.follow_members()))
                yield engine
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await members.end_run()


@asynccontextmanager
async def _client(scheduler: str | None, workers: int | None) -> AsyncIterator[Client]:
    """Connect to a scheduler. Raises UsageError."""
    if scheduler is None:
        async with _local_cluster(workers) as cluster, Client(cluster, asynchronous=True) as client:
            yield client
        return
    try:
        client = await Client(
            scheduler, asynchronous=True, set_as_default=False, timeout=_CONNECT_SECONDS
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {scheduler}: {describe_error(error)}"
        ) from None
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            await client.close()


@asynccontextmanager
async def _local_cluster(workers: int | None) -> AsyncIterator[LocalCluster]:
    """Start a scheduler in this process, and workers beside it. Raises OSError."""
    cluster = LocalCluster(
        n_workers=workers or usable_cpus(),
        threads_per_worker=1,
        asynchronous=True,
        host=_LOOPBACK,
        silence_logs=logging.CRITICAL,
        dashboard_address=f"{_LOOPBACK}:0",
        preload=[_IGNORE_SIGNALS],
    )
    # Dask's processes must import nothing from the current folder. Their preload script removes
    # the variable, which the programs that user code starts must not see.
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        async with cluster:
            yield cluster
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]


@contextmanager
def _silence_dask() -> Iterator[None]:
    """Silence Dask's own logs and warnings: errors are reported by the run."""
    # Permanently: Dask's leftover tasks report when they are collected, at any later time.
    asyncio.get_running_loop().set_exception_handler(_ignore_dask_errors)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="distributed")
            warnings.filterwarnings("ignore", message="Sending large graph")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _ignore_dask_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Pass on the errors of the event loop, except those of Dask's own tasks."""
    error = context.get("exception")
    if error is None or not type(error).__module__.startswith("distributed."):
        loop.default_exception_handler(context)


def _connection_message(members: ClusterMembers, client: Client) -> str:
    workers, threads = len(members.members), members.threads
    shown = (
        f"Dask: {workers:,} worker{'s'[: workers != 1]}, {threads:,} thread{'s'[: threads != 1]}"
    )
    return f"{shown}; dashboard {client.dashboard_link}" if client.dashboard_link else shown
