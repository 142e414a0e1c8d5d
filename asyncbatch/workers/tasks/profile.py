"""The task that profiles records: statistics of each part, which the main process merges."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from asyncbatch.core.records import Position, display_path
from asyncbatch.core.settings import ProfileSettings
from asyncbatch.transforms.profile.profile import Profile, shapes_of
from asyncbatch.workers.tasks.record_slices import TextSlice
from asyncbatch.workers.tasks.transform import TransformTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Batch, Part, Split
    from asyncbatch.core.records import Json
    from asyncbatch.formats.lines import InvalidLine
    from asyncbatch.sources.reader import Opened
    from asyncbatch.transforms.profile.profile import Shape
    from asyncbatch.workers.tasks.record_slices import RecordSlice
    from asyncbatch.workers.tasks.recorder import RecordCursor

# Values of this many bytes of JSON are profiled together: a column of many values costs less, until
# the values leave the processor's cache.
_COLUMN_BYTES = 512 * 1024

# Scalars of records with this many bytes are kept, so that those of one path are counted together.
_KEPT_BYTES = 4 * 1024 * 1024

# A batch is returned unfinished after this many bytes. Each part begins its sketches anew, and the
# main process merges them.
_PART_BYTES = 8 * 1024 * 1024


class RecordBuffer:
    """Records that wait to be profiled together, and the profile of earlier ones."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._documents: list[Json] = []
        self._elements: list[Json] = []
        self._bytes = self._kept_bytes = 0
        self.shapes: Counter[Shape] = Counter()
        self.arrays = 0

    def add(self, records: Sequence[Json], size: int, *, in_array: bool) -> None:
        """Add records of `size` bytes; profile them at a later call of `fold_if_large`."""
        (self._elements if in_array else self._documents).extend(records)
        self._bytes += size

    def fold_if_large(self) -> None:
        """Profile the records if they are many. The caller should keep none of them."""
        if self._bytes > _COLUMN_BYTES:
            self._fold()

    def move_to(self, other: RecordBuffer) -> None:
        """Move the records to another buffer; the shapes stay."""
        if self._profile:
            other._profile.merge(self._profile)
            other._kept_bytes += self._kept_bytes
            self._kept_bytes = 0
            self._profile = self._profile.successor()
        other.add(self._documents, 0, in_array=False)
        other.add(self._elements, self._bytes, in_array=True)
        self._documents, self._elements, self._bytes = [], [], 0
        other.fold_if_large()

    def add_shapes_of(self, file: RecordBuffer, name: str | None) -> None:
        """Add the shapes of the records of a file and, if this is all of it, that of the file."""
        self._profile.add_shapes(file.shapes)
        if name is not None:
            self._profile.add_file(name, file.shapes, arrays=file.arrays)

    def take_profile(self) -> Profile:
        """Return the profile of everything since the last call."""
        self._fold()
        self._profile.settle()
        self._kept_bytes = 0
        found, self._profile = self._profile, self._profile.successor()
        return found

    def _fold(self) -> None:
        self._profile.collect(self._documents, in_array=False)
        self._profile.collect(self._elements, in_array=True)
        self._kept_bytes += self._bytes
        self._bytes = 0
        if self._kept_bytes > _KEPT_BYTES:
            self._profile.settle()
            self._kept_bytes = 0


class ProfileTask(TransformTask):
    """Profiles the records of files, batch by batch.

    The records of a file count when it is read to its end; those of a large file as they come.
    """

    def __init__(self, settings: RecordWorkSettings) -> None:
        super().__init__(settings)
        self._profile_settings = profile = settings.profile or ProfileSettings()
        if profile.detail == "full":
            self._max_bytes = settings.files.portion.bytes or _PART_BYTES
        self._has_pointer = settings.records is not None
        self._counts_shapes = profile.detail == "full"
        self._finished = RecordBuffer(Profile(profile))
        self._file = self._new_buffer()
        self._split: Split | None = None

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield the outcome of the files, in order, with their profile."""
        for part in super().__call__(batch):
            # A part of an unfinished small file may be dropped, and its profile with it.
            if len(part) or part.counts is not None:
                part.summary = self._finished.take_profile()
            yield part

    def _transform_file(self, path: str, opened: Opened, resume: Position | None) -> Iterator[Part]:
        self._file, self._split = self._new_buffer(), None
        yield from super()._transform_file(path, opened, resume)
        self._finish(path)

    def _transform_split(self, path: str, split: Split) -> Iterator[Part]:
        self._file, self._split = self._new_buffer(), split
        yield from super()._transform_split(path, split)

    def _new_buffer(self) -> RecordBuffer:
        return RecordBuffer(Profile(self._profile_settings))

    def _finish(self, path: str) -> None:
        """Count the records of a file or split. The first split stands for its file."""
        is_rest = self._split is not None and self._split.number > 0
        self._file.move_to(self._finished)
        self._finished.add_shapes_of(self._file, None if is_rest else display_path(path))

    def _transform_slices(
        self,
        path: str,
        slices: Iterable[RecordSlice | InvalidLine | Position],
        split_start: int | None = None,
    ) -> Iterator[Part]:
        yield from super()._transform_slices(path, slices, split_start)
        if self._split is not None:
            self._finish(path)

    def _note_position(self, position: Position) -> Iterator[Part]:
        self._file.move_to(self._finished)
        return super()._note_position(position)

    def _take_slice(self, cursor: RecordCursor) -> Iterator[Part]:
        record_slice = cursor.record_slice
        values, file = record_slice.values(), self._file
        self._recorder.keep_unchanged(values, range(len(values)), record_slice)
        is_array = isinstance(record_slice, TextSlice) and not record_slice.is_document
        in_array = is_array and not self._has_pointer
        if in_array:
            file.arrays = 1
        if self._counts_shapes:
            file.shapes.update(shapes_of(values))
        file.add(values, record_slice.size, in_array=in_array)
        del values  # a huge document is freed while it is profiled, level by level
        file.fold_if_large()
        return iter(())
