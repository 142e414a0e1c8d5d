"""Parameters in the JSON body of a request, by their name or JSON Pointer."""

from __future__ import annotations

from typing import Any

from asyncbatch.formats.positions import parse_pointer


class PlaceError(ValueError):
    """A body has no place for a parameter. The message has the reason."""


def place_of(param: str) -> tuple[str, ...]:
    """Return the tokens of a parameter: a JSON Pointer, or a name at the top of the body.

    Raises ValueError for an invalid pointer.
    """
    return parse_pointer(param) if param.startswith("/") else (param,)


def put_value(body: Any, param: str, value: Any) -> Any:
    """Return a copy of `body` with `value` at the parameter. Objects on the way are added.

    Raises PlaceError if something else than an object or array is on the way.
    """
    return _put(body, place_of(param), value, param)


def _put(body: Any, tokens: tuple[str, ...], value: Any, param: str) -> Any:
    if not tokens:
        return value
    name, *rest = tokens
    if body is None:
        body = {}
    if isinstance(body, dict):
        return {**body, name: _put(body.get(name), tuple(rest), value, param)}
    if isinstance(body, list):
        if not (name.isdecimal() and int(name) < len(body)):
            raise PlaceError(f"the array in the body has no element {name} ({param})")
        index = int(name)
        return [*body[:index], _put(body[index], tuple(rest), value, param), *body[index + 1 :]]
    raise PlaceError(f"the body has a single value on the way to {param}")
