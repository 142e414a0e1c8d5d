"""Options for runs that wait for more files."""

from __future__ import annotations

from typing import Annotated, ClassVar

from asyncbatch.core.options import Count, Delay, Name, Options, Seconds, option


class WatchFlags(Options, frozen=True, kw_only=True):
    """The watch of folders, and the finished files in them."""

    panel: ClassVar[str] = "Watching"

    watch: Annotated[
        bool,
        option(
            "Process the files of the folders, then each new or changed file, until stopped. "
            "Finished files are remembered, as with --resume.",
            main=True,
        ),
    ] = False
    settle: Annotated[
        Delay,
        option(
            "Take a file that is written in place once it is unchanged for DURATION. A renamed "
            "file is taken at once.",
            metavar="DURATION",
            needs="watch",
        ),
    ] = 1.0
    marker: Annotated[
        Name | None,
        option(
            "Take a file only once there is a file of its name and this ENDING: .done waits for "
            "a.json.done.",
            metavar="ENDING",
            needs="watch",
        ),
    ] = None
    poll: Annotated[
        Seconds | None,
        option(
            "Look at the folders every DURATION, for network drives, which send no notifications.",
            metavar="DURATION",
            needs="watch",
            default="notifications, and a look every 30s",
        ),
    ] = None
    move_done: Annotated[
        Name | None,
        option(
            "Move each file below DIR once all its records are written.",
            metavar="DIR",
            needs="watch",
            trusted=True,
        ),
    ] = None
    move_failed: Annotated[
        Name | None,
        option(
            "Move each file below DIR that failed, or of which a record was rejected.",
            metavar="DIR",
            needs="watch",
            trusted=True,
        ),
    ] = None
    metrics_port: Annotated[
        Count | None,
        option(
            "Serve metrics for Prometheus on PORT of this machine (127.0.0.1).",
            metavar="PORT",
            needs="watch",
            trusted=True,
        ),
    ] = None
    delete_done: Annotated[
        bool,
        option("Delete each file once all its records are written.", needs="watch", trusted=True),
    ] = False
