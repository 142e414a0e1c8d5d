"""The `[window]` table: windows, events and aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from asyncbatch.config.options.streams import ARRIVAL, WindowOptions
from asyncbatch.config.pipeline_file.aggregate import (
    aggregate_contradictions,
    aggregated_fields,
)
from asyncbatch.core.options import AggregateText, Span, WindowText
from asyncbatch.core.units import format_duration
from asyncbatch.windows.aggregates import parse_aggregates
from asyncbatch.windows.spec import parse_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncbatch.core.options import Contradictions, Given, KeyPath
    from asyncbatch.windows.aggregates import Aggregate
    from asyncbatch.windows.spec import WindowSpec

# the keys for the length of each kind of window
_KIND_KEYS = {"tumbling": ("size",), "hopping": ("size", "every"), "session": ("gap",)}


class WindowTable(WindowOptions, frozen=True, kw_only=True):
    """Windows of time: a `spec` as for --window, or its parts."""

    spec: Annotated[
        WindowText | None,
        Meta(description="tumbling:SIZE, hopping:SIZE/EVERY or session:GAP, as for --window."),
    ] = None
    kind: Annotated[
        Literal["tumbling", "hopping", "session"] | None, Meta(description="The kind of windows.")
    ] = None
    size: Annotated[Span | None, Meta(description="The length of a window.")] = None
    every: Annotated[
        Span | None, Meta(description="The time between the starts of two windows (hopping).")
    ] = None
    gap: Annotated[Span | None, Meta(description="The silence that ends a session.")] = None
    aggregates: Annotated[
        tuple[AggregateText, ...] | dict[str, AggregateText],
        Meta(description='The results of a window: ["count", "sum:value"], or a table of names.'),
    ] = ("count",)

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        yield from _kind_contradictions(given)
        yield from aggregate_contradictions(given)
        if given.get("time") == ARRIVAL:
            for key in ("lateness", "idle_timeout", "max_future"):
                if given.get(key):
                    yield (key,), "needs the events' own time, but time is arrival"
        if given.get("overflow_key") is not None and given.get("by", ()) == ():
            yield (
                ("overflow_key",),
                "is only for events that are grouped by a field: name one in by",
            )

    @property
    def windows(self) -> WindowSpec:
        """The specification of the windows."""
        if self.spec is not None:
            return parse_window(self.spec)
        return parse_window(_spec_text({"kind": self.kind, "size": self.size,
                                        "every": self.every, "gap": self.gap}))  # fmt: skip

    @property
    def aggregate_columns(self) -> tuple[Aggregate, ...]:
        """The aggregates of each window."""
        return parse_aggregates(self.aggregates)

    def fields(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield the path of each field that events must have, and its place in the table."""
        if self.time != ARRIVAL:
            yield ("time",), self.time
        for index, path in enumerate(self.by):
            yield ("by", index), path
        yield from aggregated_fields(self.aggregates)


def _kind_contradictions(given: Given) -> Contradictions:
    """Yield the contradictions between the keys for the kind of window."""
    parts = [key for key in ("kind", "size", "every", "gap") if key in given]
    if "spec" in given:
        for key in parts:
            yield (key,), "is also given by spec: choose one"
        return
    if "kind" not in given:
        form = 'write spec = "tumbling:5s", or kind and size'
        yield ("kind",), f"is missing: {form}"
        return
    kind = given["kind"]
    if kind is None:
        return
    for key in parts[1:]:
        if key not in _KIND_KEYS[kind]:
            yield (key,), f"is not for {kind} windows, which need {' and '.join(_KIND_KEYS[kind])}"
    missing = [key for key in _KIND_KEYS[kind] if key not in given]
    for key in missing:
        yield (key,), 'is missing: a duration, such as "5s"'
    if not missing and None not in (given[key] for key in _KIND_KEYS[kind]):
        try:
            parse_window(_spec_text(given))
        except ValueError as error:
            yield (), str(error)


def _spec_text(parts: Mapping[str, object]) -> str:
    """Return the specification as text for --window."""
    kind = str(parts["kind"])
    spans = [parts[key] for key in _KIND_KEYS[kind]]
    return f"{kind}:{'/'.join(format_duration(span) for span in spans if isinstance(span, int))}"
