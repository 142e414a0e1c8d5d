"""The decision whether a file of a watched folder is complete."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncbatch.sources.live.renames import Renames
    from asyncbatch.sources.live.seen import FoundFile

SETTLE_SECONDS = 1.0  # a file without changes for this time is complete
# A file whose last write is older than this is complete at once, even if clocks differ.
_OLD_SECONDS = 10.0
# Endings of the names of files that are still being written.
UNFINISHED_SUFFIXES = (
    "~",
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".swp",
)


class FileCompletion:
    """Decides which files of a folder are complete: nobody writes them any more.

    A file is complete if it was renamed, or is unchanged for `settle` seconds. With a `marker`, it
    is complete if there is a file of its name and this ending, not older than the file. `renames`
    knows renames that the times of files do not show. Files that may be incomplete are remembered
    until the next scan of the folder but one: call `begin_scan` before each. For one thread at a
    time.
    """

    settle: float
    marker: str | None

    def __init__(
        self,
        settle: float = SETTLE_SECONDS,
        marker: str | None = None,
        renames: Renames | None = None,
    ) -> None:
        self.settle, self.marker, self._renames = settle, marker, renames
        # By inode, the files that may be incomplete: their size, the time of the last write, and
        # the time since when both are unchanged.
        self._growing: dict[int, tuple[int, int, float]] = {}
        self._growing_before: dict[int, tuple[int, int, float]] = {}  # of the scan before

    @property
    def is_waiting(self) -> bool:
        """Whether a file may be incomplete, so that the next scan should be soon."""
        return bool(self._growing)

    def begin_scan(self) -> None:
        """Forget the files that are no longer in the folder; the scan finds the others."""
        self._growing_before, self._growing = self._growing, {}

    def is_complete(self, file: FoundFile, path: str) -> bool:
        """Whether a file is no longer being written, by its times or its marker.

        A rename sets the ctime but not the mtime: a renamed file is complete. So does a change of
        the mode or the owner: where all renames are seen, these alone count.
        """
        written = file.key[0]
        if self.marker is not None:
            return self._has_marker(path, written)
        oldest = max(_OLD_SECONDS, self.settle)
        renames = self._renames
        is_renamed = renames is not None and renames.has(file)
        if renames is None or not renames.sees_all:
            is_renamed = is_renamed or file.changed > written
        if is_renamed or time.time() - written / 1e9 > oldest:
            self._growing.pop(file.inode, None)
            return True
        now = time.monotonic()
        before = self._growing.get(file.inode) or self._growing_before.get(file.inode)
        size, at, since = before or (-1, 0, now)
        if (size, at) != (file.size, written):
            since = now
        if now - since >= self.settle:
            self._growing.pop(file.inode, None)
            return True
        self._growing[file.inode] = file.size, written, since
        return False

    def _has_marker(self, path: str, written: int) -> bool:
        """Whether a file has a marker. One of an earlier version of the file does not count."""
        try:
            return os.stat(f"{path}{self.marker}").st_ctime_ns >= written
        except OSError:
            return False
