"""The command `asyncbatch schema`: infer a JSON Schema from files, and compare two schemas."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncbatch.cli import exit_codes
from asyncbatch.cli.command import CommandGroup, SectionedCommand, print_note
from asyncbatch.cli.options.parameters import Paths, with_options
from asyncbatch.config.options.control import ClusterFlags, FailureFlags, StopFlags, WorkerFlags
from asyncbatch.config.options.inputs import InputOptions
from asyncbatch.config.options.profiles import DiffFlags, InferFlags, SchemaOutputFlags
from asyncbatch.core.settings import ProfileSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.display.profile_output import MergingOutput
    from asyncbatch.core.settings import Detail
    from asyncbatch.storage.atomic import AtomicFile
    from asyncbatch.transforms.profile.compare import SchemaChange
    from asyncbatch.transforms.schema import SchemaSource

schema: typer.Typer = typer.Typer(
    name="schema",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Infer a JSON Schema from files, and compare schemas.",
)

_INFER_EPILOG = """\
\b
Examples:
  asyncbatch schema infer exports/ --to export.schema.json
  asyncbatch run exports/ --schema export.schema.json
  asyncbatch schema infer more/ --update export.schema.json --to export.schema.json
  asyncbatch schema infer config/ --unit file --strict   # for asyncbatch validate

Exit status: 0 all files were read (or within --max-failures), 1 some input failed, or none had a
record, so that no schema is written, 2 wrong usage or nothing matched, 130/143 interrupted.
"""

_DIFF_EPILOG = """\
\b
Examples:
  asyncbatch schema diff old.schema.json new.schema.json
  asyncbatch schema diff old.schema.json new.schema.json --compatible forward

Exit status: 0 nothing breaks, 1 something breaks, 2 wrong usage.
"""


@schema.command(cls=SectionedCommand, epilog=_INFER_EPILOG)
@with_options
def infer(
    paths: Paths = None,
    *,
    infer: InferFlags,
    inputs: InputOptions,
    processes: WorkerFlags,
    cluster: ClusterFlags,
    stop: StopFlags,
    failures: FailureFlags,
    output: SchemaOutputFlags,
) -> None:
    """Write a JSON Schema (2020-12) that all records satisfy.

    With --unit file it is for whole documents, as `asyncbatch validate` checks them. Objects with
    names that are data (ids, dates) are described as maps. --update only widens a schema: what it
    allowed stays allowed.
    """
    from msgspec.structs import replace

    from asyncbatch.cli.commands.profile import run_profile

    if infer.to is None and output.output != "text":
        raise typer.BadParameter(
            f"the schema and --output {output.output} both go to standard output: write the schema "
            "to a file with --to"
        )
    old = None if infer.update is None else _read_schema(infer.update, "--update")
    whole = inputs.unit == "file" and inputs.records is None
    if whole:  # an array is read element by element, and described as a whole
        inputs = replace(inputs, unit="record")

    detail: Detail = "full" if old is not None else "formats" if infer.strict else "types"
    settings = ProfileSettings(infer.max_fields, detail)
    # A schema may be updated in place.
    reads = () if infer.update is None or _is_same(infer.update, infer.to) else (infer.update,)
    with _open_target(infer.to) as file:

        def make_output() -> MergingOutput:
            from asyncbatch.cli.display.profile_output import InferOutput

            return InferOutput(output, infer, file, old=old, whole=whole)

        code = run_profile(
            "schema infer", paths or (), make_output, inputs=inputs, processes=processes,
            cluster=cluster, stop=stop, failures=failures, output=output,
            settings=settings, to=infer.to, reads=reads,
        )  # fmt: skip
    raise typer.Exit(code)


@schema.command(cls=SectionedCommand, epilog=_DIFF_EPILOG)
@with_options
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The earlier schema.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The later schema.")],
    *,
    flags: DiffFlags,
) -> None:
    """Show the changes between two JSON Schemas, and exit 1 if any of them breaks something.

    A change breaks if values that satisfied OLD may not satisfy NEW. A keyword that cannot be
    compared counts as a change that breaks.
    """
    from asyncbatch.transforms.profile.compare import restrictions

    before, after = _load_schema(old, "OLD"), _load_schema(new, "NEW")
    narrower = restrictions(before, after)
    wider = [_reversed(one) for one in restrictions(after, before)]
    breaking = narrower if flags.compatible != "forward" else []
    breaking += wider if flags.compatible != "backward" else []
    others = [one for one in (*narrower, *wider) if one not in breaking]
    if flags.output == "json":
        _print_json(breaking, others)
    else:
        _print_changes(breaking, others)
    raise typer.Exit(exit_codes.FAILURES if breaking else exit_codes.SUCCESS)


def _is_same(path: str, other: str | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


@contextmanager
def _open_target(path: str | None) -> Iterator[AtomicFile | None]:
    """Open the file for the schema. At the end, an unfinished file is removed."""
    if path is None:
        yield None
        return
    from asyncbatch.errors import UsageError
    from asyncbatch.storage.atomic import AtomicFile

    file = AtomicFile(path)
    try:
        file.open()
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        yield file
    finally:
        if not file.stream.closed:
            file.discard()


def _load_schema(path: str, name: str) -> SchemaSource:
    """Return the schema in a file, and those that it refers to. They are valid."""
    from asyncbatch.errors import UsageError
    from asyncbatch.transforms.schema import load_schema

    try:
        return load_schema(path, check_formats=False)  # it reports each error in the schema
    except UsageError as error:
        raise typer.BadParameter(f"{name}: {error}") from None


def _read_schema(path: str, name: str) -> Any:
    """Return the schema in a file, which is valid and can be updated."""
    from asyncbatch.formats.decoder import decode
    from asyncbatch.formats.positions import BOM
    from asyncbatch.transforms.profile.update_references import unmovable_reference

    source = _load_schema(path, name)
    with open(path, "rb") as file:
        found = decode(file.read().removeprefix(BOM))
    if (reference := unmovable_reference(source)) is not None:
        raise typer.BadParameter(
            f"--update {path}: {reference} refers to a part that the update may change: move this "
            "part to $defs"
        )
    return found


def _reversed(change: SchemaChange) -> SchemaChange:
    from msgspec.structs import replace

    return replace(change, before=change.after, after=change.before)


def _print_json(breaking: list[SchemaChange], others: list[SchemaChange]) -> None:
    from msgspec import to_builtins

    from asyncbatch.formats.decoder import encode

    found = {"breaking": to_builtins(breaking), "compatible": to_builtins(others)}
    print_note(encode(found).decode())


def _print_changes(breaking: list[SchemaChange], others: list[SchemaChange]) -> None:
    from asyncbatch.core.units import format_count, printable

    for word, changes in (("breaks", breaking), ("allows", others)):
        for one in changes:
            line = f"{one.path}: {one.rule}: {one.before} -> {one.after}"
            print_note(f"{word}  {printable(line)}")
    count = format_count(len(breaking), "change")
    print_note(f"{count} that breaks" if len(breaking) == 1 else f"{count} that break")
