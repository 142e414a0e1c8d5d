"""The two kinds of pipeline file: etl and stream."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, field

from asyncbatch.config.options.streams import ARRIVAL
from asyncbatch.config.pipeline_file.aggregate import AggregateTable
from asyncbatch.config.pipeline_file.mistakes import suggestion
from asyncbatch.config.pipeline_file.sinks import (
    DATABASES,
    CheckpointTable,
    DeadLetterTable,
    LateTable,
    SinkTable,
    StreamSinkTable,
    added_names,
    form_of,
)
from asyncbatch.config.pipeline_file.sources import (
    EventSourceTable,
    FilesSourceTable,
    HttpSourceTable,
    event_paths,
)
from asyncbatch.config.pipeline_file.transforms import (
    CallTable,
    DedupeTable,
    FieldsTable,
    JqTable,
    ProducedFields,
    RequireTable,
    SchemaTable,
)
from asyncbatch.config.pipeline_file.window import WindowTable
from asyncbatch.core.options import Name, Options
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.config.pipeline_file.sources import SourceTable
    from asyncbatch.core.options import Contradictions, Given


class PipelineFile(Options, frozen=True):
    """A pipeline of `asyncbatch etl`: from sources, through transforms, into a sink."""

    name: Annotated[Name, Meta(description="The name of the job.")]
    sources: Annotated[
        tuple[HttpSourceTable | FilesSourceTable, ...],
        Meta(min_length=1, description="The sources of records, read concurrently."),
    ] = field(name="source")
    sink: SinkTable
    transforms: Annotated[
        tuple[FieldsTable | RequireTable | DedupeTable | JqTable | CallTable | SchemaTable, ...],
        Meta(description="The transforms of each record, in this order."),
    ] = field(name="transform", default=())
    aggregate: Annotated[
        AggregateTable | None, Meta(description="The aggregates of all records, after transforms.")
    ] = None
    dead_letter: DeadLetterTable | None = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        names = [getattr(source, "name", None) for source in given.get("source") or ()]
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                yield ("source", index, "name"), f"{name!r} is also the name of another source"
        yield from _repeated_sources(given.get("source") or ())
        transforms = given.get("transform") or ()
        for index, table in enumerate(transforms):
            if isinstance(table, DedupeTable) and index < len(transforms) - 1:
                yield (
                    ("transform", index, "type"),
                    "dedupe must be the last transform: the first record is known only at the end",
                )
        yield from _misplaced_keys(given)
        made = ProducedFields(transforms)
        yield from made.missing_fields
        aggregate, sink = given.get("aggregate"), given.get("sink")
        if aggregate is not None:
            for at, path in aggregate.fields():
                yield from made.find_missing(path, ("aggregate", *at))
            yield from _unfit_for_aggregates(given, aggregate)
            return
        added = () if sink is None else added_names(sink)
        for place, name in enumerate(getattr(sink, "key", ())):
            if made.names is not None and name not in made.names and name not in added:
                near = suggestion(name, made.names)
                yield ("sink", "key", place), f"no transform makes a field {name!r}{near}"

    def source_names(self) -> list[str]:
        """Return the name of each source, else its type, numbered from the second."""
        taken = {source.name for source in self.sources}
        counts: Counter[str] = Counter()
        names = []
        for source in self.sources:
            name = source.name
            while name is None:
                kind = "http" if isinstance(source, HttpSourceTable) else "files"
                counts[kind] += 1
                made = kind if counts[kind] == 1 else f"{kind}-{counts[kind]}"
                name = None if made in taken else made
            names.append(name)
        return names

    def only(self, wanted: Iterable[str]) -> tuple[SourceTable, ...]:
        """Return the sources of these names. Raises UsageError for an unknown name."""
        names = self.source_names()
        chosen = set(wanted)
        for name in sorted(chosen):
            if name not in names:
                near = suggestion(name, names)
                raise UsageError(
                    f"--only {name}: no source has this name; the sources are "
                    f"{', '.join(names)}{near}"
                )
        pairs = zip(names, self.sources, strict=True)
        return tuple(source for name, source in pairs if name in chosen)


def _repeated_sources(sources: Sequence[SourceTable | None]) -> Iterator[tuple[Any, str]]:
    """Yield the places of sources that have the same records as another one."""
    seen: list[tuple[object, ...]] = []
    for index, source in enumerate(sources):
        if source is None:
            continue
        if source.wanted in seen:
            yield ("source", index), "is listed twice: its records would be doubled"
        seen.append(source.wanted)


def _misplaced_keys(given: Given) -> Iterator[tuple[Any, str]]:
    """Yield the places of values that the sink cannot take as written."""
    sources, sink = given.get("source") or (), given.get("sink")
    form = None if sink is None or sink.to is None else form_of(sink.to.reveal())
    if sink is None or form is None:
        return
    for index, table in enumerate(given.get("transform") or ()):
        if isinstance(table, DedupeTable) and form == "folder":
            yield (
                ("transform", index, "type"),
                "dedupe cannot have a folder as the sink: its files are written in parallel",
            )
    for index, source in enumerate(sources):
        if not isinstance(source, HttpSourceTable):
            continue
        if form == "folder":
            yield (
                ("source", index, "type"),
                "has no files, but the sink is a folder, which mirrors files",
            )
        elif source.incremental is not None:
            place = ("source", index, "incremental")
            if form not in DATABASES:
                yield place, "needs a database as the sink: the largest value is stored there"
            elif sink.mode == "replace":
                yield (
                    place,
                    'requests only new records, but sink.mode = "replace" deletes all others',
                )
        elif source.conditional:
            is_upsert = sink.key and sink.mode not in ("append", "replace")
            if form not in DATABASES or not is_upsert:
                from asyncbatch.sources.http.settings import CONDITIONAL_SINK

                yield ("source", index, "conditional"), CONDITIONAL_SINK


def _unfit_for_aggregates(given: Given, aggregate: AggregateTable) -> Iterator[tuple[Any, str]]:
    """Yield the values of the sink and the sources that do not fit aggregates."""
    for index, source in enumerate(given.get("source") or ()):
        if isinstance(source, HttpSourceTable) and source.incremental is not None:
            yield (
                ("source", index, "incremental"),
                "requests only new records, but aggregates are made of all",
            )
    sink, columns = given.get("sink"), aggregate.groups.columns
    for index, name in enumerate(aggregate.by):
        if columns.count(name) > 1 and name not in aggregate.by[:index]:
            yield ("aggregate", "by", index), f"two columns of the result would be called {name!r}"
    if sink is None or sink.to is None:
        return
    form = form_of(sink.to.reveal())
    if form == "folder":
        yield ("sink", "to"), "is a folder, but aggregates need one file or table"
    elif form in DATABASES and sink.mode is None and not sink.key:
        yield (
            ("sink", "mode"),
            'is missing: each run makes all aggregates anew. Write "replace", "append", or a key',
        )
    for index, name in enumerate(sink.key):
        if name not in columns:
            yield ("sink", "key", index), f"is no column of the result: {', '.join(columns)}"
    for key in ("batch_size", "unordered"):
        if getattr(sink, key):
            yield ("sink", key), "has no effect on aggregates: leave it out"


class StreamFile(Options, frozen=True):
    """A pipeline of `asyncbatch stream`: events of sources, in windows, into a sink."""

    sources: Annotated[
        tuple[EventSourceTable, ...],
        Meta(min_length=1, description="The sources of events, read concurrently."),
    ] = field(name="source")
    window: Annotated[WindowTable, Meta(description="The windows of the events.")]
    name: Annotated[Name | None, Meta(description="The name of the job.")] = None
    transforms: Annotated[
        tuple[FieldsTable | RequireTable | JqTable | CallTable | SchemaTable, ...],
        Meta(description="The transforms of each event, in this order."),
    ] = field(name="transform", default=())
    sink: StreamSinkTable | None = None
    checkpoint: CheckpointTable | None = None
    late: LateTable | None = None
    dead_letter: DeadLetterTable | None = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        seen: set[str] = set()
        for index, source in enumerate(given.get("source") or ()):
            paths = () if source is None else event_paths(source)
            if not seen.isdisjoint(paths):
                yield ("source", index), "is listed twice: each source is read once"
            seen.update(paths)
        window = given.get("window")
        if window is None:
            return
        if "late" in given and window.time == ARRIVAL:
            yield ("late",), "needs the events' own time, but window.time is arrival"
        transforms = given.get("transform") or ()
        made = ProducedFields(transforms)
        yield from made.missing_fields
        for place, path in window.fields():
            yield from made.find_missing(path, ("window", *place))
