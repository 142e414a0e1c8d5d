"""Options for pipeline files: checks, overrides, previews."""

from __future__ import annotations

from typing import Annotated, ClassVar

from asyncbatch.core.options import Count, Name, Natural, Options, option


class OverrideFlags(Options, frozen=True, kw_only=True):
    """Changes of a pipeline file."""

    panel: ClassVar[str] = "Input"

    set: Annotated[
        tuple[str, ...],
        option(
            "Set a value of the pipeline file: sink.table=people, source.0.timeout=5, "
            "window.lateness=2s.",
            metavar="KEY=VALUE",
            trusted=True,
            main=True,
        ),
    ] = ()


class ReplaceFlags(Options, frozen=True, kw_only=True):
    """Values in place of those of a pipeline file."""

    panel: ClassVar[str] = "Target"

    to: Annotated[
        str | None,
        option(
            "Write to TARGET instead. Keys of [sink] for other kinds of targets are ignored.",
            metavar="TARGET",
            default="the file's sink.to",
            writes=True,
            main=True,
        ),
    ] = None
    table: Annotated[
        Name | None,
        option(
            "Write to table NAME of the database.",
            metavar="NAME",
            default="the file's sink.table",
            main=True,
        ),
    ] = None
    dead_letter: Annotated[
        Name | None,
        option(
            "Keep rejected records and the names of failed files in FILE, as JSON Lines.",
            metavar="FILE",
            default="the file's dead_letter.to",
            panel="Failures",
            writes=True,
            main=True,
        ),
    ] = None
    retries: Annotated[
        Natural | None,
        option(
            "Retry a request or a read up to N times after a temporary failure.",
            metavar="N",
            default="5 for http sources, 0 for files",
            panel="Failures",
        ),
    ] = None


class CheckFlags(Options, frozen=True, kw_only=True):
    """The check of a pipeline file."""

    panel: ClassVar[str] = "Control"

    check: Annotated[
        bool,
        option(
            "Check the pipeline file and print its mistakes; run nothing.",
            main=True,
        ),
    ] = False


class EtlFlags(Options, frozen=True, kw_only=True):
    """The sources of a pipeline, and the part of them that is read."""

    panel: ClassVar[str] = "Input"

    only: Annotated[
        tuple[Name, ...],
        option(
            "Run only this SOURCE: its name, or without a name http, http-2, files.",
            metavar="SOURCE",
            main=True,
        ),
    ] = ()
    limit: Annotated[
        Count | None,
        option(
            "Read only the first N records of each source, and do not remember them as done.",
            name="--max-records",
            old="--limit",
            metavar="N",
            main=True,
        ),
    ] = None
    resume: Annotated[
        bool,
        option(
            "Skip unchanged inputs that are done. A pipeline always does this.",
            panel="Running again",
        ),
    ] = False
    full_refresh: Annotated[
        bool,
        option(
            "Forget which inputs are done, and load all of them again.",
            panel="Running again",
            main=True,
        ),
    ] = False
    allow_duplicates: Annotated[
        bool,
        option(
            "Load inputs again even if that doubles rows in the table.",
            panel="Running again",
        ),
    ] = False
    dry_run: Annotated[
        bool,
        option(
            "Show the first 10 records of each source (or --max-records N) as a table; load "
            "nothing.",
            panel="Control",
            main=True,
        ),
    ] = False
