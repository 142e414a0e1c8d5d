"""`--set section.key=value`: what takes the place of values in the file."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from asyncbatch.pipeline_file.mistakes import Mistake, format_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.pipeline_file.mistakes import KeyPath

_INDEX = re.compile(r"\[([0-9]+)\]")
_FORM = "write --set sink.table=people, or --set source.0.timeout=5"


def override(document: dict[str, Any], overrides: Iterable[str], mistakes: list[Mistake]) -> None:
    """Put each override into `document`; add those that cannot be."""
    for text in overrides:
        key, equals, value = text.partition("=")
        path = _parse_path(key)
        if path is None or not equals:
            # What follows the first `=` may be a secret.
            mistakes.append(Mistake((), f"--set {key}{equals}: is no KEY=VALUE; {_FORM}"))
        else:
            _put(document, path, _parse_value(value), mistakes)


def _parse_path(text: str) -> tuple[str, ...] | None:
    """Return the keys of a dotted key, which TOML's own rules take apart."""
    dotted = _INDEX.sub(r".\1", text)  # `source[0]` as in messages, `source.0` as in TOML
    try:
        found: Any = tomllib.loads(f"{dotted} = 0")
    except ValueError:
        return None
    keys: list[str] = []
    while isinstance(found, dict):
        if len(found) != 1:
            return None
        ((key, found),) = found.items()
        keys.append(key)
    return tuple(keys)


def _parse_value(text: str) -> Any:  # noqa: ANN401 - whatever TOML can hold
    """Return what `text` is in TOML, else the text itself."""
    try:
        found = tomllib.loads(f"value = {text}")
    except ValueError:  # it is not TOML, or an integer beyond 4,300 digits
        return text
    return found["value"] if len(found) == 1 else text


def _put(document: Any, path: KeyPath, value: Any, mistakes: list[Mistake]) -> None:  # noqa: ANN401 - TOML
    at: Any = document
    here: KeyPath = ()
    for depth, key in enumerate(path):
        token = _token(at, str(key))
        if token is None:
            kind = f"an array of {len(at)}" if isinstance(at, list) else "no table"
            message = f"--set finds nothing of this name: {format_path(here)} is {kind}"
            mistakes.append(Mistake((*here, key), message))
            return
        here = (*here, token)
        if depth == len(path) - 1:
            at[token] = value
        elif isinstance(at, dict):
            at = at.setdefault(token, {})
        else:
            at = at[token]


def _token(at: Any, key: str) -> str | int | None:  # noqa: ANN401 - TOML
    """Return what names `key` in a table or an array, where it must be there."""
    if isinstance(at, dict):
        return key
    if isinstance(at, list) and key.isdecimal() and len(key) < 10 and int(key) < len(at):
        return int(key)
    return None
