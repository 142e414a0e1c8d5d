"""Settings from the tables of a pipeline file, equal to those from options of `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

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
from asyncbatch.config.settings import file_settings, inputs_of, stores_of, target_of
from asyncbatch.core.retry import Retries
from asyncbatch.core.secrets import Secret
from asyncbatch.core.settings import ServerSettings
from asyncbatch.sources.http.access.credentials import BasicAuth
from asyncbatch.sources.http.settings import HttpSettings, RequestSettings
from asyncbatch.transforms.schema_file import load_schema
from asyncbatch.transforms.spec import CallSpec, FieldRule, FieldsSpec, JqSpec, RequireSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.config.pipeline_file.sinks import SinkTable
    from asyncbatch.config.pipeline_file.sources import FilesSourceTable, HttpSourceTable
    from asyncbatch.config.pipeline_file.transforms import TransformTable
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.inputs import Inputs
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
    return inputs_of(table, table.paths, _retries_of(table))


def files_settings(table: FilesSourceTable) -> RecordWorkSettings:
    """Return the settings of a source of files."""
    return RecordWorkSettings(
        file_settings(table, retries=_retries_of(table)),
        records=table.records,
        whole=table.unit == "file",
    )


def _retries_of(table: FilesSourceTable) -> Retries | None:
    return None if table.retries is None else Retries(table.retries, table.retry_delay)


def http_settings(table: HttpSourceTable) -> HttpSettings:
    """Return the HTTP settings of a source table."""
    requests = {name: getattr(table, name) for name in RequestSettings.__struct_fields__}
    urls = [_split_user(url.reveal()) for url in table.urls]
    user, _ = urls[0]  # all have the same, if any
    if user:
        name, _, password = user.partition(":")
        requests["auth"] = BasicAuth(username=unquote(name), password=Secret(unquote(password)))
    return HttpSettings(urls=tuple(url for _, url in urls), **requests)


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
    is_named = table.endpoint is not None or table.anonymous
    return target_of(
        table,
        table.to.reveal(),
        root,
        server=_server_settings(table, job),
        stores=stores_of(table.endpoint, anonymous=table.anonymous) if is_named else None,
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
    if field.path is not UNSET:
        return FieldRule(field.path, field.apply, field.default)
    if field.source is not UNSET:
        return FieldRule(origin=field.source)
    return FieldRule(now=True) if field.now else FieldRule(value=field.value)
