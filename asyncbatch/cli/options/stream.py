"""Options that only `asyncbatch stream` and `asyncbatch generate` have."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from asyncbatch.cli.options.common import CONTROL, FAILURES, INPUT, OUTPUT, option

if TYPE_CHECKING:
    from asyncbatch.windows.aggregates import Aggregate
    from asyncbatch.windows.spec import WindowSpec

WINDOWS = "Windows"
SIMULATED = "Simulated events"


def _parse_duration(text: str) -> int:
    from asyncbatch.core.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _parse_window(text: str) -> "WindowSpec":
    from asyncbatch.windows.spec import parse_window

    try:
        return parse_window(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _parse_aggregate(text: str) -> "Aggregate":
    from asyncbatch.windows.aggregates import parse_aggregate

    try:
        return parse_aggregate(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _print_schema(is_requested: bool) -> None:
    if not is_requested:
        return
    import json

    from asyncbatch.cli.command import print_note
    from asyncbatch.config.pipeline_file.check import stream_schema

    print_note(json.dumps(stream_schema(), indent=2))
    raise typer.Exit


Source = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="'-' for standard input, a file of JSON Lines, a folder of such files, or 'simulate:' "
        "for example events; several are read concurrently. Or a pipeline file, FILE.toml.",
    ),
]
Follow = Annotated[
    bool,
    option(
        INPUT,
        "--follow",
        "-f",
        help="Follow files as they grow, also after rotation or truncation, as tail -F does; and "
        "read new files in folders.",
    ),
]
FromEnd = Annotated[
    bool,
    option(INPUT, "--from-end", help="With --follow: skip data that exists at the start."),
]
Window = Annotated[
    str,
    option(
        WINDOWS,
        "--window",
        parser=_parse_window,
        metavar="WINDOW",
        help="tumbling:SIZE, hopping:SIZE/EVERY or session:GAP, with spans like 500ms, 5s, 1m, 1h.",
    ),
]
Time = Annotated[
    str,
    option(
        WINDOWS,
        "--time",
        metavar="FIELD",
        help="The field with the time of an event (RFC 3339, or a number since the epoch), or "
        "'arrival' for the time at which it arrives.",
    ),
]
TimeUnit = Annotated[
    Literal["auto", "s", "ms", "us", "ns"],
    option(
        WINDOWS,
        "--time-unit",
        help="The unit of times that are numbers; auto decides by their size.",
    ),
]
By = Annotated[
    list[str] | None,
    option(
        WINDOWS,
        "--by",
        metavar="FIELD",
        help="Group by these fields, separated by commas, for example user.id; repeatable.",
    ),
]
Agg = Annotated[
    list[str] | None,
    option(
        WINDOWS,
        "--agg",
        parser=_parse_aggregate,
        metavar="AGG",
        help="count, or sum, avg, min, max, stddev, distinct, p50, p95, p99 with :FIELD; NAME= "
        "before it renames; repeatable.  [default: count; with simulate: also sum and avg:value]",
    ),
]
Lateness = Annotated[
    str,
    option(
        WINDOWS,
        "--lateness",
        parser=_parse_duration,
        metavar="SPAN",
        help="Keep windows open for SPAN after their end, for events out of order.",
    ),
]
IdleTimeout = Annotated[
    str | None,
    option(
        WINDOWS,
        "--idle-timeout",
        parser=_parse_duration,
        metavar="SPAN",
        help="Let the clock close windows if no event arrives for SPAN.",
    ),
]
MaxFuture = Annotated[
    str | None,
    option(
        FAILURES,
        "--max-future",
        parser=_parse_duration,
        metavar="SPAN",
        help="Reject events more than SPAN ahead of the clock: they would close all windows.",
    ),
]
MaxKeys = Annotated[
    int,
    option(
        WINDOWS, "--max-keys", min=1, metavar="N", help="The maximum number of keys in a window."
    ),
]
OverflowKey = Annotated[
    str | None,
    option(
        WINDOWS,
        "--overflow-key",
        metavar="NAME",
        help="Combine keys beyond --max-keys under this key instead of stopping.",
    ),
]
Late = Annotated[
    str | None,
    option(
        FAILURES,
        "--late",
        metavar="FILE",
        help="Keep events whose window has closed, as JSON Lines.",
    ),
]
DeadLetter = Annotated[
    str | None,
    option(FAILURES, "--dead-letter", metavar="FILE", help="Keep rejected events, as JSON Lines."),
]
MaxFailures = Annotated[
    str | None,
    option(
        FAILURES,
        "--max-failures",
        metavar="N|P%",
        help="Stop and exit 1 once more events than this are rejected or late.",
    ),
]
Target = Annotated[
    str | None,
    option(
        OUTPUT,
        "--to",
        metavar="TARGET",
        help="Write windows to '-', a file (.jsonl, .ndjson, each with .gz or .zst, .csv, .tsv, "
        ".parquet), sqlite:///FILE, duckdb:///FILE or postgresql://USER@HOST/DATABASE; in a table "
        "each window and key is one row.  [default: standard output]",
    ),
]
Table = Annotated[
    str | None, option(OUTPUT, "--table", metavar="NAME", help="The table in the database.")
]
Checkpoint = Annotated[
    str | None,
    option(
        CONTROL,
        "--checkpoint",
        metavar="FILE",
        help="Save the state in FILE, to continue after a stop or a crash; resume from FILE if it "
        "exists.",
    ),
]
CheckpointEvery = Annotated[
    str | None,
    option(
        CONTROL,
        "--checkpoint-every",
        parser=_parse_duration,
        metavar="SPAN",
        help="The time between checkpoints.  [default: 10s]",
    ),
]
Timeout = Annotated[
    float | None,
    option(
        FAILURES,
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help="Reject an event that takes longer in --jq, --call or --schema, and end its worker.",
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
        help="Worker processes for --jq, --call and --schema, and to help at high event rates; 0 "
        "for none.  [default: the usable CPUs; to help, one less]",
    ),
]
Duration = Annotated[
    str | None,
    option(CONTROL, "--duration", parser=_parse_duration, metavar="SPAN", help="Stop after SPAN."),
]
MaxEvents = Annotated[
    int | None,
    option(CONTROL, "--max-events", min=1, metavar="N", help="Stop after N events."),
]
Set = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the pipeline file: window.lateness=2s; repeatable.",
    ),
]
Check = Annotated[
    bool, option(CONTROL, "--check", help="Only check the pipeline file and print its mistakes.")
]
PrintSchema = Annotated[
    bool,
    option(
        OUTPUT,
        "--print-schema",
        callback=_print_schema,
        is_eager=True,
        help="Print the JSON Schema of pipeline files for streams.",
    ),
]
Report = Annotated[
    list[str] | None,
    option(
        OUTPUT,
        "--report",
        metavar="FILE",
        help="Also write a report file at the end: .json (an object) or .prom (metrics, also "
        "written while the stream runs); repeatable.",
    ),
]
Quiet = Annotated[bool, option(OUTPUT, "--quiet", "-q", help="Print only windows.")]

Rate = Annotated[
    float, option(SIMULATED, "--rate", min=0.001, metavar="N", help="Events per second.")
]
Seed = Annotated[
    int | None, option(SIMULATED, "--seed", metavar="N", help="Generate the same events each time.")
]
Users = Annotated[
    int, option(SIMULATED, "--users", min=1, metavar="N", help="User ids go from 1 to N.")
]
Types = Annotated[
    str | None,
    option(
        SIMULATED,
        "--types",
        metavar="NAMES",
        help="Event types, separated by commas.  [default: login,logout,purchase,view]",
    ),
]
Start = Annotated[
    str | None,
    option(
        SIMULATED, "--start", metavar="TIME", help="The time of the first event.  [default: now]"
    ),
]
Disorder = Annotated[
    str,
    option(
        SIMULATED,
        "--disorder",
        parser=_parse_duration,
        metavar="SPAN",
        help="Let event times be up to SPAN out of order.",
    ),
]
Count = Annotated[
    int | None,
    option(
        CONTROL, "--count", "-n", min=1, metavar="N", help="The number of events.  [default: 1,000]"
    ),
]
To = Annotated[
    str,
    option(
        OUTPUT, "--to", metavar="FILE", help="Write the events to FILE; '-' is standard output."
    ),
]
