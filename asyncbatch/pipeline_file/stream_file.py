"""A pipeline file of a stream as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, field

from asyncbatch.pipeline_file.forms import Name
from asyncbatch.pipeline_file.made import MadeFields
from asyncbatch.pipeline_file.sink import DeadLetterTable
from asyncbatch.pipeline_file.stream_sink import CheckpointTable, LateTable, StreamSinkTable
from asyncbatch.pipeline_file.stream_sources import (
    EventFileTable,
    EventFolderTable,
    EventStdinTable,
    SimulatedTable,
)
from asyncbatch.pipeline_file.table import Table
from asyncbatch.pipeline_file.transforms import (
    CallTable,
    FieldsTable,
    JqTable,
    RequireTable,
    SchemaTable,
)
from asyncbatch.pipeline_file.window import ARRIVAL, WindowTable

if TYPE_CHECKING:
    from asyncbatch.pipeline_file.table import Contradictions, Given


class StreamFile(Table, frozen=True):
    """What `asyncbatch stream` does: events of sources, in windows, into a sink."""

    sources: Annotated[
        tuple[EventFileTable | EventFolderTable | EventStdinTable | SimulatedTable, ...],
        Meta(min_length=1, description="Where events come from, side by side."),
    ] = field(name="source")
    window: Annotated[WindowTable, Meta(description="How events are put together.")]
    name: Annotated[Name | None, Meta(description="What the job is called.")] = None
    transforms: Annotated[
        tuple[FieldsTable | RequireTable | JqTable | CallTable | SchemaTable, ...],
        Meta(description="What is done to each event first, in this order."),
    ] = field(name="transform", default=())
    sink: StreamSinkTable | None = None
    checkpoint: CheckpointTable | None = None
    late: LateTable | None = None
    dead_letter: DeadLetterTable | None = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        """Yield what cannot be said together; see `Table.contradictions`."""
        seen: list[Any] = []
        for index, source in enumerate(given.get("source") or ()):
            if source is not None and source in seen and not isinstance(source, SimulatedTable):
                yield ("source", index), "is there twice: each source is read once"
            seen.append(source)
        window = given.get("window")
        if window is None:
            return
        if "late" in given and window.time == ARRIVAL:
            yield ("late",), "is about the events' own time, and window.time is arrival"
        transforms = given.get("transform") or ()
        made = MadeFields(transforms)
        yield from made.unmade
        for place, path in window.fields():
            yield from made.lacks(path, ("window", *place))
