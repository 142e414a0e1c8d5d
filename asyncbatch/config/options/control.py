"""Options for processes, limits, locks, failures, and output."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from asyncbatch.core.options import (
    Bytes,
    Count,
    Delay,
    Lines,
    ListenAddress,
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
        "List up to N failures in the summary, or all.",
        metavar="N|all",
        panel="Failures",
    ),
]
Quiet: TypeAlias = Annotated[
    bool,
    option(
        "Print only failures, on stderr: no progress, no summary.",
        short="-q",
        main=True,
    ),
]


RetryCount: TypeAlias = Annotated[
    Natural,
    option(
        "Retry up to N times after a temporary failure: a failed read, a lost connection in a "
        "--call.",
        metavar="N",
    ),
]
RetryDelay: TypeAlias = Annotated[
    Delay,
    option(
        "Wait DURATION before the first retry, and twice as long before each further one.",
        metavar="DURATION",
        needs="retries",
    ),
]


class ConfigFlags(Options, frozen=True, kw_only=True):
    """The configuration file of a command."""

    panel: ClassVar[str] = "Configuration"

    config: Annotated[
        Name | None,
        option(
            "Read options from FILE, also those that run code or write files.",
            metavar="FILE",
            default="asyncbatch.toml or pyproject.toml, in this folder or above",
            eager=True,
        ),
    ] = None
    profile: Annotated[
        Name | None,
        option(
            "Use the options of profile NAME of the configuration file, before its other options.",
            metavar="NAME",
            eager=True,
        ),
    ] = None
    no_config: Annotated[bool, option("Ignore all configuration files.", eager=True)] = False
    # Eager options have no key in any file: a file cannot allow its own commands.
    allow_commands: Annotated[
        bool,
        option("Run the commands of ${cmd:COMMAND} in pipeline files and --config.", eager=True),
    ] = False
    command_timeout: Annotated[
        Seconds,
        option(
            "Give each command of --allow-commands this DURATION to end.",
            metavar="DURATION",
            eager=True,
            needs="allow_commands",
        ),
    ] = 30.0


class WorkerFlags(Options, frozen=True, kw_only=True):
    """The worker processes of a command."""

    panel: ClassVar[str] = "Control"

    max_memory: Annotated[
        Bytes | None,
        option(
            "Keep the memory of all processes together below SIZE. Inputs that do not fit fail as "
            "too_large.",
            metavar="SIZE",
            default="the container's limit",
        ),
    ] = None
    workers: Annotated[
        Natural | None,
        option(
            "Use N worker processes; 0 uses none, unless a program or --timeout needs one.",
            short="-w",
            also="-j",
            metavar="N",
            default="one per usable CPU; 0 for small jobs",
            main=True,
        ),
    ] = None


class StopFlags(Options, frozen=True, kw_only=True):
    """The end of a command after a stop signal."""

    panel: ClassVar[str] = "Control"

    grace: Annotated[
        Delay,
        option(
            "Give work in progress DURATION to finish after Ctrl-C or SIGTERM.", metavar="DURATION"
        ),
    ] = 8.0


class BatchFlags(Options, frozen=True, kw_only=True):
    """The batches of a run."""

    panel: ClassVar[str] = "Control"

    batch_size: Annotated[
        Count | None,
        option(
            "Process N files per batch.",
            short="-b",
            metavar="N",
            default="adapts: up to 2,048 files and 8 MiB",
        ),
    ] = None
    concurrency: Annotated[
        Count | None,
        option(
            "Process up to N batches at the same time.",
            short="-c",
            metavar="N",
            default="2 per worker",
        ),
    ] = None
    read_ahead: Annotated[
        Natural | None,
        option(
            "Read N files at the same time in each worker.",
            metavar="N",
            default="adapts to the storage",
        ),
    ] = None
    pause: Annotated[
        Delay,
        option(
            "Run one batch at a time, and wait DURATION between batches.",
            metavar="DURATION",
        ),
    ] = 0.0
    dry_run: Annotated[
        bool,
        option(
            "List the files and batches; process nothing.",
            main=True,
        ),
    ] = False


class ClusterFlags(Options, frozen=True, kw_only=True):
    """The engine of a run."""

    panel: ClassVar[str] = "Control"

    engine: Annotated[
        Literal["local", "dask"],
        option(
            "Work on this machine, or on a Dask cluster whose workers can read the same files.",
            trusted=True,
        ),
    ] = "local"
    scheduler: Annotated[
        Name | None,
        option(
            "Connect to the Dask scheduler at ADDRESS: tcp://HOST:8786.",
            metavar="ADDRESS",
            default="a new cluster of --workers on this machine",
            trusted=True,
        ),
    ] = None


class LockFlags(Options, frozen=True, kw_only=True):
    """The lock of a job."""

    panel: ClassVar[str] = "Control"

    lock: Annotated[
        str | None,
        option(
            "Prevent overlapping runs of this job: exit 75 if another run has the lock. "
            "--lock=FILE names the lock file.",
            metavar="[FILE]",
            default="one file per job",
            writes=True,
        ),
    ] = None
    lock_wait: Annotated[
        Delay | None,
        option(
            "Wait up to DURATION for the lock of --lock.",
            metavar="DURATION",
            needs="lock",
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
    live: Annotated[
        ListenAddress | None,
        option(
            "Serve a page that shows the run while it goes on; its URL is printed on stderr. "
            "ADDRESS is HOST:PORT or :PORT.",
            metavar="[ADDRESS]",
            default="a free port of 127.0.0.1",
            trusted=True,
            main=True,
        ),
    ] = None
    live_hold: Annotated[
        bool,
        option("Keep the page of --live after the end of the run, until Ctrl-C.", needs="live"),
    ] = False
    log_file: Annotated[
        Name | None,
        option(
            "Append a log for machines to FILE: settings, failures, retries, progress, the end.",
            metavar="FILE",
            writes=True,
        ),
    ] = None
    log_format: Annotated[
        Literal["text", "json"] | None,
        option(
            "Write the log as lines of text or of JSON. Without --log-file, write it to stderr in "
            "place of progress and notes.",
            default="text, if there is a --log-file",
        ),
    ] = None


class FailureFlags(Options, frozen=True, kw_only=True):
    """The failures that end a command."""

    panel: ClassVar[str] = "Failures"

    timeout: Annotated[
        Seconds | None,
        option(
            "Fail a file that takes longer than DURATION, and replace its worker.",
            metavar="DURATION",
        ),
    ] = None
    max_failures: Annotated[
        str | None,
        option(
            "Exit 0 with up to N failures, or P percent of the files and records together. Stop "
            "once there are more.",
            metavar="N|P%",
        ),
    ] = None
    fail_fast: Annotated[bool, option("Stop at the first failure, as --max-failures 0 does.")] = (
        False
    )


class RetryFlags(Options, frozen=True, kw_only=True):
    """The retries of a command, and the file for its failures."""

    panel: ClassVar[str] = "Failures"

    retries: RetryCount = 0
    retry_delay: RetryDelay = 0.2
    dead_letter: Annotated[
        Name | None,
        option(
            "Keep rejected records and the names of failed files in FILE, as JSON Lines.",
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
            "Print a summary (text), one object (json), events (jsonl), JUnit XML, GitHub "
            "annotations, SARIF, or GitLab's code quality report.",
            short="-o",
            main=True,
        ),
    ] = "text"
    report: Annotated[
        tuple[Name, ...],
        option(
            "Also write a report, by the ending of FILE: .html (a page with charts), .json, "
            ".jsonl (events), .md, .prom (metrics), .xml (JUnit), .sarif, .gitlab.json.",
            metavar="FILE",
            writes=True,
            main=True,
        ),
    ] = ()
    quiet: Quiet = False
    verbose: Annotated[
        bool,
        option(
            "Print a line for each input and each rejected record, on stderr.",
            short="-v",
        ),
    ] = False
    show_failures: ShowFailures = 20
    color: Annotated[
        Literal["auto", "always", "never"],
        option("Color the output: always, never, or auto (on a terminal, unless NO_COLOR is set)."),
    ] = "auto"
    progress: Annotated[
        bool,
        option(
            "Show progress on stderr.",
            name="--progress/--no-progress",
        ),
    ] = True


class RunOutputFlags(OutputFlags, frozen=True, kw_only=True):
    """The output of a command that processes inputs one by one."""

    slowest: Annotated[
        Natural | None,
        option(
            "List the N slowest files in the summary. Reports list at least 5.",
            metavar="N",
            default="up to 5 that took more than a second",
        ),
    ] = None
