"""The progress of a worker, in shared memory that outlives the worker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import MutableSequence

_CELL_BYTES = 16  # Two 64-bit numbers, each written in one go.
_FILE_CELL, _WAITS_CELL = 0, 1
_NO_BATCH, _NO_FILE, _FIRST_FILE = 0, 1, 2


class Progress:
    """The number of the worker's current file, in shared memory.

    Writing it takes some 0.1 us. A worker measures no time: the main process sees how long a number
    stays. The worker notes when it waits for the main process, because that time is not the file's.
    """

    def __init__(self, cell: MutableSequence[int] | Any = None) -> None:
        self._cell = [_NO_BATCH, 0] if cell is None else cell

    @classmethod
    def shared(cls, descriptor: int) -> Self:
        """Return the progress in an open `shared_memory` file, and close the file."""
        import mmap

        try:
            return cls(memoryview(mmap.mmap(descriptor, _CELL_BYTES)).cast("Q"))
        finally:
            os.close(descriptor)

    def begin_batch(self) -> None:
        """Note that a batch has begun, and no file of it."""
        self._cell[_FILE_CELL] = _NO_FILE

    end_file = begin_batch

    def begin_file(self, number: int) -> None:
        """Say that file `number` of the run is worked on from now on."""
        self._cell[_FILE_CELL] = number + _FIRST_FILE

    def end_batch(self) -> None:
        """Say that no batch is worked on. A worker that dies so has died of none."""
        self._cell[_FILE_CELL] = _NO_BATCH

    def begin_waiting(self) -> None:
        """Say that the main process is waited for."""
        self._cell[_WAITS_CELL] += 1

    end_waiting = begin_waiting

    @property
    def in_batch(self) -> bool:
        """Whether a batch is worked on."""
        return bool(self._cell[_FILE_CELL] != _NO_BATCH)

    @property
    def file(self) -> int | None:
        """The number of the file that is worked on; None for none."""
        at = self._cell[_FILE_CELL]
        return at - _FIRST_FILE if at >= _FIRST_FILE else None

    @property
    def is_waiting(self) -> bool:
        """Whether the main process is waited for."""
        return bool(self._cell[_WAITS_CELL] % 2)


def create_shared_memory() -> int:
    """Return a file for two processes to map: in memory, or at least without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("asyncbatch-progress")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _CELL_BYTES)
    return descriptor


class FileStopwatch:
    """Tells when a worker has been at one file for longer than a limit.

    It never counts too much: time between two calls counts only up to twice `interval` seconds.
    After a longer gap the main process, or the whole machine, stood still.
    """

    def __init__(self, limit: float, interval: float) -> None:
        self._limit, self._longest = limit, 2 * interval
        self._at: tuple[Progress, int] | None = None
        self._seconds = self._last = 0.0

    def overdue_file(self, progress: Progress, now: float) -> int | None:
        """Return the number of the overdue file, or None."""
        file, gone = progress.file, min(now - self._last, self._longest)
        self._last = now
        at = None if file is None else (progress, file)
        if at is None or at != self._at:
            self._at, self._seconds = at, 0.0
            return None
        if not progress.is_waiting:
            self._seconds += gone
        return file if self._seconds >= self._limit else None
