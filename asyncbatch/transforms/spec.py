"""Transform settings, and how each is built."""

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

# functions for the value of a field; see `transforms.fields`
Function = Literal[
    "strip", "lower", "upper", "title", "int", "float", "bool", "str", "datetime", "date", "json"
]  # fmt: skip
OnMissing = Literal["reject", "drop"]


class JqSpec(Struct, frozen=True, tag="jq"):
    """Put each record through a jq program; see `transforms.jq.Jq`."""

    program: str
    env: bool = False
    lossy: bool = False


class CallSpec(Struct, frozen=True, tag="call"):
    """Call a user's function with each record; see `transforms.call.make_call`."""

    function: str


class FunctionSpec(Struct, frozen=True, tag="function"):
    """Call a function that only this process has; see `transforms.call.make_call`."""

    function: Callable[..., Any]


class FieldRule(Struct, frozen=True):
    """The rule for one field: from the path `source`, else the clock, else `value`.

    A missing or null source becomes `default`; other values go through `apply`, in order.
    """

    source: str | None = None
    apply: tuple[Function, ...] = ()
    default: Any = None
    now: bool = False
    value: Any = None


class FieldsSpec(Struct, frozen=True, tag="fields"):
    """A new record of these fields, in this order; see `transforms.fields.Fields`."""

    fields: tuple[tuple[str, FieldRule], ...]


class RequireSpec(Struct, frozen=True, tag="require"):
    """A check that a record has these fields; see `transforms.fields.Require`."""

    fields: tuple[str, ...]
    on_missing: OnMissing = "reject"


TransformSpec: TypeAlias = (
    "JqSpec | CallSpec | FunctionSpec | SchemaSource | FieldsSpec | RequireSpec"
)


_SPECS = (JqSpec, CallSpec, FieldsSpec, RequireSpec)


def jq(program: str, *, env: bool = False, lossy: bool = False) -> JqSpec:
    """Run a jq program on each record. `env` shows it the environment, `lossy` lets it round."""
    return JqSpec(program, env, lossy)


def call(function: str) -> CallSpec:
    """Call `module:function` or `file.py:function`, which worker processes can import."""
    return CallSpec(function)


def schema(path: str | os.PathLike[str], *, check_formats: bool = False) -> SchemaSource:
    """Reject records that violate the JSON Schema in a file. Raises UsageError.

    The file is read now.
    """
    from asyncbatch.transforms.schema_file import load_schema

    return load_schema(os.fspath(path), check_formats=check_formats)


def require(*fields: str, on_missing: OnMissing = "reject") -> RequireSpec:
    """Reject, or drop, a record in which one of these paths is missing, null or ""."""
    return RequireSpec(fields, on_missing)


def fields(rules: Mapping[str, str | FieldRule]) -> FieldsSpec:
    """Make a new record of these fields: each is a path (a.b.c), or a rule of `field`."""
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
) -> FieldRule:
    """Return the rule for a field: the value at `path`, through functions, or a default.

    Without a path: the time in UTC if `now`, else the constant `value`.
    """
    return FieldRule(path, apply, default, now, value)


def step_specs(steps: Iterable[Step]) -> Iterator[TransformSpec]:
    """Yield the specs of a program's transforms. Raises UsageError for another object."""
    from asyncbatch.transforms.schema_file import SchemaSource

    if not isinstance(steps, Iterable):
        raise UsageError("transforms is a list, also of one")
    for step in steps:
        if callable(step):
            yield FunctionSpec(step)
        elif isinstance(step, (*_SPECS, SchemaSource)):
            yield step
        else:
            raise UsageError(f"{step!r} is no transform: that is a function, jq(…), fields(…), …")
