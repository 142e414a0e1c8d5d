"""What each source of a run came to, and its sink: sections of its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field, structs

from asyncbatch.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SourceState = Literal["waiting", "reading", "done", "limited", "failed", "interrupted"]
"""Where a source is: `done` if all its inputs have come to an end, `failed` if none of them was
of any use, `limited` if no more of it was wanted, `interrupted` if the run ended before it."""


_MERGED: list[SourceState] = ["failed", "done", "limited", "waiting", "reading", "interrupted"]
"""Of two states in reports that are merged, the later one here counts."""


class Traffic(Struct, frozen=True):
    """What a source has asked a server for: pages that came, and the requests that took."""

    pages: int = 0
    requests: int = 0


class SourceReport(Struct):
    """What one source came to: its share of the run's counts.

    `found` counts the inputs known so far, which are all if `is_complete`; `extracted` the records
    read, also those that are still to be loaded. `traffic` is None if it asks no server.
    """

    name: str
    type: str
    state: SourceState = "waiting"
    tally: Tally = field(default_factory=Tally)
    found: int = 0
    is_complete: bool = False
    extracted: int = 0
    traffic: Traffic | None = None

    @property
    def input_noun(self) -> str:
        """What one of its inputs is called."""
        return {"files": "file", "http": "URL"}.get(self.type, "input")

    def judge(self, *, is_over: bool, limit: int | None) -> None:
        """Set the state; `is_over` if the run is, which wanted so many records at most."""
        tally = self.tally
        if limit is not None and tally.read >= limit:
            self.state = "limited"
        elif self.is_complete and tally.files >= self.found:
            self.state = "failed" if self.found and tally.failed == tally.files else "done"
        elif is_over:
            self.state = "interrupted"
        elif tally.files or self.extracted or (self.traffic and self.traffic.requests):
            self.state = "reading"


class SinkReport(Struct):
    """Where rows go, by names that may be shown to anybody; `rejected` counts what it refused.

    `mode` and `key` are a table's.
    """

    to: str
    table: str | None = None
    mode: str | None = None
    key: tuple[str, ...] = ()
    rejected: int = 0

    @property
    def place(self) -> str:
        """What people call it."""
        return f"{self.table} of {self.to}" if self.table else self.to


def merge_sources(sources: Iterable[SourceReport]) -> list[SourceReport]:
    """Return one for all of the same name and type, in the order in which they first come.

    Its state is the worst of theirs, but that a source has failed only if it has for all.
    """
    merged: dict[tuple[str, str], SourceReport] = {}
    for source in sources:
        known = merged.setdefault((source.name, source.type), source)
        if known is source:
            continue
        known.tally += source.tally
        if known.traffic and source.traffic:
            known.traffic = Traffic(
                known.traffic.pages + source.traffic.pages,
                known.traffic.requests + source.traffic.requests,
            )
        known.state = max(known.state, source.state, key=_MERGED.index)
    return list(merged.values())


def merge_sinks(sinks: Sequence[SinkReport | None]) -> SinkReport | None:
    """Return one for all, if they are the same."""
    first = sinks[0]
    if first is None:
        return None
    rejected = 0
    for sink in sinks:
        if sink is None or structs.replace(sink, rejected=first.rejected) != first:
            return None
        rejected += sink.rejected
    return structs.replace(first, rejected=rejected)


class Crew(Struct, frozen=True):
    """Workers of a cluster: those that there are now, their threads, and how many have left.

    They have done so many `tasks` in `busy_s` seconds of theirs. `memory` is that of our processes
    beside them, at the peak, in bytes.
    """

    workers: int
    threads: int
    left: int
    tasks: int
    busy_s: float
    memory: int


class Stages(Struct, frozen=True):
    """How far a run is, stage by stage.

    `worked` counts what has come out of the workers, its `written` being the rows made;
    `waiting` are the pages that no worker has taken yet, `lanes` how many batches may be in flight.
    """

    worked: Tally
    sources: list[SourceReport]
    waiting: int
    lanes: int
