"""Options for records: where they are in a file, and how they are transformed."""

from typing import Annotated, Literal

from asyncbatch.cli.options.common import INPUT, option

TRANSFORM = "Records, transformed in this order: --jq, then --call, then --schema, then --dedupe"

Records = Annotated[
    str | None,
    option(
        INPUT,
        "--records",
        metavar="POINTER",
        help="Read the elements of the array at this JSON Pointer in each document: /items.",
    ),
]
Unit = Annotated[
    Literal["record", "file"],
    option(
        INPUT, "--unit", help="The unit of one record: an element of an array, or a whole document."
    ),
]
Root = Annotated[
    str | None,
    option(
        INPUT,
        "--root",
        metavar="DIR",
        help="Identify inputs by their path below DIR, which is the same on every machine: for "
        "--shard, and for outputs in a folder.",
    ),
]
FromDeadLetter = Annotated[
    str | None,
    option(
        INPUT,
        "--from-dead-letter",
        metavar="FILE",
        help="Run the records and files again that --dead-letter FILE of an earlier run kept.",
    ),
]
Jq = Annotated[
    list[str] | None,
    option(
        TRANSFORM,
        "--jq",
        metavar="EXPR",
        help="Transform each record with a jq program: 'select(.active) | {id}'; repeatable.",
    ),
]
JqEnv = Annotated[
    bool, option(TRANSFORM, "--jq-env", help="Let env and $ENV of jq read the environment.")
]
JqLossy = Annotated[
    bool,
    option(
        TRANSFORM, "--jq-lossy", help="Let jq round integers beyond 2^53 instead of rejecting them."
    ),
]
Call = Annotated[
    list[str] | None,
    option(
        TRANSFORM,
        "--call",
        metavar="FUNCTION",
        help="Call a Python function with each record, module:name or file.py:name; it returns "
        "a record, None to drop it, or several; repeatable.",
    ),
]
CallConcurrency = Annotated[
    int,
    option(
        TRANSFORM,
        "--call-concurrency",
        min=1,
        metavar="N",
        help="Concurrent calls of async functions.",
    ),
]
Schema = Annotated[
    str | None,
    option(
        TRANSFORM,
        "--schema",
        metavar="FILE",
        help="Reject records that a JSON Schema does not allow.",
    ),
]
CheckFormats = Annotated[
    bool,
    option(
        TRANSFORM, "--check-formats", help="Also check the formats of the schema (email, date)."
    ),
]
Ref = Annotated[
    list[str] | None,
    option(
        TRANSFORM,
        "--ref",
        metavar="URI=FILE|DIR",
        help="Read what the schema refers to at URI, or below it, from a file or folder; "
        "repeatable.",
    ),
]
CheckContent = Annotated[
    bool,
    option(
        TRANSFORM,
        "--check-content",
        help="Also check contentEncoding and contentMediaType of the schema (base64, JSON).",
    ),
]
Dedupe = Annotated[
    list[str] | None,
    option(
        TRANSFORM,
        "--dedupe",
        metavar="FIELDS",
        help="Write only the first of records with equal FIELDS (paths, separated by commas).",
    ),
]
