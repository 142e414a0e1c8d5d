"""As much of S3 as reading takes: `python -m benchmarks.s3 DELAY OBJECTS` prints its port.

Each request is answered after DELAY seconds. It lists (ListObjectsV2, 1,000 keys a page), and gives
objects of a few hundred bytes, whole or a range; it checks no signature and keeps nothing. A server
that can do more, such as moto's, answers 200 requests/s: the race would be that server's.
/requests tells how many requests came since the last time, and over how many connections.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, NamedTuple
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

BUCKET = "bucket"
PAGE = 1000
RECORDS = 3
"""Records of each object."""


class Requests(NamedTuple):
    """What came since the last time."""

    number: int
    connections: int


class Address(NamedTuple):
    """Where the server is."""

    url: str

    def requests(self) -> Requests:
        """Ask what came since the last time."""
        with urlopen(f"{self.url}/requests") as answer:
            return Requests(*json.load(answer))


@contextmanager
def s3(delay: float, objects: int) -> Iterator[Address]:
    """Provide a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.s3", str(delay), str(objects)]
    with Popen(command, stdout=PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield Address(f"http://127.0.0.1:{int(server.stdout.readline())}")
        finally:
            server.kill()


async def serve(delay: float, objects: int) -> None:
    """Serve until killed."""
    from aiohttp import web

    one = {"name": "somebody or other", "tags": ["a", "b"], "address": {"city": "Rome"}}
    body = json.dumps([{"id": number, **one} for number in range(RECORDS)]).encode()
    keys = [f"exports/{number:06}.json" for number in range(objects)]
    came = 0
    peers: set[object] = set()

    async def handle(request: web.Request) -> web.Response:
        nonlocal came
        came += 1
        peers.add(request.transport)
        await asyncio.sleep(delay)
        if "list-type" in request.query:
            return web.Response(text=_page(keys, len(body), request), content_type="text/xml")
        first, last = 0, len(body) - 1
        if asked := request.headers.get("Range"):
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop), last)
        headers = {"ETag": '"one"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        status = 206 if asked else 200
        return web.Response(status=status, headers=headers, body=body[first : last + 1])

    async def tell(_: web.Request) -> web.Response:
        nonlocal came
        told = [came, len(peers)]
        came = 0
        peers.clear()
        return web.json_response(told)

    app = web.Application()
    app.add_routes([web.get("/requests", tell), web.get("/{path:.*}", handle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def _page(keys: list[str], size: int, request: web.Request) -> str:
    start = int(request.query.get("continuation-token", "0"))
    page = keys[start : start + PAGE]
    more = start + PAGE < len(keys)
    token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;one&quot;</ETag><Size>{size}</Size></Contents>"
        for key in page
    )
    return (
        f"<ListBucketResult><Name>{BUCKET}</Name><KeyCount>{len(page)}</KeyCount>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
    )


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2])))
