"""An async function for --call: a hundred at once wait, while one process does the work."""

import asyncio


async def enrich(user):
    """Add what a server says of the user (here a server that takes 10 ms to say nothing)."""
    await asyncio.sleep(0.01)
    return {**user, "score": None}
