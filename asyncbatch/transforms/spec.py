"""Transform settings, and how each is built."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncbatch.transforms.schema_file import SchemaSource

    Step: TypeAlias = "TransformSpec | Callable[..., Any]"

Function = Literal[
    "strip", "lower", "upper", "title", "int", "float", "bool", "str", "datetime", "date", "json"
]  # fmt: skip
"""What can be applied to a field's value; see `transforms.apply`."""
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
    """How one field is made: of what is at the path `source`, else of the clock, else `value`.

    A missing or null source becomes `default`; anything else goes through `apply`, in order.
    """

    source: str | None = None
    apply: tuple[Function, ...] = ()
    default: Any = None
    now: bool = False
    value: Any = None


class FieldsSpec(Struct, frozen=True, tag="fields"):
    """Make a new record of these fields, in this order; see `transforms.fields.Fields`."""

    fields: tuple[tuple[str, FieldRule], ...]


class RequireSpec(Struct, frozen=True, tag="require"):
    """Reject or drop records without all of these fields; see `transforms.require.Require`."""

    fields: tuple[str, ...]
    on_missing: OnMissing = "reject"


TransformSpec: TypeAlias = (
    "JqSpec | CallSpec | FunctionSpec | SchemaSource | FieldsSpec | RequireSpec"
)


_SPECS = (JqSpec, CallSpec, FieldsSpec, RequireSpec)


def jq(program: str, *, env: bool = False, lossy: bool = False) -> JqSpec:
    """Put each record through a jq program; it may see the environment, round big integers."""
    return JqSpec(program, env, lossy)


def call(function: str) -> CallSpec:
    """Call `module:function` or `file.py:function`, which also worker processes can find."""
    return CallSpec(function)


def schema(path: str | os.PathLike[str], *, check_formats: bool = False) -> SchemaSource:
    """Reject what does not fit the JSON Schema in a file, which is read now. Raises UsageError."""
    from asyncbatch.transforms.schema_file import load_schema

    return load_schema(os.fspath(path), check_formats=check_formats)


def require(*fields: str, on_missing: OnMissing = "reject") -> RequireSpec:
    """Reject, or drop, records in which one of these paths is missing, null or ""."""
    return RequireSpec(fields, on_missing)


def fields(rules: Mapping[str, str | FieldRule]) -> FieldsSpec:
    """Make a new record of these fields: each a path (a.b.c), or what `field` says."""
    pairs = rules.items()
    return FieldsSpec(
        tuple((name, field(rule) if isinstance(rule, str) else rule) for name, rule in pairs)
    )


def field(
    path: str | None = None,
    *apply: Function,
    default: Any = None,
    now: bool = False,
    value: Any = None,
) -> FieldRule:
    """Make a field of what is at `path`, through functions such as strip; of null the default.

    Without a path: of the time in UTC if `now`, else always the same `value`.
    """
    return FieldRule(path, apply, default, now, value)


def step_specs(steps: Iterable[Step]) -> Iterator[TransformSpec]:
    """Yield what transforms a program asks for. Raises UsageError for what is none."""
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
