"""What a run came to: counts, failures, timings. Pure data, addable."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import Struct, field

from asyncbatch.records import SOURCE_SPAN, Failure
from asyncbatch.tally import Tally, tally_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncbatch.records import BatchPart
    from asyncbatch.sections import Crew, SinkReport, SourceReport

RunStatus = Literal["success", "partial", "failed", "interrupted"]

SCHEMA_VERSION = 1
LISTED_FAILURES = 1000
"""Failures that the machine-readable report lists; the rest is counted."""
SLOWEST_FILES = 5


class SlowFile(NamedTuple):
    """A file that took long."""

    elapsed_ms: float
    file: str


class Report(Struct):
    """The run so far, and in the end the whole of it. Times are in seconds.

    Of the failures it keeps the first `failure_limit` in input order. `target` is where rows
    go; if it is lost midway that is a failure too. `discarded` is why what was written does
    not stand, `notes` what else there is to say. `sources`, in the order of the job's, and `sink`
    are there if somebody watches: see `watching`. `crew` is the cluster that worked, if one did.
    """

    failure_limit: float = LISTED_FAILURES
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    elapsed_s: float = 0.0
    peak_memory_bytes: int = 0
    tally: Tally = field(default_factory=Tally)
    slowest: list[SlowFile] = field(default_factory=list)
    interrupted: bool = False
    over_budget: bool = False
    target: str | None = None
    target_lost: bool = False
    discarded: str | None = None
    notes: list[str] = field(default_factory=list)
    sources: list[SourceReport] = field(default_factory=list)
    sink: SinkReport | None = None
    crew: Crew | None = None
    failure_count: int = 0
    kept: list[tuple[int, int, int, Failure]] = field(default_factory=list)
    """A heap of kept failures, the last first: negative file, record and running number."""

    @property
    def status(self) -> RunStatus:
        """The verdict on the run."""
        if self.interrupted:
            return "interrupted"
        if self.target_lost:
            return "failed"
        if not self.tally.failures:
            return "success"
        return "failed" if self.tally.failed == self.tally.files else "partial"

    @property
    def input_noun(self) -> str:
        """What inputs are called, which are files unless there are sources of something else."""
        return "file" if all(source.type == "files" for source in self.sources) else "input"

    @property
    def failures(self) -> list[Failure]:
        """The kept failures, in input order."""
        return [failure for *_, failure in sorted(self.kept, key=_input_order, reverse=True)]

    def add(self, found: BatchPart) -> None:
        """Add what a part says."""
        part, tally = found.part, tally_of(found.part)
        self.tally += tally
        if self.sources:
            self.sources[found.batch.source].tally += tally
        if self.sink is not None:
            self.sink.rejected += sum(failure.kind == "sink" for _, failure in part.rejections)
        piece = found.batch.piece
        page = piece.number if piece is not None and piece.arrival is not None else 0
        for file, failure in part.failures():
            self._keep(file, failure, page)
        threshold = self.slowest[-1].elapsed_ms if len(self.slowest) == SLOWEST_FILES else 0.0
        if max(part.elapsed_ms, default=0.0) > threshold:
            slow = heapq.nlargest(
                SLOWEST_FILES, zip(part.elapsed_ms, range(len(part)), strict=True)
            )
            named = [SlowFile(ms, found.file(place)) for ms, place in slow]
            self.slowest = heapq.nlargest(SLOWEST_FILES, [*self.slowest, *named])

    def add_retries(self, by_source: Mapping[int, int]) -> None:
        """Add how often sources have tried again."""
        self.tally.retries += sum(by_source.values())
        if self.sources:
            for number, retries in by_source.items():
                self.sources[number].tally.retries += retries

    def lose_target(self, message: str, file: str | None = None) -> None:
        """Take note that the target, or another `file`, can be written to no more."""
        if not self.target_lost:  # what fails next fails of that
            self.target_lost = True
            self._keep(-1, Failure(file or self.target or "", "sink", message))

    def discard(self, *, succeeded: bool, can_go_on: bool = False) -> None:
        """Take note that the target was left as it was; `can_go_on` if a later run may go on."""
        self.tally.written = 0
        for source in self.sources:
            source.tally.written = 0
        ended = not self.interrupted and not self.over_budget and not self.target_lost
        why = "was not a success" if ended and not succeeded else "did not come to its end"
        self.discarded = f"{self.target} was left as it was: the run {why}"
        if can_go_on:
            self.discarded += " (--resume goes on where it ended)"

    def _keep(self, file: int, failure: Failure, page: int = 0) -> None:
        """Keep a failure if it is one of the first; records are numbered anew in each `page`."""
        self.failure_count += 1
        record = page * SOURCE_SPAN + (failure.record or 0)
        entry = (-file, -record, -self.failure_count, failure)
        if len(self.kept) < self.failure_limit:
            heapq.heappush(self.kept, entry)
        elif _input_order(entry) > _input_order(self.kept[0]):
            heapq.heapreplace(self.kept, entry)


def _input_order(entry: tuple[int, int, int, Failure]) -> tuple[int, int, int]:
    return entry[:3]
