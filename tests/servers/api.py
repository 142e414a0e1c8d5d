"""A real HTTP server on loopback, in a thread: paginates in every way, and misbehaves on demand.

    with ApiServer(records=range(10), size=3) as api:
        api.misbehave(status(503), times=2)
        ...  # ask for api.url("/cursor") from anywhere, also from other processes
        assert api.requests == 6

Paths: /page?page=1, /offset?offset=0&limit=3, /cursor?cursor=..., /next_url, /link_header, each
with `{"items": [...], "total": 10, "pages": 4, ...}` (link_header: the array itself), and /lines,
the records as JSON Lines. /echo says what it was asked. With `since`, the first two give only
records whose `updated_at` is later.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from heapq import heappop, heappush
from typing import Any, NamedTuple, Self

from aiohttp import web

from asyncbatch.sources.http.base import Page
from asyncbatch.sources.http.settings import HttpSettings
from asyncbatch.sources.http.source import HttpSource
from tests.processes import wait_until
from tests.servers import end_connections

_LOOK_SECONDS = 0.002

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Seen(NamedTuple):
    """One request, as it came."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float
    target: str
    """Path and query, with the escapes that came."""
    method: str = "GET"
    body: bytes = b""


class ApiServer:
    """See the module. Its attributes may be read, and changed, while it runs."""

    def __init__(
        self,
        records: Iterable[Any] = (),
        size: int = 10,
        *,
        start: int = 1,
        delay: float = 0.0,
        tls: ssl.SSLContext | None = None,
        routes: Mapping[str, Handler] | None = None,
    ) -> None:
        self.records, self.size, self.start, self.delay = list(records), size, start, delay
        self.seen: list[Seen] = []
        self.at_once = self.most_at_once = 0
        self.cap: int | None = None
        """The most records that /offset gives, whatever it is asked for."""
        self.answers: int | None = None
        """How many requests are answered; later ones wait until this is more, or None."""
        self.waits_for = 0
        """Answers wait until there were this many requests at once."""
        self._tls = tls
        self._routes = routes or {}
        self._clients: set[object] = set()
        self._behaviours: deque[tuple[str | None, Behaviour]] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready, self._stop = threading.Event(), asyncio.Event()

    # What tests ask and say

    @property
    def requests(self) -> int:
        """How many requests came."""
        return len(self.seen)

    @property
    def connections(self) -> int:
        """How many connections they came over."""
        return len(self._clients)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        """Return the whole URL of a path."""
        return self.origin + path

    def misbehave(self, behaviour: Behaviour, *, times: int = 1, path: str | None = None) -> None:
        """Let the next requests (of a path) be answered by `behaviour`; None is as usual."""
        self._behaviours.extend([(path, behaviour)] * times)

    def forget(self) -> None:
        """Answer as usual again."""
        self._behaviours.clear()

    def answer(self, count: int, running: subprocess.Popen[bytes]) -> bool:
        """Answer `count` more requests, and wait for the next one, which is not answered.

        Return whether it came; else the process `running`, which was to send it, has ended.
        """
        self.answers = last = self.requests + count
        wait_until(lambda: self.requests > last or running.poll() is not None)
        return running.poll() is None

    # The server

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        for name in ("page", "offset", "cursor", "next_url", "link_header", "lines", "echo"):
            app.router.add_get(f"/{name}", getattr(self, f"_{name}"))
        for path, handler in self._routes.items():
            app.router.add_route("*", path, handler)
        runner = web.AppRunner(
            app, shutdown_timeout=0.05, handler_cancellation=True, access_log=None
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port: int = runner.addresses[0][1]
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            await site.stop()
            for _ in range(5):  # in which what was just accepted becomes a connection, to be closed
                await asyncio.sleep(0)
            await runner.cleanup()
            await end_connections()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        self.seen.append(
            Seen(
                request.path, dict(request.query), dict(request.headers), now, request.raw_path,
                request.method, await request.read(),
            )
        )  # fmt: skip
        assert request.transport is not None
        self._clients.add(request.transport.get_extra_info("peername"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            number = self.requests
            while self.answers is not None and number > self.answers:
                await asyncio.sleep(_LOOK_SECONDS)
            while self.most_at_once < self.waits_for:
                await asyncio.sleep(_LOOK_SECONDS)
            for at, (path, behaviour) in enumerate(self._behaviours):
                if path in (None, request.path):
                    del self._behaviours[at]
                    answer = await behaviour(request)
                    if answer is not None:
                        return answer
                    break
            usual: web.StreamResponse = await handler(request)
            return usual
        finally:
            self.at_once -= 1

    def _new(self, request: web.Request) -> list[Any]:
        since = request.query.get("since")
        return [one for one in self.records if since is None or one["updated_at"] > since]

    def _envelope(
        self, at: int, size: int, new: list[Any] | None = None, **more: Any
    ) -> web.Response:
        everything = self.records if new is None else new
        records = everything[at : at + size]
        total, pages = len(everything), -(-len(everything) // size)
        return web.json_response({"items": records, "total": total, "pages": pages, **more})

    async def _page(self, request: web.Request) -> web.Response:
        size = int(request.query.get("per_page", self.size))
        at = (int(request.query["page"]) - self.start) * size
        return self._envelope(at, size, self._new(request))

    async def _offset(self, request: web.Request) -> web.Response:
        limit = int(request.query["limit"])
        return self._envelope(int(request.query["offset"]), min(limit, self.cap or limit))

    async def _cursor(self, request: web.Request) -> web.Response:
        at = int(request.query.get("cursor", "after 0").removeprefix("after "))
        following = at + self.size
        new = self._new(request)
        cursor = f"after {following}" if following < len(new) else None
        return self._envelope(at, self.size, new, next_cursor=cursor)

    async def _next_url(self, request: web.Request) -> web.Response:
        at = int(request.query.get("at", 0))
        following = at + self.size
        more = following < len(self.records)
        return self._envelope(
            at, self.size, links={"next": f"next_url?at={following}" if more else ""}
        )

    async def _link_header(self, request: web.Request) -> web.Response:
        at = int(request.query.get("at", 0))
        following = at + self.size
        links = [f'<{self.url("/link_header")}>; rel="first"']
        if following < len(self.records):
            links.append(f"</link_header?at={following}>; rel=next")
        records = self.records[at:following]
        return web.json_response(records, headers={"Link": ", ".join(links)})

    async def _lines(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        for start in range(0, len(self.records), 1000):
            lines = (json.dumps(record) + "\n" for record in self.records[start : start + 1000])
            await answer.write("".join(lines).encode())
        return answer

    async def _echo(self, request: web.Request) -> web.Response:
        return web.json_response([{"query": dict(request.query)}])


def status(code: int, text: str = "no", **headers: str) -> Behaviour:
    """Answer with a status; an underscore in a header's name stands for a hyphen."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def behave(_: web.Request) -> web.Response:
        return web.Response(status=code, text=text, headers=names)

    return behave


def redirect(target: str, code: int = 302) -> Behaviour:
    """Answer that it is elsewhere."""
    return status(code, Location=target)


def body(data: bytes, content_type: str = "application/json", **headers: str) -> Behaviour:
    """Answer with these bytes; see `status` for headers."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def behave(_: web.Request) -> web.Response:
        return web.Response(body=data, headers={"Content-Type": content_type, **names})

    return behave


def value(answer: Any, **headers: str) -> Behaviour:
    """Answer with a value as JSON."""
    return body(json.dumps(answer).encode(), **headers)


def truncate(data: bytes = b'{"items": [1, 2', content_type: str = "application/json") -> Behaviour:
    """Promise more than `data`, send that, and hang up."""

    async def behave(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": content_type, "Content-Length": str(len(data) + 10)}
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        await answer.write(data)
        assert request.transport is not None
        request.transport.close()
        return answer

    return behave


def hang_up() -> Behaviour:
    """Answer nothing, and close the connection."""

    async def behave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return behave


def garbage(data: bytes) -> Behaviour:
    """Send these bytes in the place of an answer, and close the connection."""

    async def behave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(data + b"\r\n\r\n")
        request.transport.close()
        return web.Response()

    return behave


def stall(data: bytes | None = None, content_type: str = "application/json") -> Behaviour:
    """Send `data`, if any, and then nothing more for an hour."""

    async def behave(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": content_type})
        if data is not None:
            await answer.prepare(request)
            await answer.write(data)
        await asyncio.sleep(3600)
        return answer

    return behave


async def read(settings: HttpSettings, *, time: FakeTime | None = None, **more: Any) -> list[Page]:
    """Return the pages of the first URL; `more` is for `HttpSource.pages`."""
    timed: dict[str, Any] = {} if time is None else {"clock": time.clock, "sleep": time.sleep}
    async with (
        HttpSource(settings, **timed) as source,
        aclosing(source.pages(settings.urls[0], **more)) as pages,
    ):
        return [page async for page in pages]


class FakeTime:
    """Time that passes only when somebody sleeps, and then at once, for the earliest to wake."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self.now + seconds, len(self.slept), woken))
        self.slept.append(seconds)
        if len(self._sleepers) == 1:
            self._wake_soon()
        await woken

    def _wake_soon(self, turns: int = 50) -> None:  # when all others that can go on have done so
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self._wake_soon, turns - 1)
        else:
            loop.call_later(0.001, self._wake)

    def _wake(self) -> None:
        self.now, _, woken = heappop(self._sleepers)
        if not woken.done():
            woken.set_result(None)
        if self._sleepers:
            self._wake_soon()
