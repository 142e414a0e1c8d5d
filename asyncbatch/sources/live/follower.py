"""A follower of one log file across its rotations."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from asyncbatch.core.aio import Wakeup
from asyncbatch.core.records import Failure, display_path
from asyncbatch.errors import UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.base import CHUNK_BYTES, LiveChunk
from asyncbatch.sources.live.file import (
    FileMark,
    FilePosition,
    FileReader,
    FileTruncatedError,
    LiveFile,
    parse_position,
    position_of_mark,
)
from asyncbatch.sources.live.history import LogHistory, ReadFile, read_file
from asyncbatch.sources.live.rotation import (
    FileMovedError,
    LogFile,
    close_all,
    log_files,
    open_all,
    open_at,
    open_log_file,
    rotated_files,
)
from asyncbatch.sources.live.watch import POLL_SECONDS, FolderWatch

if TYPE_CHECKING:
    from asyncbatch.core.records import FailureKind
    from asyncbatch.sources.live.rotation import OpenLogFile

_SETTLE_SECONDS = 1.0  # time without writes after which a rotated file is complete
_LEFT_FILE_SECONDS = 60.0  # a finished file is checked for late writes for this long
_MAX_OPEN_FILES = 64  # while the reader is behind
_SEARCH_ATTEMPTS = 5  # attempts to find a position while a rotation is in progress


class LogPosition(FileMark, frozen=True, omit_defaults=True):
    """A stored position in a log: in the file that was being read."""

    # The files finished before. A position at the beginning of a file has no bytes that identify
    # the file. None in positions of earlier versions.
    before: list[ReadFile] | None = None


class LogFollower:
    """Reads the files of one log, one after the other, as the log is rotated.

    The first of the open files is being read; the others are newer. The reader goes to the next
    file when a newer file has bytes, the end of the current file is reached, and nothing was
    written to it for `settle` seconds. A loss is returned with the next chunk. `next` may be called
    in a thread, and `close` from another one. Raises UsageError for a path that cannot be followed.
    """

    def __init__(
        self, path: str, *, from_end: bool = False, settle: float = _SETTLE_SECONDS
    ) -> None:
        self.path = path
        self._settle = settle
        self._files: deque[OpenLogFile] = deque()
        self._ahead = memoryview(b"")
        self._begins = True
        self._losses: deque[Failure] = deque()
        self._quiet_since: float | None = None
        # The file that was finished last, its size then, and the time.
        self._left_file: tuple[LiveFile, int, float] | None = None
        self._history = LogHistory(_last_rotated(path))
        self._reported_reason = ""  # reason the path cannot be read, as reported last
        self._lock = threading.Lock()
        self._is_closed = False
        _check_path(path)
        self._open_newer()
        for file in self._files if from_end else ():
            if isinstance(file, LiveFile):
                file.seek_last_line()

    @property
    def has_more(self) -> bool:
        """Whether bytes are buffered, so that `next` does not block."""
        return bool(self._ahead)

    @property
    def is_waiting(self) -> bool:
        """Whether a newer file waits until the current one is complete. Read again soon."""
        return len(self._files) > 1

    @property
    def position(self) -> Any:
        position = self._files[0].read_position if self._files else FilePosition()
        return position_of_mark(position.mark()) | {"before": self._history.position}

    def start_at(self, position: Any) -> None:
        """Resume after the chunk with this position, even if its file was renamed since.

        Raises UsageError if no file has the bytes before the position; OSError.
        """
        mark = parse_position(position, LogPosition)
        close_all(self._files)
        self._files.clear()
        if mark.before is not None:
            self._history = LogHistory(mark.before)
            if not mark.offset:
                return  # the next file is the first one after these
        found = None
        for _ in range(_SEARCH_ATTEMPTS):  # a rotation may be in progress
            files = log_files(self.path)
            if (found := open_at(files, mark)) is not None:
                break
        if found is None and mark.offset:
            raise UsageError(
                f"{self.path}: the stored position (byte {mark.offset:,}) is neither in this file "
                "nor in a rotated file beside it, so new data cannot be told from data that was "
                "already read. Restart without the checkpoint"
            )
        if found is not None:
            number, part = found
            self._files.append(part)
            later = {file.inode for file in files[number + 1 :]}
            self._files.extend(open_all(lambda: _with_inodes(log_files(self.path), later)))
            self._begins = not mark.offset
            if mark.before is None:
                self._history = LogHistory(_known_files(files[:number][-1:]))

    def next(self) -> LiveChunk | None:
        """Return the next chunk, None without one. Raises OSError."""
        with self._lock:
            return None if self._is_closed else self._next()

    def close(self) -> None:
        """Close all files, after the current read."""
        with self._lock:
            self._is_closed = True
            close_all(self._files)
            if self._left_file is not None:
                self._left_file[0].close()

    def _next(self) -> LiveChunk | None:
        while not self._ahead:
            self._open_newer()
            if not self._files:
                break
            file = self._files[0]
            try:
                self._ahead = memoryview(file.read_more())
            except FileTruncatedError as cut:
                if not self._continues_in_copy():
                    return self._restart_after_truncation(cut)
            except CorruptArchiveError as error:
                self._add_loss("corrupt_archive", str(error))
                return self._go_to_next_file()
            else:
                if self._ahead:
                    self._quiet_since = None
                elif len(self._files) > 1 and self._is_quiet(file):
                    return self._go_to_next_file()
                else:
                    break
        if self._ahead:
            data, self._ahead = bytes(self._ahead[:CHUNK_BYTES]), self._ahead[CHUNK_BYTES:]
            self._files[0].read_position.advance(data)
            return self._chunk(data)
        return self._chunk(b"") if self._losses else None

    def _chunk(self, data: bytes, *, ends: bool = False) -> LiveChunk:
        begins, self._begins = self._begins, ends
        loss = self._losses.popleft() if self._losses else None
        return LiveChunk(self.path, data, ends, self.position, begins, loss=loss)

    def _add_loss(self, kind: FailureKind, message: str) -> None:
        self._losses.append(Failure(display_path(self.path), kind, message))

    # --- from one file to the next

    def _open_newer(self) -> None:
        """Open the file at the path, and the files between it and the last open one."""
        self._check_left_file()
        try:
            inode = _inode_at(self.path)
        except OSError as error:
            self._report_unreadable(error)
            return
        if len(self._files) > _MAX_OPEN_FILES:
            return
        try:
            last = self._files[-1] if self._files else None
            if last is not None and last.read_position.offset == 0 and last.has_changed():
                copies = open_all(self._copies_of_truncated)
                self._files.extend([*copies, self._files.pop()])
            # The copies of a truncated file come first: the next read looks for them.
            if last is None or (last.inode != inode and not last.is_truncated()):
                self._files.extend(open_all(self._newer_files))
        except OSError as error:
            self._report_unreadable(error)
        except CorruptArchiveError as error:
            self._add_loss("corrupt_archive", str(error))

    def _newer_files(self) -> list[LogFile]:
        """Return the files that are newer than the last open one."""
        files = log_files(self.path)
        current = [file for file in files if file.path == self.path]
        rotated = files[: len(files) - len(current)]
        return [*self._history.files_after(rotated, self._files), *current]

    def _copies_of_truncated(self) -> list[LogFile]:
        """Return the copies of the last open file, which was truncated before it was read."""
        *before, last = self._files
        files = self._history.files_after(rotated_files(self.path), before)
        return self._files_before(files, last)

    def _files_before(self, files: list[LogFile], last: OpenLogFile) -> list[LogFile]:
        """Return those of the rotated files that are older than the open file `last`."""
        for number, file in enumerate(files):
            if file.inode == last.inode:
                return files[:number]
        if last.inode == _inode_at(self.path):
            return files
        # The file was removed, perhaps after it was compressed.
        known = read_file(last)
        if known.end is None:  # it is empty now, and so is its copy: no file repeats its content
            return files
        found = self._history.find(files, known, is_open=True)
        if found is not None:
            return files[:found]
        return [file for file in files if file.modified_ns <= known.modified_ns]

    def _report_unreadable(self, error: OSError) -> None:
        """Report that the path cannot be read. Report the same reason only once."""
        reason = error.strerror or str(error)
        if reason != self._reported_reason:
            self._reported_reason = reason
            self._add_loss(
                "permission" if isinstance(error, PermissionError) else "read_error",
                f"{reason}; the read is retried",
            )

    def _is_quiet(self, file: OpenLogFile) -> bool:
        """Whether a file that was read to its end is no longer written to."""
        if isinstance(file, FileReader):
            return True
        if not any(later.size() for later in islice(self._files, 1, None)):
            return False
        now = time.monotonic()
        if self._quiet_since is None:
            self._quiet_since = now
        age = time.time() - file.modified_ns() / 1e9
        return age >= self._settle or now - self._quiet_since >= self._settle

    def _go_to_next_file(self) -> LiveChunk:
        """Finish the current file; return the chunk that ends it."""
        chunk = self._chunk(b"", ends=True)
        file = self._files.popleft()
        self._history.add(read_file(file))
        self._quiet_since = None
        if self._left_file is not None:
            self._left_file[0].close()
            self._left_file = None
        if isinstance(file, LiveFile):
            self._left_file = file, file.size(), time.monotonic()
        else:
            file.close()
        return chunk

    def _check_left_file(self) -> None:
        """Report bytes that were written to a finished file: they are lost."""
        if self._left_file is None:
            return
        file, size, since = self._left_file
        if (more := file.size() - size) > 0:
            self._add_loss(
                "read_error",
                f"{more:,} bytes were written to the rotated file after {self._settle:g} s without "
                "writes, while the next file was already being read: they are not read",
            )
            self._left_file = file, size + more, since
        if time.monotonic() - since > _LEFT_FILE_SECONDS:
            file.close()
            self._left_file = None

    def _continues_in_copy(self) -> bool:
        """Continue in the copy of a truncated file; return whether there is a copy."""
        file = self._files[0]
        assert isinstance(file, LiveFile)
        files = self._files_before(rotated_files(self.path), file)
        found = open_at(files, file.read_position.mark())
        if found is None:
            return False
        number, copy = found
        later = {one.inode for one in files[number + 1 :]}
        between = open_all(lambda: _with_inodes(rotated_files(self.path), later))
        self._files.popleft()
        self._files.extendleft([file.reopen(), *reversed(between), copy])
        file.close()
        return True

    def _restart_after_truncation(self, cut: FileTruncatedError) -> LiveChunk:
        """Restart at the beginning of a truncated file; return a chunk with the loss."""
        file = self._files[0]
        assert isinstance(file, LiveFile)
        unread = cut.unread_bytes
        lost = f"at least {unread:,} bytes are lost" if unread else "unread data is lost, if any"
        self._add_loss(
            "read_error",
            f"the file was truncated after {file.read_position.offset:,} bytes were read, and "
            f"there is no copy of it: {lost}",
        )
        self._files[0] = file.reopen()
        for known in _last_rotated(self.path):
            self._history.add(known)
        file.close()
        return self._chunk(b"", ends=True)


def _inode_at(path: str) -> int:
    """Return the inode of the file at the path, 0 without one. Raises OSError."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _last_rotated(path: str) -> list[ReadFile]:
    """Return the newest of the rotated files, if there is one."""
    return _known_files(rotated_files(path)[-1:])


