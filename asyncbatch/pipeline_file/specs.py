"""`[[transform]]` tables made into what the workers are told; each is tried here first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from asyncbatch.chain import make_stage
from asyncbatch.errors import PipelineFileError, UsageError
from asyncbatch.pipeline_file.mistakes import Mistake
from asyncbatch.pipeline_file.transforms import (
    CallTable,
    DedupeTable,
    FieldsTable,
    FieldTable,
    JqTable,
    RequireTable,
    SchemaTable,
)
from asyncbatch.transforms.specs import CallSpec, FieldRule, FieldsSpec, JqSpec, RequireSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.pipeline_file.transforms import TransformTable
    from asyncbatch.transforms.specs import TransformSpec

_KEYS = {JqTable: "expr", CallTable: "function", SchemaTable: "file"}


def transform_specs(path: str, tables: Sequence[TransformTable]) -> tuple[TransformSpec, ...]:
    """Return the transforms of the pipeline file at `path`, without `dedupe`: see `dedupe_key`.

    Programs are compiled, functions imported and schemas read. Raises PipelineFileError with
    all that cannot be.
    """
    specs: list[TransformSpec] = []
    mistakes: list[str] = []
    for index, table in enumerate(tables):
        if isinstance(table, DedupeTable):
            continue
        try:
            spec = _spec(table)
            make_stage(spec)
        except UsageError as error:
            key = _KEYS[type(table)]
            mistakes.append(str(Mistake(("transform", index, key), str(error))))
        else:
            specs.append(spec)
    if mistakes:
        raise PipelineFileError(path, mistakes)
    return tuple(specs)


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
            from asyncbatch.transforms.schema_load import load_schema  # noqa: PLC0415 - if asked for

            return load_schema(table.file, check_formats=table.check_formats)


def _rule(field: str | FieldTable) -> FieldRule:
    if isinstance(field, str):
        return FieldRule(field)
    if field.source is not UNSET:
        return FieldRule(field.source, field.apply, field.default)
    return FieldRule(now=True) if field.now else FieldRule(value=field.value)
