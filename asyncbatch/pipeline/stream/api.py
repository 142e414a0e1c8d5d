"""The class `Stream`: sources, windows and a target, composed by a program."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections import deque
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeGuard

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.config.job import (
    RecordWorkSettings,
    StreamSettings,
    checked_settings,
)
from asyncbatch.config.options.aggregates import DEFAULT_MAX_KEYS
from asyncbatch.core.retry import Retries
from asyncbatch.core.units import parse_duration
from asyncbatch.errors import AsyncbatchError, UsageError
from asyncbatch.formats.decoder import decode
from asyncbatch.pipeline.stream.delivery import DeliverySettings, StreamDelivery
from asyncbatch.pipeline.stream.run import CALL_CONCURRENCY, StreamRun
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sinks.windows import make_target
from asyncbatch.sources.iterables import IterableSource
from asyncbatch.sources.live.merge import MergedSources
from asyncbatch.sources.live.open import LiveOptions, make_sources
from asyncbatch.storage.append import AppendFile
from asyncbatch.transforms.spec import step_specs
from asyncbatch.windows.aggregates import parse_aggregates
from asyncbatch.windows.spec import parse_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.pipeline.stream.run import StreamSnapshot
    from asyncbatch.sources.live.open import Origin
    from asyncbatch.transforms.spec import Step, TransformSpec
    from asyncbatch.windows.events import Window
    from asyncbatch.windows.times import Unit

    # Text as on the command line (`500ms`, `5s`), a timedelta, or seconds.
    Span: TypeAlias = str | timedelta | float
    # A new file, or a function that is called with each item
    ItemHandler: TypeAlias = str | os.PathLike[str] | Callable[[dict[str, Any]], object]


class WindowQueue:
    """A queue of closed windows. The run waits until the program has taken them: backpressure."""

    def __init__(self) -> None:
        self.pending: deque[Window] = deque()  # windows that were not taken
        self._has_windows, self._is_empty = asyncio.Event(), asyncio.Event()
        self._is_stopped = self._is_ended = False

    async def put(self, windows: Sequence[Window]) -> None:
        """Add windows, and wait until they are taken."""
        if not windows:
            return
        self.pending.extend(windows)
        self._has_windows.set()
        while self.pending and not self._is_stopped:
            self._is_empty.clear()
            await self._is_empty.wait()

    async def flush(self) -> None:
        """Do nothing: `put` holds no windows back."""

    async def take(self) -> Window | None:
        """Return the next window; None after the last."""
        while not self.pending and not self._is_ended:
            self._has_windows.clear()
            self._is_empty.set()
            await self._has_windows.wait()
        return self.pending.popleft() if self.pending else None

    def stop_waiting(self) -> None:
        """Stop waiting for the program. Windows that it has not taken stay in `pending`."""
        self._is_stopped = True
        self._is_empty.set()

    def end(self) -> None:
        """Note that no more windows come: `take` then returns None at the end."""
        self._is_ended = True
        self._has_windows.set()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class WindowResult(Struct, frozen=True):
    """The aggregates of one window and key.

    `start` belongs to the window, `end` does not; both are in UTC. A time outside the years 1 to
    9999 becomes the first or last datetime. `partial`: the window was closed early, and could have
    got more events.
    """

    start: datetime
    end: datetime
    key: dict[str, Any]
    aggregates: dict[str, Any]
    partial: bool = False


def result_of(stream: StreamCore, window: Window) -> WindowResult:
    """Return the result of a window, in the form for programs."""
    return WindowResult(
        _datetime(window.start),
        _datetime(window.end),
        stream.keys.named(window.key),
        stream.recipe.results(window.totals),
        window.partial,
    )


def _datetime(micros: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return _FIRST if micros < 0 else _LAST


ARRIVAL = "arrival"  # instead of a field: the time at which the event arrived
_GRACE_SECONDS = 8.0  # time to flush the open windows after the program has left the stream
_CANCEL_SECONDS = 0.5  # time between the cancellations after that


class Stream:
    """Puts events into windows of time as they arrive, and yields each closed window.

        async with asyncbatch.Stream(events(), by="page", aggregates=["count"]) as stream:
            async for window in stream:
                print(window.start, window.key, window.aggregates)

    A `source` is an iterable of events, async or not (objects, or lines of JSON as text or bytes);
    a path, "-" or "simulate:" as on the command line; or a list of these, read concurrently.
    Windows, times and aggregates are those of the command: `window` as text, `time` a field or
    "arrival", `by` and `aggregates` lists, the latter also a dict by name. Durations are text,
    timedeltas or seconds. `transforms` are plain functions, and the results of `jq`, `fields`,
    `require`, `schema` and `call`.

    Late events and rejected records are counted. `late` and `dead_letter` are files for them, or
    functions that are called with each: an event, or the object of a dead letter. A program that
    takes no windows stops the reading. The stream ends with its sources, after `duration` or
    `max_events`, after more failures than `max_failures`, or by `stop`.

    Raises UsageError for invalid or contradicting arguments.
    """

    def __init__(
        self,
        source: Origin | Sequence[Origin],
        transforms: Iterable[Step] = (),
        to: str | os.PathLike[str] | None = None,
        *,
        table: str | None = None,
        window: str = "tumbling:5s",
        time: str = "timestamp",
        time_unit: Unit = "auto",
        by: str | Sequence[str] = (),
        aggregates: str | Sequence[str] | Mapping[str, str] = ("count",),
        lateness: Span = 0,
        idle_timeout: Span | None = None,
        max_future: Span | None = None,
        max_keys: int = DEFAULT_MAX_KEYS,
        overflow_key: str | None = None,
        late: ItemHandler | None = None,
        dead_letter: ItemHandler | None = None,
        duration: Span | None = None,
        max_events: int | None = None,
        max_failures: FailureBudget | None = None,
        follow: bool = False,
        from_end: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: Span = 10,
        call_concurrency: int = CALL_CONCURRENCY,
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 0.2,
        workers: int | None = None,
        tracebacks: bool = False,
    ) -> None:
        if from_end and not follow:
            raise UsageError(
                "from_end needs follow: it skips the events that are there at the start"
            )
        self._origins, self._live_options = source, LiveOptions(follow, from_end)
        self._files: dict[str, AppendFile | None] = {}
        try:
            settings = StreamSettings(
                window=parse_window(window),
                aggregates=parse_aggregates(aggregates),
                by=(by,) if isinstance(by, str) else tuple(by),
                time=None if time == ARRIVAL else time,
                unit=time_unit,
                lateness=_micros("lateness", lateness) or 0,
                idle=_micros("idle_timeout", idle_timeout),
                max_future=_micros("max_future", max_future),
                max_keys=_check_minimum(1, "max_keys", max_keys) or 1,
                overflow_key=overflow_key,
                transforms=_checked_transforms(transforms),
                letters=dead_letter is not None,
                tracebacks=tracebacks,
                retries=Retries(_check_minimum(0, "retries", retries) or 0, retry_delay),
            )
            for name, reason in settings.contradictions(has_late=late is not None):
                raise UsageError(f"{name} {reason}")
            self._core = StreamCore(
                settings,
                late=self._line_handler("late", late),
                reject=self._line_handler("dead_letter", dead_letter),
                max_events=_check_minimum(1, "max_events", max_events),
            )
            self._core.check()
            length = _micros("duration", duration)
            self._delivery = DeliverySettings(
                None if to is None else os.fspath(to),
                table,
                None if checkpoint is None else os.fspath(checkpoint),
                _micros("checkpoint_every", checkpoint_every) or 0,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._workers = _check_minimum(0, "workers", workers)
        self._queue = WindowQueue()
        if to is None and table is not None:
            raise UsageError("table needs a database: name it with `to`")
        if to is not None:
            self._check_target(os.fspath(to), table)
        self._run_options: dict[str, Any] = {
            "duration": length,
            "budget": max_failures,
            "call_concurrency": call_concurrency,
            "timeout": timeout,
        }
        self._run: StreamRun | None = None
        self._task: asyncio.Task[None] | None = None
        self._errors: list[BaseException] = []
        self._is_stopped = False

    async def __aenter__(self) -> Self:
        """Start the stream. Raises UsageError if it cannot start, LockHeldError."""
        if self._run is not None:
            raise UsageError("a Stream runs only once: make a new one")
        async with AsyncExitStack() as stack:
            stack.callback(self._queue.end)
            sources = make_sources(self._origins, self._live_options)
            iterables = [one for one in sources if isinstance(one, IterableSource)]
            for source in iterables:
                stack.push_async_callback(source.aclose)
            stream_delivery = StreamDelivery(
                self._delivery, self._core, sources, self._files, self.stop
            )
            workers = self._workers
            if workers is None and len(iterables) == len(sources):
                workers = 0  # the iterables run in this process, and are most of the work
            run = self._run = StreamRun(
                self._core,
                MergedSources(sources),
                stream_delivery.writer or self._queue,
                workers=workers,
                checkpointer=stream_delivery.checkpointer,
                **self._run_options,
            )
            try:
                await asyncio.to_thread(stream_delivery.open)
            except BaseException:
                stream_delivery.abandon()
                for one in sources:
                    one.close()
                raise
            for source in iterables:
                source.on_failure = run.stop
            if self._is_stopped:
                run.stop()
            self._task = asyncio.create_task(
                self._carry_out(run, stream_delivery, iterables, stack.pop_all()),
                name="asyncbatch-stream",
            )
        return self

    async def run(self) -> StreamSnapshot:
        """Run to the end, with the windows going to `to`; return the last snapshot.

        Raises the exceptions of iteration. On cancellation, the open windows are flushed first.
        """
        if self._delivery.to is None:
            raise UsageError("run() needs a target: name it with `to`, or iterate over the windows")
        async with self:
            assert self._task is not None
            await asyncio.wait((self._task,))
        return self.snapshot()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the stream, if it is running. Windows that were not taken are then in `rest`.

        Raises the exceptions of iteration, unless the body of `async with` has raised another.
        """
        assert self._task is not None
        self._queue.stop_waiting()
        self.stop()
        try:
            await asyncio.wait((self._task,), timeout=_GRACE_SECONDS)
        finally:  # even if this task is cancelled once more
            while not self._task.done():
                self._task.cancel()
                await asyncio.wait((self._task,), timeout=_CANCEL_SECONDS)
        if error is None:
            self._raise_errors()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WindowResult:
        """Return the next closed window. At the end, raises the error of the stream.

        These are the exceptions of the program's own sources and functions, raised after the
        earlier windows; TooManyKeysError, SinkError, OSError.
        """
        if self._delivery.to is not None:
            raise UsageError("the windows go to the target that `to` names: await run() instead")
        if self._task is None:
            raise UsageError("use the stream in `async with`, which ends it in any case")
        window = await self._queue.take()
        if window is None:
            await asyncio.wait((self._task,))
            self._raise_errors()
            raise StopAsyncIteration
        return result_of(self._core, window)

    def stop(self) -> None:
        """Read no more events. Iteration continues with the open windows, and ends.

        Generators are closed; the events they gave are in the windows.
        """
        self._is_stopped = True
        if self._run is not None:
            self._run.stop()

    def snapshot(self) -> StreamSnapshot:
        """Return the progress of the stream. Raises UsageError before its start."""
        if self._run is None:
            raise UsageError("the stream has not started: use it in `async with`")
        return self._run.snapshot()

    @property
    def open(self) -> list[WindowResult]:
        """The open windows in their current state, as partial ones."""
        return [
            result_of(self._core, replace(one, partial=True)) for one in self._core.open_windows
        ]

    @property
    def rest(self) -> list[WindowResult]:
        """The windows that were not taken, after the program has left the stream."""
        return [result_of(self._core, window) for window in self._queue.pending]

    @property
    def is_over_budget(self) -> bool:
        """Whether more events were rejected or late than `max_failures` allows."""
        return self._run is not None and self._run.is_over_budget(final=True)

    async def _carry_out(
        self,
        run: StreamRun,
        stream_delivery: StreamDelivery,
        iterables: Sequence[IterableSource],
        stack: AsyncExitStack,
    ) -> None:
        ended = False
        try:
            async with stack:  # closes the iterables
                try:
                    await run.run()
                    ended = True
                finally:
                    await stream_delivery.finish(ended=ended)
        except Exception as error:  # noqa: BLE001 - raised to the iterating task, or at the exit
            self._errors.append(error)
        self._errors += [source.error for source in iterables if source.error is not None]

    def _raise_errors(self) -> None:
        """Raise the error of the stream, unless it was raised before."""
        errors, self._errors = self._errors, []
        if self._task is not None and self._task.cancelled() and not errors:
            raise AsyncbatchError("the stream was cancelled before its end")
        if len(errors) > 1:
            raise BaseExceptionGroup("the stream ended with several errors", errors)
        if errors:
            raise errors[0]

    def _check_target(self, name: str, table: str | None) -> None:
        """Raise UsageError for an unsuitable target."""
        if make_target(name, self._core.schema, table=table) is None:
            raise UsageError("`to` cannot be standard output: iterate over the windows instead")

    def _line_handler(
        self, name: str, handler: ItemHandler | None
    ) -> Callable[[bytes], None] | None:
        """Return a function that passes lines to a file or to `handler`. Raises UsageError."""
        if handler is None:
            return None
        if _is_path(handler):
            file = AppendFile(os.fspath(handler), is_private=True)
            self._files[f"--{name.replace('_', '-')}"] = file
            return file.write
        if not callable(handler) or inspect.iscoroutinefunction(handler):
            raise UsageError(f"{name} must be a file name or a plain function")
        return partial(self._call_handler, handler)

    def _call_handler(self, handler: Callable[[dict[str, Any]], object], lines: bytes) -> None:
        """Call a function with the object of each line."""
        try:
            for line in lines.splitlines():
                handler(decode(line))
        except Exception as error:  # noqa: BLE001 - code of the program may raise any exception
            self._errors.append(error)
            self.stop()


def _checked_transforms(transforms: Iterable[Step]) -> tuple[TransformSpec, ...]:
    """Return the specs of transforms, after a check. Raises UsageError."""
    return checked_settings(RecordWorkSettings(transforms=tuple(step_specs(transforms)))).transforms


def _is_path(handler: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(handler, str | os.PathLike)


def _micros(name: str, span: Span | None) -> int | None:
    """Return a span in microseconds, None for None. Raises ValueError."""
    if span is None:
        return None
    if isinstance(span, str):
        return parse_duration(span)
    if not isinstance(span, timedelta):
        span = timedelta(seconds=span)
    if span < timedelta():
        raise ValueError(f"{name} is {span}; it cannot be negative")
    return span // timedelta(microseconds=1)


def _check_minimum(least: int, name: str, number: int | None) -> int | None:
    if number is not None and number < least:
        raise ValueError(f"{name} is {number}; it cannot be less than {least}")
    return number
