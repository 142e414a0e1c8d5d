"""Real servers on loopback, each of which a test starts and ends."""

from __future__ import annotations

import asyncio


async def end_connections() -> None:
    """Abort the connections of this event loop, whose servers accept no more.

    A closed connection lives on until its last bytes are read, which a client may never do. It
    would then be open when the loop ends, and a warning in whichever test runs next.
    """
    loop = asyncio.get_running_loop()
    for _ in range(5):  # new sockets become connections, and old ones close
        for transport in list(loop._transports.values()):  # type: ignore[attr-defined]  # Server.abort_clients is new in 3.13
            transport.abort()
        await asyncio.sleep(0)
