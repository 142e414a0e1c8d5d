"""The HTTP server of the live page, in a thread, and the newest state of the page."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from logging import getLogger
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.cli.terminal import to_stderr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from asyncbatch.cli.live.address import Access, ListenSocket

MAX_READERS = 16  # pages that are open at the same time
_MAX_CONNECTIONS = 64  # each has a descriptor, which the run may need
_PIECE_BYTES = 64 * 1024  # more than this of an event is not buffered for a slow reader
_HEARTBEAT_SECONDS = 15.0  # a lost connection is noticed by a write
_RETRY_MS = 1000  # after which a page connects again
_LAST_SECONDS = 2.0  # for open pages to receive the end
_STOP_SECONDS = 5.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the URL may have a token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Board:
    """The newest state of each part of the page. One thread publishes, another reads.

    Older states are not kept. So a slow reader misses some of them, and costs no memory.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._parts: dict[str, tuple[int, bytes]] = {}  # the version, and an event
        self._version = 0
        self._is_final = False

    def publish(self, parts: Mapping[str, bytes], *, is_final: bool = False) -> bool:
        """Replace parts. Return whether one has changed."""
        with self._lock:
            self._version += 1
            changed = {
                name: (self._version, event)
                for name, event in parts.items()
                if name not in self._parts or self._parts[name][1] != event
            }
            self._parts |= changed
            self._is_final = is_final
        return bool(changed) or is_final

    def since(self, version: int) -> tuple[int, list[bytes], bool]:
        """Return the version, the parts that are newer than `version`, and whether it is final."""
        with self._lock:
            newer = [event for since, event in self._parts.values() if since > version]
            return self._version, newer, self._is_final


