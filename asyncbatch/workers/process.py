"""Worker processes, and the lanes that send batches to them."""

from __future__ import annotations

import asyncio
import math
import pickle
import socket
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.core.progress import FileStopwatch, Progress
from asyncbatch.core.system import measure_memory
from asyncbatch.errors import AsyncbatchError
from asyncbatch.workers.engine import Loss, WorkerLostError, file_in_progress
from asyncbatch.workers.shared_buffer import SLOTS
from asyncbatch.workers.spawn import end_process, spawn
from asyncbatch.workers.wire import LENGTH_BYTES, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asyncbatch.core.batches import Batch, Part
    from asyncbatch.core.progress import FileInProgress
    from asyncbatch.workers.engine import Lane, WorkFactory
    from asyncbatch.workers.shared_buffer import SharedBuffer
    from asyncbatch.workers.spawn import ChildProcess, WorkerHandle

PART_BYTES = 16 * 1024 * 1024  # A part of a result is complete at this size,
PART_SECONDS = 2.0  # or at this age.
MAX_WHOLE_BYTES = 256 * 1024 * 1024  # the limit for a result that must arrive as a whole
_MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 0.01, 0.5  # seconds between two checks of a silent worker
_BATCH_END = frame(None)[LENGTH_BYTES:]  # the frame that ends a batch


class ResultPart(Struct, frozen=True):
    """A part of a worker's result: pickles, each with its rows (see `wire`).

    Unless it is `is_complete` or there is a `loss`, more follows. `pid` is the worker's,
    `peak_memory` its peak in bytes.
    """

    frames: list[tuple[bytes | bytearray, bytes | bytearray]]
    is_complete: bool
    loss: Loss | None
    pid: int
    peak_memory: int


class TaskCancelledError(Exception):
    """The result is no longer wanted, so the worker was ended."""


class BlockingWorker:
    """One worker process and the pipes to it, driven by one thread at a time.

    `factory_frame` is the first frame; `file_timeout` is the time limit of a file in seconds;
    `grace` is the time in seconds to clean up at the end. Raises OSError if no process can be
    started.
    """

    def __init__(
        self, factory_frame: bytes, file_timeout: float | None, grace: float = 0.0
    ) -> None:
        spawned = spawn()
        self._grace = grace
        self._process, self._progress = spawned.process, spawned.progress
        self._requests, self._replies = spawned.requests, spawned.replies
        longest = _MAX_POLL_SECONDS if file_timeout is None else file_timeout / 20
        self._interval = min(max(longest, _MIN_POLL_SECONDS), _MAX_POLL_SECONDS)
        self._replies.settimeout(self._interval)
        self._stopwatch = (
            None if file_timeout is None else FileStopwatch(file_timeout, self._interval)
        )
        self._overdue_file: int | None = None  # the file that the process was killed for
        self._checked_at = 0.0
        self._send(factory_frame)

    def send_batch(self, request: bytes) -> None:
        """Send a batch to the worker; `request` is its frame."""
        self._send(request)

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # the worker is dead; `receive_part` reports it
            self._requests.sendall(data)

    def receive_part(self, is_wanted: Callable[[], bool], *, whole: bool = False) -> ResultPart:
        """Return the next part of the result, or the `whole` if possible.

        Raises TaskCancelledError.
        """
        frames: list[tuple[bytes | bytearray, bytes | bytearray]] = []
        most = MAX_WHOLE_BYTES if whole else PART_BYTES
        size, deadline = 0, time.monotonic() + (math.inf if whole else PART_SECONDS)
        ended, loss = False, None
        while not ended and size < most:
            if frames and time.monotonic() > deadline:
                break
            try:
                body, rows = self._receive(is_wanted)
            except (EOFError, ConnectionError):
                loss = self._kill_lost()
                break
            ended = body == _BATCH_END
            if not ended:
                frames.append((body, rows))
                size += len(body) + len(rows)
        return ResultPart(
            frames, ended, loss, self._process.pid, measure_memory(self._process.pid).peak
        )

    def _receive(self, is_wanted: Callable[[], bool]) -> tuple[bytearray, bytearray]:
        lengths = self._read(2 * LENGTH_BYTES, is_wanted)
        body = self._read(int.from_bytes(lengths[:LENGTH_BYTES]), is_wanted)
        return body, self._read(int.from_bytes(lengths[LENGTH_BYTES:]), is_wanted)

    def _read(self, count: int, is_wanted: Callable[[], bool]) -> bytearray:
        """Return `count` bytes. Raises EOFError, ConnectionError, TaskCancelledError."""
        data, at = bytearray(count), 0
        with memoryview(data) as view:
            while at < count:
                if time.monotonic() - self._checked_at > self._interval:
                    self._check_progress(is_wanted)
                try:
                    got = self._replies.recv_into(view[at:])
                except TimeoutError:
                    continue
                if not got:
                    raise EOFError
                at += got
        return data

    def _check_progress(self, is_wanted: Callable[[], bool]) -> None:
        """End the process if its file is overdue, or its result is not wanted."""
        now = self._checked_at = time.monotonic()
        if not is_wanted():
            self.kill()
            raise TaskCancelledError
        if self._stopwatch is not None and self._overdue_file is None:
            self._overdue_file = self._stopwatch.overdue_file(self._progress, now)
            if self._overdue_file is not None:
                _kill_overdue(self._process, self._replies)

    def _kill_lost(self) -> Loss:
        return _loss(self.kill(), self._progress, self._overdue_file)

    def interrupt(self) -> None:
        """End the process from another thread; `receive_part` then reports the loss."""
        with suppress(OSError):  # it has ended
            self._requests.shutdown(socket.SHUT_RDWR)
        if not self._grace:
            self._process.kill()

    def kill(self) -> str:
        """End the process, if it is running; return how it ended."""
        self._requests.close()
        self._replies.close()
        return end_process(self._process, self._grace)


