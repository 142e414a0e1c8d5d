"""Pipes and stdin."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
import sys
from contextlib import suppress
from typing import Any

from asyncbatch.core.aio import Wakeup
from asyncbatch.core.records import STDIN
from asyncbatch.errors import SourceError, UsageError
from asyncbatch.formats.compression import CorruptArchiveError
from asyncbatch.sources.base import CHUNK, LiveChunk
from asyncbatch.sources.live.file import FileReader, as_mark, as_position

_PIPE_BYTES = 1024 * 1024
_POLL_SECONDS = 0.02  # Simulated events that are nearer than this come together.
# Simulated events that are given at a time: after a pause, or at a high rate.
_MOST_AT_ONCE = 1_000


class PipeSource:
    """A file, read to its end, or a pipe, or standard input.

    Raises UsageError if it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.name, self.is_over = path, False
        self._is_ours = path != STDIN
        try:
            self._file = os.open(path, os.O_RDONLY) if self._is_ours else sys.__stdin__.fileno()  # type: ignore[union-attr]  # opened, if it was closed, before any command
            mode = os.fstat(self._file).st_mode
            if stat.S_ISDIR(mode):
                raise UsageError(f"cannot read {path}: it is a folder")
            is_file = stat.S_ISREG(mode) or _is_null(self._file)
            self._reading = FileReader(self._file, path) if is_file else None
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        except CorruptArchiveError as error:
            raise UsageError(f"cannot read {path}: {error}") from None
        self.can_resume = self._is_ours and is_file
        if stat.S_ISFIFO(mode) and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # fewer and larger reads, if the system lets us
                fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._wakeup = Wakeup()

    @property
    def position(self) -> Any:
        if self._reading is None or not self.can_resume:
            return None
        return as_position(self._reading.read_position.mark())

    def start_at(self, position: Any) -> None:
        """Go on behind a chunk; see `ReplayableSource`."""
        mark = as_mark(position)
        if self._reading is None or not self.can_resume:
            raise UsageError(f"{self.name} is no file that can be read again")
        if not self._reading.seek(mark):
            raise UsageError(
                f"{self.name} is not what it was: its first {mark.offset:,} bytes were read, and "
                "it was replaced or cut since. Give back the file that was read, or begin anew "
                "without what was kept of it"
            )

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - see `LiveSource`
        reading = self._reading
        if reading is None:
            data = await self._read_pipe(timeout)
            if data is None:
                return None
            self.is_over = not data
            return LiveChunk(self.name, data, ends=self.is_over)
        try:
            data = await reading.read()
        except CorruptArchiveError as error:
            raise SourceError(f"cannot read {self.name}: {error}") from None
        self.is_over = not data
        return LiveChunk(self.name, data, ends=self.is_over, position=self.position)

    async def _read_pipe(self, timeout: float | None) -> bytes | None:  # noqa: ASYNC109 - see `LiveSource`
        if not _is_ready(self._file):
            loop = asyncio.get_running_loop()
            loop.add_reader(self._file, self._wakeup.set)
            try:
                await self._wakeup.wait(timeout)
            finally:
                loop.remove_reader(self._file)
            if not _is_ready(self._file):
                return None
        return os.read(self._file, CHUNK)

    def wake(self) -> None:
        """End the wait of `read`."""
        self._wakeup.set()

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if not self._is_ours:
            return
        if self._reading is not None:
            self._reading.close()
        else:
            os.close(self._file)


def _is_ready(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _is_null(descriptor: int) -> bool:
    """Whether it is a device like /dev/null, which no event loop can wait for."""
    null = os.stat(os.devnull)
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == null.st_rdev
