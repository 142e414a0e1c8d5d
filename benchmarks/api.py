"""A server of pages on loopback: `python -m benchmarks.api DELAY PAGES SIZE` prints its port.

/page?page=N waits DELAY seconds, /cursor?cursor=N does not. Both return SIZE records.
The numbers of records start at 0 and continue through all pages.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

from benchmarks.people import people

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 11


@contextmanager
def api(delay: float, pages: int, size: int) -> Iterator[str]:
    """Provide the address of a server in a separate process."""
    command = [sys.executable, "-m", "benchmarks.api", str(delay), str(pages), str(size)]
    with Popen(command, stdout=PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


async def serve(delay: float, pages: int, size: int) -> None:
    """Serve until the process is killed."""
    from aiohttp import web

    (document,) = people(1, SEED)
    rests = [json.dumps(one)[len(f'{{"id": {one["id"]}') :] for one in json.loads(document.content)]
    rests = [rests[number % len(rests)] for number in range(size)]

    def answer(number: int, **more: object) -> web.Response:
        first = number * size
        records = ",".join(f'{{"id": {at}{rest}' for at, rest in enumerate(rests, first))
        text = f'{{"items": [{records}], {json.dumps(more)[1:]}'
        return web.Response(text=text, content_type="application/json")

    async def by_number(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return answer(int(request.query["page"]), pages=pages)

    async def by_cursor(request: web.Request) -> web.Response:
        number = int(request.query.get("cursor", 0))
        return answer(number, next=str(number + 1) if number + 1 < pages else None)

    app = web.Application()
    app.add_routes([web.get("/page", by_number), web.get("/cursor", by_cursor)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
