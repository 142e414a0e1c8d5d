"""Waiting for other tasks of the event loop."""

from __future__ import annotations

import asyncio

_TURNS = 1_000


async def wait_until_blocked():
    """Let other tasks go on until all of them wait, if none of them waits for time or a thread."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
