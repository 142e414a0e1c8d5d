"""Concurrent calls of async transforms, within a limit of calls and of time."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing, suppress
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from asyncbatch.formats.failures import FileTimeoutError
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.call import AsyncCall, Call
from asyncbatch.workers.tasks.spool import SPOOLED_OUTPUTS, Spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.base import RecordPosition, Transform

    Outputs = Sequence[Any] | Spool
    PendingOutputs = asyncio.Task[Outputs]

T = TypeVar("T")


class CallTimer:
    """The remaining time of a file, or of an event: `limit` seconds; None for no limit."""

    def __init__(self, limit: float | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._deadline = _now() + self._limit
        self._is_late = False

    async def exclude(self, wait: Awaitable[T]) -> T:
        """Await `wait`, and do not count its time."""
        began = _now()
        result = await wait
        self._deadline += _now() - began
        return result

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work` within the limit. Raises FileTimeoutError, and the errors of `work`."""
        if self._limit == math.inf:
            return await work()
        scope = asyncio.timeout_at(self._deadline)
        with suppress(TimeoutError):
            try:
                async with scope:
                    result = await work()
            except RecordError:  # a cancellation may be reported as this error
                if not scope.expired():
                    raise
            else:
                if not scope.expired():
                    return result
        self._is_late = True
        raise FileTimeoutError(self._limit)

    def check(self) -> None:
        """Raise FileTimeoutError if the time is over."""
        if self._is_late or _now() > self._deadline:
            raise FileTimeoutError(self._limit)


def _now() -> float:
    return asyncio.get_running_loop().time()


class AsyncCalls:
    """Calls of the `stages` of a chain on the event loop; `slots` limits those in flight.

    Set `is_closing` before calls are cancelled.
    """

    def __init__(self, stages: Sequence[Transform | AsyncCall], slots: asyncio.Semaphore) -> None:
        self._stages, self._slots = stages, slots
        self.is_closing = False

    async def start(
        self, record: Json, position: RecordPosition, timer: CallTimer
    ) -> PendingOutputs:
        """Start the call for a record when there is a slot. Raises FileTimeoutError.

        The task returns the outputs, and raises RecordError or FileTimeoutError.
        """
        await timer.exclude(self._slots.acquire())
        try:
            timer.check()
        except FileTimeoutError:
            self._slots.release()
            raise
        task = asyncio.create_task(timer.run(partial(self._outputs, record, position)))
        task.add_done_callback(lambda _: self._slots.release())
        return task

    async def _outputs(self, record: Json, position: RecordPosition) -> Outputs:
        """Return the outputs for one record. Raises RecordError."""
        values: Outputs = (record,)
        try:
            for stage in self._stages:
                inputs = (
                    chain.from_iterable(values.read(1)) if isinstance(values, Spool) else values
                )
                if isinstance(stage, AsyncCall):
                    values = await _collect_async(stage, inputs, position)
                elif isinstance(stage, Call):
                    values = await asyncio.to_thread(_collect, stage, inputs, position)
                else:
                    values = _collect(stage, inputs, position)
        except (asyncio.CancelledError, GeneratorExit) as error:
            if self.is_closing:
                raise
            # The awaited function leaked this cancellation; the task itself was not cancelled.
            raise RecordError("transform", type(error).__name__) from None
        return values


async def cancel_call(task: PendingOutputs) -> None:
    """Cancel a call and ignore its outcome."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and task.exception() is None:
        values = task.result()
        if isinstance(values, Spool):
            values.close()


def _collect(stage: Transform, inputs: Iterable[Any], position: RecordPosition) -> Outputs:
    """Return the outputs of a transform for all values of one record. Raises RecordError."""
    outputs = chain.from_iterable(stage(value, position) for value in inputs)
    first = list(islice(outputs, SPOOLED_OUTPUTS))
    if len(first) < SPOOLED_OUTPUTS:
        return first
    return _spool(chain(first, outputs))


def _spool(values: Iterable[Json]) -> Spool:
    spool = Spool()
    try:
        spool.write(values)
    except BaseException:
        spool.close()
        raise
    return spool


async def _collect_async(
    stage: AsyncCall, inputs: Iterable[Any], position: RecordPosition
) -> Outputs:
    """Return the outputs of an async function for all values of one record."""
    first: list[Any] = []
    spool: Spool | None = None
    try:
        for value in inputs:
            async with aclosing(stage.outputs(value, position)) as outputs:
                async for output in outputs:
                    first.append(output)
                    if len(first) == SPOOLED_OUTPUTS:
                        spool = spool or Spool()
                        spool.write(first)
                        first.clear()
        if spool is not None:
            spool.write(first)
    except BaseException:
        if spool is not None:
            spool.close()
        raise
    return first if spool is None else spool