def _kill_overdue(process: ChildProcess, replies: socket.socket) -> None:
    process.kill()
    with suppress(OSError):  # processes of the user's function may keep it open
        replies.shutdown(socket.SHUT_RD)


def _loss(how: str, progress: Progress, overdue_file: int | None) -> Loss:
    """Return the loss of a process, which may have been killed for an overdue file."""
    # If it finished the file at this moment, no file is overdue or guilty.
    timed_out = overdue_file is not None and overdue_file == progress.file
    file = None if overdue_file is not None and not timed_out else progress.file
    return Loss(how, file, progress.in_batch, timed_out)


_MIN_WATCH_SECONDS, _MAX_WATCH_SECONDS = 0.01, 0.25  # between two checks for overdue workers
_CLEANUP_SECONDS = 2.0  # seconds for processes to clean up and exit


class WorkerProcess:
    """A lane into a worker process, which is restarted when it has died.

    Several batches may be sent ahead; they wait in its socket. With `slot_bytes`, buffers of
    batches of this size are sent through shared memory.
    """

    def __init__(
        self, make_work: WorkFactory, *, reads_stdin: bool = False, slot_bytes: int = 0
    ) -> None:
        self._batch_lock = asyncio.Lock()
        self._queue: deque[Batch] = deque()  # in the order of turns; sent while there is a process
        self._factory_frame = frame(make_work)
        self._reads_stdin, self._slot_bytes = reads_stdin, slot_bytes
        self._buffer: SharedBuffer | None = None
        self._process: ChildProcess | None = None
        self._progress = Progress()
        self._overdue_file: int | None = None  # the file that the process was killed for
        self._replies: socket.socket
        self._writer: asyncio.StreamWriter

    @property
    def pid(self) -> int | None:
        """The process number, or None without a process."""
        return self._process.pid if self._process else None

    def file_in_progress(self) -> FileInProgress | None:
        """Return the file that the process works on at this moment, or None."""
        return file_in_progress(self._progress, self._queue)

    async def connect(self, handle: WorkerHandle) -> None:
        """Connect to a started process, in place of a dead one."""
        try:
            _, self._writer = await asyncio.open_connection(sock=handle.requests)
        except BaseException:
            handle.process.kill()
            raise
        self._replies = handle.replies
        self._replies.setblocking(False)
        self._progress, self._overdue_file = handle.progress, None
        self._buffer = handle.buffer
        self._writer.write(self._factory_frame)
        for batch in self._queue:  # batches that were sent to the dead process
            self._writer.write(frame(batch))
        self._process = handle.process

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield the parts of `batch`, after the batches that were sent before."""
        self._queue.append(batch)
        if self._process is not None:
            self._writer.write(self._frame(batch))
        try:
            async with self._batch_lock:
                if self._process is None:
                    await self.connect(
                        spawn(reads_stdin=self._reads_stdin, slot_bytes=self._slot_bytes)
                    )
                while (part := await self._receive()) is not None:
                    yield part
        finally:
            self._queue.remove(batch)

    def _frame(self, batch: Batch) -> bytes:
        """Return the frame of the last batch of the queue."""
        if self._buffer is None or len(self._queue) > SLOTS:
            return frame(batch)
        return self._buffer.frame(batch)

    async def _receive(self) -> Part | None:
        """Return the next part, None at a batch's end.

        Raises WorkerLostError; AsyncbatchError as the worker has raised it.
        """
        try:
            lengths = await self._read(2 * LENGTH_BYTES)
            body = await self._read(int.from_bytes(lengths[:LENGTH_BYTES]))
            payload = await self._read(int.from_bytes(lengths[LENGTH_BYTES:]))
        except (EOFError, ConnectionError):
            raise WorkerLostError(self._kill_lost()) from None
        message: Any = pickle.loads(body)  # noqa: S301 - our own process
        if isinstance(message, AsyncbatchError):
            raise message
        if payload:
            message.rows.payload = payload
        part: Part | None = message
        return part

    async def _read(self, count: int) -> bytearray:
        """Return `count` bytes, read in place, because a stream would copy them twice.

        Raises EOFError, ConnectionError.
        """
        data = bytearray(count)
        loop, at = asyncio.get_running_loop(), 0
        with memoryview(data) as view:
            while at < count:
                got = await loop.sock_recv_into(self._replies, view[at:])
                if not got:
                    raise EOFError
                at += got
        return data

    def check_overdue(self, stopwatch: FileStopwatch, now: float) -> None:
        """Kill the process if it is overdue with a file; `run` then ends with a loss."""
        if self._process is None or self._overdue_file is not None:
            return
        self._overdue_file = stopwatch.overdue_file(self._progress, now)
        if self._overdue_file is not None:
            _kill_overdue(self._process, self._replies)

    def _kill_lost(self) -> Loss:
        return _loss(self.kill(), self._progress, self._overdue_file)

    def request_exit(self) -> None:
        """Ask the process to clean up unfinished outputs and exit."""
        if self._process is not None:
            with suppress(OSError):
                self._writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def wait(self) -> None:
        """Wait until the process has ended."""
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    def kill(self) -> str:
        """End the process at once, if it is running; return how it ended."""
        if self._process is None:
            return "is not running"
        process, self._process = self._process, None
        self._writer.close()
        self._replies.close()
        return end_process(process)


class ProcessEngine:
    """Worker processes. Each is one lane, or several."""

    def __init__(self, workers: Sequence[WorkerProcess], count: int) -> None:
        self._workers = workers
        self.lanes: Sequence[Lane] = [workers[number % len(workers)] for number in range(count)]

    @property
    def pids(self) -> Sequence[int]:
        """The workers' process numbers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def files_in_progress(self) -> Sequence[FileInProgress]:
        return list(filter(None, (worker.file_in_progress() for worker in self._workers)))


