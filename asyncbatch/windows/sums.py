"""Sums that are exact whatever the order of adding, rounded once, when they are asked for."""

from __future__ import annotations

from fractions import Fraction
from math import fsum, isinf, isqrt, sqrt
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

_PENDING = 32
"""Values that wait to be summed together: summing a few at a time costs more."""
_SPLITTER = 134_217_729.0
"""2^27 + 1, which parts a double into two halves whose products are exact (Dekker, 1971)."""
_SQUARABLE = (1e-140, 1e150)
"""Between these the square of a double, and what it lacks to be exact, are doubles."""


class SumState(Struct, frozen=True, array_like=True):
    """A sum written down; `beyond` is a fraction's two numbers."""

    whole: int
    parts: list[float]
    beyond: tuple[int, int]
    is_float: bool


class SquaresState(Struct, frozen=True, array_like=True):
    """What a standard deviation is made of, written down."""

    count: int
    values: SumState
    squares: SumState
    beyond: tuple[int, int]


class Sum:
    """The sum of integers and floats: an integer if all are, else the nearest float.

    Floats are kept as a few floats whose exact sum is theirs.
    """

    __slots__ = ("_beyond", "_is_float", "_parts", "_pending", "_whole")
    State: ClassVar[Any] = SumState

    def __init__(self) -> None:
        self._whole = 0
        self._parts: list[float] = []
        self._pending: list[float] = []
        self._beyond = Fraction(0)
        """What could not be summed in floats, being too large for that on the way."""
        self._is_float = False

    def add(self, values: Sequence[float]) -> None:
        """Add numbers."""
        self._pending += values
        if len(self._pending) >= _PENDING:
            self._settle()

    def merge(self, other: Sum) -> None:
        """Add what another has."""
        other._settle()
        self._settle()
        self._whole += other._whole
        self._beyond += other._beyond
        self._is_float = self._is_float or other._is_float
        if other._parts:
            self._add_floats(list(other._parts))

    def state(self) -> SumState:
        """Return what `restore` takes; see `Statistic`."""
        self._settle()
        return SumState(
            self._whole, list(self._parts), self._beyond.as_integer_ratio(), self._is_float
        )

    def restore(self, state: SumState) -> None:
        """Become what `state` was called on."""
        self._whole, self._parts = state.whole, list(state.parts)
        self._beyond, self._is_float = Fraction(*state.beyond), state.is_float

    def exact(self) -> Fraction:
        """Return the sum, not rounded."""
        self._settle()
        return sum(map(Fraction, self._parts), self._beyond + self._whole)

    def result(self) -> float:
        """Return the sum; an integer if it is beyond what a float can be."""
        self._settle()
        if not self._is_float:
            return self._whole
        if not self._whole and not self._beyond:
            return fsum(self._parts)
        return nearest(self.exact())

    def _settle(self) -> None:
        values, self._pending = self._pending, []
        kinds = set(map(type, values))
        if float in kinds:
            self._is_float = True
            if len(kinds) > 1:
                self._whole += int(sum(value for value in values if type(value) is int))
                values = [value for value in values if type(value) is float]
            self._add_floats(values)
        else:
            self._whole += int(sum(values))

    def _add_floats(self, values: list[float]) -> None:
        """Make all floats anew: one near the sum, the nearest to the rest, and so on."""
        rest, parts = values + self._parts, list[float]()
        try:
            part = sum(rest)  # near enough, at a third of the cost of `fsum`
            part = fsum(rest) if not part or isinf(part) else part
            while part:
                parts.append(part)
                rest.append(-part)
                part = fsum(rest)
            self._parts = parts
        except OverflowError:
            self._beyond += sum(map(Fraction, values))


class Squares:
    """What the standard deviation of a sample is made of: the sums of values and of squares."""

    __slots__ = ("_beyond", "_count", "_squares", "_values")
    State: ClassVar[Any] = SquaresState

    def __init__(self) -> None:
        self._count = 0
        self._values, self._squares = Sum(), Sum()
        self._beyond = Fraction(0)
        """The squares of what is no usual float."""

    def add(self, values: Sequence[float]) -> None:
        """Add numbers."""
        self._count += len(values)
        self._values.add(values)
        if not all(map(_is_usual, values)):
            self._beyond += sum(Fraction(x) ** 2 for x in values if not _is_usual(x))
            values = [x for x in values if _is_usual(x)]
        self._squares.add(_squares(values))

    def merge(self, other: Squares) -> None:
        """Add what another has."""
        self._count += other._count
        self._values.merge(other._values)
        self._squares.merge(other._squares)
        self._beyond += other._beyond

    def state(self) -> SquaresState:
        """Return what `restore` takes; see `Statistic`."""
        return SquaresState(
            self._count,
            self._values.state(),
            self._squares.state(),
            self._beyond.as_integer_ratio(),
        )

    def restore(self, state: SquaresState) -> None:
        """Become what `state` was called on."""
        self._count, self._beyond = state.count, Fraction(*state.beyond)
        self._values.restore(state.values)
        self._squares.restore(state.squares)

    def result(self) -> float | None:
        """Return the standard deviation; None for a single value, which has none."""
        count, total = self._count, self._values.exact()
        if count < 2:
            return None
        squares = self._squares.exact() + self._beyond
        variance = (count * squares - total * total) / (count * (count - 1))
        try:
            return sqrt(variance)
        except OverflowError:
            return isqrt(int(variance))


def nearest(exact: Fraction) -> float:
    """Return the nearest float; an integer for what no float comes near."""
    try:
        return float(exact)
    except OverflowError:
        return round(exact)


def _squares(values: Sequence[float]) -> list[float]:
    """Return numbers whose exact sum is that of the squares of usual floats."""
    found = []
    for x in values:
        scaled = _SPLITTER * x
        high = scaled - (scaled - x)
        low = x - high
        square = x * x
        found.append(square)
        found.append(((high * high - square) + 2.0 * high * low) + low * low)
    return found


def _is_usual(x: float) -> bool:
    least, most = _SQUARABLE
    return type(x) is float and (least < abs(x) < most or not x)
