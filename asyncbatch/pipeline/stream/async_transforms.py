"""Async transforms of a stream on the event loop: many concurrent calls, results in line order."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.formats.decoder import decode
from asyncbatch.formats.lines import InvalidLine
from asyncbatch.pipeline.stream.pools import TransformPool
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.call import AsyncCall, Call
from asyncbatch.workers.tasks.event_reader import EventBlockBuilder, LineReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.pipeline.stream.pools import TransformJob
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.transforms.base import Transform
    from asyncbatch.workers.tasks.event_reader import EventBlock, Line


class AsyncTransforms(TransformPool):
    """A pool that transforms up to `concurrency` events at a time on the event loop.

    An event that takes longer than `timeout` seconds is rejected.
    """

    size = 4 * 1024
    max_bytes_ahead = 64 * 1024  # hundreds of events: enough for all concurrent calls

    def __init__(
        self,
        stream: StreamCore,
        wake: Callable[[], None],
        *,
        concurrency: int,
        timeout: float | None = None,
    ) -> None:
        super().__init__(stream, wake)
        settings = stream.settings
        self._reads_text = RecordWorkSettings(transforms=settings.transforms).reads_text
        self._lines = LineReader()
        self._slots, self._start_lock = asyncio.Semaphore(concurrency), asyncio.Lock()
        self._timeout = timeout
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closing = False  # whether a cancelled call was cancelled by `close`

    async def close(self) -> None:
        """Cancel all calls, and wait for their end."""
        self._is_closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._discard_results()

    def _schedule(self, job: TransformJob) -> None:
        self._keep_task(asyncio.create_task(self._run_job(job)))

    def _cancel(self, job: TransformJob) -> None:
        job.result.cancel()

    def _keep_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_job(self, job: TransformJob) -> None:
        try:
            block = await self._read(job)
        except Exception as error:  # noqa: BLE001 - raised when the result is taken
            if not job.result.done():
                job.result.set_exception(error)
        else:
            if not job.result.done():
                job.result.set_result([block])
        self._wake()

    async def _read(self, job: TransformJob) -> EventBlock:
        stream = self._stream
        fields = stream.reader(job.source).fields
        calls: list[tuple[Line | InvalidLine, asyncio.Task[Sequence[Any]] | None]] = []
        async with (
            self._start_lock
        ):  # jobs start one after another, so that calls start in line order
            if job.result.cancelled():  # `_cancel` was called
                raise asyncio.CancelledError
            job.is_started = True
            piece = job.piece
            builder = EventBlockBuilder(
                piece.file, stream.settings, fields, keeps_texts=stream.keeps_texts
            )
            for line in self._lines.read(builder, piece.lines, piece.start):
                if isinstance(line, InvalidLine):
                    calls.append((line, None))
                    continue
                await self._slots.acquire()
                task = asyncio.create_task(self._call(line))
                task.add_done_callback(lambda _: self._slots.release())
                self._keep_task(task)
                calls.append((line, task))
        for line, call in calls:
            if call is None or isinstance(line, InvalidLine):
                builder.reject(line)
                continue
            try:
                builder.add(line, await call)
            except RecordError as error:
                builder.reject(line, error)
        return builder.finish(job.source, 0)

    async def _call(self, line: Line) -> Sequence[Any]:
        """Return the outputs for a line. Raises RecordError."""
        values: Sequence[Any] = [line.text if self._reads_text else decode(line.text)]
        scope = asyncio.timeout(self._timeout)
        try:
            async with scope:
                for stage in self._stream.stages:
                    if isinstance(stage, AsyncCall):
                        values = await _collect_async(stage, values, line)
                    elif isinstance(stage, Call):
                        values = await asyncio.to_thread(_collect, stage, values, line)
                    else:
                        values = _collect(stage, values, line)
        except TimeoutError:
            raise RecordError(
                "timeout", f"took longer than {self._timeout:g} s (--timeout)"
            ) from None
        except (asyncio.CancelledError, GeneratorExit) as error:
            if self._is_closing:
                raise
            # The awaited function leaked this cancellation; the task itself was not cancelled.
            raise RecordError("transform", type(error).__name__) from None
        return values


def _collect(stage: Transform, values: Sequence[Any], line: Line) -> list[Any]:
    return [output for value in values for output in stage(value, line)]


async def _collect_async(stage: AsyncCall, values: Sequence[Any], line: Line) -> list[Any]:
    made: list[Any] = []
    for value in values:
        async with aclosing(stage.outputs(value, line)) as outputs:
            made += [output async for output in outputs]
    return made
