"""Options for streams: windows, sources, simulated events."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from asyncbatch.config.options.aggregates import (
    AGGREGATES_TEXT,
    DEFAULT_MAX_KEYS,
    GroupFields,
)
from asyncbatch.config.options.control import OutputFlags, RetryDelay
from asyncbatch.config.options.inputs import Excluded, Patterns  # noqa: TC001 - msgspec reads them
from asyncbatch.config.options.target import CsvSafe, TableName  # noqa: TC001 - as above
from asyncbatch.core.options import (
    AggregateText,
    Count,
    Name,
    Names,
    Natural,
    Options,
    Path,
    Seconds,
    Span,
    WindowText,
    option,
)
from asyncbatch.core.settings import EVENT_TYPES

ARRIVAL = "arrival"  # in place of the field of an event's time


class WindowOptions(Options, frozen=True, kw_only=True):
    """The time of events, and the keys of windows."""

    panel: ClassVar[str] = "Windows"

    time: Annotated[
        Path,
        option(
            "Read the time of an event from FIELD: RFC 3339, or a number since 1970. 'arrival': "
            "the time at which it arrives.",
            metavar="FIELD",
            main=True,
        ),
    ] = "timestamp"
    time_unit: Annotated[
        Literal["auto", "s", "ms", "us", "ns"],
        option("Read times that are numbers in this unit; auto decides by their size."),
    ] = "auto"
    by: GroupFields = ()
    lateness: Annotated[
        Span,
        option(
            "Keep each window open for DURATION after its end, for late events.",
            metavar="DURATION",
            main=True,
        ),
    ] = 0
    idle_timeout: Annotated[
        Span | None,
        option(
            "Close windows by the clock if no event arrives for DURATION.",
            metavar="DURATION",
        ),
    ] = None
    max_future: Annotated[
        Span | None,
        option(
            "Reject events more than DURATION ahead of the clock: they would close all windows.",
            metavar="DURATION",
            panel="Failures",
        ),
    ] = None
    max_keys: Annotated[
        Count,
        option(
            "Allow up to N keys in a window. More keys stop the stream, except with "
            "--overflow-key.",
            metavar="N",
        ),
    ] = DEFAULT_MAX_KEYS
    overflow_key: Annotated[
        Name | None,
        option("Count keys beyond --max-keys under NAME instead of stopping.", metavar="NAME"),
    ] = None


class WindowFlags(WindowOptions, frozen=True, kw_only=True):
    """The windows of a command line."""

    window: Annotated[
        WindowText,
        option(
            "Choose the windows: tumbling:SIZE, hopping:SIZE/EVERY or session:GAP, with durations "
            "as 500ms, 5s, 1m, 1h.",
            metavar="WINDOW",
            main=True,
        ),
    ] = "tumbling:5s"
    agg: Annotated[
        tuple[AggregateText, ...],
        option(
            AGGREGATES_TEXT,
            metavar="AGG",
            commas=True,
            default="count; with simulate: also sum and avg:value",
            main=True,
        ),
    ] = ()


class FollowOptions(Options, frozen=True, kw_only=True):
    """The reading of files that grow."""

    panel: ClassVar[str] = "Input"

    follow: Annotated[
        bool,
        option(
            "Follow files as they grow, also after rotation, as tail -F does. Read new files in "
            "folders.",
            short="-f",
            main=True,
        ),
    ] = False
    from_end: Annotated[bool, option("Skip the data that exists at the start, with --follow.")] = (
        False
    )


class PatternOptions(FollowOptions, frozen=True, kw_only=True):
    """The reading of folders."""

    exclude: Excluded = ()
    pattern: Patterns = None


class SimulatorOptions(Options, frozen=True, kw_only=True):
    """Simulated events."""

    panel: ClassVar[str] = "Simulated events"

    rate: Annotated[float, Meta(gt=0), option("Make N events per second.", metavar="N")] = 10.0
    seed: Annotated[
        int | None, option("Make the same events each time, from the seed N.", metavar="N")
    ] = None
    users: Annotated[Count, option("Make user ids from 1 to N.", metavar="N")] = 1000
    types: Annotated[
        Names,
        option(
            "Make events of the types NAMES, separated by commas.",
            metavar="NAMES",
            commas=True,
        ),
    ] = EVENT_TYPES
    disorder: Annotated[
        Span,
        option(
            "Put event times up to DURATION out of order.",
            metavar="DURATION",
        ),
    ] = 0


class StreamSinkOptions(Options, frozen=True, kw_only=True):
    """How windows are written to a target."""

    panel: ClassVar[str] = "Output"

    table: TableName = None
    csv_safe: CsvSafe = False


class StreamTargetFlags(StreamSinkOptions, frozen=True, kw_only=True):
    """The target of a stream's command line."""

    to: Annotated[
        str | None,
        option(
            "Write windows to '-', FILE.jsonl[.gz|.bz2|.xz|.zst], FILE.csv, .tsv, .parquet, "
            "sqlite:///FILE, duckdb:///FILE or postgresql://USER@HOST/DATABASE. In a table, each "
            "window and key is one row.",
            metavar="TARGET",
            default="standard output",
            writes=True,
            main=True,
        ),
    ] = None


