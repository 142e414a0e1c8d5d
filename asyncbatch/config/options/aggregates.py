"""Options for aggregates over all records of a run."""

from __future__ import annotations

from typing import Annotated, ClassVar

from asyncbatch.config.options.declare import AggregateText, Count, Options, Path, option
from asyncbatch.config.options.streams import DEFAULT_MAX_KEYS


class AggregateOptions(Options, frozen=True, kw_only=True):
    """The groups of records."""

    panel: ClassVar[str] = "Aggregates, after all transforms"

    by: Annotated[
        tuple[Path, ...],
        option(
            "Group records by FIELDS, separated by commas: country,user.id. Each group is one "
            "row of the result.",
            metavar="FIELDS",
            commas=True,
            main=True,
        ),
    ] = ()
    max_keys: Annotated[
        Count,
        option("Allow up to N groups. More groups end the run.", metavar="N", needs="by"),
    ] = DEFAULT_MAX_KEYS


class AggregateFlags(AggregateOptions, frozen=True, kw_only=True):
    """The aggregates of a command line."""

    agg: Annotated[
        tuple[AggregateText, ...],
        option(
            "Compute AGGREGATES, separated by commas: count, or sum, avg, min, max, stddev, "
            "distinct, p50, p95, p99 of a field: sum:FIELD. NAME=sum:FIELD names the result.",
            metavar="AGGREGATES",
            commas=True,
            default="count, with --by",
            main=True,
        ),
    ] = ()
