"""Pipes, standard input, and files that are read to their end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import select
import stat
import sys
from contextlib import suppress
from typing import Any

from asyncbatch.core.aio import Wakeup
from asyncbatch.core.records import STDIN
from asyncbatch.errors import SourceError, UsageError
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.sources.base import CHUNK_BYTES, LiveChunk
from asyncbatch.sources.live.file import (
    HOLE_START,
    FileMark,
    FileReader,
    parse_position,
    position_of_mark,
)

_HOLES = re.compile(rb"(?<=\n)(?:\0{4,}|\0+\Z)")  # the second: a hole that the next read continues
_PIPE_BYTES = 1024 * 1024  # the capacity requested for a pipe; Linux's default is 64 KiB


class PipeSource:
    """A file, a pipe or standard input as a live source. It is over at its end.

    Only a file can resume. Raises UsageError if the path cannot be read.
    """

    name: str
    is_over: bool

    def __init__(self, path: str) -> None:
        self.name, self.is_over = path, False
        self._owns_descriptor = path != STDIN
        try:
            if self._owns_descriptor:
                self._descriptor = os.open(path, os.O_RDONLY)
            else:
                assert sys.__stdin__ is not None  # a closed one was reopened at start-up
                self._descriptor = sys.__stdin__.fileno()
            mode = os.fstat(self._descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise UsageError(f"cannot read {path}: it is a folder")
            is_file = stat.S_ISREG(mode) or _is_null_device(self._descriptor)
            self._reader = FileReader(self._descriptor, path) if is_file else None
        except OSError as error:
            near = f"; for example events write {path}:" if path == "simulate" else ""
            raise UsageError(f"cannot read {path}: {error.strerror}{near}") from None
        except CorruptArchiveError as error:
            raise UsageError(f"cannot read {path}: {error}") from None
        self.can_resume: bool = self._owns_descriptor and is_file
        if stat.S_ISFIFO(mode) and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # for fewer and larger reads, if the system permits it
                fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._wakeup = Wakeup()
        self._is_at_start = True  # of a file
        self._is_line_start, self._is_in_hole = True, False  # of a pipe

    @property
    def position(self) -> Any:
        if self._reader is None or not self.can_resume:
            return None
        return position_of_mark(self._reader.read_position.mark())

    def start_at(self, position: Any) -> None:
        mark = parse_position(position, FileMark)
        if self._reader is None or not self.can_resume:
            raise UsageError(f"{self.name} cannot be read again: it is not a file")
        self._is_at_start = not mark.offset
        if not self._reader.seek(mark):
            raise UsageError(
                f"{self.name} was replaced or truncated after its first {mark.offset:,} bytes were "
                "read. Restore the file, or restart without the checkpoint"
            )

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - see `LiveSource`
        reading = self._reader
        if reading is None:
            data = await self._read_pipe(timeout)
            if data is None:
                return None
            self.is_over = not data
            return LiveChunk(self.name, data, ends_file=self.is_over)
        try:
            data = await reading.read()
        except CorruptArchiveError as error:
            raise SourceError(f"cannot read {self.name}: {error}") from None
        self.is_over = not data
        is_head, self._is_at_start = self._is_at_start and not self.is_over, False
        position = self.position
        return LiveChunk(
            self.name, data, ends_file=self.is_over, position=position, is_head=is_head
        )

    async def _read_pipe(self, timeout: float | None) -> bytes | None:  # noqa: ASYNC109 - see `LiveSource`
        if not _is_ready(self._descriptor):
            loop = asyncio.get_running_loop()
            loop.add_reader(self._descriptor, self._wakeup.set)
            try:
                await self._wakeup.wait(timeout)
            finally:
                loop.remove_reader(self._descriptor)
            if not _is_ready(self._descriptor):
                return None
        data = os.read(self._descriptor, CHUNK_BYTES)
        return data and self._without_hole(data)

    def _without_hole(self, data: bytes) -> bytes | None:
        """Return the bytes after a hole at the beginning of a line; None if there are none yet.

        The output of `tail -F` contains the hole at the beginning of a file that was truncated.
        """
        read = data
        if self._is_in_hole or (self._is_line_start and data.startswith(HOLE_START)):
            data = data.lstrip(b"\0")
        if b"\0" in data:
            data = _HOLES.sub(b"", data)
        self._is_in_hole = read.endswith(b"\0") and (not data or data.endswith(b"\n"))
        if not data:
            return None
        self._is_line_start = data.endswith(b"\n")
        return data

    def wake(self) -> None:
        """End the wait of `read`."""
        self._wakeup.set()

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if not self._owns_descriptor:
            return
        if self._reader is not None:
            self._reader.close()
        else:
            os.close(self._descriptor)


def _is_ready(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _is_null_device(descriptor: int) -> bool:
    """Whether a descriptor is /dev/null, which the event loop cannot wait for."""
    null = os.stat(os.devnull)
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == null.st_rdev
