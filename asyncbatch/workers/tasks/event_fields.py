"""The time, the key and the values of events."""

from __future__ import annotations

from collections import defaultdict
from io import BytesIO
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.formats.positions import format_pointer
from asyncbatch.transforms.base import RecordError, kind_of
from asyncbatch.transforms.fields import has_dots
from asyncbatch.transforms.required_fields import number_field, scalar_field, time_field
from asyncbatch.windows.events import Events, KeyFields
from asyncbatch.windows.times import ConstantTime, NumericTimes, TimeReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.core.records import Json
    from asyncbatch.transforms.required_fields import FieldReader
    from asyncbatch.windows.aggregates import AggregateSet
    from asyncbatch.windows.events import Key
    from asyncbatch.windows.times import EventTimes


class EventFields:
    """The fields of events: time (unless it is the arrival), keys, values.

    `now` returns microseconds since the epoch. Raises ValueError for an invalid path.
    """

    keys: KeyFields
    times: TimeReader

    def __init__(
        self, settings: StreamSettings, recipe: AggregateSet, now: Callable[[], int]
    ) -> None:
        self._max_future, self._now = settings.max_future, now
        self._window = settings.window
        self._time = None if settings.time is None else time_field(settings.time)
        self.keys, self.times = KeyFields(settings.by), TimeReader(settings.unit)
        numbers = recipe.number_fields
        self.readers: list[FieldReader] = [
            *([] if self._time is None else [self._time]),
            *(scalar_field(path, "key field") for path in settings.by),
            *(number_field(path) if path in numbers else scalar_field(path)
              for path in recipe.fields),
        ]  # fmt: skip

    @property
    def have_time(self) -> bool:
        """Whether events have a time field; it is the first field."""
        return self._time is not None

    def check_times(self, lowest: int, highest: int) -> None:
        """Raise ValueError for times too far ahead of the clock, or windows without a date."""
        if self._max_future is not None and highest > self._now() + self._max_future:
            raise ValueError("is further in the future than --max-future allows")
        self._window.check_time(lowest)
        if highest != lowest:
            self._window.check_time(highest)

    def row(self, event: Json) -> tuple[Any, ...]:
        """Return the time, the key's fields and the values of an event. Raises RecordError."""
        if type(event) is not dict:
            advice = " (--jq '.[]' makes an event of each element)" if type(event) is list else ""
            raise RecordError("transform", f"an event is an object, not {kind_of(event)}{advice}")
        if self._time is None:
            return (None, *(one.read(event) for one in self.readers))
        try:
            values = [one.read(event) for one in self.readers]
        except RecordError as error:
            if error.kind == "missing_field" and error.pointer == format_pointer(self._time.tokens):
                error.message += _other_fields(event)
            raise
        try:
            time = self.times.parse(values[0])
            self.check_times(time, time)
        except ValueError as error:
            raise self._time.error(str(error)) from None
        return (time, *values[1:])

    def events(self, rows: Sequence[tuple[Json, ...]], source: str, arrival: int) -> Events:
        """Return rows as events. They arrived at `arrival`, if they have no time."""
        columns = list(zip(*rows, strict=True))
        moments: EventTimes = (
            NumericTimes(columns[0]) if self._time else ConstantTime(arrival, len(rows))
        )
        by = 1 + len(self.keys.names)
        return Events(
            len(rows), moments, self.keys.column(columns[1:by]), tuple(columns[by:]), source
        )


_MAX_NAMES = 8  # field names in a message
_MAX_NAME_CHARACTERS = 40


def _other_fields(event: dict[str, Json]) -> str:
    """Return a hint with the fields of an event that lacks the field of its time."""
    names = [
        repr(name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[:_MAX_NAME_CHARACTERS]}...")
        for name in list(event)[:_MAX_NAMES]
    ]
    more = f" and {len(event) - _MAX_NAMES:,} more" if len(event) > _MAX_NAMES else ""
    return (
        f"; the event has {', '.join(names) or 'no fields'}{more} (--time names the time's field)"
    )


# A constant attribute name is twice as fast as `attrgetter`.
_COLUMN_GETTERS: tuple[Callable[[Iterable[Any]], list[Any]], ...] = (
    lambda events: [event.f0 for event in events],
    lambda events: [event.f1 for event in events],
    lambda events: [event.f2 for event in events],
    lambda events: [event.f3 for event in events],
    lambda events: [event.f4 for event in events],
    lambda events: [event.f5 for event in events],
)


