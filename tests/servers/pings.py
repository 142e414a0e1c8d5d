"""A real HTTP server on loopback that records the pings of runs.

with PingServer() as pings:
    ...  # run a command with --ping pings.url
    assert [ping.path for ping in pings.seen] == ["/start", ""]
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

SECRET = "5f0d3c1e-77aa-4b52-9c57-0a9e1d6f2b48"  # the part of the URL that nobody may see


class SeenPing(NamedTuple):
    """One request, as it came. Its `path` is the part after the secret."""

    method: str
    path: str
    text: str
    user: str | None
    """The header `Authorization`."""


class PingServer:
    """See the module. It answers with `status`, or, if it `hangs`, not before it is closed.

    A POST fails with status 503 the first times, as many as `failing`.
    """

    def __init__(
        self, *, status: int = 200, hangs: bool = False, location: str = "", failing: int = 0
    ) -> None:
        self.seen: list[SeenPing] = []
        self.failing = failing
        self.status, self.location = status, location
        self._may_answer = threading.Event()
        if not hangs:
            self._may_answer.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.replace(f"/ping/{SECRET}", "", 1)
                user = self.headers.get("Authorization")
                server.seen.append(SeenPing(self.command, path, body.decode(), user))
                server._may_answer.wait()
                fails = self.command == "POST" and server.failing > 0
                server.failing -= fails
                self.send_response(503 if fails else server.status)
                if server.location:
                    self.send_header("Location", server.location)
                self.end_headers()

            do_POST = do_GET  # noqa: N815 - the name that the library calls

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """The value of `--ping`."""
        return f"{self.origin}/ping/{SECRET}"

    @property
    def paths(self) -> list[str]:
        """The paths of the requests, after the secret."""
        return [ping.path for ping in self.seen]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._may_answer.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
