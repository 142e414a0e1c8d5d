"""Engines that run in this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from asyncbatch.core.progress import Progress
from asyncbatch.workers.engine import Lane, file_in_progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncbatch.core.batches import Batch, Part
    from asyncbatch.core.progress import FileInProgress
    from asyncbatch.workers.engine import WorkFactory


class LocalLane(Lane, Protocol):
    """A lane of this process."""

    def file_in_progress(self) -> FileInProgress | None:
        """Return the file that it processes at this moment, or None."""
        ...


class ThreadLane:
    """Runs batches in a thread of the default executor."""

    def __init__(self, make_work: WorkFactory) -> None:
        self._work = make_work()
        self.abandon = getattr(self._work, "abandon", None)
        self._progress: Progress = getattr(self._work, "progress", None) or Progress()
        self._batches: tuple[Batch, ...] = ()

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        """Yield the parts of `batch`; cancelling takes effect at the end of a part."""
        parts = iter(self._work(batch))
        self._batches = (batch,)
        self._progress.begin_batch()
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            yield part
        self._progress.end_batch()
        self._batches = ()

    def file_in_progress(self) -> FileInProgress | None:
        return file_in_progress(self._progress, self._batches)


class LoopEngine:
    """Lanes that run in this process, on its event loop or in its threads."""

    pids: Sequence[int] = ()

    def __init__(self, lanes: Sequence[LocalLane]) -> None:
        self.lanes = lanes

    def files_in_progress(self) -> Sequence[FileInProgress]:
        return list(filter(None, (lane.file_in_progress() for lane in self.lanes)))


class ThreadEngine(LoopEngine):
    """Lanes that run batches in threads of this process."""

    def __init__(self, make_work: WorkFactory, count: int) -> None:
        super().__init__([ThreadLane(make_work) for _ in range(count)])
