"""A folder as a source: its files, and those that come into it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from asyncbatch.streams.bell import Bell
from asyncbatch.streams.chunks import Chunk
from asyncbatch.streams.folder_reader import FolderReader
from asyncbatch.streams.watch import POLL_SECONDS, Watch

if TYPE_CHECKING:
    from asyncbatch.sources.selection import Selection

_SOON_SECONDS = 0.2
"""When to look again at files that may be complete by then."""
_LOOKING_SHARE = 10
"""A look that takes long is not repeated before so many times as long."""


class FolderSource:
    """The files below a folder, and with `follow` those that come into it; see `FolderReader`.

    Raises UsageError.
    """

    can_resume = True

    def __init__(
        self, path: str, selection: Selection, *, follow: bool = False, from_end: bool = False
    ) -> None:
        self.name, self.is_over = path, False
        self._bell = Bell()
        self._watch = Watch([path], self._bell, lambda _: True, recursive=True) if follow else None
        self._reader = FolderReader(path, selection, follows=follow, from_end=from_end)
        self._is_woken = False
        self._looked_at = self._due = 0.0

    @property
    def position(self) -> Any:  # noqa: ANN401 - see `Replayable`
        """Where it goes on; see `Replayable`."""
        return self._reader.position

    def start_at(self, position: Any) -> None:  # noqa: ANN401 - see `Replayable`
        """Go on behind a chunk; see `Replayable`."""
        self._reader.start_at(position)

    async def read(self, timeout: float | None) -> Chunk | None:  # noqa: ASYNC109 - see `Source`
        """Return what has come; see `Source`."""
        if self._watch is not None:
            self._watch.start()
            chunk = await self._looked()
            if chunk is not None or timeout == 0:
                return chunk
            left = max(0.0, self._due - time.monotonic())
            if await self._bell.wait(left if timeout is None else min(left, timeout)):
                if self._is_woken:
                    self._is_woken = False
                    return None
                self._due = self._looked_at + _LOOKING_SHARE * self._reader.look_seconds
            return await self._looked()
        chunk = await self._next()
        if chunk is None:
            self.is_over = True
            chunk = Chunk(self.name, b"", ends=True, position=self._reader.position)
        return chunk

    def wake(self) -> None:
        """End the wait of `read`."""
        self._is_woken = True
        self._bell.ring()

    def close(self) -> None:
        """Leave the folder."""
        if self._watch is not None:
            self._watch.close()
        self._reader.close()

    async def _looked(self) -> Chunk | None:
        """Return what comes next, having looked for further files if it is time to."""
        if not self._reader.has_files:
            now = time.monotonic()
            if now < self._due:
                return None
            self._reader.look_again()
        chunk = await self._next()
        if not self._reader.has_files:
            pause = _SOON_SECONDS if self._reader.is_waiting else POLL_SECONDS
            self._looked_at = time.monotonic()
            self._due = self._looked_at + max(pause, _LOOKING_SHARE * self._reader.look_seconds)
        return chunk

    async def _next(self) -> Chunk | None:
        if self._reader.has_more:
            return self._reader.next()
        return await asyncio.to_thread(self._reader.next)
