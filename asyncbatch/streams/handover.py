"""Windows on their way from a run to a program that asks for them one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.windows.events import Window


class Handover:
    """Lets a run wait until its windows are taken: a slow program slows reading."""

    def __init__(self) -> None:
        self.left: deque[Window] = deque()
        """What nobody has taken."""
        self._some, self._none = asyncio.Event(), asyncio.Event()
        self._is_left = self._is_over = False

    async def put(self, windows: Sequence[Window]) -> None:
        """Wait until windows are taken; see `WindowSink`."""
        self.left.extend(windows)
        self._some.set()
        while self.left and not self._is_left:
            self._none.clear()
            await self._none.wait()

    async def flush(self) -> None:
        """Nothing is held; see `WindowSink`."""

    async def take(self) -> Window | None:
        """Return the next window; None once all are taken, and there are no more."""
        while not self.left and not self._is_over:
            self._some.clear()
            self._none.set()
            await self._some.wait()
        return self.left.popleft() if self.left else None

    def leave(self) -> None:
        """Have windows wait for nobody: they are left."""
        self._is_left = True
        self._none.set()

    def end(self) -> None:
        """Say that there are no more windows."""
        self._is_over = True
        self._some.set()
