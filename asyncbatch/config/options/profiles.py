"""Options of profiles of records, and of schemas that are inferred from them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from asyncbatch.config.options.control import RunOutputFlags
from asyncbatch.core.options import Count, Name, Natural, Options, option
from asyncbatch.core.settings import ProfileSettings


class ProfileFlags(Options, frozen=True, kw_only=True):
    """The contents of a profile."""

    panel: ClassVar[str] = "Profile"

    redact: Annotated[
        bool,
        option(
            "Show no values of the data, only their form: letters as x, digits as 9.", main=True
        ),
    ] = False
    top: Annotated[
        Natural, option("Show the N most frequent values of each field.", metavar="N", main=True)
    ] = 5
    max_fields: Annotated[
        Count,
        option(
            "Follow at most N fields. With more, objects with many fields become maps.",
            metavar="N",
        ),
    ] = ProfileSettings().max_fields


class ProfileOutputFlags(RunOutputFlags, frozen=True, kw_only=True):
    """The output of a profile."""

    output: Annotated[
        Literal["text", "json"],
        option("Print tables (text), or one object (json).", short="-o", main=True),
    ] = "text"
    quiet: Annotated[
        bool,
        option(
            "Print only the profile, and failures on stderr: no progress, no summary.",
            short="-q",
            main=True,
        ),
    ] = False


class InferFlags(Options, frozen=True, kw_only=True):
    """The contents of an inferred schema."""

    panel: ClassVar[str] = "Schema"

    to: Annotated[
        Name | None,
        option(
            "Write the schema to FILE.",
            metavar="FILE",
            default="standard output",
            writes=True,
            main=True,
        ),
    ] = None
    strict: Annotated[
        bool,
        option(
            "Allow only the fields and the formats (dates, e-mails, ...) that were seen.", main=True
        ),
    ] = False
    update: Annotated[
        Name | None,
        option(
            "Widen the JSON Schema in FILE, so that the inputs satisfy it, too.",
            metavar="FILE",
            trusted=True,
            main=True,
        ),
    ] = None
    max_fields: Annotated[
        Count,
        option(
            "Describe at most N fields. With more, objects with many fields become maps.",
            metavar="N",
        ),
    ] = ProfileSettings().max_fields


class SchemaOutputFlags(RunOutputFlags, frozen=True, kw_only=True):
    """The output of a run that infers a schema: the schema, and a summary of the run."""

    output: Annotated[
        Literal["text", "json"],
        option(
            "Print the summary as text, or with --to as one object (json).", short="-o", main=True
        ),
    ] = "text"
    quiet: Annotated[
        bool,
        option(
            "Print only the schema, and failures on stderr: no progress, no summary.",
            short="-q",
            main=True,
        ),
    ] = False


class DiffFlags(Options, frozen=True, kw_only=True):
    """The comparison of two schemas."""

    panel: ClassVar[str] = "Comparison"

    compatible: Annotated[
        Literal["backward", "forward", "full"],
        option(
            "Break if values of OLD do not satisfy NEW (backward), if values of NEW do not satisfy "
            "OLD (forward), or for both.",
        ),
    ] = "backward"
    output: Annotated[
        Literal["text", "json"],
        option("Print lines of text, or one object (json).", short="-o"),
    ] = "text"
