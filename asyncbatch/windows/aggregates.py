"""Aggregates of a window, for example `count`, `sum:value` or `slow=p95:latency`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from msgspec import Struct, convert
from msgspec.structs import replace

from asyncbatch.errors import SinkError
from asyncbatch.windows.statistics import (
    Distinct,
    Extreme,
    Percentiles,
    Squares,
    Sum,
    extreme_of,
    nearest,
    sum_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.records import Json

_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]+)?)", re.ASCII)
_LONG_BITS = 14_000  # of integers of more than 4,200 digits
_KINDS = "count, sum:F, avg:F, min:F, max:F, stddev:F, distinct:F, p50:F, p95:F, p99:F"


class Statistic(Protocol):
    """A mergeable summary of values. Its result does not depend on their order."""

    State: ClassVar[Any]  # the type of `state()`, which can be written as JSON

    def add(self, values: Sequence[Json]) -> None:
        """Add values."""
        ...

    def merge(self, other: Self) -> None:
        """Add the values of another statistic, whose result stays the same."""
        ...

    def state(self) -> Any:
        """Return the state as data for a checkpoint."""
        ...

    def restore(self, state: Any) -> None:
        """Restore the state of an empty statistic."""
        ...


class Aggregate(Struct, frozen=True):
    """The settings of one aggregate, which is one column of the result."""

    name: str
    kind: str  # for example sum or p95
    field: str = ""  # "" for count

    @property
    def takes_numbers(self) -> bool:
        """Whether its field must be a number."""
        return self.kind not in ("count", "distinct")


def parse_aggregate(text: str) -> Aggregate:
    """Parse `[NAME=]KIND[:FIELD]`. Raises ValueError."""
    name, equals, rest = text.partition("=")
    if not equals or ":" in name:
        name, rest = "", text
    kind, colon, field = rest.partition(":")
    known = kind in _STATISTICS or kind == "count" or _PERCENTILE.fullmatch(kind)
    if not known or (equals and not name and text.startswith("=")):
        advice = '; if a field has a comma, quote the whole: "sum:a,b"' if '"' in text else ""
        raise ValueError(
            f"{text!r} is not an aggregate; write {_KINDS}, or NAME= before one of them{advice}"
        )
    if (kind == "count") == bool(colon) or bool(colon) != bool(field):
        advice = "count has no field" if kind == "count" else f"write {kind}:FIELD"
        raise ValueError(f"{text!r} is not an aggregate: {advice}")
    return Aggregate(name or (f"{kind}_{field}" if field else kind), kind, field)


def parse_aggregates(texts: str | Sequence[str] | Mapping[str, str]) -> tuple[Aggregate, ...]:
    """Parse one text, several, or texts by aggregate name. Raises ValueError."""
    if isinstance(texts, Mapping):
        return tuple(replace(parse_aggregate(text), name=name) for name, text in texts.items())
    return tuple(map(parse_aggregate, (texts,) if isinstance(texts, str) else texts))


_STATISTICS: dict[str, Callable[[], Statistic]] = {
    "sum": Sum,
    "avg": Sum,
    "min": lambda: Extreme(min),
    "max": lambda: Extreme(max),
    "stddev": Squares,
    "distinct": Distinct,
}


# Aggregates that can be computed from a few values at once.
_DIRECT: dict[str, Callable[[Sequence[Any]], Any]] = {
    "sum": sum_of,
    "min": partial(extreme_of, min),
    "max": partial(extreme_of, max),
}


class AggregateSet:
    """The aggregates of a stream.

    Aggregates of one field share a statistic if they can, as sum and avg do. Raises ValueError for
    a repeated name.
    """

    def __init__(self, aggregates: Sequence[Aggregate]) -> None:
        names = [aggregate.name for aggregate in aggregates]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(
                f"two aggregates have the name {doubled!r}; write NAME= before one of them"
            )
        self.aggregates: tuple[Aggregate, ...] = tuple(aggregates)
        # The fields whose values are needed, in the order of the columns of events.
        self.fields: tuple[str, ...] = tuple(
            dict.fromkeys(one.field for one in aggregates if one.field)
        )
        self._makers: list[tuple[int, Callable[[], Statistic]]] = []
        self._results: list[tuple[str, Callable[[Totals], Any]]] = []
        # The results of a few events, without totals; none if an aggregate needs totals.
        self._direct: list[tuple[str, Callable[[int, Sequence[Sequence[Any]]], Any]]] = []
        indexes: dict[tuple[str, str], int] = {}
        for one in aggregates:
            if one.kind == "count":
                self._results.append((one.name, lambda totals: totals.count))
                continue
            shared = "sum" if one.kind == "avg" else one.kind
            shared = "percentiles" if shared[0] == "p" else shared
            index = indexes.setdefault((shared, one.field), len(indexes))
            if index == len(self._makers):
                maker = _STATISTICS.get(one.kind, Percentiles)
                self._makers.append((self.fields.index(one.field), maker))
            self._results.append((one.name, _result(one.kind, index)))
        if all(one.kind in _DIRECT or one.kind == "count" for one in aggregates):
            self._direct = [(one.name, self._direct_result(one)) for one in aggregates]

    @property
    def number_fields(self) -> frozenset[str]:
        """The fields that must be numbers."""
        return frozenset(one.field for one in self.aggregates if one.takes_numbers)

    def _direct_result(self, one: Aggregate) -> Callable[[int, Sequence[Sequence[Any]]], Any]:
        if one.kind == "count":
            return lambda count, _: count
        compute, column = _DIRECT[one.kind], self.fields.index(one.field)
        return lambda _, columns: compute(columns[column])

    def empty(self) -> Totals:
        """Return the totals of no events."""
        return Totals([(column, make()) for column, make in self._makers])

    def restored(self, count: int, states: Sequence[Any]) -> Totals:
        """Return totals of `count` events from the states of their statistics.

        Raises ValueError or msgspec.ValidationError for invalid states.
        """
        totals = self.empty()
        totals.count = count
        for (_, statistic), state in zip(totals.statistics, states, strict=True):
            statistic.restore(convert(state, type(statistic).State))
        return totals

    def results(self, totals: Totals) -> dict[str, Any]:
        """Return the values of the aggregates by name.

        Raises SinkError for an integer that JSON texts of this program cannot have.
        """
        return self._checked({name: result(totals) for name, result in self._results})

    def results_of(self, count: int, columns: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the aggregates of `count` events, as `results` does."""
        if self._direct:
            return self._checked({name: result(count, columns) for name, result in self._direct})
        totals = self.empty()
        totals.add(count, columns)
        return self.results(totals)

    @staticmethod
    def _checked(found: dict[str, Any]) -> dict[str, Any]:
        for name, value in found.items():
            if type(value) is int and value.bit_length() > _LONG_BITS:
                _check_length(name, value)
        return found


