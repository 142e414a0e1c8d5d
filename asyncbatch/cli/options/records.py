"""Options for records: reading, transforms, target and dead letters."""

from typing import Annotated, Literal

from asyncbatch.cli.options.common import FAILURES, INPUT, option

TRANSFORM = "Records, transformed in this order: --jq, then --call, then --schema, then --dedupe"
TARGET = "Target"

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
Dedupe = Annotated[
    list[str] | None,
    option(
        TRANSFORM,
        "--dedupe",
        metavar="FIELDS",
        help="Write only the first of records with equal FIELDS (paths, separated by commas).",
    ),
]
To = Annotated[
    str | None,
    option(
        TARGET,
        "--to",
        metavar="TARGET",
        help="Write records: '-' (JSON Lines), FILE.jsonl[.gz|.zst], FILE.csv, .tsv, .parquet, a "
        "FOLDER/ like the input, sqlite:///FILE, duckdb:///FILE, postgresql://USER@HOST/DATABASE.",
    ),
]
Table = Annotated[
    str | None, option(TARGET, "--table", metavar="NAME", help="The table in the database.")
]
Key = Annotated[
    list[str] | None,
    option(
        TARGET,
        "--key",
        metavar="FIELDS",
        help="The fields that identify a row of the table, separated by commas.",
    ),
]
Mode = Annotated[
    Literal["append", "replace", "upsert"] | None,
    option(
        TARGET,
        "--mode",
        help="Add rows to the table, replace the table if the run succeeds, or replace rows with "
        "the same key.  [default: append; upsert with --key]",
    ),
]
SchemaContract = Annotated[
    Literal["evolve", "freeze", "discard"] | None,
    option(
        TARGET,
        "--schema-contract",
        help="For new fields and types: change the table, reject the record, or leave out the "
        "field or value.  [default: evolve]",
    ),
]
Columns = Annotated[
    str | None,
    option(
        TARGET,
        "--columns",
        metavar="FIELDS",
        help="The columns of a CSV file, separated by commas.  [default: the fields of the first "
        "batch]",
    ),
]
LoadBatch = Annotated[
    int | None,
    option(
        TARGET,
        "--load-batch",
        min=1,
        metavar="N",
        help="Records per write or transaction.  [default: 10,000; for PostgreSQL 20,000]",
    ),
]
ToFormat = Annotated[
    Literal["keep", "json", "jsonl"],
    option(TARGET, "--to-format", help="The format of the files in a folder target."),
]
ToCompression = Annotated[
    Literal["keep", "none", "gz", "bz2", "xz", "zst"],
    option(TARGET, "--to-compression", help="The compression of the files in a folder target."),
]
Unordered = Annotated[
    bool,
    option(
        TARGET,
        "--unordered",
        help="Write records as soon as they are ready, not in input order: faster.",
    ),
]
DeadLetter = Annotated[
    str | None,
    option(
        FAILURES,
        "--dead-letter",
        metavar="FILE",
        help="Keep rejected records and the names of failed files, as JSON Lines.",
    ),
]
