"""Lines put together as far as that can be done apart from all others, in a worker."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from asyncbatch.streams.line_reader import Block
from asyncbatch.streams.reader import EventReader
from asyncbatch.windows.aggregates import Recipe
from asyncbatch.windows.events import Events, Folded
from asyncbatch.windows.panes import grouped
from asyncbatch.windows.times import Numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.windows.events import Group

_FEW = 8
"""Groups with fewer events than this, on average, travel as values: totals would be larger."""


class Folding:
    """Tells what pieces of whole lines come to; None for one that must be read line by line.

    Windows of a fixed size get totals; others events, which are read here and no more. How far
    ahead events are is judged where the clock is, and so is when they arrive.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._recipe = Recipe(settings.aggregates)
        self._reader = EventReader(
            replace(settings, max_future=None), self._recipe, "", now=lambda: 0
        )
        self._pane = settings.window.pane
        self._folds = settings.window.kind != "session"

    def __call__(self, pieces: Sequence[bytes]) -> Iterator[list[Folded | Block | None]]:
        """Yield, all at once, what each piece comes to."""
        yield [self._read(lines) for lines in pieces]

    def _read(self, lines: bytes) -> Folded | Block | None:
        events = self._reader.read_fast(lines, lines.count(b"\n"))
        if events is None:
            return None
        moments = events.moments
        if not self._folds:
            times = Numbers(moments.all())
            return Block(events.count, Events(events.count, times, events.keys, events.columns))
        groups = list(grouped(events, self._pane))
        if len(groups) * _FEW <= events.count:
            groups = [self._totalled(group) for group in groups]
        return Folded(events.count, moments.lowest, moments.highest, groups)

    def _totalled(self, group: Group) -> Group:
        totals = self._recipe.empty()
        totals.add(group.count, group.columns)
        return replace(group, columns=(), totals=totals)


def folding_factory(settings: StreamSettings) -> Callable[[], Any]:
    """Return what makes a `Folding`; it can be pickled."""
    return partial(Folding, settings)
