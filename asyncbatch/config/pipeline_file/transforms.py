"""The `[[transform]]` tables, and the fields that they produce."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from asyncbatch.config.options.transforms import JqOptions, SchemaOptions
from asyncbatch.config.pipeline_file.mistakes import suggestion
from asyncbatch.core.options import Name, Options, Path
from asyncbatch.errors import UsageError
from asyncbatch.transforms.chain import make_stage
from asyncbatch.transforms.fields import parse_path
from asyncbatch.transforms.schema_file import load_schema
from asyncbatch.transforms.spec import CallSpec, Function, JqSpec, OnMissing, Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.core.options import Contradictions, Given, KeyPath


class FieldTable(Options, frozen=True):
    """The rule for one field: `from` a path, `now`, a `source`, or a constant `value`."""

    path: Annotated[Path | UnsetType, Meta(description="The path in the record: a.b.c.")] = field(
        name="from", default=UNSET
    )
    apply: Annotated[
        tuple[Function, ...], Meta(description="The functions for the value, in this order.")
    ] = ()
    default: Annotated[Any, Meta(description="The value in place of a missing or null one.")] = None
    now: Annotated[bool, Meta(description="Use the current time, in UTC.")] = False
    source: Annotated[
        Origin | UnsetType,
        Meta(description="The origin of the record: its file, its number there, or its line."),
    ] = UNSET
    value: Annotated[Any, Meta(description="A constant value.")] = UNSET

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        ways = [key for key in ("from", "now", "source", "value") if key in given]
        if len(ways) != 1:
            found = f"has {' and '.join(ways)}" if ways else "has none of them"
            yield (
                (),
                'needs one of from = "a.b.c", now = true, source = "file" and value = …; it '
                + found,
            )
        if given.get("now") is False:
            yield ("now",), "can only be true"
        for key in ("apply", "default"):
            if key in given and "from" not in given:
                yield (key,), "needs from"


class FieldsTable(Options, frozen=True, tag_field="type", tag="fields"):
    """Make a new record, of these fields and no others."""

    fields: Annotated[
        dict[str, Path | FieldTable],
        Meta(
            min_length=1,
            description="The fields of the new record: for each a path in the old one, or a table.",
        ),
    ]


class RequireTable(Options, frozen=True, tag_field="type", tag="require"):
    """Require all of these fields: not missing, not null, not ""."""

    fields: Annotated[tuple[Path, ...], Meta(min_length=1, description="The paths of the fields.")]
    on_missing: Annotated[
        OnMissing,
        Meta(description="Reject the other records, or drop and count them."),
    ] = "reject"


class DedupeTable(Options, frozen=True, tag_field="type", tag="dedupe"):
    """Of records with the same key, only the first in the order of the input is kept."""

    key: Annotated[tuple[Path, ...], Meta(min_length=1, description="The paths of the key fields.")]


class JqTable(JqOptions, frozen=True, kw_only=True, tag_field="type", tag="jq"):
    """Transform each record with a jq program."""

    expr: Annotated[Name, Meta(description="The program: select(.active) | {id}.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if (expr := given.get("expr")) is not None:
            yield from _errors_of("expr", lambda: make_stage(JqSpec(expr)))


class CallTable(Options, frozen=True, tag_field="type", tag="call"):
    """Call a Python function with each record."""

    function: Annotated[Name, Meta(description="module:name or file.py:name.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if (function := given.get("function")) is not None:
            yield from _errors_of("function", lambda: make_stage(CallSpec(function)))


class SchemaTable(SchemaOptions, frozen=True, kw_only=True, tag_field="type", tag="schema"):
    """Reject records that do not fit a JSON Schema."""

    file: Annotated[Name, Meta(description="The file of the schema.")]
    refs: Annotated[
        dict[str, str],
        Meta(description="Files or folders for the references of the schema, by URI."),
    ] = field(default_factory=dict)

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if (file := given.get("file")) is not None:
            formats = bool(given.get("check_formats"))
            content = bool(given.get("check_content"))
            copies = tuple((given.get("refs") or {}).items())
            yield from _errors_of(
                "file",
                lambda: load_schema(
                    file, check_formats=formats, check_content=content, copies=copies
                ),
            )


def _errors_of(key: str, make: Callable[[], object]) -> Contradictions:
    """Yield the error of `make` as that of `key`."""
    try:
        make()
    except UsageError as error:
        yield (key,), str(error)


TransformTable: TypeAlias = (
    FieldsTable | RequireTable | DedupeTable | JqTable | CallTable | SchemaTable
)


class ProducedFields:
    """The fields that transforms produce: their `names`, None if they are unknown.

    `missing_fields` are the places that need a field that no earlier transform produces.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.names: set[str] | None = None
        self.missing_fields: list[tuple[KeyPath, str]] = []
        for index, table in enumerate(transforms):
            for path, place in _required_fields(table):
                self.missing_fields += self.find_missing(path, ("transform", index, *place))
            if isinstance(table, FieldsTable):
                self.names = set(table.fields)
            elif table is None or isinstance(table, JqTable | CallTable):
                self.names = None

    def find_missing(self, path: str, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        """Yield the place that needs `path`, and the reason, if no field has this path."""
        first = parse_path(path)[:1]
        if self.names is not None and first and not self.names & {first[0], path}:
            near = suggestion(first[0], self.names)
            yield at, f"the earlier fields transform makes no field {first[0]!r}{near}"


def _required_fields(table: Any) -> Iterator[tuple[str, KeyPath]]:
    """Yield each path that a transform needs, and its place in the table."""
    match table:
        case FieldsTable():
            for name, rule in table.fields.items():
                if isinstance(rule, FieldTable):
                    if isinstance(rule.path, str):
                        yield rule.path, ("fields", name, "from")
                elif rule is not None:
                    yield rule, ("fields", name)
        case RequireTable():
            for place, path in enumerate(table.fields):
                yield path, ("fields", place)
        case DedupeTable():
            for place, path in enumerate(table.key):
                yield path, ("key", place)
