"""Events, their keys, and the interface and state of windowers."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from msgspec import Raw, Struct
from msgspec.json import Decoder, Encoder
from msgspec.structs import replace

from asyncbatch.windows.times import ConstantTime

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.windows.aggregates import AggregateSet, Totals
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.times import EventTimes


class WindowState(Struct, frozen=True, array_like=True):
    """The state of a pane or session of one key, for a checkpoint."""

    start: int  # microseconds since the epoch, as all times
    end: int
    key: list[Any]
    count: int
    statistics: list[Any]


class WindowsState(Struct, frozen=True):
    """The state of a windower, for a checkpoint."""

    closed_to: int  # windows that end at this time or earlier are closed
    kept: list[Raw]  # each pane or session, a `WindowState` as JSON
    # JSON of keys of sessions, each with the time before which its events are late
    floors: Raw = Raw(b"[]")

    def all(self) -> Iterator[WindowState]:
        """Yield each pane or session. Raises msgspec.ValidationError."""
        return map(_decode, self.kept)

    def all_floors(self) -> list[tuple[list[Any], int]]:
        """Return the `floors`. Raises msgspec.ValidationError."""
        return _decode_floors(self.floors)


_encode, _decode = Encoder().encode, Decoder(WindowState).decode
_decode_floors = Decoder(list[tuple[list[Any], int]]).decode


def window_state(start: int, end: int, key: list[Any], totals: Totals) -> Raw:
    """Return the state of a pane or session as JSON.

    Not as objects: very many of them would keep the garbage collector busy for seconds.
    """
    return Raw(_encode(WindowState(start, end, key, totals.count, totals.states())))


def floors_state(floors: Iterable[tuple[list[Any], int]]) -> Raw:
    """Return keys and the times before which their events are late as JSON."""
    return Raw(_encode(list(floors)))


# The value of one key field, or a tuple of the values of several; () without key fields.
Key: TypeAlias = "Hashable"


class KeyFields:
    """The key fields of a stream. Converts between values of fields and keys."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names: tuple[str, ...] = tuple(names)

    def column(self, columns: Sequence[Sequence[Any]]) -> Sequence[Key] | None:
        """Return the key of each event, or None without key fields. Raises TypeError."""
        exact = [
            column if set(map(type, column)) == {str} else [_exact(value) for value in column]
            for column in columns
        ]
        if len(exact) > 1:
            return list(zip(*exact, strict=True))
        return exact[0] if exact else None

    def same(self, value: str) -> Key:
        """Return the key with this text in every field."""
        return (value,) * len(self.names) if len(self.names) != 1 else value

    def order(self, key: Key) -> Any:
        """Return a sort key: first booleans, then numbers, then texts by code point."""
        return [_rank(value) for value in self._values(key)]

    def kinds(self, keys: Collection[Any]) -> tuple[str, ...] | None:
        """Return "text" or "number" for each field, None if a field has values of several kinds.

        Of keys of the same kinds, `order` is the order of Python.
        """
        columns = zip(*keys, strict=True) if len(self.names) > 1 else (keys,)
        found = [set(map(type, column)) for column in columns]
        if any(kinds != {str} and not kinds <= {int, float} for kinds in found):
            return None
        return tuple("text" if kinds == {str} else "number" for kinds in found)

    def sorted(self, keys: Collection[Any]) -> list[Any]:
        """Return keys in the order of `order`."""
        return sorted(keys, key=None if self.kinds(keys) else self.order)

    def named(self, key: Key) -> dict[str, Any]:
        """Return the values of a key by field name."""
        if type(key) is str:
            return {self.names[0]: key}
        return dict(zip(self.names, self.plain(key), strict=True))

    def plain(self, key: Key) -> list[Any]:
        """Return the values of a key as JSON values."""
        return [value[0] if type(value) is tuple else value for value in self._values(key)]

    def restored(self, values: Sequence[Json]) -> Key:
        """Return the key from its values; the reverse of `plain`."""
        exact = tuple(map(_exact, values))
        return exact if len(self.names) != 1 else exact[0]

    def _values(self, key: Any) -> tuple[Any, ...]:
        return key if len(self.names) != 1 else (key,)


