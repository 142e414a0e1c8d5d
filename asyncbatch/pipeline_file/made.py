"""Which fields records have behind transforms, as far as a file tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.pipeline_file.mistakes import suggestion
from asyncbatch.pipeline_file.transforms import (
    CallTable,
    DedupeTable,
    FieldsTable,
    FieldTable,
    JqTable,
    RequireTable,
)
from asyncbatch.transforms.path import parse_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.pipeline_file.mistakes import KeyPath


class MadeFields:
    """The fields that transforms make: their `names`, None if that is anybody's guess.

    `unmade` are the places of those that a transform asks for and none before has made.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.names: set[str] | None = None
        self.unmade: list[tuple[KeyPath, str]] = []
        for index, table in enumerate(transforms):
            for path, place in _asked(table):
                self.unmade += self.lacks(path, ("transform", index, *place))
            if isinstance(table, FieldsTable):
                self.names = set(table.fields)
            elif table is None or isinstance(table, JqTable | CallTable):
                self.names = None

    def lacks(self, path: str, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        """Yield the place where `path` is asked for, and why, if no such field is made."""
        first = parse_path(path)[:1]
        if self.names is not None and first and first[0] not in self.names:
            near = suggestion(first[0], self.names)
            yield at, f"no field {first[0]!r} is made by the fields before{near}"


def _asked(table: Any) -> Iterator[tuple[str, KeyPath]]:  # noqa: ANN401 - any transform's
    """Yield each path that a transform asks for, and where in its table."""
    match table:
        case FieldsTable():
            for name, rule in table.fields.items():
                if isinstance(rule, FieldTable):
                    if isinstance(rule.source, str):
                        yield rule.source, ("fields", name, "from")
                elif rule is not None:
                    yield rule, ("fields", name)
        case RequireTable():
            for place, path in enumerate(table.fields):
                yield path, ("fields", place)
        case DedupeTable():
            for place, path in enumerate(table.key):
                yield path, ("key", place)
