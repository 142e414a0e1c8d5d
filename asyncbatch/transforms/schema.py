"""The transform `schema`: rejects records that violate a JSON Schema."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from asyncbatch.core.records import Violation
from asyncbatch.formats.positions import format_pointer
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.schema_file import SchemaSource, describe, load_schema, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.base import RecordPosition

__all__ = ["MAX_VIOLATIONS", "SchemaCheck", "SchemaSource", "load_schema"]

MAX_VIOLATIONS = 10  # violations reported for one record


class SchemaCheck:
    """A check of records against a JSON Schema. It never uses the network."""

    def __init__(self, source: SchemaSource) -> None:
        self._validator = source.validator()
        # Whether a record is valid, without its violations: the fast way for many records.
        self.is_valid: Callable[[Json], bool] = self._validator.is_valid

    def __call__(
        self,
        value: Json,
        position: RecordPosition,  # noqa: ARG002 - a parameter of `Transform`
    ) -> tuple[Json]:
        """Return the record. Raises RecordError with its violations if it is not valid."""
        if self.is_valid(value):
            return (value,)
        violations = tuple(islice(self._violations(value), MAX_VIOLATIONS + 1))
        first, reported = violations[0], violations[:MAX_VIOLATIONS]
        place = f"at {shortened(first.pointer)}: " if first.pointer else ""
        more = ""
        if len(violations) > 1:
            over = len(violations) > MAX_VIOLATIONS
            more = f", and {'at least ' if over else ''}{len(reported) - 1 + over} more"
        message = f"{place}{first.message} ({first.rule}){more}"
        raise RecordError("schema", message, pointer=first.pointer, violations=reported)

    def _violations(self, value: Json) -> Iterator[Violation]:
        try:
            for error in self._validator.iter_errors(value):
                pointer = format_pointer(error.instance_path)
                yield Violation(pointer, error.kind.name, describe(error))
        except ValueError:
            # jsonschema_rs checks values of any depth, but cannot return a violation this deep.
            yield Violation(
                "", "schema", "a value that is nested more than 255 levels deep does not fit"
            )
