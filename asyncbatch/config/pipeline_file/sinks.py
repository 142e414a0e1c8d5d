"""The `[sink]` tables, and those of other outputs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from asyncbatch.config.options.streams import StreamSinkOptions
from asyncbatch.config.options.target import SinkOptions
from asyncbatch.core.options import (
    Count,
    HttpUrl,
    Name,
    Options,
    Seconds,
    Span,
    TargetName,
)
from asyncbatch.core.origin import added_columns
from asyncbatch.core.paths import is_object_url
from asyncbatch.errors import UsageError
from asyncbatch.sinks.databases.mirror import DEFAULT_MAX_DELETE, MaxDelete
from asyncbatch.sinks.target import parse_location, target_advice

if TYPE_CHECKING:
    from asyncbatch.core.options import Contradictions, Given

_POSTGRES = ("postgresql", "postgres")
DATABASES = (*_POSTGRES, "sqlite", "duckdb")
MIRRORS = (*DATABASES, "folder")  # of the mode mirror


# The kinds of target that a key of the sink is for; other keys are for all.
_TAKERS = {
    "table": DATABASES, "key": DATABASES, "mode": DATABASES,
    "schema_contract": DATABASES, "pool": _POSTGRES, "statement_timeout": _POSTGRES,
    "override_identity": _POSTGRES,
    "columns": ("csv",), "csv_safe": ("csv",), "null_value": ("csv",),
    "nested": ("parquet",),
    "format": ("folder",), "compression": ("folder",),
    "on_delete": MIRRORS, "max_delete": MIRRORS,
}  # fmt: skip


class PoolTable(Options, frozen=True):
    """The pool of connections to the database."""

    min: Annotated[Count, Meta(description="The number of connections that stay open.")] = 1
    max: Annotated[Count, Meta(description="The limit of connections, at least 2.")] = 4

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        least, most = given.get("min", 1), given.get("max", 4)
        if None not in (least, most) and least > most:
            yield ("min",), f"is {least}, which is more than max ({most})"
        if most == 1:
            yield (
                ("max",),
                "is 1, but it must be at least 2: one connection loads, another sends queries",
            )


class SinkTable(SinkOptions, frozen=True, kw_only=True):
    """The target of the records."""

    to: Annotated[
        TargetName,
        Meta(description="postgresql://user@host/db, sqlite:///FILE, duckdb:///FILE, or a file."),
    ]
    flush_interval: Annotated[
        Seconds | None,
        Meta(description="The longest time that records wait for more records, in seconds."),
    ] = None
    pool: PoolTable | None = None
    statement_timeout: Annotated[
        Seconds | None, Meta(description="The time limit of a PostgreSQL statement, in seconds.")
    ] = None
    endpoint: Annotated[
        HttpUrl | None,
        Meta(description="Endpoint URL of the server for s3://, gs:// and az:// URLs."),
    ] = None
    anonymous: Annotated[bool, Meta(description="Access object stores without credentials.")] = (
        False
    )

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if given.get("mode") == "upsert" and "key" not in given:
            yield ("mode",), "upsert needs key: the fields that identify a row"
        if given.get("to") is None:
            return
        texts = [text for text in given.get("add") or () if text is not None]
        try:
            added_columns(
                texts, with_source=bool(given.get("with_source")), key=given.get("key") or ()
            )
        except UsageError as error:
            yield ("add",), str(error).removeprefix("--add: ")
        form = form_of(given["to"].reveal())
        if form is None:
            yield ("to",), _refusal_of_target(given["to"].reveal())
            return
        if form in DATABASES and "table" not in given:
            yield ("table",), "is missing: a database needs the name of a table"
        yield from _mirror_contradictions(given)
        for key in _TAKERS:
            forms = _takers_of(key, given)
            if key in given and form not in forms:
                sink = _FORM_NAMES.get(form, form)
                yield (key,), f"is only for {_GROUP_NAMES[forms]}, but the sink is {sink}"


def _mirror_contradictions(given: Given) -> Contradictions:
    """Yield the values of a mirror that have no effect, or are no limit."""
    for key in ("on_delete", "max_delete"):
        if key in given and given.get("mode") != "mirror":
            yield (key,), 'is only for mode = "mirror"'
    try:
        MaxDelete.parse(given.get("max_delete") or DEFAULT_MAX_DELETE)
    except ValueError as error:
        yield ("max_delete",), str(error)


_GROUP_NAMES = {
    DATABASES: "databases",
    MIRRORS: "databases and folders",
    _POSTGRES: "PostgreSQL",
    ("csv",): "CSV files",
    ("parquet",): "Parquet files",
    ("folder",): "folders",
}
_FORM_NAMES = {
    "stdout": "standard output",
    "lines": "a JSON Lines file",
    "folder": "a folder",
    "csv": "a CSV file",
    "parquet": "a Parquet file",
    "sqlite": "SQLite",
    "duckdb": "DuckDB",
    "postgresql": "PostgreSQL",
}


def added_names(sink: SinkTable) -> list[str]:
    """Return the names of the columns that a valid sink adds to the records."""
    try:
        columns = added_columns(sink.add, with_source=sink.with_source)
    except UsageError:
        return []
    return [column.name for column in columns]


def form_of(to: str) -> str | None:
    """Return the form of a target's name, None for an unknown one."""
    scheme, separator, _ = to.partition("://")
    if separator and scheme in _POSTGRES:
        return "postgresql"
    try:
        return parse_location(to)[0]
    except UsageError:  # its message may show a password
        return None


