"""Something to wait for."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Bell:
    """Ends a wait when it is rung, also the next one if nobody waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """End the wait."""
        self._event.set()

    async def wait(self, seconds: float | None) -> bool:
        """Wait until it is rung, for so long at most; tell if it was."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        rung = self._event.is_set()
        self._event.clear()
        return rung
