"""Settings of transforms, and the public functions that make them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncbatch.core.records import Json
    from asyncbatch.transforms.schema_file import SchemaSource

    Step: TypeAlias = "TransformSpec | Callable[..., Any]"

# conversions of the value of a field; see `transforms.fields`
Function = Literal[
    "strip", "lower", "upper", "title", "int", "float", "bool", "str", "datetime", "date", "json"
]  # fmt: skip
OnMissing = Literal["reject", "drop"]
# the origin of a record: its file, its number there, the line in which it begins
Origin = Literal["file", "record", "line"]


class JqSpec(Struct, frozen=True, tag="jq"):
    """Settings of a jq program; see `transforms.jq.Jq`."""

    program: str
    env: bool = False  # the program sees environment variables
    lossy: bool = False  # integers beyond 2^53 are rounded instead of rejected


class CallSpec(Struct, frozen=True, tag="call"):
    """Settings of a call of a user's function; see `transforms.call.make_call`."""

    function: str  # MODULE:FUNCTION or FILE.py:FUNCTION


class FunctionSpec(Struct, frozen=True, tag="function"):
    """Settings of a call of a function object; see `transforms.call.make_call`."""

    function: Callable[..., Any]


class FieldRule(Struct, frozen=True):
    """The rule for one field of the new record."""

    source: str | None = None  # path of the value; None: take `now` or `value`
    apply: tuple[Function, ...] = ()  # conversions of the value, in order
    default: Any = None  # in place of a missing or null value; `apply` does not change it
    now: bool = False  # take the current time in UTC
    value: Any = None  # a constant
    origin: Origin | None = None  # take it of the origin of the record


class FieldsSpec(Struct, frozen=True, tag="fields"):
    """Settings of `transforms.fields.Fields`: name and rule of each field, in order."""

    fields: tuple[tuple[str, FieldRule], ...]


class RequireSpec(Struct, frozen=True, tag="require"):
    """Settings of `transforms.fields.Require`: the paths that a record must have."""

    fields: tuple[str, ...]
    on_missing: OnMissing = "reject"


TransformSpec: TypeAlias = (
    "JqSpec | CallSpec | FunctionSpec | SchemaSource | FieldsSpec | RequireSpec"
)


_SPECS = (JqSpec, CallSpec, FieldsSpec, RequireSpec)


def jq(program: str, *, env: bool = False, lossy: bool = False) -> JqSpec:
    """Run a jq program on each record.

    `env`: the program sees the environment. `lossy`: integers beyond 2^53 are rounded.
    """
    return JqSpec(program, env, lossy)


def call(function: str) -> CallSpec:
    """Call the function at `MODULE:FUNCTION` or `FILE.py:FUNCTION` with each record."""
    return CallSpec(function)


def schema(
    path: str | os.PathLike[str], *, check_formats: bool = False, check_content: bool = False
) -> SchemaSource:
    """Reject records that violate the JSON Schema in a file. Raises UsageError.

    Reads the file immediately.
    """
    from asyncbatch.transforms.schema_file import load_schema

    return load_schema(os.fspath(path), check_formats=check_formats, check_content=check_content)


def require(*fields: str, on_missing: OnMissing = "reject") -> RequireSpec:
    """Reject or drop records in which one of these paths is missing, null or ""."""
    return RequireSpec(fields, on_missing)


def fields(rules: Mapping[str, str | FieldRule]) -> FieldsSpec:
    """Make a new record from paths (`a.b.c`) or rules (`field`), by field name."""
    pairs = rules.items()
    return FieldsSpec(
        tuple((name, field(rule) if isinstance(rule, str) else rule) for name, rule in pairs)
    )


def field(
    path: str | None = None,
    *apply: Function,
    default: Json = None,
    now: bool = False,
    value: Json = None,
    source: Origin | None = None,
) -> FieldRule:
    """Return the rule for a field: the value at `path`, converted by `apply`.

    A missing or null value becomes `default`. Without a path, the field is the time in UTC if `now`
    is true; the file, record number or line of the record, as `source` says; else the constant
    `value`.
    """
    return FieldRule(path, apply, default, now, value, source)


def step_specs(steps: Iterable[Step]) -> Iterator[TransformSpec]:
    """Yield the settings of each transform. Raises UsageError for any other object."""
    from asyncbatch.transforms.schema_file import SchemaSource

    if not isinstance(steps, Iterable):
        raise UsageError("transforms must be a list, even for one transform")
    for step in steps:
        if callable(step):
            yield FunctionSpec(step)
        elif isinstance(step, (*_SPECS, SchemaSource)):
            yield step
        else:
            raise UsageError(f"{step!r} is not a transform; use a function, jq(…), fields(…), …")


def files_read(specs: Iterable[TransformSpec]) -> Iterator[str]:
    """Yield the files of transforms: modules with functions, schemas and all that they refer to."""
    for spec in specs:
        if isinstance(spec, CallSpec):
            from asyncbatch.transforms.load import module_file

            if path := module_file(spec.function):
                yield path
        elif not isinstance(spec, (*_SPECS, FunctionSpec)):
            yield from spec.files