def _takers_of(key: str, sink: Given) -> tuple[str, ...]:
    """Return the kinds of target that a key of a sink is for."""
    return MIRRORS if key == "mode" and sink.get("mode") == "mirror" else _TAKERS[key]


def redirect(sink: dict[str, Any], to: str) -> None:
    """Set the target of a sink, and remove the keys that are only for other kinds of target."""
    form = form_of(to)
    for key in _TAKERS:
        if form is not None and form not in _takers_of(key, sink):
            sink.pop(key, None)
    sink["to"] = to


def _refusal_of_target(to: str) -> str:
    """Return the reason why `to` is not a target."""
    if is_object_url(to):  # whose message shows no secret
        try:
            parse_location(to)
        except UsageError as error:
            return str(error).removeprefix("--to ")
    name = f"FILE{os.path.splitext(to)[1]}"  # not `to`, which may hold a password
    return f"is not a known target: {target_advice(name)}"


class DeadLetterTable(Options, frozen=True):
    """The file for rejected records and failed inputs."""

    to: Annotated[Name, Meta(description="A JSON Lines file.")]


class StreamSinkTable(StreamSinkOptions, frozen=True, kw_only=True):
    """The target of the windows; a table has one row for each window and key."""

    to: Annotated[
        TargetName,
        Meta(description="postgresql://user@host/db, sqlite:///FILE, duckdb:///FILE, or a file."),
    ]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if given.get("to") is None:
            return
        form = form_of(given["to"].reveal())
        if "csv_safe" in given and form != "csv":
            yield ("csv_safe",), "is only for CSV files"
        if form is None:
            yield ("to",), _refusal_of_target(given["to"].reveal())
        elif form == "folder":
            yield ("to",), "is a folder, but windows need one file or table"
        elif form in DATABASES and "table" not in given:
            yield ("table",), "is missing: a database needs the name of a table"
        elif form not in DATABASES and "table" in given:
            yield ("table",), "is only for databases"


class CheckpointTable(Options, frozen=True):
    """The state that another process needs to resume."""

    path: Annotated[Name, Meta(description="The file of the checkpoint.")]
    every: Annotated[Span, Meta(description="The time between two writes.")] = 10_000_000


class LateTable(Options, frozen=True):
    """The file for late events."""

    to: Annotated[Name, Meta(description="A JSON Lines file.")]
