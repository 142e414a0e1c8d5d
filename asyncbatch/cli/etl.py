"""`asyncbatch etl`: a pipeline file checked, and carried out."""

import os
from typing import TYPE_CHECKING

import typer

from asyncbatch.cli import etl_options as e
from asyncbatch.cli import exit_codes
from asyncbatch.cli import ledger_options as again
from asyncbatch.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.cli.output import OutputFormat
    from asyncbatch.pipeline_file import PipelineFile

EPILOG = """\
\b
Examples:
  asyncbatch init people.toml
  asyncbatch etl people.toml --check
  asyncbatch etl people.toml --report report.json
  asyncbatch etl people.toml --set sink.to=sqlite:///test.db --check

Exit status: 0 all succeeded, 1 some input failed, 2 wrong usage or a mistake in the file, 130/143
interrupted.
"""


def run_etl(
    file: e.File = None,
    *,
    set_: e.Set = None,
    only: e.Only = None,
    full_refresh: e.FullRefresh = False,
    allow_duplicates: again.AllowDuplicates = False,
    check: e.Check = False,
    print_schema: e.PrintSchema = False,
    output: o.Output = "text",
    report: o.Report = None,
    quiet: o.Quiet = False,
    verbose: e.Verbose = False,
) -> None:
    """Load records of APIs and files into a database or another target, as a pipeline file says.

    Everything in the file is checked before anything runs. What is done is not done again.
    """
    if print_schema:
        _print_schema()
        return
    if file is None:
        raise typer.BadParameter("name a pipeline file, or make one with `asyncbatch init`")
    pipeline = _loaded(file, set_ or (), only)
    if check:
        if not quiet:
            _say(f"{_printable(file)} is valid: {_summary(pipeline)}")
        return
    raise typer.Exit(
        _carried_out(
            pipeline,
            only,
            output=output,
            reports=report or (),
            quiet=quiet,
            verbose=verbose,
            full_refresh=full_refresh,
            allow_duplicates=allow_duplicates,
        )
    )


def _carried_out(
    pipeline: "PipelineFile",
    only: "Sequence[str] | None",
    *,
    output: "OutputFormat",
    reports: "Sequence[str]",
    quiet: bool,
    verbose: bool,
    full_refresh: bool,
    allow_duplicates: bool,
) -> int:
    """Run a pipeline; return the exit status."""
    from asyncbatch.cli.etl_job import etl_job  # noqa: PLC0415 - --help stays quick
    from asyncbatch.cli.output import Output  # noqa: PLC0415
    from asyncbatch.cli.report_file import ReportFile  # noqa: PLC0415
    from asyncbatch.cli.session import Session  # noqa: PLC0415
    from asyncbatch.errors import UsageError  # noqa: PLC0415
    from asyncbatch.run import Run  # noqa: PLC0415

    try:
        job = etl_job(
            pipeline,
            only,
            reports=reports,
            tracebacks=verbose,
            full_refresh=full_refresh,
            allow_duplicates=allow_duplicates,
        )
        report_files = [ReportFile(path) for path in reports]
    except (UsageError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    to_stdout = job.target is not None and job.target.form == "stdout"
    if to_stdout and output != "text":
        raise typer.BadParameter(f"sink.to = '-' and --output {output} both want standard output")
    shown = Output(output, quiet=quiet, verbose=verbose, stdout_is_taken=to_stdout)
    run = Run(job, watched=True)
    return Session(run, shown, command="etl", report_files=report_files).carry_out()


def _loaded(path: str, overrides: "Sequence[str]", only: "Sequence[str] | None") -> "PipelineFile":
    """Return the file's content, all of it checked; ends the command if anything is wrong."""
    from asyncbatch.cli.streams import set_results_apart  # noqa: PLC0415 - --help stays quick
    from asyncbatch.errors import PipelineFileError, UsageError  # noqa: PLC0415
    from asyncbatch.pipeline_file import load_pipeline_file  # noqa: PLC0415

    try:
        set_results_apart()  # what importing a user's function prints is no result
        pipeline = load_pipeline_file(path, overrides)
        if only:
            pipeline.only(only)
    except PipelineFileError as error:
        typer.echo(f"Error: {_printable(str(error))}", err=True)
        raise typer.Exit(exit_codes.USAGE) from None
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    return pipeline


def _summary(pipeline: "PipelineFile") -> str:
    from asyncbatch.words import count  # noqa: PLC0415 - see above

    sources = count(len(pipeline.sources), "source")
    transforms = count(len(pipeline.transforms), "transform")
    sink = pipeline.sink
    place = f"{sink.table} of {sink.to}" if sink.table else str(sink.to)
    names = ", ".join(pipeline.source_names())
    return _printable(f"{sources} ({names}), {transforms}, into {place}")


def _print_schema() -> None:
    import json  # noqa: PLC0415 - --help stays quick

    from asyncbatch.pipeline_file.json_schema import pipeline_schema  # noqa: PLC0415

    _say(json.dumps(pipeline_schema(), indent=2))


def _say(text: str) -> None:
    """Print a result; ends the command if that is not possible."""
    from asyncbatch.cli.streams import stdout  # noqa: PLC0415 - see above

    try:
        typer.echo(text, file=stdout())
    except BrokenPipeError:  # nor can what is left in the buffer be written
        os._exit(exit_codes.CLOSED_OUTPUT)
    except OSError as error:
        typer.echo(f"Error: could not go on: {error}", err=True)
        os._exit(exit_codes.FAILURES)


def _printable(text: str) -> str:
    from asyncbatch.words import printable  # noqa: PLC0415 - see above

    return "\n".join(map(printable, text.split("\n")))
