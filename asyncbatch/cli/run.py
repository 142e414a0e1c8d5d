"""The command `asyncbatch run`: convert its options to a Job and run it."""

from typing import TYPE_CHECKING

import typer

from asyncbatch.cli.options import common as o
from asyncbatch.cli.options import ledger as again
from asyncbatch.cli.options import target as to_options
from asyncbatch.cli.options import transforms as r
from asyncbatch.cli.values import dask_settings, failure_budget, has_library, memory_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asyncbatch.cli.output import Output
    from asyncbatch.cli.report_files import ReportFile
    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.settings import FileWorkSettings, LedgerSettings, StoreSettings
    from asyncbatch.sources.selection import Shard
    from asyncbatch.workers.engine import Work

# Options that need a ledger, also without a target.
_REPEAT_OPTIONS = ("resume", "retry_failed", "force", "allow_duplicates", "ledger")

EPILOG = """\
\b
Examples:
  asyncbatch run exports/
  asyncbatch run exports/ --schema user.schema.json --dead-letter misfits.jsonl
  asyncbatch run exports/ --jq 'select(.active) | {id}' --to active.jsonl
  asyncbatch run exports/ --call clean.py:clean --to cleaned/
  asyncbatch run exports/ --to sqlite:///u.db --table users --key id
  asyncbatch run exports/ --to users.csv --dead-letter bad.jsonl
  asyncbatch run --from-dead-letter bad.jsonl --to again.csv --allow-empty

Exit status: 0 all succeeded (or within --max-failures), 1 some input failed, 2 wrong usage or
nothing matched, 75 another run has the lock, 130/143 interrupted. Each option can also be set by
an environment variable: --batch-size by ASYNCBATCH_RUN_BATCH_SIZE.
"""


