"""The files of a folder that were read, in bounded memory."""

from __future__ import annotations

import os
from contextlib import suppress
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from asyncbatch.sources.live.file import DIGEST_BYTES, digest

if TYPE_CHECKING:
    from collections.abc import Iterable

_MIN_REMEMBERED = 2000  # files that are remembered one by one; of older ones only times are kept

# The order in which files are read: time of the last write (nanoseconds since 1970), then name.
Key = tuple[int, str]


class FoundFile(Struct, frozen=True, order=True):
    """A file that a scan of the folder found."""

    key: Key
    inode: int
    size: int
    changed: int  # ctime in nanoseconds since 1970; a rename or a new link also sets it

    @property
    def name(self) -> str:
        """The path below the folder."""
        return self.key[1]


class SeenFile(NamedTuple):
    """A file that was read. A tuple, because many are kept and saved with each chunk."""

    inode: int
    key: Key
    size: int  # bytes that were read, as on the disk
    changed: int  # ctime in nanoseconds since 1970
    head: str  # digest of the first bytes on the disk


class SeenState(Struct, frozen=True):
    """The stored state of `SeenFiles`."""

    files: list[SeenFile]  # the files read last
    floor: Key | None = None  # all other files up to this key ...
    changed: int = 0  # and up to this ctime were read


class SeenFiles:
    """Recognises files that were read, by inode and first bytes, also after a rename.

    Of files read long ago, only the largest key and ctime are kept. A file up to both of them was
    read. A file that was moved into the folder later has a later ctime, so it is new.
    """

    def __init__(self, state: SeenState | None = None) -> None:
        state = state or SeenState([])
        self._files = {file.inode: file for file in state.files}
        self._floor, self._floor_ctime = state.floor, state.changed
        self._position: dict[str, Any] | None = None
        self._previous_ctime = 0  # the latest ctime that the previous scan saw

    @property
    def position(self) -> dict[str, Any]:
        """The state as JSON. It is shared between chunks: do not change it."""
        if self._position is None:
            files = list(self._files.values())
            self._position = {"files": files, "floor": self._floor, "changed": self._floor_ctime}
        return self._position

    def add(self, file: FoundFile, size: int, head: str) -> None:
        """Add a file of which `size` bytes were read."""
        self._files.pop(file.inode, None)
        self._files[file.inode] = SeenFile(file.inode, file.key, size, file.changed, head)
        self._position = None

    def has(self, file: FoundFile) -> bool:
        """Whether a file was read and has the same time and size as then."""
        known = self._files.get(file.inode)
        if known is not None:
            return (known.key[0], known.size) == (file.key[0], file.size)
        floor = self._floor
        return floor is not None and file.key <= floor and file.changed <= self._floor_ctime

    def has_grown(self, file: FoundFile, path: str) -> int | None:
        """Return the bytes added to a file since it was read, None for an unread file.

        The file is then remembered with its new size. Raises OSError.
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
        for path, file in files:  # the iterator calls `has` and `has_grown` meanwhile
            floor = max(floor or file.key, file.key)
            changed = max(changed, file.changed)
            (heappush if len(newest) < _MIN_REMEMBERED else heappushpop)(newest, (file, path))
        self._floor, self._floor_ctime = floor, changed
        for file, path in newest:
            with suppress(OSError):  # the file was removed
                self.add(file, file.size, head_digest(path, min(DIGEST_BYTES, file.size)))
        self._position = None

    def forget(self, latest_ctime: int, unread: Key | None) -> None:
        """Drop the oldest files from memory, after a scan of the folder.

        `latest_ctime` is the latest ctime that the scan saw, `unread` the key of the first unread
        file. Only files with a ctime up to that of the previous scan are dropped, because this scan
        has seen all changes before. So a file that arrives later has a later ctime: it is new.
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
