"""The command `asyncbatch etl`: check and run a pipeline file."""

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import asdict

from asyncbatch.cli.command import (
    config_files,
    open_reports,
    open_servers,
    print_note,
    refuse_results,
)
from asyncbatch.cli.options.usage import NotBegunError
from asyncbatch.cli.options.values import (
    command_policy,
    dask_settings,
    failure_budget,
    replacing_flags,
)
from asyncbatch.config.options.control import (
    ClusterFlags,
    ConfigFlags,
    FailureFlags,
    LockFlags,
    MonitorFlags,
    RunOutputFlags,
    StopFlags,
    WorkerFlags,
)
from asyncbatch.config.options.pipelines import (
    CheckFlags,
    EtlFlags,
    OverrideFlags,
    ReplaceFlags,
)
from asyncbatch.config.options.watching import WatchFlags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from asyncbatch.cli.observers.base import RunObserver
    from asyncbatch.cli.report_files import ReportFile
    from asyncbatch.config.job import Job
    from asyncbatch.config.pipeline_file.files import PipelineFile
    from asyncbatch.config.secret_sources import CommandPolicy

File = Annotated[
    str | None,
    typer.Argument(metavar="FILE", help="The pipeline file; `asyncbatch init` creates one."),
]
PrintSchema = Annotated[
    bool,
    typer.Option(
        "--print-schema",
        help="Print the JSON Schema of pipeline files.",
        rich_help_panel="Output",
        show_envvar=False,
    ),
]

EPILOG = """\
\b
Examples:
  asyncbatch init people.toml
  asyncbatch etl people.toml --check
  asyncbatch etl people.toml --dry-run
  asyncbatch etl people.toml --report report.json
  asyncbatch etl people.toml --to sqlite:///test.db --table people
  asyncbatch etl people.toml --set source.0.timeout=5 --check

Exit status: 0 all succeeded (or within --max-failures), 1 some input failed, 2 wrong usage or a
mistake in the file, 75 another run has the lock, 130/143 interrupted.
"""


def run_etl(
    context: typer.Context,
    file: File = None,
    *,
    overrides: OverrideFlags,
    sources: EtlFlags,
    replaced: ReplaceFlags,
    check: CheckFlags,
    watching: WatchFlags,
    processes: WorkerFlags,
    stop: StopFlags,
    cluster: ClusterFlags,
    lock: LockFlags,
    failures: FailureFlags,
    monitor: MonitorFlags,
    print_schema: PrintSchema = False,
    output: RunOutputFlags,
    config: ConfigFlags,
) -> None:
    """Run a pipeline file: load APIs and files into a target.

    The whole file is checked before anything runs. Inputs that are already done are skipped.
    """
    if print_schema:
        _print_schema()
        return
    if sources.dry_run:
        refuse_results(output)
    if sources.resume and sources.full_refresh:
        raise typer.BadParameter(
            "--resume skips inputs that are done, --full-refresh reads all again: choose one"
        )
    if file is None:
        raise typer.BadParameter("name a pipeline file, or create one with `asyncbatch init`")
    dask = dask_settings(cluster.engine, cluster.scheduler)
    flags = replacing_flags(asdict(replaced), overrides.set)
    pipeline = _load_pipeline(file, overrides.set, flags, sources.only, command_policy(config))
    if check.check:
        if not output.quiet:
            print_note(f"{file} is valid: {_summary(pipeline)}")
        return
    budget = failure_budget(failures.max_failures, fail_fast=failures.fail_fast)
    if lock.lock is not None and not sources.dry_run:
        _take_lock(
            lock.lock,
            lock,
            pipeline,
            file=file,
            overrides=overrides,
            replaced=replaced,
            sources=sources,
            outputs=[*output.report, *([monitor.log_file] if monitor.log_file else ())],
            quiet=output.quiet,
        )

    from asyncbatch.cli.observers.start import RunIdentity, make_observers, target_name
    from asyncbatch.cli.options.file_job import etl_job
    from asyncbatch.errors import UsageError, error_reason

    try:
        watch = None
        if watching != WatchFlags():
            from asyncbatch.cli.options.watching import watch_settings

            watch = watch_settings(
                watching,
                {
                    "--dry-run": sources.dry_run, "--max-records": sources.limit,
                    "--full-refresh": sources.full_refresh, "--engine dask": dask,
                },
            )  # fmt: skip
        job = etl_job(
            pipeline,
            sources,
            processes,
            reports=output.report,
            log_file=monitor.log_file,
            reads=(file, *config_files(context)),
            tracebacks=output.verbose,
            timeout=failures.timeout,
            budget=budget,
            dask=dask,
            watch=watch,
        )
        report_files = open_reports(output.report, job.stores)
        servers = (
            []
            if sources.dry_run
            else open_servers(monitor, "etl", metrics_port=watching.metrics_port)
        )
    except (UsageError, OSError) as error:
        raise typer.BadParameter(error_reason(error)) from None
    identity = RunIdentity(
        "etl", [file], target_name(job), {"only": sources.only}, title=pipeline.name
    )
    observers = [
        *make_observers(monitor, budget, identity, has_ledger=job.ledger is not None),
        *servers,
    ]
    if sources.dry_run:
        observers = []
    raise typer.Exit(
        _run(job, pipeline, sources, output, report_files, observers=observers, grace=stop.grace)
    )


