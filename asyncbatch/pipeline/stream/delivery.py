"""The delivery of a stream: closed windows to their target, side files and the checkpoint."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.pipeline.output_guard import check_live_outputs
from asyncbatch.sinks.target import parse_location
from asyncbatch.sinks.windows import WindowTarget, make_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncbatch.pipeline.stream.checkpointer import Checkpointer
    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.storage.append import AppendFile
    from asyncbatch.windows.events import Window

_MAX_ROWS = (
    10_000  # largest number of rows in one load, and of rows that wait before reading pauses
)


class WindowWriter:
    """Loads windows into a target, in threads. Windows that come during a load wait.

    A load starts at once, unless the target has a waiting time. Rejected windows are counted in the
    tally of the stream. `on_failure` is called when the target is lost.
    """

    def __init__(
        self,
        stream: StreamCore,
        target: WindowTarget,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream, self.target, self._on_failure = stream, target, on_failure
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
            await asyncio.to_thread(self.target.finish, ended=ended and not self._is_lost)

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
                refused = await asyncio.to_thread(self.target.load, rows)
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


class LockedTarget:
    """A window target with a lock, for calls from several threads.

    A cancelled task leaves its thread running. The target must not be closed meanwhile.
    """

    def __init__(self, target: WindowTarget) -> None:
        self.name, self.wait_seconds = target.name, target.wait_seconds
        self._target, self._lock = target, threading.Lock()

    def check_resumable(self) -> None:
        self._target.check_resumable()

    def open(self, position: Any = None, removed: Sequence[Window] = ()) -> None:
        with self._lock:
            self._target.open(position, removed)

    def rows(self, windows: Sequence[Window]) -> Sequence[Any]:
        return self._target.rows(windows)

    def load(self, rows: Sequence[Any]) -> Sequence[str]:
        with self._lock:
            return self._target.load(rows)

    def position(self) -> Any:
        with self._lock:
            return self._target.position()

    def finish(self, *, ended: bool) -> None:
        with self._lock:
            self._target.finish(ended=ended)


class DeliverySettings(Struct, frozen=True):
    """The target of windows, and the checkpoint."""

    to: str | None = None  # the target; None: the caller takes the windows
    table: str | None = None
    checkpoint: str | None = None
    every: int = 10_000_000  # microseconds between checkpoints
    csv_safe: bool = False  # whether cells of a CSV file that would be formulas become texts


class StreamDelivery:
    """All outputs of a stream: its target, side files and checkpoint.

    Call `open` first, and `finish` at the end, or `abandon` if the start fails. `files` maps the
    name of an option to its side file. `on_failure` is called when the target is lost. Raises
    UsageError.
    """

    def __init__(
        self,
        delivery: DeliverySettings,
        stream: StreamCore,
        sources: Sequence[LiveSource],
        files: Mapping[str, AppendFile | None],
        on_failure: Callable[[], None],
    ) -> None:
        to = delivery.to
        written = {name: None if file is None else file.path for name, file in files.items()}
        written |= {
            "--checkpoint": delivery.checkpoint,
            "--to": None if to is None else parse_location(to)[1],
        }
        check_live_outputs([source.name for source in sources], written)
        target = (
            None
            if to is None
            else make_target(to, stream.schema, table=delivery.table, csv_safe=delivery.csv_safe)
        )
        self._target = None if target is None else LockedTarget(target)
        # None if the windows go to standard output, or to the caller.
        self.writer = (
            None if self._target is None else WindowWriter(stream, self._target, on_failure)
        )
        self._files = {name: file for name, file in files.items() if file is not None}
        self.checkpointer = self._make_checkpointer(delivery, stream, sources)

    def open(self) -> bool:
        """Start or resume the outputs; return whether they are resumed.

        All sources have joined the stream. Raises UsageError, LockHeldError.
        """
        if self.checkpointer is not None:
            return self.checkpointer.open()
        if self._target is not None:
            self._target.open()
        for file in self._files.values():
            file.open()
        return False

    async def finish(self, *, ended: bool) -> None:
        """Finish the target, and release the outputs. Raises SinkError.

        `ended`: the stream ended without an error, so a file that is complete only now is put in
        place.
        """
        try:
            if self.writer is not None:
                await self.writer.finish(ended=ended)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release the outputs after a failed start."""
        for file in self._files.values():
            file.close()
        if self.checkpointer is not None:
            self.checkpointer.close()

    def _make_checkpointer(
        self, delivery: DeliverySettings, stream: StreamCore, sources: Sequence[LiveSource]
    ) -> Checkpointer | None:
        if delivery.checkpoint is None:
            return None
        from asyncbatch.config.fingerprint import stream_configuration
        from asyncbatch.pipeline.stream.checkpointer import Checkpointer
        from asyncbatch.state.checkpoint import CheckpointFile

        places = {name: file.path for name, file in self._files.items()}
        told = stream_configuration(
            stream.settings,
            [source.name for source in sources],
            {
                "--to": None if self._target is None else self._target.name,
                "--table": delivery.table,
                "--csv-safe": "given" if delivery.csv_safe else None,
                **places,
            },
        )
        return Checkpointer(
            CheckpointFile(delivery.checkpoint, told),
            delivery.every,
            stream,
            sources,
            target=self._target,
            files=list(self._files.values()),
        )
