"""A Dask cluster as engine."""

from __future__ import annotations

import asyncio
import logging
import pickle
import uuid
import warnings
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distributed import Client, KilledWorker, LocalCluster

from asyncbatch.core.report import ClusterStatus as CrewState
from asyncbatch.core.system import usable_cpus
from asyncbatch.errors import AsyncbatchError, UsageError, described
from asyncbatch.workers.dask.members import ClusterMembers
from asyncbatch.workers.dask.worker import RemoteCall
from asyncbatch.workers.engine import Loss, WorkerLostError
from asyncbatch.workers.wire import frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from asyncbatch.core.batches import Batch, Part
    from asyncbatch.workers.dask.members import ClusterMember
    from asyncbatch.workers.dask.worker import Setup, TaskResult
    from asyncbatch.workers.engine import Lane


class Limiter:
    """Lets `limit()` batches through at a time; `refresh` asks for the limit again."""

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._inside = 0
        self._changed = asyncio.Event()

    def refresh(self) -> None:
        """Take note that there may be another room."""
        self._changed.set()

    async def paced(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        """Yield batches within the limit; a batch leaves at the end of its `lane` run.

        Raises the errors of `limit`.
        """
        while True:
            while self._inside >= self._room():
                self._changed.clear()
                await self._changed.wait()
            batch = await anext(batches, None)
            if batch is None:
                return
            self._inside += 1
            yield batch

    def lane(self, lane: Lane) -> Lane:
        """Return a lane that reports the end of each batch."""
        return _LimitedLane(lane, self)

    def leave(self) -> None:
        """Take note that a batch is done."""
        self._inside -= 1
        self._changed.set()


class _LimitedLane:
    """A lane whose batches leave a limiter."""

    def __init__(self, lane: Lane, limiter: Limiter) -> None:
        self._lane, self._limiter = lane, limiter

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        try:
            async for part in self._lane.run(batch):
                yield part
        finally:
            self._limiter.leave()


TASKS_PER_THREAD = 2  # One being worked on and one waiting at the worker.
_MOST_LANES = 512  # Batches in flight, unless the cluster has more threads from the beginning.
_CONNECT_SECONDS = 5.0
_MOST_TRIES = 4  # How many times a task may be lost or cancelled by others.
_LOST_CLASSES = "was lost with its Dask worker, as were all that tried again,"
_LOGGERS = ("distributed", "distributed.client", "distributed.scheduler", "distributed.nanny")
# the preload script of workers on this machine: see `workers.wire`
_IGNORE_SIGNALS = """
import signal
from asyncbatch.workers.wire import STOP_SIGNALS
for number in STOP_SIGNALS:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
"""


class DaskEngine:
    """Lanes into a cluster: as many as its threads, or `concurrency`, allow."""

    pids: Sequence[int] = ()

    def __init__(
        self, client: Client, members: ClusterMembers, run: str, concurrency: int | None = None
    ) -> None:
        self.run, self.members = run, members
        self._client, self._concurrency = client, concurrency
        self._numbers = 0
        self._tasks, self._busy_s = 0, 0.0
        self._memory: dict[tuple[str, int], int] = {}
        self.limiter = Limiter(self._free_slots)
        count = concurrency or max(_MOST_LANES, TASKS_PER_THREAD * members.threads)
        self.places: Sequence[Lane] = [_DaskLane(self)] * count

    @property
    def limit(self) -> int:
        """How many batches may be in flight now."""
        room = TASKS_PER_THREAD * self.members.threads
        return room if self._concurrency is None else min(room, self._concurrency)

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes that there is room for now."""
        return self.places[: self.limit]

    @property
    def status(self) -> CrewState:
        """The state of the cluster, and its work so far."""
        members = self.members
        return CrewState(
            len(members.members),
            members.threads,
            members.left,
            self._tasks,
            self._busy_s,
            sum(self._memory.values()),
        )

    def _free_slots(self) -> int:
        """Return `limit`. Raises NoWorkerError if no worker is left."""
        if self.members.lost.done():
            self.members.lost.result()
        return self.limit

    async def follow(self) -> None:
        """Make or take room as workers come and go."""
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
        for _ in range(_MOST_TRIES):
            await self.members.some()
            answer = await self._answer(RemoteCall(self.run, request, whole=whole), address)
            if answer is None:
                continue
            if answer.part is not None:
                self._note_result(answer)
                return answer
            await self.members.ready(answer.address)
        raise WorkerLostError(Loss(_LOST_CLASSES))

    async def _answer(self, call: RemoteCall, address: str | None) -> TaskResult | None:
        """Return the result of one task, None if it was cancelled."""
        members = self.members
        member = None if address is None else members.members.get(address)
        if address is not None and member is None:
            raise _lost_result()
        self._numbers += 1
        future = self._client.submit(
            pickle.loads,
            call.as_bytes(),
            key=f"asyncbatch-{self.run}-{self._numbers}",
            pure=False,
            workers=members.chosen if address is None else [address],
            allow_other_workers=False,
        )
        waiting = asyncio.ensure_future(_result(future))
        try:
            return await self._first_done(waiting, member)
        except KilledWorker:
            raise WorkerLostError(Loss(_LOST_CLASSES)) from None
        except CancelledError as error:
            if "connection-lost" in getattr(error, "reason", ""):
                members.fail("the Dask scheduler is gone")
                members.lost.result()
            return None
        except (AsyncbatchError, WorkerLostError):
            raise
        except Exception as error:  # noqa: BLE001 - any error of Dask or its worker
            raise WorkerLostError(
                Loss(f"could not work: {described(error)}", in_batch=False)
            ) from None
        finally:
            waiting.cancel()
            future.release()  # which cancels the task, if it is not done

    async def _first_done(
        self, waiting: asyncio.Future[TaskResult], member: ClusterMember | None
    ) -> TaskResult:
        """Return the result. Raises NoWorkerError or WorkerLostError if that comes first."""
        lost = self.members.lost
        ends: list[asyncio.Future[Any]] = [waiting, lost, *([member.left] if member else [])]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        if lost.done():
            lost.result()
        raise _lost_result()

    def _note_result(self, answer: TaskResult) -> None:
        self._tasks += 1
        self._busy_s += answer.seconds
        if (part := answer.part) is not None:
            process = answer.address, part.pid
            self._memory[process] = max(self._memory.get(process, 0), part.memory)


class _DaskLane:
    """Runs batches in the cluster, one at a time."""

    def __init__(self, engine: DaskEngine) -> None:
        self._engine = engine

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        answer = await self._first(batch)
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
            if part.ended:
                return
            answer = await self._engine.call(answer.more, answer.address)

    async def _first(self, batch: Batch) -> TaskResult:
        """Return the first part of a batch's result, the whole for a split.

        Parts of a split cannot be taken back: if it is lost midway, its file fails. After a loss of
        the Dask worker before any part, the batch is retried.
        """
        for _ in range(_MOST_TRIES if batch.split is not None else 0):
            try:
                return await self._engine.call(frame(batch), whole=True)
            except WorkerLostError as error:
                if error.loss.in_batch:
                    raise
        return await self._engine.call(frame(batch), whole=batch.split is not None)

    @contextmanager
    def _keep_worker(self, answer: TaskResult) -> Iterator[None]:
        """Keep the rest of a result at its worker until it is fetched."""
        member = self._engine.members.members.get(answer.address) if answer.more else None
        if member is not None:
            member.waiting += 1
        try:
            yield
        finally:
            if member is not None:
                member.waiting -= 1


def _lost_result() -> WorkerLostError:
    return WorkerLostError(Loss("was lost with its Dask worker", in_batch=False))


async def _result(future: Any) -> TaskResult:
    answer: TaskResult = await future
    return answer


@asynccontextmanager
async def dask_engine(
    scheduler: str | None,
    setup: Callable[[str], Setup],
    say: Callable[[str], None],
    *,
    workers: int | None = None,
    concurrency: int | None = None,
) -> AsyncIterator[DaskEngine]:
    """Provide lanes into the cluster of a scheduler, or of `workers` started here.

    `setup` makes that of the run of a name. Raises UsageError if the scheduler does not answer,
    has no workers, or if one is not fit for the work.
    """
    with _quiet():
        async with _client(scheduler, workers) as client:
            run = uuid.uuid4().hex
            members = ClusterMembers(client, setup(run), say)
            tasks: list[asyncio.Task[None]] = []
            try:
                await members.wait_for_first()
                say(_greeting(members, client))
                engine = DaskEngine(client, members, run, concurrency)
                tasks += map(asyncio.create_task, (members.watch(), engine.follow()))
                yield engine
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await members.dismiss()


@asynccontextmanager
async def _client(scheduler: str | None, workers: int | None) -> AsyncIterator[Client]:
    """Connect with a scheduler. Raises UsageError."""
    if scheduler is None:
        async with _local_cluster(workers) as cluster, Client(cluster, asynchronous=True) as client:
            yield client
        return
    try:
        client = await Client(
            scheduler, asynchronous=True, set_as_default=False, timeout=_CONNECT_SECONDS
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {scheduler}: {described(error)}") from None
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
        silence_logs=logging.CRITICAL,
        dashboard_address="127.0.0.1:0",
        preload=[_IGNORE_SIGNALS],
    )
    async with cluster:
        yield cluster


@contextmanager
def _quiet() -> Iterator[None]:
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


def _greeting(members: ClusterMembers, client: Client) -> str:
    workers, threads = len(members.members), members.threads
    shown = (
        f"Dask: {workers:,} worker{'s'[: workers != 1]}, {threads:,} thread{'s'[: threads != 1]}"
    )
    return f"{shown}; dashboard {client.dashboard_link}" if client.dashboard_link else shown
