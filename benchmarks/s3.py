"""A read-only S3 server: `python -m benchmarks.s3 DELAY OBJECTS` prints its port.

It answers each request after DELAY seconds. It lists keys (ListObjectsV2, 1,000 keys per page) and
returns objects of a few hundred bytes, whole or a range. It checks no signatures and stores
nothing. A complete server like that of moto answers only 200 requests/s, and would
limit the race.
/requests returns the number of requests and of connections since its last call.
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
# Records of each object.
RECORDS = 3


class Requests(NamedTuple):
    """The requests and connections since the last call."""

    number: int
    connections: int


class Address(NamedTuple):
    """The address of the server."""

    url: str

    def requests(self) -> Requests:
        """Return the requests and connections since the last call."""
        with urlopen(f"{self.url}/requests") as answer:
            return Requests(*json.load(answer))


@contextmanager
def s3(delay: float, objects: int) -> Iterator[Address]:
    """Provide a server in a separate process."""
    command = [sys.executable, "-m", "benchmarks.s3", str(delay), str(objects)]
    with Popen(command, stdout=PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield Address(f"http://127.0.0.1:{int(server.stdout.readline())}")
        finally:
            server.kill()


async def serve(delay: float, objects: int) -> None:
    """Serve until the process is killed."""
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

    async def report(_: web.Request) -> web.Response:
        nonlocal came
        counts = [came, len(peers)]
        came = 0
        peers.clear()
        return web.json_response(counts)

    app = web.Application()
    app.add_routes([web.get("/requests", report), web.get("/{path:.*}", handle)])
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
