"""`[source]` of a stream: where events come from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from asyncbatch.pipeline_file.forms import Name, Names, Span
from asyncbatch.pipeline_file.sources import Count
from asyncbatch.pipeline_file.table import Table
from asyncbatch.records import STDIN

if TYPE_CHECKING:
    from asyncbatch.pipeline_file.table import Contradictions, Given


class EventFileTable(Table, frozen=True, tag_field="type", tag="file"):
    """A file of JSON Lines, read to its end or followed."""

    path: Annotated[Name, Meta(description="Where it is.")]
    follow: Annotated[
        bool, Meta(description="Go on with it as it grows, also when it is rotated or cut.")
    ] = False
    from_end: Annotated[
        bool, Meta(description="With follow: pass over what is there at the start.")
    ] = False

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        """Yield what cannot be said together; see `Table.contradictions`."""
        path = given.get("path")
        if path == STDIN:
            yield ("path",), 'is standard input: write type = "stdin", without a path'
        elif path is not None and os.path.isdir(path):
            yield ("path",), 'is a folder: write type = "folder"'
        yield from _unfollowed(given)


class EventFolderTable(Table, frozen=True, tag_field="type", tag="folder"):
    """A folder of JSON Lines, read file by file; with `follow` also files that come."""

    path: Annotated[Name, Meta(description="Where it is.")]
    pattern: Annotated[Names | None, Meta(description="Names to take.")] = None
    follow: Annotated[bool, Meta(description="Wait for more files.")] = False
    from_end: Annotated[
        bool, Meta(description="With follow: pass over what is there at the start.")
    ] = False

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        """Yield what cannot be said together; see `Table.contradictions`."""
        path = given.get("path")
        if path is not None and os.path.exists(path) and not os.path.isdir(path):
            yield ("path",), 'is no folder: write type = "file"'
        yield from _unfollowed(given)


def _unfollowed(given: Given) -> Contradictions:
    if given.get("from_end") and not given.get("follow"):
        yield ("from_end",), "is for follow = true"


class EventStdinTable(Table, frozen=True, tag_field="type", tag="stdin"):
    """Standard input: JSON Lines."""


class SimulatedTable(Table, frozen=True, tag_field="type", tag="simulate"):
    """Example events, as they happen."""

    rate: Annotated[float, Meta(gt=0, description="Events a second.")] = 10.0
    seed: Annotated[int | None, Meta(description="Make the same events each time.")] = None
    users: Annotated[Count, Meta(description="User ids go from 1 to so many.")] = 1000
    types: Annotated[tuple[Name, ...], Meta(min_length=1, description="Event types.")] = (
        "login",
        "logout",
        "purchase",
        "view",
    )
    disorder: Annotated[Span, Meta(description="Let times be up to so much before their turn.")] = 0


EventSourceTable: TypeAlias = EventFileTable | EventFolderTable | EventStdinTable | SimulatedTable
