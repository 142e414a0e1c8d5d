"""The command `asyncbatch run`: convert its options to a Job and run it."""

from typing import TYPE_CHECKING

import typer
from msgspec.structs import replace

from asyncbatch.cli.command import (
    config_files,
    is_typed,
    open_reports,
    open_servers,
    refuse_results,
    take_lock,
)
from asyncbatch.cli.options.parameters import Paths
from asyncbatch.cli.options.values import dask_settings, failure_budget, has_library, memory_plan
from asyncbatch.config.options.aggregates import AggregateFlags
from asyncbatch.config.options.control import (
    BatchFlags,
    ClusterFlags,
    ConfigFlags,
    FailureFlags,
    LockFlags,
    MonitorFlags,
    RetryFlags,
    RunOutputFlags,
    StopFlags,
    WorkerFlags,
)
from asyncbatch.config.options.inputs import InputOptions, ReplayOptions
from asyncbatch.config.options.target import LedgerFlags, TargetFlags
from asyncbatch.config.options.transforms import CallFlags, DedupeFlags, JqFlags, SchemaFlags
from asyncbatch.config.options.watching import WatchFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asyncbatch.cli.display.prints import Prints
    from asyncbatch.cli.output import Output
    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.settings import FileWorkSettings, LedgerSettings
    from asyncbatch.sinks.groups import GroupRows
    from asyncbatch.workers.engine import Work

EPILOG = """\
\b
Examples:
  asyncbatch run exports/
  asyncbatch run exports/ --schema user.schema.json --dead-letter bad.jsonl
  asyncbatch run exports/ --jq 'select(.active) | {id}' --to active.jsonl
  asyncbatch run exports/ --by address.city --agg count,max:id
  asyncbatch run exports/ --call clean.py:clean --to cleaned/
  asyncbatch run exports/ --to sqlite:///u.db --table users --key id
  asyncbatch run exports/ --to users.csv --dead-letter bad.jsonl
  asyncbatch run inbox/ --watch --to sqlite:///u.db --table users --key id
  asyncbatch run --from-dead-letter bad.jsonl --to again.csv --allow-empty

Exit status: 0 all succeeded (or within --max-failures), 1 some input failed, 2 wrong usage or
nothing matched, 75 another run has the lock, 130/143 interrupted. Each option can also be set by
an environment variable: ASYNCBATCH_RUN_BATCH_SIZE sets --batch-size.
"""


