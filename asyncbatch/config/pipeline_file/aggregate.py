"""The `[aggregate]` table: groups of all records, and their aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from asyncbatch.config.options.aggregates import AggregateOptions
from asyncbatch.core.options import AggregateText
from asyncbatch.windows.aggregates import parse_aggregates
from asyncbatch.windows.groups import GroupSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.core.options import Contradictions, Given, KeyPath


class AggregateTable(AggregateOptions, frozen=True, kw_only=True):
    """Aggregates of all records, which the sink gets in place of the records."""

    aggregates: Annotated[
        tuple[AggregateText, ...] | dict[str, AggregateText],
        Meta(description='The results of a group: ["count", "sum:value"], or a table of names.'),
    ] = ("count",)

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        yield from aggregate_contradictions(given)
        if "max_keys" in given and not given.get("by", ()):
            yield ("max_keys",), "is only for groups: name a field in by"

    @property
    def groups(self) -> GroupSettings:
        """The groups of the records."""
        return GroupSettings(self.by, parse_aggregates(self.aggregates), self.max_keys)

    def fields(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield the path of each field that records must have, and its place in the table."""
        for index, path in enumerate(self.by):
            yield ("by", index), path
        yield from aggregated_fields(self.aggregates)


def aggregate_contradictions(given: Given) -> Contradictions:
    """Yield the contradictions of the key `aggregates`."""
    aggregates = given.get("aggregates")
    if aggregates is not None and not aggregates:
        yield ("aggregates",), 'is empty: write ["count"]'
    elif aggregates and None not in (
        aggregates.values() if isinstance(aggregates, dict) else aggregates
    ):
        names = [one.name for one in parse_aggregates(aggregates)]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield ("aggregates", index), f'is also called {name!r}: write "NAME=" before it'


def aggregated_fields(
    aggregates: Sequence[str] | Mapping[str, str],
) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of each aggregated field, and its place in the table."""
    is_named = isinstance(aggregates, dict)
    for index, aggregate in enumerate(parse_aggregates(aggregates)):
        if aggregate.field:
            yield ("aggregates", aggregate.name if is_named else index), aggregate.field
