"""What a run came to: counts, failures, timings. Pure data, addable."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import Struct, field

from asyncbatch.records import Failure

if TYPE_CHECKING:
    from asyncbatch.records import BatchPart, Part

RunStatus = Literal["success", "partial", "failed", "interrupted"]

SCHEMA_VERSION = 1
LISTED_FAILURES = 1000
"""Failures that the machine-readable report lists; the rest is counted."""
SLOWEST_FILES = 5


class Tally(Struct):
    """Counts of files and records; adding another adds each.

    Records read are passed + dropped + rejected. `failures` counts what a failure budget
    does: failed files and rejected records. `retries` counts what was tried again.
    """

    succeeded: int = 0
    partial: int = 0
    failed: int = 0
    skipped: int = 0
    bytes: int = 0
    read: int = 0
    dropped: int = 0
    rejected: int = 0
    written: int = 0
    retries: int = 0

    @property
    def files(self) -> int:
        """All files that came to an end, skipped ones included."""
        return self.succeeded + self.partial + self.failed + self.skipped

    @property
    def passed(self) -> int:
        """Records that went through."""
        return self.read - self.dropped - self.rejected

    @property
    def failures(self) -> int:
        """Failed files and rejected records."""
        return self.failed + self.rejected

    @property
    def seen(self) -> int:
        """What a percentage of failures is of: files not skipped, and records."""
        return self.files - self.skipped + self.read

    def __iadd__(self, other: Tally) -> Tally:  # noqa: PYI034 - not meant for subclasses
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def tally_of(part: Part) -> Tally:
    """Return the counts of one part."""
    failed = len(part.errors)
    partial = sum(place not in part.errors for place in part.rejected)
    skipped = len(part.skipped)
    tally = Tally(
        succeeded=len(part) - failed - partial - skipped,
        partial=partial,
        failed=failed,
        skipped=skipped,
        bytes=sum(part.bytes),
        read=sum(part.records),
        dropped=sum(part.dropped.values()),
        rejected=sum(part.rejected.values()),
        written=part.written,
        retries=part.retries,
    )
    if told := part.told:
        sign = -1 if len(part) else 1
        tally.bytes += sign * told.bytes
        tally.read += sign * told.read
        tally.dropped += sign * told.dropped
        tally.rejected += sign * told.rejected
    return tally


class SlowFile(NamedTuple):
    """A file that took long."""

    elapsed_ms: float
    file: str


class Report(Struct):
    """The run so far, and in the end the whole of it. Times are in seconds.

    Of the failures it keeps the first `failure_limit` in input order. `target` is where rows
    go; if it is lost midway that is a failure too. `discarded` is why what was written does
    not stand, `notes` what else there is to say.
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
    def failures(self) -> list[Failure]:
        """The kept failures, in input order."""
        return [failure for *_, failure in sorted(self.kept, key=_input_order, reverse=True)]

    def add(self, found: BatchPart) -> None:
        """Add what a part says."""
        part = found.part
        self.tally += tally_of(part)
        for file, failure in part.failures():
            self._keep(file, failure)
        threshold = self.slowest[-1].elapsed_ms if len(self.slowest) == SLOWEST_FILES else 0.0
        if max(part.elapsed_ms, default=0.0) > threshold:
            slow = heapq.nlargest(
                SLOWEST_FILES, zip(part.elapsed_ms, range(len(part)), strict=True)
            )
            named = [SlowFile(ms, found.file(place)) for ms, place in slow]
            self.slowest = heapq.nlargest(SLOWEST_FILES, [*self.slowest, *named])

    def lose_target(self, message: str, file: str | None = None) -> None:
        """Take note that the target, or another `file`, can be written to no more."""
        if not self.target_lost:  # what fails next fails of that
            self.target_lost = True
            self._keep(-1, Failure(file or self.target or "", "sink", message))

    def discard(self, *, succeeded: bool, can_go_on: bool = False) -> None:
        """Take note that the target was left as it was; `can_go_on` if a later run may go on."""
        self.tally.written = 0
        ended = not self.interrupted and not self.over_budget and not self.target_lost
        why = "was not a success" if ended and not succeeded else "did not come to its end"
        self.discarded = f"{self.target} was left as it was: the run {why}"
        if can_go_on:
            self.discarded += " (--resume goes on where it ended)"

    def _keep(self, file: int, failure: Failure) -> None:
        self.failure_count += 1
        entry = (-file, -(failure.record or 0), -self.failure_count, failure)
        if len(self.kept) < self.failure_limit:
            heapq.heappush(self.kept, entry)
        elif _input_order(entry) > _input_order(self.kept[0]):
            heapq.heapreplace(self.kept, entry)


def _input_order(entry: tuple[int, int, int, Failure]) -> tuple[int, int, int]:
    return entry[:3]
