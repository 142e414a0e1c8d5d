"""The command `asyncbatch stream`: convert its options to a stream and run it."""

import os
from typing import TYPE_CHECKING

import typer

from asyncbatch.cli.options import common as o
from asyncbatch.cli.options import stream as s
from asyncbatch.cli.options import target as t
from asyncbatch.cli.options import transforms as r
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.cli.values import failure_budget, split_all_fields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.pipeline.stream.delivery import DeliverySettings
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.sources.live.open import LiveOptions
    from asyncbatch.transforms.spec import TransformSpec

EPILOG = """\
\b
Examples:
  asyncbatch stream simulate: --duration 15s
  tail -F app.log | asyncbatch stream - --time timestamp --by event_type
  asyncbatch stream app.log --follow --idle-timeout 10s
  asyncbatch stream eu.jsonl us.jsonl incoming/ --window tumbling:1m --max-keys 500
  asyncbatch stream events.jsonl --window hopping:1m/10s --agg p95:latency --lateness 2s
  asyncbatch stream events.jsonl --window session:30s --by user_id --late late.jsonl
  asyncbatch stream shop.toml --check

On a terminal it shows a table. Elsewhere it prints a line of JSON for each window and key, as soon
as the window closes. Ctrl-C, SIGTERM and the end of the input stop it cleanly: it prints the open
windows and exits 0.
"""

SIMULATE = "simulate:"


