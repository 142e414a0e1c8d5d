"""Options of `asyncbatch validate` that differ from those of `run`."""

from typing import Annotated

from asyncbatch.cli.options.common import option

CHECK = "Check"

Schema = Annotated[
    str,
    option(CHECK, "--schema", metavar="FILE", help="The JSON Schema that documents must fit."),
]
CheckFormats = Annotated[
    bool,
    option(
        CHECK,
        "--check-formats/--no-check-formats",
        help="Check the formats of the schema (email, date).",
    ),
]
