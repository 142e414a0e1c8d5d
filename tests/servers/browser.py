"""A real browser: Chromium without a window, spoken to by the DevTools protocol."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from tests.commands import PATIENCE
from tests.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--remote-debugging-port=0",
)  # fmt: skip


class Browser:
    """One page of a browser with a new profile. Use it as an async context manager.

    `events` has what the browser tells without being asked.
    """

    def __init__(self, folder: Path) -> None:
        self._profile = folder / "profile"
        self.events: list[dict[str, Any]] = []
        self._last = 0

    async def __aenter__(self) -> Self:
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        port_file = self._profile / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and port_file.read_text().count("\n"))
        port = port_file.read_text().split("\n")[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as response:
            [address] = [
                one["webSocketDebuggerUrl"]
                for one in await response.json()
                if one["type"] == "page"
            ]
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.ask(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(aiohttp.ClientError):
            await self._socket.close()
        await self._session.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=PATIENCE)
        finally:
            with suppress(ProcessLookupError):  # its helpers are in its process group
                os.killpg(self._process.pid, 9)

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": parameters})
        while (answer := await self._receive()).get("id") != self._last:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await asyncio.wait_for(self._socket.receive_json(), PATIENCE)
        return message

    async def open(self, page: Path | str) -> None:
        """Open a file or a URL, and wait until its scripts have run."""
        await self.ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(one["method"] == "Page.loadEventFired" for one in self.events):
            self.events.append(await self._receive())

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, also of a promise."""
        found = await self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(AssertionError):  # the page may not be there yet, or load again
                if await self.evaluate(expression):
                    return
            assert time.monotonic() < deadline, expression
            await asyncio.sleep(0.05)

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go."""
        more = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **more)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **more)

    def happened(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of a kind."""
        return [one["params"] for one in self.events if one["method"] == method]
