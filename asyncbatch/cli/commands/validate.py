"""The command `asyncbatch validate`: check whole documents against a JSON Schema."""

import typer

from asyncbatch.cli.command import config_files, open_reports, open_servers
from asyncbatch.cli.options.parameters import Paths
from asyncbatch.cli.options.values import failure_budget, memory_plan
from asyncbatch.config.options.control import (
    ConfigFlags,
    FailureFlags,
    MonitorFlags,
    RetryFlags,
    RunOutputFlags,
    StopFlags,
    WorkerFlags,
)
from asyncbatch.config.options.inputs import FileOptions
from asyncbatch.config.options.transforms import ValidateFlags

EPILOG = """\
\b
Examples:
  asyncbatch validate config/ --schema config.schema.json
  asyncbatch validate data/ --schema x.json -o github --report junit.xml
  asyncbatch validate in/ --schema x.json --ref https://example.com/a=copies/
  curl -s https://example.com/a.json | asyncbatch validate - --schema x.json

Exit status: 0 all documents fit (or within --max-failures), 1 some do not, 2 wrong usage or
nothing matched, 130/143 interrupted.
"""


def validate_files(
    context: typer.Context,
    paths: Paths = None,
    *,
    check: ValidateFlags,
    inputs: FileOptions,
    processes: WorkerFlags,
    stop: StopFlags,
    retries: RetryFlags,
    failures: FailureFlags,
    monitor: MonitorFlags,
    output: RunOutputFlags,
    config: ConfigFlags,  # noqa: ARG001 - read before the command runs
) -> None:
    """Check JSON documents against a JSON Schema.

    A document is a whole file, also if it is an array; in JSON Lines it is a line. Nothing is
    fetched: a reference to an address needs --ref. A failure is reported with its file, line,
    column, JSON Pointer and rule.
    """
    # Imported late so that --help stays fast.
    from asyncbatch.cli.options.job import parse_references
    from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
    from asyncbatch.config.settings import file_settings, inputs_of
    from asyncbatch.core.retry import Retries
    from asyncbatch.core.settings import Sizes
    from asyncbatch.errors import UsageError, error_reason
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.transforms.schema import load_schema

    try:
        retrying = Retries(retries.retries, retries.retry_delay)
        plan = memory_plan(
            processes.max_memory,
            processes.workers,
            needs_process=failures.timeout is not None,
            has_library=False,
        )
        files = file_settings(inputs, sizes=plan.sizes if plan else Sizes(), retries=retrying)
        source = load_schema(
            check.schema,
            check_formats=check.check_formats,
            check_content=check.check_content,
            copies=parse_references(check.ref),
        )
        settings = RecordWorkSettings(
            files,
            whole=True,
            transforms=(source,),
            letters=retries.dead_letter is not None,
            tracebacks=output.verbose,
        )
        job = Job(
            (FileSource(inputs_of(inputs, paths or (), retrying), settings, inputs.allow_empty),),
            workers=processes.workers,
            budget=failure_budget(failures.max_failures, fail_fast=failures.fail_fast),
            dead_letter=retries.dead_letter,
            reports=output.report,
            log_file=monitor.log_file,
            reads=config_files(context),
            timeout=failures.timeout,
            most_workers=plan.workers if plan else None,
        )
        launch = Launch(job)
        launch.prepare()
        report_files = open_reports(output.report, files.stores)
        servers = open_servers(monitor, "validate")
        launch.start(may_fork=True)
    except (UsageError, OSError) as error:
        raise typer.BadParameter(error_reason(error)) from None

    # Imported after the launch, while the workers start.
    from asyncbatch.cli.observers.start import RunIdentity, make_observers
    from asyncbatch.cli.output import Output
    from asyncbatch.cli.session import run_job

    lists = [inputs.files_from] if inputs.files_from else []
    identity = RunIdentity(
        "validate",
        [*(paths or ()), *lists],
        options={
            "schema": check.schema,
            "pattern": inputs.pattern,
            "exclude": inputs.exclude,
            "shard": inputs.shard,
        },
    )
    shown = Output(output, reads_stdin=job.reads_stdin)
    observers = make_observers(monitor, job.budget, identity, has_ledger=False)
    code = run_job(
        job, shown, command="validate", report_files=report_files, grace=stop.grace,
        launch=launch, observers=[*observers, *servers],
    )  # fmt: skip
    raise typer.Exit(code)
