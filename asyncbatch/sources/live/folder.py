"""A folder as a live source: its files, and with `follow` later files."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections import deque
from contextlib import suppress
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from asyncbatch.core.aio import Wakeup
from asyncbatch.core.paths import is_archive_name
from asyncbatch.core.records import Failure, display_path
from asyncbatch.errors import UsageError
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.base import ARCHIVE_ADVICE, LiveChunk
from asyncbatch.sources.inputs import walk
from asyncbatch.sources.live.completion import (
    SETTLE_SECONDS,
    UNFINISHED_SUFFIXES,
    FileCompletion,
)
from asyncbatch.sources.live.file import DIGEST_BYTES, FileMark, FileReader, position_of_mark
from asyncbatch.sources.live.seen import ContentMark, FoundFile, SeenContent, SeenFiles, SeenState
from asyncbatch.sources.live.watch import POLL_SECONDS, FolderWatch
from asyncbatch.sources.selection import DEFAULT_PATTERNS, Filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.records import FailureKind
    from asyncbatch.sources.live.renames import Renames
    from asyncbatch.sources.selection import Selection

_FILES_AT_ONCE = 10_000  # files that one scan of a folder queues, at most


class FolderPosition(Struct, frozen=True, omit_defaults=True):
    """A stored position in a folder."""

    seen: SeenState  # the files that were read
    name: str | None = None  # the file that is being read, None between two files
    mark: FileMark | None = None  # the position in that file
    checksum: int | None = None  # of its bytes before the position; None if it is unknown
    scanned: int = 0  # the latest ctime in the folder when the file was found


class FolderReader:
    """Reads the files below a folder, the oldest first.

    With `follow`, later files are read too, once they are complete: renamed, or unchanged for
    `settle` seconds. With `from_end`, only these are read. A file is read once, even if it is
    renamed, compressed or copied after it was read. `next` may be called in a thread, and `close`
    from another one. Raises UsageError.
    """

    folder: str

    def __init__(
        self,
        folder: str,
        selection: Selection,
        *,
        follow: bool,
        from_end: bool = False,
        settle: float = SETTLE_SECONDS,
        renames: Renames | None = None,
    ) -> None:
        self.folder, self._prefix = folder, os.path.join(folder, "")
        self._wanted = Filter(selection)
        self._is_following = follow
        self._completion = FileCompletion(settle, renames=renames)
        self._seen = SeenFiles()
        self._found: deque[FoundFile] = deque()
        self._needs_scan, self._skips_present = True, from_end
        self._scanned = 0  # the latest ctime that the last scan saw
        self._current: tuple[FoundFile, FileReader] | None = None
        self._begins = False
        # By inode, the files that did not exist when they were to be opened: perhaps renamed.
        self._missing: dict[int, str] = {}
        self._losses: deque[Failure] = deque()
        self._reported_paths: set[str] = set()  # of files that cannot be read
        self._lock = threading.Lock()
        self._is_closed = False
        self.scan_seconds: float = 0.0  # of the last scan
        try:
            os.listdir(folder)
        except OSError as error:
            raise UsageError(f"cannot read {folder}: {error.strerror}") from None
        if not follow and next(walk(folder, self._wanted), None) is None:
            patterns = selection.patterns
            names = "JSON files" if patterns == DEFAULT_PATTERNS else " or ".join(patterns)
            raise UsageError(
                f"no {names} in {folder} (--pattern selects other names, --follow waits for files)"
            )
        if from_end:
            self._scan()

    @property
    def has_more(self) -> bool:
        """Whether bytes are buffered, so that `next` does not block."""
        return self._current is not None and self._current[1].has_more

    @property
    def has_files(self) -> bool:
        """Whether `next` has work: a file, a loss, or a requested scan."""
        return self._current is not None or self._needs_scan or bool(self._found or self._losses)

    @property
    def is_waiting(self) -> bool:
        """Whether a file may be incomplete, so that the next scan should be soon."""
        return self._completion.is_waiting

    @property
    def position(self) -> Any:
        """The current position as JSON."""
        place: dict[str, Any] = {"seen": self._seen.position}
        if self._current is not None:
            file, reading = self._current
            place |= {
                "name": file.name, "mark": position_of_mark(reading.read_position.mark()),
                "checksum": reading.checksum, "scanned": self._scanned,
            }  # fmt: skip
        return place

    def start_at(self, position: Any) -> None:
        """Resume after the chunk with this position.

        Raises UsageError if the file that was being read has changed before the position.
        """
        try:
            place = msgspec.convert(position, FolderPosition)
        except msgspec.ValidationError as error:
            raise UsageError(f"not a position in a folder: {error}") from None
        self._seen, self._skips_present = SeenFiles(place.seen), False
        if place.name is None or place.mark is None:
            return
        mark = place.mark
        named = os.path.join(self.folder, place.name)
        others = (path for path, found in self._present_files() if found.inode == mark.inode)
        for path in (named, *others):
            with suppress(OSError, CorruptArchiveError):
                found = self._stat_file(path)
                reading = None if found is None else self._open_reader(path)
                if found is not None and reading is not None:
                    if reading.seek(mark):
                        self._current = found, reading
                        reading.checksum, self._scanned = place.checksum, place.scanned
                        return
                    reading.close()
        raise UsageError(
            f"{named} was removed, replaced or truncated after its first {mark.offset:,} bytes "
            "were read. Restore the file, or restart without the checkpoint"
        )

    def rescan(self) -> None:
        """Request a scan for further files, after the known files are read."""
        self._needs_scan = True

    def next(self) -> LiveChunk | None:
        """Return the next chunk, None without one. Raises OSError."""
        with self._lock:
            return None if self._is_closed else self._next()

    def close(self) -> None:
        """Close the current file, after the current read."""
        with self._lock:
            self._is_closed = True
            if self._current is not None:
                self._current[1].close()

    def _next(self) -> LiveChunk | None:
        while self._current is None:
            if not self._found and self._needs_scan:
                self._scan()
            if self._losses:
                loss = self._losses.popleft()
                return LiveChunk(loss.file, b"", ends_file=True, position=self.position, loss=loss)
            if not self._found:
                return None
            self._open_next(self._found.popleft())
        file, reading = self._current
        path = os.path.join(self.folder, file.name)
        begins, self._begins = self._begins, False
        try:
            data = reading.next()
        except (OSError, CorruptArchiveError) as error:
            loss = Failure(display_path(path), *_read_failure(error))
            reading.checksum = None
            self._finish(file, reading)
            return LiveChunk(
                path, b"", ends_file=True, position=self.position, begins_file=begins, loss=loss
            )
        if not data:
            self._finish(file, reading)
        return LiveChunk(
            path,
            data,
            ends_file=not data,
            position=self.position,
            begins_file=begins,
            is_head=begins and bool(data),
        )

    def _open_next(self, file: FoundFile) -> None:
        path = os.path.join(self.folder, file.name)
        try:
            reading = self._open_reader(path)
            if reading.inode != file.inode:
                reading.close()
                raise FileNotFoundError  # noqa: TRY301 - the path leads to another file by now
            if (content := self._seen.copied_content(file, path)) is not None:
                self._finish(file, reading, content)
                return
            reading.checksum = 0
        except FileNotFoundError:
            self._missing[file.inode] = path
            self._needs_scan = True
        except (OSError, CorruptArchiveError) as error:
            self._losses.append(Failure(display_path(path), *_read_failure(error)))
            self._seen.add(file, file.size, "")
        else:
            self._current, self._begins = (file, reading), True

    def _open_reader(self, path: str) -> FileReader:
        if is_archive_name(path):
            raise OSError(ARCHIVE_ADVICE)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return FileReader(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise

    def _finish(
        self, file: FoundFile, reading: FileReader, content: ContentMark | None = None
    ) -> None:
        """Close a file and remember it. `content` is that of a file that is not read again."""
        position = reading.read_position
        if content is not None:
            size = file.size
        else:
            size = file.size if reading.is_compressed else position.offset
            if reading.checksum is not None:
                content = ContentMark(position.head, position.offset, reading.checksum)
        self._seen.add(
            file,
            size,
            reading.head_digest(min(DIGEST_BYTES, size)),
            content and SeenContent(content, self._scanned),
        )
        reading.close()
        self._current = None

    # --- scans

    def _scan(self) -> None:
        """Queue the next files; report files that have grown since they were read."""
        began = time.monotonic()
        self._needs_scan = False
        self._completion.begin_scan()
        latest = 0
        inodes: set[int] = set()
        fresh: list[FoundFile] = []

        def unread() -> Iterator[tuple[str, FoundFile]]:
            nonlocal latest
            for path, file in self._present_files():
                latest = max(latest, file.changed)
                if file.inode in self._missing:
                    inodes.add(file.inode)
                if self._seen.has(file) or self._has_grown(file, path):
                    continue
                if not self._is_following or self._completion.is_complete(file, path):
                    yield path, file
                else:
                    fresh.append(file)

        if self._skips_present:
            self._skips_present = False
            self._seen.skip(unread())
        else:
            self._found.extend(nsmallest(_FILES_AT_ONCE, (file for _, file in unread())))
        self._needs_scan = len(self._found) == _FILES_AT_ONCE
        self._scanned = latest
        first = min((file.key for file in (*fresh, *islice(self._found, 1))), default=None)
        self._seen.forget(latest, first)
        for inode, path in self._missing.items():
            if inode not in inodes:
                self._losses.append(
                    Failure(
                        display_path(path), "not_found", "the file was removed before it was read"
                    )
                )
        self._missing.clear()
        self.scan_seconds = time.monotonic() - began

    def _has_grown(self, file: FoundFile, path: str) -> bool:
        """Whether a file is known and was read before; report bytes added since as lost."""
        try:
            grown = self._seen.has_grown(file, path)
        except OSError:
            return False
        if grown:
            self._losses.append(
                Failure(
                    display_path(path),
                    "read_error",
                    f"{grown:,} bytes were added after the file was read: they are not read (write "
                    "to another name, and rename the complete file)",
                )
            )
        return grown is not None

    def _present_files(self) -> Iterator[tuple[str, FoundFile]]:
        for path in walk(self.folder, self._wanted):
            if (
                not path.endswith(UNFINISHED_SUFFIXES)
                and (file := self._stat_file(path)) is not None
            ):
                yield path, file

    def _stat_file(self, path: str) -> FoundFile | None:
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                os.listdir(path)  # `walk` yields a folder that cannot be listed: get the reason
        except FileNotFoundError:
            return None
        except OSError as error:
            if path not in self._reported_paths:  # report it once, not at each scan
                self._reported_paths.add(path)
                self._losses.append(Failure(display_path(path), *_read_failure(error)))
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        key = (status.st_mtime_ns, path.removeprefix(self._prefix))
        return FoundFile(key, status.st_ino, status.st_size, status.st_ctime_ns)


def _read_failure(error: OSError | CorruptArchiveError) -> tuple[FailureKind, str]:
    if isinstance(error, CorruptArchiveError):
        return "corrupt_archive", str(error)
    kind: FailureKind = "permission" if isinstance(error, PermissionError) else "read_error"
    return kind, error.strerror or str(error)


_RETRY_SECONDS = 0.2  # time until the next scan while a file is not complete
_SCAN_SHARE = 10  # a scan is repeated only after ten times its duration


class FolderSource:
    """The files below a folder as a live source; with `follow` it never ends.

    `FolderReader` describes the order and the options. Raises UsageError.
    """

    can_resume = True
    name: str
    is_over: bool
    selection: Selection

    def __init__(
        self, path: str, selection: Selection, *, follow: bool = False, from_end: bool = False
    ) -> None:
        self.name, self.is_over, self.selection = path, False, selection
        self._wakeup = Wakeup()
        self._watch = (
            FolderWatch([path], self._wakeup, lambda _: True, recursive=True) if follow else None
        )
        renames = None if self._watch is None else self._watch.renames
        self._reader = FolderReader(
            path, selection, follow=follow, from_end=from_end, renames=renames
        )
        self._is_woken = False
        self._scanned_at = self._next_scan_at = 0.0

    @property
    def position(self) -> Any:
        return self._reader.position

    def start_at(self, position: Any) -> None:
        self._reader.start_at(position)

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - see `LiveSource`
        if self._watch is not None:
            self._watch.start()
            chunk = await self._next_after_scan()
            if chunk is not None or timeout == 0:
                return chunk
            left = max(0.0, self._next_scan_at - time.monotonic())
            if await self._wakeup.wait(left if timeout is None else min(left, timeout)):
                if self._is_woken:
                    self._is_woken = False
                    return None
                self._next_scan_at = self._scanned_at + _SCAN_SHARE * self._reader.scan_seconds
            return await self._next_after_scan()
        chunk = await self._next()
        if chunk is None:
            self.is_over = True
            chunk = LiveChunk(self.name, b"", ends_file=True, position=self._reader.position)
        return chunk

    def wake(self) -> None:
        """End the wait of `read`."""
        self._is_woken = True
        self._wakeup.set()

    def close(self) -> None:
        """Stop the notifications and close the current file."""
        if self._watch is not None:
            self._watch.close()
        self._reader.close()

    async def _next_after_scan(self) -> LiveChunk | None:
        """Return the next chunk; scan first if a scan is due."""
        if not self._reader.has_files:
            now = time.monotonic()
            if now < self._next_scan_at:
                return None
            self._reader.rescan()
        chunk = await self._next()
        if not self._reader.has_files:
            pause = _RETRY_SECONDS if self._reader.is_waiting else POLL_SECONDS
            self._scanned_at = time.monotonic()
            self._next_scan_at = self._scanned_at + max(
                pause, _SCAN_SHARE * self._reader.scan_seconds
            )
        return chunk

    async def _next(self) -> LiveChunk | None:
        if self._reader.has_more:
            return self._reader.next()
        return await asyncio.to_thread(self._reader.next)
