"""Small asyncio helpers: threads, wake-ups, pauses."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

ItemT = TypeVar("ItemT")


async def iterate_in_thread(items: Iterator[ItemT], *, in_thread: bool) -> AsyncIterator[ItemT]:
    """Yield items; if `in_thread` is true, compute each in a thread."""
    if not in_thread:
        for item in items:
            yield item
        return
    end = object()
    while (found := await asyncio.to_thread(next, items, end)) is not end:
        yield found  # type: ignore[misc]  # an item, because it is not `end`


T = TypeVar("T")


async def with_pauses(
    items: AsyncIterator[T], seconds: Callable[[], float | None]
) -> AsyncGenerator[T | None, None]:
    """Yield each item, and None whenever `seconds()` pass without an item.

    While `seconds()` is None, it does not yield None. It is asked before each wait. The caller
    closes `items`: closing this generator does not.
    """
    pending: asyncio.Future[T | None] | None = None
    try:
        while True:
            if pending is None:
                pending = asyncio.ensure_future(_next_or_none(items))
            await asyncio.wait((pending,), timeout=seconds())
            if not pending.done():
                yield None
                continue
            item = pending.result()
            pending = None
            if item is None:
                return
            yield item
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait((pending,))


async def _next_or_none(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


async def run_in_thread(call: Callable[[], T]) -> T:
    """Call a function in a thread. A cancellation takes effect after its end."""
    running = asyncio.get_running_loop().run_in_executor(None, call)
    cancellation: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        running.exception()  # it is known, and not told
        raise cancellation
    return running.result()


class Wakeup:
    """An event that ends one wait: the current wait, or the next one if no task waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """End the current wait, or the next one."""
        self._event.set()

    async def wait(self, seconds: float | None) -> bool:
        """Wait until `set` is called, at most `seconds`. Return whether it was called."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        was_set = self._event.is_set()
        self._event.clear()
        return was_set
