"""Options for pipeline files: checks, overrides, previews."""

from __future__ import annotations

from typing import Annotated, ClassVar

from asyncbatch.config.options.declare import Count, Name, Options, option


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
            metavar="N",
            main=True,
        ),
    ] = None
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
            "Show the rows of the first 10 records of each source (or --limit N) as a table; load "
            "nothing.",
            panel="Control",
            main=True,
        ),
    ] = False
