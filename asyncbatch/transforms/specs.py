"""What is done to records, as plain data: it travels to the workers, and tells jobs apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.transforms.schema_load import SchemaSource

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
