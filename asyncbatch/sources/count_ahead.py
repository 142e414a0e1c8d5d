"""A count of the inputs ahead of the search, for the percentage and the time left."""

from __future__ import annotations

import os
import stat
import time
from itertools import islice
from threading import Event, Thread
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SLICE_PATHS = 256  # paths between two looks at the clock
_PAUSE_SECONDS = 0.0005  # after each slice, so that the event loop gets the interpreter
# A slice that takes this long waits for storage. The count then pauses as long as it has worked,
# because its listings delay the reads of the run.
_SLOW_SLICE_SECONDS = 0.05
_MAX_SECONDS = 60.0  # of work; the count is then a lower bound
_MAX_STAT_SECONDS = 0.1  # of stat calls; the number of bytes is then unknown


class InputCount(Struct, frozen=True):
    """The number of inputs of a run, as far as it is known."""

    files: int = 0
    bytes: int | None = 0  # None if unknown
    is_complete: bool = True  # whether there are no more

    def __add__(self, other: InputCount) -> InputCount:
        has_bytes = self.bytes is not None and other.bytes is not None
        return InputCount(
            self.files + other.files,
            (self.bytes or 0) + (other.bytes or 0) if has_bytes else None,
            self.is_complete and other.is_complete,
        )


class InputCounter:
    """Counts paths in a thread of its own, which a slow consumer of the search does not delay.

    Call `start` once, and `stop` at the end of the run. Memory is that of a search: the names of
    one folder and its parents.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = iter(paths)
        self._files = 0
        self._bytes: int | None = 0
        self._is_complete = False
        self._is_stopped = Event()
        self._stat_seconds = 0.0

    def start(self) -> None:
        """Start to count."""
        # A daemon: a listing that hangs must not keep the process alive.
        Thread(target=self._run, name="asyncbatch-count", daemon=True).start()

    def stop(self) -> None:
        """Count no more."""
        self._is_stopped.set()

    @property
    def count(self) -> InputCount:
        """The count so far. The bytes are known when it is complete."""
        return InputCount(
            self._files, self._bytes if self._is_complete else None, self._is_complete
        )

    def _run(self) -> None:
        seconds = 0.0
        while seconds < _MAX_SECONDS:
            began = time.monotonic()
            try:
                paths = list(islice(self._paths, _SLICE_PATHS))
            except (OSError, UsageError):  # the search of the run reports it
                return
            if self._bytes is not None:
                self._add_bytes(paths)
            self._files += len(paths)
            if len(paths) < _SLICE_PATHS:
                self._is_complete = True
                return
            worked = time.monotonic() - began
            seconds += worked
            pause = worked if worked > _SLOW_SLICE_SECONDS else _PAUSE_SECONDS
            if self._is_stopped.wait(pause):
                return

    def _add_bytes(self, paths: Sequence[str]) -> None:
        """Add the sizes of files, unless that takes too long."""
        began, size = time.monotonic(), 0
        for path in paths:
            try:
                status = os.stat(path)
            except OSError:
                continue
            if not stat.S_ISREG(status.st_mode):  # a pipe has no size
                self._bytes = None
                return
            size += status.st_size
        self._stat_seconds += time.monotonic() - began
        if self._stat_seconds > _MAX_STAT_SECONDS or self._bytes is None:
            self._bytes = None
        else:
            self._bytes += size
