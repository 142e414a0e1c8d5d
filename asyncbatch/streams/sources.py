"""Where a stream's bytes come from: whatever is there, as soon as it is there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError
from asyncbatch.records import STDIN
from asyncbatch.streams.chunks import Chunk

if TYPE_CHECKING:
    from asyncbatch.streams.simulator import Simulator

_CHUNK = 128 * 1024
"""What is given at a time: more would no longer fit into a processor's cache as events."""
_AHEAD = 8 * _CHUNK
"""What is read of a file at a time, in a thread."""
_PIPE_BYTES = 1024 * 1024
_PACE_SECONDS = 0.02
"""Simulated events that are nearer than this come together."""


class _Bell:
    """Something to wait for that may be rung."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()


class FileSource:
    """A file, read to its end, or standard input. Raises UsageError if it cannot be read."""

    def __init__(self, path: str) -> None:
        self.name, self.is_over = path, False
        self._is_ours = path != STDIN
        try:
            self._file = os.open(path, os.O_RDONLY) if self._is_ours else sys.__stdin__.fileno()  # type: ignore[union-attr]  # opened, if it was closed, before any command
            mode = os.fstat(self._file).st_mode
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        if stat.S_ISDIR(mode):
            raise UsageError(f"cannot read {path}: it is a folder")
        self._waits = not stat.S_ISREG(mode) and not _is_null(self._file)
        if stat.S_ISFIFO(mode) and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # fewer and larger reads, if the system lets us
                fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._bell = _Bell()
        self._ahead = memoryview(b"")
        self._offset = 0

    async def read(self, timeout: float | None) -> Chunk | None:  # noqa: ASYNC109 - see `Source`
        """Return what has come; see `Source`."""
        data = await self._read(timeout)
        if data is None:
            return None
        self.is_over = not data
        self._offset += len(data)
        position = None if self._waits else [self._offset]
        return Chunk(self.name, data, ends=self.is_over, position=position)

    def start_at(self, position: list[int]) -> None:
        """Begin there."""
        (self._offset,) = position
        os.lseek(self._file, self._offset, os.SEEK_SET)

    async def _read(self, timeout: float | None) -> bytes | None:  # noqa: ASYNC109 - see `Source`
        if not self._waits:
            if not self._ahead:
                self._ahead = memoryview(await asyncio.to_thread(os.read, self._file, _AHEAD))
            data, self._ahead = bytes(self._ahead[:_CHUNK]), self._ahead[_CHUNK:]
            return data
        if not _is_ready(self._file):
            loop = asyncio.get_running_loop()
            loop.add_reader(self._file, self._bell.ring)
            try:
                await self._bell.wait(timeout)
            finally:
                loop.remove_reader(self._file)
            if not _is_ready(self._file):
                return None
        return os.read(self._file, _CHUNK)

    def wake(self) -> None:
        """End the wait of `read`."""
        self._bell.ring()

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if self._is_ours:
            os.close(self._file)


class SimulatedSource:
    """Events of a simulator, at the time at which each happens."""

    def __init__(self, name: str, simulator: Simulator) -> None:
        self.name, self.is_over = name, False
        self._simulator = simulator
        self._bell = _Bell()

    async def read(self, timeout: float | None) -> Chunk | None:  # noqa: ASYNC109 - see `Source`
        """Return what has happened; see `Source`."""
        now = time.time_ns() // 1000
        until = max((self._simulator.next_at() - now) / 1e6, 0 if timeout == 0 else _PACE_SECONDS)
        await self._bell.wait(until if timeout is None else min(until, timeout))
        lines = self._simulator.lines(self._simulator.due(time.time_ns() // 1000))
        return Chunk(self.name, lines) if lines else None

    def wake(self) -> None:
        """End the wait of `read`."""
        self._bell.ring()

    def close(self) -> None:
        """Nothing is held."""


def _is_ready(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _is_null(descriptor: int) -> bool:
    """Whether it is a device like /dev/null, which no event loop can wait for."""
    null = os.stat(os.devnull)
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == null.st_rdev
