"""A pipeline file as a whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, field

from asyncbatch.errors import UsageError
from asyncbatch.pipeline_file.forms import Name
from asyncbatch.pipeline_file.mistakes import suggestion
from asyncbatch.pipeline_file.sink import DATABASES, DeadLetterTable, SinkTable, form_of
from asyncbatch.pipeline_file.sources import FilesSourceTable, HttpSourceTable
from asyncbatch.pipeline_file.table import Table
from asyncbatch.pipeline_file.transforms import (
    CallTable,
    DedupeTable,
    FieldsTable,
    FieldTable,
    JqTable,
    RequireTable,
    SchemaTable,
)
from asyncbatch.transforms.path import parse_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.pipeline_file.sources import SourceTable
    from asyncbatch.pipeline_file.table import Contradictions, Given


class PipelineFile(Table, frozen=True):
    """What `asyncbatch etl` does: from sources, through transforms, into a sink."""

    name: Annotated[Name, Meta(description="What the job is called.")]
    sources: Annotated[
        tuple[HttpSourceTable | FilesSourceTable, ...],
        Meta(min_length=1, description="Where records come from, side by side."),
    ] = field(name="source")
    sink: SinkTable
    transforms: Annotated[
        tuple[FieldsTable | RequireTable | DedupeTable | JqTable | CallTable | SchemaTable, ...],
        Meta(description="What is done to each record, in this order."),
    ] = field(name="transform", default=())
    dead_letter: DeadLetterTable | None = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        """Yield what cannot be said together; see `Table.contradictions`."""
        names = [getattr(source, "name", None) for source in given.get("source") or ()]
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                yield ("source", index, "name"), f"{name!r} is another source's name too"
        transforms = given.get("transform") or ()
        for index, table in enumerate(transforms):
            if isinstance(table, DedupeTable) and index < len(transforms) - 1:
                yield (
                    ("transform", index, "type"),
                    "dedupe must come last: which record is first is known only at the end",
                )
        yield from _misled(given)
        yield from _unmade(transforms, getattr(given.get("sink"), "key", ()))

    def source_names(self) -> list[str]:
        """Return what each source is called: its name, else its type, numbered from the second."""
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
        """Return the sources of these names. Raises UsageError if there is none of one."""
        names = self.source_names()
        chosen = set(wanted)
        for name in sorted(chosen):
            if name not in names:
                near = suggestion(name, names)
                raise UsageError(f"--only {name}: the sources are {', '.join(names)}{near}")
        pairs = zip(names, self.sources, strict=True)
        return tuple(source for name, source in pairs if name in chosen)


def _misled(given: Given) -> Iterator[tuple[Any, str]]:
    """Yield the places of what the sink cannot take, or take as it is meant."""
    sources, sink = given.get("source") or (), given.get("sink")
    form = None if sink is None or sink.to is None else form_of(sink.to.reveal())
    if sink is None or form is None:
        return
    for index, table in enumerate(given.get("transform") or ()):
        if isinstance(table, DedupeTable) and form == "folder":
            yield (
                ("transform", index, "type"),
                "dedupe is not for a folder, whose files are written side by side",
            )
    for index, source in enumerate(sources):
        if not isinstance(source, HttpSourceTable):
            continue
        if form == "folder":
            yield ("source", index, "type"), "has no files, which the sink, a folder, would mirror"
        elif source.incremental is not None:
            place = ("source", index, "incremental")
            if form not in DATABASES:
                yield place, "needs a database as the sink: what is newest is kept there"
            elif sink.mode == "replace":
                yield (
                    place,
                    'asks for what is new only, and sink.mode = "replace" leaves nothing else',
                )


def _unmade(transforms: Sequence[Any], key: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """Yield the places of fields that are asked for, but not made by the `fields` before."""
    made: set[str] | None = None
    for index, table in enumerate(transforms):
        if isinstance(table, FieldsTable):
            if made is not None:
                for name, rule in table.fields.items():
                    path = rule.source if isinstance(rule, FieldTable) else rule
                    place = ("from",) if isinstance(rule, FieldTable) else ()
                    if isinstance(path, str):
                        at = ("transform", index, "fields", name, *place)
                        yield from _missing(path, made, at)
            made = set(table.fields)
        elif isinstance(table, RequireTable | DedupeTable) and made is not None:
            name, paths = (
                ("fields", table.fields) if isinstance(table, RequireTable) else ("key", table.key)
            )
            for place_in, path in enumerate(paths):
                yield from _missing(path, made, ("transform", index, name, place_in))
        elif table is None or isinstance(table, JqTable | CallTable):
            made = None  # anybody's guess
    if made is not None:
        for place_in, name in enumerate(key):
            if name not in made:
                near = suggestion(name, made)
                yield ("sink", "key", place_in), f"no field {name!r} is made by transform{near}"


def _missing(path: str, made: set[str], at: Any) -> Iterator[tuple[Any, str]]:  # noqa: ANN401 - a key path
    first = parse_path(path)[:1]
    if first and first[0] not in made:
        near = suggestion(first[0], made)
        yield at, f"no field {first[0]!r} is made by the fields before{near}"
