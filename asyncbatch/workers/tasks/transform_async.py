"""The lane that transforms records with concurrent async functions."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.core.aio import iterate_in_thread
from asyncbatch.core.batches import SplitFile
from asyncbatch.core.progress import Progress
from asyncbatch.core.records import Position
from asyncbatch.core.settings import MAX_BATCH_SECONDS
from asyncbatch.formats.failures import FeedError, FileTimeoutError
from asyncbatch.formats.lines import InvalidLine
from asyncbatch.sources.async_reader import AsyncReader
from asyncbatch.sources.reader import OPEN_ERRORS, InputOpener, close_opened, read_size
from asyncbatch.storage.local import Content
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.chain import make_stages
from asyncbatch.workers.engine import file_in_progress
from asyncbatch.workers.tasks.async_calls import AsyncCalls, CallTimer, cancel_call
from asyncbatch.workers.tasks.count import MAX_BATCH_BYTES, end_of_splits
from asyncbatch.workers.tasks.extractor import Extractor
from asyncbatch.workers.tasks.recorder import RECORD_ERRORS, RecordCursor, Recorder
from asyncbatch.workers.tasks.spool import Spool

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Iterator,
        Sequence,
    )

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Batch, Part, Split
    from asyncbatch.core.progress import FileInProgress
    from asyncbatch.sources.reader import Opened
    from asyncbatch.workers.tasks.async_calls import PendingOutputs
    from asyncbatch.workers.tasks.origin_columns import FileOrigin
    from asyncbatch.workers.tasks.record_slices import RecordSlice

# A file up to this size is read in one call, a larger one as its records are needed.
READ_WHOLE_BYTES = 8 * 1024 * 1024
# Results that may wait for a slow earlier call, as a multiple of the calls in flight.
CALLS_AHEAD = 10
LANES = 3  # Batches in flight: while one waits for its last calls, the others continue.


class _Begin(NamedTuple):
    path: str
    number: int  # of the file within the run
    origin: FileOrigin | None  # if columns tell of it


class _BeginSplit(NamedTuple):
    path: str
    origin: FileOrigin | None


class _EndSplit(NamedTuple):
    size: int
    problem: Exception | None


class _PendingCall(NamedTuple):
    cursor: RecordCursor
    task: PendingOutputs


class _SliceEnd(NamedTuple):
    cursor: RecordCursor


class _End(NamedTuple):
    size: int
    elapsed_ms: float
    problem: Exception | None


_PlainStep = (
    _Begin | _BeginSplit | InvalidLine | _SliceEnd | Position | _EndSplit | _End | SplitFile
)
# The steps of a file, in order. A call may still run when its turn comes.
_Step = _PlainStep | _PendingCall


class AsyncTransformLane:
    """A lane that transforms records on the event loop of this process.

    `slots` limits the calls in flight of all lanes. A file that
    takes more than `file_timeout` seconds fails.
    """

    def __init__(
        self,
        settings: RecordWorkSettings,
        slots: asyncio.Semaphore,
        file_timeout: float | None = None,
    ) -> None:
        self._file_timeout = file_timeout
        self._progress = Progress()
        self._batches: tuple[Batch, ...] = ()
        # the reason why the current file failed midway
        self._file_error: FileTimeoutError | FeedError | None = None
        files = settings.files
        self._opener = InputOpener(files)
        at_once = min(READ_WHOLE_BYTES, files.sizes.split_threshold)
        self._reader = AsyncReader(self._opener, files.max_file_size, at_once)
        self._concurrency = settings.call_concurrency
        self._extractor = Extractor(settings, self._opener)
        self._recorder = Recorder(settings)
        stages = make_stages(settings.transforms, self._opener.files, settings.row_check)
        self._calls = AsyncCalls(stages, slots)
        self._reads_text = settings.reads_text
        self.abandon = self._recorder.abandon
        self._iterate = partial(iterate_in_thread, in_thread=self._recorder.may_block)

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        self._batches = (batch,)
        self._progress.begin_batch()
        async with aclosing(self._parts(batch)) as parts:
            async for part in parts:
                part.retries = self._opener.take_retry_count()
                yield part
        self._progress.end_batch()
        self._batches = ()

    def file_in_progress(self) -> FileInProgress | None:
        return file_in_progress(self._progress, self._batches)

    async def _parts(self, batch: Batch) -> AsyncGenerator[Part, None]:
        recorder = self._recorder
        if batch.split is not None and batch.split.is_end_marker:
            yield end_of_splits(batch)
            return
        recorder.begin_batch(batch.start)
        self._extractor.limit = batch.limit
        self._calls.is_closing = False
        steps: asyncio.Queue[_Step | None] = asyncio.Queue(CALLS_AHEAD * self._concurrency)
        feeding = asyncio.create_task(self._feed(batch, steps))
        try:
            while (step := await steps.get()) is not None:
                async for part in self._record_step(step):
                    yield part
            await feeding
            async for part in self._iterate(recorder.flush()):
                yield part
        finally:
            self._calls.is_closing = True
            feeding.cancel()
            calls = [feeding]
            while not steps.empty():
                step = steps.get_nowait()
                if isinstance(step, _PendingCall):
                    step.task.cancel()
                    calls.append(step.task)  # type: ignore[arg-type]  # only awaited
            await asyncio.gather(*calls, return_exceptions=True)

    async def _feed(self, batch: Batch, steps: asyncio.Queue[_Step | None]) -> None:
        """Put the steps of the files of `batch` into `steps`, with calls started."""
        try:
            if batch.split is not None:
                await self._feed_split(batch.paths[0], batch.split, steps)
                return
            deadline, taken = time.monotonic() + MAX_BATCH_SECONDS, 0
            began, clock = time.perf_counter(), CallTimer(self._file_timeout)
            async with aclosing(self._reader.contents(batch.paths)) as contents:
                number = batch.start - 1
                async for path, opened in contents:
                    number += 1
                    if form := await asyncio.to_thread(self._extractor.needs_split, path, opened):
                        close_opened(opened)
                        await steps.put(SplitFile(form, batch.resume))
                        break
                    if isinstance(opened, Content):
                        opened.on_read = self._progress.note_bytes
                    origin, opened = await self._read_origin(path, opened)  # noqa: PLW2901 - the error of reading it, if any
                    await steps.put(_Begin(path, number, origin))
                    problem: Exception | None = None
                    try:
                        await self._feed_file(path, opened, batch.resume, steps, clock)
                    except RECORD_ERRORS as error:
                        problem = error
                    size = read_size(opened)
                    await steps.put(_End(size, (time.perf_counter() - began) * 1000, problem))
                    taken += size
                    if taken >= MAX_BATCH_BYTES or time.monotonic() > deadline:
                        break
                    began, clock = time.perf_counter(), CallTimer(self._file_timeout)
        finally:
            await steps.put(None)

    async def _read_origin(self, path: str, opened: Opened) -> tuple[FileOrigin | None, Opened]:
        """Return the origin of a file, if columns tell of it; and `opened`, or a new error."""
        reader = self._recorder.origin_reader
        if reader is None or isinstance(opened, Exception):
            return None, opened
        try:
            if reader.may_block:
                return await asyncio.to_thread(reader.origin, path, opened), opened
            return reader.origin(path, opened), opened
        except OPEN_ERRORS as error:
            close_opened(opened)
            return None, error

    async def _feed_file(
        self,
        path: str,
        opened: Opened,
        resume: Position | None,
        steps: asyncio.Queue[_Step | None],
        clock: CallTimer,
    ) -> None:
        """Put the steps of a file into `steps`. Raises one of `RECORD_ERRORS`."""
        slices = self._extractor.slices(path, opened, resume)
        await self._feed_slices(path, slices, steps, clock)

    async def _feed_split(
        self, path: str, split: Split, steps: asyncio.Queue[_Step | None]
    ) -> None:
        if split.chunk is not None:
            path = split.chunk.file
        problem: Exception | None = None
        origin: FileOrigin | None = None
        if reader := self._recorder.origin_reader:
            find = reader.origin_of_split if split.chunk is None else reader.origin_of_feed
            try:
                origin = await asyncio.to_thread(find, path)
            except OPEN_ERRORS as error:
                problem = error
        await steps.put(_BeginSplit(path, origin))
        if problem is not None:
            await steps.put(_EndSplit(split.length, problem))
            return
        try:
            slices = self._extractor.read_split(path, split)
            await self._feed_slices(path, slices, steps, CallTimer(self._file_timeout))
        except RECORD_ERRORS as error:
            problem = error
        await steps.put(_EndSplit(split.length, problem))

    async def _feed_slices(
        self,
        path: str,
        slices: Iterator[RecordSlice | InvalidLine | Position],
        steps: asyncio.Queue[_Step | None],
        clock: CallTimer,
    ) -> None:
        while (found := await asyncio.to_thread(self._next_slice, slices)) is not None:
            record_slice, records = found
            clock.check()
            if isinstance(record_slice, (InvalidLine, Position)):
                await clock.exclude(steps.put(record_slice))
                continue
            for at, record in enumerate(records):
                cursor = RecordCursor(path, record_slice, at)
                task = await self._calls.start(record, cursor, clock)
                try:
                    await clock.exclude(steps.put(_PendingCall(cursor, task)))
                except asyncio.CancelledError:
                    task.cancel()  # no other code has it yet
                    raise
            await clock.exclude(steps.put(_SliceEnd(RecordCursor(path, record_slice))))

    def _next_slice(
        self, slices: Iterator[RecordSlice | InvalidLine | Position]
    ) -> tuple[RecordSlice | InvalidLine | Position, Sequence[Any]] | None:
        """Return the next slice and its records, decoded in a thread."""
        record_slice = next(slices, None)
        if record_slice is None:
            return None
        if isinstance(record_slice, (InvalidLine, Position)) or record_slice.error is not None:
            return record_slice, ()
        return (
            record_slice,
            record_slice.texts() if self._reads_text else record_slice.values(),
        )

    async def _record_step(self, step: _Step) -> AsyncIterator[Part]:
        """Record a step; yield parts."""
        recorder = self._recorder
        if not isinstance(step, _PendingCall):
            async for part in self._iterate(self._record_plain_step(step)):
                yield part
        elif self._file_error:
            await cancel_call(step.task)
        else:
            async for part in self._record_call(step.cursor, step.task):
                yield part
        async for part in self._iterate(recorder.flush_if_large()):
            yield part

    def _record_plain_step(self, step: _PlainStep) -> Iterator[Part]:
        """Record a step that is already complete; yield parts."""
        recorder = self._recorder
        match step:
            case _Begin(path, number, origin):
                self._file_error = None
                self._progress.begin_file(number)
                recorder.begin_file(path)
                recorder.set_origin(origin)
            case _BeginSplit(path, origin):
                self._file_error = None
                recorder.begin_split(path)
                recorder.set_origin(origin)
            case _End(size, elapsed_ms, problem):
                recorder.end_file(size, elapsed_ms, self._file_error or problem)
                self._progress.end_file()
            case _EndSplit(size, problem):
                yield from recorder.end_split(size, self._file_error or problem)
            case _ if self._file_error:
                return
            case Position():
                yield from recorder.note_position(step)
            case SplitFile():
                yield from recorder.report_split_file(step)
            case InvalidLine():
                recorder.reject_line(step)
            case _SliceEnd(cursor):
                if cursor.record_slice.error is not None:
                    recorder.reject(cursor, cursor.record_slice.error)
                try:
                    recorder.note_slice(cursor.record_slice)
                except FeedError as error:
                    self._file_error = error
                recorder.write_rows(cursor.record_slice)

    async def _record_call(self, cursor: RecordCursor, task: PendingOutputs) -> AsyncIterator[Part]:
        try:
            # Shielded: the lane itself handles its cancellation.
            values = await asyncio.shield(task)
        except RecordError as error:
            self._recorder.reject(cursor, error)
        except FileTimeoutError as error:
            self._file_error = error
        else:
            if isinstance(values, Spool):
                with values:
                    async for part in self._iterate(self._recorder.keep_spooled(values, cursor)):
                        yield part
            else:
                self._recorder.keep_outputs(values, cursor)
