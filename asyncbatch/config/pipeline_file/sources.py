"""The `[source]` tables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import urldefrag, urlsplit

from msgspec import Meta

from asyncbatch.config.options.control import RetryCount, RetryDelay
from asyncbatch.config.options.inputs import InputOptions
from asyncbatch.config.options.streams import FollowOptions, PatternOptions, SimulatorOptions
from asyncbatch.core.options import ApiUrl, Name, Names, Options
from asyncbatch.core.records import STDIN
from asyncbatch.sources.http.settings import RequestSettings, given_urls

if TYPE_CHECKING:
    from asyncbatch.core.options import Contradictions, Given


class HttpSourceTable(RequestSettings, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """Pages of an HTTP API."""

    urls: Annotated[
        tuple[ApiUrl, ...], Meta(min_length=1, description="The URLs of the first pages.")
    ]
    name: Annotated[Name | None, Meta(description="The name of the source, for --only.")] = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        yield from super().contradictions(given)
        auth = given.get("auth")
        if auth is None and len(set(map(_user, given_urls(given)))) > 1:
            yield (
                ("urls",),
                "have different users, or only some have a user: use auth, or two sources",
            )
        seen: set[str] = set()
        for index, url in enumerate(given.get("urls") or ()):
            if url is None:
                continue
            sent = urldefrag(url.reveal()).url  # a fragment is never sent
            if sent in seen:
                yield ("urls", index), "is listed twice: its records would be doubled"
            seen.add(sent)
            if auth is not None and _user(url.reveal()):
                yield ("urls", index), "has a user, and auth has credentials: choose one"

    @property
    def wanted(self) -> tuple[object, ...]:
        """The settings that decide which records it has, not how they are requested."""
        return (
            {url.reveal() for url in self.urls}, self.method, self.body, self.headers, self.auth,
            self.records, self.key_field, self.format, self.pagination, self.parent,
            self.incremental, self.max_pages,
        )  # fmt: skip


class FilesSourceTable(InputOptions, frozen=True, kw_only=True, tag_field="type", tag="files"):
    """Files, as `asyncbatch run` takes them: the keys are its options."""

    paths: Annotated[
        tuple[Name, ...], Meta(description="Folders, files, globs, URLs, or - for standard input.")
    ] = ()
    name: Annotated[Name | None, Meta(description="The name of the source, for --only.")] = None
    retries: RetryCount | None = None
    retry_delay: RetryDelay = 0.2

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        paths = given.get("paths", ())
        if paths == () and "files_from" not in given:
            yield ("paths",), "name a folder, a file or a glob, or give files_from"
        if (paths or ()).count(STDIN) + (given.get("files_from") == STDIN) > 1:
            yield ("paths",), "standard input ('-') can be read only once"
        if given.get("null") and "files_from" not in given:
            yield ("null",), "is only for files_from"
        if given.get("unit") == "file" and "records" in given:
            yield (
                ("records",),
                'reads parts of documents, but unit = "file" reads whole ones: choose one',
            )

    @property
    def wanted(self) -> tuple[object, ...]:
        """The settings that decide which records it has, not how they are read."""
        return (
            set(map(os.path.normpath, self.paths)), self.pattern, self.exclude, self.files_from,
            self.hidden, self.gitignore, self.follow_symlinks, self.limit, self.shard,
            self.format, self.records, self.unit,
        )  # fmt: skip


def _user(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[0]


SourceTable: TypeAlias = HttpSourceTable | FilesSourceTable


class EventFilesTable(PatternOptions, frozen=True, kw_only=True, tag_field="type", tag="files"):
    """Files and folders of JSON Lines, as `asyncbatch stream` takes them."""

    paths: Annotated[Names, Meta(description="Files, folders, or - for standard input.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        paths = given.get("paths") or ()
        for index, path in enumerate(paths):
            if path is not None and path in paths[:index]:
                yield ("paths", index), "is listed twice: each source is read once"
        yield from _need_follow(given)


class EventFileTable(FollowOptions, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """A file of JSON Lines, read to its end or followed."""

    path: Annotated[Name, Meta(description="The path of the file.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        path = given.get("path")
        if path == STDIN:
            yield ("path",), 'is standard input: write type = "stdin", without a path'
        elif path is not None and os.path.isdir(path):
            yield ("path",), 'is a folder: write type = "folder"'
        yield from _need_follow(given)


class EventFolderTable(PatternOptions, frozen=True, kw_only=True, tag_field="type", tag="folder"):
    """A folder of JSON Lines, read file by file; with `follow` also new files."""

    path: Annotated[Name, Meta(description="The path of the folder.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        path = given.get("path")
        if path is not None and os.path.exists(path) and not os.path.isdir(path):
            yield ("path",), 'is not a folder: write type = "file"'
        yield from _need_follow(given)


def _need_follow(given: Given) -> Contradictions:
    if given.get("from_end") and not given.get("follow"):
        yield ("from_end",), "needs follow = true"


class EventStdinTable(Options, frozen=True, tag_field="type", tag="stdin"):
    """Standard input: JSON Lines."""


class SimulatedTable(SimulatorOptions, frozen=True, kw_only=True, tag_field="type", tag="simulate"):
    """Example events, in real time."""


EventSourceTable: TypeAlias = (
    EventFilesTable | EventFileTable | EventFolderTable | EventStdinTable | SimulatedTable
)


def event_paths(table: EventSourceTable) -> tuple[str, ...]:
    """Return the paths of a source, with - for standard input."""
    match table:
        case EventFilesTable():
            return table.paths
        case EventFileTable() | EventFolderTable():
            return (table.path,)
        case EventStdinTable():
            return (STDIN,)
        case SimulatedTable():
            return ()
