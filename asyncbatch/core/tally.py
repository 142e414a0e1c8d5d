"""Counts of a run, and the failure budget over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from asyncbatch.core.records import Failure  # noqa: TC001 - msgspec reads the types at run time

if TYPE_CHECKING:
    from asyncbatch.core.batches import Part

PERCENT_FROM = 100
"""A percentage is not judged before so much was seen: one bad file of two is no trend."""


class FailureBudget(Struct, frozen=True):
    """At most `limit` failures, or, with `percent`, at most `limit` in a hundred seen."""

    limit: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> FailureBudget:
        """Return the budget that `N` or `P%` stands for. Raises ValueError with what to write."""
        percent = text.endswith("%")
        advice = f"{text!r} is neither a number of failures (5) nor a percentage (2.5%)"
        try:
            limit = float(text[:-1]) if percent else int(text)
        except ValueError:
            raise ValueError(advice) from None
        if not 0 <= limit <= (100 if percent else float("inf")):
            raise ValueError(advice)
        return cls(limit, percent)

    def is_exceeded(self, failures: int, seen: int, *, final: bool = False) -> bool:
        """Whether `failures` of what was `seen` (files and records) are more than allowed."""
        if not self.percent:
            return failures > self.limit
        return (final or seen >= PERCENT_FROM) and failures * 100 > self.limit * seen

    def __str__(self) -> str:
        return f"{self.limit:g}{'%' if self.percent else ''}"


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
    if told := part.counts:
        sign = -1 if len(part) else 1
        tally.bytes += sign * told.bytes
        tally.read += sign * told.read
        tally.dropped += sign * told.dropped
        tally.rejected += sign * told.rejected
    return tally


_KEPT = 20


class StreamTally(Struct):
    """Counts of records read, of events in windows, and of those that are in none.

    `late_in_part` are in some of their windows, for which they came in time. `lost` is how often
    a source had something that could not be read. Failures are what a failure budget counts:
    rejected records, late events and losses. The first few rejections and losses are kept.
    Windows that the target would not have are `refused`; the first few reasons are kept.
    """

    bytes: int = 0
    read: int = 0
    events: int = 0
    dropped: int = 0
    rejected: int = 0
    late: int = 0
    late_in_part: int = 0
    windows: int = 0
    lost: int = 0
    rejections: list[Failure] = field(default_factory=list)
    losses: list[Failure] = field(default_factory=list)
    refused: int = 0
    refusals: list[str] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """Rejected records, late events and losses."""
        return self.rejected + self.late + self.lost

    def reject(self, failure: Failure) -> None:
        """Count a rejected record."""
        self.rejected += 1
        if len(self.rejections) < _KEPT:
            self.rejections.append(failure)

    def add_loss(self, failure: Failure) -> None:
        """Count what could not be read of a source."""
        self.lost += 1
        if len(self.losses) < _KEPT:
            self.losses.append(failure)

    def add_refusal(self, reason: str) -> None:
        """Count a window that the target would not have."""
        self.refused += 1
        if len(self.refusals) < _KEPT:
            self.refusals.append(reason)
