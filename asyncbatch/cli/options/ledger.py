"""The options of `asyncbatch run` that carry on where an earlier run ended."""

from typing import Annotated, Literal

from asyncbatch.cli.options.common import option

AGAIN = "Running again"

Resume = Annotated[
    bool,
    option(AGAIN, "--resume", help="Skip inputs that an earlier run of this job did, unchanged."),
]
RetryFailed = Annotated[
    bool, option(AGAIN, "--retry-failed", help="Work only on inputs that failed before.")
]
Force = Annotated[bool, option(AGAIN, "--force", help="Work on all inputs again.")]
AllowDuplicates = Annotated[
    bool,
    option(
        AGAIN,
        "--allow-duplicates",
        help="Add rows of inputs again that are in the table already, or were before a change.",
    ),
]
Ledger = Annotated[
    str | None,
    option(
        AGAIN,
        "--ledger",
        metavar="FILE",
        help="Where to remember what is done, if not in the target's database.  [default: a file "
        "in $XDG_STATE_HOME/asyncbatch]",
    ),
]
Identity = Annotated[
    Literal["stat", "content"],
    option(AGAIN, "--identity", help="Tell a changed input by its size and time, or its content."),
]