def _run(
    job: "Job",
    pipeline: "PipelineFile",
    sources: EtlFlags,
    output: RunOutputFlags,
    report_files: "list[ReportFile]",
    *,
    observers: "Sequence[RunObserver]",
    grace: float,
) -> int:
    """Run the job of a pipeline and return the exit status."""
    from asyncbatch.cli.options.file_job import limit_notes
    from asyncbatch.cli.output import Output
    from asyncbatch.cli.session import run_job

    to_stdout = job.target is not None and job.target.form == "stdout"
    if to_stdout and output.output != "text":
        raise typer.BadParameter(
            f"sink.to = '-' and --output {output.output} both write to standard output: choose one"
        )
    if sources.dry_run:
        from asyncbatch.cli.display.preview import PreviewOutput

        names = [source.name for source in job.sources]
        shown: Output = PreviewOutput(_destination(pipeline), names, job.limit or 0, output)
    else:
        from asyncbatch.cli.display.prints import capture_prints

        work = job.record_work
        shown = Output(
            output,
            stdout_is_taken=to_stdout,
            reads_stdin=job.reads_stdin,
            prints=capture_prints(output, work.transforms if work else ()),
        )
    notes = []
    if job.limit is not None and job.target is not None and not sources.dry_run:
        notes = limit_notes(job.target)
    return run_job(
        job, shown, command="etl", report_files=report_files, grace=grace, notes=notes,
        watched=True, observers=observers,
    )  # fmt: skip


def _take_lock(
    path: str,
    lock: LockFlags,
    pipeline: "PipelineFile",
    *,
    file: str,
    overrides: OverrideFlags,
    replaced: ReplaceFlags,
    sources: EtlFlags,
    outputs: "Sequence[str]",
    quiet: bool,
) -> None:
    """Take the lock of a pipeline, or exit with the status for a held lock."""
    from asyncbatch.cli.command import take_lock
    from asyncbatch.core.secrets import redact_address
    from asyncbatch.errors import UsageError, error_reason

    dead_letters = [pipeline.dead_letter.to] if pipeline.dead_letter else []
    destination = str(pipeline.sink.to)
    table = [] if replaced.table is None else [f"sink.table={replaced.table}"]
    try:
        take_lock(
            path,
            lock.lock_wait or 0.0,
            inputs=[file],
            target=redact_address(destination),
            outputs=[pipeline.sink.to.reveal(), *dead_letters, *outputs],
            options={"set": [*overrides.set, *table] or None, "only": list(sources.only) or None},
            quiet=quiet,
        )
    except (UsageError, OSError) as error:
        raise typer.BadParameter(error_reason(error)) from None


def _load_pipeline(
    path: str,
    overrides: "Sequence[str]",
    flags: "Mapping[str, Any]",
    only: "Sequence[str]",
    commands: "CommandPolicy",
) -> "PipelineFile":
    """Return the checked pipeline file. Exit with status 2 if it has mistakes."""
    from asyncbatch.cli.terminal import separate_results, to_stderr
    from asyncbatch.config.pipeline_file.load import load_pipeline_file
    from asyncbatch.errors import (
        PipelineFileError,
        UsageError,
    )

    try:
        separate_results()  # an imported user module may print, and its prints are not results
        pipeline = load_pipeline_file(path, overrides, commands=commands, **flags)
        if only:
            pipeline.only(only)
    except PipelineFileError as error:
        to_stderr(f"Error: {error}")
        raise NotBegunError(str(error)) from None
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    return pipeline


def _summary(pipeline: "PipelineFile") -> str:
    from asyncbatch.core.units import format_count

    sources = format_count(len(pipeline.sources), "source")
    transforms = format_count(len(pipeline.transforms), "transform")
    names = ", ".join(pipeline.source_names())
    return f"{sources} ({names}), {transforms}, into {_destination(pipeline)}"


def _destination(pipeline: "PipelineFile") -> str:
    """Return the sink as text, with the table if it has one."""
    sink = pipeline.sink
    return f"{sink.table} of {sink.to}" if sink.table else str(sink.to)


def _print_schema() -> None:
    import json

    from asyncbatch.config.pipeline_file.check import pipeline_schema

    print_note(json.dumps(pipeline_schema(), indent=2))