@asynccontextmanager
async def process_engine(
    make_work: WorkFactory,
    handles: Sequence[WorkerHandle | None],
    count: int,
    *,
    reads_stdin: bool = False,
    file_timeout: float | None = None,
    graceful: bool = False,
    slot_bytes: int = 0,
) -> AsyncIterator[ProcessEngine]:
    """Provide `count` lanes over processes, and kill these at the end.

    A process without a handle starts with its first batch. `reads_stdin` passes standard input to
    restarted processes. `file_timeout` is the time limit of a file in seconds. With `graceful`,
    the processes get some seconds to clean up. `slot_bytes`: see `WorkerProcess`.
    """
    workers = [
        WorkerProcess(make_work, reads_stdin=reads_stdin, slot_bytes=slot_bytes) for _ in handles
    ]
    watching = None if file_timeout is None else asyncio.create_task(_watch(workers, file_timeout))
    try:
        for worker, process in zip(workers, handles, strict=True):
            if process is not None:
                await worker.connect(process)
        yield ProcessEngine(workers, count)
    finally:
        if watching is not None:
            watching.cancel()
        try:
            if graceful:
                await _wait_for_exits(workers)
        finally:
            for worker in workers:
                worker.kill()


async def _wait_for_exits(workers: Sequence[WorkerProcess]) -> None:
    """Wait a limited time for all processes to exit."""
    for worker in workers:
        worker.request_exit()
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLEANUP_SECONDS):
            for worker in workers:
                await worker.wait()


async def _watch(workers: Sequence[WorkerProcess], file_timeout: float) -> None:
    """Kill overdue workers until cancelled."""
    interval = min(max(file_timeout / 20, _MIN_WATCH_SECONDS), _MAX_WATCH_SECONDS)
    stopwatches = [FileStopwatch(file_timeout, interval) for _ in workers]
    while True:
        await asyncio.sleep(interval)
        now = time.monotonic()
        for worker, stopwatch in zip(workers, stopwatches, strict=True):
            worker.check_overdue(stopwatch, now)
