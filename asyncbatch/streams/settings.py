"""What a stream's events are, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.transforms.specs import TransformSpec
    from asyncbatch.windows.aggregates import Aggregate
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.times import Unit

MAX_KEYS = 100_000


class StreamSettings(Struct, frozen=True):
    """Which windows, of which events; all spans are in microseconds.

    `time` is the field that has an event's time, None for the time at which it arrives. `by`
    and the aggregates name fields by path. Events that are further than `max_future` ahead of
    the clock are rejected. A source that is silent for `idle` is not waited for. A window has
    `max_keys` keys at most; further ones are put together under `overflow_key`, or end the
    stream if that is None. `letters` keeps what a dead letter file needs.
    """

    window: WindowSpec
    aggregates: tuple[Aggregate, ...]
    by: tuple[str, ...] = ()
    time: str | None = "timestamp"
    unit: Unit = "auto"
    lateness: int = 0
    idle: int | None = None
    max_future: int | None = None
    max_keys: int = MAX_KEYS
    overflow_key: str | None = None
    transforms: tuple[TransformSpec, ...] = ()
    letters: bool = False
    tracebacks: bool = False

    def contradictions(self, *, has_late: bool = False) -> Iterator[tuple[str, str]]:
        """Yield what would have no effect, by name, and why; `has_late` if late events are kept."""
        if self.time is None:
            for name, value in (
                ("lateness", self.lateness),
                ("idle_timeout", self.idle),
                ("max_future", self.max_future),
                ("late", has_late),
            ):
                if value:
                    yield name, "is about the events' own time: not for the time of arrival"
        if self.overflow_key is not None and not self.by:
            yield "overflow_key", "is for events that are grouped by a field"
