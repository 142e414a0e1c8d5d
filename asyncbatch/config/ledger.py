"""Conversion of the options for repeated runs to the settings of the ledger."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.config.fingerprint import describe, fingerprint
from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.core.settings import LedgerSettings
from asyncbatch.errors import UsageError
from asyncbatch.state.ledger.file import default_path

if TYPE_CHECKING:
    from asyncbatch.config.options.target import LedgerFlags
    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.sinks.target import Target


def ledger_settings(
    work: FileWorkSettings | RecordWorkSettings, flags: LedgerFlags, root: str | None
) -> LedgerSettings | None:
    """Return the settings of the ledger, or None without one. Raises UsageError."""
    target = work.target if isinstance(work, RecordWorkSettings) else None
    if target is not None and target.mode == "mirror":
        flags = _flags_of_mirror(flags)
    if sum((flags.resume, flags.retry_failed, flags.force)) > 1:
        raise UsageError("--resume, --retry-failed and --force exclude each other: choose one")
    is_asked = flags.resume or flags.retry_failed or flags.ledger is not None
    replay = work.replay if isinstance(work, RecordWorkSettings) else None
    if replay is not None and not _is_ledger_kept(flags, target, is_asked=is_asked):
        return None
    if flags.allow_duplicates and (target is None or not target.is_database):
        raise UsageError(
            "--allow-duplicates needs a database: sqlite:///, duckdb:///, postgresql://"
        )
    if target is not None and target.is_database and flags.ledger is not None:
        raise UsageError(
            f"--ledger is for files: {target.name} keeps its own ledger, with the rows"
        )
    if target is None and not is_asked:
        return None
    if target is not None and (reason := _not_resumable_reason(work, target)):
        if is_asked:
            raise UsageError(reason)
        return None
    name = fingerprint(work)
    target_path = None if target is None or target.is_database else target.path
    return LedgerSettings(
        name,
        describe(work),
        flags.ledger or default_path(target_path, name, root),
        is_asked,
        flags.resume,
        flags.retry_failed,
        flags.force,
        flags.allow_duplicates,
        flags.identity == "content",
        root,
        work.files.stores if isinstance(work, RecordWorkSettings) else work.stores,
        replay,
    )


def _is_ledger_kept(flags: LedgerFlags, target: Target | None, *, is_asked: bool) -> bool:
    """Whether a run of a dead letter file keeps a ledger: it does where rows are added to a table.

    Raises UsageError for options that have no meaning with a dead letter file.
    """
    if target is not None and target.mode == "mirror":
        raise UsageError(
            "--mode mirror makes the target equal to its inputs, and a dead letter file has only a "
            "few of them: leave out --mode mirror, or run the folder again"
        )
    is_added = target is not None and target.is_database and target.mode in ("append", "upsert")
    if flags.retry_failed or (is_asked and not is_added):
        name = "--retry-failed" if flags.retry_failed else "--resume"
        reason = "" if flags.retry_failed else ", as it adds no rows to a table"
        raise UsageError(f"--from-dead-letter runs the whole file{reason}: leave out {name}")
    return is_added


def _flags_of_mirror(flags: LedgerFlags) -> LedgerFlags:
    """Return the flags of a mirror, which always resumes. Raises UsageError."""
    for name, value in (
        ("--retry-failed", flags.retry_failed),
        ("--allow-duplicates", flags.allow_duplicates),
    ):
        if value:
            raise UsageError(f"--mode mirror takes every file, once: leave out {name}")
    return replace(flags, resume=not flags.force)


def _not_resumable_reason(
    work: FileWorkSettings | RecordWorkSettings, target: Target
) -> str | None:
    """Return the reason why a target cannot be resumed, or None if it can be."""
    if _is_write_only(target):
        name = "standard output" if target.form == "stdout" else target.name
        return (
            f"{name} does not keep its records, so that no run can be resumed: leave out --resume,"
            " --retry-failed and --ledger, or write to a file, a folder or a database"
        )
    if target.is_remote and target.form != "folder":
        return (
            f"nothing can be added to an object, so each run writes {target.name} again from all"
            " inputs: leave out --resume, --retry-failed and --ledger, or write to a folder"
            f" ({posixpath.splitext(target.name)[0]}/), which is resumed object by object"
        )
    dedupes = isinstance(work, RecordWorkSettings) and work.dedupe
    if dedupes and not target.is_database:
        return (
            f"dedupe knows only the keys of one run, so one run must write {target.name}: leave"
            " out --resume, --retry-failed and --ledger"
        )
    return None


def _is_write_only(target: Target) -> bool:
    """Whether the target cannot be read again: standard output, a device, a pipe."""
    if target.form == "stdout":
        return True
    is_special = os.path.exists(target.path) and not os.path.isfile(target.path)
    return is_special and target.form != "folder"
