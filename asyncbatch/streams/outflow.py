"""Windows on their way out: loaded beside reading, and ahead of it only so far."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.streams.stream import Stream
    from asyncbatch.windows.events import Window

_MOST = 10_000
"""Rows that are loaded at a time, and so many may wait: then reading waits, too."""


class WindowTarget(Protocol):
    """Where windows go, used by one thread at a time.

    `patience` is how many seconds it is worth waiting for more rows.
    """

    name: str
    patience: float

    def check_keeps(self) -> None:
        """Raise UsageError if what it was given would not be there after a SIGKILL."""
        ...

    def open(self, place: Any = None, gone: Sequence[Window] = ()) -> None:  # noqa: ANN401 - JSON
        """Begin, or go on at a `place` without the windows that are `gone`. Raises UsageError."""
        ...

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        """Return windows as they are loaded, one a window."""
        ...

    def load(self, rows: Sequence[Any]) -> Sequence[str]:
        """Write rows where others see them; return which were refused, and why.

        Raises SinkError.
        """
        ...

    def place(self) -> Any:  # noqa: ANN401 - JSON
        """Return where to go on, all that was loaded being safe there. Raises SinkError."""
        ...

    def finish(self, *, ended: bool) -> None:
        """End; what is complete only at its end is put in place if it `ended`. Raises SinkError."""
        ...


class Outflow:
    """Loads windows into a target, in threads; what comes meanwhile is loaded together.

    A load begins at once, unless the target is worth some patience. What is refused is counted
    by the stream's tally. `on_failure` is called once the target is lost, so that somebody comes
    and sees.
    """

    def __init__(
        self, stream: Stream, target: WindowTarget, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self._stream, self.target, self._on_failure = stream, target, on_failure
        self._waiting: list[Any] = []
        self._work: asyncio.Task[None] | None = None
        self._last = -target.patience
        self._hurry = asyncio.Event()
        self._is_lost = False

    async def put(self, windows: Sequence[Window]) -> None:
        """Take windows; wait while many are still to be loaded. Raises SinkError."""
        self._waiting += self.target.rows(windows)
        if len(self._waiting) >= _MOST:
            await self.flush()
        else:
            await self._settle(wait=False)

    async def flush(self) -> None:
        """Have all windows loaded. Raises SinkError."""
        await self._settle(wait=False)
        await self._settle(wait=True)

    async def finish(self, *, ended: bool) -> None:
        """Load what waits unless the target is lost, and end. Raises SinkError."""
        try:
            if not self._is_lost:
                await self.flush()
        finally:
            self._waiting = []  # if this was cancelled: nothing more is begun
            await asyncio.to_thread(self.target.finish, ended=ended and not self._is_lost)

    async def _settle(self, *, wait: bool) -> None:
        """Raise what went wrong with what was begun, and begin to load what waits."""
        work = self._work
        if work is not None and (wait or work.done()):
            self._hurry.set()
            await asyncio.wait((work,))
            self._work = None
            work.result()
        if self._work is None and self._waiting:
            self._hurry.clear()
            self._work = asyncio.create_task(self._load())

    async def _load(self) -> None:
        """Load until nothing waits."""
        while self._waiting:
            await self._be_patient()
            rows, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            self._last = time.monotonic()
            try:
                refused = await asyncio.to_thread(self.target.load, rows)
            except BaseException:
                self._is_lost = True
                self._on_failure()
                raise
            for reason in refused:
                self._stream.tally.refuse(reason)

    async def _be_patient(self) -> None:
        """Wait for more rows, as long as that is worth it."""
        left = self._last + self.target.patience - time.monotonic()
        if left > 0 and len(self._waiting) < _MOST and not self._hurry.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left)
