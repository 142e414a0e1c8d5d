"""The files of a folder that were read, in bounded memory."""

from __future__ import annotations

import os
import zlib
from contextlib import contextmanager, suppress
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from asyncbatch.formats.compression import detect_compression
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.live.file import DIGEST_BYTES, FileReader, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MIN_REMEMBERED = 2000  # files that are remembered one by one; of older ones less is kept
_MAX_CONTENTS = 20_000  # contents of older files that are remembered
_COMPARED_BYTES = 64 * 1024  # bytes read in one call to compare the content of a file

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


class ContentMark(NamedTuple):
    """The identity of a file's content, decompressed."""

    head: str  # digest of the first `DIGEST_BYTES` bytes
    length: int
    checksum: int | None  # CRC-32 of all bytes; None if it is unknown


class SeenContent(NamedTuple):
    """A content that was read."""

    content: ContentMark
    scanned: int  # the latest ctime in the folder when the file was found, nanoseconds since 1970


class SeenFile(NamedTuple):
    """A file that was read. A tuple, because many are kept and saved with each chunk."""

    inode: int
    key: Key
    size: int  # bytes that were read, as on the disk
    changed: int  # ctime in nanoseconds since 1970
    head: str  # digest of the first bytes on the disk
    content: SeenContent | None = None  # None if it was not read to its end


class SeenState(Struct, frozen=True):
    """The stored state of `SeenFiles`."""

    files: list[SeenFile]  # the files read last
    floor: Key | None = None  # all other files up to this key ...
    changed: int = 0  # and up to this ctime were read
    contents: list[SeenContent] = []  # of some of these other files, the oldest first


