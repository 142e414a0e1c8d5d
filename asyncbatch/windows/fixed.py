"""Tumbling and hopping windows."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from asyncbatch.errors import TooManyKeysError
from asyncbatch.windows.events import (
    Events,
    Group,
    Window,
    WindowOutcome,
    WindowsState,
    by_key,
    window_state,
)
from asyncbatch.windows.sessions import SessionWindows
from asyncbatch.windows.times import NumericTimes
from asyncbatch.windows.watermark import ALWAYS, NEVER

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from asyncbatch.windows.aggregates import AggregateSet, Totals
    from asyncbatch.windows.events import Key, KeyFields, PartialWindows, Windower
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.watermark import Watermark


class FixedWindows:
    """A windower for tumbling and hopping windows.

    Each event belongs to one pane. A tumbling window is one pane, a hopping window is one or
    several. An open window has at most `max_keys` keys besides `overflow`. An event with a further
    key in one of its windows gets the key `overflow` in all of them; without an overflow key,
    TooManyKeysError is raised.
    """

    def __init__(
        self,
        spec: WindowSpec,
        recipe: AggregateSet,
        keys: KeyFields,
        watermark: Watermark,
        *,
        max_keys: int,
        overflow: Key | None = None,
    ) -> None:
        self._size, self._every, self._pane = spec.size, spec.every, spec.pane
        self._recipe, self._keys, self._watermark = recipe, keys, watermark
        self._max_keys, self._overflow = max_keys, overflow
        self._panes: dict[int, dict[Key, Totals]] = {}
        self._pairs = 0  # of a pane and a key
        # The number of keys of each open hopping window by its start. It takes a seventh of the
        # time, so it is None until there are `max_keys` pairs: before, no window can be full.
        self._key_counts: Counter[int] | None = None
        self._last_pane = NEVER  # the start of the latest pane so far
        self._closed_to = NEVER  # windows that end at this time or earlier are closed
        self._next_end = ALWAYS  # no window with events ends before this time

    def add(self, events: Events) -> WindowOutcome:
        watermark, moments = self._watermark, events.moments
        limit = watermark.limit(events.source)
        after = max(watermark.value, min(limit, moments.highest - watermark.lateness))
        if self._first_end(moments.lowest) > after:  # so no event can be late
            self._add_events(events, None)
            outcome = WindowOutcome([], [])
        else:
            outcome = self._split_late(events, limit)
        watermark.observe(events.source, moments.highest)
        outcome.closed += self.advance()
        return outcome

    def add_partial(self, folded: PartialWindows, source: str) -> list[Window] | None:
        """Merge partial windows; return the windows that this closes.

        Returns None without any change if an event may be late. Raises TooManyKeysError.
        """
        watermark = self._watermark
        limit = watermark.limit(source)
        after = max(watermark.value, min(limit, folded.highest - watermark.lateness))
        if self._first_end(folded.lowest) <= after:
            return None
        for group in folded.groups:
            self._add(group)
        watermark.observe(source, folded.highest)
        return self.advance()

    def advance(self) -> list[Window]:
        return self._close(self._watermark.value)

    def finish(self, *, partial: bool) -> list[Window]:
        before = self._closed_to
        closed = self._close(ALWAYS, partial=partial)
        self._closed_to = max((window.end for window in closed), default=before)
        return closed

    @property
    def open(self) -> list[Window]:
        return [window for start in self._starts(ALWAYS) for window in self._windows(start)]

    def state(self) -> WindowsState:
        plain = self._keys.plain
        return WindowsState(
            self._closed_to,
            [
                window_state(start, start + self._pane, plain(key), totals)
                for start, pane in self._panes.items()
                for key, totals in pane.items()
            ],
        )

    def restore(self, state: WindowsState) -> None:
        self._closed_to = state.closed_to
        for one in state.all():
            totals = self._recipe.restored(one.count, one.statistics)
            key = self._keys.restored(one.key)
            self._last_pane = max(self._last_pane, one.start)
            self._pairs += 1
            self._panes.setdefault(one.start, {})[key] = totals
        self._next_end = min(
            (self._end_after(start, self._closed_to) for start in self._panes), default=ALWAYS
        )

    def _split_late(self, events: Events, limit: int) -> WindowOutcome:
        """Add events to panes one by one, except late ones."""
        outcome, kept = WindowOutcome([], []), list[int]()
        lateness, size, every = self._watermark.lateness, self._size, self._every
        value = floor = self._watermark.value
        top = NEVER
        times = events.moments.all()
        for place, time in enumerate(times):
            if time > top:
                top = time
                value = max(floor, min(limit, top - lateness))
            if time // every * every + size <= value:
                outcome.late.append(place)
                continue
            if every < size and self._first_end(time) <= value:
                outcome.late_in_part += 1
                if value > self._closed_to:  # close the windows that must not get this event
                    self._add_events(events, kept, times)
                    kept = []
                    outcome.closed += self._close(value)
            kept.append(place)
        self._add_events(events, kept, times)
        return outcome

    def _first_end(self, time: int) -> int:
        """Return the end of the first window that contains `time`."""
        return (time - self._size) // self._every * self._every + self._every + self._size

    def _add_events(
        self, events: Events, places: list[int] | None, times: Sequence[int] | None = None
    ) -> None:
        """Add events to panes: all, or those at the indexes `places`."""
        keys, columns, moments = events.keys, events.columns, events.moments
        count = events.count
        if places is not None and len(places) < count:
            if not places:
                return
            count = len(places)
            keys = [keys[at] for at in places] if keys is not None else None
            columns = tuple([column[at] for at in places] for column in columns)
            times = times if times is not None else moments.all()
            moments = NumericTimes([times[at] for at in places])
        for group in group_by_pane(Events(count, moments, keys, columns), self._pane):
            self._add(group)

    def _add(self, group: Group) -> None:
        start, key = group.pane, group.key
        pane = self._panes.get(start)
        if pane is None:
            pane = self._panes[start] = {}
            self._last_pane = max(self._last_pane, start)
            self._next_end = min(self._next_end, self._end_after(start, self._closed_to))
        totals = pane.get(key)
        if totals is None:
            if not self._takes_key(start, key):
                if self._overflow is None:
                    raise TooManyKeysError(self._max_keys)
                key = self._overflow
            if key not in pane:
                pane[key] = self._recipe.empty()
                self._pairs += 1
            totals = pane[key]
        if group.totals is None:
            totals.add(group.count, group.columns)
        else:
            totals.merge(group.totals)

    def _takes_key(self, start: int, key: Key) -> bool:
        """Count a key that is new in the pane at `start`; return whether its windows have room."""
        if key == self._overflow:
            return True
        if self._pane == self._size:
            pane = self._panes[start]
            return len(pane) - (self._overflow in pane) < self._max_keys
        if self._key_counts is None:
            if self._pairs < self._max_keys:
                return True
            self._key_counts = self._count_keys()
        counts, windows = self._key_counts, self._windows_without(start, key, self._panes)
        if any(counts[window] >= self._max_keys for window in windows):
            return False
        counts.update(windows)
        return True

    def _count_keys(self) -> Counter[int]:
        """Return the number of keys of each open window by its start."""
        counts = Counter[int]()
        counted: dict[int, set[Key]] = {}
        for start, pane in self._panes.items():
            keys = counted[start] = set()
            for key in pane:
                counts.update(self._windows_without(start, key, counted))
                keys.add(key)
        return counts

    def _windows_without(self, start: int, key: Key, panes: Mapping[int, Container[Key]]) -> range:
        """Return the open hopping windows with the pane at `start` whose `panes` lack a key.

        They follow each other: the nearest panes with the key, before and after, bound them.
        """
        size, every, step = self._size, self._every, self._pane
        if key == self._overflow:
            return range(0)
        first = self._end_after(start, self._closed_to) - size
        last = start // every * every
        for pane in range(start - step, first - step, -step):
            if key in panes.get(pane, ()):
                first = max(first, pane // every * every + every)
                break
        for pane in range(start + step, min(last + size, self._last_pane + 1), step):
            if key in panes.get(pane, ()):
                last = (pane - size) // every * every
                break
        return range(first, last + every, every)

    def _end_after(self, start: int, value: int) -> int:
        """Return the first end after `value` of the windows with the pane at `start`."""
        first = self._first_end(start)
        return first + max(0, (value - first) // self._every + 1) * self._every

    def _close(self, value: int, *, partial: bool = False) -> list[Window]:
        if value < self._next_end:
            self._closed_to = max(self._closed_to, value)
            return []
        closed = [
            window
            for start in self._starts(value)
            for window in self._windows(start, partial=partial)
        ]
        self._closed_to = value
        for start in [start for start in self._panes if self._last_end(start) <= value]:
            self._pairs -= len(self._panes.pop(start))
        counts: dict[int, int] = self._key_counts or {}
        for start in [start for start in counts if start + self._size <= value]:
            del counts[start]
        self._next_end = min(
            (self._end_after(start, value) for start in self._panes), default=ALWAYS
        )
        return closed

    def _last_end(self, pane: int) -> int:
        return pane // self._every * self._every + self._size

    def _starts(self, value: int) -> list[int]:
        """Return the starts of open windows with events that end by `value`, in order."""
        size, every = self._size, self._every
        starts = set[int]()
        for pane in self._panes:
            first = self._end_after(pane, self._closed_to) - size
            last = min(pane, value - size)
            starts.update(range(first, last + 1, every))
        return sorted(starts)

    def _windows(self, start: int, *, partial: bool = False) -> Iterator[Window]:
        """Yield the window at `start` of each key, in the order of the keys."""
        end, panes = start + self._size, self._panes
        if self._pane == self._size:
            totals = panes[start]
        else:
            order = sorted(panes)
            inside = order[bisect_left(order, start) : bisect_left(order, end)]
            totals = self._merged(panes[pane] for pane in inside)
        for key in self._keys.sorted(totals):
            yield Window(start, end, key, totals[key], partial)

    def _merged(self, panes: Iterable[dict[Key, Totals]]) -> dict[Key, Totals]:
        merged: dict[Key, Totals] = {}
        for pane in panes:
            for key, totals in pane.items():
                if key not in merged:
                    merged[key] = self._recipe.empty()
                merged[key].merge(totals)
        return merged


def group_by_pane(events: Events, pane: int) -> Iterator[Group]:
    """Yield the events of each pane and key, by first appearance."""
    moments = events.moments
    if (start := moments.lowest // pane * pane) == moments.highest // pane * pane:
        for key, number, values in events.by_key():
            yield Group(start, key, number, values)
        return
    keys = events.keys
    panes = [time // pane * pane for time in moments.all()]
    both = panes if keys is None else list(zip(panes, keys, strict=True))
    for where, number, values in by_key(both, events.columns, events.count):
        start, key = (where, ()) if keys is None else where
        yield Group(start, key, number, values)


def make_windower(
    spec: WindowSpec,
    recipe: AggregateSet,
    keys: KeyFields,
    watermark: Watermark,
    *,
    max_keys: int,
    overflow: Key | None = None,
) -> Windower:
    """Return a windower for `spec`, with at most `max_keys` keys at a time.

    Events with further keys get the key `overflow`; without it, they raise TooManyKeysError.
    """
    make = SessionWindows if spec.kind == "session" else FixedWindows
    return make(spec, recipe, keys, watermark, max_keys=max_keys, overflow=overflow)
