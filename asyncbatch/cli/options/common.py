"""Options of `asyncbatch run`: inputs, control, output."""

import math
from typing import Annotated, Any, Literal

import typer

from asyncbatch.core.units import parse_size

INPUT, CONTROL, FAILURES, OUTPUT = "Input", "Control", "Failures", "Output"


def option(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002 - typer's words
    """Return typer's idea of an option that `--help` lists under `panel`."""
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
        help="Take files of folders whose name (with '/': path below the folder) fits; "
        "repeatable.  [default: *.json, *.jsonl, *.ndjson, and each with .gz, .bz2, .xz, .zst]",
    ),
]
Exclude = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--exclude",
        metavar="GLOB",
        help="Leave out what fits, files and folders; repeatable.",
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
        help="The list's paths end with NUL, as from find -print0.",
    ),
]
Hidden = Annotated[bool, option(INPUT, "--hidden", help="Take hidden files and folders too.")]
FollowSymlinks = Annotated[
    bool,
    option(INPUT, "--follow-symlinks", help="Enter symlinked folders (linked files always count)."),
]
Limit = Annotated[
    int | None, option(INPUT, "--limit", min=1, metavar="N", help="Stop after N files.")
]
Shard = Annotated[
    str | None,
    option(
        INPUT,
        "--shard",
        metavar="I/N",
        help="Take part I of N of what there is: N runs together take each file once.",
    ),
]
Endpoint = Annotated[
    str | None,
    option(
        INPUT,
        "--endpoint",
        metavar="URL",
        help="The server that s3://, gs:// or az:// URLs are of, if not the provider's own.",
    ),
]
Anonymous = Annotated[
    bool, option(INPUT, "--anonymous", help="Ask object stores without credentials.")
]
AllowEmpty = Annotated[
    bool, option(INPUT, "--allow-empty", help="Finding no file at all is no error.")
]
Format = Annotated[
    Literal["auto", "json", "jsonl"],
    option(INPUT, "--format", help="How to read every file; auto goes by its name."),
]
MaxFileSize = Annotated[
    int | None,
    option(
        INPUT,
        "--max-file-size",
        parser=_parse_size,
        metavar="SIZE",
        help="Files over this size on disk fail as too_large (500, 64K, 10MB, 1.5GiB).",
    ),
]
MaxDecompressedSize = Annotated[
    int,
    option(
        INPUT,
        "--max-decompressed-size",
        parser=_parse_size,
        metavar="SIZE",
        help="Compressed files that unpack to more than this fail as too_large.",
    ),
]
MaxMemory = Annotated[
    int | None,
    option(
        CONTROL,
        "--max-memory",
        parser=_parse_size,
        metavar="SIZE",
        help="Keep all processes together below this: fewer workers, less in flight; what does "
        "not fit at all fails as too_large.  [default: what the container allows]",
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
        help="Files a batch.  [default: adapts, up to 2,048 files and 8 MiB]",
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
        help="Batches in flight.  [default: 2 a worker]",
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
        "[default: the CPUs it may use; 0 for small jobs]",
    ),
]
Engine = Annotated[
    Literal["local", "dask"],
    option(
        CONTROL,
        "--engine",
        help="Who works: processes of this machine, or the workers of a Dask cluster, which see "
        "the same files.",
    ),
]
Scheduler = Annotated[
    str | None,
    option(
        CONTROL,
        "--scheduler",
        metavar="ADDRESS",
        help="The scheduler of that cluster, tcp://HOST:8786.  [default: a cluster of "
        "--workers is started on this machine]",
    ),
]
ReadAhead = Annotated[
    int | None,
    option(
        CONTROL,
        "--read-ahead",
        min=0,
        metavar="N",
        help="Files that each worker reads at a time.  [default: adapts to the storage]",
    ),
]
Pause = Annotated[
    float,
    option(
        CONTROL,
        "--pause",
        min=0.0,
        metavar="SECONDS",
        help="Batches go one at a time, with this pause between them.",
    ),
]
Grace = Annotated[
    float,
    option(
        CONTROL,
        "--grace",
        min=0.0,
        metavar="SECONDS",
        help="After Ctrl-C or SIGTERM, time for what is in flight.",
    ),
]
Lock = Annotated[
    str | None,
    option(
        CONTROL,
        "--lock",
        metavar="[FILE]",
        help="Let no two runs of this job overlap: exit 75 if another has the lock. FILE stands "
        "for it (--lock=FILE to be sure).  [default: one for each job]",
    ),
]
LockWait = Annotated[
    float | None,
    option(
        CONTROL,
        "--lock-wait",
        min=0.0,
        metavar="SECONDS",
        help="Wait so long for the lock before giving up.",
    ),
]
DryRun = Annotated[
    bool,
    option(CONTROL, "--dry-run", help="List what would be processed, and in which batches."),
]
Timeout = Annotated[
    float | None,
    option(
        FAILURES,
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help="A file that takes longer fails, and its worker is ended.",
    ),
]
Retries = Annotated[
    int,
    option(
        FAILURES,
        "--retries",
        min=0,
        metavar="N",
        help="Try again what fails for the moment: a read, a --call that meets a lost connection.",
    ),
]
RetryDelay = Annotated[
    float,
    option(
        FAILURES,
        "--retry-delay",
        min=0.0,
        metavar="SECONDS",
        help="The time before the first retry; it doubles each time.",
    ),
]
MaxFailures = Annotated[
    str | None,
    option(
        FAILURES,
        "--max-failures",
        metavar="N|P%",
        help="Exit 0 with up to N failures (or P percent); stop as soon as there are more.",
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
        help="How many failures the summary shows.",
    ),
]
Output = Annotated[
    Literal["text", "json", "jsonl", "junit", "github"],
    option(
        OUTPUT,
        "--output",
        "-o",
        help="What to print: a summary for people, one JSON object, events as JSON Lines, "
        "JUnit XML, or annotations for GitHub.",
    ),
]
Report = Annotated[
    list[str] | None,
    option(
        OUTPUT,
        "--report",
        metavar="FILE",
        help="Write a file too: .json (the object), .jsonl (events), .xml (JUnit), .md "
        "or .prom (metrics); repeatable.",
    ),
]
Quiet = Annotated[
    bool, option(OUTPUT, "--quiet", "-q", help="Print nothing but failures, on stderr.")
]
Verbose = Annotated[
    bool, option(OUTPUT, "--verbose", "-v", help="Print a line for each file, on stderr.")
]
Progress = Annotated[
    bool, option(OUTPUT, "--progress/--no-progress", help="Show progress, on stderr.")
]