def _known_files(files: list[LogFile]) -> list[ReadFile]:
    """Return files as read ones. A compressed file is not read for it: it changes no more."""
    known = []
    for file in files:
        read = ReadFile(file.inode, file.modified_ns)
        if compression_by_name(file.path) is None:
            with suppress(OSError, FileMovedError):
                opened = open_log_file(file)
                read = read_file(opened)
                opened.close()
        known.append(read)
    return known


def _with_inodes(files: list[LogFile], inodes: set[int]) -> list[LogFile]:
    return [file for file in files if file.inode in inodes]


def _check_path(path: str) -> None:
    if compression_by_name(path) is not None:
        raise UsageError(f"cannot follow {path}: it is compressed")
    with suppress(OSError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(f"cannot follow {path}: --follow is for files and folders")
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except FileNotFoundError:
        folder = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(folder):
            raise UsageError(f"cannot follow {path}: there is no folder {folder}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


_RETRY_SECONDS = 0.2  # time until the next check while a newer file waits


class FollowedSource:
    """A log file that is followed through rotation, as a live source. It never ends.

    The file need not exist yet. With `from_end`, its present lines are skipped. Raises UsageError.
    """

    can_resume = True
    is_over = False

    def __init__(self, path: str, *, from_end: bool = False) -> None:
        self.name = path
        self._wakeup = Wakeup()
        real = os.path.realpath(path)
        stems = tuple(os.path.splitext(os.path.basename(name))[0] for name in (path, real))
        folders = {os.path.dirname(os.path.abspath(path)), os.path.dirname(real)}
        self._watch = FolderWatch(
            sorted(folders), self._wakeup, lambda name: os.path.basename(name).startswith(stems)
        )
        self._follower = LogFollower(path, from_end=from_end)

    @property
    def is_missing(self) -> bool:
        """Whether there is no file at the path."""
        return not os.path.exists(self.name)

    @property
    def position(self) -> Any:
        return self._follower.position

    def start_at(self, position: Any) -> None:
        self._follower.start_at(position)

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - see `LiveSource`
        self._watch.start()
        chunk = await self._next()
        if chunk is not None or timeout == 0:
            return chunk
        longest = _RETRY_SECONDS if self._follower.is_waiting else POLL_SECONDS
        await self._wakeup.wait(longest if timeout is None else min(longest, timeout))
        return await self._next()

    def wake(self) -> None:
        """End the wait of `read`."""
        self._wakeup.set()

    def close(self) -> None:
        """Stop the notifications and close the files."""
        self._watch.close()
        self._follower.close()

    async def _next(self) -> LiveChunk | None:
        if self._follower.has_more:
            return self._follower.next()
        return await asyncio.to_thread(self._follower.next)
