"""Options for the target of a run: table, key, format, and dead letters."""

from typing import Annotated, Literal

from asyncbatch.cli.options.common import FAILURES, option

TARGET = "Target"

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
OverrideIdentity = Annotated[
    bool,
    option(
        TARGET,
        "--override-identity",
        help="Write the records' values into PostgreSQL columns that are GENERATED ALWAYS AS "
        "IDENTITY.",
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
CsvSafe = Annotated[
    bool,
    option(
        TARGET,
        "--csv-safe",
        help="Put ' before the cells of a CSV file that a spreadsheet would take for formulas.",
    ),
]
NullValue = Annotated[
    str | None,
    option(
        TARGET,
        "--null-value",
        metavar="TEXT",
        help="The text of null in a CSV file; a string that equals it is in quotes.  [default: an "
        "empty cell, as for an empty string]",
    ),
]
Nested = Annotated[
    Literal["native", "json"] | None,
    option(
        TARGET,
        "--nested",
        help="Arrays and objects in a Parquet file: STRUCT and LIST where these lose nothing, or "
        "JSON text.  [default: native]",
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
