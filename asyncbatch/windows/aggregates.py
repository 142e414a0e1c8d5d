"""Aggregates of a window: `count`, `sum:value`, `slow=p95:latency`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from msgspec import Struct, convert
from msgspec.structs import replace

from asyncbatch.windows.statistics import Distinct, Extreme, Percentiles, Squares, Sum, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.records import Json

_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]+)?)", re.ASCII)
_KINDS = "count, sum:F, avg:F, min:F, max:F, stddev:F, distinct:F, p50:F, p95:F, p99:F"


class Statistic(Protocol):
    """A mergeable summary of values. The order of the values never matters."""

    State: ClassVar[Any]  # the type of `state`, which JSON can hold

    def add(self, values: Sequence[Json]) -> None:
        """Add values."""
        ...

    def merge(self, other: Self) -> None:
        """Add the values of another statistic, which stays as it is."""
        ...

    def state(self) -> Any:
        """Return the state, as data for a checkpoint."""
        ...

    def restore(self, state: Any) -> None:
        """Restore an empty statistic from a `state`."""
        ...


class Aggregate(Struct, frozen=True):
    """One column of the result: its name, its kind, and its field ("" for count)."""

    name: str
    kind: str
    field: str = ""

    @property
    def takes_numbers(self) -> bool:
        """Whether its field must be a number."""
        return self.kind not in ("count", "distinct")


def parse_aggregate(text: str) -> Aggregate:
    """Return the aggregate that `[NAME=]KIND[:FIELD]` stands for. Raises ValueError."""
    name, equals, rest = text.partition("=")
    if not equals or ":" in name:
        name, rest = "", text
    kind, colon, field = rest.partition(":")
    known = kind in _STATISTICS or kind == "count" or _PERCENTILE.fullmatch(kind)
    if not known or (equals and not name and text.startswith("=")):
        raise ValueError(f"{text!r} is no aggregate; write {_KINDS}, or NAME= before one of them")
    if (kind == "count") == bool(colon) or bool(colon) != bool(field):
        advice = "count has no field" if kind == "count" else f"write {kind}:FIELD"
        raise ValueError(f"{text!r} is no aggregate: {advice}")
    return Aggregate(name or (f"{kind}_{field}" if field else kind), kind, field)


def parse_aggregates(given: str | Sequence[str] | Mapping[str, str]) -> tuple[Aggregate, ...]:
    """Return the aggregates of texts, or of texts by name. Raises ValueError."""
    if isinstance(given, Mapping):
        return tuple(replace(parse_aggregate(text), name=name) for name, text in given.items())
    return tuple(map(parse_aggregate, (given,) if isinstance(given, str) else given))


_STATISTICS: dict[str, Callable[[], Statistic]] = {
    "sum": Sum,
    "avg": Sum,
    "min": lambda: Extreme(min),
    "max": lambda: Extreme(max),
    "stddev": Squares,
    "distinct": Distinct,
}


class AggregateSet:
    """The aggregates of a stream, with shared statistics.

    `fields` are the fields whose values are needed. Raises ValueError for a repeated name,
    UsageError for a missing library.
    """

    def __init__(self, aggregates: Sequence[Aggregate]) -> None:
        names = [aggregate.name for aggregate in aggregates]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two aggregates are called {doubled!r}; write NAME= before one")
        self.aggregates = tuple(aggregates)
        self.fields = tuple(dict.fromkeys(one.field for one in aggregates if one.field))
        self._makers: list[tuple[int, Callable[[], Statistic]]] = []
        self._results: list[tuple[str, Callable[[Totals], Any]]] = []
        places: dict[tuple[str, str], int] = {}
        for one in aggregates:
            if one.kind == "count":
                self._results.append((one.name, lambda totals: totals.count))
                continue
            kept = "sum" if one.kind == "avg" else "percentiles" if one.kind[0] == "p" else one.kind
            place = places.setdefault((kept, one.field), len(places))
            if place == len(self._makers):
                maker = _STATISTICS.get(one.kind, Percentiles)
                self._makers.append((self.fields.index(one.field), maker))
            self._results.append((one.name, _result(one.kind, place)))
        self.empty()  # raises now if a library is missing

    @property
    def number_fields(self) -> frozenset[str]:
        """The fields that must be numbers."""
        return frozenset(one.field for one in self.aggregates if one.takes_numbers)

    def empty(self) -> Totals:
        """Return the totals of no events."""
        return Totals([(column, make()) for column, make in self._makers])

    def restored(self, count: int, states: Sequence[Any]) -> Totals:
        """Return totals of `count` events with these states of statistics, as JSON.

        Raises ValueError or msgspec.ValidationError for invalid states.
        """
        totals = self.empty()
        totals.count = count
        for (_, statistic), state in zip(totals.statistics, states, strict=True):
            statistic.restore(convert(state, type(statistic).State))
        return totals

    def results(self, totals: Totals) -> dict[str, Any]:
        """Return the aggregates by name."""
        return {name: result(totals) for name, result in self._results}


class Totals:
    """The statistics of the events of one window and key."""

    __slots__ = ("count", "statistics")

    def __init__(self, statistics: list[tuple[int, Statistic]]) -> None:
        self.count = 0
        self.statistics = statistics

    def add(self, count: int, columns: Sequence[Sequence[Any]]) -> None:
        """Add `count` events; each column has the values of a field."""
        self.count += count
        for column, statistic in self.statistics:
            statistic.add(columns[column])

    def merge(self, other: Totals) -> None:
        """Add the events of another."""
        self.count += other.count
        for (_, ours), (_, theirs) in zip(self.statistics, other.statistics, strict=True):
            ours.merge(theirs)

    def states(self) -> list[Any]:
        """Return the statistics written down; see `AggregateSet.restored`."""
        return [statistic.state() for _, statistic in self.statistics]


def _result(kind: str, place: int) -> Callable[[Totals], Any]:
    """Return a function that reads an aggregate from the statistic at `place`."""

    def of(totals: Totals) -> Any:
        return totals.statistics[place][1]

    if kind == "avg":
        return lambda totals: nearest(of(totals).exact() / totals.count)
    if match := _PERCENTILE.fullmatch(kind):
        percent = float(match[1])
        return lambda totals: of(totals).at(percent)
    return lambda totals: of(totals).result()
