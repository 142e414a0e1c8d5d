"""The time that a file takes on the event loop, where many are worked on at once."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from asyncbatch.failures import LateError
from asyncbatch.transforms import RecordError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class FileClock:
    """What a file may still take, of `limit` seconds; None is no limit."""

    def __init__(self, limit: float | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._deadline = _now() + self._limit
        self._is_late = False

    async def stopped(self, wait: Awaitable[T]) -> T:
        """Return what `wait` gives: it is a wait for other files, and takes no time of this."""
        began = _now()
        result = await wait
        self._deadline += _now() - began
        return result

    async def limited(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` gives if that comes in time. Raises LateError, and what it raises."""
        if self._limit == math.inf:
            return await work()
        scope = asyncio.timeout_at(self._deadline)
        with suppress(TimeoutError):
            try:
                async with scope:
                    result = await work()
            except RecordError:  # as which a cancellation may come back
                if not scope.expired():
                    raise
            else:
                if not scope.expired():
                    return result
        self._is_late = True
        raise LateError(self._limit)

    def check(self) -> None:
        """Raise LateError if the file is late."""
        if self._is_late or _now() > self._deadline:
            raise LateError(self._limit)


def _now() -> float:
    return asyncio.get_running_loop().time()
