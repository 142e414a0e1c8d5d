"""Options for targets, dead letters, and the ledger."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from asyncbatch.core.options import ColumnText, Count, Name, Names, Options, option

TableName: TypeAlias = Annotated[
    Name | None,
    option(
        "Write to table NAME of the database.",
        metavar="NAME",
        main=True,
    ),
]
CsvSafe: TypeAlias = Annotated[
    bool,
    option("Put ' before CSV cells that a spreadsheet would run as formulas."),
]
AllowDuplicates: TypeAlias = Annotated[
    bool,
    option("Load inputs again even if that doubles rows in the table."),
]


class SinkOptions(Options, frozen=True, kw_only=True):
    """How records are written to a target."""

    panel: ClassVar[str] = "Target"

    table: TableName = None
    key: Annotated[
        Names,
        option(
            "Identify a row of the table by FIELDS, separated by commas.",
            metavar="FIELDS",
            commas=True,
            main=True,
        ),
    ] = ()
    mode: Annotated[
        Literal["append", "replace", "upsert", "mirror"] | None,
        option(
            "Append rows, replace the whole table if the run succeeds, upsert: replace rows "
            "with the same key, or mirror: keep a table or a folder equal to the files.",
            default="append; upsert with --key",
            trusted=True,
        ),
    ] = None
    on_delete: Annotated[
        Literal["delete", "mark", "keep"],
        option(
            "With --mode mirror, delete the rows of files that are gone, mark them with the time "
            "in _deleted_at, or keep them.",
            trusted=True,
        ),
    ] = "delete"
    max_delete: Annotated[
        Name | None,
        option(
            "With --mode mirror, stop before anything is written if more than N of the files in "
            "the target, or P percent of them, are gone.",
            metavar="N|P%",
            default="20%",
            trusted=True,
        ),
    ] = None
    schema_contract: Annotated[
        Literal["evolve", "freeze", "discard"],
        option(
            "Choose the effect of new fields and types: evolve changes the table, freeze rejects "
            "the record, discard leaves out the value."
        ),
    ] = "evolve"
    override_identity: Annotated[
        bool,
        option("Write the records' values into PostgreSQL columns GENERATED ALWAYS AS IDENTITY."),
    ] = False
    columns: Annotated[
        Names | None,
        option(
            "Write only these FIELDS to a CSV file, in this order, separated by commas.",
            metavar="FIELDS",
            default="the fields of the first batch",
            commas=True,
        ),
    ] = None
    with_source: Annotated[
        bool,
        option(
            "Add the file of each record and its number there, as _file and _record; the same as "
            "--add file,record.",
            main=True,
        ),
    ] = False
    add: Annotated[
        tuple[ColumnText, ...],
        option(
            "Add the origin of each record in COLUMNS: file, record, line, mtime, sha256, "
            "loaded_at, run_id. They are called _file and so on; file=NAME is called NAME.",
            metavar="COLUMNS",
            commas=True,
        ),
    ] = ()
    csv_safe: CsvSafe = False
    null_value: Annotated[
        str | None,
        option(
            "Write null as TEXT in a CSV file. A string that equals TEXT is put in quotes.",
            metavar="TEXT",
            default="an empty cell, as for an empty string",
        ),
    ] = None
    nested: Annotated[
        Literal["native", "json"] | None,
        option(
            "Write arrays and objects in Parquet as STRUCT and LIST where nothing is lost "
            "(native), or as JSON text.",
            default="native",
        ),
    ] = None
    batch_size: Annotated[
        Count | None,
        option(
            "Write N records at a time; into a database, one transaction each.",
            name="--load-batch",
            metavar="N",
            default="10,000; for PostgreSQL 20,000",
        ),
    ] = None
    format: Annotated[
        Literal["keep", "json", "jsonl"],
        option(
            "Write the files of a folder target in this format; keep: that of the input.",
            name="--to-format",
        ),
    ] = "keep"
    compression: Annotated[
        Literal["keep", "none", "gz", "bz2", "xz", "zst"],
        option(
            "Compress the files of a folder target in this way; keep: as the input.",
            name="--to-compression",
        ),
    ] = "keep"
    unordered: Annotated[
        bool,
        option("Write records as soon as they are ready, not in input order. This is faster."),
    ] = False


class TargetFlags(SinkOptions, frozen=True, kw_only=True):
    """The target of a command line."""

    to: Annotated[
        str | None,
        option(
            "Write to '-' (JSON Lines), FILE.jsonl[.gz|.bz2|.xz|.zst], .csv, .tsv, .parquet "
            "({FIELD} in it: one each), FOLDER/ (like the input), sqlite:///FILE, "
            "duckdb:///FILE or postgresql://USER@HOST/DATABASE.",
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
    retry_failed: Annotated[bool, option("Process only inputs that failed in an earlier run.")] = (
        False
    )
    force: Annotated[bool, option("Process all inputs again, also finished ones.")] = False
    allow_duplicates: AllowDuplicates = False
    ledger: Annotated[
        Name | None,
        option(
            "Remember in FILE which inputs are done, if the target is not a database.",
            metavar="FILE",
            default="a file in $XDG_STATE_HOME/asyncbatch",
            writes=True,
        ),
    ] = None
    identity: Annotated[
        Literal["stat", "content"],
        option(
            "Detect a changed input by its size and time (stat), or by its content.",
            needs=("to", "resume", "retry_failed", "ledger", "watch"),
        ),
    ] = "stat"
