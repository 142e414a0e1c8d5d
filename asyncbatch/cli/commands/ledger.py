"""The command `asyncbatch ledger`: show, clear and locate ledgers."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from glob import glob
from typing import TYPE_CHECKING, Annotated

import typer

from asyncbatch.cli.command import CommandGroup, SectionedCommand, print_note
from asyncbatch.cli.terminal import is_terminal, stdout
from asyncbatch.core.units import format_count, printable
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.pipeline.resume.inspection import Database, Inspection

ledger: typer.Typer = typer.Typer(
    name="ledger",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show or clear ledgers: the lists of inputs that are done.",
)

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TARGET]",
        help="The value of --to, or a ledger file.  [default: all in $XDG_STATE_HOME/asyncbatch]",
    ),
]
Job = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="JOB",
        help="Choose one job, by the name that `show` prints.",
        show_envvar=False,
    ),
]


@ledger.command(cls=SectionedCommand)
def show(
    target: Target = None,
    *,
    job: Job = None,
    files: Annotated[
        bool, typer.Option("--files", help="List each input.", show_envvar=False)
    ] = False,
) -> None:
    """Show the jobs and their numbers of inputs. With --files, list each input."""
    paths = _default_ledgers() if target is None else [_ledger_path(target)]
    if not paths and job is None:
        print_note("no ledger found")
    known: list[str] = []
    for path in paths:
        with _open_ledger(path) as inspected:
            names = [found.job for found in inspected.jobs()]
            known += names
            if job is None or job in names:
                _print_ledger(inspected, job, files=files)
    if job is not None:
        _require_job(job, known)


@ledger.command(cls=SectionedCommand)
def clear(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The value of --to, or a ledger file.")
    ],
    *,
    job: Job = None,
) -> None:
    """Forget which inputs are done, so that the next run repeats them. Outputs stay."""
    with _open_ledger(_ledger_path(target), writes=True) as inspected:
        if job is not None:  # an empty one must not clear all jobs
            _require_job(job, [found.job for found in inspected.jobs()])
        print_note(f"forgot {format_count(inspected.clear(job), 'input')}")


@ledger.command(cls=SectionedCommand)
def path(target: Target = None) -> None:
    """Print the path of a target's ledger, even if it does not exist."""
    from asyncbatch.core.secrets import redact_address
    from asyncbatch.state.lock import state_folder

    found = state_folder() if target is None else redact_address(_ledger_path(target))
    if is_terminal(stdout().fileno()):
        print_note(found)
    else:  # for a program: the path as it is
        stdout().buffer.write(os.fsencode(found) + b"\n")


def _require_job(job: str, known: list[str]) -> None:
    """Raise BadParameter for a job that is not among the known ones."""
    if job not in known:
        names = "`asyncbatch ledger show` lists the jobs" if known else "there are no jobs"
        raise typer.BadParameter(
            f"there is no job {printable(repr(job))}: {names}", param_hint="'--job'"
        )


def _print_ledger(inspected: Inspection, job: str | None, *, files: bool) -> None:
    print_note(printable(inspected.name))
    for found in inspected.jobs():
        if job in (None, found.job):
            outcomes = ", ".join(f"{count:,} {name}" for name, count in found.outcomes.items())
            print_note(f"  {found.job}  {outcomes}, last at {found.last}")
            print_note(f"    {printable(found.description or found.target)}")
    if files:
        for entry in inspected.entries(job):
            counts = f"{entry.read:,} read, {entry.written:,} written"
            rejected = f", {entry.rejected:,} rejected" if entry.rejected else ""
            print_note(
                f"  {entry.outcome:8} {entry.done_at}  {printable(entry.path)}  {counts}{rejected}"
            )


def _default_ledgers() -> list[str]:
    from asyncbatch.state.lock import state_folder

    return sorted(glob(os.path.join(state_folder(), "*.ledger")))


def _ledger_path(target: str) -> str:
    """Return the file or the server address that holds the ledger of a target."""
    from asyncbatch.sinks.target import parse_location
    from asyncbatch.state.ledger.file import default_path

    if target.endswith(".ledger"):
        return target
    try:
        form, location = parse_location(target)
    except UsageError:
        if os.path.isfile(target):
            return target
        raise typer.BadParameter(
            f"{printable(target)} is neither a ledger file nor a target: give the value of --to"
        ) from None
    if form == "postgres":
        return target
    return location if form in ("sqlite", "duckdb") else default_path(location, "", None)


@contextmanager
def _open_ledger(path: str, *, writes: bool = False) -> Iterator[Inspection]:
    """Open the ledger in a file, or at the address of a server."""
    # Imported late so that --help stays fast.
    from asyncbatch.core.secrets import is_server_url
    from asyncbatch.pipeline.resume.inspection import (
        Inspection,
        LedgerDatabase,
    )

    try:
        if is_server_url(path):
            from asyncbatch.pipeline.resume.inspection import ServerDatabase

            database: Database = ServerDatabase(path)
        else:
            database = LedgerDatabase(path, writes=writes)
        with closing(database):
            yield Inspection(database)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
