"""The progress of a worker, in shared memory that outlives it, and the time of its files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

_CELL_BYTES = 24  # three 64-bit numbers; a write of one is atomic
_FILE_CELL, _WAITS_CELL, _BYTES_CELL = 0, 1, 2
_NO_BATCH, _NO_FILE, _FIRST_FILE = 0, 1, 2


class Progress:
    """The number of the file that a worker is processing, and its read bytes, in shared memory.

    The worker writes them, the main process reads them. A write takes about 0.1 us. The worker
    measures no time: the main process measures how long a number stays the same. The worker marks
    the time in which it waits for the main process, because that time does not count for the file.
    """

    def __init__(self, cell: MutableSequence[int] | Any = None) -> None:
        self._cell = [_NO_BATCH, 0, 0] if cell is None else cell

    @classmethod
    def shared(cls, descriptor: int) -> Self:
        """Return the progress in an open file of `create_shared_memory`, and close the file."""
        import mmap

        try:
            return cls(memoryview(mmap.mmap(descriptor, _CELL_BYTES)).cast("Q"))
        finally:
            os.close(descriptor)

    def begin_batch(self) -> None:
        """Record that a batch has begun, but none of its files."""
        self._cell[_FILE_CELL] = _NO_FILE
        self._cell[_BYTES_CELL] = 0

    end_file = begin_batch

    def begin_file(self, number: int) -> None:
        """Record that the worker now processes file `number` of the run."""
        self._cell[_FILE_CELL] = number + _FIRST_FILE

    def note_bytes(self, count: int) -> None:
        """Record the number of bytes that were read of a large file. Zero once it has ended."""
        self._cell[_BYTES_CELL] = count

    def end_batch(self) -> None:
        """Record that the worker has no batch: if it dies now, no batch is at fault."""
        self._cell[_FILE_CELL] = _NO_BATCH

    def begin_waiting(self) -> None:
        """Record that the worker begins or ends a wait for the main process."""
        self._cell[_WAITS_CELL] += 1

    end_waiting = begin_waiting

    @property
    def in_batch(self) -> bool:
        """Whether the worker processes a batch."""
        return bool(self._cell[_FILE_CELL] != _NO_BATCH)

    @property
    def file(self) -> int | None:
        """The number of the file in process, or None."""
        at = self._cell[_FILE_CELL]
        return at - _FIRST_FILE if at >= _FIRST_FILE else None

    @property
    def bytes(self) -> int:
        """The bytes that were read of the large file in process, as on disk; else 0."""
        return int(self._cell[_BYTES_CELL])

    @property
    def is_waiting(self) -> bool:
        """Whether the worker waits for the main process."""
        return bool(self._cell[_WAITS_CELL] % 2)


def create_shared_memory() -> int:
    """Return the descriptor of an unnamed file for two processes to map."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("asyncbatch-progress")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _CELL_BYTES)
    return descriptor


class FileInProgress(NamedTuple):
    """A file that a worker processes at this moment."""

    number: int  # within the run
    name: str
    bytes: int  # read of it so far, if it is large; they are in no part yet


class LongFile(NamedTuple):
    """A file that takes long, and the seconds so far."""

    name: str
    seconds: float


LONG_SECONDS = 10.0  # a file that takes longer is named while it is processed


class FileTimer:
    """Measures how long files are in process, by looking at them now and then."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}  # by the number of the file

    def find_long(self, files: Sequence[FileInProgress], now: float) -> tuple[LongFile, ...]:
        """Return those files that have been in process for long, the longest first."""
        self._since = {file.number: self._since.get(file.number, now) for file in files}
        names = {file.number: file.name for file in files}
        long = (
            LongFile(names[number], now - since)
            for number, since in self._since.items()
            if now - since >= LONG_SECONDS
        )
        return tuple(sorted(long, key=lambda one: -one.seconds))


class FileStopwatch:
    """Detects a worker that has processed one file for longer than `limit` seconds.

    It is called about every `interval` seconds. The time between two calls counts only up to twice
    that: after a longer gap the main process, or the whole machine, did not run.
    """

    def __init__(self, limit: float, interval: float) -> None:
        self._limit, self._longest = limit, 2 * interval
        self._at: tuple[Progress, int] | None = None
        self._seconds = self._last = 0.0

    def overdue_file(self, progress: Progress, now: float) -> int | None:
        """Return the number of the overdue file, or None."""
        file, elapsed = progress.file, min(now - self._last, self._longest)
        self._last = now
        at = None if file is None else (progress, file)
        if at is None or at != self._at:
            self._at, self._seconds = at, 0.0
            return None
        if not progress.is_waiting:
            self._seconds += elapsed
        return file if self._seconds >= self._limit else None
