"""Options for aggregates: those of windows, and those of all records of a run."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from asyncbatch.core.options import AggregateText, Count, Options, Path, option

DEFAULT_MAX_KEYS = 100_000

GroupFields: TypeAlias = Annotated[
    tuple[Path, ...],
    option(
        "Group by FIELDS, separated by commas: user.id,country.",
        metavar="FIELDS",
        commas=True,
        main=True,
    ),
]
AGGREGATES_TEXT = (
    "Compute count, or sum, avg, min, max, stddev, distinct, p50, p95, p99 of a field (avg:FIELD), "
    "separated by commas. NAME=avg:FIELD names the result."
)


class AggregateOptions(Options, frozen=True, kw_only=True):
    """The groups of the records of a run."""

    panel: ClassVar[str] = "Aggregates, after all transforms"

    by: GroupFields = ()
    max_keys: Annotated[
        Count | None,
        option(
            "Allow up to N groups. More groups end the run.",
            metavar="N",
            default=f"{DEFAULT_MAX_KEYS} without --to, else no limit",
        ),
    ] = None


class AggregateFlags(AggregateOptions, frozen=True, kw_only=True):
    """The aggregates of a command line."""

    agg: Annotated[
        tuple[AggregateText, ...],
        option(AGGREGATES_TEXT, metavar="AGG", commas=True, default="count, with --by", main=True),
    ] = ()
