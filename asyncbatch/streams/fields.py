"""The fields of events that matter: got out of them fast, or one by one with a reason if not."""

from __future__ import annotations

from typing import Any

from asyncbatch.codec.pointer import format_pointer
from asyncbatch.transforms import RecordError, kind_of
from asyncbatch.transforms.path import make_getter, parse_path

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
