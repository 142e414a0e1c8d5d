"""A user's own sink: what it must be able to do, and how a run gives it its records."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from asyncbatch.errors import SinkError, described
from asyncbatch.sinks.base import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from asyncbatch.core.entries import Entry

    Loaded: TypeAlias = Sequence[Refusal] | None

_THREAD_SECONDS = 2.0
"""Seconds that a load has to end once it is cancelled."""


class Sink(Protocol):
    """Takes records, batch by batch, one batch at a time.

    One that is an async context manager too is entered before the first batch, and left when
    the run has ended, with the exception if there is one.
    """

    def load(self, records: list[dict[str, Any]], /) -> Awaitable[Loaded] | Loaded:
        """Load records; async, or not, and then called in a thread.

        They count as written once this returns. A `Refusal` for each record that it will not
        have, told by its place in `records`, rejects that record. What it raises ends the run.
        """
        ...


class CallbackSink:
    """A user's sink as the main process's end of a target: see `sinks.Sink`.

    It is called by a thread that delivers, and what is async is done by the loop of the run
    meanwhile. `error` is what it has raised.
    """

    def __init__(self, sink: Sink) -> None:
        self.name = type(sink).__name__
        self.error: BaseException | None = None
        self._sink = sink
        self._loop: asyncio.AbstractEventLoop | None = None
        self._going_on: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """Take the running loop for what is async."""
        self._loop = asyncio.get_running_loop()

    async def abandon(self) -> None:
        """Cancel what is going on, if anything still is; nothing more is loaded."""
        self._loop = None
        if self._going_on is not None and not self._going_on.done():
            self._going_on.cancel()
            await asyncio.wait((self._going_on,), timeout=_THREAD_SECONDS)

    def open(self) -> None:
        """See `sinks.Sink`: whoever runs the pipeline has done it."""

    def load(
        self,
        payload: list[dict[str, Any]],
        groups: Sequence[int] | None = None,  # noqa: ARG002 - what was loaded cannot be taken back
    ) -> Sequence[Refusal]:
        """Have records loaded. Raises SinkError if that fails, or its answer makes no sense."""
        loop = self._loop
        if loop is None:
            raise SinkError(f"{self.name} was given up")
        count = len(payload)
        try:
            answer = self._sink.load(payload)
            if inspect.isawaitable(answer):
                outcome = self._outcome(answer)
                answer = asyncio.run_coroutine_threadsafe(outcome, loop).result()
            return _refusals(answer, count)
        except Exception as error:
            self.error = error
            raise SinkError(f"{self.name} failed: {described(error)}") from error

    async def _outcome(self, answer: Awaitable[Loaded]) -> Loaded:
        self._going_on = asyncio.current_task()
        return await answer

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """See `sinks.Sink`: what was loaded stands."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - see `commit`
        """See `sinks.Sink`: whoever runs the pipeline does it."""
        return True


def _refusals(answer: object, count: int) -> Sequence[Refusal]:
    """Return what a sink refuses of `count` records. Raises TypeError, ValueError."""
    if answer is None:
        return ()
    if not isinstance(answer, list | tuple):
        raise TypeError(f"load() returned {answer!r}: it returns None, or a list of Refusals")
    for refusal in answer:
        if not isinstance(refusal, Refusal):
            raise TypeError(f"load() returned {refusal!r} in a list: that is no Refusal")
        if not 0 <= refusal.row < count:
            raise ValueError(f"load() refused record {refusal.row} of {count}; they count from 0")
    return answer
