"""What goes into windows and what comes out of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.errors import AsyncbatchError
from asyncbatch.windows.times import Same

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.windows.aggregates import Totals
    from asyncbatch.windows.keys import Key
    from asyncbatch.windows.state import WindowsState
    from asyncbatch.windows.times import Moments


class Events:
    """Events of one source in the order in which they came, at least one, in columns.

    Without `keys` all have (). There is a column for each of the recipe's fields.
    """

    def __init__(
        self,
        count: int,
        moments: Moments,
        keys: Sequence[Key] | None = None,
        columns: tuple[Sequence[Any], ...] = (),
        source: str = "",
    ) -> None:
        self.count, self.moments, self.source = count, moments, source
        self._keys, self._columns = keys, columns

    @property
    def keys(self) -> Sequence[Key] | None:
        """Each event's key, or None."""
        return self._keys

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        """The values, in columns."""
        return self._columns

    def come(self, source: str, arrived: int | None) -> None:
        """Say where they come from, and when if they have no time of their own."""
        self.source = source
        if arrived is not None:
            self.moments = Same(arrived, self.count)

    def by_key(self) -> Iterable[tuple[Key, int, Sequence[Sequence[Any]]]]:
        """Return each key, how many events have it, and their values, in order of appearance."""
        return by_key(self.keys, self.columns, self.count)


def by_key(
    keys: Sequence[Any] | None, columns: Sequence[Sequence[Any]], count: int
) -> Iterator[tuple[Any, int, Sequence[Sequence[Any]]]]:
    """Yield each key, how many events have it, and their values, in order of appearance."""
    if keys is None:
        yield (), count, columns
    elif not columns:
        for key, number in Counter(keys).items():
            yield key, number, ()
    elif len(columns) == 1:
        groups = defaultdict[Any, list[Any]](list)
        for key, value in zip(keys, columns[0], strict=True):
            groups[key].append(value)
        for key, values in groups.items():
            yield key, len(values), (values,)
    else:
        rows = defaultdict[Any, list[tuple[Any, ...]]](list)
        for key, row in zip(keys, zip(*columns, strict=True), strict=True):
            rows[key].append(row)
        for key, found in rows.items():
            yield key, len(found), list(zip(*found, strict=True))


class Group(Struct, frozen=True, array_like=True):
    """Events of one pane and key: their totals, or (if that is quicker) their number and values."""

    pane: int
    key: Key
    count: int
    columns: Sequence[Sequence[Any]]
    totals: Totals | None = None


class Folded(Struct, frozen=True):
    """Events of one source put together, as far as that can be done apart from all others."""

    count: int
    lowest: int
    highest: int
    groups: list[Group]

    def at(self, time: int, pane: int) -> Folded:
        """Return them as events of one time, in its pane, having been put together as such."""
        start = time // pane * pane
        groups = [replace(group, pane=start) for group in self.groups]
        return Folded(self.count, time, time, groups)


class Window(Struct, frozen=True):
    """A window of one key that is over, in microseconds; `partial` if it was ended early."""

    start: int
    end: int
    key: Key
    totals: Totals
    partial: bool = False


class Taken(Struct):
    """What came of some events: windows that are over, and the places of events that were late.

    `late_in_part` were too late for some of their windows, and are in the others.
    """

    closed: list[Window]
    late: list[int]
    late_in_part: int = 0


class TooManyKeysError(AsyncbatchError):
    """A window would have more keys than it may: `most`."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"a window has more than {self.most:,} keys"


class Windower(Protocol):
    """Puts events into windows.

    Each event is judged by those before it, so nothing depends on how many are taken at once.
    """

    def take(self, events: Events) -> Taken:
        """Put events where they belong. Raises TooManyKeysError."""
        ...

    def advance(self) -> list[Window]:
        """Return the windows that are over now that the watermark has moved by itself."""
        ...

    def finish(self, *, partial: bool) -> list[Window]:
        """Return all windows that are not over, which end here."""
        ...

    def state(self) -> WindowsState:
        """Return all there is, written down, but for the watermark."""
        ...

    def restore(self, state: WindowsState) -> None:
        """Become, being new, what `state` was called on. Raises as `Recipe.restored`."""
        ...

    @property
    def open(self) -> list[Window]:
        """The windows that are not over, by start and end; their totals still change."""
        ...
