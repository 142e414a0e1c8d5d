"""What is wrong with a value that does not fit a schema, in words for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from asyncbatch.codec.pointer import format_pointer

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

_LONGEST = 200
_TOLD = 3
"""Alternatives, or misfits of the nearest one, that are told."""


def describe(error: ValidationError) -> str:
    """Return the library's words for `error`, cut where it quotes a large value.

    Of alternatives, the one that the value comes nearest to says what it lacks; if it comes
    near to none, each says in short what it wants.
    """
    branches = getattr(error.kind, "context", None)
    if error.kind.name not in ("anyOf", "oneOf") or not branches or not all(branches):
        return shortened(_own_words(error))
    here = error.instance_path
    ranked = sorted(branches, key=lambda branch: _distance(branch, here))
    if _is_far(ranked[0], here):
        wanted = list(dict.fromkeys(shortened(_own_words(branch[0])) for branch in ranked))
        more = "; …" if len(wanted) > _TOLD else ""
        return f"fits none of {len(branches)} alternatives: {'; '.join(wanted[:_TOLD])}{more}"
    lacks = "; ".join(_placed(misfit, here) for misfit in ranked[0][:_TOLD])
    more = "; …" if len(ranked[0]) > _TOLD else ""
    return f"fits none of {len(branches)} alternatives; the nearest: {lacks}{more}"


def shortened(text: str) -> str:
    """Cut `text` in the middle if it is long: a message ends with the rule it is about."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def _distance(branch: list[ValidationError], here: list[str | int]) -> tuple[bool, bool, int]:
    """Order branches: the wrong type is furthest off, then the wrong one of fixed values."""
    fixed = any(misfit.kind.name in ("const", "enum") for misfit in branch)
    return _is_far(branch, here), fixed, len(branch)


def _is_far(branch: list[ValidationError], here: list[str | int]) -> bool:
    return any(
        misfit.instance_path == here and misfit.kind.name in ("type", "const", "enum")
        for misfit in branch
    )


def _placed(misfit: ValidationError, here: list[str | int]) -> str:
    below = misfit.instance_path[len(here) :]
    place = f"at …{format_pointer(below)}: " if below else ""
    return f"{place}{shortened(_own_words(misfit))}"


def _own_words(error: ValidationError) -> str:
    if error.kind.name == "falseSchema":
        return "is not allowed here"
    if error.message == "Unexpected type":  # of a keyword, in a schema file
        return f"{json.dumps(error.instance)} is no value for {error.instance_path[-1]!r}"
    return error.message
