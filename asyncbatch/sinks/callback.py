"""A user's own sink: its protocol, and its adapter for a run."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from asyncbatch.errors import SinkError, describe_error
from asyncbatch.sinks.base import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from asyncbatch.core.entries import Entry

    Loaded: TypeAlias = Sequence[Refusal] | None

_THREAD_SECONDS = 2.0  # Seconds that a load has to end once it is cancelled.


class Sink(Protocol):
    """Takes records in batches, one batch at a time.

    A sink that is an async context manager is entered before the first batch, and left at the end
    of the run, with its exception if there is one.
    """

    def load(self, records: list[dict[str, Any]], /) -> Awaitable[Loaded] | Loaded:
        """Load records. May be async; if not, it is called in a thread.

        The records count as written when it returns. To reject records, it returns a `Refusal` for
        each, with its index in `records`. Any exception ends the run.
        """
        ...


class CallbackSink:
    """The adapter of a user's sink; see `BatchSink`.

    A thread calls it; the event loop of the run executes async methods. `error` is the exception of
    the user's sink.
    """

    def __init__(self, sink: Sink) -> None:
        self.name = type(sink).__name__
        self.error: BaseException | None = None
        self._sink = sink
        self._loop: asyncio.AbstractEventLoop | None = None
        self._going_on: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """Use the running event loop for async methods."""
        self._loop = asyncio.get_running_loop()

    async def abandon(self) -> None:
        """Cancel a running `load`, and start no other."""
        self._loop = None
        if self._going_on is not None and not self._going_on.done():
            self._going_on.cancel()
            await asyncio.wait((self._going_on,), timeout=_THREAD_SECONDS)

    def open(self) -> None:
        """Do nothing: the caller of the pipeline has entered the sink."""

    def load(
        self,
        payload: list[dict[str, Any]],
        groups: Sequence[int] | None = None,  # noqa: ARG002 - loaded records cannot be unloaded
    ) -> Sequence[Refusal]:
        """Load records. Raises SinkError if that fails, or returns another type."""
        loop = self._loop
        if loop is None:
            raise SinkError(f"{self.name} was cancelled")
        count = len(payload)
        try:
            answer = self._sink.load(payload)
            if inspect.isawaitable(answer):
                outcome = self._outcome(answer)
                answer = asyncio.run_coroutine_threadsafe(outcome, loop).result()
            return _refusals(answer, count)
        except Exception as error:
            self.error = error
            raise SinkError(f"{self.name} failed: {describe_error(error)}") from error

    async def _outcome(self, answer: Awaitable[Loaded]) -> Loaded:
        self._going_on = asyncio.current_task()
        return await answer

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: loaded records count."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - see `commit`
        """Do nothing: the caller of the pipeline leaves the sink."""
        return True


def _refusals(answer: object, count: int) -> Sequence[Refusal]:
    """Return the rejections of `count` records. Raises TypeError, ValueError."""
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
