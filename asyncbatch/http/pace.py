"""How fast one host is asked: so many at once, so many in a time, and not while it wants rest."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Clock = Callable[[], float]
    Sleep = Callable[[float], Awaitable[None]]

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*/\s*(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Rate(NamedTuple):
    """At most so many requests in any so many seconds."""

    requests: int
    seconds: float


def parse_rate(text: str) -> Rate:
    """Return what `text` stands for: 20/s, 600/m, 1000/h. Raises ValueError with what to write."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is no rate; write 20/s, 600/m or 1000/h")
    number, seconds = float(match[1]), _SECONDS[match[2]]
    return Rate(int(number), seconds) if number.is_integer() else Rate(1, seconds / number)


class Pace:
    """The turns of one host. `clock` and `sleep` are in seconds."""

    def __init__(self, rate: Rate | None, concurrency: int, clock: Clock, sleep: Sleep) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._slots = asyncio.Semaphore(concurrency)
        self._starts: deque[float] = deque(maxlen=rate.requests if rate else 0)
        """When the latest requests began, or are to begin."""
        self._rest_until = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more request may be made, which is within this."""
        async with self._slots:
            while (left := self._reserve() - self._clock()) > 0:
                await self._sleep(left)
                if self._clock() >= self._rest_until:
                    break  # else the host has asked for rest meanwhile
            yield

    def rest(self, seconds: float) -> None:
        """Begin no request for so long: the host has asked for that."""
        self._rest_until = max(self._rest_until, self._clock() + seconds)

    def _reserve(self) -> float:
        """Return when the next request may begin, which is then taken."""
        at = max(self._clock(), self._rest_until)
        if self._rate is not None:
            if len(self._starts) == self._rate.requests:
                at = max(at, self._starts[0] + self._rate.seconds)
            self._starts.append(at)
        return at
