"""Arguments that commands share."""

from typing import Annotated

import typer

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH...",
        help="Folders, files, quoted globs, URLs (s3, gs, az, https), or '-' for standard input.",
    ),
]
