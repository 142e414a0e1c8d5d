"""A simulator of events: the users of a shop."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from asyncbatch.core.aio import Wakeup
from asyncbatch.core.settings import EVENT_TYPES
from asyncbatch.errors import UsageError
from asyncbatch.sources.base import LiveChunk
from asyncbatch.windows.times import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MICROSECONDS = 1_000_000  # of a second
_POLL_SECONDS = 0.02  # simulated events that are due within this time come in one chunk
_MAX_EVENTS_AT_ONCE = 1_000  # events of one chunk, after a pause or at a high rate


class SimulatorPosition(Struct, frozen=True):
    """A stored position in simulated events."""

    seed: int
    start: int  # the time of the first event, in microseconds since 1970
    made: int  # the number of events made since then


class Simulator:
    """Makes `rate` events per second. Times are in microseconds since 1970.

    The same seed gives the same users, types and values. With `disorder`, the time of an event is
    earlier by a random number of microseconds, up to `disorder`.
    """

    def __init__(
        self,
        start: int,
        *,
        rate: float = 10.0,
        seed: int | None = None,
        users: int = 1000,
        types: Sequence[str] = EVENT_TYPES,
        disorder: int = 0,
    ) -> None:
        self._seed = random.SystemRandom().getrandbits(48) if seed is None else seed
        self._random = random.Random(self._seed)  # noqa: S311 - example data, not a secret
        self._start, self._rate = start, rate
        self._users, self._disorder = users, disorder
        self._types = [msgspec.json.encode(kind).decode() for kind in types]
        self._count = 0

    @property
    def position(self) -> SimulatorPosition:
        """The current position, for `seek`."""
        return SimulatorPosition(self._seed, self._start, self._count)

    def seek(self, position: SimulatorPosition) -> None:
        """Continue at a position with the same events. Call it before any event is made."""
        self._seed, self._start = position.seed, position.start
        self._random = random.Random(self._seed)  # noqa: S311 - see above
        for _ in range(position.made * (4 if self._disorder else 3)):
            self._random.random()
        self._count = position.made

    def due_count(self, time: int) -> int:
        """Return the number of events that are due until `time`."""
        return max(0, int((time - self._start) * self._rate / _MICROSECONDS) + 1 - self._count)

    def next_time(self) -> int:
        """Return the time at which the next event is due."""
        return self._start + int(self._count * _MICROSECONDS / self._rate)

    def lines(self, count: int) -> bytes:
        """Return the next `count` events as JSON Lines."""
        return "".join(self._events(count)).encode()

    def _events(self, count: int) -> Iterator[str]:
        random_ = self._random.random
        users, types = self._users, self._types
        for _ in range(count):
            time = self.next_time()
            if self._disorder:
                time -= int(random_() * self._disorder)
            self._count += 1
            kind = types[int(random_() * len(types))]
            yield (
                f'{{"timestamp": "{utc_text(time)}", "user_id": {int(random_() * users) + 1}, '
                f'"event_type": {kind}, "value": {round(random_() * 100, 2)}}}\n'
            )


class SimulatedSource:
    """Simulated events as a live source. It never ends."""

    name: str
    is_over: bool
    can_resume: bool

    def __init__(self, name: str, simulator: Simulator) -> None:
        self.name, self.is_over, self.can_resume = name, False, True
        self._simulator = simulator
        self._wakeup = Wakeup()

    @property
    def position(self) -> Any:
        return msgspec.to_builtins(self._simulator.position)

    def start_at(self, position: Any) -> None:
        """Resume after the chunk with this position. Events that are overdue come at once."""
        try:
            self._simulator.seek(msgspec.convert(position, SimulatorPosition))
        except msgspec.ValidationError as error:
            raise UsageError(f"not a position in simulated events: {error}") from None

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - see `LiveSource`
        now = time.time_ns() // 1000
        is_behind = timeout == 0 or self._simulator.due_count(now) > _MAX_EVENTS_AT_ONCE
        until = max((self._simulator.next_time() - now) / 1e6, 0 if is_behind else _POLL_SECONDS)
        await self._wakeup.wait(until if timeout is None else min(until, timeout))
        due = self._simulator.due_count(time.time_ns() // 1000)
        if not due:
            return None
        lines = self._simulator.lines(min(due, _MAX_EVENTS_AT_ONCE))
        return LiveChunk(self.name, lines, position=self.position)

    def wake(self) -> None:
        """End the wait of `read`."""
        self._wakeup.set()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
