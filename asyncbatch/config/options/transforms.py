"""Options for transforms: jq programs, calls, schemas, duplicates."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from asyncbatch.config.options.declare import Count, Name, Options, Path, option

_PANEL = "Records, transformed in this order: --jq, then --call, then --schema, then --dedupe"

CheckContent: TypeAlias = Annotated[
    bool,
    option("Also check contentEncoding and contentMediaType of the schema (base64, JSON)."),
]
References: TypeAlias = Annotated[
    tuple[Name, ...],
    option(
        "Read references of the schema to URI, or below it, from a file or folder.",
        metavar="URI=FILE|DIR",
    ),
]


class JqOptions(Options, frozen=True, kw_only=True):
    """The rights of a jq program."""

    panel: ClassVar[str] = _PANEL

    env: Annotated[
        bool,
        option(
            "Let env and $ENV of jq read the environment.",
            name="--jq-env",
            trusted=True,
        ),
    ] = False
    lossy: Annotated[
        bool,
        option(
            "Let jq round integers beyond 2^53 instead of rejecting them.",
            name="--jq-lossy",
        ),
    ] = False


class JqFlags(JqOptions, frozen=True, kw_only=True):
    """The jq programs of a command line."""

    jq: Annotated[
        tuple[Name, ...],
        option(
            "Transform each record with a jq program: 'select(.active) | {id}'.",
            metavar="EXPR",
            trusted=True,
            main=True,
        ),
    ] = ()


class CallFlags(Options, frozen=True, kw_only=True):
    """The functions of a command line."""

    panel: ClassVar[str] = _PANEL

    call: Annotated[
        tuple[Name, ...],
        option(
            "Call a Python function with each record, module:name or file.py:name; it returns a "
            "record, None to drop it, or several.",
            metavar="FUNCTION",
            trusted=True,
            main=True,
        ),
    ] = ()
    call_concurrency: Annotated[
        Count, option("Concurrent calls of async functions.", metavar="N")
    ] = 100


class SchemaOptions(Options, frozen=True, kw_only=True):
    """The parts of a JSON Schema that are checked only if they are asked for."""

    panel: ClassVar[str] = _PANEL

    check_formats: Annotated[
        bool, option("Also check the formats of the schema (email, date).")
    ] = False
    check_content: CheckContent = False


class SchemaFlags(SchemaOptions, frozen=True, kw_only=True):
    """The schema of a command line."""

    schema: Annotated[
        Name | None,
        option(
            "Reject records that a JSON Schema does not allow.",
            metavar="FILE",
            main=True,
        ),
    ] = None
    ref: References = ()


class ValidateFlags(Options, frozen=True, kw_only=True):
    """The schema of `asyncbatch validate`, whose formats are checked by default."""

    panel: ClassVar[str] = "Check"

    schema: Annotated[
        Name,
        option(
            "The JSON Schema that documents must fit.",
            metavar="FILE",
            main=True,
        ),
    ]
    ref: References = ()
    check_formats: Annotated[
        bool,
        option(
            "Check the formats of the schema (email, date).",
            name="--check-formats/--no-check-formats",
        ),
    ] = True
    check_content: CheckContent = False


class DedupeFlags(Options, frozen=True, kw_only=True):
    """The key of duplicates of a command line."""

    panel: ClassVar[str] = _PANEL

    dedupe: Annotated[
        tuple[Path, ...],
        option(
            "Write only the first of records with equal FIELDS (paths, separated by commas).",
            metavar="FIELDS",
            commas=True,
        ),
    ] = ()
