"""A file of TOML into what it says, or everything that is wrong with it."""

from __future__ import annotations

import os
import re
import tomllib
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from asyncbatch.codec.grammar import MAX_INTEGER_DIGITS
from asyncbatch.errors import PipelineFileError
from asyncbatch.pipeline_file.check import INVALID, check
from asyncbatch.pipeline_file.environment import substitute
from asyncbatch.pipeline_file.overrides import override
from asyncbatch.pipeline_file.pipeline import PipelineFile
from asyncbatch.pipeline_file.stream_file import StreamFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncbatch.pipeline_file.mistakes import KeyPath, Mistake

F = TypeVar("F", PipelineFile, StreamFile)

_ETL_TYPES = ("http", "files")
_PLACE = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$")


def load_pipeline_file(
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> PipelineFile:
    """Read and check the pipeline file at `path`, `overrides` being `section.key=value`.

    Variables come from `environment` (by default the process's). Raises PipelineFileError with
    every mistake.
    """
    return _load(path, lambda found: parse_pipeline_file(found, path, overrides, environment))


def load_stream_file(
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> StreamFile:
    """Read and check the pipeline file of a stream; see `load_pipeline_file`."""
    return _load(path, lambda found: parse_stream_file(found, path, overrides, environment))


def _load(path: str, parse: Callable[[dict[str, Any]], F]) -> F:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise PipelineFileError(path, [f"{path}: {error.strerror or error}"]) from None
    try:
        return parse(_parse(path, data))
    except RecursionError:
        raise PipelineFileError(path, [f"{path}: is nested too deep"]) from None


def parse_pipeline_file(
    document: dict[str, Any],
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> PipelineFile:
    """Check what TOML has made of the file at `path`; see `load_pipeline_file`."""
    if "window" in document:
        raise PipelineFileError(
            path, [f"{path}: has a [window], and is for `asyncbatch stream {path}`"]
        )
    return _checked(document, PipelineFile, path, overrides, environment)


def parse_stream_file(
    document: dict[str, Any],
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> StreamFile:
    """Check what TOML has made of the file at `path`; see `load_stream_file`.

    A single source may be a table; one with a path is a file, unless it says otherwise.
    """
    source = document.get("source")
    sources = source if isinstance(source, list) else [source]
    tables = [one for one in sources if isinstance(one, dict)]
    if "window" not in document and any(one.get("type") in _ETL_TYPES for one in tables):
        raise PipelineFileError(
            path, [f"{path}: has no [window], and is for `asyncbatch etl {path}`"]
        )
    return _checked(document, StreamFile, path, overrides, environment)


def _checked(
    document: dict[str, Any],
    kind: type[F],
    path: str,
    overrides: Iterable[str],
    environment: Mapping[str, str] | None,
) -> F:
    mistakes: list[Mistake] = []
    document = deepcopy(document)
    override(document, overrides, mistakes)
    told = os.environ if environment is None else environment
    is_single = kind is StreamFile and isinstance(document.get("source"), dict)
    if kind is StreamFile:
        _complete(document)
    found = check(substitute(document, told, mistakes), kind, mistakes)
    if is_single:  # as it is written
        mistakes = [replace(one, path=_without_index(one.path)) for one in mistakes]
    if mistakes or found is INVALID:
        # What a missing variable has made of a value is no mistake of its own.
        first = {mistake.path: mistake for mistake in reversed(mistakes)}
        raise PipelineFileError(path, [str(one) for one in mistakes if first[one.path] is one])
    assert isinstance(found, kind)
    return found


def _complete(document: dict[str, Any]) -> None:
    """Make a single source an array of one, and say what sources with a path are."""
    source = document.get("source")
    if isinstance(source, dict):
        source = document["source"] = [source]
    for one in source if isinstance(source, list) else ():
        if isinstance(one, dict) and "path" in one:
            one.setdefault("type", "file")


def _without_index(path: KeyPath) -> KeyPath:
    return ("source", *path[2:]) if path[:2] == ("source", 0) else path


def _parse(path: str, data: bytes) -> dict[str, Any]:
    """Return the document that `data` is. Raises PipelineFileError with its place."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise PipelineFileError(path, [f"{path}:{line}:{column}: is not UTF-8"]) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        if match := _PLACE.search(reason):
            last = text.count("\n") + 1, len(text) - text.rfind("\n")
            line, column = (int(match[1]), int(match[2])) if match[1] else last
            reason = reason[: match.start()]
            path_and_place = f"{path}:{line}:{column}"
        else:
            path_and_place = path
        message = f"{path_and_place}: is not TOML: {reason[:1].lower()}{reason[1:]}"
        raise PipelineFileError(path, [message]) from None
    except ValueError:  # Python's own, and without its place
        raise PipelineFileError(
            path, [f"{path}: has an integer of more than {MAX_INTEGER_DIGITS:,} digits"]
        ) from None
