"""The command `asyncbatch etl`: check and run a pipeline file."""

from typing import TYPE_CHECKING

import typer

from asyncbatch.cli.command import NotBegunError, print_note
from asyncbatch.cli.options import common as o
from asyncbatch.cli.options import etl as e
from asyncbatch.cli.options import ledger as again
from asyncbatch.cli.values import dask_settings, failure_budget

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from asyncbatch.config.pipeline_file.files import PipelineFile

EPILOG = """\
\b
Examples:
  asyncbatch init people.toml
  asyncbatch etl people.toml --check
  asyncbatch etl people.toml --dry-run
  asyncbatch etl people.toml --report report.json
  asyncbatch etl people.toml --set sink.to=sqlite:///test.db --check

Exit status: 0 all succeeded (or within --max-failures), 1 some input failed, 2 wrong usage or a
mistake in the file, 75 another run has the lock, 130/143 interrupted.
"""


def run_etl(
    file: e.File = None,
    *,
    set_: e.Set = None,
    only: e.Only = None,
    limit: e.Limit = None,
    full_refresh: e.FullRefresh = False,
    allow_duplicates: again.AllowDuplicates = False,
    check: e.Check = False,
    dry_run: e.DryRun = False,
    max_memory: o.MaxMemory = None,
    workers: o.Workers = None,
    timeout: o.Timeout = None,
    grace: o.Grace = 8.0,
    lock: o.Lock = None,
    lock_wait: o.LockWait = None,
    max_failures: o.MaxFailures = None,
    fail_fast: o.FailFast = False,
    show_failures: o.ShowFailures = "20",  # type: ignore[assignment]  # typer parses defaults too
    engine: o.Engine = "local",
    scheduler: o.Scheduler = None,
    print_schema: e.PrintSchema = False,
    output: o.Output = "text",
    report: o.Report = None,
    quiet: o.Quiet = False,
    verbose: e.Verbose = False,
    progress: o.Progress = True,
) -> None:
    """Run a pipeline file: load records from APIs and files into a target.

    The whole file is checked before anything runs. Inputs that are already done are skipped.
    """
    if print_schema:
        _print_schema()
        return
    if dry_run and (report or output in ("junit", "github")):
        raise typer.BadParameter("--dry-run has no results: leave out --report, junit and github")
    if lock_wait is not None and lock is None:
        raise typer.BadParameter("--lock-wait needs --lock")
    if file is None:
        raise typer.BadParameter("name a pipeline file, or create one with `asyncbatch init`")
    dask = dask_settings(engine, scheduler)
    pipeline = _load_pipeline(file, set_ or (), only)
    if check:
        if not quiet:
            print_note(f"{file} is valid: {_summary(pipeline)}")
        return
    options: dict[str, Any] = {
        "only": only, "limit": limit, "dry_run": dry_run, "reports": report or (),
        "full_refresh": full_refresh, "allow_duplicates": allow_duplicates,
        "workers": workers, "timeout": timeout, "max_memory": max_memory,
        "budget": failure_budget(max_failures, fail_fast=fail_fast), "dask": dask,
    }  # fmt: skip
    if lock is not None and not dry_run:
        _take_lock(
            lock, lock_wait or 0.0, pipeline, options, file=file, overrides=set_, quiet=quiet
        )
    raise typer.Exit(
        _run_pipeline(
            pipeline,
            options,
            {
                "form": output, "quiet": quiet, "verbose": verbose, "progress": progress,
                "show_failures": show_failures,
            },
            grace=grace,
        )
    )  # fmt: skip


def _run_pipeline(
    pipeline: "PipelineFile", options: "dict[str, Any]", display: "dict[str, Any]", *, grace: float
) -> int:
    """Run a pipeline and return the exit status.

    `options` holds arguments of `etl_job`, `display` those of `Output`.
    """
    from asyncbatch.cli.file_job import (
        etl_job,
        limit_notes,
    )
    from asyncbatch.cli.output import Output
    from asyncbatch.cli.report_files import ReportFile
    from asyncbatch.cli.session import Session
    from asyncbatch.core.report import MAX_LISTED_FAILURES
    from asyncbatch.errors import UsageError
    from asyncbatch.pipeline.run import Run

    try:
        job = etl_job(pipeline, tracebacks=display["verbose"], **options)
        report_files = [ReportFile(path, job.stores) for path in options["reports"]]
    except (UsageError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    to_stdout = job.target is not None and job.target.form == "stdout"
    if to_stdout and display["form"] != "text":
        raise typer.BadParameter(
            f"sink.to = '-' and --output {display['form']} both write to standard output"
        )
    if options["dry_run"]:
        from asyncbatch.cli.preview import PreviewOutput

        names = [source.name for source in job.sources]
        shown: Output = PreviewOutput(_destination(pipeline), names, job.limit or 0, **display)
    else:
        shown = Output(**display, stdout_is_taken=to_stdout)
    listed = max(MAX_LISTED_FAILURES, display["show_failures"])
    run = Run(job, watched=True, failure_limit=listed, say=shown.log)
    if job.limit is not None and job.target is not None and not options["dry_run"]:
        run.report.notes += limit_notes(job.target)
    return Session(
        run, shown, command="etl", budget=job.budget, report_files=report_files, grace=grace
    ).carry_out()


def _take_lock(
    lock: str,
    wait_s: float,
    pipeline: "PipelineFile",
    options: "dict[str, Any]",
    *,
    file: str,
    overrides: "Sequence[str] | None",
    quiet: bool,
) -> None:
    """Take the lock of a pipeline, or exit with the status for a held lock."""
    from asyncbatch.cli.command import take_lock
    from asyncbatch.core.secrets import redact_address
    from asyncbatch.errors import UsageError

    dead_letters = [pipeline.dead_letter.to] if pipeline.dead_letter else []
    destination = str(pipeline.sink.to)
    try:
        take_lock(
            lock,
            wait_s,
            inputs=[file],
            target=redact_address(destination),
            outputs=[destination, *dead_letters, *options["reports"]],
            options={"set": overrides, "only": options["only"]},
            quiet=quiet,
        )
    except (UsageError, OSError) as error:
        raise typer.BadParameter(str(error)) from None


def _load_pipeline(
    path: str, overrides: "Sequence[str]", only: "Sequence[str] | None"
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
        pipeline = load_pipeline_file(path, overrides)
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