class Totals:
    """The statistics of the events of one window and key."""

    __slots__ = ("count", "statistics")

    def __init__(self, statistics: list[tuple[int, Statistic]]) -> None:
        self.count: int = 0
        self.statistics: list[tuple[int, Statistic]] = statistics

    def add(self, count: int, columns: Sequence[Sequence[Any]]) -> None:
        """Add `count` events; each column has the values of one field."""
        self.count += count
        for column, statistic in self.statistics:
            statistic.add(columns[column])

    def merge(self, other: Totals) -> None:
        """Add the events of other totals."""
        self.count += other.count
        for (_, ours), (_, theirs) in zip(self.statistics, other.statistics, strict=True):
            ours.merge(theirs)

    def states(self) -> list[Any]:
        """Return the states of the statistics, for `AggregateSet.restored`."""
        return [statistic.state() for _, statistic in self.statistics]


def _check_length(name: str, value: int) -> None:
    """Raise SinkError for an integer that is longer than those of JSON texts may be."""
    from asyncbatch.formats.grammar import MAX_INTEGER, MAX_INTEGER_DIGITS, MIN_INTEGER

    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise SinkError(
            f"{name} has more than {MAX_INTEGER_DIGITS:,} digits, the limit of an integer: leave "
            "out the largest numbers"
        )


def _result(kind: str, index: int) -> Callable[[Totals], Any]:
    """Return a function that reads an aggregate from the statistic at `index`."""

    def of(totals: Totals) -> Any:
        return totals.statistics[index][1]

    if kind == "avg":
        return lambda totals: nearest(of(totals).exact() / totals.count)
    if match := _PERCENTILE.fullmatch(kind):
        percent = float(match[1])
        return lambda totals: of(totals).at(percent)
    return lambda totals: of(totals).result()
