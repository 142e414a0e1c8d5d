"""Conversion of the options for records to checked settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import structs

from asyncbatch.cli.terminal import separate_results
from asyncbatch.cli.values import split_all_fields, split_fields
from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.core.settings import FileWorkSettings
from asyncbatch.errors import UsageError
from asyncbatch.formats.detect import has_lines_suffix
from asyncbatch.sinks.base import Mode, Nested, SchemaContract
from asyncbatch.sinks.target import Target
from asyncbatch.transforms.chain import make_stages
from asyncbatch.transforms.fields import parse_path
from asyncbatch.transforms.spec import CallSpec, JqSpec
from asyncbatch.workers.tasks.extractor import Extractor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.transforms.schema import SchemaSource


def record_settings(
    files: FileWorkSettings,
    *,
    unit: str,
    jq: Sequence[str] | None,
    jq_env: bool,
    jq_lossy: bool,
    call: Sequence[str] | None,
    schema: str | None,
    check_formats: bool,
    check_content: bool,
    ref: Sequence[str] | None = None,
    dedupe: Sequence[str] | None,
    to: str | None,
    **more: Any,
) -> RecordWorkSettings:
    """Return the settings for the work on records. Raises UsageError."""
    names = (
        *("table", "key", "mode", "schema_contract", "override_identity", "columns"),
        *("csv_safe", "null_value", "nested"),
        *("to_format", "to_compression", "root"),
    )
    target = _make_target(to, **{name: more.pop(name) for name in names})
    for option, is_given in {
        "--check-formats": check_formats,
        "--check-content": check_content,
        "--ref": ref,
    }.items():
        if is_given and schema is None:
            raise UsageError(f"{option} needs --schema")
    settings = RecordWorkSettings(
        files,
        whole=unit == "file",
        transforms=(
            *(JqSpec(program, jq_env, jq_lossy) for program in jq or ()),
            *map(CallSpec, call or ()),
            *(() if schema is None else (_load_schema(schema, check_formats, check_content, ref),)),
        ),
        dedupe=_dedupe_paths(dedupe or ()),
        target=target,
        **more,
    )
    if settings.whole and settings.records is not None:
        raise UsageError(
            "--records reads parts of documents, --unit file whole documents: choose one"
        )
    Extractor(settings)
    if not call:
        make_stages(settings.transforms, row_check=settings.row_check)
        return settings
    separate_results()
    stages = make_stages(settings.transforms, row_check=settings.row_check)
    from asyncbatch.transforms.call import AsyncCall

    is_async = any(isinstance(stage, AsyncCall) for stage in stages)
    return structs.replace(settings, call_is_async=is_async)


def input_paths(paths: tuple[str, ...], settings: RecordWorkSettings) -> tuple[str, ...]:
    """Return the paths of the command, or of a dead letter file.

    Raises UsageError, OSError.
    """
    if settings.replay is None:
        return paths
    if paths:
        raise UsageError("--from-dead-letter takes the place of PATH: give only one of them")
    from asyncbatch.sinks.dead_letters import failed_files

    return (*failed_files(settings.replay), settings.replay)


def parse_references(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the URIs and paths of `--ref`. Raises UsageError."""
    references = []
    for text in texts:
        # A URI may contain `=`, and so may a path.
        signs = [place for place, char in enumerate(text) if char == "="]
        found = [place for place in signs if os.path.exists(text[place + 1 :])]
        if not found:
            reason = f"no file {text[signs[0] + 1 :]}" if signs else "write URI=FILE or URI=DIR"
            raise UsageError(f"--ref {text}: {reason}")
        references.append((text[: found[0]], text[found[0] + 1 :]))
    return references


def unit_warning(
    settings: FileWorkSettings | RecordWorkSettings, paths: Sequence[str]
) -> str | None:
    """Return a warning if no record of `paths` can be of the type that the schema wants.

    None if there is nothing to warn about. A line of JSON Lines may be an array.
    """
    if not isinstance(settings, RecordWorkSettings) or settings.whole:
        return None
    if settings.files.format == "jsonl" or (paths and all(map(has_lines_suffix, paths))):
        return None
    from asyncbatch.transforms.schema import SchemaSource

    first = next(iter(settings.transforms), None)
    if not isinstance(first, SchemaSource) or first.root_types() != {"array"}:
        return None
    return (
        f"Warning: {first.path} is for arrays, but here each element of an array is a record; "
        "asyncbatch validate (or --unit file) checks documents as a whole"
    )


def _load_schema(
    path: str, check_formats: bool, check_content: bool, ref: Sequence[str] | None
) -> SchemaSource:
    from asyncbatch.transforms.schema import load_schema

    return load_schema(
        path,
        check_formats=check_formats,
        check_content=check_content,
        copies=parse_references(ref or ()),
    )


def _make_target(
    to: str | None,
    *,
    table: str | None,
    key: Sequence[str] | None,
    mode: Mode | None,
    schema_contract: SchemaContract | None,
    override_identity: bool | None,
    columns: str | None,
    csv_safe: bool | None,
    null_value: str | None,
    nested: Nested | None,
    to_format: str,
    to_compression: str,
    root: str | None,
) -> Target | None:
    if to is None:
        unused: dict[str, object] = {
            "--table": table,
            "--key": key,
            "--mode": mode,
            "--columns": columns,
        }
        unused |= {"--schema-contract": schema_contract, "--csv-safe": csv_safe or None}
        unused |= {"--null-value": null_value, "--nested": nested}
        unused |= {"--override-identity": override_identity or None}
        for option, value in unused.items():
            if value is not None:
                raise UsageError(f"{option} needs a target: name it with --to")
        return None
    fields = split_all_fields(key or ())
    return Target.parse(
        to,
        table=table,
        key=fields,
        mode=mode or ("upsert" if fields else "append"),
        contract=schema_contract or "evolve",
        override_identity=bool(override_identity),
        columns=None if columns is None else split_fields(columns),
        csv_safe=bool(csv_safe),
        null_value=null_value,
        nested=nested,
        format=to_format,
        compression=to_compression,
        root=root,
    )


def _dedupe_paths(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the field paths of `--dedupe`. Raises UsageError for an invalid path."""
    paths = split_all_fields(texts)
    try:
        for path in paths:
            parse_path(path)
    except ValueError as error:
        raise UsageError(f"--dedupe: {error}") from None
    return paths
