"""The task and the lane for several sources with different settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.core.progress import Progress
from asyncbatch.workers.engine import abandon_all
from asyncbatch.workers.tasks.transform import TransformTask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Batch, Part
    from asyncbatch.core.progress import FileInProgress
    from asyncbatch.workers.local import LocalLane


def make_transform_task(settings: RecordWorkSettings) -> TransformTask:
    """Return the task for the records of one source."""
    if settings.target is not None and settings.target.groups is not None:
        from asyncbatch.workers.tasks.groups import GroupTask

        return GroupTask(settings)
    return TransformTask(settings)


class SourcesTask:
    """Processes each batch by the settings of its source; see `TransformTask`."""

    def __init__(self, settings: Sequence[RecordWorkSettings]) -> None:
        self._settings = settings
        self._tasks: dict[int, TransformTask] = {}
        self.progress: Progress = Progress()

    def abandon(self) -> None:
        abandon_all(tuple(self._tasks.values()))

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield the parts of a batch."""
        work = self._tasks.get(batch.source)
        if work is None:
            settings = self._settings[batch.source]
            work = self._tasks[batch.source] = make_transform_task(settings)
        work.progress = self.progress
        return work(batch)


class SourcesLane:
    """A lane that passes each batch to the lane of its source, one at a time."""

    def __init__(self, lanes: Sequence[LocalLane]) -> None:
        self._lanes = lanes
        self._last: LocalLane | None = None

    def abandon(self) -> None:
        abandon_all(self._lanes)

    def run(self, batch: Batch) -> AsyncIterator[Part]:
        self._last = self._lanes[batch.source]
        return self._last.run(batch)

    def file_in_progress(self) -> FileInProgress | None:
        return None if self._last is None else self._last.file_in_progress()
