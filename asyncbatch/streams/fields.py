"""The fields of events that matter: got out of them fast, or one by one with a reason if not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.codec.pointer import format_pointer
from asyncbatch.transforms import RecordError, kind_of
from asyncbatch.transforms.path import make_getter, parse_path
from asyncbatch.windows.events import Events
from asyncbatch.windows.keys import KeyFields
from asyncbatch.windows.times import Numbers, Same, TimeReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.streams.settings import StreamSettings
    from asyncbatch.windows.aggregates import Recipe
    from asyncbatch.windows.times import Moments

_NUMBER = frozenset({int, float})
_TIME = frozenset({str, int, float})
_SCALAR = frozenset({str, int, float, bool})
_WORDS = {_NUMBER: "a number", _TIME: "a text or a number", _SCALAR: "a text, number or boolean"}


class Field:
    """A field that each event must have, of one of some types. Raises ValueError for no path."""

    def __init__(self, path: str, types: frozenset[type]) -> None:
        self.path, self.types = path, types
        self.tokens = parse_path(path)
        self._get = make_getter(self.tokens)

    def of(self, event: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Return the field's value. Raises RecordError if it is not what it must be."""
        value = self._get(event)
        if value is None:
            raise RecordError(
                "missing_field",
                f"{self.path!r} is missing or null",
                pointer=format_pointer(self.tokens),
            )
        if type(value) not in self.types:
            raise self.error(f"is {kind_of(value)}, not {_WORDS[self.types]}")
        return value

    def error(self, what: str) -> RecordError:
        """Return the reason to reject an event for this field."""
        return RecordError(
            "transform", f"{self.path!r} {what}", pointer=format_pointer(self.tokens)
        )


def number_field(path: str) -> Field:
    """Return a field that must be a number."""
    return Field(path, _NUMBER)


def time_field(path: str) -> Field:
    """Return a field that must be a time, as far as its type tells."""
    return Field(path, _TIME)


def scalar_field(path: str) -> Field:
    """Return a field that must not be null, an array or an object."""
    return Field(path, _SCALAR)


class EventFields:
    """What a stream asks of its events: a time, unless that is when they come, keys and values.

    `now` tells microseconds since the epoch. Raises ValueError for a path that is none.
    """

    def __init__(self, settings: StreamSettings, recipe: Recipe, now: Callable[[], int]) -> None:
        self._ahead, self._now = settings.max_future, now
        self._time = None if settings.time is None else time_field(settings.time)
        self.keys, self.times = KeyFields(settings.by), TimeReader(settings.unit)
        numbers = recipe.number_fields
        self.all = [
            *([] if self._time is None else [self._time]),
            *map(scalar_field, settings.by),
            *(number_field(path) if path in numbers else scalar_field(path)
              for path in recipe.fields),
        ]  # fmt: skip

    @property
    def are_timed(self) -> bool:
        """Whether the time is the first of them."""
        return self._time is not None

    def check_future(self, time: int) -> None:
        """Raise ValueError for a time that is too far ahead of the clock."""
        if self._ahead is not None and time > self._now() + self._ahead:
            raise ValueError("is further in the future than --max-future allows")

    def row(self, event: Any) -> tuple[Any, ...]:  # noqa: ANN401 - JSON
        """Return the time, the key's fields and the values of an event. Raises RecordError."""
        if type(event) is not dict:
            raise RecordError("transform", f"an event is an object, not {kind_of(event)}")
        values = [one.of(event) for one in self.all]
        if self._time is None:
            return (None, *values)
        try:
            time = self.times.one(values[0])
            self.check_future(time)
        except ValueError as error:
            raise self._time.error(str(error)) from None
        return (time, *values[1:])

    def events(self, rows: Sequence[tuple[Any, ...]], source: str, arrived: int) -> Events:
        """Return rows as events, which came at `arrived` if they have no time of their own."""
        columns = list(zip(*rows, strict=True))
        moments: Moments = Numbers(columns[0]) if self._time else Same(arrived, len(rows))
        by = 1 + len(self.keys.names)
        return Events(
            len(rows), moments, self.keys.column(columns[1:by]), tuple(columns[by:]), source
        )
