"""The lane that transforms events with concurrent async functions."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING

from asyncbatch.formats.decoder import decode
from asyncbatch.formats.failures import FileTimeoutError, file_failure
from asyncbatch.formats.lines import InvalidLine
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.chain import reads_text
from asyncbatch.workers.tasks.async_calls import AsyncCalls, CallTimer
from asyncbatch.workers.tasks.events import EventsPart
from asyncbatch.workers.tasks.spool import SPOOLED_OUTPUTS, Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.transforms.base import Transform
    from asyncbatch.transforms.call import AsyncCall
    from asyncbatch.workers.tasks.async_calls import PendingOutputs
    from asyncbatch.workers.tasks.event_reader import EventBlockBuilder, EventReader, Line
    from asyncbatch.workers.tasks.events import LineBatch


class AsyncEventsLane:
    """A lane that calls async functions on the event loop, `concurrency` of them at a time.

    It takes the next batch while calls of the last one are in flight. An event that takes longer
    than `timeout` seconds is rejected.
    """

    def __init__(
        self,
        settings: StreamSettings,
        reader: EventReader,
        stages: Sequence[Transform | AsyncCall],
        concurrency: int,
        timeout: float | None,
    ) -> None:
        self._reader, self._timeout = reader, timeout
        self._reads_text = reads_text(settings.transforms)
        self._calls = AsyncCalls(stages, asyncio.Semaphore(concurrency))

    async def run(self, batch: LineBatch) -> AsyncIterator[EventsPart | None]:
        """Yield None when all calls have started, then the events of a batch."""
        reader = self._reader
        reader.begin_file(batch.file, batch.position, batch.start)
        builder = reader.new_builder()
        calls: list[tuple[Line | InvalidLine, PendingOutputs | None]] = []
        try:
            for line in reader.line_reader.read(builder, batch.lines, batch.position):
                call = None if isinstance(line, InvalidLine) else await self._start(line)
                calls.append((line, call))
            yield None
            for line, call in calls:
                if call is None or isinstance(line, InvalidLine):
                    builder.reject(line)
                else:
                    await self._add(builder, line, call)
            yield EventsPart([builder.finish("", 0)])
        finally:
            pending = [call for _, call in calls if call is not None and not call.done()]
            self._calls.is_closing = self._calls.is_closing or bool(pending)
            for call in pending:
                call.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _start(self, line: Line) -> PendingOutputs:
        record = line.text if self._reads_text else decode(line.text)
        return await self._calls.start(record, line, CallTimer(self._timeout))

    async def _add(self, builder: EventBlockBuilder, line: Line, call: PendingOutputs) -> None:
        try:
            outputs = await asyncio.shield(call)
            if isinstance(outputs, Spool):
                with outputs:
                    rows = chain.from_iterable(outputs.read(SPOOLED_OUTPUTS))
                    builder.add(line, rows)
            else:
                builder.add(line, outputs)
        except RecordError as error:
            builder.reject(line, error)
        except FileTimeoutError as error:
            failure = file_failure(line.file, error)
            builder.reject(line, RecordError(failure.kind, failure.message))
