"""Variables in strings: `${NAME}`, `${NAME:-default}`; `$${` is a plain `${`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asyncbatch.pipeline_file.mistakes import FromEnvironment, Mistake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncbatch.pipeline_file.mistakes import KeyPath

_VARIABLE = re.compile(
    r"(?P<literal>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|)"
)


def substitute(
    value: Any,  # noqa: ANN401 - whatever TOML can hold
    environment: Mapping[str, str],
    mistakes: list[Mistake],
    path: KeyPath = (),
) -> Any:  # noqa: ANN401 - the same
    """Return `value` with the variables in its strings replaced; add what cannot be."""
    if isinstance(value, dict):
        return {
            key: substitute(item, environment, mistakes, (*path, key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            substitute(item, environment, mistakes, (*path, index))
            for index, item in enumerate(value)
        ]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replaced(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["literal"]:
            return "${"
        if name is None:
            message = (
                "${ begins no variable: write ${NAME}, ${NAME:-default}, or $${ for a plain ${"
            )
            mistakes.append(Mistake(path, message))
        elif found := environment.get(name):
            return found
        elif default is not None:
            return default
        elif name not in environment:
            message = f"the environment has no {name}: set it, or write ${{{name}:-default}}"
            mistakes.append(Mistake(path, message))
        return ""

    return FromEnvironment.of(_VARIABLE.sub(replaced, value), value)
