"""The command `asyncbatch init`: write a pipeline file to start from."""

import os
from typing import Annotated, Literal

import typer

from asyncbatch.cli.command import print_note

EPILOG = """\
\b
Examples:
  asyncbatch init
  asyncbatch init people.toml
  asyncbatch init shop.toml --kind stream

Exit status: 0 written, 2 not written: the file exists already, or cannot be written.
"""

File = Annotated[str, typer.Argument(metavar="[FILE]", help="The file to write.")]
Kind = Annotated[
    Literal["etl", "stream"],
    typer.Option(
        "--kind",
        help="The command that runs the file.",
        rich_help_panel="Output",
        show_envvar=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Overwrite an existing file.", rich_help_panel="Output", show_envvar=False
    ),
]


_STARTING = {"etl": "starting.toml", "stream": "starting_stream.toml"}


def write_pipeline(
    file: File = "pipeline.toml", *, kind: Kind = "etl", force: Force = False
) -> None:
    """Write an example of a pipeline file, to edit.

    `asyncbatch etl FILE` or `asyncbatch stream FILE` runs it.
    """
    from asyncbatch.config import pipeline_file

    starting = os.path.join(os.path.dirname(pipeline_file.__file__), _STARTING[kind])
    try:
        with open(starting, encoding="utf-8") as source:
            text = source.read()
        with open(file, "w" if force else "x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise typer.BadParameter(f"{file} exists already; --force overwrites it") from None
    except OSError as error:
        from asyncbatch.storage.atomic import write_reason

        raise typer.BadParameter(f"cannot write {file}: {write_reason(file, error)}") from None
    print_note(f"wrote {file}; check it with `asyncbatch {kind} {file} --check`")
