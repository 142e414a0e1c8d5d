"""Counts of a run, and the failure budget that is applied to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from asyncbatch.core.records import Failure, MissingNames
from asyncbatch.core.units import parse_share

if TYPE_CHECKING:
    from asyncbatch.core.batches import Part

# A percentage is checked from this many files and records on: below, it says little.
MIN_SEEN_FOR_PERCENT = 100


class FailureBudget(Struct, frozen=True):
    """The allowed number of failures; with `percent`, per hundred files and records."""

    limit: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> FailureBudget:
        """Return the budget of `N` or `P%`. Raises ValueError that names both forms."""
        try:
            return cls(*parse_share(text))
        except ValueError:
            advice = f"{text!r} is neither a number of failures (5) nor a percentage (2.5%)"
            raise ValueError(advice) from None

    def is_spent(self, failures: int, seen: int, *, final: bool = False) -> bool:
        """Whether there are more `failures` among the `seen` inputs than allowed."""
        if not self.percent:
            return failures > self.limit
        return (final or seen >= MIN_SEEN_FOR_PERCENT) and failures * 100 > self.limit * seen

    def __str__(self) -> str:
        return f"{self.limit:g}{'%' if self.percent else ''}"


class Tally(Struct):
    """Counts of files and records. Adding a tally adds each count.

    Records read are passed + dropped + rejected.
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
    deleted: int = 0  # rows, or outputs, of gone files that a mirror has deleted or marked

    @property
    def files(self) -> int:
        """All files that ended, including skipped ones."""
        return self.succeeded + self.partial + self.failed + self.skipped

    @property
    def passed(self) -> int:
        """Records that were neither dropped nor rejected."""
        return self.read - self.dropped - self.rejected

    @property
    def failures(self) -> int:
        """Failed files and rejected records."""
        return self.failed + self.rejected

    @property
    def seen(self) -> int:
        """The base of a percentage of failures: files not skipped, and records."""
        return self.files - self.skipped + self.read

    def __iadd__(self, other: Tally) -> Tally:  # noqa: PYI034 - not meant for subclasses
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def tally_of(part: Part) -> Tally:
    """Return the counts of one part."""
    failed = len(part.errors)
    partial = sum(index not in part.errors for index in part.rejected)
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
    if counts := part.counts:
        sign = -1 if len(part) else 1
        tally.bytes += sign * counts.bytes
        tally.read += sign * counts.read
        tally.dropped += sign * counts.dropped
        tally.rejected += sign * counts.rejected
    return tally


class FailureGroup(Struct):
    """Failures of the same file and kind with the same message."""

    first: Failure
    count: int = 1

    def has(self, failure: Failure) -> bool:
        """Whether a failure belongs to the group."""
        first = self.first
        return (failure.message, failure.kind, failure.file) == (
            first.message,
            first.kind,
            first.file,
        )


_MAX_KEPT = 20
MAX_STREAM_GROUPS = 1000  # each rejection is compared with the groups


class StreamTally(Struct):
    """Counts of the records and events of a stream."""

    bytes: int = 0
    read: int = 0
    events: int = 0  # events in windows
    dropped: int = 0
    rejected: int = 0
    late: int = 0
    late_in_part: int = 0  # events that were late for some of their windows only
    windows: int = 0
    lost: int = 0  # the number of times that a source could not be read
    rejections: list[Failure] = field(default_factory=list)  # the first few
    losses: list[Failure] = field(default_factory=list)  # the first few
    refused: int = 0  # windows that the target rejected
    refusals: list[str] = field(default_factory=list)  # the first few reasons
    kinds: dict[str, int] = field(default_factory=dict)  # rejections and losses by kind
    groups: list[FailureGroup] = field(default_factory=list)  # the first few equal rejections
    missing: MissingNames = field(default_factory=MissingNames)
    retries: int = 0

    @property
    def failures(self) -> int:
        """Rejected records, late events and losses."""
        return self.rejected + self.late + self.lost

    @property
    def seen(self) -> int:
        """The base of a percentage of failures: events."""
        return self.read

    @property
    def all_rejected(self) -> bool:
        """Whether events were read, and none of them was of use."""
        return bool(self.rejected) and not (self.events or self.late or self.dropped)

    @property
    def notes(self) -> list[str]:
        """Remarks for the user."""
        note = self.missing.note if self.all_rejected else None
        return [] if note is None else [note]

    def reject(self, failure: Failure, most_groups: float = _MAX_KEPT) -> None:
        """Count a rejected record; keep up to `most_groups` groups of equal ones."""
        self.rejected += 1
        self.kinds[failure.kind] = self.kinds.get(failure.kind, 0) + 1
        group = next((one for one in self.groups if one.has(failure)), None)
        if group is not None:
            group.count += 1
        elif len(self.groups) < min(max(most_groups, _MAX_KEPT), MAX_STREAM_GROUPS):
            self.groups.append(FailureGroup(failure))
        if len(self.rejections) < _MAX_KEPT:
            self.rejections.append(failure)

    def add_loss(self, failure: Failure) -> None:
        """Count data of a source that could not be read."""
        self.lost += 1
        self.kinds[failure.kind] = self.kinds.get(failure.kind, 0) + 1
        if len(self.losses) < _MAX_KEPT:
            self.losses.append(failure)

    def add_refusal(self, reason: str) -> None:
        """Count a window that the target rejected."""
        self.refused += 1
        if len(self.refusals) < _MAX_KEPT:
            self.refusals.append(reason)
