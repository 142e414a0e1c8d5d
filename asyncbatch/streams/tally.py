"""What a stream has come to so far."""

from __future__ import annotations

from msgspec import Struct, field

from asyncbatch.records import Failure  # noqa: TC001 - msgspec reads the types at run time

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

    def lose(self, failure: Failure) -> None:
        """Count what could not be read of a source."""
        self.lost += 1
        if len(self.losses) < _KEPT:
            self.losses.append(failure)

    def refuse(self, reason: str) -> None:
        """Count a window that the target would not have."""
        self.refused += 1
        if len(self.refusals) < _KEPT:
            self.refusals.append(reason)
