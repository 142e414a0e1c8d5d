"""Events, group keys, and window state."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from msgspec import Raw, Struct
from msgspec.json import Decoder, Encoder
from msgspec.structs import replace

from asyncbatch.windows.times import ConstantTime

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.windows.aggregates import AggregateSet, Totals
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.times import EventTimes


class WindowState(Struct, frozen=True, array_like=True):
    """The state of a pane or session of one key, for a checkpoint."""

    start: int
    end: int
    key: list[Any]
    count: int
    statistics: list[Any]


class WindowsState(Struct, frozen=True):
    """All panes or sessions, each as JSON; windows that end by `closed_to` are over."""

    closed_to: int
    kept: list[Raw]

    def all(self) -> Iterator[WindowState]:
        """Yield each pane or session. Raises msgspec.ValidationError."""
        return map(_decode, self.kept)


_encode, _decode = Encoder().encode, Decoder(WindowState).decode


def window_state(start: int, end: int, key: list[Any], totals: Totals) -> Raw:
    """Return a pane or session written down.

    That is JSON at once: as objects, many would keep the garbage collector busy for seconds.
    """
    return Raw(_encode(WindowState(start, end, key, totals.count, totals.states())))


# The value of one field, or a tuple of the values of several; () without fields.
Key: TypeAlias = "Hashable"


class KeyFields:
    """Makes keys of the values of fields, and the other way round."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def column(self, columns: Sequence[Sequence[Any]]) -> Sequence[Key] | None:
        """Return the key of each event, None if all are (). Raises TypeError."""
        exact = [
            column if set(map(type, column)) == {str} else [_exact(value) for value in column]
            for column in columns
        ]
        if len(exact) > 1:
            return list(zip(*exact, strict=True))
        return exact[0] if exact else None

    def same(self, value: str) -> Key:
        """Return the key with this value in every field."""
        return (value,) * len(self.names) if len(self.names) != 1 else value

    def order(self, key: Key) -> Any:
        """Return a sort key: booleans, numbers, then texts by code point."""
        return [_rank(value) for value in self._values(key)]

    def named(self, key: Key) -> dict[str, Any]:
        """Return the fields of a key."""
        return dict(zip(self.names, self.plain(key), strict=True))

    def plain(self, key: Key) -> list[Any]:
        """Return the values of a key, as JSON values."""
        return [value[0] if type(value) is tuple else value for value in self._values(key)]

    def restored(self, values: Sequence[Json]) -> Key:
        """Return the key that `plain` was called on."""
        exact = tuple(map(_exact, values))
        return exact if len(self.names) != 1 else exact[0]

    def _values(self, key: Any) -> tuple[Any, ...]:
        return key if len(self.names) != 1 else (key,)


def check_scalar(value: object) -> None:
    """Raise TypeError for an array or object, which cannot be a key."""
    if isinstance(value, dict | list):
        raise TypeError("is neither a text, a number nor a boolean")


def _exact(value: Json) -> Any:
    """Return a value that is equal only to the same JSON value: 1 is 1.0, but not true."""
    kind = type(value)
    if kind is bool:
        return (value,)
    if kind is float and value.is_integer():
        return int(value)
    check_scalar(value)
    return value


def _rank(value: Json) -> tuple[int, Any]:
    kind = type(value)
    return (2, value) if kind is str else (0, value) if kind is tuple else (1, value)


class Events:
    """Events of one source in order of arrival, at least one, in columns.

    Without `keys` all have the key (). There is one column for each of the aggregates' fields.
    """

    def __init__(
        self,
        count: int,
        moments: EventTimes,
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

    def arrival_times(self, source: str, arrived: int | None) -> None:
        """Set the source, and the time of arrival if the events have no time."""
        self.source = source
        if arrived is not None:
            self.moments = ConstantTime(arrived, self.count)

    def by_key(self) -> Iterable[tuple[Key, int, Sequence[Sequence[Any]]]]:
        """Return each key, its number of events, and their values, in order of appearance."""
        return by_key(self.keys, self.columns, self.count)


def by_key(
    keys: Sequence[Any] | None, columns: Sequence[Sequence[Any]], count: int
) -> Iterator[tuple[Any, int, Sequence[Sequence[Any]]]]:
    """Yield each key, its number of events, and their values, in order of appearance."""
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
    """The events of one pane and key: their totals, or their number and values.

    The latter is faster for few events.
    """

    pane: int
    key: Key
    count: int
    columns: Sequence[Sequence[Any]]
    totals: Totals | None = None


class PartialWindows(Struct, frozen=True):
    """Events of one source, aggregated by pane and key, before they are merged."""

    count: int
    lowest: int
    highest: int
    groups: list[Group]

    def at(self, time: int, pane: int) -> PartialWindows:
        """Return them as events of one `time`, in its `pane`."""
        start = time // pane * pane
        groups = [replace(group, pane=start) for group in self.groups]
        return PartialWindows(self.count, time, time, groups)


class Window(Struct, frozen=True):
    """A closed window of one key, in microseconds. `partial`: it was closed early."""

    start: int
    end: int
    key: Key
    totals: Totals
    partial: bool = False


class WindowOutcome(Struct):
    """The closed windows, and the indexes of late events.

    `late_in_part`: events that were late for some of their windows only.
    """

    closed: list[Window]
    late: list[int]
    late_in_part: int = 0


class Windower(Protocol):
    """Puts events into windows.

    The result does not depend on how many events are added in one call.
    """

    def add(self, events: Events) -> WindowOutcome:
        """Put events where they belong. Raises TooManyKeysError."""
        ...

    def advance(self) -> list[Window]:
        """Return the windows that are over now that the watermark has moved by itself."""
        ...

    def finish(self, *, partial: bool) -> list[Window]:
        """Close all open windows and return them."""
        ...

    def state(self) -> WindowsState:
        """Return the state, without the watermark."""
        ...

    def restore(self, state: WindowsState) -> None:
        """Restore a new windower from a `state`. Raises as `AggregateSet.restored`."""
        ...

    @property
    def open(self) -> list[Window]:
        """The windows that are not over, by start and end; their totals still change."""
        ...


class WindowSchema(NamedTuple):
    """The kind of a stream's windows, their keys and their aggregates."""

    window: WindowSpec
    keys: KeyFields
    recipe: AggregateSet
