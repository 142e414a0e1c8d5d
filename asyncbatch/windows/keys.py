"""What events are grouped by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

Key: TypeAlias = "Hashable"
"""One field's value, or a tuple of several fields'; () if there are none."""


class KeyFields:
    """Makes keys of the values of fields, and the other way round."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def column(self, columns: Sequence[Sequence[Any]]) -> Sequence[Key] | None:
        """Return the key of each event, None if all are (). Raises TypeError."""
        exact = [
            column if set(map(type, column)) == {str} else [_exact(value) for value in column]
            for column in columns
        ]
        if len(exact) > 1:
            return list(zip(*exact, strict=True))
        return exact[0] if exact else None

    def same(self, value: str) -> Key:
        """Return the key with this value in every field."""
        return (value,) * len(self.names) if len(self.names) != 1 else value

    def order(self, key: Key) -> Any:  # noqa: ANN401 - compared with its like only
        """Return what keys are sorted by: booleans, numbers, then texts by code point."""
        return [_rank(value) for value in self._values(key)]

    def named(self, key: Key) -> dict[str, Any]:
        """Return the fields of a key."""
        return dict(zip(self.names, self.plain(key), strict=True))

    def plain(self, key: Key) -> list[Any]:
        """Return the values of a key, as JSON has them."""
        return [value[0] if type(value) is tuple else value for value in self._values(key)]

    def restored(self, values: Sequence[Any]) -> Key:
        """Return the key that `plain` was called on."""
        exact = tuple(map(_exact, values))
        return exact if len(self.names) != 1 else exact[0]

    def _values(self, key: Any) -> tuple[Any, ...]:  # noqa: ANN401 - see `Key`
        return key if len(self.names) != 1 else (key,)


def check_scalar(value: object) -> None:
    """Raise TypeError for an array or object, which is no key."""
    if isinstance(value, dict | list):
        raise TypeError("is neither a text, a number nor a boolean")


def _exact(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return what is equal only to the same JSON value: 1 is 1.0, but not true."""
    kind = type(value)
    if kind is bool:
        return (value,)
    if kind is float and value.is_integer():
        return int(value)
    check_scalar(value)
    return value


def _rank(value: Any) -> tuple[int, Any]:  # noqa: ANN401 - see `_exact`
    kind = type(value)
    return (2, value) if kind is str else (0, value) if kind is tuple else (1, value)
