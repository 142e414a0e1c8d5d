"""The command `asyncbatch stream`: convert its options to a stream and run it."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncbatch.cli.command import config_files, open_reports, open_servers, take_lock
from asyncbatch.cli.options.values import command_policy
from asyncbatch.cli.terminal import find_log, to_stderr
from asyncbatch.config.options.control import ConfigFlags, LockFlags, MonitorFlags, StopFlags
from asyncbatch.config.options.pipelines import CheckFlags, OverrideFlags
from asyncbatch.config.options.streams import (
    PatternOptions,
    SimulatorOptions,
    StreamControlFlags,
    StreamFailureFlags,
    StreamOutputFlags,
    StreamTargetFlags,
    WindowFlags,
)
from asyncbatch.config.options.transforms import CallFlags, JqFlags, SchemaFlags
from asyncbatch.core.secrets import redact_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.cli.stream_work import StreamWork
    from asyncbatch.config.secret_sources import CommandPolicy
    from asyncbatch.pipeline.stream.delivery import DeliverySettings
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.sources.live.open import LiveOptions
    from asyncbatch.transforms.spec import TransformSpec
    from asyncbatch.windows.aggregates import Aggregate


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
PrintSchema = Annotated[
    bool,
    typer.Option(
        "--print-schema",
        callback=_print_schema,
        is_eager=True,
        help="Print the JSON Schema of pipeline files for streams.",
        rich_help_panel="Output",
        show_envvar=False,
    ),
]

EPILOG = """\
\b
Examples:
  asyncbatch stream simulate: --duration 15s
  tail -F app.log | asyncbatch stream - --time timestamp --by event_type
  asyncbatch stream app.log --follow --idle-timeout 10s
  asyncbatch stream eu.jsonl us.jsonl incoming/ --window tumbling:1m
  asyncbatch stream events.jsonl --window hopping:1m/10s --agg p95:latency
  asyncbatch stream events.jsonl --window session:30s --late late.jsonl
  asyncbatch stream shop.toml --check

On a terminal it shows a table. Elsewhere it prints a line of JSON for each window and key, as soon
as the window closes. Ctrl-C, SIGTERM and the end of the input stop it cleanly: it prints the open
windows and exits 0.

