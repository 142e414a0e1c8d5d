"""`asyncbatch ledger`: what earlier runs did, as later ones see it."""

from __future__ import annotations

import os
from glob import glob
from typing import TYPE_CHECKING, Annotated

import typer

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from asyncbatch.ledger.inspection import Inspection

ledger = typer.Typer(
    no_args_is_help=True, help="Look at what runs remember of the inputs that they did."
)

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TARGET]",
        help="What --to named, or a ledger's file.  [default: all in $XDG_STATE_HOME/asyncbatch]",
    ),
]
Job = Annotated[
    str | None, typer.Option("--job", metavar="JOB", help="Only this job, as `show` names it.")
]


@ledger.command()
def show(
    target: Target = None,
    *,
    job: Job = None,
    files: Annotated[bool, typer.Option("--files", help="List each input.")] = False,
) -> None:
    """Show the jobs, and how many inputs each has done; with --files, each input."""
    paths = _all() if target is None else [_path(target)]
    if not paths:
        typer.echo("no run has left a ledger here")
    for path in paths:
        inspected = _inspect(path)
        typer.echo(_printable(path))
        for found in inspected.jobs():
            if job in (None, found.job):
                outcomes = ", ".join(f"{count:,} {name}" for name, count in found.outcomes.items())
                typer.echo(f"  {found.job}  {outcomes}, last at {found.last}")
                typer.echo(f"    {_printable(found.description or found.target)}")
        if files:
            for entry in inspected.entries(job):
                counts = f"{entry.read:,} read, {entry.written:,} written"
                rejected = f", {entry.rejected:,} rejected" if entry.rejected else ""
                typer.echo(
                    f"  {entry.outcome:8} {entry.done_at}  {_printable(entry.path)}"
                    f"  {counts}{rejected}"
                )
        inspected.close()


@ledger.command()
def clear(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="What --to named, or a ledger's file.")
    ],
    *,
    job: Job = None,
) -> None:
    """Forget what was done, so that the next run does it again; what was written stays."""
    inspected = _inspect(_path(target), writes=True)
    typer.echo(f"forgot {inspected.clear(job):,} inputs")
    inspected.close()


@ledger.command()
def path(target: Target = None) -> None:
    """Print where the ledger of a target is, or would be."""
    from asyncbatch.state import state_folder  # noqa: PLC0415 - see `_inspect`

    typer.echo(state_folder() if target is None else _path(target))


def _all() -> list[str]:
    from asyncbatch.state import state_folder  # noqa: PLC0415 - see `_inspect`

    return sorted(glob(os.path.join(state_folder(), "*.ledger")))


def _path(target: str) -> str:
    from asyncbatch.ledger.places import default_path  # noqa: PLC0415 - see `_inspect`
    from asyncbatch.sinks.target import place_of  # noqa: PLC0415 - see `_inspect`

    if target.endswith(".ledger"):
        return target
    try:
        form, place = place_of(target)
    except UsageError as error:
        if os.path.isfile(target):
            return target
        raise typer.BadParameter(str(error)) from None
    if form == "postgres":
        raise typer.BadParameter(
            "PostgreSQL keeps it with the rows, in the table asyncbatch_ledger: psql shows it"
        )
    return place if form in ("sqlite", "duckdb") else default_path(place, "", None)


def _inspect(path: str, *, writes: bool = False) -> Inspection:
    # Only now, so that --help stays quick.
    from asyncbatch.ledger.inspection import Inspection  # noqa: PLC0415

    try:
        return Inspection(path, writes=writes)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def _printable(text: str) -> str:
    from asyncbatch.words import printable  # noqa: PLC0415 - see `_inspect`

    return printable(text)
