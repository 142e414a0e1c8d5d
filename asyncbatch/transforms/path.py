"""Where in a record a field is: `a.b.c`, or a JSON Pointer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.pointer import parse_pointer

if TYPE_CHECKING:
    from collections.abc import Callable

_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")


def parse_path(text: str) -> tuple[str, ...]:
    """Return the tokens of a path: names with dots between, or a JSON Pointer if it begins with /.

    Raises ValueError with what is wrong.
    """
    if text.startswith("/"):
        return parse_pointer(text)
    tokens = tuple(text.split("."))
    if "" in tokens:
        raise ValueError(
            f"{text!r} is no path: write a.b.c, or a JSON Pointer (/a/b) for names with dots"
        )
    return tokens


def make_getter(tokens: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
    """Return what gets the value at `tokens` of an object; None where there is none."""
    first, *rest = tokens

    def get_first(record: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        return record.get(first)

    def get(record: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        value = record.get(first)
        for token in rest:
            if type(value) is dict:
                value = value.get(token)
            elif type(value) is list:
                value = _element(value, token)
            else:
                return None
        return value

    return get if rest else get_first


def _element(array: list[Any], token: str) -> Any:  # noqa: ANN401 - JSON
    if _INDEX.fullmatch(token) and int(token) < len(array):
        return array[int(token)]
    return None
