"""`[sink]`, `[late]`, `[checkpoint]`: where windows go, and how a stream can be gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from asyncbatch.pipeline_file.forms import Name, Span, TargetName
from asyncbatch.pipeline_file.sink import DATABASES, form_of
from asyncbatch.pipeline_file.table import Table
from asyncbatch.sinks.target import KNOWN

if TYPE_CHECKING:
    from asyncbatch.pipeline_file.table import Contradictions, Given


class StreamSinkTable(Table, frozen=True):
    """Where windows go; in a table each window and key has one row."""

    to: Annotated[
        TargetName,
        Meta(description="postgresql://user@host/db, sqlite:///FILE, duckdb:///FILE, or a file."),
    ]
    table: Annotated[Name | None, Meta(description="The table of a database.")] = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        """Yield what cannot be said together; see `Table.contradictions`."""
        if given.get("to") is None:
            return
        form = form_of(given["to"].reveal())
        if form is None:
            yield ("to",), f"is no known target: write {KNOWN}"
        elif form == "folder":
            yield ("to",), "is a folder, and windows go into one file or table"
        elif form in DATABASES and "table" not in given:
            yield ("table",), "is missing: a database needs the name of a table"
        elif form not in DATABASES and "table" in given:
            yield ("table",), "is for databases"


class CheckpointTable(Table, frozen=True):
    """What another process needs to go on."""

    path: Annotated[Name, Meta(description="The file that keeps it.")]
    every: Annotated[Span, Meta(description="How often it is written.")] = 10_000_000


class LateTable(Table, frozen=True):
    """Where events are kept whose window is over."""

    to: Annotated[Name, Meta(description="A file: JSON Lines.")]
