"""Options for transforms: jq programs, calls, schemas, duplicates."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from asyncbatch.core.options import Count, Name, Options, Path, option

_PANEL = "Transforms, in this order: --jq, --call, --schema"

CheckContent: TypeAlias = Annotated[
    bool,
    option("Also check contentEncoding and contentMediaType in the schema: base64, JSON."),
]
References: TypeAlias = Annotated[
    tuple[Name, ...],
    option(
        "Read the schema's references to URI, and to addresses below it, from FILE or DIR.",
        metavar="URI=FILE|DIR",
    ),
]


class JqOptions(Options, frozen=True, kw_only=True):
    """The rights of a jq program."""

    panel: ClassVar[str] = _PANEL

    env: Annotated[
        bool,
        option(
            "Let jq programs read environment variables, by env and $ENV.",
            name="--jq-env",
            trusted=True,
            needs="jq",
        ),
    ] = False
    lossy: Annotated[
        bool,
        option(
            "Let jq round integers beyond 2^53. Otherwise it rejects their records.",
            name="--jq-lossy",
            needs="jq",
        ),
    ] = False


class JqFlags(JqOptions, frozen=True, kw_only=True):
    """The jq programs of a command line."""

    jq: Annotated[
        tuple[Name, ...],
        option(
            "Transform each record with the jq program EXPR: 'select(.active) | {id}'.",
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
            "Call a Python FUNCTION, file.py:name or module:name, for each record. It returns a "
            "record, several, or None to drop it.",
            metavar="FUNCTION",
            trusted=True,
            main=True,
        ),
    ] = ()
    call_concurrency: Annotated[
        Count,
        option("Run up to N calls of async functions at the same time.", metavar="N", needs="call"),
    ] = 100


class SchemaOptions(Options, frozen=True, kw_only=True):
    """The parts of a JSON Schema that are checked only if they are asked for."""

    panel: ClassVar[str] = _PANEL

    check_formats: Annotated[
        bool, option("Also check formats in the schema: email, date and others.")
    ] = False
    check_content: CheckContent = False


class SchemaFlags(SchemaOptions, frozen=True, kw_only=True):
    """The schema of a command line."""

    schema: Annotated[
        Name | None,
        option(
            "Reject records that do not fit the JSON Schema in FILE.",
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
            "Check documents against the JSON Schema in FILE.",
            metavar="FILE",
            main=True,
        ),
    ]
    ref: References = ()
    check_formats: Annotated[
        bool,
        option(
            "Check formats in the schema: email, date and others.",
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
            "Keep only the first of several records with equal FIELDS, separated by commas, after "
            "all transforms.",
            metavar="FIELDS",
            commas=True,
        ),
    ] = ()
