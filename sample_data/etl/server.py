"""Four small APIs on loopback, for as long as a command runs: `python server.py COMMAND...`.

$API is their address, $API_TOKEN what they want to be told. They paginate in four ways, and some
have their moods: one asks for patience, one is down for a moment.
"""

# ruff: noqa: INP001 - a script, not part of a package

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler

TOKEN = "not-a-real-token"  # noqa: S105 - as it says
NAMES = ("  grace hopper", "ALAN TURING", "barbara liskov ", "edsger dijkstra", "radia perlman")
PAGE = 5


def people(first: int, count: int) -> list[dict[str, object]]:
    """Return records as APIs have them: most are good."""
    found: list[dict[str, object]] = [
        {
            "id": number,
            "name": NAMES[number % len(NAMES)],
            "email": f"Person{number}@Example.com",
            "created": f"2026-02-{number % 28 + 1:02}T09:30:00+02:00",
        }
        for number in range(first, first + count)
    ]
    found[3]["email"] = ""
    found[7]["created"] = "yesterday"
    return found


USERS, MEMBERS, STAFF, GUESTS = (people(first, 23) for first in (1, 101, 201, 301))
moods = {"/members": web.HTTPTooManyRequests, "/staff": web.HTTPServiceUnavailable}


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who knows the token; be moody once."""
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise web.HTTPUnauthorized
    if mood := moods.pop(request.path, None):
        raise mood(headers={"Retry-After": "1"})
    return await handler(request)


async def users(request: web.Request) -> web.Response:
    """Answer with pages of which each has the next one's cursor."""
    at = int(request.query.get("cursor", 0))
    following = at + PAGE if at + PAGE < len(USERS) else None
    return web.json_response({"items": USERS[at : at + PAGE], "next_cursor": following})


async def members(request: web.Request) -> web.Response:
    """Answer with pages by number."""
    at = (int(request.query["page"]) - 1) * PAGE
    return web.json_response({"items": MEMBERS[at : at + PAGE], "total": len(MEMBERS)})


async def staff(request: web.Request) -> web.Response:
    """Answer with pages by offset."""
    at, limit = int(request.query["offset"]), int(request.query["limit"])
    return web.json_response({"items": STAFF[at : at + limit]})


async def guests(request: web.Request) -> web.Response:
    """Answer with pages whose headers link to the next."""
    at = int(request.query.get("at", 0))
    more = {"Link": f"</guests?at={at + PAGE}>; rel=next"} if at + PAGE < len(GUESTS) else {}
    return web.json_response(GUESTS[at : at + PAGE], headers=more)


async def main(command: Sequence[str]) -> int:
    """Serve while the command runs; return its exit status."""
    app = web.Application(middlewares=[guarded])
    app.add_routes([web.get(f"/{api.__name__}", api) for api in (users, members, staff, guests)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    told = {"API": f"http://{host}:{port}", "API_TOKEN": TOKEN}
    try:
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **told})
        return await process.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
