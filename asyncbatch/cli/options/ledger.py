"""Options for repeated runs, which use the ledger of earlier runs."""

from typing import Annotated, Literal

from asyncbatch.cli.options.common import option

RERUN = "Running again"

Resume = Annotated[
    bool,
    option(
        RERUN, "--resume", help="Skip unchanged inputs that an earlier run of this job finished."
    ),
]
RetryFailed = Annotated[
    bool, option(RERUN, "--retry-failed", help="Process only inputs that failed before.")
]
Force = Annotated[bool, option(RERUN, "--force", help="Process all inputs again.")]
AllowDuplicates = Annotated[
    bool,
    option(
        RERUN,
        "--allow-duplicates",
        help="Load inputs again whose rows are in the table already, or were before they changed.",
    ),
]
Ledger = Annotated[
    str | None,
    option(
        RERUN,
        "--ledger",
        metavar="FILE",
        help="The file that records which inputs are done, if the target is not a database.  "
        "[default: a file in $XDG_STATE_HOME/asyncbatch]",
    ),
]
Identity = Annotated[
    Literal["stat", "content"],
    option(
        RERUN, "--identity", help="Detect a changed input by its size and time, or by its content."
    ),
]