def run_files(
    context: typer.Context,
    paths: Paths = None,
    *,
    inputs: InputOptions,
    replay: ReplayOptions,
    jq: JqFlags,
    call: CallFlags,
    schema: SchemaFlags,
    dedupe: DedupeFlags,
    aggregates: AggregateFlags,
    target: TargetFlags,
    ledger: LedgerFlags,
    watching: WatchFlags,
    batches: BatchFlags,
    processes: WorkerFlags,
    stop: StopFlags,
    cluster: ClusterFlags,
    lock: LockFlags,
    retries: RetryFlags,
    failures: FailureFlags,
    monitor: MonitorFlags,
    output: RunOutputFlags,
    config: ConfigFlags,  # noqa: ARG001 - read before the command runs
) -> None:
    """Process many JSON files at once, and report each failure.

    Files are read in concurrent batches, which bound memory. A record is an element of a top-level
    array, a line of JSON Lines, or else the whole document. Records can be transformed, checked and
    written to files or tables. A failure is reported with its file, line, column and reason.
    """
    # Imported late so that --help stays fast. Modules that the launch does not need come later.
    from asyncbatch.config.job import FileSource, Job
    from asyncbatch.config.settings import file_settings, inputs_of
    from asyncbatch.core.retry import Retries
    from asyncbatch.core.settings import Sizes
    from asyncbatch.errors import UsageError, error_reason
    from asyncbatch.pipeline.launch import Launch

    dry_run = batches.dry_run
    if dry_run:
        refuse_results(output)
    if target.to == "-" and output.output != "text":
        raise typer.BadParameter(
            f"--to - and --output {output.output} both write to standard output: choose one"
        )
    if inputs.shard is not None and replay.from_dead_letter is not None:
        raise typer.BadParameter(
            "--shard divides files, and a --from-dead-letter file holds the records of many "
            "files: give each shard its own --dead-letter, and run each of them again"
        )
    if batches.pause and (batches.concurrency or 1) > 1 and is_typed(context, "concurrency"):
        raise typer.BadParameter("--pause runs one batch at a time: leave out --concurrency")
    dask = dask_settings(cluster.engine, cluster.scheduler)
    try:
        watch = None
        if watching != WatchFlags():
            from asyncbatch.cli.options.watching import watch_settings

            watch = watch_settings(
                watching,
                {
                    "--dry-run": dry_run, "--files-from": inputs.files_from,
                    "--from-dead-letter": replay.from_dead_letter, "--limit": inputs.limit,
                    "--retry-failed": ledger.retry_failed, "--force": ledger.force,
                    "--engine dask": dask,
                    "--to - (standard output does not keep its records: write to a folder or a "
                    "database)": target.to == "-",
                },
            )  # fmt: skip
            ledger = replace(ledger, resume=True)
        # before any input is read: another run may change it
        if lock.lock is not None and not dry_run:
            from asyncbatch.core.secrets import redact_address

            lists = [path for path in (inputs.files_from, replay.from_dead_letter) if path]
            take_lock(
                lock.lock,
                lock.lock_wait or 0.0,
                inputs=[*(paths or ()), *lists],
                target=None if target.to is None else redact_address(target.to),
                outputs=[
                    path
                    for path in (
                        target.to, retries.dead_letter, *output.report, ledger.ledger,
                        monitor.log_file,
                    )
                    if path
                ],
                options={
                    "pattern": _listed(inputs.pattern), "exclude": _listed(inputs.exclude),
                    "shard": inputs.shard, "records": inputs.records, "unit": inputs.unit,
                    "jq": _listed(jq.jq), "call": _listed(call.call), "schema": schema.schema,
                    "table": target.table,
                },
                quiet=output.quiet,
            )  # fmt: skip
        retrying = Retries(retries.retries, retries.retry_delay)
        plan = memory_plan(
            processes.max_memory,
            processes.workers if dask is None else 0,  # a cluster's workers have their own limits
            needs_process=bool(jq.jq or call.call or failures.timeout) and dask is None,
            has_library=has_library(target.to),
        )
        files = file_settings(
            inputs,
            sizes=plan.sizes if plan else Sizes(),
            retries=retrying,
            read_ahead=batches.read_ahead,
        )
        named, settings = _work(
            tuple(paths or ()),
            files,
            inputs,
            replay=replay,
            jq=jq,
            call=call,
            schema=schema,
            dedupe=dedupe,
            target=target,
            aggregates=aggregates,
            letters=retries.dead_letter is not None,
            tracebacks=output.verbose,
        )
        rows = _shown_rows(aggregates, target, ledger if watch is None else None, output)
        job = Job(
            (
                FileSource(
                    inputs_of(inputs, named, retrying),
                    files if dry_run else settings,
                    inputs.allow_empty or watch is not None,
                ),
            ),
            batches.batch_size,
            batches.concurrency,
            0 if dry_run else processes.workers,
            batches.pause,
            failure_budget(failures.max_failures, fail_fast=failures.fail_fast),
            target.batch_size,
            ordered=not target.unordered,
            dead_letter=None if dry_run else retries.dead_letter,
            reports=output.report,
            log_file=monitor.log_file,
            reads=config_files(context),
            ledger=None if dry_run else _ledger_settings(settings, ledger, inputs.root),
            timeout=None if dry_run else failures.timeout,
            most_workers=plan.workers if plan else None,
            dask=None if dry_run else dask,
            watch=watch,
            sink=rows,
        )
        launch = Launch(job)
        launch.prepare()
        report_files = open_reports(output.report, files.stores)
        servers = (
            [] if dry_run else open_servers(monitor, "run", metrics_port=watching.metrics_port)
        )
        prints = _capture_prints(output, settings) if call.call else None
        launch.start(may_fork=True)
    except (UsageError, OSError) as error:
        raise typer.BadParameter(error_reason(error)) from None

    # Imported after the launch, while the workers start.
    from asyncbatch.cli.observers.start import RunIdentity, make_observers, target_name
    from asyncbatch.cli.session import run_job

    lists = [path for path in (inputs.files_from, replay.from_dead_letter) if path]
    identity = RunIdentity(
        "run",
        [*(paths or ()), *lists],
        target_name(job),
        {"pattern": inputs.pattern, "exclude": inputs.exclude, "shard": inputs.shard},
    )
    observers = [
        *make_observers(monitor, job.budget, identity, has_ledger=job.ledger is not None),
        *servers,
    ]
    shown, work = _shown_output(
        output, rows, dry_run=dry_run, stdout_is_taken=target.to == "-",
        reads_stdin=job.reads_stdin, prints=prints,
    )  # fmt: skip
    _warn_about_unit(schema.schema, settings, named, shown)
    code = run_job(
        job, shown, command="run", report_files=report_files, grace=stop.grace, launch=launch,
        work=work, observers=() if dry_run else observers,
    )  # fmt: skip
    raise typer.Exit(code)


