"""Session windows, which end after a gap without events."""

from __future__ import annotations

import heapq
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from asyncbatch.errors import TooManyKeysError
from asyncbatch.windows.events import (
    Window,
    WindowOutcome,
    WindowsState,
    floors_state,
    window_state,
)
from asyncbatch.windows.watermark import ALWAYS, NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.windows.aggregates import AggregateSet, Totals
    from asyncbatch.windows.events import Events, Key, KeyFields
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.watermark import Watermark


class _Session:
    """A session of one key, from its first event to a gap after its last event."""

    __slots__ = ("end", "is_gone", "key", "places", "start", "totals")

    def __init__(self, key: Key, start: int, end: int, totals: Totals) -> None:
        self.key, self.start, self.end, self.totals = key, start, end, totals
        self.places: list[int] = []  # indexes of events that are not yet in the totals
        self.is_gone = False  # it was merged into another session

    def settle(self, columns: Sequence[Sequence[Any]]) -> None:
        """Add the pending events to the totals. Their values are in `columns`."""
        places, self.places = self.places, []
        if places:
            self.totals.add(len(places), [[column[at] for at in places] for column in columns])


class SessionWindows:
    """A windower for sessions by key. An event between two sessions may merge them.

    An event is late if no open session takes it, and a session of its own would be closed already.
    Events exactly a gap apart are in two sessions. All open sessions together have at most
    `max_keys` keys; `overflow` works as in `FixedWindows`.

    Sessions of one key never overlap: an event before the end of the last closed session of its key
    is late, too. Such an end is forgotten two gaps later, unless the key has an open session. So a
    session of a key without a known end is not extended to times more than two gaps before the
    watermark at which it began; its first event has no neighbour there.
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
        self._gap = spec.size
        self._recipe, self._keys, self._watermark = recipe, keys, watermark
        self._max_keys, self._overflow = max_keys, overflow
        self._sessions: dict[Key, list[_Session]] = {}
        self._floors: dict[Key, int] = {}  # an earlier event of the key is late
        self._closed: list[tuple[int, int, Key]] = []  # a heap of the ends that are floors
        # A heap of end, number and session. The end may be old: a session moves its end later.
        self._ends: list[tuple[int, int, _Session]] = []
        self._numbers = count()  # so that sessions themselves are never compared

    def add(self, events: Events) -> WindowOutcome:
        watermark, source = self._watermark, events.source
        limit, lateness, gap = watermark.limit(source), watermark.lateness, self._gap
        value = floor = watermark.value
        top = NEVER
        keys, over, late = events.keys, list[_Session](), list[int]()
        touched = set[_Session]()
        for place, time in enumerate(events.moments.all()):
            if time > top:
                top = time
                value = max(floor, min(limit, top - lateness))
                if self._ends and self._ends[0][0] <= value:
                    over += self._pop(value)
            key = keys[place] if keys is not None else ()
            session = self._find(key, time)
            if session is None and time + gap > value:
                session = self._begin(key, time, value)
            if session is None:
                late.append(place)
                continue
            session.places.append(place)
            touched.add(session)
        for session in touched:
            session.settle(events.columns)
        watermark.observe(source, events.moments.highest)
        over += self._pop(watermark.value)
        self._forget(watermark.value)
        return WindowOutcome(self._windows(over), late)

    def advance(self) -> list[Window]:
        over = self._pop(self._watermark.value)
        self._forget(self._watermark.value)
        return self._windows(over)

    def finish(self, *, partial: bool) -> list[Window]:
        return self._windows(self._pop(ALWAYS), partial=partial)

    @property
    def open(self) -> list[Window]:
        return self._windows([one for group in self._sessions.values() for one in group])

    def state(self) -> WindowsState:
        plain = self._keys.plain
        return WindowsState(
            NEVER,
            [
                window_state(one.start, one.end, plain(key), one.totals)
                for key, group in self._sessions.items()
                for one in group
            ],
            floors_state((plain(key), floor) for key, floor in self._floors.items()),
        )

    def restore(self, state: WindowsState) -> None:
        for one in state.all():
            totals = self._recipe.restored(one.count, one.statistics)
            self._keep(_Session(self._keys.restored(one.key), one.start, one.end, totals))
        for values, floor in state.all_floors():
            self._raise_floor(self._keys.restored(values), floor)

    def _find(self, key: Key, time: int) -> _Session | None:
        """Return the session that takes an event, extended by it, or None.

        Merges the sessions that the event connects.
        """
        group = self._sessions.get(key)
        if group is None or time < self._floors.get(key, NEVER):
            return None
        end = time + self._gap
        found = [one for one in group if one.start < end and time < one.end]
        if not found:
            return None
        first = found[0]
        first.start, first.end = min(first.start, time), max(first.end, end)
        for other in found[1:]:
            first.start, first.end = min(first.start, other.start), max(first.end, other.end)
            first.places += other.places
            other.places = []
            first.totals.merge(other.totals)
            other.is_gone = True
            group.remove(other)
        return first

    def _begin(self, key: Key, time: int, value: int) -> _Session | None:
        """Return a new session at the watermark `value`, None if the event is late."""
        if key not in self._sessions and len(self._sessions) >= self._max_keys:
            if self._overflow is None:
                raise TooManyKeysError(self._max_keys)
            key = self._overflow
            if session := self._find(key, time):
                return session
        floor = self._floors.get(key, NEVER)
        if key not in self._sessions:  # whether an end was forgotten already must not matter
            floor = self._floors[key] = max(floor, value - 2 * self._gap)
        if time < floor:
            return None
        return self._keep(_Session(key, time, time + self._gap, self._recipe.empty()))

    def _raise_floor(self, key: Key, floor: int) -> None:
        self._floors[key] = max(floor, self._floors.get(key, floor))
        heapq.heappush(self._closed, (floor, next(self._numbers), key))

    def _forget(self, value: int) -> None:
        """Forget the ends of sessions before which every event is late anyway."""
        while self._closed and self._closed[0][0] + 2 * self._gap <= value:
            end, _, key = heapq.heappop(self._closed)
            if key not in self._sessions and self._floors.get(key) == end:
                del self._floors[key]

    def _keep(self, session: _Session) -> _Session:
        self._sessions.setdefault(session.key, []).append(session)
        heapq.heappush(self._ends, (session.end, next(self._numbers), session))
        return session

    def _pop(self, value: int) -> list[_Session]:
        """Remove and return the sessions that end by `value`."""
        ends, over = self._ends, list[_Session]()
        while ends and ends[0][0] <= value:
            end, number, session = heapq.heappop(ends)
            if session.is_gone:
                continue
            if session.end > end:
                heapq.heappush(ends, (session.end, number, session))
                continue
            group = self._sessions[session.key]
            group.remove(session)
            if not group:
                del self._sessions[session.key]
            self._raise_floor(session.key, session.end)
            over.append(session)
        return over

    def _windows(self, sessions: list[_Session], *, partial: bool = False) -> list[Window]:
        """Return sessions as windows, sorted by end, start and key."""
        order = self._keys.order
        sessions.sort(key=lambda one: order(one.key))
        sessions.sort(key=attrgetter("end", "start"))
        return [Window(one.start, one.end, one.key, one.totals, partial) for one in sessions]
