"""The options of `asyncbatch run` that carry on where an earlier run ended."""

from typing import Annotated, Literal

from asyncbatch.cli.options.common import option

RERUN = "Running again"

Resume = Annotated[
    bool,
    option(RERUN, "--resume", help="Skip inputs that an earlier run of this job did, unchanged."),
]
RetryFailed = Annotated[
    bool, option(RERUN, "--retry-failed", help="Work only on inputs that failed before.")
]
Force = Annotated[bool, option(RERUN, "--force", help="Work on all inputs again.")]
AllowDuplicates = Annotated[
    bool,
    option(
        RERUN,
        "--allow-duplicates",
        help="Add rows of inputs again that are in the table already, or were before a change.",
    ),
]
Ledger = Annotated[
    str | None,
    option(
        RERUN,
        "--ledger",
        metavar="FILE",
        help="Where to remember what is done, if not in the target's database.  [default: a file "
        "in $XDG_STATE_HOME/asyncbatch]",
    ),
]
Identity = Annotated[
    Literal["stat", "content"],
    option(RERUN, "--identity", help="Tell a changed input by its size and time, or its content."),
]
