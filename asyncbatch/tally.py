"""Counts of files and records, and those of one part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from asyncbatch.records import Part


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