def _shown_rows(
    aggregates: AggregateFlags,
    target: TargetFlags,
    ledger: LedgerFlags | None,
    output: RunOutputFlags,
) -> "GroupRows | None":
    """Return the sink of aggregates that are shown, or None. Raises UsageError."""
    if aggregates == AggregateFlags():
        return None
    from asyncbatch.config.aggregates import refuse_ledger

    if ledger is not None:
        refuse_ledger(ledger)
    if target.to is not None:
        return None
    from asyncbatch.errors import UsageError
    from asyncbatch.sinks.groups import GroupRows

    if output.output not in ("text", "json", "jsonl"):
        raise UsageError(
            f"--output {output.output} has no place for the result of --by and --agg: write it "
            "with --to, or print it as text, json or jsonl"
        )
    return GroupRows(aggregates.by)


def _capture_prints(output: RunOutputFlags, settings: "Any") -> "Prints | None":
    from asyncbatch.cli.display.prints import capture_prints

    return capture_prints(output, settings.transforms)


def _listed(values: "Sequence[str] | None") -> "list[str] | None":
    """Return values as the lock's name has always had them."""
    return list(values) if values else None


def _work(
    paths: "tuple[str, ...]", files: "FileWorkSettings", inputs: InputOptions, **work: "Any"
) -> "tuple[tuple[str, ...], Any]":
    """Return the inputs and the settings of the work on them. Raises UsageError.

    `work` holds arguments of `record_settings`. Without any, files are only counted.
    """
    if (
        inputs.records is None
        and inputs.unit == "record"
        and all(one is False or one == type(one)() for one in work.values())
    ):
        return paths, files
    from asyncbatch.cli.options.job import input_paths, record_settings

    settings = record_settings(files, inputs, **work)
    return input_paths(paths, settings), settings


def _warn_about_unit(
    schema: str | None, settings: "Any", paths: "Sequence[str]", shown: "Output"
) -> None:
    """Warn about a schema that no record can fit."""
    if schema is None:
        return
    from asyncbatch.cli.options.job import unit_warning

    if warning := unit_warning(settings, paths):
        shown.log(warning)


def _ledger_settings(
    settings: "FileWorkSettings | RecordWorkSettings", flags: LedgerFlags, root: str | None
) -> "LedgerSettings | None":
    """Return the settings of the ledger, or None without one. Raises UsageError."""
    target = getattr(settings, "target", None)
    if target is not None and target.groups is not None:
        return None
    if target is None and flags == LedgerFlags(identity=flags.identity):
        return None
    from asyncbatch.config.ledger import ledger_settings

    return ledger_settings(settings, flags, root)


def _shown_output(
    output: RunOutputFlags, rows: "GroupRows | None", *, dry_run: bool, **more: "Any"
) -> "tuple[Output, Callable[[Any], Work] | None]":
    """Return the output, and the work if it is not that of the job."""
    if dry_run:
        from asyncbatch.cli.display.preview import PlanOutput
        from asyncbatch.workers.tasks.count import PlanTask

        return PlanOutput(output, **more), PlanTask
    if rows is not None:
        from asyncbatch.cli.display.group_output import GroupOutput

        return GroupOutput(output, rows=rows, **more), None
    from asyncbatch.cli.output import Output

    return Output(output, **more), None
