"""The command `asyncbatch profile`: show the fields of records. Also the run that profiles them."""

from typing import TYPE_CHECKING

import typer

from asyncbatch.cli.command import open_reports
from asyncbatch.cli.options.parameters import Paths
from asyncbatch.cli.options.values import dask_settings, failure_budget, memory_plan
from asyncbatch.config.options.control import ClusterFlags, FailureFlags, StopFlags, WorkerFlags
from asyncbatch.config.options.inputs import InputOptions
from asyncbatch.config.options.profiles import ProfileFlags, ProfileOutputFlags
from asyncbatch.core.settings import ProfileSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.cli.display.profile_output import MergingOutput
    from asyncbatch.config.options.control import OutputFlags

EPILOG = """\
\b
Examples:
  asyncbatch profile exports/
  asyncbatch profile exports/ --redact -o json > profile.json
  asyncbatch profile exports/ --report profile.html
  asyncbatch profile responses/ --records /data/items

Exit status: 0 all files were read (or within --max-failures), 1 some input failed, 2 wrong usage
or nothing matched, 130/143 interrupted.
"""


def profile_files(
    paths: Paths = None,
    *,
    profile: ProfileFlags,
    inputs: InputOptions,
    processes: WorkerFlags,
    cluster: ClusterFlags,
    stop: StopFlags,
    failures: FailureFlags,
    output: ProfileOutputFlags,
) -> None:
    """Show the fields of records: types, values, formats, and files that differ.

    One pass over a folder counts how often a field is present and null, and how many different
    values it has. It also finds the smallest and largest values, and the fields that could be
    a key.
    """

    def make_output() -> "MergingOutput":
        from asyncbatch.cli.display.profile_output import ProfileOutput

        return ProfileOutput(output, profile)

    code = run_profile(
        "profile", paths or (), make_output, inputs=inputs, processes=processes, cluster=cluster,
        stop=stop, failures=failures, output=output, settings=ProfileSettings(profile.max_fields),
    )  # fmt: skip
    raise typer.Exit(code)


def run_profile(
    command: str,
    paths: "Sequence[str]",
    make_output: "Callable[[], MergingOutput]",
    *,
    inputs: InputOptions,
    processes: WorkerFlags,
    cluster: ClusterFlags,
    stop: StopFlags,
    failures: FailureFlags,
    output: "OutputFlags",
    settings: "ProfileSettings",
    to: str | None = None,
    reads: tuple[str, ...] = (),
) -> int:
    """Profile the records of files, and return the exit status.

    `to` is a file that the output writes, which is no input. `reads` are other files that the
    command has read.
    """
    # Imported late so that --help stays fast. Modules that the launch does not need come later.
    from asyncbatch.cli.options.job import record_settings
    from asyncbatch.config.job import FileSource, Job
    from asyncbatch.config.options.transforms import CallFlags, JqFlags, SchemaFlags
    from asyncbatch.config.settings import file_settings, inputs_of
    from asyncbatch.core.settings import Sizes
    from asyncbatch.errors import UsageError, error_reason
    from asyncbatch.pipeline.launch import Launch

    dask = dask_settings(cluster.engine, cluster.scheduler)
    try:
        plan = memory_plan(
            processes.max_memory,
            processes.workers if dask is None else 0,
            needs_process=failures.timeout is not None and dask is None,
            has_library=False,
        )
        files = file_settings(inputs, sizes=plan.sizes if plan else Sizes())
        work = record_settings(
            files,
            inputs,
            jq=JqFlags(),
            call=CallFlags(),
            schema=SchemaFlags(),
            profile=settings,
        )
        job = Job(
            (FileSource(inputs_of(inputs, tuple(paths)), work, inputs.allow_empty),),
            workers=processes.workers,
            budget=failure_budget(failures.max_failures, fail_fast=failures.fail_fast),
            reports=output.report if to is None else (*output.report, to),
            reads=reads,
            timeout=failures.timeout,
            most_workers=plan.workers if plan else None,
            dask=dask,
        )
        launch = Launch(job)
        launch.prepare()
        report_files = open_reports(output.report, files.stores)
        launch.start(may_fork=True)
    except (UsageError, OSError) as error:
        raise typer.BadParameter(error_reason(error)) from None

    # Imported after the launch, while the workers start.
    from asyncbatch.cli.session import run_job

    return run_job(
        job, make_output(), command=command, report_files=report_files, grace=stop.grace,
        launch=launch,
    )  # fmt: skip
