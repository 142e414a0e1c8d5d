"""Values that are used but never shown."""

from __future__ import annotations

from typing import Any

_SHOWN = "***"


class Secret:
    """A text that shows as `***` wherever it is printed, logged or encoded; `reveal` gives it.

    msgspec has no say in how another type's values are encoded: its encoders and `convert` take
    the two hooks of this module, and without them refuse, so that nothing leaks by accident.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __repr__(self) -> str:
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def hide_secrets(value: object) -> str:
    """Msgspec's `enc_hook`: return how a `Secret` is shown. Raises NotImplementedError."""
    if isinstance(value, Secret):
        return _SHOWN
    raise NotImplementedError(f"values of {type(value).__name__} are not encoded")


def make_secrets(kind: type, value: Any) -> object:  # noqa: ANN401 - msgspec's contract
    """Msgspec's `dec_hook`: return a text as a `Secret`. Raises ValueError."""
    if kind is not Secret:
        raise NotImplementedError(f"values of {kind.__name__} are not decoded")
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - msgspec tells the path of a ValueError
    return Secret(value)
