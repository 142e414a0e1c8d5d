"""Reading of inputs in order: one by one on fast storage, many ahead on slow."""

from __future__ import annotations

import resource
import time
from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING

from asyncbatch.core.paths import ArchiveMember, ObjectPath
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.storage.local import FIRST_READ_BYTES, Content, TooLargeError, open_content
from asyncbatch.storage.opener import Opener

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from asyncbatch.core.batches import Batch
    from asyncbatch.core.progress import Progress
    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.sources.archives import MemberOpener

    # The result of opening a file: all its bytes, a stream with its first bytes, or the error.
    Opened = bytes | Content | OSError | TooLargeError | CorruptArchiveError

OPEN_ERRORS = (OSError, TooLargeError, CorruptArchiveError)  # the errors of opening an input

# Bytes of a file that are read ahead. The rest of a larger file is read when it is processed.
READ_AHEAD_BYTES = 512 * 1024
READS_IN_FLIGHT = 64  # files that one worker reads at a time on slow storage
PROBE_FILES = 16  # files that are read one by one to find out whether storage is slow
REPROBE_EVERY = 8  # while storage is slow, every eighth read begins with a probe
# File descriptors that stay free for the rest of the process.
_SPARE_DESCRIPTORS = 24
_THREAD_USAGE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class InputOpener(Opener):
    """Opens the inputs of a task, also members of archives.

    Several threads may open files, objects and members of a zip at a time. A compressed tar is read
    from its start to its end: only one thread may open its members.
    """

    def __init__(self, settings: FileWorkSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._lazy_members: MemberOpener | None = None

    def open(
        self, path: str, limit: int | None = None, ahead: int = FIRST_READ_BYTES
    ) -> bytes | Content:
        if isinstance(path, ArchiveMember):
            return self._members.open(path, limit, ahead)
        return super().open(path, limit, ahead)

    def size(self, path: str) -> int:
        if isinstance(path, ArchiveMember):
            return self._members.size(path)
        return super().size(path)

    @property
    def _members(self) -> MemberOpener:
        with self._lock:
            if self._lazy_members is None:
                from asyncbatch.sources.archives import MemberOpener

                self._lazy_members = MemberOpener(self._settings, self.files)
            return self._lazy_members


def _is_packed(path: str) -> bool:
    return isinstance(path, ArchiveMember) and path.info.form == "packed"


class Reader:
    """Opens files in order, and reads many ahead if storage is slow. For one thread.

    A file in the page cache costs an open, two reads and a close. The voluntary context switches of
    the thread show whether storage is slow: a read from memory has none, a read that waits for a
    device or a server has at least one. With `in_flight` the number of files ahead is fixed, and
    0 reads one by one. Objects are always read ahead, unless `in_flight` is 0; members of a
    compressed tar never are.
    """

    def __init__(
        self,
        limit: int | None = None,
        in_flight: int | None = None,
        opener: Opener | None = None,
    ) -> None:
        self._limit = limit
        self._open = opener.open if opener else open_content
        self._is_adaptive = in_flight is None
        self._in_flight = _allowed_in_flight(READS_IN_FLIGHT if in_flight is None else in_flight)
        self._is_slow = not self._is_adaptive and self._in_flight > 0
        self._reads_until_probe = REPROBE_EVERY
        self._threads: ThreadPoolExecutor | None = None

    def contents(
        self, batch: Batch, max_bytes: int, max_seconds: float, progress: Progress
    ) -> Generator[tuple[str, Opened], None, None]:
        """Yield each path with its content or the error; report each to `progress`.

        Stops after `max_bytes` or `max_seconds`, but not before the first file. Each file that was
        opened ahead is either yielded, or closed when the generator is closed.
        """
        deadline = time.monotonic() + max_seconds
        limit, open_file, begin_file, bytes_read = self._limit, self._open, progress.begin_file, 0
        opened: Opened
        remaining, number = iter(batch.paths), batch.start
        is_sequential = any(map(_is_packed, batch.paths))
        for first in remaining:
            candidates = chain((first,), remaining)
            waits = bool(self._in_flight) and isinstance(first, ObjectPath)
            is_ahead = waits or (self._is_slow and not self._probe_is_due())
            if is_ahead and not is_sequential:
                ahead = self._read_ahead(candidates, max_bytes - bytes_read, deadline)
                for index, (path, future) in enumerate(ahead, number):
                    begin_file(index)
                    opened = future.result()
                    if isinstance(opened, Content):
                        opened.on_read = progress.note_bytes
                    yield path, opened
                    progress.end_file()
                return
            switches = _voluntary_switches()
            for path in islice(candidates, PROBE_FILES):
                begin_file(number)
                number += 1
                try:
                    opened = open_file(path, limit)
                except OPEN_ERRORS as error:
                    opened = error
                if isinstance(opened, Content):
                    opened.on_read = progress.note_bytes
                    yield path, opened
                    progress.note_bytes(0)
                else:
                    yield path, opened
                bytes_read += read_size(opened)
                if bytes_read >= max_bytes or time.monotonic() > deadline:
                    progress.end_file()
                    return
            progress.end_file()
            if self._is_adaptive:
                self._is_slow = _voluntary_switches() - switches >= PROBE_FILES // 4

    def _probe_is_due(self) -> bool:
        """Whether to test again if storage is still slow."""
        self._reads_until_probe -= 1
        if not self._is_adaptive or self._reads_until_probe > 0:
            return False
        self._reads_until_probe = REPROBE_EVERY
        return True

    def _open_ahead(self, path: str) -> Opened:
        try:
            return self._open(path, self._limit, READ_AHEAD_BYTES)
        except OPEN_ERRORS as error:
            return error

    def _read_ahead(
        self, paths: Iterator[str], max_bytes: int, deadline: float
    ) -> Iterator[tuple[str, Future[Opened]]]:
        """Yield each path with the future of its content."""
        from concurrent.futures import ThreadPoolExecutor

        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._in_flight, "asyncbatch-read")
        pending: deque[tuple[str, Future[Opened]]] = deque()
        bytes_read, more = 0, True
        try:
            while more or pending:
                while more and len(pending) < self._in_flight:
                    path = next(paths, None)
                    if path is None:
                        more = False
                    else:
                        submitted = self._threads.submit(self._open_ahead, path)
                        pending.append((path, submitted))
                if pending:
                    path, future = pending.popleft()
                    yield path, future
                    bytes_read += read_size(future.result())
                    more = more and bytes_read < max_bytes and time.monotonic() <= deadline
        finally:
            for _, future in pending:
                close_opened(future.result())


def close_opened(opened: Opened) -> None:
    """Close a file that will not be read."""
    if isinstance(opened, Content):
        with opened:
            pass


def read_size(opened: Opened) -> int:
    """Return the number of bytes of a file that were read so far."""
    if isinstance(opened, bytes):
        return len(opened)
    return opened.size if isinstance(opened, Content) else 0


def _voluntary_switches() -> int:
    return resource.getrusage(_THREAD_USAGE).ru_nvcsw


def _allowed_in_flight(in_flight: int) -> int:
    """Return `in_flight`, reduced to the limit on open files, but at least 1 if not 0."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or in_flight == 0:
        return in_flight
    return max(1, min(in_flight, soft - _SPARE_DESCRIPTORS))
