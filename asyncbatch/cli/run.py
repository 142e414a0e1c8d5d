"""`asyncbatch run`: options into a job, and one call."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from asyncbatch.words import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.budget import FailureBudget
    from asyncbatch.cli.output import Output
    from asyncbatch.cli.report_file import ReportFile
    from asyncbatch.executors.lanes import Work
    from asyncbatch.settings import FileWorkSettings

INPUT, CONTROL, FAILURES, OUTPUT = "Input", "Control", "Failures", "Output"
EPILOG = (
    "Exit status: 0 all succeeded (or within --max-failures), 1 some input failed, 2 wrong usage "
    "or nothing matched, 130/143 interrupted. Each option can come from the environment: "
    "--batch-size from ASYNCBATCH_RUN_BATCH_SIZE."
)


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:  # noqa: A002, ANN401 - typer's words
    return typer.Option(*names, help=help, rich_help_panel=panel, show_envvar=False, **more)


def _parsed_size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _parsed_count(text: str) -> float:
    if text == "all":
        return math.inf
    if text.isdecimal():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a number nor 'all'")


def run_files(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...", help="Folders, files, quoted globs, or '-' for standard input."
        ),
    ] = None,
    *,
    pattern: Annotated[
        list[str] | None,
        _option(
            INPUT,
            "--pattern",
            "-p",
            metavar="GLOB",
            help="Take files of folders whose name (with '/': path below the folder) fits; "
            "repeatable.  [default: *.json, *.jsonl, *.ndjson, and each with .gz, .bz2, .xz, .zst]",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _option(
            INPUT,
            "--exclude",
            metavar="GLOB",
            help="Leave out what fits, files and folders; repeatable.",
        ),
    ] = None,
    files_from: Annotated[
        str | None,
        _option(
            INPUT,
            "--files-from",
            metavar="FILE",
            help="Read more paths from a file ('-': standard input), one a line.",
        ),
    ] = None,
    null: Annotated[
        bool,
        _option(
            INPUT,
            "--null",
            "-0",
            help="The list's paths end with NUL, as from find -print0.",
        ),
    ] = False,
    hidden: Annotated[
        bool, _option(INPUT, "--hidden", help="Take hidden files and folders too.")
    ] = False,
    follow_symlinks: Annotated[
        bool,
        _option(
            INPUT, "--follow-symlinks", help="Enter symlinked folders (linked files always count)."
        ),
    ] = False,
    limit: Annotated[
        int | None, _option(INPUT, "--limit", min=1, metavar="N", help="Stop after N files.")
    ] = None,
    allow_empty: Annotated[
        bool, _option(INPUT, "--allow-empty", help="Finding no file at all is no error.")
    ] = False,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["auto", "json", "jsonl"],
        _option(INPUT, "--format", help="How to read every file; auto goes by its name."),
    ] = "auto",
    max_file_size: Annotated[
        int | None,
        _option(
            INPUT,
            "--max-file-size",
            parser=_parsed_size,
            metavar="SIZE",
            help="Files over this size on disk fail as too_large (500, 64K, 10MB, 1.5GiB).",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        _option(
            CONTROL,
            "--batch-size",
            "-b",
            min=1,
            metavar="N",
            help="Files a batch.  [default: adapts, up to 2,048 files and 8 MiB]",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        _option(
            CONTROL,
            "--concurrency",
            "-c",
            min=1,
            metavar="N",
            help="Batches in flight.  [default: 2 a worker]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        _option(
            CONTROL,
            "--workers",
            "-w",
            min=0,
            metavar="N",
            help="Worker processes; 0 works in this process.  [default: the CPUs it may use; 0 "
            "for small jobs]",
        ),
    ] = None,
    read_ahead: Annotated[
        int | None,
        _option(
            CONTROL,
            "--read-ahead",
            min=0,
            metavar="N",
            help="Files that each worker reads at a time.  [default: adapts to the storage]",
        ),
    ] = None,
    pause: Annotated[
        float,
        _option(
            CONTROL,
            "--pause",
            min=0.0,
            metavar="SECONDS",
            help="Batches go one at a time, with this pause between them.",
        ),
    ] = 0.0,
    grace: Annotated[
        float,
        _option(
            CONTROL,
            "--grace",
            min=0.0,
            metavar="SECONDS",
            help="After Ctrl-C or SIGTERM, time for what is in flight.",
        ),
    ] = 8.0,
    dry_run: Annotated[
        bool,
        _option(CONTROL, "--dry-run", help="List what would be processed, and in which batches."),
    ] = False,
    max_failures: Annotated[
        str | None,
        _option(
            FAILURES,
            "--max-failures",
            metavar="N|P%",
            help="Exit 0 with up to N failures (or P percent); stop as soon as there are more.",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, _option(FAILURES, "--fail-fast", help="Stop at the first failure: --max-failures 0.")
    ] = False,
    show_failures: Annotated[
        float,
        _option(
            FAILURES,
            "--show-failures",
            parser=_parsed_count,
            metavar="N|all",
            help="How many failures the summary shows.",
        ),
    ] = "20",  # type: ignore[assignment]  # typer parses defaults too
    output: Annotated[
        Literal["text", "json", "jsonl", "junit", "github"],
        _option(
            OUTPUT,
            "--output",
            "-o",
            help="What to print: a summary for people, one JSON object, events as JSON Lines, "
            "JUnit XML, or annotations for GitHub.",
        ),
    ] = "text",
    report: Annotated[
        list[str] | None,
        _option(
            OUTPUT,
            "--report",
            metavar="FILE",
            help="Write a file too: .json (the object), .jsonl (events), .xml (JUnit) or .md; "
            "repeatable.",
        ),
    ] = None,
    quiet: Annotated[
        bool, _option(OUTPUT, "--quiet", "-q", help="Print nothing but failures, on stderr.")
    ] = False,
    verbose: Annotated[
        bool, _option(OUTPUT, "--verbose", "-v", help="Print a line for each file, on stderr.")
    ] = False,
    progress: Annotated[
        bool, _option(OUTPUT, "--progress/--no-progress", help="Show progress, on stderr.")
    ] = True,
) -> None:
    """Process JSON files in bounded, concurrent batches; say what failed, where and why."""
    # Only now what the work needs, so that --help stays quick; and first what launches it.
    from asyncbatch.errors import UsageError  # noqa: PLC0415
    from asyncbatch.job import Job, Launch  # noqa: PLC0415
    from asyncbatch.settings import FileWorkSettings  # noqa: PLC0415
    from asyncbatch.sources.inputs import Inputs  # noqa: PLC0415
    from asyncbatch.sources.patterns import DEFAULT_PATTERNS  # noqa: PLC0415
    from asyncbatch.sources.selection import Selection  # noqa: PLC0415

    selection = Selection(
        tuple(pattern or DEFAULT_PATTERNS), tuple(exclude or ()), hidden, follow_symlinks
    )
    job = Job(
        Inputs(tuple(paths or ()), files_from, null, selection, limit),
        FileWorkSettings(format, max_file_size, read_ahead),
        batch_size,
        concurrency,
        0 if dry_run else workers,
        pause,
        _budget(max_failures, fail_fast=fail_fast),
        allow_empty,
    )
    if dry_run and (report or output in ("junit", "github")):
        raise typer.BadParameter("--dry-run has no results: it takes no --report, junit or github")
    launch = Launch(job)
    try:
        launch.look()
        report_files = _open_reports(report or ())
        launch.start()
    except (UsageError, OSError) as error:
        raise typer.BadParameter(str(error)) from None

    # While the workers start:
    from asyncbatch.cli.output import Output  # noqa: PLC0415
    from asyncbatch.cli.session import Session  # noqa: PLC0415
    from asyncbatch.report import LISTED_FAILURES  # noqa: PLC0415
    from asyncbatch.run import Run  # noqa: PLC0415
    from asyncbatch.work import FileWork  # noqa: PLC0415

    make_output, work = (Output, FileWork) if not dry_run else _planning()
    session = Session(
        Run(job, launch=launch, work=work, failure_limit=max(LISTED_FAILURES, show_failures)),
        make_output(
            output, quiet=quiet, verbose=verbose, progress=progress, show_failures=show_failures
        ),
        command="run",
        budget=job.budget,
        report_files=report_files,
        grace=grace,
    )
    raise typer.Exit(session.carry_out())


def _open_reports(paths: "Sequence[str]") -> "list[ReportFile]":
    if not paths:
        return []
    from asyncbatch.cli.report_file import ReportFile  # noqa: PLC0415 - see above

    return [ReportFile(path) for path in paths]


def _planning() -> "tuple[type[Output], Callable[[FileWorkSettings], Work]]":
    from asyncbatch.cli.plan import PlanOutput  # noqa: PLC0415 - see above
    from asyncbatch.plan import PlanWork  # noqa: PLC0415

    return PlanOutput, PlanWork


def _budget(max_failures: str | None, *, fail_fast: bool) -> "FailureBudget | None":
    from asyncbatch.budget import FailureBudget  # noqa: PLC0415 - see above

    if fail_fast and max_failures is not None:
        raise typer.BadParameter("--fail-fast is --max-failures 0: give one of them")
    if fail_fast:
        return FailureBudget(0)
    try:
        return None if max_failures is None else FailureBudget.parse(max_failures)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-failures") from None
