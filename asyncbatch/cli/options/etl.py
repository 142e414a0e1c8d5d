"""Options that only `asyncbatch etl` has."""

from typing import Annotated

import typer

from asyncbatch.cli.options.common import CONTROL, INPUT, OUTPUT, option
from asyncbatch.cli.options.ledger import RERUN

File = Annotated[
    str | None,
    typer.Argument(metavar="FILE", help="The pipeline file; `asyncbatch init` creates one."),
]
Check = Annotated[
    bool, option(CONTROL, "--check", help="Only check the file and print its mistakes.")
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
        help="Override a value of the file: sink.table=people, source.0.timeout=5; repeatable.",
    ),
]
Only = Annotated[
    list[str] | None,
    option(
        INPUT,
        "--only",
        metavar="SOURCE",
        help="Run only the source with this name (unnamed ones: http, http-2, files); repeatable.",
    ),
]
Limit = Annotated[
    int | None,
    option(
        INPUT,
        "--limit",
        min=1,
        metavar="N",
        help="Read only the first N records of each source, without recording them as done.",
    ),
]
DryRun = Annotated[
    bool,
    option(
        CONTROL,
        "--dry-run",
        help="Show the rows of the first 10 records of each source (or --limit N) as a table; load "
        "nothing.",
    ),
]
FullRefresh = Annotated[
    bool,
    option(
        RERUN, "--full-refresh", help="Forget which inputs are done, and load all of them again."
    ),
]
Verbose = Annotated[
    bool, option(OUTPUT, "--verbose", "-v", help="Print a line for each input, on stderr.")
]
