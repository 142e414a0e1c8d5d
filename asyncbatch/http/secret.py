"""Secrets in settings that msgspec makes of plain data."""

from __future__ import annotations

from typing import Any

from asyncbatch.secret import Secret


def make_secrets(kind: type, value: Any) -> object:  # noqa: ANN401 - msgspec's contract
    """Msgspec's `dec_hook`: return a text as a `Secret`. Raises ValueError."""
    if kind is not Secret:
        raise NotImplementedError(f"values of {kind.__name__} are not decoded")
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - msgspec tells the path of a ValueError
    return Secret(value)
