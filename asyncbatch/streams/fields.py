"""The fields of events that matter: got out of them fast, or one by one with a reason if not."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.codec.pointer import format_pointer
from asyncbatch.transforms import RecordError, kind_of
from asyncbatch.transforms.path import make_getter, parse_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


Columns = tuple[list[Any], ...]


def make_fast_reader(fields: Sequence[Field]) -> Callable[[bytes], Columns] | None:
    """Return what reads the columns of JSON Lines; None if it cannot read these fields.

    It raises an exception if an event lacks a field; it does not say which, nor sees to it
    that each line is an event of its own.
    """
    tree: dict[str, Any] = {}
    for field in fields:
        if not _plant(tree, field):
            return None
    names = [_name(tree, field.tokens) for field in fields]
    decode_lines = msgspec.json.Decoder(_type(tree)).decode_lines
    getters = [attrgetter(name) for name in names]

    def read(lines: bytes) -> Columns:
        events = decode_lines(lines)
        if not getters:
            return ([None] * len(events),)
        return tuple([list(map(get, events)) for get in getters])

    return read


def _plant(tree: dict[str, Any], field: Field) -> bool:
    """Add a field to what a decoder reads; tell if that is possible."""
    *above, last = field.tokens
    if any(token.isdecimal() for token in field.tokens[1:]):
        return False  # perhaps an array's element
    for token in above:
        below = tree.setdefault(token, {})
        if not isinstance(below, dict):
            return False
        tree = below
    known: Any = tree.get(last, field.types)
    if isinstance(known, dict) or not known & field.types:
        return False
    tree[last] = known & field.types
    return True


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
