"""One stream from its first event to its last window, whoever asked for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from asyncbatch.cpus import usable_cpus
from asyncbatch.memory import Memory, measure, measure_all
from asyncbatch.streams.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.budget import FailureBudget
    from asyncbatch.streams.chunks import Chunk
    from asyncbatch.streams.inflow import Inflow
    from asyncbatch.streams.stream import Stream
    from asyncbatch.streams.tally import StreamTally
    from asyncbatch.windows.events import Window

_TICK_SECONDS = 0.05
"""How often the clock is looked at where it ends windows."""
_MUCH = 64 * 1024
"""Fewer bytes at a time are no work for a worker: most likely somebody waits for their windows."""
_ENOUGH = 128
"""How many times in a row much must come before workers are started: after 8 to 16 MiB."""


class StreamSnapshot(NamedTuple):
    """How far a stream is; `lag` is the watermark's, in microseconds."""

    tally: StreamTally
    elapsed_s: float
    lag: int | None
    memory: Memory


class WindowSink(Protocol):
    """Takes windows that are over."""

    async def put(self, windows: Sequence[Window]) -> None:
        """Take windows, in order; a slow sink slows reading. Raises SinkError, OSError."""
        ...


class StreamRun:
    """Takes all that comes in, and hands windows to a sink when they are over.

    It ends with its sources, after `duration` (in microseconds) or what `stream` may take, when
    `budget` is spent, or by `stop`; what is open is handed over then. `workers` processes help
    once events come in masses (None: one less than the CPUs). Raises UsageError for fields
    that cannot be meant.
    """

    def __init__(
        self,
        stream: Stream,
        inflow: Inflow,
        sink: WindowSink,
        *,
        duration: int | None = None,
        budget: FailureBudget | None = None,
        workers: int | None = None,
    ) -> None:
        self.stream = stream
        self._inflow, self._sink, self._budget = inflow, sink, budget
        self._duration = None if duration is None else duration / 1e6
        self._max_workers = usable_cpus() - 1 if workers is None else workers
        self._crew: Crew | None = None
        self._in_a_row = 0
        """How many times in a row much has come at once."""
        settings = stream.settings
        self._runs_programs = bool(settings.transforms)
        self._ticks = settings.time is None or settings.idle is not None
        self._began, self._peak = time.monotonic(), 0
        self._is_stopped = False
        for source in inflow.sources:
            stream.join(source.name)
        inflow.prefer(stream.reached)

    @property
    def was_cut_short(self) -> bool:
        """Whether more might have come."""
        return not self._inflow.is_over or self.stream.is_full

    def stop(self) -> None:
        """Take no more; `run` hands over what is open, and ends."""
        self._is_stopped = True
        self._inflow.wake()

    async def run(self) -> None:
        """Carry the stream through.

        Raises TooManyKeysError, LineTooLongError, SourceError, SinkError, OSError.
        """
        self._began = time.monotonic()
        try:
            await self._take_all()
            await self._catch_up()
            await self._put(self.stream.finish(partial=self.was_cut_short))
        finally:
            if self._crew is not None:
                await self._crew.close()
            await self._inflow.close()

    def snapshot(self) -> StreamSnapshot:
        """Return how far it is."""
        elapsed = time.monotonic() - self._began
        return StreamSnapshot(self.stream.tally, elapsed, self.stream.lag, self._memory())

    def is_over_budget(self, *, final: bool = False) -> bool:
        """Whether more events are lost than may be; `final` once there are no more."""
        tally = self.stream.tally
        return self._budget is not None and self._budget.is_spent(
            tally.failures, tally.read, final=final
        )

    async def _take_all(self) -> None:
        """Take events until there is a reason to stop."""
        stream, inflow = self.stream, self._inflow
        while not (self._is_stopped or inflow.is_over or stream.is_full or self.is_over_budget()):
            left = self._seconds_left()
            if left is not None and left <= 0:
                break
            timeout = min(_TICK_SECONDS, left or _TICK_SECONDS) if self._ticks else left
            is_busy = self._crew is not None and self._crew.is_busy
            found = await inflow.read(0 if is_busy else timeout)
            if found is None:
                await self._catch_up()
            else:
                source, chunk = found
                await self._hand_on(source.name, chunk)
                if source.is_over:
                    await self._catch_up()
                    await self._put(stream.leave(source.name))
                await asyncio.sleep(0)  # a source that always has more must not keep out signals
            if self._ticks:
                await self._put(stream.tick())

    async def _hand_on(self, source: str, chunk: Chunk) -> None:
        """Take a chunk, with the help of workers once there is much to do."""
        stream = self.stream
        if stream.begins_file(source, chunk):
            await self._catch_up()
            stream.begin_file(source, chunk)
        lines = stream.cut(source, chunk)
        if not self._max_workers or not stream.can_fold:
            await self._put(await self._taken(source, lines))
            return
        if len(lines) < _MUCH:
            self._in_a_row = 0
            await self._catch_up()
            await self._put(stream.take(source, lines))
            return
        crew = await self._helpers()
        if crew is None:
            await self._put(stream.take(source, lines))
            return
        while crew.has_result:
            await self._put(await crew.take())
        crew.send(source, lines)

    async def _helpers(self) -> Crew | None:
        """Return the workers, once there is enough to do and they are ready for it."""
        self._in_a_row += 1
        if self._crew is None and self._in_a_row >= _ENOUGH:
            self._crew = Crew(self.stream, self._max_workers)
            await self._crew.start()
        return self._crew if self._crew is not None and self._crew.is_ready else None

    async def _catch_up(self) -> None:
        """Have all results of workers taken."""
        while self._crew is not None and self._crew.is_busy:
            await self._put(await self._crew.take())

    async def _taken(self, source: str, lines: bytes) -> list[Window]:
        """Take lines: off the event loop if it may take long."""
        if self._runs_programs:
            return await asyncio.to_thread(self.stream.take, source, lines)
        return self.stream.take(source, lines)

    async def _put(self, windows: list[Window]) -> None:
        if windows:
            await self._sink.put(windows)

    def _seconds_left(self) -> float | None:
        if self._duration is None:
            return None
        return self._began + self._duration - time.monotonic()

    def _memory(self) -> Memory:
        ours, theirs = measure(), measure_all(self._crew.pids if self._crew else ())
        self._peak = max(self._peak, ours.peak + theirs.peak)
        return Memory(ours.current + theirs.current, self._peak)