def stream_events(
    context: typer.Context,
    source: s.Source,
    *,
    set_: s.Set = None,
    follow: s.Follow = False,
    from_end: s.FromEnd = False,
    pattern: o.Pattern = None,
    window: s.Window = "tumbling:5s",
    time: s.Time = "timestamp",
    time_unit: s.TimeUnit = "auto",
    by: s.By = None,
    agg: s.Agg = None,
    lateness: s.Lateness = "0",
    idle_timeout: s.IdleTimeout = None,
    max_keys: s.MaxKeys = 100_000,
    overflow_key: s.OverflowKey = None,
    jq: r.Jq = None,
    jq_env: r.JqEnv = False,
    jq_lossy: r.JqLossy = False,
    call: r.Call = None,
    call_concurrency: r.CallConcurrency = 100,
    schema: r.Schema = None,
    check_formats: r.CheckFormats = False,
    check_content: r.CheckContent = False,
    max_failures: s.MaxFailures = None,
    max_future: s.MaxFuture = None,
    timeout: s.Timeout = None,
    late: s.Late = None,
    dead_letter: s.DeadLetter = None,
    workers: s.Workers = None,
    duration: s.Duration = None,
    max_events: s.MaxEvents = None,
    rate: s.Rate = 10.0,
    seed: s.Seed = None,
    users: s.Users = 1000,
    types: s.Types = None,
    to: s.Target = None,
    table: s.Table = None,
    csv_safe: t.CsvSafe = False,
    checkpoint: s.Checkpoint = None,
    checkpoint_every: s.CheckpointEvery = None,
    check: s.Check = False,
    print_schema: s.PrintSchema = False,  # noqa: ARG001 - its callback prints and exits
    report: s.Report = None,
    quiet: s.Quiet = False,
) -> None:
    """Aggregate events in time windows: counts, sums, averages, percentiles.

    Windows follow the time of the events, so a replay gives the same windows. Late and invalid
    events are counted, never lost silently.
    """
    if any(one.endswith(".toml") for one in source):
        _run_pipeline_file(
            context,
            source,
            set_ or (),
            check=check,
            max_events=max_events,
            duration=duration,
            budget=max_failures,
            workers=workers,
            call_concurrency=call_concurrency,
            timeout=timeout,
            reports=report or (),
            quiet=quiet,
        )
        return
    if set_ or check:
        raise typer.BadParameter("--set and --check need a pipeline file: FILE.toml")
    from asyncbatch.cli import exit_codes
    from asyncbatch.cli.stream_session import StreamSession
    from asyncbatch.config.job import StreamSettings
    from asyncbatch.errors import (
        LockHeldError,
        UsageError,
    )

    try:
        transforms = _transforms(
            jq, call, schema, jq_env=jq_env, jq_lossy=jq_lossy,
            check_formats=check_formats, check_content=check_content,
        )  # fmt: skip
        settings = StreamSettings(
            window=window,  # type: ignore[arg-type]  # typer parses it, and the spans below
            aggregates=_aggregates(agg, simulated=source == [SIMULATE]),
            by=split_all_fields(by or (["event_type"] if source == [SIMULATE] else [])),
            time=None if time == "arrival" else time,
            unit=time_unit,
            lateness=lateness,  # type: ignore[arg-type]  # see above
            idle=idle_timeout,  # type: ignore[arg-type]  # see above
            max_future=max_future,  # type: ignore[arg-type]  # see above
            max_keys=max_keys,
            overflow_key=overflow_key,
            transforms=transforms,
            letters=dead_letter is not None,
        )
        _check_options(settings, source, late)
        reading = _live_options(source, pattern, follow=follow, from_end=from_end)
        session = StreamSession(
            settings,
            [
                _open_source(one, reading, rate=rate, seed=seed, users=users, types=types)
                for one in source
            ],
            late=late,
            dead_letter=dead_letter,
            max_events=max_events,
            duration=duration,  # type: ignore[arg-type]  # see above
            budget=failure_budget(max_failures),
            workers=workers,
            call_concurrency=call_concurrency,
            timeout=timeout,
            quiet=quiet,
            delivery=_delivery_settings(to, table, checkpoint, checkpoint_every, csv_safe=csv_safe),
            reports=report or (),
        )
    except LockHeldError as error:
        to_stderr(f"Error: {error}")
        raise typer.Exit(exit_codes.LOCKED) from None
    except (UsageError, ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    code = session.carry_out()
    raise typer.Exit(code)


def _run_pipeline_file(
    context: typer.Context,
    sources: "Sequence[str]",
    overrides: "Sequence[str]",
    *,
    check: bool,
    budget: str | None,
    quiet: bool,
    **control: "Any",
) -> None:
    """Run the pipeline file that is the only source. With `check`, only check it."""
    from asyncbatch.cli import exit_codes
    from asyncbatch.cli.command import print_note
    from asyncbatch.cli.file_job import file_job
    from asyncbatch.cli.stream_session import StreamSession
    from asyncbatch.errors import (
        LockHeldError,
        UsageError,
    )

    if len(sources) > 1:
        raise typer.BadParameter("a pipeline file names all its sources: give no other source")
    [path] = sources
    try:
        job = file_job(path, overrides, context)
        if check:
            if not quiet:
                print_note(f"{path} is valid: {job}")
            return
        session = StreamSession(
            job.settings,
            job.sources(),
            late=job.late,
            dead_letter=job.dead_letter,
            delivery=job.delivery,
            budget=failure_budget(budget),
            quiet=quiet,
            **control,
        )
    except LockHeldError as error:
        to_stderr(f"Error: {error}")
        raise typer.Exit(exit_codes.LOCKED) from None
    except (UsageError, ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(session.carry_out())


def _aggregates(agg: "list[str] | None", *, simulated: bool) -> tuple:  # type: ignore[type-arg]  # typer has parsed the items
    from asyncbatch.windows.aggregates import parse_aggregate

    if agg:
        return tuple(agg)
    names = ["count", "sum:value", "avg:value"] if simulated else ["count"]
    return tuple(map(parse_aggregate, names))


def _transforms(
    jq: "list[str] | None",
    call: "list[str] | None",
    schema: str | None,
    *,
    jq_env: bool,
    jq_lossy: bool,
    check_formats: bool,
    check_content: bool,
) -> "tuple[TransformSpec, ...]":
    """Return the checked transforms of the events. Raises UsageError."""
    if not (jq or call or schema):
        if check_formats or check_content:
            option = "--check-formats" if check_formats else "--check-content"
            raise typer.BadParameter(f"{option} needs --schema")
        return ()
    from asyncbatch.cli.job import record_settings
    from asyncbatch.core.settings import FileWorkSettings

    names = ("table", "key", "mode", "schema_contract", "override_identity", "columns")
    no_target = dict.fromkeys((*names, "csv_safe", "null_value", "nested", "root"))
    settings = record_settings(
        FileWorkSettings(),
        unit="record",
        jq=jq,
        jq_env=jq_env,
        jq_lossy=jq_lossy,
        call=call,
        schema=schema,
        check_formats=check_formats,
        check_content=check_content,
        dedupe=None,
        to=None,
        to_format="keep",
        to_compression="keep",
        **no_target,
    )
    return settings.transforms


def _check_options(settings: "StreamSettings", sources: list[str], late: str | None) -> None:
    """Raise UsageError for an option without effect, or an unusable source."""
    from asyncbatch.errors import UsageError

    for name, reason in settings.contradictions(has_late=late is not None):
        raise UsageError(f"--{name.replace('_', '-')} {reason}")
    for number, source in enumerate(sources):
        if source in sources[:number]:
            raise UsageError(f"{source} is given twice: name each source once")
        if ":" in source and not os.path.exists(source) and source != SIMULATE:
            raise UsageError(f"{source!r} is not a source: write '-', a file name, or 'simulate:'")


def _delivery_settings(
    to: str | None,
    table: str | None,
    checkpoint: str | None,
    every: str | None,
    *,
    csv_safe: bool,
) -> "DeliverySettings":
    """Return the target of windows and the checkpoint. Raises UsageError."""
    from asyncbatch.errors import UsageError
    from asyncbatch.pipeline.stream.delivery import DeliverySettings

    if table is not None and to is None:
        raise UsageError("--table needs --to with a database")
    if csv_safe and to is None:
        raise UsageError("--csv-safe needs --to with a .csv or .tsv file")
    if every is not None and checkpoint is None:
        raise UsageError("--checkpoint-every needs --checkpoint")
    spans = {} if every is None else {"every": every}
    return DeliverySettings(to, table, checkpoint, csv_safe=csv_safe, **spans)  # type: ignore[arg-type]  # typer parses it


def _live_options(
    sources: list[str], pattern: "list[str] | None", *, follow: bool, from_end: bool
) -> "LiveOptions":
    """Return the options for reading paths.

    Raises UsageError for an option without effect.
    """
    from asyncbatch.errors import UsageError
    from asyncbatch.sources.live.open import LiveOptions
    from asyncbatch.sources.selection import Selection

    if follow and not any(one not in ("-", SIMULATE) for one in sources):
        raise UsageError("--follow works only with files and folders")
    if pattern and not any(map(os.path.isdir, sources)):
        raise UsageError("--pattern works only with folders")
    selection = Selection(tuple(pattern)) if pattern else Selection()
    return LiveOptions(follow, from_end, selection)


def _open_source(
    source: str,
    reading: "LiveOptions",
    *,
    rate: float,
    seed: int | None,
    users: int,
    types: str | None,
) -> "LiveSource":
    if source != SIMULATE:
        from asyncbatch.sources.live.open import open_path

        return open_path(source, reading)
    import time

    from asyncbatch.cli.generate import type_names
    from asyncbatch.sources.live.simulator import (
        SimulatedSource,
        Simulator,
    )

    start = time.time_ns() // 1000
    return SimulatedSource(
        source,
        Simulator(start, rate=rate, seed=seed, users=users, types=type_names(types)),
    )
