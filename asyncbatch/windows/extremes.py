"""The smallest and the largest number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EXACT = 2**53


class ExtremeState(Struct, frozen=True, array_like=True):
    """A smallest or largest number, written down."""

    value: int | float | None
    is_float: bool


class Extreme:
    """The smallest or largest number, as `pick` (min or max) has it.

    It is a float if any of the numbers was, whichever came first.
    """

    __slots__ = ("_is_float", "_pick", "_value")
    State: ClassVar[Any] = ExtremeState

    def __init__(self, pick: Callable[[Sequence[float]], float]) -> None:
        self._pick = pick
        self._value: float | None = None
        self._is_float = False

    def add(self, values: Sequence[float]) -> None:
        """Look at numbers; at least one."""
        self._is_float = self._is_float or float in set(map(type, values))
        self._take(self._pick(values))

    def merge(self, other: Extreme) -> None:
        """Look at what another has seen."""
        self._is_float = self._is_float or other._is_float
        if other._value is not None:
            self._take(other._value)

    def state(self) -> ExtremeState:
        """Return what `restore` takes; see `Statistic`."""
        return ExtremeState(self._value, self._is_float)

    def restore(self, state: ExtremeState) -> None:
        """Become what `state` was called on."""
        self._value, self._is_float = state.value, state.is_float

    def _take(self, value: float) -> None:
        self._value = value if self._value is None else self._pick((self._value, value))

    def result(self) -> float | None:
        """Return the number."""
        value = self._value
        if value is not None and self._is_float and abs(value) <= _EXACT:
            return float(value)
        return value