def run_files(
    paths: o.Paths = None,
    *,
    pattern: o.Pattern = None,
    exclude: o.Exclude = None,
    files_from: o.FilesFrom = None,
    null: o.Null = False,
    hidden: o.Hidden = False,
    follow_symlinks: o.FollowSymlinks = False,
    limit: o.Limit = None,
    shard: o.Shard = None,
    endpoint: o.Endpoint = None,
    anonymous: o.Anonymous = False,
    allow_empty: o.AllowEmpty = False,
    format: o.Format = "auto",  # noqa: A002 - the option's name
    max_file_size: o.MaxFileSize = None,
    max_memory: o.MaxMemory = None,
    max_decompressed_size: o.MaxDecompressedSize = "100GiB",  # type: ignore[assignment]  # typer parses defaults too
    max_window: o.MaxWindow = None,
    records: r.Records = None,
    unit: r.Unit = "record",
    root: r.Root = None,
    from_dead_letter: r.FromDeadLetter = None,
    jq: r.Jq = None,
    jq_env: r.JqEnv = False,
    jq_lossy: r.JqLossy = False,
    call: r.Call = None,
    call_concurrency: r.CallConcurrency = 100,
    schema: r.Schema = None,
    check_formats: r.CheckFormats = False,
    check_content: r.CheckContent = False,
    ref: r.Ref = None,
    dedupe: r.Dedupe = None,
    to: to_options.To = None,
    table: to_options.Table = None,
    key: to_options.Key = None,
    mode: to_options.Mode = None,
    schema_contract: to_options.SchemaContract = None,
    override_identity: to_options.OverrideIdentity = False,
    columns: to_options.Columns = None,
    csv_safe: to_options.CsvSafe = False,
    null_value: to_options.NullValue = None,
    nested: to_options.Nested = None,
    load_batch: to_options.LoadBatch = None,
    to_format: to_options.ToFormat = "keep",
    to_compression: to_options.ToCompression = "keep",
    unordered: to_options.Unordered = False,
    resume: again.Resume = False,
    retry_failed: again.RetryFailed = False,
    force: again.Force = False,
    allow_duplicates: again.AllowDuplicates = False,
    ledger: again.Ledger = None,
    identity: again.Identity = "stat",
    batch_size: o.BatchSize = None,
    concurrency: o.Concurrency = None,
    workers: o.Workers = None,
    engine: o.Engine = "local",
    scheduler: o.Scheduler = None,
    read_ahead: o.ReadAhead = None,
    pause: o.Pause = 0.0,
    grace: o.Grace = 8.0,
    lock: o.Lock = None,
    lock_wait: o.LockWait = None,
    dry_run: o.DryRun = False,
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
    """Process JSON files in bounded, concurrent batches and report each failure.

    A record is an element of a top-level array, a line of JSON Lines, or else the whole document.
    Records can be transformed, checked and written to files or tables. A failure is reported with
    its file, line, column and reason.
    """
    # Imported late so that --help stays fast. Modules that the launch does not need come later.
    from asyncbatch.config.job import (
        FileSource,
        Job,
    )
    from asyncbatch.core.retry import Retries
    from asyncbatch.core.settings import (
        FileWorkSettings,
        Sizes,
        StoreSettings,
    )
    from asyncbatch.errors import UsageError
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.sources.selection import (
        DEFAULT_PATTERNS,
        Selection,
    )

    if dry_run and (report or output in ("junit", "github")):
        raise typer.BadParameter("--dry-run has no results: leave out --report, junit and github")
    if to == "-" and output != "text":
        raise typer.BadParameter(f"--to - and --output {output} both write to standard output")
    options: dict[str, Any] = {
        "records": records, "unit": unit, "replay": from_dead_letter,
        "jq": jq, "jq_env": jq_env, "jq_lossy": jq_lossy,
        "call": call, "call_concurrency": call_concurrency,
        "schema": schema, "check_formats": check_formats, "check_content": check_content,
        "ref": ref, "dedupe": dedupe,
        "to": to, "table": table, "key": key, "mode": mode,
        "schema_contract": schema_contract, "override_identity": override_identity,
        "columns": columns, "csv_safe": csv_safe, "null_value": null_value,
        "nested": nested,
        "to_format": to_format, "to_compression": to_compression, "root": root if to else None,
        "letters": dead_letter is not None, "tracebacks": verbose,
    }  # fmt: skip
    if lock_wait is not None and lock is None:
        raise typer.BadParameter("--lock-wait needs --lock")
    dask = dask_settings(engine, scheduler)
    selection = Selection(
        tuple(pattern or DEFAULT_PATTERNS), tuple(exclude or ()), hidden, follow_symlinks
    )
    memory: dict[str, Any] = {
        "resume": resume, "retry_failed": retry_failed, "force": force,
        "allow_duplicates": allow_duplicates, "ledger": ledger,
        "by_content": identity == "content", "root": root,
    }  # fmt: skip
    try:
        # before any input is read: another run may change it
        if lock is not None and not dry_run:
            from asyncbatch.cli.command import take_lock
            from asyncbatch.core.secrets import redact_address

            lists = [path for path in (files_from, from_dead_letter) if path is not None]
            take_lock(
                lock,
                lock_wait or 0.0,
                inputs=[*(paths or ()), *lists],
                target=None if to is None else redact_address(to),
                outputs=[path for path in (to, dead_letter, *(report or ())) if path],
                options={
                    "pattern": pattern, "exclude": exclude, "shard": shard, "records": records,
                    "unit": unit, "jq": jq, "call": call, "schema": schema, "table": table,
                },
                quiet=quiet,
            )  # fmt: skip
        part = None if shard is None else _parse_shard(shard, from_dead_letter)
        retrying = Retries(retries, retry_delay)
        stores = StoreSettings.from_options(endpoint, retrying, anonymous=anonymous)
        plan = memory_plan(
            max_memory,
            workers if dask is None else 0,  # the workers of a cluster have their own limits
            needs_process=bool(jq or call or timeout) and dask is None,
            has_library=has_library(to),
        )
        files = FileWorkSettings(
            format, max_file_size, read_ahead, max_decompressed_size, max_window,
            sizes=plan.sizes if plan else Sizes(), retries=retrying, stores=stores,
        )  # fmt: skip
        named, settings = _resolve_paths(tuple(paths or ()), files, options)
        inputs = Inputs(
            named, files_from, null, selection, limit, root, part, stores,
            max_decompressed_size, max_window,
        )  # fmt: skip
        job = Job(
            (FileSource(inputs, files if dry_run else settings, allow_empty),),
            batch_size,
            concurrency,
            0 if dry_run else workers,
            pause,
            failure_budget(max_failures, fail_fast=fail_fast),
            load_batch,
            ordered=not unordered,
            dead_letter=None if dry_run else dead_letter,
            reports=tuple(report or ()),
            ledger=None if dry_run else _ledger_settings(settings, memory),
            timeout=None if dry_run else timeout,
            most_workers=plan.workers if plan else None,
            dask=None if dry_run else dask,
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

    make_output, work = (Output, None) if not dry_run else _plan_types()
    shown = make_output(
        output,
        quiet=quiet,
        verbose=verbose,
        progress=progress,
        show_failures=show_failures,
        stdout_is_taken=to == "-",
    )
    _warn_about_unit(schema, settings, named, shown)
    listed = max(MAX_LISTED_FAILURES, show_failures)
    session = Session(
        Run(job, launch=launch, work=work, failure_limit=listed, say=shown.log),
        shown,
        command="run",
        budget=job.budget,
        report_files=report_files,
        grace=grace,
    )
    raise typer.Exit(session.carry_out())


def _resolve_paths(
    paths: "tuple[str, ...]", files: "FileWorkSettings", options: "dict[str, Any]"
) -> "tuple[tuple[str, ...], Any]":
    """Return the inputs and the settings of the work on them. Raises UsageError."""
    defaults = {"unit": "record", "call_concurrency": 100, "to_format": "keep"}
    defaults["to_compression"] = "keep"
    if all(value in (None, False, defaults.get(name)) for name, value in options.items()):
        return paths, files
    from asyncbatch.cli.job import (
        input_paths,
        record_settings,
    )

    settings = record_settings(files, **options)
    return input_paths(paths, settings), settings


def _warn_about_unit(
    schema: str | None, settings: "Any", paths: "Sequence[str]", shown: "Output"
) -> None:
    """Warn about a schema that no record can fit."""
    if schema is None:
        return
    from asyncbatch.cli.job import unit_warning

    if warning := unit_warning(settings, paths):
        shown.log(warning)


def _ledger_settings(
    settings: "FileWorkSettings | RecordWorkSettings", options: "dict[str, Any]"
) -> "LedgerSettings | None":
    """Return the settings of the ledger, or None without one. Raises UsageError."""
    has_target = getattr(settings, "target", None) is not None
    if not has_target and not any(options[name] for name in _REPEAT_OPTIONS):
        return None
    from asyncbatch.cli.ledger_job import ledger_settings

    return ledger_settings(settings, **options)


def _parse_shard(text: str, from_dead_letter: str | None) -> "Shard":
    """Return the shard of the option `--shard`. Raises UsageError."""
    from asyncbatch.errors import UsageError
    from asyncbatch.sources.selection import Shard

    if from_dead_letter is not None:
        raise UsageError(
            "--shard divides files, and a --from-dead-letter file holds the records of many "
            "files: give each shard its own --dead-letter, and run each of them again"
        )
    return Shard.parse(text)


def _open_reports(paths: "Sequence[str]", stores: "StoreSettings") -> "list[ReportFile]":
    if not paths:
        return []
    from asyncbatch.cli.report_files import ReportFile

    return [ReportFile(path, stores) for path in paths]


def _plan_types() -> "tuple[type[Output], Callable[[Any], Work]]":
    from asyncbatch.cli.preview import PlanOutput
    from asyncbatch.workers.tasks.count import PlanTask

    return PlanOutput, PlanTask
