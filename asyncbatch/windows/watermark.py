"""The watermark: the event time before which no more events are expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = -(2**80)  # microseconds; before all event times
ALWAYS = 2**80  # microseconds; after all event times


class _SourceClock:
    """The progress of one source."""

    def __init__(self, now: int) -> None:
        self.top = NEVER  # its largest event time
        self.heard = now  # the time of the clock at its last report


class Watermark:
    """The watermark of several sources. It never moves back.

    It is the largest event time of the slowest source, minus `lateness`. A source that reports
    nothing for `idle` (None: no limit) does not hold it back any more. If all sources are idle, it
    advances with the clock. `clock` returns microseconds since any moment; all durations are in
    microseconds.
    """

    def __init__(
        self, lateness: int = 0, idle: int | None = None, clock: Callable[[], int] = lambda: 0
    ) -> None:
        self.lateness = lateness
        self.value: int = NEVER
        self._idle, self._clock = idle, clock
        self._sources: dict[str, _SourceClock] = {}

    def join(self, source: str) -> None:
        """Add a source, which holds the watermark back from now on."""
        self._sources.setdefault(source, _SourceClock(self._clock()))

    def leave(self, source: str) -> None:
        """Remove a source that has ended."""
        del self._sources[source]
        if self._sources:
            self._rise()

    def limit(self, source: str) -> int:
        """Return the highest value of the watermark that the other sources allow."""
        now = self._clock()
        others = (state for name, state in self._sources.items() if name != source)
        return min(
            (self._bound(state) for state in others if not self._is_idle(state, now)),
            default=ALWAYS,
        )

    def highest(self, source: str) -> int:
        """Return the largest event time of a source."""
        return self._sources[source].top

    def restore(self, source: str, top: int) -> None:
        """Restore the largest event time of a source that has joined."""
        self._sources[source].top = top

    def observe(self, source: str, highest: int) -> None:
        """Record an event time of a source, which may be below its largest one."""
        state = self._sources[source]
        state.top, state.heard = max(state.top, highest), self._clock()
        self._rise()

    def mark_active(self, source: str) -> None:
        """Record that a source is not idle, although its event times are not known yet."""
        self._sources[source].heard = self._clock()

    def tick(self) -> None:
        """Move the watermark with the clock. Without an idle limit, do nothing."""
        if self._idle is not None and self._sources:
            self._rise()

    def raise_to(self, value: int) -> None:
        """Move the watermark to `value`, unless it is already beyond it."""
        self.value = max(self.value, value)

    def _rise(self) -> None:
        now = self._clock()
        states = self._sources.values()
        active = [self._bound(state) for state in states if not self._is_idle(state, now)]
        if active:
            self.raise_to(min(active))
            return
        reported = [state for state in states if state.top != NEVER]
        if reported:
            self.raise_to(max(self._bound(state) + now - state.heard for state in reported))

    def _bound(self, state: _SourceClock) -> int:
        return state.top - self.lateness if state.top != NEVER else NEVER

    def _is_idle(self, state: _SourceClock, now: int) -> bool:
        return self._idle is not None and now - state.heard >= self._idle
