"""Options for pipeline files: checks, overrides, previews."""

from __future__ import annotations

from typing import Annotated, ClassVar

from asyncbatch.config.options.declare import Count, Name, Natural, Options, option


class OverrideFlags(Options, frozen=True, kw_only=True):
    """Changes of a pipeline file."""

    panel: ClassVar[str] = "Input"

    set: Annotated[
        tuple[str, ...],
        option(
            "Override a value of the pipeline file: sink.table=people, source.0.timeout=5, "
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
            "Write to this target in place of the file's sink.to, and without the keys that are "
            "only for another kind of target.",
            metavar="TARGET",
            default="the file's sink.to",
            writes=True,
            main=True,
        ),
    ] = None
    table: Annotated[
        Name | None,
        option(
            "The table in the database.", metavar="NAME", default="the file's sink.table", main=True
        ),
    ] = None
    dead_letter: Annotated[
        Name | None,
        option(
            "Keep rejected records and the names of failed files, as JSON Lines.",
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
            "Retry temporary failures of each source: of a request, of a read.",
            metavar="N",
            default="the retries of each source: 5 for http, 0 for files",
            panel="Failures",
        ),
    ] = None


class CheckFlags(Options, frozen=True, kw_only=True):
    """The check of a pipeline file."""

    panel: ClassVar[str] = "Control"

    check: Annotated[
        bool,
        option(
            "Only check the pipeline file and print its mistakes.",
            main=True,
        ),
    ] = False


class EtlFlags(Options, frozen=True, kw_only=True):
    """The sources of a pipeline, and the part of them that is read."""

    panel: ClassVar[str] = "Input"

    only: Annotated[
        tuple[Name, ...],
        option(
            "Run only the source with this name (unnamed ones: http, http-2, files).",
            metavar="SOURCE",
            main=True,
        ),
    ] = ()
    limit: Annotated[
        Count | None,
        option(
            "Read only the first N records of each source, without recording them as done.",
            name="--max-records",
            old="--limit",
            metavar="N",
            main=True,
        ),
    ] = None
    resume: Annotated[
        bool,
        option(
            "Skip inputs that are done and unchanged, as a pipeline always does.",
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
            "Load inputs again whose rows are in the table already, or were before they changed.",
            panel="Running again",
        ),
    ] = False
    dry_run: Annotated[
        bool,
        option(
            "Show the rows of the first 10 records of each source (or --max-records N) as a table; "
            "load nothing.",
            panel="Control",
            main=True,
        ),
    ] = False
