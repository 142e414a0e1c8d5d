"""Options for targets, dead letters, and the ledger."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from asyncbatch.config.options.declare import Count, Name, Names, Options, option

TableName: TypeAlias = Annotated[
    Name | None,
    option(
        "The table in the database.",
        metavar="NAME",
        main=True,
    ),
]
CsvSafe: TypeAlias = Annotated[
    bool,
    option("Put ' before the cells of a CSV file that a spreadsheet would take for formulas."),
]
AllowDuplicates: TypeAlias = Annotated[
    bool,
    option("Load inputs again whose rows are in the table already, or were before they changed."),
]


class SinkOptions(Options, frozen=True, kw_only=True):
    """How records are written to a target."""

    panel: ClassVar[str] = "Target"

    table: TableName = None
    key: Annotated[
        Names,
        option(
            "The fields that identify a row of the table, separated by commas.",
            metavar="FIELDS",
            commas=True,
            main=True,
        ),
    ] = ()
    mode: Annotated[
        Literal["append", "replace", "upsert"] | None,
        option(
            "Add rows to the table, replace the table if the run succeeds, or replace rows with "
            "the same key.",
            default="append; upsert with --key",
            trusted=True,
        ),
    ] = None
    schema_contract: Annotated[
        Literal["evolve", "freeze", "discard"],
        option(
            "For new fields and types: change the table, reject the record, or leave out the "
            "field or value."
        ),
    ] = "evolve"
    override_identity: Annotated[
        bool,
        option(
            "Write the records' values into PostgreSQL columns that are GENERATED ALWAYS AS "
            "IDENTITY."
        ),
    ] = False
    columns: Annotated[
        Names | None,
        option(
            "The columns of a CSV file, separated by commas.",
            metavar="FIELDS",
            default="the fields of the first batch",
            commas=True,
        ),
    ] = None
    csv_safe: CsvSafe = False
    null_value: Annotated[
        str | None,
        option(
            "The text of null in a CSV file; a string that equals it is in quotes.",
            metavar="TEXT",
            default="an empty cell, as for an empty string",
        ),
    ] = None
    nested: Annotated[
        Literal["native", "json"] | None,
        option(
            "Arrays and objects in a Parquet file: STRUCT and LIST where these lose nothing, or "
            "JSON text.",
            default="native",
        ),
    ] = None
    batch_size: Annotated[
        Count | None,
        option(
            "Records per write or transaction.",
            name="--load-batch",
            metavar="N",
            default="10,000; for PostgreSQL 20,000",
        ),
    ] = None
    format: Annotated[
        Literal["keep", "json", "jsonl"],
        option(
            "The format of the files in a folder target.",
            name="--to-format",
        ),
    ] = "keep"
    compression: Annotated[
        Literal["keep", "none", "gz", "bz2", "xz", "zst"],
        option(
            "The compression of the files in a folder target.",
            name="--to-compression",
        ),
    ] = "keep"
    unordered: Annotated[
        bool,
        option("Write records as soon as they are ready, not in input order: faster."),
    ] = False


class TargetFlags(SinkOptions, frozen=True, kw_only=True):
    """The target of a command line."""

    to: Annotated[
        str | None,
        option(
            "Write records: '-' (JSON Lines), FILE.jsonl[.gz|.zst], FILE.csv, .tsv, .parquet, a "
            "FOLDER/ like the input, sqlite:///FILE, duckdb:///FILE, "
            "postgresql://USER@HOST/DATABASE.",
            metavar="TARGET",
            writes=True,
            main=True,
        ),
    ] = None


class LedgerFlags(Options, frozen=True, kw_only=True):
    """The use of the ledger of earlier runs."""

    panel: ClassVar[str] = "Running again"

    resume: Annotated[
        bool,
        option(
            "Skip unchanged inputs that an earlier run of this job finished.",
            main=True,
        ),
    ] = False
    retry_failed: Annotated[bool, option("Process only inputs that failed before.")] = False
    force: Annotated[bool, option("Process all inputs again.")] = False
    allow_duplicates: AllowDuplicates = False
    ledger: Annotated[
        Name | None,
        option(
            "The file that records which inputs are done, if the target is not a database.",
            metavar="FILE",
            default="a file in $XDG_STATE_HOME/asyncbatch",
            writes=True,
        ),
    ] = None
    identity: Annotated[
        Literal["stat", "content"],
        option("Detect a changed input by its size and time, or by its content."),
    ] = "stat"
