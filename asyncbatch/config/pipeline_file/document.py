"""Documents of TOML: their text, ${…} variables and --set overrides."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from asyncbatch.config.options.forms import FromEnvironment
from asyncbatch.config.pipeline_file.mistakes import Mistake, format_path
from asyncbatch.errors import PipelineFileError
from asyncbatch.formats.grammar import MAX_INTEGER_DIGITS
from asyncbatch.sources.http.access.secret_names import is_secret_variable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.config.secret_sources import SecretSources
    from asyncbatch.core.options import KeyPath

    # The path of each text with a secret, and the secret.
    FoundSecrets = list[tuple[KeyPath, str]]

_TOML_POSITION = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$")
_VARIABLE = re.compile(
    r"(?P<literal>\$\$\{)"
    r"|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}"
    r"|(?P<kind>[a-z]+):(?P<place>[^}]*)\}|)"
)


def substitute(
    value: Any,
    sources: SecretSources,
    mistakes: list[Mistake],
    path: KeyPath = (),
    *,
    secrets: FoundSecrets | None = None,
) -> Any:
    """Return `value` with its variables replaced. Adds unknown ones to `mistakes`.

    Adds the values that are secrets, by their source or the name of their variable, to `secrets`.
    """
    if isinstance(value, dict):
        return {
            key: substitute(item, sources, mistakes, (*path, key), secrets=secrets)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            substitute(item, sources, mistakes, (*path, index), secrets=secrets)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replaced(match: re.Match[str]) -> str:
        if match["literal"]:
            return "${"
        try:
            found = _found_value(match, sources)
        except ValueError as error:
            mistakes.append(Mistake(path, str(error)))
            return ""
        if secrets is not None and _is_secret(match, sources):
            secrets.append((path, found))
        return found

    return FromEnvironment.of(_VARIABLE.sub(replaced, value), value)


def _found_value(match: re.Match[str], sources: SecretSources) -> str:
    """Return the value of a variable. Raises ValueError with a remedy."""
    name, default = match["name"], match["default"]
    if match["kind"]:
        return sources.value(match["kind"], match["place"])
    if name is None:
        raise ValueError(
            "${ does not begin a variable: write ${NAME}, ${NAME:-default}, or $${ for a plain ${"
        )
    if found := sources.environment.get(name):
        return found
    if default is None and name not in sources.environment:
        raise ValueError(
            f"the environment variable {name} is not set: set it, or write ${{{name}:-default}}"
        )
    return default or ""


def _is_secret(match: re.Match[str], sources: SecretSources) -> bool:
    """Whether the value of a variable is a secret. A default stands in the file for all to see."""
    if match["kind"]:
        return True
    is_set = bool(sources.environment.get(match["name"]))
    return is_set and is_secret_variable(match["name"], match.string[: match.start()])


_INDEX = re.compile(r"\[([0-9]+)\]")
_SET_EXAMPLES = "write --set sink.table=people, or --set source.0.timeout=5"


def override(document: dict[str, Any], overrides: Iterable[str], mistakes: list[Mistake]) -> None:
    """Apply the overrides to `document`. Adds invalid ones to `mistakes`."""
    for text in overrides:
        key, equals, value = text.partition("=")
        path = _parse_path(key)
        if path is None or not equals:
            # The text after the first `=` may be a secret.
            mistakes.append(Mistake((), f"--set {key}{equals}: is not KEY=VALUE; {_SET_EXAMPLES}"))
        else:
            _set_value(document, path, _parse_value(value), mistakes)


def _parse_path(text: str) -> tuple[str, ...] | None:
    """Return the keys of a dotted key, parsed by TOML's own rules."""
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


def _parse_value(text: str) -> Any:
    """Return the TOML value of `text`, else the text itself."""
    try:
        found = tomllib.loads(f"value = {text}")
    except ValueError:  # it is not TOML, or an integer beyond 4,300 digits
        return text
    return found["value"] if len(found) == 1 else text


def _set_value(document: Any, path: KeyPath, value: Any, mistakes: list[Mistake]) -> None:
    at: Any = document
    here: KeyPath = ()
    for depth, key in enumerate(path):
        token = _find_key(at, str(key))
        if token is None:
            kind = f"an array of {len(at)}" if isinstance(at, list) else "not a table"
            message = f"--set cannot find this key: {format_path(here)} is {kind}"
            mistakes.append(Mistake((*here, key), message))
            return
        here = (*here, token)
        if depth == len(path) - 1:
            at[token] = value
        elif isinstance(at, dict):
            at = at.setdefault(token, {})
        else:
            at = at[token]


def _find_key(at: Any, key: str) -> str | int | None:
    """Return the next token of a path that must exist in a table or an array."""
    if isinstance(at, dict):
        return key
    if isinstance(at, list) and key.isdecimal() and len(key) < 10 and int(key) < len(at):
        return int(key)
    return None


def parse_toml(path: str, data: bytes) -> dict[str, Any]:
    """Return the document in `data`. Raises PipelineFileError with the position."""
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
        if match := _TOML_POSITION.search(reason):
            last = text.count("\n") + 1, len(text) - text.rfind("\n")
            line, column = (int(match[1]), int(match[2])) if match[1] else last
            reason = reason[: match.start()]
            path_and_place = f"{path}:{line}:{column}"
        else:
            path_and_place = path
        message = f"{path_and_place}: is not TOML: {reason[:1].lower()}{reason[1:]}"
        raise PipelineFileError(path, [message]) from None
    except ValueError:  # an error of Python, without a position
        raise PipelineFileError(
            path, [f"{path}: has an integer of more than {MAX_INTEGER_DIGITS:,} digits"]
        ) from None
