"""Settings from the tables of a pipeline file, equal to those from options of `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.config.pipeline_file.transforms import (
    CallTable,
    DedupeTable,
    FieldsTable,
    FieldTable,
    JqTable,
    RequireTable,
)
from asyncbatch.core.secrets import Secret, decode_secret
from asyncbatch.core.settings import FileWorkSettings, ServerSettings, StoreSettings
from asyncbatch.sinks.target import Target
from asyncbatch.sources.http.settings import HttpSettings
from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.selection import DEFAULT_PATTERNS, Selection, Shard
from asyncbatch.transforms.schema_file import load_schema
from asyncbatch.transforms.spec import CallSpec, FieldRule, FieldsSpec, JqSpec, RequireSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.config.pipeline_file.sinks import SinkTable
    from asyncbatch.config.pipeline_file.sources import FilesSourceTable, HttpSourceTable
    from asyncbatch.config.pipeline_file.transforms import TransformTable
    from asyncbatch.transforms.spec import TransformSpec


def transform_specs(tables: Sequence[TransformTable]) -> tuple[TransformSpec, ...]:
    """Return the transforms of the tables, without `dedupe`: see `dedupe_key`.

    Schema files are read. Raises UsageError if one has become invalid since the check.
    """
    return tuple(_transform_spec(table) for table in tables if not isinstance(table, DedupeTable))


def dedupe_key(tables: Sequence[TransformTable]) -> tuple[str, ...] | None:
    """Return the paths of the key of a final `dedupe`, or None."""
    return next((table.key for table in tables if isinstance(table, DedupeTable)), None)


def files_inputs(table: FilesSourceTable) -> Inputs:
    """Return the inputs of a source table."""
    selection = Selection(
        table.pattern or DEFAULT_PATTERNS, table.exclude, table.hidden, table.follow_symlinks
    )
    shard = None if table.shard is None else Shard.parse(table.shard)
    stores = _stores(table)
    return Inputs(
        table.paths, table.files_from, table.null, selection, table.limit, table.root, shard,
        stores, max_window=table.max_window,
    )  # fmt: skip


def _stores(table: FilesSourceTable | SinkTable) -> StoreSettings:
    endpoint = None if table.endpoint is None else table.endpoint.reveal()
    return StoreSettings.from_options(endpoint, anonymous=table.anonymous)


def files_settings(table: FilesSourceTable) -> RecordWorkSettings:
    """Return the settings of a source of files."""
    files = FileWorkSettings(
        table.format, table.max_file_size, max_window=table.max_window, stores=_stores(table)
    )
    return RecordWorkSettings(files, records=table.records, whole=table.unit == "file")


def http_settings(table: HttpSourceTable) -> HttpSettings:
    """Return the HTTP settings of a source table."""
    plain = msgspec.to_builtins(table, enc_hook=_reveal)
    del plain["type"], plain["name"]
    user, _ = _split_user(plain["urls"][0])  # all have the same, if any
    if user:
        name, _, password = user.partition(":")
        plain["auth"] = {"type": "basic", "username": unquote(name), "password": unquote(password)}
    plain["urls"] = [url for _, url in map(_split_user, plain["urls"])]
    return msgspec.convert(plain, HttpSettings, dec_hook=decode_secret)


def _reveal(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)


def _split_user(url: str) -> tuple[str, str]:
    """Return the user and password in a URL, and the URL without them."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return user, urlunsplit(parts._replace(netloc=host))


def sink_target(table: SinkTable, root: str | None = None, *, job: str | None = None) -> Target:
    """Return the target. Raises UsageError.

    Outputs of a folder are named relative to `root`. Database sessions have the name of the
    `job`.
    """
    return Target.parse(
        table.to.reveal(),
        table=table.table,
        key=table.key,
        mode=table.mode or ("upsert" if table.key else "append"),
        contract=table.schema_contract,
        override_identity=table.override_identity,
        columns=table.columns,
        csv_safe=table.csv_safe,
        null_value=table.null_value,
        nested=table.nested,
        format=table.format,
        compression=table.compression,
        root=root,
        server=_server_settings(table, job),
        stores=_stores(table) if table.endpoint is not None or table.anonymous else None,
    )


def _server_settings(table: SinkTable, job: str | None) -> ServerSettings:
    name = None if job is None else f"asyncbatch {job}"
    settings = ServerSettings(statement_timeout=table.statement_timeout, name=name)
    pool = table.pool
    return (
        replace(settings, min_connections=pool.min, max_connections=pool.max) if pool else settings
    )


def _transform_spec(table: Any) -> TransformSpec:
    match table:
        case JqTable():
            return JqSpec(table.expr, table.env, table.lossy)
        case CallTable():
            return CallSpec(table.function)
        case FieldsTable():
            return FieldsSpec(tuple((name, _field_rule(one)) for name, one in table.fields.items()))
        case RequireTable():
            return RequireSpec(table.fields, table.on_missing)
        case _:
            return load_schema(
                table.file,
                check_formats=table.check_formats,
                check_content=table.check_content,
                copies=tuple(table.refs.items()),
            )


def _field_rule(field: str | FieldTable) -> FieldRule:
    if isinstance(field, str):
        return FieldRule(field)
    if field.source is not UNSET:
        return FieldRule(field.source, field.apply, field.default)
    return FieldRule(now=True) if field.now else FieldRule(value=field.value)
