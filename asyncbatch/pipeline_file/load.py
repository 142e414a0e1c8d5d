"""A file of TOML into a `PipelineFile`, or everything that is wrong with it."""

from __future__ import annotations

import os
import re
import tomllib
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.grammar import MAX_INTEGER_DIGITS
from asyncbatch.errors import PipelineFileError
from asyncbatch.pipeline_file.check import INVALID, check
from asyncbatch.pipeline_file.environment import substitute
from asyncbatch.pipeline_file.overrides import override
from asyncbatch.pipeline_file.pipeline import PipelineFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncbatch.pipeline_file.mistakes import Mistake

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
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise PipelineFileError(path, [f"{path}: {error.strerror or error}"]) from None
    try:
        return parse_pipeline_file(_parse(path, data), path, overrides, environment)
    except RecursionError:
        raise PipelineFileError(path, [f"{path}: is nested too deep"]) from None


def parse_pipeline_file(
    document: dict[str, Any],
    path: str,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> PipelineFile:
    """Check what TOML has made of the file at `path`; see `load_pipeline_file`."""
    mistakes: list[Mistake] = []
    document = deepcopy(document)
    override(document, overrides, mistakes)
    told = os.environ if environment is None else environment
    found = check(substitute(document, told, mistakes), PipelineFile, mistakes)
    if mistakes or found is INVALID:
        # What a missing variable has made of a value is no mistake of its own.
        first = {mistake.path: mistake for mistake in reversed(mistakes)}
        raise PipelineFileError(path, [str(one) for one in mistakes if first[one.path] is one])
    assert isinstance(found, PipelineFile)
    return found


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
