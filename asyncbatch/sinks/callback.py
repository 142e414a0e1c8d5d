"""The sink of a user's program: its protocol, and the adapter that a run uses."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from asyncbatch.errors import SinkError, describe_error
from asyncbatch.sinks.base import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from asyncbatch.core.ledger_entries import Entry

    Loaded: TypeAlias = Sequence[Refusal] | None

_CANCEL_SECONDS = 2.0  # how long to wait for the end of a cancelled `load`


class Sink(Protocol):
    """A sink that a program defines. It loads records in batches, one batch at a time.

    If the sink is an async context manager, the run enters it before the first batch and leaves it
    at the end. If the run fails, `__aexit__` gets its exception.
    """

    def load(self, records: list[dict[str, Any]], /) -> Awaitable[Loaded] | Loaded:
        """Load records. The method may be async; otherwise it is called in a thread.

        The records count as written when the method returns. To reject records, return a `Refusal`
        for each of them, with its index in `records`. Any exception ends the run.
        """
        ...


class CallbackSink:
    """The `BatchSink` for a sink of the user's program.

    Call `begin` on the event loop of the run first: it executes async methods. A thread calls the
    other methods, except `abandon`. `error` is the last exception of the user's sink.
    """

    def __init__(self, sink: Sink) -> None:
        self.name: str = type(sink).__name__
        self.error: BaseException | None = None
        self._sink = sink
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[Any] | None = None
        self._is_ending = False
        self.loaded: int = 0  # records that counted as written when `load` returned

    def begin(self) -> None:
        """Use the running event loop for async methods."""
        self._loop = asyncio.get_running_loop()

    def end_soon(self) -> None:
        """Start no other load. A running one goes on."""
        self._is_ending = True

    async def abandon(self) -> None:
        """Cancel a running `load`, and start no other."""
        self._loop = None
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait((self._running,), timeout=_CANCEL_SECONDS)

    def open(self) -> None:
        """Do nothing: the pipeline has already entered the sink."""

    def load(
        self,
        payload: list[dict[str, Any]],
        groups: Sequence[int] | None = None,  # noqa: ARG002 - a user's sink cannot undo a load
    ) -> Sequence[Refusal]:
        """Load records. Raises SinkError if `load` fails or returns another type."""
        loop = self._loop
        if loop is None or self._is_ending:
            raise SinkError(f"{self.name} was cancelled")
        count = len(payload)
        try:
            answer = self._sink.load(payload)
            if inspect.isawaitable(answer):
                outcome = self._outcome(answer)
                answer = asyncio.run_coroutine_threadsafe(outcome, loop).result()
            refused = _refusals(answer, count)
        except Exception as error:
            self.error = error
            raise SinkError(f"{self.name} failed: {describe_error(error)}") from error
        self.loaded += count - len(refused)
        return refused

    async def _outcome(self, answer: Awaitable[Loaded]) -> Loaded:
        self._running = asyncio.current_task()
        return await answer

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: loaded records already count as written."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - loaded records count in any case
        """Do nothing: the pipeline leaves the sink."""
        return True


def _refusals(answer: object, count: int) -> Sequence[Refusal]:
    """Return the answer of `load` for `count` records. Raises TypeError, ValueError."""
    if answer is None:
        return ()
    if not isinstance(answer, list | tuple):
        raise TypeError(f"load() returned {answer!r}; it must return None or a list of Refusals")
    for refusal in answer:
        if not isinstance(refusal, Refusal):
            raise TypeError(f"load() returned a list with {refusal!r}, which is not a Refusal")
        if not 0 <= refusal.row < count:
            raise ValueError(
                f"load() rejected record {refusal.row} of {count}; indexes count from 0"
            )
    return answer