class SeenFiles:
    """Recognises files that were read, by inode and first bytes, also after a rename.

    A file that was copied, compressed or moved to another file system is recognised by its content.
    Two files with the same content that were in the folder together are two files, not a file and
    its copy.

    Of files read long ago, only the content, the largest key and the largest ctime are kept. A file
    up to both of them was read. A file that was moved into the folder later has a later ctime, so
    it is new, unless its content is known.
    """

    def __init__(self, state: SeenState | None = None) -> None:
        state = state or SeenState([])
        self._files = {file.inode: file for file in state.files}
        self._floor, self._floor_ctime = state.floor, state.changed
        self._older = state.contents  # shared with positions: never changed, only replaced
        self._contents: dict[
            str, dict[ContentMark, int]
        ] = {}  # by head: the contents, and `scanned`
        for one in (*self._older, *(file.content for file in state.files if file.content)):
            self._know(one)
        self._position: dict[str, Any] | None = None
        self._previous_ctime = 0  # the latest ctime that the previous scan saw

    @property
    def position(self) -> dict[str, Any]:
        """The state as JSON. It is shared between chunks: do not change it."""
        if self._position is None:
            files = list(self._files.values())
            self._position = {
                "files": files, "floor": self._floor, "changed": self._floor_ctime,
                "contents": self._older,
            }  # fmt: skip
        return self._position

    def add(
        self, file: FoundFile, size: int, head: str, content: SeenContent | None = None
    ) -> None:
        """Add a file of which `size` bytes were read, and its content if all of it was read."""
        before = self._files.pop(file.inode, None)
        # A new file may have the inode of a removed one, whose copies may not be read yet.
        if before is not None and before.content is not None:
            self._keep([before.content])
        self._files[file.inode] = SeenFile(file.inode, file.key, size, file.changed, head, content)
        if content is not None:
            self._know(content)
        self._position = None

    def copied_content(self, file: FoundFile, path: str) -> ContentMark | None:
        """Return the content of a file if it is a copy of a file that was read before, else None.

        A file that was in the folder together with the one that was read is no copy of it. Raises
        OSError.
        """
        if not self._contents:
            return None
        # An archive that is damaged is a copy of nothing: it is read until the damage.
        with suppress(CorruptArchiveError), _open_compared(path) as reader:
            return self._read_copy(file, reader) if reader.inode == file.inode else None
        return None

    def _read_copy(self, file: FoundFile, reader: FileReader) -> ContentMark | None:
        """Read a file to its end while it may be a copy. Raises CorruptArchiveError and OSError."""
        position, known = reader.read_position, dict[ContentMark, int]()
        while reader.next():
            if position.offset < DIGEST_BYTES:
                continue
            known = known or self._copied_contents(file, position.head)
            if not any(position.offset <= content.length for content in known):
                return None
        known = known or self._copied_contents(file, position.head)
        for checksum in (reader.checksum, None):
            content = ContentMark(position.head, position.offset, checksum)
            if content in known:
                return content
        return None

    def _copied_contents(self, file: FoundFile, head: str) -> dict[ContentMark, int]:
        """Return the known contents with a head of which a file may be a copy."""
        found = self._contents.get(head, {})
        return {content: at for content, at in found.items() if file.changed > at}

    def _know(self, one: SeenContent) -> None:
        if not one.content.length:
            return
        known = self._contents.setdefault(one.content.head, {})
        known[one.content] = min(one.scanned, known.get(one.content, one.scanned))

    def has(self, file: FoundFile) -> bool:
        """Whether a file was read, and is surely as it was then: `has_grown` compares it if not.

        A new file may have the inode of a removed one, and its size and time. Its ctime is later,
        as is that of a file that was renamed.
        """
        known = self._files.get(file.inode)
        if known is not None:
            then = (known.key[0], known.size, known.changed)
            return then == (file.key[0], file.size, file.changed)
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
        content = known.content
        if content is not None:
            # A new file may have the inode of a removed one, and begin like it.
            grown = _grown_content(path, file.inode, content.content)
            if grown is None:
                return None
            content = SeenContent(grown, content.scanned)
        head = known.head if known.size >= DIGEST_BYTES else head_digest(path, DIGEST_BYTES)
        del self._files[file.inode]  # it is this file, and not one with the inode of a removed file
        self.add(file, file.size, head, content)
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
                head, is_compressed = _read_head(path, min(DIGEST_BYTES, file.size))
                content = None if is_compressed else ContentMark(head, file.size, None)
                self.add(file, file.size, head, content and SeenContent(content, changed))
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
        self._keep([one.content for one in old if one.content])
        self._position = None

    def _keep(self, contents: list[SeenContent]) -> None:
        """Remember the contents of files that are dropped, and forget the oldest of these."""
        contents = [*self._older, *contents]
        for content, _ in contents[:-_MAX_CONTENTS]:
            known = self._contents.get(content.head, {})
            known.pop(content, None)
            if not known:
                self._contents.pop(content.head, None)
        self._older = contents[-_MAX_CONTENTS:]


@contextmanager
def _open_compared(path: str) -> Iterator[FileReader]:
    """Open a file to compare its content. Raises OSError and CorruptArchiveError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        reader = FileReader(descriptor, path, block_bytes=_COMPARED_BYTES)
    except BaseException:
        os.close(descriptor)
        raise
    reader.checksum = 0
    try:
        yield reader
    finally:
        reader.close()


def _grown_content(path: str, inode: int, before: ContentMark) -> ContentMark | None:
    """Return the content of a file if it begins with the content `before`, else None."""
    checksum = 0  # of the bytes that were there before
    with suppress(CorruptArchiveError), _open_compared(path) as reader:
        position = reader.read_position
        while data := reader.next():
            left = before.length - (position.offset - len(data))
            checksum = zlib.crc32(data[: max(0, left)], checksum)
        is_same = position.offset >= before.length and before.checksum in (None, checksum)
        if is_same and reader.inode == inode:
            return ContentMark(position.head, position.offset, reader.checksum)
    return None


def head_digest(path: str, size: int) -> str:
    """Return a digest of a file's first `size` bytes. Raises OSError."""
    return _read_head(path, size)[0]


def _read_head(path: str, size: int) -> tuple[str, bool]:
    """Return a digest of a file's first bytes, and whether it is compressed. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        head = os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)
    return digest(head), detect_compression(head) is not None
