"""Which files of a folder were read: compact, however many there were."""

from __future__ import annotations

import os
from contextlib import suppress
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from asyncbatch.sources.live.file import DIGEST_BYTES, digest

if TYPE_CHECKING:
    from collections.abc import Iterable

_MIN_REMEMBERED = (
    2000  # files that are remembered one by one, at least; older ones only by their times
)

Key = tuple[int, str]  # the order in which files are read: time of the last write (ns), then name


class FoundFile(Struct, frozen=True, order=True):
    """A file of a folder. `key` is its order; `changed` is its ctime in nanoseconds.

    The ctime is also the time of a rename or link.
    """

    key: Key
    inode: int
    size: int
    changed: int

    @property
    def name(self) -> str:
        """Its path below the folder."""
        return self.key[1]


class SeenFile(NamedTuple):
    """A file that was read up to `size`. `head` is a digest of its first bytes on the disk.

    A plain tuple, since many are kept and saved with each chunk.
    """

    inode: int
    key: Key
    size: int
    changed: int
    head: str


class SeenState(Struct, frozen=True):
    """The files read last, and the key and ctime up to which all others were read."""

    files: list[SeenFile]
    floor: Key | None = None
    changed: int = 0


class SeenFiles:
    """Recognises a file by inode and first bytes: a new name is not a new file.

    Of files read long ago only the latest times are kept. An older file was read, unless it came
    into the folder since.
    """

    def __init__(self, state: SeenState | None = None) -> None:
        state = state or SeenState([])
        self._files = {file.inode: file for file in state.files}
        self._floor, self._floor_ctime = state.floor, state.changed
        self._position: dict[str, Any] | None = None
        self._previous_ctime = 0
        """the latest ctime that the scan before the last one saw"""

    @property
    def position(self) -> dict[str, Any]:
        """The state as JSON, immutable."""
        if self._position is None:
            files = list(self._files.values())
            self._position = {"files": files, "floor": self._floor, "changed": self._floor_ctime}
        return self._position

    def add(self, file: FoundFile, size: int, head: str) -> None:
        """Note a file of which `size` bytes were read."""
        self._files.pop(file.inode, None)
        self._files[file.inode] = SeenFile(file.inode, file.key, size, file.changed, head)
        self._position = None

    def has(self, file: FoundFile) -> bool:
        """Whether a file was read and has not changed since; see `has_grown` for a change."""
        known = self._files.get(file.inode)
        if known is not None:
            return (known.key[0], known.size) == (file.key[0], file.size)
        floor = self._floor
        return floor is not None and file.key <= floor and file.changed <= self._floor_ctime

    def has_grown(self, file: FoundFile, path: str) -> int | None:
        """Return the number of bytes that a read file has grown by, None for another file.

        Raises OSError.
        """
        known = self._files.get(file.inode)
        if known is None or file.size < known.size:
            return None
        if head_digest(path, min(DIGEST_BYTES, known.size)) != known.head:
            return None
        self.add(
            file,
            file.size,
            known.head if known.size >= DIGEST_BYTES else head_digest(path, DIGEST_BYTES),
        )
        return file.size - known.size

    def skip(self, files: Iterable[tuple[str, FoundFile]]) -> None:
        """Mark all these files, with their paths, as read."""
        newest: list[tuple[FoundFile, str]] = []
        floor, changed = self._floor, self._floor_ctime
        for path, file in files:  # which may ask us about each
            floor = max(floor or file.key, file.key)
            changed = max(changed, file.changed)
            (heappush if len(newest) < _MIN_REMEMBERED else heappushpop)(newest, (file, path))
        self._floor, self._floor_ctime = floor, changed
        for file, path in newest:
            with suppress(OSError):  # gone already
                self.add(file, file.size, head_digest(path, min(DIGEST_BYTES, file.size)))
        self._position = None

    def forget(self, latest_ctime: int, unread: Key | None) -> None:
        """Remember fewer files, after a scan of the folder.

        The scan saw changes up to `latest_ctime`; `unread` is the first file to read. A change
        before the last scan would have been seen by this scan. So a later file has a later change,
        and is recognised as new.
        """
        before, self._previous_ctime = self._previous_ctime, latest_ctime
        if len(self._files) <= 2 * _MIN_REMEMBERED:
            return
        by_key = sorted(self._files.values(), key=lambda one: one.key)
        old = [
            one
            for one in by_key[:-_MIN_REMEMBERED]
            if one.changed <= before and (unread is None or one.key < unread)
        ]
        for one in old:
            del self._files[one.inode]
            self._floor = max(self._floor or one.key, one.key)
            self._floor_ctime = max(self._floor_ctime, one.changed)
        self._position = None


def head_digest(path: str, size: int) -> str:
    """Return a digest of a file's first `size` bytes. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return digest(os.pread(descriptor, size, 0))
    finally:
        os.close(descriptor)
