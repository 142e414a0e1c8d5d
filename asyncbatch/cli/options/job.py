"""Conversion of the options for records to checked settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import structs

from asyncbatch.cli.options.flags import flags
from asyncbatch.cli.terminal import separate_results
from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.config.options.aggregates import AggregateFlags
from asyncbatch.config.options.inputs import ReplayOptions
from asyncbatch.config.options.target import TargetFlags
from asyncbatch.config.options.transforms import DedupeFlags, SchemaFlags
from asyncbatch.config.settings import target_of
from asyncbatch.core.origin import added_columns
from asyncbatch.core.report import process_run_id
from asyncbatch.errors import UsageError
from asyncbatch.formats.detect import has_lines_suffix
from asyncbatch.transforms.chain import make_stages
from asyncbatch.transforms.spec import CallSpec, JqSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.config.options.inputs import InputOptions
    from asyncbatch.config.options.transforms import CallFlags, JqFlags
    from asyncbatch.core.settings import FileWorkSettings, ProfileSettings
    from asyncbatch.sinks.target import Target
    from asyncbatch.transforms.schema import SchemaSource


def record_settings(
    files: FileWorkSettings,
    inputs: InputOptions,
    *,
    jq: JqFlags,
    call: CallFlags,
    schema: SchemaFlags,
    dedupe: DedupeFlags = DedupeFlags(),  # noqa: B008 - groups of options are frozen
    target: TargetFlags = TargetFlags(),  # noqa: B008 - as above
    aggregates: AggregateFlags = AggregateFlags(),  # noqa: B008 - as above
    replay: ReplayOptions = ReplayOptions(),  # noqa: B008 - as above
    letters: bool = False,
    tracebacks: bool = False,
    profile: ProfileSettings | None = None,
) -> RecordWorkSettings:
    """Return the settings for the work on records. Raises UsageError."""
    for flag in flags(SchemaFlags):
        if schema.schema is None and getattr(schema, flag.field):
            raise UsageError(f"{flag.names[0]} needs --schema")
    settings = RecordWorkSettings(
        files,
        records=inputs.records,
        whole=inputs.unit == "file",
        transforms=(
            *(JqSpec(program, jq.env, jq.lossy) for program in jq.jq),
            *map(CallSpec, call.call),
            *(() if schema.schema is None else (_load_schema(schema, schema.schema),)),
        ),
        dedupe=dedupe.dedupe,
        added=added_columns(target.add, with_source=target.with_source, key=target.key),
        run_id=process_run_id(),
        target=_make_target(target, aggregates, inputs.root),
        letters=letters,
        replay=replay.from_dead_letter,
        call_concurrency=call.call_concurrency,
        tracebacks=tracebacks,
        profile=profile,
    )
    if settings.whole and settings.records is not None:
        raise UsageError(
            "--records reads parts of documents, --unit file whole documents: choose one"
        )
    if settings.records is not None:
        from asyncbatch.workers.tasks.extractor import Extractor

        Extractor(settings)  # raises an error for a pointer that is none
    if not call.call:
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


def _load_schema(options: SchemaFlags, path: str) -> SchemaSource:
    from asyncbatch.transforms.schema import load_schema

    return load_schema(
        path,
        check_formats=options.check_formats,
        check_content=options.check_content,
        copies=parse_references(options.ref),
    )


def _make_target(
    options: TargetFlags, aggregates: AggregateFlags, root: str | None
) -> Target | None:
    """Return the target, or None without one. Raises UsageError for options without effect."""
    target = None if options.to is None else target_of(options, options.to, root)
    if target is None:
        _refuse_target_options(options)
    if aggregates == AggregateFlags():
        return target
    from asyncbatch.config.aggregates import aggregate_target, flag_groups

    groups = flag_groups(aggregates)
    return target if groups is None else aggregate_target(target, options, groups)


def _refuse_target_options(options: TargetFlags) -> None:
    """Raise UsageError for options of a target that is not there."""
    default = TargetFlags()
    for flag in flags(TargetFlags):
        if getattr(options, flag.field) != getattr(default, flag.field):
            raise UsageError(f"{flag.names[0]} needs a target: name it with --to")
