"""The writer of closed windows: loads them into their target, in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.sinks.windows import WindowTarget
    from asyncbatch.windows.events import Window

# The largest number of rows in one load, and of rows that wait before reading pauses.
_MAX_ROWS = 10_000


class WindowWriter:
    """Loads windows into a target, in threads. Windows that come during a load wait.

    Call `open` first, and `finish` at the end. A load starts at once, unless the target has a
    waiting time. Rejected windows are counted in the tally of the stream. `on_failure` is called
    when the target is lost.
    """

    target: WindowTarget

    def __init__(
        self,
        stream: StreamCore,
        target: WindowTarget,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream, self.target, self._on_failure = stream, target, on_failure
        self.open = target.open
        # A cancelled task leaves its thread running. The target must not be closed meanwhile.
        self._lock = threading.Lock()
        self._waiting: list[Any] = []
        self._load_task: asyncio.Task[None] | None = None
        self._last_load = -target.wait_seconds
        self._flush_requested = asyncio.Event()
        self._is_lost = False

    async def put(self, windows: Sequence[Window]) -> None:
        """Take windows; wait while many are still to be loaded. Raises SinkError."""
        self._waiting += self.target.rows(windows)
        if len(self._waiting) >= _MAX_ROWS:
            await self.flush()
        else:
            await self._settle(wait=False)

    async def flush(self) -> None:
        """Load all waiting windows. Raises SinkError."""
        await self._settle(wait=False)
        await self._settle(wait=True)

    async def finish(self, *, ended: bool) -> None:
        """Load the waiting windows, unless the target is lost, and end. Raises SinkError."""
        try:
            if not self._is_lost:
                await self.flush()
        finally:
            self._waiting = []  # after a cancellation no further load is started
            await asyncio.to_thread(self._finish, ended=ended and not self._is_lost)

    def position(self) -> Any:
        """Make all rows durable; return the position to resume at. Raises SinkError."""
        with self._lock:
            return self.target.position()

    def _finish(self, *, ended: bool) -> None:
        with self._lock:
            self.target.finish(ended=ended)

    def _load_rows(self, rows: Sequence[Any]) -> Sequence[str]:
        with self._lock:
            return self.target.load(rows)

    async def _settle(self, *, wait: bool) -> None:
        """Raise the error of the last load, and start the next."""
        work = self._load_task
        if work is not None and (wait or work.done()):
            self._flush_requested.set()
            await asyncio.wait((work,))
            self._load_task = None
            work.result()
        if self._load_task is None and self._waiting:
            self._flush_requested.clear()
            self._load_task = asyncio.create_task(self._load())

    async def _load(self) -> None:
        """Load waiting rows until there are none."""
        while self._waiting:
            await self._wait_for_more()
            rows, self._waiting = self._waiting[:_MAX_ROWS], self._waiting[_MAX_ROWS:]
            self._last_load = time.monotonic()
            try:
                refused = await asyncio.to_thread(self._load_rows, rows)
            except BaseException:
                self._is_lost = True
                self._on_failure()
                raise
            for reason in refused:
                self._stream.tally.add_refusal(reason)

    async def _wait_for_more(self) -> None:
        """Wait for more rows until the waiting time of the target is over."""
        left = self._last_load + self.target.wait_seconds - time.monotonic()
        if left > 0 and len(self._waiting) < _MAX_ROWS and not self._flush_requested.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._flush_requested.wait(), left)
