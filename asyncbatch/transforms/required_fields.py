"""Fields that each record must have, with a value of some types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.formats.positions import format_pointer
from asyncbatch.transforms.base import MissingName, RecordError, kind_of
from asyncbatch.transforms.fields import make_field_getter, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.base import RecordPosition

_NUMBER = frozenset({int, float})
_TIME = frozenset({str, int, float})
_SCALAR = frozenset({str, int, float, bool})
_TYPE_NAMES = {
    _NUMBER: "a number",
    _TIME: "a text or a number",
    _SCALAR: "a text, number or boolean",
}


class FieldReader:
    """A required field of records, of some types. Raises ValueError for an invalid path.

    `role` names its purpose, for example `key field`; `noun` a record, for example `event`.
    """

    path: str
    types: frozenset[type]

    def __init__(
        self, path: str, types: frozenset[type], role: str = "field", noun: str = "event"
    ) -> None:
        self.path, self.types, self._role, self._noun = path, types, role, noun
        self.tokens: tuple[str, ...] = parse_path(path)
        self._get = make_field_getter(path)

    def read(self, record: dict[str, Json]) -> Any:
        """Return the field's value. Raises RecordError if it is missing or of another type."""
        value = self._get(record)
        if value is None:
            raise RecordError(
                "missing_field",
                f"{self.path!r} is missing or null",
                pointer=format_pointer(self.tokens),
                missing=MissingName(
                    f"no {self._noun} has a value for the {self._role} {self.path!r}",
                    self.path,
                    record,
                ),
            )
        if type(value) not in self.types:
            raise self.error(f"is {kind_of(value)}, not {_TYPE_NAMES[self.types]}")
        return value

    def column(self, records: Sequence[dict[str, Json]]) -> list[Any]:
        """Return the field's value of each record, None if it is missing."""
        return list(map(self._get, records))

    def error(self, problem: str) -> RecordError:
        """Return the reason to reject a record for this field."""
        return RecordError(
            "transform", f"{self.path!r} {problem}", pointer=format_pointer(self.tokens)
        )


def number_field(path: str, noun: str = "event") -> FieldReader:
    """Return a field that must be a number."""
    return FieldReader(path, _NUMBER, "aggregated field", noun)


def time_field(path: str) -> FieldReader:
    """Return the field of a time, checked by type only."""
    return FieldReader(path, _TIME, "time field")


def scalar_field(path: str, role: str = "aggregated field", noun: str = "event") -> FieldReader:
    """Return a field that must not be null, an array or an object."""
    return FieldReader(path, _SCALAR, role, noun)


class FieldsCheck:
    """A check that a value is an object with all these fields."""

    def __init__(self, fields: Sequence[FieldReader]) -> None:
        self.fields = fields

    def takes(self, values: Sequence[Json]) -> bool:
        """Whether all of these values pass."""
        if not set(map(type, values)) <= {dict}:
            return False
        return all(set(map(type, one.column(values))) <= one.types for one in self.fields)

    def __call__(self, value: Json, position: RecordPosition) -> Iterable[Json]:  # noqa: ARG002
        if type(value) is not dict:
            raise RecordError(
                "transform", f"only an object can be aggregated, not {kind_of(value)}"
            )
        for field in self.fields:
            field.read(value)
        return (value,)
