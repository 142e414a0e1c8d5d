"""A file that is followed, as a source."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from asyncbatch.streams.bell import Bell
from asyncbatch.streams.follower import Follower
from asyncbatch.streams.watch import POLL_SECONDS, Watch

if TYPE_CHECKING:
    from asyncbatch.streams.chunks import Chunk

_SOON_SECONDS = 0.2
"""When to look again at a file that must be left alone for a while."""


class FollowedSource:
    """A file followed through rotation, which never ends; see `Follower`.

    It need not be there yet. With `from_end`, what is there is passed over. Raises UsageError.
    """

    can_resume = True
    is_over = False

    def __init__(self, path: str, *, from_end: bool = False) -> None:
        self.name = path
        self._bell = Bell()
        real = os.path.realpath(path)
        stems = tuple(os.path.splitext(os.path.basename(name))[0] for name in (path, real))
        folders = {os.path.dirname(os.path.abspath(path)), os.path.dirname(real)}
        self._watch = Watch(
            sorted(folders), self._bell, lambda name: os.path.basename(name).startswith(stems)
        )
        self._follower = Follower(path, from_end=from_end)

    @property
    def position(self) -> Any:  # noqa: ANN401 - see `Replayable`
        """Where it goes on; see `Replayable`."""
        return self._follower.position

    def start_at(self, position: Any) -> None:  # noqa: ANN401 - see `Replayable`
        """Go on behind a chunk, whatever its file is called now; see `Replayable`."""
        self._follower.start_at(position)

    async def read(self, timeout: float | None) -> Chunk | None:  # noqa: ASYNC109 - see `Source`
        """Return what has come; see `Source`."""
        self._watch.start()
        chunk = await self._next()
        if chunk is not None or timeout == 0:
            return chunk
        longest = _SOON_SECONDS if self._follower.is_waiting else POLL_SECONDS
        await self._bell.wait(longest if timeout is None else min(longest, timeout))
        return await self._next()

    def wake(self) -> None:
        """End the wait of `read`."""
        self._bell.ring()

    def close(self) -> None:
        """Leave the file."""
        self._watch.close()
        self._follower.close()

    async def _next(self) -> Chunk | None:
        if self._follower.has_more:
            return self._follower.next()
        return await asyncio.to_thread(self._follower.next)