class StreamControlFlags(Options, frozen=True, kw_only=True):
    """The processes, limits and checkpoints of a stream."""

    panel: ClassVar[str] = "Control"

    workers: Annotated[
        Natural | None,
        option(
            "Use N worker processes for --jq, --call, --schema and high event rates; 0 uses none.",
            short="-w",
            also="-j",
            metavar="N",
            default="one per usable CPU; for high rates one less",
        ),
    ] = None
    duration: Annotated[
        Span | None,
        option(
            "Stop after DURATION.",
            metavar="DURATION",
            main=True,
        ),
    ] = None
    max_events: Annotated[Count | None, option("Stop after N events.", metavar="N")] = None
    signal_exit: Annotated[
        bool,
        option("Exit 130 or 143 after Ctrl-C or SIGTERM, as the other commands do, and not 0."),
    ] = False
    checkpoint: Annotated[
        Name | None,
        option(
            "Save the state of the stream in FILE. Resume from FILE if it exists.",
            metavar="FILE",
            writes=True,
            main=True,
        ),
    ] = None
    checkpoint_every: Annotated[
        Span | None, option("Save the state every DURATION.", metavar="DURATION", default="10s")
    ] = None


class StreamFailureFlags(Options, frozen=True, kw_only=True):
    """The events that a stream does not count."""

    panel: ClassVar[str] = "Failures"

    max_failures: Annotated[
        str | None,
        option(
            "Stop and exit 1 once more than N events, or P percent of all events, are rejected or "
            "late.",
            metavar="N|P%",
        ),
    ] = None
    timeout: Annotated[
        Seconds | None,
        option(
            "Reject an event that takes longer than DURATION in --jq, --call or --schema, and "
            "replace its worker.",
            metavar="DURATION",
        ),
    ] = None
    retries: Annotated[
        Natural,
        option(
            "Retry a --call up to N times after a temporary failure: a lost connection.",
            metavar="N",
        ),
    ] = 0
    retry_delay: RetryDelay = 0.2
    late: Annotated[
        Name | None,
        option(
            "Keep events that arrive after their window has closed in FILE, as JSON Lines.",
            metavar="FILE",
            writes=True,
        ),
    ] = None
    dead_letter: Annotated[
        Name | None,
        option(
            "Keep rejected events in FILE, as JSON Lines.",
            metavar="FILE",
            writes=True,
            main=True,
        ),
    ] = None


class StreamOutputFlags(OutputFlags, frozen=True, kw_only=True):
    """The output of a stream."""

    output: Annotated[
        Literal["text", "json", "jsonl", "github"],
        option(
            "Print windows and a summary (text), or all events as JSON Lines (jsonl). With --to "
            "also one object (json), or GitHub annotations.",
            short="-o",
            main=True,
        ),
    ] = "text"
    report: Annotated[
        tuple[Name, ...],
        option(
            "Also write a report, by the ending of FILE: .html (a page with charts), .json, "
            ".jsonl (events), .md, .prom (metrics).",
            metavar="FILE",
            writes=True,
            main=True,
        ),
    ] = ()
    quiet: Annotated[
        bool,
        option("Print only windows and errors: no progress, no summary.", short="-q", main=True),
    ] = False
    verbose: Annotated[
        bool,
        option(
            "Print a line for each rejected or late event, and for each window that goes into a "
            "target, on stderr.",
            short="-v",
        ),
    ] = False