class RowReader:
    """Reads fields of JSON Lines or an array: the time (if `timed`), the keys', the values'.

    With `texts` times and keys must be texts, which is faster. Raises ValueError for unsupported
    fields.
    """

    def __init__(
        self, fields: Sequence[FieldReader], keys: KeyFields, *, timed: bool, texts: bool
    ) -> None:
        first = 1 if timed else 0
        self._key_slice = slice(first, first + len(keys.names))
        self.reads_texts = texts
        self._keys = keys
        tree: dict[str, Any] = {}
        for at, field in enumerate(fields):
            is_text = texts and at < self._key_slice.stop
            _add_path(tree, field.tokens, field.types & {str} if is_text else field.types)
        # a field with the whole path as its name, which would come before the nested one
        whole_names = dict.fromkeys(field.path for field in fields if has_dots(field.path))
        self._whole_names = [f"w{at}" for at in range(len(whole_names))]
        event = _struct_type(tree, whole_names)
        self._decode = msgspec.json.Decoder(event).decode
        self._decode_array = msgspec.json.Decoder(list[event]).decode  # type: ignore[valid-type]  # made here
        names = [_attribute_path(tree, field.tokens) for field in fields]
        self._getters = [_column_getter(name) for name in names]
        # whether events are a time, a key and a value
        self.is_time_key_value: bool = (
            names == ["f0", "f1", "f2"] and timed and texts and len(keys.names) == 1
        )

    def read(self, lines: bytes) -> list[Any]:
        """Return the event of each line. Raises an unspecific error if a line is not one."""
        # Not by `decode_lines`, which takes any white space for a line end: to count line ends, and
        # braces beside them, costs more than a call for each line.
        return self._checked(list(map(self._decode, BytesIO(lines))))

    def read_array(self, text: bytes) -> list[Any]:
        """Return the elements of an array. Raises an unspecific error if one lacks a field."""
        return self._checked(self._decode_array(text))

    def _checked(self, events: list[Any]) -> list[Any]:
        for name in self._whole_names:
            if any(getattr(event, name) is not None for event in events):
                raise ValueError(f"{name} is not read fast")
        return events

    def times(self, events: list[Any]) -> list[Any]:
        """Return each event's time, as it was written."""
        return self._getters[0](events)

    def keys(self, events: list[Any]) -> Sequence[Key] | None:
        """Return each event's key; None without keys."""
        columns = [get(events) for get in self._getters[self._key_slice]]
        if not self.reads_texts:
            return self._keys.column(columns)
        if len(columns) == 1:
            return columns[0]
        return list(zip(*columns, strict=True)) if columns else None

    def columns(self, events: list[Any]) -> tuple[list[Any], ...]:
        """Return the values, in columns."""
        return tuple([get(events) for get in self._getters[self._key_slice.stop :]])


class RowEvents(Events):
    """Events that are put into columns on first use."""

    def __init__(
        self, rows: list[Json], reader: RowReader, moments: EventTimes, source: str
    ) -> None:
        super().__init__(len(rows), moments, None, (), source)
        self._rows, self._reader = rows, reader
        self._has_columns = False

    def _make_columns(self) -> None:
        if not self._has_columns:
            self._keys = self._reader.keys(self._rows)
            self._columns = self._reader.columns(self._rows)
            self._has_columns = True

    @property
    def keys(self) -> Sequence[Key] | None:
        self._make_columns()
        return self._keys

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        self._make_columns()
        return self._columns

    def by_key(self) -> Iterable[tuple[Key, int, Sequence[Sequence[Any]]]]:
        if not self._reader.is_time_key_value or self._has_columns:
            return super().by_key()
        groups = defaultdict[Any, list[Any]](list)
        for row in self._rows:  # at half the cost of columns
            groups[row.f1].append(row.f2)
        return [(key, len(values), (values,)) for key, values in groups.items()]


def _add_path(tree: dict[str, Any], tokens: Sequence[str], types: frozenset[type]) -> None:
    """Add a field to the types of a decoder. Raises ValueError if it is unsupported."""
    *above, last = tokens
    if any(token.isdecimal() for token in tokens[1:]):
        raise ValueError("perhaps an array's element")
    for token in above:
        below = tree.setdefault(token, {})
        if not isinstance(below, dict):
            raise ValueError("both a scalar and an object")  # noqa: TRY004 - the paths are wrong, not a type
        tree = below
    known: Any = tree.get(last, types)
    if isinstance(known, dict) or not known & types:
        raise ValueError("of two types that have nothing in common")
    tree[last] = known & types


def _struct_type(tree: dict[str, Any], optional: Iterable[str] = ()) -> Any:
    """Return the type of an object with these fields, called f0, f1 and so on.

    The `optional` ones are called w0, w1 and so on. Raises ValueError if one is also in `tree`.
    """
    fields, names = list[Any](), dict[str, str]()
    for at, (token, below) in enumerate(tree.items()):
        kind: Any = None
        if isinstance(below, dict):
            kind = _struct_type(below)
        else:
            for one in sorted(below, key=str):
                kind = one if kind is None else kind | one
        fields.append((f"f{at}", kind))
        names[f"f{at}"] = token
    for at, name in enumerate(optional):
        if name in tree:
            raise ValueError("needed, and optional")
        fields.append((f"w{at}", msgspec.Raw, None))
        names[f"w{at}"] = name
    return msgspec.defstruct("Event", fields, rename=names, gc=False)


def _attribute_path(tree: dict[str, Any], tokens: Sequence[str]) -> str:
    names = []
    for token in tokens:
        names.append(f"f{list(tree).index(token)}")
        tree = tree[token]
    return ".".join(names)


def _column_getter(name: str) -> Callable[[Iterable[Any]], list[Any]]:
    """Return a function that makes a column of a field."""
    known = {f"f{at}": column for at, column in enumerate(_COLUMN_GETTERS)}
    get = attrgetter(name)
    return known.get(name) or (lambda events: list(map(get, events)))
