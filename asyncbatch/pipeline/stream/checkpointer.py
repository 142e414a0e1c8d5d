"""The checkpointer of a stream: restores the stream at its start, and saves it periodically."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from msgspec import MsgspecError

from asyncbatch.core.system import paused_collection
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sources.base import ReplayableSource
from asyncbatch.state.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.pipeline.stream.stream import StreamCore
    from asyncbatch.pipeline.stream.window_writer import WindowWriter
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.state.checkpoint import CheckpointFile
    from asyncbatch.storage.append import AppendFile, AppendPosition
    from asyncbatch.windows.events import Window


class Checkpointer:
    """Saves the stream and the positions of its sources and outputs, `every` microseconds.

    Call `open` first, and `close` at the end. `writer` is None if windows go to standard output.
    """

    def __init__(
        self,
        file: CheckpointFile,
        every: int,
        stream: StreamCore,
        sources: Sequence[LiveSource],
        *,
        writer: WindowWriter | None,
        files: Sequence[AppendFile],
    ) -> None:
        self._file, self._interval_s = file, every / 1e6
        self._stream, self._sources = stream, sources
        self._writer, self._files = writer, files
        self._last_save = time.monotonic()

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._last_save + self._interval_s - time.monotonic())

    @property
    def non_replayable_sources(self) -> list[str]:
        """The names of sources that cannot be read again."""
        return [one.name for one in self._sources if not _is_replayable(one)]

    def open(self) -> bool:
        """Restore or start the stream, and open its outputs; return whether it was restored.

        All sources must have joined the new stream. Raises UsageError, LockHeldError.
        """
        if self._writer is not None:
            self._writer.target.check_resumable()
        for file in self._files:
            file.check_regular()
        found = self._file.open()
        if found is None:
            for source in self._sources:
                if isinstance(source, ReplayableSource):
                    self._stream.begin_at(source.name, source.position)
            self._open_all(None, [None] * len(self._files), ())
            try:
                self._file.write(self._checkpoint(*self._positions(), stopping=False))
            except SinkError as error:
                raise UsageError(str(error)) from None
            return False
        try:
            with paused_collection():
                self._stream.restore(found.stream)
            opened = self._stream.open_windows if found.is_stopping else ()
            for source, state in zip(self._sources, found.stream.sources, strict=True):
                if state.position is not None and isinstance(source, ReplayableSource):
                    source.start_at(state.position)
            tally = found.stream.tally
            has_windows = tally.windows > tally.refused
            self._open_all(found.target, found.files, opened, has_windows=has_windows)
        except (ValueError, MsgspecError) as error:
            raise self._file.version_error(str(error)) from None
        return True

    async def save(self, *, stopping: bool = False) -> None:
        target, files = await asyncio.to_thread(self._positions)
        # Not in a thread: the display reads the statistics concurrently.
        checkpoint = self._checkpoint(target, files, stopping=stopping)
        await asyncio.to_thread(self._file.write, checkpoint)
        self._last_save = time.monotonic()

    def close(self) -> None:
        """Release the checkpoint for other processes."""
        self._file.close()

    def _positions(self) -> tuple[Any, list[AppendPosition]]:
        """Write the outputs to the disk; return their positions. Raises SinkError."""
        target = None if self._writer is None else self._writer.position()
        return target, [file.position() for file in self._files]

    def _checkpoint(
        self, target: Any, files: list[AppendPosition], *, stopping: bool
    ) -> Checkpoint:
        state = self._stream.state()
        return Checkpoint(self._file.configuration, state, target, files, stopping)

    def _open_all(
        self,
        target: Any,
        files: Sequence[AppendPosition | None],
        removed: Sequence[Window],
        *,
        has_windows: bool = False,
    ) -> None:
        if self._writer is not None:
            self._writer.open(target, removed, has_windows=has_windows)
        for file, place in zip(self._files, files, strict=True):
            file.open(place)


def _is_replayable(source: LiveSource) -> bool:
    return isinstance(source, ReplayableSource) and source.can_resume
