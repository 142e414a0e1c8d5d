"""The rate limiter of one host: requests at a time, and requests in an interval."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncbatch.core.units import Rate

    Clock = Callable[[], float]
    Sleep = Callable[[float], Awaitable[None]]


class RateLimiter:
    """The limits of one host: requests at a time, and requests in an interval."""

    def __init__(self, rate: Rate | None, concurrency: int, clock: Clock, sleep: Sleep) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._slots = asyncio.Semaphore(concurrency)
        # The start times of the latest requests, also of those that still wait.
        self._starts: deque[float] = deque(maxlen=rate.requests if rate else 0)
        self._paused_until = 0.0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Wait for a free slot. Make the request inside the context."""
        async with self._slots:
            while (left := self._reserve() - self._clock()) > 0:
                await self._sleep(left)
                if self._clock() >= self._paused_until:
                    break  # otherwise `pause` was called during the sleep
            yield

    def pause(self, seconds: float) -> None:
        """Start no request for `seconds`, as the host demands."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _reserve(self) -> float:
        """Reserve the next start time and return it."""
        at = max(self._clock(), self._paused_until)
        if self._rate is not None:
            if len(self._starts) == self._rate.requests:
                at = max(at, self._starts[0] + self._rate.seconds)
            self._starts.append(at)
        return at