def sse_event(name: str, data: Any) -> bytes:
    """Return a Server-Sent Event with data as JSON, which has no line ends."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


class LiveServer:
    """Serves one page and its events from a thread, so that no reader delays the run.

    Call `start`, `publish` and `finish`, each from the thread of the run, then `stop`. `greeting`
    is the first event of each connection.
    """

    def __init__(
        self, listening: ListenSocket, access: Access, page: bytes, policy: str, greeting: bytes
    ) -> None:
        self._listening, self._access = listening, access
        self._page, self._greeting = page, greeting
        self._headers = {**_HEADERS, "Content-Security-Policy": policy}
        self._board = Board()
        self._thread = Thread(target=self._run, daemon=True)
        self._readers = 0
        self._all_told = Event()  # there is no reader that waits for the end
        self._has_started = Event()
        self._is_over = False

    @property
    def is_alive(self) -> bool:
        """Whether the thread serves, or will."""
        return self._thread.is_alive()

    @property
    def has_readers(self) -> bool:
        """Whether a page is open."""
        return self._readers > 0

    def start(self) -> None:
        """Start the thread."""
        try:
            self._thread.start()
        except RuntimeError as error:  # the limit of threads of this user or container
            to_stderr(f"Note: there is no live page: {error}")

    def publish(self, parts: Mapping[str, bytes], *, is_final: bool = False) -> None:
        """Send the events of changed parts to the open pages."""
        if self._board.publish(parts, is_final=is_final):
            self._call(self._wake)

    def finish(self, parts: Mapping[str, bytes], wait_s: float) -> None:
        """Send the end, and wait until the open pages have it."""
        self._all_told.clear()
        self.publish(parts, is_final=True)
        if self.has_readers:
            self._all_told.wait(min(wait_s, _LAST_SECONDS))

    def stop(self) -> None:
        """End the thread, also one that is still importing its libraries."""
        self._is_over = True
        self._call(self._stop)
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _call(self, function: object) -> None:
        """Call a method in the thread."""
        if self._has_started.is_set():
            with suppress(RuntimeError):  # its loop has ended
                self._loop.call_soon_threadsafe(function)  # type: ignore[arg-type]

    # From here on, all runs in the thread.

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        # Imported in the thread: the run begins meanwhile.
        from aiohttp import web

        self._loop = asyncio.get_running_loop()
        self._changed, self._stopping = asyncio.Event(), asyncio.Event()
        app = web.Application()
        app.on_response_prepare.append(self._add_headers)
        app.router.add_get("/", self._get_page, allow_head=False)
        app.router.add_get("/events", self._get_events, allow_head=False)
        app.router.add_get("/favicon.ico", self._get_icon, allow_head=False)
        silent = getLogger("asyncbatch.live")
        # It would write the bytes of an invalid request, and a traceback, on our stderr.
        silent.disabled = True
        runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=0.1,
            logger=silent,
        )  # fmt: skip
        await runner.setup()
        make_handler, counter = runner.server, _Counter()
        assert make_handler is not None
        server = await self._loop.create_server(
            lambda: _Connection(make_handler(), counter), sock=self._listening.socket
        )
        self._has_started.set()
        if not self._is_over:  # else `stop` came before there was a loop to call
            await self._stopping.wait()
        server.close()
        await runner.cleanup()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _stop(self) -> None:
        self._stopping.set()

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)

    def _refuse_strangers(self, request: web.Request) -> None:
        """Raise HTTPForbidden for a request that may not see the page."""
        from aiohttp import web

        host, token = request.headers.get("Host", ""), request.query.get("token", "")
        if reason := self._access.refusal(host, token):
            raise web.HTTPForbidden(text=f"{reason}\n")

    async def _get_page(self, request: web.Request) -> web.Response:
        from aiohttp import web

        self._refuse_strangers(request)
        return web.Response(body=self._page, content_type="text/html", charset="utf-8")

    async def _get_icon(self, _: web.Request) -> web.Response:
        """Answer the question of each browser: there is no icon."""
        from aiohttp import web

        return web.Response(status=204)

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        """Send the newest state of all parts, then each change, until the end."""
        from aiohttp import web

        self._refuse_strangers(request)
        # Only our page reads events. Another one would only take the place of a reader.
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise web.HTTPForbidden(text="Events are for the live page only.\n")
        if self._readers >= MAX_READERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_READERS} pages are open already.\n")
        response = web.StreamResponse()
        response.content_type, response.charset = "text/event-stream", "utf-8"
        self._readers += 1
        try:
            await response.prepare(request)
            if request.transport is not None:
                # So `write_eof` waits for the kernel to take all: the process may end after it.
                request.transport.set_write_buffer_limits(0)
            await response.write(b"retry: %d\n%b" % (_RETRY_MS, self._greeting))
            await self._send_changes(response)
            await response.write_eof()
        except ConnectionError:
            pass  # the reader has left
        finally:
            self._readers -= 1
            if not self._readers:
                self._all_told.set()
        return response

    async def _send_changes(self, response: web.StreamResponse) -> None:
        version, is_final = 0, False
        while not is_final:
            changed = self._changed  # taken first: a change after `since` sets it
            version, events, is_final = self._board.since(version)
            for one in events:
                for start in range(0, len(one), _PIECE_BYTES):  # waits for a slow reader
                    await response.write(one[start : start + _PIECE_BYTES])
            if not is_final:
                try:
                    await asyncio.wait_for(changed.wait(), _HEARTBEAT_SECONDS)
                except TimeoutError:
                    await response.write(b": the run goes on\n\n")


class _Counter:
    """The number of open connections."""

    count = 0


class _Connection(asyncio.Protocol):
    """A connection that is handed to `handler`, or closed at once if there are too many.

    It is counted when it is made. A factory of protocols would be too early for that: asyncio
    calls it for all waiting connections first.
    """

    def __init__(self, handler: asyncio.Protocol, counter: _Counter) -> None:
        self._handler, self._counter = handler, counter
        self._is_accepted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._is_accepted = self._counter.count < _MAX_CONNECTIONS
        if self._is_accepted:
            self._counter.count += 1
            self._handler.connection_made(transport)
        else:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_accepted:
            self._counter.count -= 1
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_accepted:
            self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received() if self._is_accepted else None

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()
