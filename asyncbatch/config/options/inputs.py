"""Options for inputs: where they are, which are read, and how."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from asyncbatch.core.options import (
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
        "Only read files matching GLOB; with a '/' in it, GLOB is matched with the path below "
        "the folder. Files given by name are always read.",
        short="-p",
        metavar="GLOB",
        default="*.json, *.jsonl, *.ndjson, and each with .gz, .bz2, .xz, .zst",
        main=True,
    ),
]
Excluded: TypeAlias = Annotated[
    tuple[Name, ...],
    option(
        "Skip files and folders matching GLOB.",
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
            "Read more paths from FILE, one per line ('-': from standard input).",
            metavar="FILE",
            trusted=True,
        ),
    ] = None
    null: Annotated[
        bool,
        option(
            "Separate the paths of --files-from by NUL, as find -print0 writes them.",
            short="-0",
            needs="files_from",
        ),
    ] = False
    hidden: Annotated[
        bool, option("Also read hidden files and folders: names that begin with '.'.")
    ] = False
    gitignore: Annotated[
        bool, option("Skip files that git ignores, by the rules in .gitignore files.")
    ] = False
    follow_symlinks: Annotated[
        bool,
        option(
            "Also read folders behind symbolic links. Linked files are always read.", trusted=True
        ),
    ] = False
    limit: Annotated[Count | None, option("Read only the first N files.", metavar="N")] = None
    shard: Annotated[
        ShardText | None,
        option(
            "Process only part I of N: N runs (1/3, 2/3, 3/3) together process each file once.",
            metavar="I/N",
        ),
    ] = None
    endpoint: Annotated[
        HttpUrl | None,
        option(
            "Use the endpoint URL of an S3-compatible server, or of one for gs:// or az://.",
            metavar="URL",
            trusted=True,
        ),
    ] = None
    anonymous: Annotated[bool, option("Access object stores without credentials.")] = False
    allow_origins: Annotated[
        tuple[Origin, ...],
        option(
            "Allow http(s) URLs to redirect to these other ORIGINS: https://cdn.example.com.",
            metavar="ORIGINS",
            commas=True,
            trusted=True,
        ),
    ] = ()
    allow_empty: Annotated[bool, option("Exit 0 if no file matches.")] = False
    format: Annotated[
        Literal["auto", "json", "jsonl", "concat", "seq"],
        option(
            "Read every file in this format; auto decides by its name. concat: values one after "
            "another, seq: JSON text sequences (RFC 7464).",
            name="--input-format",
            old="--format",
        ),
    ] = "auto"
    max_file_size: Annotated[
        Bytes | None,
        option(
            "Fail files larger than SIZE on disk, as too_large: 64K, 10MB, 1.5GiB.",
            metavar="SIZE",
        ),
    ] = None
    max_decompressed_size: Annotated[
        Bytes,
        option(
            "Fail compressed files that unpack to more than SIZE, as too_large.",
            metavar="SIZE",
            default="100GiB",
        ),
    ] = MAX_UNPACKED_BYTES
    max_window: Annotated[
        Bytes | None,
        option(
            "Accept compressed files with a window of up to SIZE: 2GiB for zstd --long=31.",
            metavar="SIZE",
            default="128MiB; less with a low --max-memory",
        ),
    ] = None
    root: Annotated[
        Name | None,
        option(
            "Identify inputs relative to DIR, so that their names are the same on every machine. "
            "For --shard, and for targets that are folders.",
            metavar="DIR",
        ),
    ] = None


class InputOptions(FileOptions, frozen=True, kw_only=True):
    """Files, and the records in them."""

    records: Annotated[
        Pointer | None,
        option(
            "Take the records from the array at POINTER in each document: /items.",
            metavar="POINTER",
        ),
    ] = None
    unit: Annotated[
        Literal["record", "file"],
        option("Take each element of an array as a record, or each file as a whole."),
    ] = "record"


class ReplayOptions(Options, frozen=True, kw_only=True):
    """Dead letters as inputs."""

    panel: ClassVar[str] = "Input"

    from_dead_letter: Annotated[
        Name | None,
        option(
            "Process again the rejected records and failed files that an earlier --dead-letter "
            "FILE kept.",
            metavar="FILE",
            trusted=True,
        ),
    ] = None
