"""The command `asyncbatch validate`: check whole documents against a JSON Schema."""

from typing import TYPE_CHECKING

import typer

from asyncbatch.cli.options import common as o
from asyncbatch.cli.options import target as to_options
from asyncbatch.cli.options import transforms as r
from asyncbatch.cli.options import validate as v
from asyncbatch.cli.values import failure_budget, memory_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.cli.report_files import ReportFile
    from asyncbatch.core.settings import StoreSettings

EPILOG = """\
\b
Examples:
  asyncbatch validate config/ --schema config.schema.json
  asyncbatch validate data/ --schema data.schema.json -o github --report junit.xml
  asyncbatch validate data/ --schema a.json --ref https://example.com/schemas=copies/
  curl -s https://example.com/x.json | asyncbatch validate - --schema x.schema.json

Exit status: 0 all documents fit (or within --max-failures), 1 some do not, 2 wrong usage or
nothing matched, 130/143 interrupted.
"""


def validate_files(
    paths: o.Paths = None,
    *,
    schema: v.Schema,
    ref: r.Ref = None,
    check_formats: v.CheckFormats = True,
    check_content: r.CheckContent = False,
    pattern: o.Pattern = None,
    exclude: o.Exclude = None,
    files_from: o.FilesFrom = None,
    null: o.Null = False,
    hidden: o.Hidden = False,
    follow_symlinks: o.FollowSymlinks = False,
    limit: o.Limit = None,
    shard: o.Shard = None,
    root: r.Root = None,
    endpoint: o.Endpoint = None,
    anonymous: o.Anonymous = False,
    allow_empty: o.AllowEmpty = False,
    format: o.Format = "auto",  # noqa: A002 - the option's name
    max_file_size: o.MaxFileSize = None,
    max_memory: o.MaxMemory = None,
    max_decompressed_size: o.MaxDecompressedSize = "100GiB",  # type: ignore[assignment]  # typer parses defaults too
    workers: o.Workers = None,
    grace: o.Grace = 8.0,
    timeout: o.Timeout = None,
    retries: o.Retries = 0,
    retry_delay: o.RetryDelay = 0.2,
    max_failures: o.MaxFailures = None,
    fail_fast: o.FailFast = False,
    dead_letter: to_options.DeadLetter = None,
    show_failures: o.ShowFailures = "20",  # type: ignore[assignment]  # typer parses defaults too
    output: o.Output = "text",
    report: o.Report = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    progress: o.Progress = True,
) -> None:
    """Check JSON documents against a JSON Schema, each as a whole.

    A document is a file, also if it is an array; in JSON Lines it is a line. Nothing is fetched: a
    reference to an address needs --ref. A failure is reported with its file, line, column, JSON
    Pointer and rule.
    """
    # Imported late so that --help stays fast.
    from asyncbatch.cli.job import parse_references
    from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
    from asyncbatch.core.retry import Retries
    from asyncbatch.core.settings import FileWorkSettings, Sizes, StoreSettings
    from asyncbatch.errors import UsageError
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.sources.selection import DEFAULT_PATTERNS, Selection
    from asyncbatch.sources.selection import Shard as ShardOf
    from asyncbatch.transforms.schema import load_schema

    try:
        selection = Selection(
            tuple(pattern or DEFAULT_PATTERNS), tuple(exclude or ()), hidden, follow_symlinks
        )
        retrying = Retries(retries, retry_delay)
        stores = StoreSettings.from_options(endpoint, retrying, anonymous=anonymous)
        plan = memory_plan(
            max_memory, workers, needs_process=timeout is not None, has_library=False
        )
        files = FileWorkSettings(
            format, max_file_size, None, max_decompressed_size,
            sizes=plan.sizes if plan else Sizes(), retries=retrying, stores=stores,
        )  # fmt: skip
        source = load_schema(
            schema,
            check_formats=check_formats,
            check_content=check_content,
            copies=parse_references(ref or ()),
        )
        settings = RecordWorkSettings(
            files,
            whole=True,
            transforms=(source,),
            letters=dead_letter is not None,
            tracebacks=verbose,
        )
        part = None if shard is None else ShardOf.parse(shard)
        inputs = Inputs(
            tuple(paths or ()), files_from, null, selection, limit, root, part, stores,
            max_decompressed_size,
        )  # fmt: skip
        job = Job(
            (FileSource(inputs, settings, allow_empty),),
            workers=workers,
            budget=failure_budget(max_failures, fail_fast=fail_fast),
            dead_letter=dead_letter,
            reports=tuple(report or ()),
            timeout=timeout,
            most_workers=plan.workers if plan else None,
        )
        launch = Launch(job)
        launch.prepare()
        report_files = _open_reports(report or (), stores)
        launch.start()
    except (UsageError, OSError) as error:
        raise typer.BadParameter(str(error)) from None

    # Imported after the launch, while the workers start.
    from asyncbatch.cli.output import Output
    from asyncbatch.cli.session import Session
    from asyncbatch.core.report import MAX_LISTED_FAILURES
    from asyncbatch.pipeline.run import Run

    shown = Output(
        output, quiet=quiet, verbose=verbose, progress=progress, show_failures=show_failures
    )
    listed = max(MAX_LISTED_FAILURES, show_failures)
    session = Session(
        Run(job, launch=launch, failure_limit=listed, say=shown.log),
        shown,
        command="validate",
        budget=job.budget,
        report_files=report_files,
        grace=grace,
    )
    raise typer.Exit(session.carry_out())


def _open_reports(paths: "Sequence[str]", stores: "StoreSettings") -> "list[ReportFile]":
    if not paths:
        return []
    from asyncbatch.cli.report_files import ReportFile

    return [ReportFile(path, stores) for path in paths]
