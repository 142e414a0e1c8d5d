"""One stream from its first event to its last window, whoever asked for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from asyncbatch.core.system import Memory, measure_memory, measure_memory_of, usable_cpus
from asyncbatch.pipeline.stream.helpers import FoldPool
from asyncbatch.transforms.spec import FunctionSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.core.tally import FailureBudget, StreamTally
    from asyncbatch.pipeline.stream.helpers import TransformPool
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.sources.base import LiveChunk
    from asyncbatch.sources.live.merge import MergedSources
    from asyncbatch.windows.events import Window

_TICK_SECONDS = 0.05
"""How often the clock is looked at where it ends windows."""
_CHUNKS_BEFORE_PAUSE = 64 * 1024
"""Fewer bytes at a time are no work for a worker: most likely somebody waits for their windows."""
CALL_CONCURRENCY = 100
"""Calls of async functions in flight."""
_STOP_SECONDS = 4.0
"""How long programs may work on what cannot be read again, once the stream is stopped."""
_READ_SECONDS = 32
"""How many times in a row much must come before workers are started: after 2 to 4 MiB."""


class StreamSnapshot(NamedTuple):
    """How far a stream is; `lag` is the watermark's, in microseconds.

    The tally counts from the beginning of the stream, `read` and `bytes` from that of this run.
    """

    tally: StreamTally
    read: int
    bytes: int
    elapsed_s: float
    lag: int | None
    memory: Memory
    left: int = 0
    """Events that had come when the stream was stopped, and were not worked on any more."""


class WindowConsumer(Protocol):
    """Takes windows that are over."""

    async def put(self, windows: Sequence[Window]) -> None:
        """Take windows, in order; a slow sink slows reading. Raises SinkError, OSError."""
        ...

    async def flush(self) -> None:
        """Have all that was put where it belongs. Raises as `put`."""
        ...


class CheckpointSaver(Protocol):
    """Keeps what another process needs to go on with a stream; see `checkpoint`."""

    @property
    def seconds_left(self) -> float:
        """How long it is until the stream is to be saved again."""
        ...

    async def save(self, *, stopping: bool = False) -> None:
        """Save the stream as it is, with all its windows put and flushed.

        It is `stopping` if those that are open are handed over as partial next. Raises SinkError.
        """
        ...


class StreamRun:
    """Takes all that comes in, and hands windows to a sink when they are over.

    It ends with its sources, after `duration` (in microseconds) or what `stream` may take, when
    `budget` is spent, or by `stop`; what is open is handed over then. `workers` processes help
    once events come in masses (None: one less than the CPUs). Raises UsageError for fields
    that cannot be meant. A `keeper` saves it now and then, and at its end.

    Transforms run in these processes from the first event on, one for each CPU if they are
    needed, but for functions of this process alone, and with 0 workers: then they run in a
    thread. Async ones run on the event loop, `call_concurrency` at a time. An event that takes
    longer than `timeout` seconds there is rejected.
    """

    def __init__(
        self,
        stream: StreamCore,
        inflow: MergedSources,
        sink: WindowConsumer,
        *,
        duration: int | None = None,
        budget: FailureBudget | None = None,
        workers: int | None = None,
        keeper: CheckpointSaver | None = None,
        call_concurrency: int = CALL_CONCURRENCY,
        timeout: float | None = None,
    ) -> None:
        self.stream = stream
        self._keeper, self._is_saved = keeper, True
        self._inflow, self._sink, self._budget = inflow, sink, budget
        self._duration = None if duration is None else duration / 1e6
        self._max_workers = usable_cpus() - 1 if workers is None else workers
        self._concurrency, self._timeout_s = call_concurrency, timeout
        self._crew: FoldPool | TransformPool | None = None
        """Who helps: with masses of events, or with programs."""
        self._in_a_row = 0
        """How many times in a row much has come at once."""
        settings = stream.settings
        is_ours_only = any(isinstance(one, FunctionSpec) for one in settings.transforms)
        in_workers = not is_ours_only and (workers != 0 or timeout is not None)
        self._runs_elsewhere = stream.runs_async or in_workers
        if workers is None and settings.transforms:
            self._max_workers = usable_cpus()
        self._ticks = settings.time is None or settings.idle is not None
        self._began, self._peak = time.monotonic(), 0
        self._before = (0, 0)
        """What the stream had read when this run began: events, bytes."""
        self._stopped_at: float | None = None
        self._left = 0
        """Events given back, as programs had not begun to work on them."""
        for source in inflow.sources:
            stream.join(source.name)
        inflow.prefer(stream.highest_time)

    @property
    def was_cut_short(self) -> bool:
        """Whether more might have come."""
        return not self._inflow.is_over or self.stream.is_full or self._left > 0

    def stop(self) -> None:
        """Take no more; `run` hands over what is open, and ends."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self._inflow.wake()

    async def run(self) -> None:
        """Carry the stream through.

        Raises TooManyKeysError, LineTooLongError, SourceError, SinkError, OSError.
        """
        self._began = time.monotonic()
        self._before = (self.stream.tally.read, self.stream.tally.bytes)
        try:
            for name, held in self.stream.held():
                await self._process(name, held)
            await self._take_all()
            for source, chunk in await self._inflow.rest():
                if not self.stream.is_full and not self.stream.has_left(source.name):
                    await self._process(source.name, chunk)
            await self._settle()
            await self._end(partial=self.was_cut_short)
        finally:
            if self._crew is not None:
                await self._crew.close()
            await self._inflow.close()

    def snapshot(self) -> StreamSnapshot:
        """Return how far it is."""
        elapsed = time.monotonic() - self._began
        tally, (read, size) = self.stream.tally, self._before
        return StreamSnapshot(
            tally, tally.read - read, tally.bytes - size, elapsed, self.stream.lag, self._memory(),
            self._left,
        )  # fmt: skip

    def is_over_budget(self, *, final: bool = False) -> bool:
        """Whether more events are lost than may be; `final` once there are no more."""
        tally = self.stream.tally
        return self._budget is not None and self._budget.is_exceeded(
            tally.failures, tally.read, final=final
        )

    async def _take_all(self) -> None:
        """Take events until there is a reason to stop."""
        stream, inflow = self.stream, self._inflow
        while not (self._stopped_at or inflow.is_over or stream.is_full or self.is_over_budget()):
            left = self._seconds_left()
            if left is not None and left <= 0:
                break
            crew = self._crew
            is_waited_for = isinstance(crew, FoldPool) and crew.is_busy
            has_result = crew is not None and crew.has_result
            found = await inflow.read(0 if is_waited_for or has_result else self._timeout())
            await self._take_ready()
            if found is None:
                if is_waited_for:
                    await self._catch_up()
            else:
                source, chunk = found
                if stream.has_left(source.name) and chunk.data:
                    stream.join(source.name)  # there is more of it since it was saved
                if not stream.has_left(source.name):
                    await self._process(source.name, chunk)
                    self._is_saved = False
                    if source.is_over:
                        await self._settle()
                    if source.is_over and not self._left:
                        await self._put(stream.leave(source.name))
                await asyncio.sleep(0)  # a source that always has more must not keep out signals
            if self._ticks and not self._holds_clock():
                await self._put(stream.tick())
            await self._save_in_time()

    async def _end(self, *, partial: bool) -> None:
        """Hand over what is open, so that it can be gone on with."""
        if partial:
            await self._save(stopping=True)
        await self._put(self.stream.finish(partial=partial))
        await self._sink.flush()
        if not partial:
            await self._save()

    async def _save(self, *, stopping: bool = False) -> None:
        if self._keeper is not None:
            await self._sink.flush()
            await self._keeper.save(stopping=stopping)
            self._is_saved = True

    async def _save_in_time(self) -> None:
        """Have the stream saved if it is time and there is something new."""
        if self._keeper is None or self._is_saved or self._keeper.seconds_left > 0:
            return
        await self._settle()
        await self._save()

    def _timeout(self) -> float | None:
        """Return how long may be waited for events."""
        waits = [self._seconds_left()]
        if self._ticks:
            waits.append(_TICK_SECONDS)
        if self._keeper is not None and not self._is_saved:
            waits.append(self._keeper.seconds_left)
        known = [max(0.0, wait) for wait in waits if wait is not None]
        return min(known, default=None)

    async def _process(self, source: str, chunk: LiveChunk) -> None:
        """Take a chunk, or have it taken in its turn by those that help."""
        stream = self.stream
        if stream.starts_file(source, chunk):
            await self._catch_up()
            stream.begin_file(source, chunk)
        if chunk.error:
            await self._catch_up()
            await self._put(stream.reject_chunk(source, chunk))
            return
        lines = stream.cut(source, chunk)
        if stream.stages:
            await self._transform(source, chunk.file, lines)
        elif not self._max_workers:
            await self._put(stream.take(source, lines))
        elif len(lines) < _CHUNKS_BEFORE_PAUSE:
            self._in_a_row = 0
            await self._catch_up()
            await self._put(stream.take(source, lines))
        elif (crew := await self._pools()) is None:
            await self._put(stream.take(source, lines))
        else:
            await self._take_ready()
            crew.send(source, chunk.file, lines)

    async def _transform(self, source: str, file: str, lines: bytes) -> None:
        """Have programs read lines."""
        if self._crew is None and self._runs_elsewhere:
            self._crew = self._make_transforms()
        if self._crew is None:
            blocks = await asyncio.to_thread(self.stream.read, source, lines)
            await self._put(self.stream.put(blocks))
            return
        await self._take_ready()
        self._crew.send(source, file, lines)

    def _make_transforms(self) -> TransformPool:
        wake = self._inflow.wake
        if self.stream.runs_async:
            from asyncbatch.pipeline.stream.async_programs import AsyncTransforms

            return AsyncTransforms(
                self.stream, wake, concurrency=self._concurrency, timeout=self._timeout_s
            )
        from asyncbatch.pipeline.stream.worker_programs import ProcessTransforms

        count = max(1, self._max_workers)
        return ProcessTransforms(self.stream, wake, count=count, timeout=self._timeout_s)

    async def _pools(self) -> FoldPool | None:
        """Return the workers, once there is enough to do and they are ready for it."""
        self._in_a_row += 1
        if self._crew is None and self._in_a_row >= _READ_SECONDS:
            self._crew = FoldPool(self.stream, self._max_workers)
            await self._crew.start()
        crew = self._crew
        return crew if isinstance(crew, FoldPool) and crew.is_ready else None

    def _holds_clock(self) -> bool:
        """Whether events are under way that would be late if time went on without them."""
        crew = self._crew
        return crew is not None and crew.is_busy and self.stream.settings.time is not None

    async def _take_ready(self) -> None:
        """Have the results of helpers taken that wait, or hold back more."""
        while self._crew is not None and self._crew.has_result and not self._should_give_back():
            await self._put(await self._crew.take())

    async def _catch_up(self) -> None:
        """Have all results of helpers taken."""
        while self._crew is not None and self._crew.is_busy:
            await self._put(await self._crew.take())

    async def _settle(self) -> None:
        """Have nothing under way: all results taken, or left for later by a stop."""
        while self._crew is not None and self._crew.is_busy:
            if not isinstance(self._crew, FoldPool) and self._should_give_back():
                for source, lines in self._crew.give_back():
                    self._left += self.stream.give_back(source, lines)
            if self._crew.is_busy:
                await self._put(await self._crew.take())

    def _should_give_back(self) -> bool:
        """Whether programs are to begin with nothing more."""
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
        return self._began + self._duration - time.monotonic()

    def _memory(self) -> Memory:
        ours, theirs = measure_memory(), measure_memory_of(self._crew.pids if self._crew else ())
        self._peak = max(self._peak, ours.peak + theirs.peak)
        return Memory(ours.current + theirs.current, self._peak)
