"""The task that reads records for aggregates: only the fields that these need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import MsgspecError

from asyncbatch.sinks.group_encoding import group_check
from asyncbatch.windows.events import KeyFields
from asyncbatch.windows.groups import GroupColumns
from asyncbatch.workers.tasks.event_fields import RowReader
from asyncbatch.workers.tasks.record_slices import MAX_DECODED_BYTES
from asyncbatch.workers.tasks.transform import TransformTask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Part
    from asyncbatch.windows.groups import GroupSettings
    from asyncbatch.workers.tasks.record_slices import RecordSlice
    from asyncbatch.workers.tasks.recorder import RecordCursor


class GroupTask(TransformTask):
    """Reads the records of files for aggregates, batch by batch.

    Without transforms, other fields than those of the aggregates are skipped. A slice with a record
    that lacks one is read again, record by record.
    """

    def __init__(self, settings: RecordWorkSettings) -> None:
        super().__init__(settings)
        groups = settings.target.groups if settings.target is not None else None
        self._row_reader: RowReader | None = None
        if groups is not None and not settings.transforms and not settings.dedupe:
            self._row_reader = _make_reader(groups)

    def _take_slice(self, cursor: RecordCursor) -> Iterator[Part]:
        found = self._read(cursor.record_slice)
        if found is None:
            return super()._take_slice(cursor)
        self._recorder.keep_groups(found)
        return iter(())

    def _read(self, record_slice: RecordSlice) -> GroupColumns | None:
        """Return the columns of a slice; None if its records must be read one by one."""
        if self._row_reader is None or record_slice.size > MAX_DECODED_BYTES:
            return None
        try:
            rows = self._row_reader.read_array(record_slice.array_text())
            return GroupColumns(
                len(rows), self._row_reader.keys(rows), self._row_reader.columns(rows)
            )
        except (MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
            return None


def _make_reader(groups: GroupSettings) -> RowReader | None:
    """Return the fast reader; None for fields that it does not support."""
    try:
        return RowReader(group_check(groups).fields, KeyFields(groups.by), timed=False, texts=False)
    except ValueError:
        return None
