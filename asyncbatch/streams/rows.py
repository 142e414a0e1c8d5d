"""Events as a decoder makes them of JSON Lines, with the fields that matter and no others."""

from __future__ import annotations

from collections import defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.windows.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.streams.fields import Field
    from asyncbatch.windows.keys import Key, KeyFields
    from asyncbatch.windows.times import Moments

_COLUMNS: tuple[Callable[[Iterable[Any]], list[Any]], ...] = (
    lambda events: [event.f0 for event in events],
    lambda events: [event.f1 for event in events],
    lambda events: [event.f2 for event in events],
    lambda events: [event.f3 for event in events],
    lambda events: [event.f4 for event in events],
    lambda events: [event.f5 for event in events],
)
"""A name that the interpreter knows beforehand is found twice as fast as by `attrgetter`."""


class RowReader:
    """Reads the fields of JSON Lines: first the time (if it is `timed`), the keys', the values'.

    With `texts` times and keys must be texts, which is quicker. Raises ValueError if it cannot
    read such fields.
    """

    def __init__(
        self, fields: Sequence[Field], keys: KeyFields, *, timed: bool, texts: bool
    ) -> None:
        first = 1 if timed else 0
        self._by, self.is_timed, self.has_texts = (
            slice(first, first + len(keys.names)),
            timed,
            texts,
        )
        self._keys = keys
        tree: dict[str, Any] = {}
        for at, field in enumerate(fields):
            is_text = texts and at < self._by.stop
            _plant(tree, field.tokens, field.types & {str} if is_text else field.types)
        self._decode = msgspec.json.Decoder(_type(tree)).decode_lines
        names = [_name(tree, field.tokens) for field in fields]
        self._getters = [_column(name) for name in names]
        self.is_plain = names == ["f0", "f1", "f2"] and timed and texts and len(keys.names) == 1
        """Whether events are a time, a key and a value."""

    def read(self, lines: bytes) -> list[Any]:
        """Return the events. Raises an exception if one lacks a field; it does not say which.

        Nor does it see to it that each line is an event of its own.
        """
        return self._decode(lines)

    def times(self, events: list[Any]) -> list[Any]:
        """Return each event's time, as it came."""
        return self._getters[0](events)

    def keys(self, events: list[Any]) -> Sequence[Key] | None:
        """Return each event's key; None if there are none."""
        columns = [get(events) for get in self._getters[self._by]]
        if not self.has_texts:
            return self._keys.column(columns)
        if len(columns) == 1:
            return columns[0]
        return list(zip(*columns, strict=True)) if columns else None

    def columns(self, events: list[Any]) -> tuple[list[Any], ...]:
        """Return the values, in columns."""
        return tuple([get(events) for get in self._getters[self._by.stop :]])


class RowEvents(Events):
    """Events that are put into columns only if they are asked for."""

    def __init__(self, rows: list[Any], reader: RowReader, moments: Moments, source: str) -> None:
        super().__init__(len(rows), moments, None, (), source)
        self._rows, self._reader = rows, reader
        self._is_split = False

    def _split(self) -> None:
        if not self._is_split:
            self._keys = self._reader.keys(self._rows)
            self._columns = self._reader.columns(self._rows)
            self._is_split = True

    @property
    def keys(self) -> Sequence[Key] | None:
        """See `Events`."""
        self._split()
        return self._keys

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        """See `Events`."""
        self._split()
        return self._columns

    def by_key(self) -> Iterable[tuple[Key, int, Sequence[Sequence[Any]]]]:
        """See `Events`."""
        if not self._reader.is_plain or self._is_split:
            return super().by_key()
        groups = defaultdict[Any, list[Any]](list)
        for row in self._rows:  # at half the cost of columns
            groups[row.f1].append(row.f2)
        return [(key, len(values), (values,)) for key, values in groups.items()]


def _plant(tree: dict[str, Any], tokens: Sequence[str], types: frozenset[type]) -> None:
    """Add a field to what a decoder reads. Raises ValueError if that is not possible."""
    *above, last = tokens
    if any(token.isdecimal() for token in tokens[1:]):
        raise ValueError("perhaps an array's element")
    for token in above:
        below = tree.setdefault(token, {})
        if not isinstance(below, dict):
            raise ValueError("both a scalar and an object")  # noqa: TRY004 - it is the paths' fault
        tree = below
    known: Any = tree.get(last, types)
    if isinstance(known, dict) or not known & types:
        raise ValueError("of two types that have nothing in common")
    tree[last] = known & types


def _type(tree: dict[str, Any]) -> Any:  # noqa: ANN401 - a class that is made here
    """Return the type of an object with these fields, called f0, f1 and so on."""
    fields, names = list[tuple[str, Any]](), dict[str, str]()
    for at, (token, below) in enumerate(tree.items()):
        kind: Any = None
        if isinstance(below, dict):
            kind = _type(below)
        else:
            for one in sorted(below, key=str):
                kind = one if kind is None else kind | one
        fields.append((f"f{at}", kind))
        names[f"f{at}"] = token
    return msgspec.defstruct("Event", fields, rename=names, gc=False)


def _name(tree: dict[str, Any], tokens: Sequence[str]) -> str:
    names = []
    for token in tokens:
        names.append(f"f{list(tree).index(token)}")
        tree = tree[token]
    return ".".join(names)


def _column(name: str) -> Callable[[Iterable[Any]], list[Any]]:
    """Return what makes a column of a field."""
    known = {f"f{at}": column for at, column in enumerate(_COLUMNS)}
    get = attrgetter(name)
    return known.get(name) or (lambda events: list(map(get, events)))
