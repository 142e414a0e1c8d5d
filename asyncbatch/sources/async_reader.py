"""A reader of inputs for the event loop; it requests objects ahead."""

from __future__ import annotations

import asyncio
import stat
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import aiofiles
import aiofiles.os

from asyncbatch.core.paths import ArchiveMember, ObjectPath
from asyncbatch.core.records import STDIN
from asyncbatch.sources.reader import OPEN_ERRORS
from asyncbatch.storage.local import FIRST_READ_BYTES, TooLargeError, open_content

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from asyncbatch.sources.reader import Opened
    from asyncbatch.storage.opener import Opener

# Objects of a batch that are requested ahead: the first half megabyte of each.
MAX_OBJECTS_AHEAD = 16


class AsyncReader:
    """Opens inputs in order. A file of up to `whole_file_bytes` bytes is read in one call.

    A file of more than `limit` bytes gives TooLargeError.
    """

    def __init__(self, opener: Opener, limit: int | None, whole_file_bytes: int) -> None:
        self._opener, self._limit, self._whole_file_bytes = opener, limit, whole_file_bytes

    async def contents(self, paths: Iterable[str]) -> AsyncGenerator[tuple[str, Opened], None]:
        """Yield each path with its content or the error, in order."""
        remaining = iter(paths)
        in_flight: deque[tuple[str, asyncio.Task[Opened]]] = deque()
        try:
            while True:
                # Only objects are opened ahead: a local file opens without a wait.
                while not in_flight or (
                    len(in_flight) < MAX_OBJECTS_AHEAD and isinstance(in_flight[-1][0], ObjectPath)
                ):
                    if (path := next(remaining, None)) is None:
                        break
                    in_flight.append((path, asyncio.create_task(self._open(path))))
                if not in_flight:
                    return
                path, opening = in_flight.popleft()
                yield path, await opening
        finally:
            for _, opening in in_flight:
                opening.cancel()

    async def _open(self, path: str) -> Opened:
        try:
            if path == STDIN:
                return await asyncio.to_thread(open_content, path, self._limit)
            if isinstance(path, ObjectPath):
                loop, opener = asyncio.get_running_loop(), self._opener
                return await loop.run_in_executor(opener.threads, opener.open, path, self._limit)
            if isinstance(path, ArchiveMember):
                return await asyncio.to_thread(self._opener.open, path, self._limit)
            return await self._opener.files.call_async(partial(self._open_file, path))
        except OPEN_ERRORS as error:
            return error

    async def _open_file(self, path: str) -> Opened:
        status = await aiofiles.os.stat(path)
        if stat.S_ISREG(status.st_mode) and status.st_size <= self._whole_file_bytes:
            if self._limit is not None and status.st_size > self._limit:
                return TooLargeError(status.st_size, self._limit)
            async with aiofiles.open(path, "rb") as stream:
                return await stream.read()
        retrier = self._opener.files
        return await asyncio.to_thread(open_content, path, self._limit, FIRST_READ_BYTES, retrier)
