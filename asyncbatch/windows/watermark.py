"""How far the time of events has come: no more is expected from before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = -(2**80)  # Before all times.
ALWAYS = 2**80  # After all times.


class _SourceClock:
    """The progress of one source. `heard` is when it last reported."""

    def __init__(self, now: int) -> None:
        self.top, self.heard = NEVER, now


class Watermark:
    """The largest time seen, less `lateness`, of the slowest source; it never goes back.

    A source that was silent for `idle` (None: no limit) no longer holds it back. Once all sources
    are silent, it advances with the clock. `clock` returns microseconds since any moment; all spans
    are in microseconds.
    """

    def __init__(
        self, lateness: int = 0, idle: int | None = None, clock: Callable[[], int] = lambda: 0
    ) -> None:
        self.lateness = lateness
        self.value = NEVER
        self._idle, self._clock = idle, clock
        self._sources: dict[str, _SourceClock] = {}

    def join(self, source: str) -> None:
        """Wait for a source from now on."""
        self._sources.setdefault(source, _SourceClock(self._clock()))

    def leave(self, source: str) -> None:
        """Wait for a source no more: it has ended."""
        del self._sources[source]
        if self._sources:
            self._rise()

    def limit(self, source: str) -> int:
        """Return the limit that the other sources set for the watermark."""
        now = self._clock()
        others = (state for name, state in self._sources.items() if name != source)
        return min(
            (self._bound(state) for state in others if not self._is_idle(state, now)),
            default=ALWAYS,
        )

    def highest(self, source: str) -> int:
        """Return the largest time that a source has reported."""
        return self._sources[source].top

    def restore(self, source: str, top: int) -> None:
        """Have a source that has joined be as far as it was; it counts as heard of now."""
        self._sources[source].top = top

    def observe(self, source: str, highest: int) -> None:
        """Note that a source has reported `highest`, which may be an old value."""
        state = self._sources[source]
        state.top, state.heard = max(state.top, highest), self._clock()
        self._rise()

    def mark_active(self, source: str) -> None:
        """Take note that a source is not silent, though its times are not known yet."""
        self._sources[source].heard = self._clock()

    def tick(self) -> None:
        """Let time pass; only with an idle limit does that change anything."""
        if self._idle is not None and self._sources:
            self._rise()

    def raise_to(self, value: int) -> None:
        """Move the watermark there, unless it is further."""
        self.value = max(self.value, value)

    def _rise(self) -> None:
        now = self._clock()
        states = self._sources.values()
        active = [self._bound(state) for state in states if not self._is_idle(state, now)]
        if active:
            self.raise_to(min(active))
            return
        told = [state for state in states if state.top != NEVER]
        if told:
            self.raise_to(max(self._bound(state) + now - state.heard for state in told))

    def _bound(self, state: _SourceClock) -> int:
        return state.top - self.lateness if state.top != NEVER else NEVER

    def _is_idle(self, state: _SourceClock, now: int) -> bool:
        return self._idle is not None and now - state.heard >= self._idle