Exit status: 0 ended or stopped, 1 more failures than --max-failures, every event was rejected or
the target failed, 2 wrong usage, 75 another run has the lock or the checkpoint, 130/143 interrupted
with --signal-exit.
"""

SIMULATE = "simulate:"


def stream_events(
    context: typer.Context,
    source: Source,
    *,
    overrides: OverrideFlags,
    reading: PatternOptions,
    windows: WindowFlags,
    jq: JqFlags,
    call: CallFlags,
    schema: SchemaFlags,
    failures: StreamFailureFlags,
    monitor: MonitorFlags,
    control: StreamControlFlags,
    stop: StopFlags,
    lock: LockFlags,
    check: CheckFlags,
    simulator: SimulatorOptions,
    target: StreamTargetFlags,
    print_schema: PrintSchema = False,  # noqa: ARG001 - its callback prints and exits
    output: StreamOutputFlags,
    config: ConfigFlags,
) -> None:
    """Count and sum events in time windows.

    Averages, extremes and percentiles work, too. Windows follow the time of the events, so a replay
    gives the same windows. Late and invalid events are counted, never lost silently.
    """
    from asyncbatch.cli import exit_codes
    from asyncbatch.cli.observers.start import RunIdentity, make_observers
    from asyncbatch.cli.session import Session
    from asyncbatch.cli.stream_work import StreamWork
    from asyncbatch.config.settings import stream_settings
    from asyncbatch.errors import LockHeldError, UsageError, error_reason
    from asyncbatch.windows.spec import parse_window

    is_file = any(one.endswith(".toml") for one in source)
    if not is_file and (overrides.set or check.check):
        raise typer.BadParameter("--set and --check need a pipeline file: FILE.toml")
    try:
        if lock.lock is not None and not check.check:
            outputs = (
                *(target.to, failures.late, failures.dead_letter),
                *(control.checkpoint, monitor.log_file),
            )
            take_lock(
                lock.lock,
                lock.lock_wait or 0.0,
                inputs=source,
                target=None if target.to is None else redact_address(target.to),
                outputs=[path for path in (*outputs, *output.report) if path],
                options={"set": overrides.set, "window": windows.window, "by": windows.by},
                quiet=output.quiet,
            )
        report_files = [] if check.check else open_reports(output.report, command="stream")
        is_live = monitor.live is not None
        options: dict[str, Any] = {
            "control": control,
            "failures": failures,
            "output": output,
            "call_concurrency": call.call_concurrency,
            "other_outputs": _other_outputs(output, monitor),
            "reads": (*(source if is_file else ()), *config_files(context)),
            "lists_failures": is_live
            or output.output == "jsonl"
            or any(file.lists_events for file in report_files),
            "reports_settings": is_live
            or find_log() is not None
            or any(file.shows_settings for file in report_files),
        }
        if is_file:
            commands = command_policy(config)
            work = _file_work(context, source, overrides, check, options, commands=commands)
        else:
            is_simulated = source == [SIMULATE]
            settings = stream_settings(
                windows,
                parse_window(windows.window),
                _aggregates(windows.agg, simulated=is_simulated),
                by=windows.by or (("event_type",) if is_simulated else ()),
                transforms=_transforms(jq, call, schema),
                letters=failures.dead_letter is not None,
                tracebacks=output.verbose,
            )
            _check_sources(source, simulator)
            live = _live_options(source, reading)
            work = StreamWork(
                settings,
                [_open_source(one, live, simulator) for one in source],
                _delivery_settings(target, control),
                late=failures.late,
                dead_letter=failures.dead_letter,
                **options,
            )
        if work is None:
            raise typer.Exit(exit_codes.SUCCESS)
        servers = open_servers(monitor, "stream")
        work.open()
    except LockHeldError as error:
        to_stderr(f"Error: {error}")
        raise typer.Exit(exit_codes.LOCKED) from None
    except (UsageError, ValueError, OSError) as error:
        raise typer.BadParameter(error_reason(error)) from None
    session = Session(
        work,
        work.output,
        command="stream",
        budget=work.budget,
        report_files=report_files,
        grace=stop.grace,
        signal_exit=None if control.signal_exit else False,
        observers=[
            *make_observers(
                monitor,
                work.budget,
                RunIdentity("stream", source, work.target),
                has_ledger=work.has_checkpoint,
            ),
            *servers,
        ],
    )
    raise typer.Exit(session.carry_out())


def _file_work(
    context: typer.Context,
    sources: "Sequence[str]",
    overrides: OverrideFlags,
    check: CheckFlags,
    options: "dict[str, Any]",
    *,
    commands: "CommandPolicy",
) -> "StreamWork | None":
    """Return the stream of the pipeline file that is the only source.

    None if the file is only checked. Raises UsageError, LockHeldError.
    """
    from asyncbatch.cli.command import print_note
    from asyncbatch.cli.options.file_job import file_job
    from asyncbatch.cli.stream_work import StreamWork
    from asyncbatch.errors import UsageError

    if len(sources) > 1:
        raise UsageError("a pipeline file names all its sources: give no other source")
    [path] = sources
    job = file_job(path, overrides.set, context, commands)
    if check.check:
        job.check_files(options["other_outputs"])
        if not options["output"].quiet:
            print_note(f"{path} is valid: {job}")
        return None
    return StreamWork(
        job.settings,
        job.sources(),
        job.delivery,
        late=job.late,
        dead_letter=job.dead_letter,
        **options,
    )


def _other_outputs(output: StreamOutputFlags, monitor: MonitorFlags) -> dict[str, str]:
    """Return the files that are written beside those of the delivery, by their options."""
    found = {f"--report {path}": path for path in output.report}
    if monitor.log_file is not None:
        found["--log-file"] = monitor.log_file
    return found


def _aggregates(texts: "Sequence[str]", *, simulated: bool) -> "tuple[Aggregate, ...]":
    from asyncbatch.windows.aggregates import parse_aggregate

    default = ("count", "sum:value", "avg:value") if simulated else ("count",)
    return tuple(map(parse_aggregate, texts or default))


def _transforms(jq: JqFlags, call: CallFlags, schema: SchemaFlags) -> "tuple[TransformSpec, ...]":
    """Return the checked transforms of the events. Raises UsageError."""
    if not (jq.jq or call.call or schema != SchemaFlags()):
        return ()
    from asyncbatch.cli.options.job import record_settings
    from asyncbatch.config.options.inputs import InputOptions
    from asyncbatch.core.settings import FileWorkSettings

    return record_settings(
        FileWorkSettings(), InputOptions(), jq=jq, call=call, schema=schema
    ).transforms


def _check_sources(sources: "Sequence[str]", simulator: SimulatorOptions) -> None:
    """Raise UsageError for an unusable source, or options of one that is not there."""
    from asyncbatch.cli.options.flags import flags
    from asyncbatch.errors import UsageError

    if SIMULATE not in sources and simulator != (default := SimulatorOptions()):
        given = (
            flag.names[0]
            for flag in flags(SimulatorOptions)
            if getattr(simulator, flag.field) != getattr(default, flag.field)
        )
        raise UsageError(f"{next(given)} works only with {SIMULATE}")
    for number, source in enumerate(sources):
        if source in sources[:number]:
            raise UsageError(f"{source} is given twice: name each source once")
        if ":" in source and not os.path.exists(source) and source != SIMULATE:
            raise UsageError(f"{source!r} is not a source: write '-', a file name, or 'simulate:'")


def _delivery_settings(
    target: StreamTargetFlags, control: StreamControlFlags
) -> "DeliverySettings":
    """Return the target of windows and the checkpoint. Raises UsageError."""
    from asyncbatch.errors import UsageError
    from asyncbatch.pipeline.stream.delivery import DeliverySettings

    if target.table is not None and target.to is None:
        raise UsageError("--table needs --to with a database")
    if target.csv_safe and target.to is None:
        raise UsageError("--csv-safe needs --to with a .csv or .tsv file")
    if control.checkpoint_every is not None and control.checkpoint is None:
        raise UsageError("--checkpoint-every needs --checkpoint")
    spans = {} if control.checkpoint_every is None else {"every": control.checkpoint_every}
    return DeliverySettings(
        target.to, target.table, control.checkpoint, csv_safe=target.csv_safe, **spans
    )


def _live_options(sources: "Sequence[str]", reading: PatternOptions) -> "LiveOptions":
    """Return the options for reading paths.

    Raises UsageError for an option without effect.
    """
    from asyncbatch.errors import UsageError
    from asyncbatch.sources.live.open import LiveOptions
    from asyncbatch.sources.selection import DEFAULT_PATTERNS, Selection

    if reading.follow and not any(one not in ("-", SIMULATE) for one in sources):
        raise UsageError("--follow works only with files and folders")
    if not any(map(os.path.isdir, sources)):
        for option, values in (("--pattern", reading.pattern), ("--exclude", reading.exclude)):
            if values:
                raise UsageError(f"{option} works only with folders")
    return LiveOptions(
        reading.follow,
        reading.from_end,
        Selection(reading.pattern or DEFAULT_PATTERNS, reading.exclude),
    )


def _open_source(source: str, options: "LiveOptions", simulator: SimulatorOptions) -> "LiveSource":
    if source != SIMULATE:
        from asyncbatch.sources.live.open import open_path

        return open_path(source, options)
    import time

    from asyncbatch.config.settings import simulator_of
    from asyncbatch.sources.live.simulator import SimulatedSource

    return SimulatedSource(source, simulator_of(simulator, time.time_ns() // 1000))
