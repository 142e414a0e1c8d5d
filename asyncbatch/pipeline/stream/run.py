"""The run of a stream, from its first event to its last window."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from asyncbatch.core.system import Memory, measure_memory, sum_memory
from asyncbatch.pipeline.stream.pool import FoldPool, count_workers, make_pool
from asyncbatch.workers.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.tally import FailureBudget, StreamTally
    from asyncbatch.pipeline.stream.pool import LinePool
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.sources.base import LiveChunk
    from asyncbatch.sources.live.merge import MergedSources
    from asyncbatch.windows.events import Window
    from asyncbatch.workers.spawn import WorkerHandle

_TICK_SECONDS = 0.05  # time between checks of the clock, if the clock closes windows
# Smaller chunks are not sent to workers: the events are few, and a user may wait for their windows.
_WORKER_CHUNK_BYTES = 64 * 1024
CALL_CONCURRENCY = 100  # default number of calls of async functions in flight
_STOP_SECONDS = 4.0  # time after a stop for the transforms of events that cannot be read again
# Large chunks in a row after which workers are started: 2 to 4 MiB.
_LARGE_CHUNKS_BEFORE_WORKERS = 32


class StreamSnapshot(NamedTuple):
    """The progress of a stream. The tally counts all runs of the stream."""

    tally: StreamTally
    read: int  # events that this run has read
    bytes: int  # bytes that this run has read
    elapsed_s: float  # seconds of this run
    lag: int | None  # microseconds that the watermark is behind the clock; None before any event
    memory: Memory
    left: int = 0  # events that had arrived before a stop, and were not processed


class WindowConsumer(Protocol):
    """Takes closed windows."""

    async def put(self, windows: Sequence[Window]) -> None:
        """Take windows in order, or none after events. Reading waits meanwhile.

        Raises SinkError, OSError.
        """
        ...

    async def flush(self) -> None:
        """Write all windows that were put. Raises SinkError, OSError."""
        ...


class CheckpointSaver(Protocol):
    """Saves a stream, so that another process can resume it. Implemented by `Checkpointer`."""

    @property
    def seconds_left(self) -> float:
        """Seconds until the stream must be saved again; 0 if it is time."""
        ...

    async def save(self, *, stopping: bool = False) -> None:
        """Save the stream. All its closed windows must be flushed. Raises SinkError.

        `stopping`: the open windows are written next, as partial ones.
        """
        ...


class StreamRun:
    """Reads the sources, and passes closed windows to a sink.

    Call `run` once. It ends with its sources, after `duration` (in microseconds) or the limit of
    events of the stream, when the `budget` is exceeded, or by `stop`. The open windows are then
    flushed. Up to `workers` processes fold events if there are many (None: one less than the CPUs).
    A `checkpointer` saves the stream periodically, and at its end. Raises UsageError for invalid
    fields.

    Transforms run in worker processes from the first event on, up to one for each CPU. Functions
    that exist only in this process run in a thread, as all do with 0 workers. Async transforms run
    on the event loop, `call_concurrency` calls at a time. An event that takes longer than `timeout`
    seconds is rejected.
    """

    def __init__(
        self,
        stream: StreamCore,
        merged: MergedSources,
        sink: WindowConsumer,
        *,
        duration: int | None = None,
        budget: FailureBudget | None = None,
        workers: int | None = None,
        checkpointer: CheckpointSaver | None = None,
        call_concurrency: int = CALL_CONCURRENCY,
        timeout: float | None = None,
    ) -> None:
        self.stream = stream
        self._checkpointer, self._is_saved = checkpointer, True
        self._merged, self._sink, self._budget = merged, sink, budget
        self._duration = None if duration is None else duration / 1e6
        self._handles: list[WorkerHandle | None] = [None] * count_workers(stream, workers, timeout)
        self._has_pool = bool(self._handles) or stream.runs_async
        self._call_concurrency, self._event_timeout = call_concurrency, timeout
        self._pool: LinePool | None = None
        self._large_chunks_in_a_row = 0
        settings = stream.settings
        self._uses_clock = settings.time is None or settings.idle is not None
        self._started_at, self._peak_memory = time.monotonic(), 0
        self._counts_at_start = (0, 0)  # events and bytes of earlier runs of the stream
        self._stopped_at: float | None = None
        self._events_given_back = 0  # events whose transforms had not started at a stop
        for source in merged.sources:
            stream.join(source.name)
        merged.use_event_times(stream.highest_time)

    def fork_workers(self) -> None:
        """Start workers that fold at once, as copies of this process: for sources with many events.

        Otherwise new programs are started when there have been many. Call it before `run`. Raises
        OSError.
        """
        if not self.stream.settings.transforms:
            self._handles = [spawn(slot_bytes=FoldPool.size, may_fork=True) for _ in self._handles]

    @property
    def was_cut_short(self) -> bool:
        """Whether the run ended although more events might have come."""
        return not self._merged.is_over or self.stream.is_full or self._events_given_back > 0

    def stop(self) -> None:
        """Read no more events. `run` then flushes the open windows, and ends."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self._merged.wake()

    async def run(self) -> None:
        """Run the stream to its end. Call it once.

        Raises TooManyKeysError, LineTooLongError, SourceError, SinkError, OSError.
        """
        self._started_at = time.monotonic()
        self._counts_at_start = (self.stream.tally.read, self.stream.tally.bytes)
        try:
            for name, held in self.stream.held_chunks():
                await self._process(name, held)
            await self._read_all()
            for source, chunk in await self._merged.drain():
                if not self.stream.is_full and not self.stream.has_left(source.name):
                    await self._process(source.name, chunk)
            await self._settle()
            await self._end(partial=self.was_cut_short)
        finally:
            if self._pool is not None:
                await self._pool.close()
            for handle in filter(None, self._handles):
                handle.process.kill()
            await self._merged.close()

    def snapshot(self) -> StreamSnapshot:
        """Return the progress of the stream."""
        elapsed = time.monotonic() - self._started_at
        tally, (read, size) = self.stream.tally, self._counts_at_start
        return StreamSnapshot(
            tally, tally.read - read, tally.bytes - size, elapsed, self.stream.lag, self._memory(),
            self._events_given_back,
        )  # fmt: skip

    @property
    def worker_count(self) -> int:
        """The number of worker processes at this moment."""
        return len(self._pool.pids) if self._pool else 0

    def is_over_budget(self, *, final: bool = False) -> bool:
        """Whether more events failed than the budget allows; `final`: no more events come."""
        tally = self.stream.tally
        return self._budget is not None and self._budget.is_spent(
            tally.failures, tally.seen, final=final
        )

    async def _read_all(self) -> None:
        """Read events until the sources end, a limit is reached, or the run is stopped."""
        stream, merged = self.stream, self._merged
        while not (self._stopped_at or merged.is_over or stream.is_full or self.is_over_budget()):
            left = self._seconds_left()
            if left is not None and left <= 0:
                break
            pool = self._pool
            is_waited_for = pool is not None and (pool.has_result or pool.has_unsent)
            found = await merged.read(0 if is_waited_for else self._wait_seconds())
            await self._take_ready_results()
            if found is None:
                if pool is not None:
                    pool.dispatch(flush=True)
            else:
                source, chunk = found
                if stream.has_left(source.name) and chunk.data:
                    stream.join(source.name)  # the source has grown since the stream was saved
                if not stream.has_left(source.name):
                    await self._process(source.name, chunk)
                    self._is_saved = False
                    if source.is_over:
                        await self._settle()
                    if source.is_over and not self._events_given_back:
                        await self._put(stream.leave(source.name))
                await asyncio.sleep(0)  # lets signals in, even if a source always has more
            if self._uses_clock and not self._holds_clock():
                await self._put(stream.tick())
            await self._save_in_time()

    async def _end(self, *, partial: bool) -> None:
        """Close the open windows and flush; save the stream so that it can be resumed."""
        if partial:
            await self._save(stopping=True)
        await self._put(self.stream.finish(partial=partial))
        await self._sink.flush()
        if not partial:
            await self._save()

    async def _save(self, *, stopping: bool = False) -> None:
        if self._checkpointer is not None:
            await self._sink.flush()
            await self._checkpointer.save(stopping=stopping)
            self._is_saved = True

    async def _save_in_time(self) -> None:
        """Save the stream if it is time and it has changed."""
        if self._checkpointer is None or self._is_saved or self._checkpointer.seconds_left > 0:
            return
        await self._settle()
        await self._save()

    def _wait_seconds(self) -> float | None:
        """Return the seconds for which to wait for events; None: without limit."""
        waits = [self._seconds_left()]
        if self._uses_clock:
            waits.append(_TICK_SECONDS)
        if self._checkpointer is not None and not self._is_saved:
            waits.append(self._checkpointer.seconds_left)
        known = [max(0.0, wait) for wait in waits if wait is not None]
        return min(known, default=None)

    async def _process(self, source: str, chunk: LiveChunk) -> None:
        """Process a chunk in this process, or send it to the pool."""
        stream = self.stream
        if stream.starts_file(source, chunk):
            await self._take_all_results()
            stream.begin_file(source, chunk)
        if stream.rejects(source, chunk):
            await self._take_all_results()
            await self._put(stream.reject_chunk(source, chunk))
            return
        lines = stream.cut(source, chunk)
        pool = await self._pool_for(lines) if self._has_pool else None
        if pool is not None:
            await self._take_ready_results()
            pool.send(source, chunk.file, lines)
        elif stream.stages:
            blocks = await asyncio.to_thread(stream.read, source, lines)
            await self._put(stream.put(blocks))
        else:
            await self._take_all_results()
            await self._put(stream.take(source, lines))

    async def _pool_for(self, lines: bytes) -> LinePool | None:
        """Return the pool that processes lines, None if this process folds them."""
        is_large = len(lines) >= _WORKER_CHUNK_BYTES or bool(self.stream.stages)
        self._large_chunks_in_a_row = is_large * (self._large_chunks_in_a_row + 1)
        if self._pool is None and (
            self.stream.stages or self._large_chunks_in_a_row >= _LARGE_CHUNKS_BEFORE_WORKERS
        ):
            self._pool = make_pool(
                self.stream, self._merged.wake, self._handles,
                call_concurrency=self._call_concurrency, timeout=self._event_timeout,
            )  # fmt: skip
            await self._pool.start()
        return self._pool if is_large and self._pool is not None and self._pool.is_ready else None

    def _holds_clock(self) -> bool:
        """Whether events in the pool would become late if the clock advanced."""
        pool = self._pool
        return pool is not None and pool.is_busy and self.stream.settings.time is not None

    async def _take_ready_results(self) -> None:
        """Take results while the pool has one ready, or holds too much."""
        while self._pool is not None and self._pool.has_result and not self._should_give_back():
            await self._put(await self._pool.take())

    async def _take_all_results(self) -> None:
        """Take all results of the pool, and wait for those under way."""
        while self._pool is not None and self._pool.is_busy:
            await self._put(await self._pool.take())

    async def _settle(self) -> None:
        """Take all results of the pool, or after a stop give back lines that have not started."""
        while self._pool is not None and self._pool.is_busy:
            if self._should_give_back():
                for source, lines in self._pool.give_back():
                    self._events_given_back += self.stream.give_back(source, lines)
            if self._pool.is_busy:
                await self._put(await self._pool.take())

    def _should_give_back(self) -> bool:
        """Whether to give lines back instead of starting their transforms, after a stop."""
        if self._stopped_at is None:
            return False
        waited = time.monotonic() - self._stopped_at
        return self.stream.is_replayable or waited > _STOP_SECONDS

    async def _put(self, windows: list[Window]) -> None:
        if windows:
            self._is_saved = False
        await self._sink.put(windows)

    def _seconds_left(self) -> float | None:
        if self._duration is None:
            return None
        return self._started_at + self._duration - time.monotonic()

    def _memory(self) -> Memory:
        ours, theirs = measure_memory(), sum_memory(self._pool.pids if self._pool else ())
        self._peak_memory = max(self._peak_memory, ours.peak + theirs.peak)
        return Memory(ours.current + theirs.current, self._peak_memory)
