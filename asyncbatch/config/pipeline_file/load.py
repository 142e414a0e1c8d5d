"""The loader of pipeline files: a document of TOML, checked."""

from __future__ import annotations

import os
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from asyncbatch.config.pipeline_file.check import INVALID, check
from asyncbatch.config.pipeline_file.document import override, parse_toml, substitute
from asyncbatch.config.pipeline_file.files import PipelineFile, StreamFile
from asyncbatch.config.pipeline_file.mistakes import Mistake, first_mistakes
from asyncbatch.config.pipeline_file.sinks import redirect
from asyncbatch.config.secret_sources import SecretSources
from asyncbatch.errors import PipelineFileError
from asyncbatch.sources.http.access.secret_names import HARMLESS_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncbatch.config.pipeline_file.document import FoundSecrets
    from asyncbatch.config.secret_sources import CommandPolicy
    from asyncbatch.core.options import KeyPath

F = TypeVar("F", PipelineFile, StreamFile)

_ETL_TYPES = ("http", "files")


def load_pipeline_file(
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    commands: CommandPolicy | None = None,
    **flags: Any,
) -> PipelineFile:
    """Read and check the pipeline file at `path`. Overrides are `section.key=value`.

    Variables come from `environment`, by default the process's; `commands` says whether `${cmd:…}`
    may run commands. `flags` are options that replace values of the file, by their names. Raises
    PipelineFileError with all mistakes.
    """
    return _load(
        path,
        lambda found: parse_pipeline_file(
            found, path, overrides, environment, commands=commands, **flags
        ),
    )


def load_stream_file(
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    commands: CommandPolicy | None = None,
    **flags: Any,
) -> StreamFile:
    """Read and check the pipeline file of a stream; see `load_pipeline_file`."""
    return _load(
        path,
        lambda found: parse_stream_file(
            found, path, overrides, environment, commands=commands, **flags
        ),
    )


def _load(path: str, parse: Callable[[dict[str, Any]], F]) -> F:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        hint = "" if os.path.exists(path) else f"; `asyncbatch init {path}` writes an example"
        raise PipelineFileError(path, [f"{path}: {error.strerror or error}{hint}"]) from None
    try:
        return parse(parse_toml(path, data))
    except RecursionError:
        raise PipelineFileError(path, [f"{path}: is nested too deeply"]) from None


def parse_pipeline_file(
    document: dict[str, Any],
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    commands: CommandPolicy | None = None,
    **flags: Any,
) -> PipelineFile:
    """Check the parsed TOML of the file at `path`; see `load_pipeline_file`."""
    if "window" in document:
        raise PipelineFileError(
            path, [f"{path}: has a [window] table: run it with `asyncbatch stream {path}`"]
        )
    secrets = SecretSources(environment, commands)
    return _check_document(document, PipelineFile, path, overrides, secrets, **flags)


def parse_stream_file(
    document: dict[str, Any],
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    commands: CommandPolicy | None = None,
    **flags: Any,
) -> StreamFile:
    """Check the parsed TOML of the file at `path`; see `load_stream_file`.

    A single source may be a table; a source with a path is a file, unless it has a type.
    """
    source = document.get("source")
    sources = source if isinstance(source, list) else [source]
    tables = [one for one in sources if isinstance(one, dict)]
    if "window" not in document and any(one.get("type") in _ETL_TYPES for one in tables):
        raise PipelineFileError(
            path, [f"{path}: has no [window] table: run it with `asyncbatch etl {path}`"]
        )
    secrets = SecretSources(environment, commands)
    return _check_document(document, StreamFile, path, overrides, secrets, **flags)


def _check_document(
    document: dict[str, Any],
    kind: type[F],
    path: str,
    overrides: Iterable[str],
    secrets: SecretSources,
    **flags: Any,
) -> F:
    mistakes: list[Mistake] = []
    document = deepcopy(document)
    _set_flags(document, flags)
    override(document, overrides, mistakes)
    is_single = kind is StreamFile and isinstance(document.get("source"), dict)
    if kind is StreamFile:
        _complete_sources(document)
    hidden: FoundSecrets = []
    document = substitute(document, secrets, mistakes, secrets=hidden)
    _hide_secrets(document, hidden)
    found = check(document, kind, mistakes)
    if is_single:  # the messages name the table as it is written
        mistakes = [replace(one, path=_without_index(one.path)) for one in mistakes]
    if mistakes or found is INVALID:
        raise PipelineFileError(path, [str(one) for one in first_mistakes(mistakes)])
    assert isinstance(found, kind)
    return found


# The table and the key that a flag replaces.
FLAG_KEYS = {
    "to": ("sink", "to"), "table": ("sink", "table"), "dead_letter": ("dead_letter", "to"),
    "late": ("late", "to"), "checkpoint": ("checkpoint", "path"),
    "checkpoint_every": ("checkpoint", "every"),
}  # fmt: skip


def _set_flags(document: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Set the values of flags in the document."""
    for name, value in flags.items():
        if name == "retries":
            sources = document.get("source")
            for source in sources if isinstance(sources, list) else [sources]:
                if isinstance(source, dict):
                    source[name] = value
            continue
        table, key = FLAG_KEYS[name]
        text = value.replace("${", "$${")  # a flag has no variables: the shell replaces its own
        if not isinstance(document.setdefault(table, {}), dict):
            continue
        if name == "to":
            redirect(document[table], text)
        else:
            document[table][key] = text


# The keys of a source whose texts may contain secrets that no other setting names.
_KEYS_WITH_SECRETS = {"urls", "headers", "body", "pagination", "parent"}


def _hide_secrets(document: dict[str, Any], found: FoundSecrets) -> None:
    """Add the secrets in the tables of HTTP sources to their key `hidden`."""
    for path, secret in found:
        if path[0] != "source" or len(path) < 3 or path[2] not in _KEYS_WITH_SECRETS:
            continue
        if path[2] == "headers" and str(path[3]).lower() in HARMLESS_HEADERS:
            continue
        source = document["source"][path[1]]
        if source.get("type") != "http" or not secret.isprintable():
            continue
        hidden = source.setdefault("hidden", [])
        if isinstance(hidden, list) and secret not in hidden:
            hidden.append(secret)


def _complete_sources(document: dict[str, Any]) -> None:
    """Make a single source an array of one, and set the type of sources with paths."""
    source = document.get("source")
    if isinstance(source, dict):
        source = document["source"] = [source]
    for one in source if isinstance(source, list) else ():
        if isinstance(one, dict) and ("path" in one or "paths" in one):
            one.setdefault("type", "file" if "path" in one else "files")


def _without_index(path: KeyPath) -> KeyPath:
    return ("source", *path[2:]) if path[:2] == ("source", 0) else path