def check_scalar(value: object) -> None:
    """Raise TypeError for an array or object, which cannot be a key."""
    if isinstance(value, dict | list):
        raise TypeError("is not a text, a number or a boolean")


# From here on, ECMAScript writes a whole number with an exponent (Number::toString).
_EXPONENT_FROM = 1e21


def _exact(value: Json) -> Any:
    """Return a value to compare by: 1 and 1.0 are equal, but 1 and true are not."""
    kind = type(value)
    if kind is bool:
        return (value,)
    if kind is float and value.is_integer() and abs(value) < _EXPONENT_FROM:
        return int(value)
    check_scalar(value)
    return value


def _rank(value: Json) -> tuple[int, Any]:
    kind = type(value)
    return (2, value) if kind is str else (0, value) if kind is tuple else (1, value)


class Events:
    """Events of one source in order of arrival, at least one, in columns.

    There is one column for each field of the aggregates. Without `keys`, all have the key ().
    """

    count: int
    moments: EventTimes
    source: str

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
        """The key of each event, or None if all have the key ()."""
        return self._keys

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        """The values of the fields of the aggregates, a column for each."""
        return self._columns

    def arrival_times(self, source: str, arrived: int | None) -> None:
        """Set the source, and the time of all events to `arrived` unless it is None."""
        self.source = source
        if arrived is not None:
            self.moments = ConstantTime(arrived, self.count)

    def by_key(self) -> Iterable[tuple[Key, int, Sequence[Sequence[Any]]]]:
        """Return each key, the number of its events and their columns, in order."""
        return by_key(self.keys, self.columns, self.count)


def by_key(
    keys: Sequence[Any] | None, columns: Sequence[Sequence[Any]], count: int
) -> Iterator[tuple[Any, int, Sequence[Sequence[Any]]]]:
    """Yield each key, its number of events and their columns, by first appearance."""
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
    """The events of one pane and key: their values or, for many events, their totals."""

    pane: int  # its start, in microseconds since the epoch
    key: Key
    count: int  # number of events
    columns: Sequence[Sequence[Any]]  # their values
    totals: Totals | None = None  # if present, these count instead of `columns`


class PartialWindows(Struct, frozen=True):
    """Events of one source, aggregated by pane and key in a worker."""

    count: int  # number of events
    lowest: int  # the smallest time of an event, in microseconds since the epoch
    highest: int  # the largest one
    groups: list[Group]

    def at(self, time: int, pane: int) -> PartialWindows:
        """Return a copy with all events at `time`. `pane` is the length of a pane."""
        start = time // pane * pane
        groups = [replace(group, pane=start) for group in self.groups]
        return PartialWindows(self.count, time, time, groups)


class Window(Struct, frozen=True):
    """A window of one key, with its totals."""

    start: int  # microseconds since the epoch, within the window
    end: int  # microseconds since the epoch, no longer within the window
    key: Key
    totals: Totals
    partial: bool = False  # not over: the stream was stopped, or the window is still open


class WindowOutcome(Struct):
    """The result of adding events: closed windows and late events."""

    closed: list[Window]
    late: list[int]  # indexes of events that are late for all of their windows
    late_in_part: int = 0  # number of events that are late only for some of their windows


class Windower(Protocol):
    """A windower: assigns events to windows, and closes windows by the watermark.

    The windows do not depend on how many events are added in one call.
    """

    def add(self, events: Events) -> WindowOutcome:
        """Add events to their windows. Raises TooManyKeysError."""
        ...

    def advance(self) -> list[Window]:
        """Close and return the windows that end at the watermark or earlier."""
        ...

    def finish(self, *, partial: bool) -> list[Window]:
        """Close all open windows and return them."""
        ...

    def state(self) -> WindowsState:
        """Return the state for a checkpoint, without the watermark."""
        ...

    def restore(self, state: WindowsState) -> None:
        """Restore the state of a new windower.

        Raises ValueError or msgspec.ValidationError for an invalid state.
        """
        ...

    @property
    def open(self) -> list[Window]:
        """The windows that are not closed. Their totals may still change."""
        ...


class WindowSchema(NamedTuple):
    """The kind of a stream's windows, their keys and their aggregates."""

    window: WindowSpec
    keys: KeyFields
    recipe: AggregateSet
