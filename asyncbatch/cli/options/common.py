"""Options of `asyncbatch run` that other commands share: inputs, control, output."""

import math
from typing import Annotated, Any, Literal

import typer

from asyncbatch.core.units import parse_size

INPUT, CONTROL, FAILURES, OUTPUT = "Input", "Control", "Failures", "Output"


def option(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002 - typer uses this name
    """Return a typer option that `--help` lists under `panel`."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_envvar=False, **more)


def _parse_size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _parse_count(text: str) -> float:
    if text == "all":
        return math.inf
    if text.isdecimal():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a number nor 'all'")


Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH...",
        help="Folders, files, quoted globs, URLs (s3, gs, az, https), or '-' for standard input.",
    ),
]
Pattern = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--pattern",
        "-p",
        metavar="GLOB",
        help="Of files in folders, only read those whose name matches GLOB (with '/': whose path "
        "below the folder); repeatable.  [default: *.json, *.jsonl, *.ndjson, and each with .gz, "
        ".bz2, .xz, .zst]",
    ),
]
Exclude = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--exclude",
        metavar="GLOB",
        help="Skip files and folders that match GLOB; repeatable.",
    ),
]
FilesFrom = Annotated[
    str | None,
    option(
        INPUT,
        "--files-from",
        metavar="FILE",
        help="Read more paths from a file ('-': standard input), one a line.",
    ),
]
Null = Annotated[
    bool,
    option(
        INPUT,
        "--null",
        "-0",
        help="Paths in --files-from end with NUL, as in the output of find -print0.",
    ),
]
Hidden = Annotated[bool, option(INPUT, "--hidden", help="Also read hidden files and folders.")]
FollowSymlinks = Annotated[
    bool,
    option(
        INPUT,
        "--follow-symlinks",
        help="Enter symlinked folders (symlinked files are always read).",
    ),
]
Limit = Annotated[
    int | None, option(INPUT, "--limit", min=1, metavar="N", help="Read only the first N files.")
]
Shard = Annotated[
    str | None,
    option(
        INPUT,
        "--shard",
        metavar="I/N",
        help="Read only shard I of N: N runs together read each file once.",
    ),
]
Endpoint = Annotated[
    str | None,
    option(
        INPUT,
        "--endpoint",
        metavar="URL",
        help="The server for s3://, gs:// or az:// URLs, if not the provider's own.",
    ),
]
Anonymous = Annotated[
    bool, option(INPUT, "--anonymous", help="Access object stores without credentials.")
]
AllowEmpty = Annotated[
    bool, option(INPUT, "--allow-empty", help="Succeed even if no file is found.")
]
Format = Annotated[
    Literal["auto", "json", "jsonl", "concat", "seq"],
    option(
        INPUT,
        "--format",
        help="The format of every file; auto decides by its name. concat: values that follow each "
        "other, also without line ends; seq: JSON text sequences (RFC 7464).",
    ),
]
MaxFileSize = Annotated[
    int | None,
    option(
        INPUT,
        "--max-file-size",
        parser=_parse_size,
        metavar="SIZE",
        help="Files larger than SIZE on disk fail as too_large (500, 64K, 10MB, 1.5GiB).",
    ),
]
MaxDecompressedSize = Annotated[
    int,
    option(
        INPUT,
        "--max-decompressed-size",
        parser=_parse_size,
        metavar="SIZE",
        help="Compressed files that unpack to more than SIZE fail as too_large.",
    ),
]
MaxWindow = Annotated[
    int | None,
    option(
        INPUT,
        "--max-window",
        parser=_parse_size,
        metavar="SIZE",
        help="The window of a compressed file that is read: 2GiB for zstd --long=31.",
    ),
]
MaxMemory = Annotated[
    int | None,
    option(
        CONTROL,
        "--max-memory",
        parser=_parse_size,
        metavar="SIZE",
        help="Keep the memory of all processes together below SIZE, with fewer workers and less "
        "data in flight; inputs that do not fit fail as too_large.  [default: the container's "
        "limit]",
    ),
]
BatchSize = Annotated[
    int | None,
    option(
        CONTROL,
        "--batch-size",
        "-b",
        min=1,
        metavar="N",
        help="Files per batch.  [default: adapts, up to 2,048 files and 8 MiB]",
    ),
]
Concurrency = Annotated[
    int | None,
    option(
        CONTROL,
        "--concurrency",
        "-c",
        min=1,
        metavar="N",
        help="Batches in flight.  [default: 2 per worker]",
    ),
]
Workers = Annotated[
    int | None,
    option(
        CONTROL,
        "--workers",
        "-w",
        min=0,
        metavar="N",
        help="Worker processes; 0 works in this process, except for --jq, --call and --timeout.  "
        "[default: the usable CPUs; 0 for small jobs]",
    ),
]
Engine = Annotated[
    Literal["local", "dask"],
    option(
        CONTROL,
        "--engine",
        help="Run the work in processes of this machine, or on a Dask cluster whose workers can "
        "read the same files.",
    ),
]
Scheduler = Annotated[
    str | None,
    option(
        CONTROL,
        "--scheduler",
        metavar="ADDRESS",
        help="The scheduler of the Dask cluster, tcp://HOST:8786.  [default: start a cluster of "
        "--workers on this machine]",
    ),
]
ReadAhead = Annotated[
    int | None,
    option(
        CONTROL,
        "--read-ahead",
        min=0,
        metavar="N",
        help="Files that each worker reads at the same time.  [default: adapts to the storage]",
    ),
]
Pause = Annotated[
    float,
    option(
        CONTROL,
        "--pause",
        min=0.0,
        metavar="SECONDS",
        help="Run one batch at a time, with this pause between batches.",
    ),
]
Grace = Annotated[
    float,
    option(
        CONTROL,
        "--grace",
        min=0.0,
        metavar="SECONDS",
        help="Time for the work in flight to finish after Ctrl-C or SIGTERM.",
    ),
]
Lock = Annotated[
    str | None,
    option(
        CONTROL,
        "--lock",
        metavar="[FILE]",
        help="Prevent overlapping runs of this job: exit 75 if another run has the lock. FILE is "
        "the lock file; --lock=FILE is never read as an input.  [default: one file per job]",
    ),
]
LockWait = Annotated[
    float | None,
    option(
        CONTROL,
        "--lock-wait",
        min=0.0,
        metavar="SECONDS",
        help="Wait up to SECONDS for the lock.",
    ),
]
DryRun = Annotated[
    bool,
    option(CONTROL, "--dry-run", help="List the files and batches without processing them."),
]
Timeout = Annotated[
    float | None,
    option(
        FAILURES,
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help="Fail a file that takes longer, and end its worker.",
    ),
]
Retries = Annotated[
    int,
    option(
        FAILURES,
        "--retries",
        min=0,
        metavar="N",
        help="Retry temporary failures: a failed read, a lost connection in a --call.",
    ),
]
RetryDelay = Annotated[
    float,
    option(
        FAILURES,
        "--retry-delay",
        min=0.0,
        metavar="SECONDS",
        help="The delay before the first retry; it doubles with each retry.",
    ),
]
MaxFailures = Annotated[
    str | None,
    option(
        FAILURES,
        "--max-failures",
        metavar="N|P%",
        help="Exit 0 with up to N failures (or P percent); stop once there are more.",
    ),
]
FailFast = Annotated[
    bool, option(FAILURES, "--fail-fast", help="Stop at the first failure: --max-failures 0.")
]
ShowFailures = Annotated[
    float,
    option(
        FAILURES,
        "--show-failures",
        parser=_parse_count,
        metavar="N|all",
        help="The number of failures in the summary.",
    ),
]
Output = Annotated[
    Literal["text", "json", "jsonl", "junit", "github"],
    option(
        OUTPUT,
        "--output",
        "-o",
        help="Print a text summary, one JSON object, events as JSON Lines, JUnit XML, or "
        "annotations for GitHub.",
    ),
]
Report = Annotated[
    list[str] | None,
    option(
        OUTPUT,
        "--report",
        metavar="FILE",
        help="Also write a report file: .json (the object), .jsonl (events), .xml (JUnit), .md "
        "or .prom (metrics); repeatable.",
    ),
]
Quiet = Annotated[bool, option(OUTPUT, "--quiet", "-q", help="Print only failures, on stderr.")]
Verbose = Annotated[
    bool, option(OUTPUT, "--verbose", "-v", help="Print a line for each file, on stderr.")
]
Progress = Annotated[
    bool, option(OUTPUT, "--progress/--no-progress", help="Show progress, on stderr.")
]
