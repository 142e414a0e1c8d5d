"""Options of `asyncbatch run`: transforms and target."""

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
        help="Take the elements of the array at this JSON Pointer in each document: /items.",
    ),
]
Unit = Annotated[
    Literal["record", "file"],
    option(INPUT, "--unit", help="What is one record: an element of an array, or a document."),
]
Root = Annotated[
    str | None,
    option(
        INPUT,
        "--root",
        metavar="DIR",
        help="Know inputs by their path below DIR, the same on every machine: for --shard, and "
        "for outputs in a folder.",
    ),
]
FromDeadLetter = Annotated[
    str | None,
    option(
        INPUT,
        "--from-dead-letter",
        metavar="FILE",
        help="Run the records and files again that an earlier run put there.",
    ),
]
Jq = Annotated[
    list[str] | None,
    option(
        TRANSFORM,
        "--jq",
        metavar="EXPR",
        help="Put each record through a jq program: 'select(.active) | {id}'; repeatable.",
    ),
]
JqEnv = Annotated[
    bool, option(TRANSFORM, "--jq-env", help="Let jq's env and $ENV see the environment.")
]
JqLossy = Annotated[
    bool,
    option(TRANSFORM, "--jq-lossy", help="Let jq round integers beyond 2^53, not reject them."),
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
        help="Calls of async functions in flight.",
    ),
]
Schema = Annotated[
    str | None,
    option(
        TRANSFORM, "--schema", metavar="FILE", help="Reject records that do not fit a JSON Schema."
    ),
]
CheckFormats = Annotated[
    bool, option(TRANSFORM, "--check-formats", help="Check the schema's formats (email, date) too.")
]
Dedupe = Annotated[
    list[str] | None,
    option(
        TRANSFORM,
        "--dedupe",
        metavar="FIELDS",
        help="Of records with the same values there (paths, with commas) write only the first.",
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
    str | None, option(TARGET, "--table", metavar="NAME", help="The table of a database.")
]
Key = Annotated[
    list[str] | None,
    option(
        TARGET,
        "--key",
        metavar="FIELDS",
        help="What makes a table's row unique: one field or more, with commas.",
    ),
]
Mode = Annotated[
    Literal["append", "replace", "upsert"] | None,
    option(
        TARGET,
        "--mode",
        help="Add rows to the table, replace it if the run succeeds, or replace rows of the same "
        "key.  [default: append; upsert with --key]",
    ),
]
SchemaContract = Annotated[
    Literal["evolve", "freeze", "discard"] | None,
    option(
        TARGET,
        "--schema-contract",
        help="New fields and types of records: change the table, reject the record, or leave the "
        "field or value out.  [default: evolve]",
    ),
]
Columns = Annotated[
    str | None,
    option(
        TARGET,
        "--columns",
        metavar="FIELDS",
        help="The columns of a CSV file, with commas.  [default: the fields of the first batch]",
    ),
]
LoadBatch = Annotated[
    int | None,
    option(
        TARGET,
        "--load-batch",
        min=1,
        metavar="N",
        help="Records of one write, or transaction.  [default: 10,000; to PostgreSQL 20,000]",
    ),
]
ToFormat = Annotated[
    Literal["keep", "json", "jsonl"],
    option(TARGET, "--to-format", help="The form of the files in a folder."),
]
ToCompression = Annotated[
    Literal["keep", "none", "gz", "bz2", "xz", "zst"],
    option(TARGET, "--to-compression", help="The compression of the files in a folder."),
]
Unordered = Annotated[
    bool,
    option(TARGET, "--unordered", help="Write records as they come, not in input order: faster."),
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
