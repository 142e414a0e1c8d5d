"""The fingerprint of a job: a run may resume a run with the same fingerprint."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING

import msgspec

from asyncbatch.config.job import RecordWorkSettings
from asyncbatch.core.records import display_path
from asyncbatch.core.secrets import redact_address
from asyncbatch.core.units import format_duration
from asyncbatch.errors import UsageError
from asyncbatch.transforms.spec import CallSpec, FieldsSpec, FunctionSpec, JqSpec, RequireSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncbatch.config.job import StreamSettings
    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.sinks.target import Target
    from asyncbatch.transforms.spec import TransformSpec


def fingerprint(settings: FileWorkSettings | RecordWorkSettings) -> str:
    """Return a short text that identifies the work, equal in every process.

    It covers the content of the schema and of the functions' modules, but not of what these import.
    A database counts by its table only, since the ledger is in it. Raises UsageError for a function
    without a name.
    """
    told: list[object] = [1]
    if isinstance(settings, RecordWorkSettings):
        told += [
            settings.files.format, settings.records, settings.whole,
            [_transform_parts(spec) for spec in settings.transforms],
            settings.target and _target_parts(settings.target),
        ]  # fmt: skip
        told += [settings.dedupe] if settings.dedupe else []
        told += [settings.added] if settings.added else []
    else:
        told.append(settings.format)
    return hashlib.blake2b(_encode(told), digest_size=12).hexdigest()


def _encode(parts: object) -> bytes:
    try:
        return msgspec.json.encode(parts)
    except UnicodeEncodeError:  # a path that is not UTF-8
        return ascii(msgspec.to_builtins(parts)).encode()


def describe(settings: FileWorkSettings | RecordWorkSettings) -> str:
    """Return a description of the work in one line."""
    if not isinstance(settings, RecordWorkSettings):
        return "check that files are JSON"
    told = [f"--records {settings.records}"] if settings.records else []
    told += map(_describe_transform, settings.transforms)
    told += [f"--dedupe {','.join(settings.dedupe)}"] if settings.dedupe else []
    if settings.added:
        told.append(f"--add {','.join(f'{one.field}={one.name}' for one in settings.added)}")
    target = settings.target
    if target is not None:
        told.append(f"--to {target.name}")
        told += [f"--table {target.table}"] if target.table else []
        told += [f"--key {','.join(target.key)}"] if target.key else []
        told += [f"--mode {target.mode}"] if target.is_database else []
    return display_path(" ".join(told))


def describe_transforms(specs: Iterable[TransformSpec]) -> list[tuple[str, str]]:
    """Return a description of each transform, and a digest of its behaviour.

    Raises UsageError as `fingerprint` does.
    """
    return [
        (
            _describe_transform(spec),
            hashlib.blake2b(_encode(_transform_parts(spec)), digest_size=6).hexdigest(),
        )
        for spec in specs
    ]


def _target_parts(target: Target) -> list[object]:
    place = target.table if target.is_database else target.location
    return [
        target.form, place, target.key, target.mode, target.columns, target.format,
        target.compression,
        # Only if set: so the jobs of earlier versions stay the same.
        *(("csv_safe",) if target.csv_safe else ()),
        *(() if target.null_value is None else (target.null_value,)),
        *(("nested",) if target.nested == "json" else ()),
    ]  # fmt: skip


def _transform_parts(spec: TransformSpec) -> object:
    match spec:
        case CallSpec():
            return spec, _module_digest(spec.function)
        case JqSpec() | FieldsSpec() | RequireSpec():
            return spec
        case FunctionSpec():
            raise UsageError(
                f"{spec.function!r} cannot be identified in a later run: name it with a CallSpec"
            )
        case _:  # a schema, wherever it lies
            checks = (spec.check_formats, spec.check_content)
            return spec.documents, checks if spec.check_content else spec.check_formats


def _describe_transform(spec: TransformSpec) -> str:
    match spec:
        case JqSpec():
            return f"--jq {spec.program!r}"
        case CallSpec():
            return f"--call {spec.function}"
        case FunctionSpec():
            return f"--call {getattr(spec.function, '__qualname__', spec.function)}"
        case FieldsSpec():
            return f"fields {','.join(name for name, _ in spec.fields)}"
        case RequireSpec():
            return f"require {','.join(spec.fields)}"
        case _:
            return f"--schema {spec.path}"


def _module_digest(spec: str) -> str:
    """Return a digest of the function's module, empty if it is no file."""
    place = spec.rpartition(":")[0]
    if not place.endswith(".py") and os.sep not in place:
        place = getattr(sys.modules.get(place), "__file__", None) or ""
    try:
        with open(place, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:
        return ""


def stream_configuration(
    settings: StreamSettings, sources: Sequence[str], files: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the options that the windows depend on, by name, and their targets.

    `files` are other options that name files or databases. The limit of keys and the workers may
    change. Raises UsageError.
    """
    told = {f"SOURCE {number}": _location(name) for number, name in enumerate(sources, 1)}
    told |= {
        "--window": str(settings.window),
        "--time": settings.time or "arrival",
        "--time-unit": settings.unit,
        "--by": ", ".join(settings.by),
        "--agg": ", ".join(
            f"{one.name}={one.kind}{one.field and ':'}{one.field}" for one in settings.aggregates
        ),
        "--lateness": format_duration(settings.lateness),
        "--idle-timeout": _format_span(settings.idle),
        "--max-future": _format_span(settings.max_future),
        "--overflow-key": settings.overflow_key or "",
    }
    for number, (words, digest) in enumerate(describe_transforms(settings.transforms), 1):
        told[f"transform {number}"] = f"{words} ({digest})"
    told |= {name: _location(path) for name, path in files.items() if path}
    return {name: display_path(text) for name, text in told.items()}


def _format_span(micros: int | None) -> str:
    return "" if micros is None else format_duration(micros)


def _location(name: str) -> str:
    """Return an absolute path, or another name without its passwords."""
    return redact_address(name) if name == "-" or ":" in name else os.path.realpath(name)
