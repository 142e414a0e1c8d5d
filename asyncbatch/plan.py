"""A dry run: the same batches, looked at instead of read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.content import TooLargeError
from asyncbatch.failures import file_failure
from asyncbatch.opening import Opener
from asyncbatch.records import STDIN, Part, display_path
from asyncbatch.work import MAX_BATCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.records import Batch
    from asyncbatch.settings import FileWorkSettings


class PlanWork:
    """Takes the size of each file, and ends a batch where `FileWork` would for its bytes."""

    def __init__(self, settings: FileWorkSettings) -> None:
        self._limit, self._opener = settings.max_file_size, Opener(settings)

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield one part: the files that would be one batch, with sizes and no records."""
        part = Part(batch.start)
        taken = 0
        for place, path in enumerate(batch.paths):
            try:
                size = self._size(path)
            except (OSError, TooLargeError) as error:
                part.errors[place] = file_failure(display_path(path), error)
                size = 0
            part.records.append(0)
            part.bytes.append(size)
            part.elapsed_ms.append(0.0)
            taken += size
            if taken >= MAX_BATCH_BYTES:
                break
        yield part

    def _size(self, path: str) -> int:
        size = 0 if path == STDIN else self._opener.size(path)
        if self._limit is not None and size > self._limit:
            raise TooLargeError(size, self._limit)
        return size
