"""A reader of a live page: its address, its events, and their numbers."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aiohttp

from tests.commands import CommandProcess, environment
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_URL = re.compile(r"http://\S+")
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_read=300)


class LiveCommand:
    """A started command with a live page. Its outputs are in files. Use it as a context manager."""

    def __init__(self, folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        self._paths = folder / "stdout.txt", folder / "stderr.txt"
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            self.process = CommandProcess(
                arguments, cwd=folder, env=environment(), stdin=stdin, stdout=out, stderr=err
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    @property
    def stderr(self) -> str:
        return self._paths[1].read_text()

    @property
    def stdout(self) -> str:
        return self._paths[0].read_text()

    @property
    def url(self) -> str:
        """The URL that the command has printed."""
        wait_until(lambda: _URL.search(self.stderr + "\n"), running=self.process)
        return str(_URL.findall(self.stderr)[0])


class LiveEvent(NamedTuple):
    """One event of a page."""

    kind: str
    data: Any

    def section(self, name: str) -> str:
        """The HTML of a part of the page, or nothing if this event is about another one."""
        is_it = self.kind == "section" and self.data["name"] == name
        return str(self.data["html"]) if is_it else ""


@asynccontextmanager
async def reading(url: str, **headers: str) -> AsyncIterator[AsyncIterator[LiveEvent]]:
    """Connect to the events of a page."""
    page, _, query = url.partition("?")
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT) as session,
        session.get(f"{page}events?{query}", headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield _events(response)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[LiveEvent]:
    kind, pending = "", b""
    async for chunk in response.content.iter_any():
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.decode().partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield LiveEvent(kind, json.loads(value))


async def read_to_end(url: str) -> list[LiveEvent]:
    """Return all events of a page until it ends."""
    async with reading(url) as events:
        return [one async for one in events]
