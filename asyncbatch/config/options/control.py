"""Options for processes, limits, locks, failures, and output."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from asyncbatch.config.options.declare import (
    Bytes,
    Count,
    Delay,
    Lines,
    Name,
    Natural,
    Options,
    PingUrl,
    Seconds,
    option,
)

OutputFormat = Literal["text", "json", "jsonl", "junit", "github", "sarif", "gitlab"]
ShowFailures: TypeAlias = Annotated[
    Lines,
    option(
        "The number of failures in the summary.",
        metavar="N|all",
        panel="Failures",
    ),
]
Quiet: TypeAlias = Annotated[
    bool,
    option(
        "Print no progress and no summary: only failures, on stderr; a stream prints only windows.",
        short="-q",
        main=True,
    ),
]


RetryCount: TypeAlias = Annotated[
    Natural,
    option("Retry temporary failures: a failed read, a lost connection in a --call.", metavar="N"),
]
RetryDelay: TypeAlias = Annotated[
    Delay,
    option(
        "The delay before the first retry; it doubles with each retry.",
        metavar="DURATION",
    ),
]


class ConfigFlags(Options, frozen=True, kw_only=True):
    """The configuration file of a command."""

    panel: ClassVar[str] = "Configuration"

    config: Annotated[
        Name | None,
        option(
            "Read options from this file, also those that run code or write files.",
            metavar="FILE",
            default="asyncbatch.toml or pyproject.toml, in this folder or above",
            eager=True,
        ),
    ] = None
    profile: Annotated[
        Name | None,
        option("Prefer the options of this profile of the file.", metavar="NAME", eager=True),
    ] = None
    no_config: Annotated[bool, option("Read no configuration file.", eager=True)] = False


class WorkerFlags(Options, frozen=True, kw_only=True):
    """The worker processes of a command."""

    panel: ClassVar[str] = "Control"

    max_memory: Annotated[
        Bytes | None,
        option(
            "Keep the memory of all processes together below SIZE, with fewer workers and less "
            "data in flight; inputs that do not fit fail as too_large.",
            metavar="SIZE",
            default="the container's limit",
        ),
    ] = None
    workers: Annotated[
        Natural | None,
        option(
            "Worker processes; 0 works in this process, except for --jq, --call and --timeout.",
            short="-w",
            also="-j",
            metavar="N",
            default="the usable CPUs; 0 for small jobs",
            main=True,
        ),
    ] = None


class StopFlags(Options, frozen=True, kw_only=True):
    """The end of a command after a stop signal."""

    panel: ClassVar[str] = "Control"

    grace: Annotated[
        Delay,
        option(
            "Time for the work in flight to finish after Ctrl-C or SIGTERM.", metavar="DURATION"
        ),
    ] = 8.0


class BatchFlags(Options, frozen=True, kw_only=True):
    """The batches of a run."""

    panel: ClassVar[str] = "Control"

    batch_size: Annotated[
        Count | None,
        option(
            "Files per batch.",
            short="-b",
            metavar="N",
            default="adapts, up to 2,048 files and 8 MiB",
        ),
    ] = None
    concurrency: Annotated[
        Count | None,
        option("Batches in flight.", short="-c", metavar="N", default="2 per worker"),
    ] = None
    read_ahead: Annotated[
        Natural | None,
        option(
            "Files that each worker reads at the same time.",
            metavar="N",
            default="adapts to the storage",
        ),
    ] = None
    pause: Annotated[
        Delay,
        option(
            "Run one batch at a time, with this pause between batches.",
            metavar="DURATION",
        ),
    ] = 0.0
    dry_run: Annotated[
        bool,
        option(
            "List the files and batches without processing them.",
            main=True,
        ),
    ] = False


class ClusterFlags(Options, frozen=True, kw_only=True):
    """The engine of a run."""

    panel: ClassVar[str] = "Control"

    engine: Annotated[
        Literal["local", "dask"],
        option(
            "Run the work in processes of this machine, or on a Dask cluster whose workers can "
            "read the same files.",
            trusted=True,
        ),
    ] = "local"
    scheduler: Annotated[
        Name | None,
        option(
            "The scheduler of the Dask cluster, tcp://HOST:8786.",
            metavar="ADDRESS",
            default="start a cluster of --workers on this machine",
            trusted=True,
        ),
    ] = None


class LockFlags(Options, frozen=True, kw_only=True):
    """The lock of a job."""

    panel: ClassVar[str] = "Control"

    lock: Annotated[
        str | None,
        option(
            "Prevent overlapping runs of this job: exit 75 if another run has the lock. FILE is "
            "the lock file; --lock=FILE is never read as an input.",
            metavar="[FILE]",
            default="one file per job",
            writes=True,
        ),
    ] = None
    lock_wait: Annotated[
        Delay | None,
        option(
            "Wait up to DURATION for the lock.",
            metavar="DURATION",
        ),
    ] = None


class MonitorFlags(Options, frozen=True, kw_only=True):
    """The services that learn of a run."""

    panel: ClassVar[str] = "Monitoring"

    ping: Annotated[
        PingUrl | None,
        option(
            "Send a request to URL/start at the start, to URL after exit status 0, and else to "
            "URL/fail with the status and the counts, as healthchecks.io expects.",
            metavar="URL",
            trusted=True,
            main=True,
        ),
    ] = None
    history: Annotated[
        bool | None,
        option(
            "Add the run to the history that `asyncbatch history` shows.",
            name="--history/--no-history",
            default="if the run has a ledger or a checkpoint",
        ),
    ] = None


class FailureFlags(Options, frozen=True, kw_only=True):
    """The failures that end a command."""

    panel: ClassVar[str] = "Failures"

    timeout: Annotated[
        Seconds | None,
        option(
            "Fail a file that takes longer, and end its worker.",
            metavar="DURATION",
        ),
    ] = None
    max_failures: Annotated[
        str | None,
        option(
            "Exit 0 with up to N failures (or P percent); stop once there are more.", metavar="N|P%"
        ),
    ] = None
    fail_fast: Annotated[bool, option("Stop at the first failure: --max-failures 0.")] = False


class RetryFlags(Options, frozen=True, kw_only=True):
    """The retries of a command, and the file for its failures."""

    panel: ClassVar[str] = "Failures"

    retries: RetryCount = 0
    retry_delay: RetryDelay = 0.2
    dead_letter: Annotated[
        Name | None,
        option(
            "Keep rejected records and the names of failed files, as JSON Lines.",
            metavar="FILE",
            writes=True,
            main=True,
        ),
    ] = None


class OutputFlags(Options, frozen=True, kw_only=True):
    """The output of a command."""

    panel: ClassVar[str] = "Output"

    output: Annotated[
        OutputFormat,
        option(
            "Print a text summary, one JSON object, events as JSON Lines, JUnit XML, annotations "
            "for GitHub, SARIF for code scanning, or GitLab's code quality report.",
            short="-o",
            main=True,
        ),
    ] = "text"
    report: Annotated[
        tuple[Name, ...],
        option(
            "Also write a report file: .html (a page with charts), .json (the object), .jsonl "
            "(events), .md, .prom (metrics) or, but not of a stream, .xml (JUnit), .sarif, "
            ".gitlab.json (code quality).",
            metavar="FILE",
            writes=True,
            main=True,
        ),
    ] = ()
    quiet: Quiet = False
    verbose: Annotated[
        bool,
        option(
            "Print a line for each input and rejected record, on stderr; a stream: for each "
            "rejected or late event, and each window that a target gets.",
            short="-v",
        ),
    ] = False
    show_failures: ShowFailures = 20
    color: Annotated[
        Literal["auto", "always", "never"],
        option("Color the output. auto: on a terminal, unless NO_COLOR is set."),
    ] = "auto"
    progress: Annotated[
        bool,
        option(
            "Show progress, on stderr.",
            name="--progress/--no-progress",
        ),
    ] = True


class RunOutputFlags(OutputFlags, frozen=True, kw_only=True):
    """The output of a command that processes inputs one by one."""

    slowest: Annotated[
        Natural | None,
        option(
            "List the N slowest files in the summary, and in reports if N is more than 5. Without "
            "it the summary lists those that took more than a second, at most 5.",
            metavar="N",
        ),
    ] = None
