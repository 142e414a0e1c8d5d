"""`[[transform]]` tables made into what the workers are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from asyncbatch.pipeline_file.transforms import (
    CallTable,
    DedupeTable,
    FieldsTable,
    FieldTable,
    JqTable,
    RequireTable,
)
from asyncbatch.transforms.schema_load import load_schema
from asyncbatch.transforms.specs import CallSpec, FieldRule, FieldsSpec, JqSpec, RequireSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.pipeline_file.transforms import TransformTable
    from asyncbatch.transforms.specs import TransformSpec


def transform_specs(tables: Sequence[TransformTable]) -> tuple[TransformSpec, ...]:
    """Return the transforms that tables ask for, without `dedupe`: see `dedupe_key`.

    Schema files are read. Raises UsageError if one is not as it was when the file was checked.
    """
    return tuple(_spec(table) for table in tables if not isinstance(table, DedupeTable))


def dedupe_key(tables: Sequence[TransformTable]) -> tuple[str, ...] | None:
    """Return the paths of the key that records are deduplicated by, if they are: at the end."""
    return next((table.key for table in tables if isinstance(table, DedupeTable)), None)


def _spec(table: Any) -> TransformSpec:  # noqa: ANN401 - all tables but one
    match table:
        case JqTable():
            return JqSpec(table.expr, table.env, table.lossy)
        case CallTable():
            return CallSpec(table.function)
        case FieldsTable():
            return FieldsSpec(tuple((name, _rule(one)) for name, one in table.fields.items()))
        case RequireTable():
            return RequireSpec(table.fields, table.on_missing)
        case _:
            return load_schema(table.file, check_formats=table.check_formats)


def _rule(field: str | FieldTable) -> FieldRule:
    if isinstance(field, str):
        return FieldRule(field)
    if field.source is not UNSET:
        return FieldRule(field.source, field.apply, field.default)
    return FieldRule(now=True) if field.now else FieldRule(value=field.value)
