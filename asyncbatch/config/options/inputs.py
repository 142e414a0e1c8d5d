"""Options for inputs: where they are, which are read, and how."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from asyncbatch.config.options.declare import (
    Bytes,
    Count,
    HttpUrl,
    Name,
    Names,
    Options,
    Origin,
    Pointer,
    ShardText,
    option,
)
from asyncbatch.core.settings import MAX_UNPACKED_BYTES

Patterns: TypeAlias = Annotated[
    Names | None,
    option(
        "Only read files matching GLOB. It is compared with the name or, if it has a '/', with the "
        "path below the folder. Named files are always read.",
        short="-p",
        metavar="GLOB",
        default="*.json, *.jsonl, *.ndjson, and each with .gz, .bz2, .xz, .zst",
        main=True,
    ),
]
Excluded: TypeAlias = Annotated[
    tuple[Name, ...],
    option(
        "Skip files and folders that match GLOB.",
        metavar="GLOB",
    ),
]


class FileOptions(Options, frozen=True, kw_only=True):
    """Files: where they are, which are read, and how."""

    panel: ClassVar[str] = "Input"

    pattern: Patterns = None
    exclude: Excluded = ()
    files_from: Annotated[
        Name | None,
        option(
            "Read more paths from a file ('-': standard input), one a line.",
            metavar="FILE",
            trusted=True,
        ),
    ] = None
    null: Annotated[
        bool,
        option("The listed paths end with NUL, as in the output of find -print0.", short="-0"),
    ] = False
    hidden: Annotated[bool, option("Also read hidden files and folders.")] = False
    gitignore: Annotated[
        bool, option("Skip files that git ignores: the rules in .gitignore files.")
    ] = False
    follow_symlinks: Annotated[
        bool, option("Enter symlinked folders (symlinked files are always read).", trusted=True)
    ] = False
    limit: Annotated[Count | None, option("Read only the first N files.", metavar="N")] = None
    shard: Annotated[
        ShardText | None,
        option(
            "Read only shard I of N: N runs together read each file once.",
            metavar="I/N",
        ),
    ] = None
    endpoint: Annotated[
        HttpUrl | None,
        option(
            "Endpoint URL of an S3-compatible server, or of another one for gs:// or az://.",
            metavar="URL",
            trusted=True,
        ),
    ] = None
    anonymous: Annotated[bool, option("Access object stores without credentials.")] = False
    allow_origins: Annotated[
        tuple[Origin, ...],
        option(
            "Let http(s) URLs redirect to these other origins: https://cdn.example.com.",
            metavar="ORIGINS",
            commas=True,
            trusted=True,
        ),
    ] = ()
    allow_empty: Annotated[bool, option("Exit 0 if no file matches.")] = False
    format: Annotated[
        Literal["auto", "json", "jsonl", "concat", "seq"],
        option(
            "The format of every file; auto decides by its name. concat: values that follow each "
            "other, also without line ends; seq: JSON text sequences (RFC 7464).",
            name="--input-format",
            old="--format",
        ),
    ] = "auto"
    max_file_size: Annotated[
        Bytes | None,
        option(
            "Files larger than SIZE on disk fail as too_large (500, 64K, 10MB, 1.5GiB).",
            metavar="SIZE",
        ),
    ] = None
    max_decompressed_size: Annotated[
        Bytes,
        option(
            "Compressed files that unpack to more than SIZE fail as too_large.",
            metavar="SIZE",
            default="100GiB",
        ),
    ] = MAX_UNPACKED_BYTES
    max_window: Annotated[
        Bytes | None,
        option(
            "The window of a compressed file that is read: 2GiB for zstd --long=31.",
            metavar="SIZE",
        ),
    ] = None
    root: Annotated[
        Name | None,
        option(
            "Identify inputs relative to DIR, so that they have the same names on every machine: "
            "for shards, and for outputs in a folder.",
            metavar="DIR",
        ),
    ] = None


class InputOptions(FileOptions, frozen=True, kw_only=True):
    """Files, and the records in them."""

    records: Annotated[
        Pointer | None,
        option(
            "Read the elements of the array at this JSON Pointer in each document: /items.",
            metavar="POINTER",
        ),
    ] = None
    unit: Annotated[
        Literal["record", "file"],
        option("The unit of one record: an element of an array, or a whole document."),
    ] = "record"


class ReplayOptions(Options, frozen=True, kw_only=True):
    """Dead letters as inputs."""

    panel: ClassVar[str] = "Input"

    from_dead_letter: Annotated[
        Name | None,
        option(
            "Run the records and files again that --dead-letter FILE of an earlier run kept.",
            metavar="FILE",
            trusted=True,
        ),
    ] = None
