"""Options for streams: windows, sources, simulated events."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from asyncbatch.config.options.control import OutputFlags, RetryDelay
from asyncbatch.config.options.declare import (
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
from asyncbatch.config.options.inputs import Excluded, Patterns  # noqa: TC001 - msgspec reads them
from asyncbatch.config.options.target import CsvSafe, TableName  # noqa: TC001 - as above
from asyncbatch.core.settings import EVENT_TYPES

ARRIVAL = "arrival"  # in place of the field of an event's time
DEFAULT_MAX_KEYS = 100_000


class WindowOptions(Options, frozen=True, kw_only=True):
    """The time of events, and the keys of windows."""

    panel: ClassVar[str] = "Windows"

    time: Annotated[
        Path,
        option(
            "The field with the time of an event (RFC 3339, or a number since the epoch), or "
            "'arrival' for the time at which it arrives.",
            metavar="FIELD",
            main=True,
        ),
    ] = "timestamp"
    time_unit: Annotated[
        Literal["auto", "s", "ms", "us", "ns"],
        option("The unit of times that are numbers; auto decides by their size."),
    ] = "auto"
    by: Annotated[
        tuple[Path, ...],
        option(
            "Group by these fields, separated by commas: user.id,country.",
            metavar="FIELDS",
            commas=True,
            main=True,
        ),
    ] = ()
    lateness: Annotated[
        Span,
        option(
            "Keep windows open for DURATION after their end, for events out of order.",
            metavar="DURATION",
            main=True,
        ),
    ] = 0
    idle_timeout: Annotated[
        Span | None,
        option(
            "Let the clock close windows if no event arrives for DURATION.",
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
            "The maximum number of keys in a window.",
            metavar="N",
        ),
    ] = DEFAULT_MAX_KEYS
    overflow_key: Annotated[
        Name | None,
        option(
            "Combine keys beyond --max-keys under this key instead of stopping.", metavar="NAME"
        ),
    ] = None


class WindowFlags(WindowOptions, frozen=True, kw_only=True):
    """The windows of a command line."""

    window: Annotated[
        WindowText,
        option(
            "tumbling:SIZE, hopping:SIZE/EVERY or session:GAP, with durations: 500ms, 5s, 1m, 1h.",
            metavar="WINDOW",
            main=True,
        ),
    ] = "tumbling:5s"
    agg: Annotated[
        tuple[AggregateText, ...],
        option(
            "count, or sum, avg, min, max, stddev, distinct, p50, p95, p99 with :FIELD; NAME= "
            "before it renames.",
            metavar="AGG",
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
            "Follow files as they grow, also after rotation or truncation, as tail -F does; and "
            "read new files in folders.",
            short="-f",
            main=True,
        ),
    ] = False
    from_end: Annotated[bool, option("When following: skip data that exists at the start.")] = False


class PatternOptions(FollowOptions, frozen=True, kw_only=True):
    """The reading of folders."""

    exclude: Excluded = ()
    pattern: Patterns = None


class SimulatorOptions(Options, frozen=True, kw_only=True):
    """Simulated events."""

    panel: ClassVar[str] = "Simulated events"

    rate: Annotated[float, Meta(gt=0), option("Events per second.", metavar="N")] = 10.0
    seed: Annotated[int | None, option("Generate the same events each time.", metavar="N")] = None
    users: Annotated[Count, option("User ids go from 1 to N.", metavar="N")] = 1000
    types: Annotated[
        Names,
        option(
            "Event types, separated by commas.",
            metavar="NAMES",
            commas=True,
        ),
    ] = EVENT_TYPES
    disorder: Annotated[
        Span,
        option(
            "Let event times be up to DURATION out of order.",
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
            "Write windows to '-', a file (.jsonl, .ndjson, each with .gz or .zst, .csv, .tsv, "
            ".parquet), sqlite:///FILE, duckdb:///FILE or postgresql://USER@HOST/DATABASE; in a "
            "table each window and key is one row.",
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
            "Worker processes for --jq, --call and --schema, and to help at high event rates; 0 "
            "for none.",
            short="-w",
            also="-j",
            metavar="N",
            default="the usable CPUs; to help, one less",
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
        option("After Ctrl-C or SIGTERM exit 130 or 143, as the other commands do, and not 0."),
    ] = False
    checkpoint: Annotated[
        Name | None,
        option(
            "Save the state in FILE, to continue after a stop or a crash; resume from FILE if it "
            "exists.",
            metavar="FILE",
            writes=True,
            main=True,
        ),
    ] = None
    checkpoint_every: Annotated[
        Span | None, option("The time between checkpoints.", metavar="DURATION", default="10s")
    ] = None


class StreamFailureFlags(Options, frozen=True, kw_only=True):
    """The events that a stream does not count."""

    panel: ClassVar[str] = "Failures"

    max_failures: Annotated[
        str | None,
        option(
            "Stop and exit 1 once more events than this are rejected or late.",
            metavar="N|P%",
        ),
    ] = None
    timeout: Annotated[
        Seconds | None,
        option(
            "Reject an event that takes longer in --jq, --call or --schema, and end its worker.",
            metavar="DURATION",
        ),
    ] = None
    retries: Annotated[
        Natural,
        option("Retry a --call after a temporary failure: a lost connection.", metavar="N"),
    ] = 0
    retry_delay: RetryDelay = 0.2
    late: Annotated[
        Name | None,
        option(
            "Keep events whose window has closed, as JSON Lines.",
            metavar="FILE",
            writes=True,
        ),
    ] = None
    dead_letter: Annotated[
        Name | None,
        option(
            "Keep rejected events, as JSON Lines.",
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
            "Print windows and a text summary, or events as JSON Lines, closed windows among them; "
            "with --to also one JSON object, or annotations for GitHub.",
            short="-o",
            main=True,
        ),
    ] = "text"
