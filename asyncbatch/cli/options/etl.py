"""The options of `asyncbatch etl` that other commands do not have."""

from typing import Annotated

import typer

from asyncbatch.cli.options.common import CONTROL, INPUT, OUTPUT, option
from asyncbatch.cli.options.ledger import RERUN

File = Annotated[
    str | None,
    typer.Argument(metavar="FILE", help="The pipeline file; `asyncbatch init` makes one."),
]
Check = Annotated[
    bool, option(CONTROL, "--check", help="Only say what is wrong with the file, if anything.")
]
PrintSchema = Annotated[
    bool, option(OUTPUT, "--print-schema", help="Print the JSON Schema of pipeline files.")
]
Set = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--set",
        metavar="KEY=VALUE",
        help="Put a value in the place of the file's: sink.table=people, source.0.timeout=5; "
        "repeatable.",
    ),
]
Only = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--only",
        metavar="SOURCE",
        help="Run only the source of this name (without one: http, http-2, files); repeatable.",
    ),
]
Limit = Annotated[
    int | None,
    option(
        INPUT,
        "--limit",
        min=1,
        metavar="N",
        help="Take only the first N records of each source; not remembered as done.",
    ),
]
DryRun = Annotated[
    bool,
    option(
        CONTROL,
        "--dry-run",
        help="Show what becomes of the first 10 records of each source (or --limit N), as a "
        "table; load nothing.",
    ),
]
FullRefresh = Annotated[
    bool,
    option(RERUN, "--full-refresh", help="Forget what is done: extract and load all again."),
]
Verbose = Annotated[
    bool, option(OUTPUT, "--verbose", "-v", help="Print a line for each input, on stderr.")
]
