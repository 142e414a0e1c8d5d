"""Conversion of the options for aggregates to the groups of a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.config.options.aggregates import DEFAULT_MAX_KEYS, AggregateFlags
from asyncbatch.config.options.target import LedgerFlags
from asyncbatch.errors import UsageError
from asyncbatch.sinks.groups import grouped_target
from asyncbatch.sinks.target import Target
from asyncbatch.windows.aggregates import parse_aggregates
from asyncbatch.windows.groups import GroupSettings

if TYPE_CHECKING:
    from asyncbatch.config.options.target import SinkOptions

SHOWN = "standard output"  # the name of the target of a result that is shown as a table


def flag_groups(flags: AggregateFlags) -> GroupSettings | None:
    """Return the groups of a command line, None without any. Raises UsageError."""
    if flags == AggregateFlags():
        return None
    if flags.max_keys is not None and not flags.by:
        raise UsageError("--max-keys needs --by: without it, there is one group")
    try:
        aggregates = parse_aggregates(flags.agg or ("count",))
    except ValueError as error:
        raise UsageError(str(error)) from None
    return GroupSettings(flags.by, aggregates, flags.max_keys)


def aggregate_target(target: Target | None, options: SinkOptions, groups: GroupSettings) -> Target:
    """Return the target of the aggregates, by default one that the command shows.

    Raises UsageError.
    """
    if options.unordered or options.batch_size is not None:
        name = "--unordered" if options.unordered else "--load-batch"
        raise UsageError(f"{name} has no effect with --by and --agg: leave it out")
    has_mode = options.mode is not None or bool(options.key)
    if target is None:
        if groups.max_keys is None:  # the shown rows are in memory
            groups = replace(groups, max_keys=DEFAULT_MAX_KEYS)
        target = Target(SHOWN, "program", "")
    return grouped_target(target, groups, has_mode=has_mode)


def refuse_ledger(flags: LedgerFlags) -> None:
    """Raise UsageError if a run with aggregates is asked to remember its inputs."""
    if flags != LedgerFlags(identity=flags.identity):
        raise UsageError(
            "aggregates are made of all inputs, so a run with --by or --agg remembers none: leave "
            "out --resume, --retry-failed, --force, --ledger and --allow-duplicates"
        )
