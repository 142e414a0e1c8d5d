"""Statistics of values: exact sums, extremes, standard deviations and sketches."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from hashlib import blake2b
from itertools import accumulate
from math import ceil, exp2, fsum, inf, isinf, isqrt, log, log1p, sqrt
from sys import float_info
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from asyncbatch.formats.decoder import encode
from asyncbatch.windows.hyperloglog import HASH_BYTES, HyperLogLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.records import Json

_EXACT = 2**53  # a double holds each integer up to this one


class ExtremeState(Struct, frozen=True, array_like=True):
    """The state of an `Extreme`."""

    value: int | float | None
    is_float: bool


class Extreme:
    """The smallest or largest number; `pick` is min or max.

    The result is a float if any of the numbers is, or beyond 2^53 if an equal one is, and has no
    negative zero, so that it does not depend on their order.
    """

    __slots__ = ("_is_float", "_pick", "_value")
    State: ClassVar[Any] = ExtremeState

    def __init__(self, pick: Callable[[Sequence[float]], float]) -> None:
        self._pick = pick
        self._value: float | None = None
        self._is_float = False

    def add(self, values: Sequence[float]) -> None:
        """Add numbers, at least one."""
        kinds = set(map(type, values))
        self._is_float = self._is_float or float in kinds
        found = self._pick(values)
        if len(kinds) > 1 and type(found) is int:
            found = next((one for one in values if type(one) is float and one == found), found)
        self._add_value(found)

    def merge(self, other: Extreme) -> None:
        self._is_float = self._is_float or other._is_float
        if other._value is not None:
            self._add_value(other._value)

    def state(self) -> ExtremeState:
        return ExtremeState(self._value, self._is_float)

    def restore(self, state: ExtremeState) -> None:
        self._value, self._is_float = state.value, state.is_float

    def _add_value(self, value: float) -> None:
        if self._value is None or (self._value == value and type(value) is float):
            self._value = value
        else:
            self._value = self._pick((self._value, value))

    def result(self) -> float | None:
        """Return the number, None without values."""
        value = self._value
        if value is not None and self._is_float and abs(value) <= _EXACT:
            return value + 0.0
        return value


ACCURACY = 0.01  # the largest relative error of a percentile
_LARGEST = float_info.max  # larger integers count as this one

# The bins of DDSketch (Masson, Rim, Lee: VLDB 2019): bin `key` has the numbers above
# _GAMMA ** (key - 1) up to _GAMMA ** key.
_GAMMA = 1 + 2 * ACCURACY / (1 - ACCURACY)
_BINS_PER_DOUBLING = log(2) / log1p(2 * ACCURACY / (1 - ACCURACY))
_SMALLEST = float_info.min * _GAMMA  # up to this one, a number counts as zero
_MIDDLE = 2 / (1 + _GAMMA)  # of a bin, as a part of its upper end


class PercentilesState(Struct, frozen=True, array_like=True):
    """The state of `Percentiles`: its bins, and the extremes."""

    positive: list[tuple[int, float]]  # key and count of each bin
    negative: list[tuple[int, float]]
    zeros: float  # count of zeros
    lowest: float | None  # None without values
    highest: float | None


class Percentiles:
    """The distribution of numbers, rounded to floats, in bins of equal relative size.

    It is the same for any order of the numbers and any division into parts.
    """

    __slots__ = ("_highest", "_lowest", "_negative", "_positive", "_zeros")
    State: ClassVar[Any] = PercentilesState

    def __init__(self) -> None:
        self._positive: Counter[int] = Counter()  # the count of each bin, by its key
        self._negative: Counter[int] = Counter()  # the same for the numbers without their sign
        self._zeros = 0
        self._lowest, self._highest = inf, -inf

    def add(self, values: Sequence[float]) -> None:
        """Add numbers."""
        if not -_LARGEST <= (low := min(values)) <= (high := max(values)) <= _LARGEST:
            values = [max(-_LARGEST, min(value, _LARGEST)) for value in values]
            low, high = min(values), max(values)
        positive = [value for value in values if value > _SMALLEST]
        negative = [-value for value in values if value < -_SMALLEST]
        self._positive.update(map(_bin, positive))
        self._negative.update(map(_bin, negative))
        self._zeros += len(values) - len(positive) - len(negative)
        self._extend_range(low, high)

    def merge(self, other: Percentiles) -> None:
        self._positive.update(other._positive)
        self._negative.update(other._negative)
        self._zeros += other._zeros
        self._extend_range(other._lowest, other._highest)

    def state(self) -> PercentilesState:
        has_values = self._lowest <= self._highest
        return PercentilesState(
            [*sorted(self._positive.items())],
            [*sorted(self._negative.items())],
            self._zeros,
            *((self._lowest, self._highest) if has_values else (None, None)),
        )

    def restore(self, state: PercentilesState) -> None:
        self._positive = Counter({key: int(count) for key, count in state.positive})
        self._negative = Counter({key: int(count) for key, count in state.negative})
        self._zeros = int(state.zeros)
        if state.lowest is not None and state.highest is not None:
            self._lowest, self._highest = state.lowest, state.highest

    def at(self, percent: float) -> float | None:
        """Return an estimate of the value below which `percent` of all values are."""
        negative = sorted(self._negative.items(), reverse=True)
        positive = sorted(self._positive.items())
        counts = [number for _, number in negative] + [self._zeros]
        totals = list(accumulate(counts + [number for _, number in positive]))
        if not totals[-1]:
            return None
        middles = [-_middle(key) for key, _ in negative] + [0.0]
        middles += [_middle(key) for key, _ in positive]
        found = middles[bisect_right(totals, percent / 100 * (totals[-1] - 1))]
        return float(min(max(found, self._lowest), self._highest))

    def _extend_range(self, lowest: float, highest: float) -> None:
        self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)


def _bin(value: float) -> int:
    # `log2` rounds otherwise, and a number of an older checkpoint could have another bin.
    return ceil(log(value, 2) * _BINS_PER_DOUBLING)  # noqa: FURB163 - see above


def _middle(key: int) -> float:
    """Return the number that represents a bin, with equal relative errors to both ends."""
    power = key / _BINS_PER_DOUBLING
    if power >= float_info.max_exp:  # the upper end of the last bin is beyond the floats
        return exp2(power - 1) * (2 * _MIDDLE)
    return exp2(power) * _MIDDLE


class Distinct:
    """An estimate of the number of different values. 1 and 1.0 are the same value, "1" another."""

    __slots__ = ("_sketch",)
    State: ClassVar[Any] = bytes

    def __init__(self) -> None:
        self._sketch = HyperLogLog()

    def add(self, values: Sequence[Json]) -> None:
        """Add scalars."""
        # Python's own hashes are not uniform enough: with them, counts were wrong by up to 80 %.
        texts = set(map(_text, values))
        digests = [blake2b(text, digest_size=HASH_BYTES).digest() for text in texts]
        self._sketch.add(map(int.from_bytes, digests))

    def merge(self, other: Distinct) -> None:
        self._sketch.merge(other._sketch)

    def state(self) -> bytes:
        return self._sketch.state()

    def restore(self, state: bytes) -> None:
        self._sketch.restore(state)

    def result(self) -> int:
        """Return the estimate."""
        return self._sketch.estimate()


def _text(value: Json) -> bytes:
    if type(value) is str:
        return b'"' + value.encode()
    if type(value) is float and value.is_integer():
        value = int(value)
    return encode(value)


_NO_SUM = Fraction(0)  # shared: there may be a million sums, and it takes longest to make
_SAFE_BITS = 1000  # a number of this size, above or below 1, is a double with all its digits
_PENDING = 32  # values that are summed in one call: smaller calls cost more
# 2^27 + 1 splits a double into two halves whose products are exact (Dekker, 1971).
_SPLITTER = 134_217_729.0
# Between these, the square of a double and its rounding error are doubles.
_SQUARABLE = (1e-140, 1e150)


class SumState(Struct, frozen=True, array_like=True):
    """The state of a `Sum`."""

    whole: int
    parts: list[float]
    beyond: tuple[int, int]  # numerator and denominator
    is_float: bool


class SquaresState(Struct, frozen=True, array_like=True):
    """The state of `Squares`."""

    count: int
    values: SumState
    squares: SumState
    beyond: tuple[int, int]  # numerator and denominator


class Sum:
    """The sum of numbers: an integer if all are integers, else the nearest float.

    The sum of the floats is kept exactly, as a few floats with the same exact sum.
    """

    __slots__ = ("_beyond", "_is_float", "_parts", "_pending", "_whole")
    State: ClassVar[Any] = SumState

    def __init__(self) -> None:
        self._whole = 0
        self._parts: list[float] = []
        self._pending: list[float] = []
        self._beyond = _NO_SUM  # the sum of numbers whose float sum would overflow
        self._is_float = False

    def add(self, values: Sequence[float]) -> None:
        """Add numbers."""
        self._pending += values
        if len(self._pending) >= _PENDING:
            self._settle()

    def merge(self, other: Sum) -> None:
        other._settle()
        self._settle()
        self._whole += other._whole
        if other._beyond:  # hardly ever, and fractions are slow
            self._beyond += other._beyond
        self._is_float = self._is_float or other._is_float
        if other._parts:
            self._add_floats(list(other._parts))

    def state(self) -> SumState:
        self._settle()
        return SumState(
            self._whole, list(self._parts), self._beyond.as_integer_ratio(), self._is_float
        )

    def restore(self, state: SumState) -> None:
        self._whole, self._parts = state.whole, list(state.parts)
        self._beyond, self._is_float = Fraction(*state.beyond), state.is_float

    def exact(self) -> Fraction:
        """Return the exact sum."""
        self._settle()
        return sum(map(Fraction, self._parts), self._beyond + self._whole)

    def result(self) -> float:
        """Return the sum, as an integer also if it exceeds the range of floats."""
        self._settle()
        if not self._is_float:
            return self._whole
        if not self._whole and not self._beyond:
            return fsum(self._parts)
        return nearest(self.exact())

    def _settle(self) -> None:
        if not self._pending:
            return
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
        """Add floats: keep one near the sum, one nearest to the rest, and so on."""
        rest, parts = values + self._parts, list[float]()
        try:
            part = sum(rest)  # near the sum, at a third of the cost of `fsum`
            part = fsum(rest) if not part or isinf(part) else part
            while part:
                parts.append(part)
                rest.append(-part)
                part = fsum(rest)
            self._parts = parts
        except OverflowError:
            self._beyond += sum(map(Fraction, values))


def sum_of(values: Sequence[float]) -> float:
    """Return the sum of numbers, as `Sum` does."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return sum(values)
    if kinds == {float}:
        with suppress(OverflowError):
            return fsum(values) + 0.0  # no negative zero
    total = Sum()
    total.add(values)
    return total.result()


def extreme_of(pick: Callable[[Sequence[float]], float], values: Sequence[float]) -> float | None:
    """Return the smallest or largest of some numbers, as `Extreme` does."""
    extreme = Extreme(pick)
    extreme.add(values)
    return extreme.result()


class Squares:
    """The standard deviation of a sample, from the exact sums of values and squares."""

    __slots__ = ("_beyond", "_count", "_squares", "_values")
    State: ClassVar[Any] = SquaresState

    def __init__(self) -> None:
        self._count = 0
        self._values, self._squares = Sum(), Sum()
        self._beyond = _NO_SUM  # the squares of integers and of very large or small floats

    def add(self, values: Sequence[float]) -> None:
        """Add numbers."""
        self._count += len(values)
        self._values.add(values)
        if not all(map(_is_plain_number, values)):
            self._beyond += sum(Fraction(x) ** 2 for x in values if not _is_plain_number(x))
            values = [x for x in values if _is_plain_number(x)]
        self._squares.add(_squares(values))

    def merge(self, other: Squares) -> None:
        self._count += other._count
        self._values.merge(other._values)
        self._squares.merge(other._squares)
        self._beyond += other._beyond

    def state(self) -> SquaresState:
        return SquaresState(
            self._count,
            self._values.state(),
            self._squares.state(),
            self._beyond.as_integer_ratio(),
        )

    def restore(self, state: SquaresState) -> None:
        self._count, self._beyond = state.count, Fraction(*state.beyond)
        self._values.restore(state.values)
        self._squares.restore(state.squares)

    def result(self) -> float | None:
        """Return the standard deviation, None for a single value."""
        count, total = self._count, self._values.exact()
        if count < 2:
            return None
        squares = self._squares.exact() + self._beyond
        variance = (count * squares - total * total) / (count * (count - 1))
        return _square_root(variance)


def _square_root(number: Fraction) -> float:
    """Return the nearest float to a root, also if the number itself is beyond the floats."""
    size = number.numerator.bit_length() - number.denominator.bit_length()
    if abs(size) < _SAFE_BITS:
        return sqrt(number)
    shift = size // 2 - 64  # a root of 64 bits, more than a double has
    scaled = number / 4**shift if shift > 0 else number * 4**-shift
    return nearest(isqrt(int(scaled)) * Fraction(2) ** shift)


def nearest(exact: Fraction) -> float:
    """Return the nearest float, or the nearest integer outside the range of floats."""
    try:
        return float(exact)
    except OverflowError:
        return round(exact)


def _squares(values: Sequence[float]) -> list[float]:
    """Return floats whose exact sum is the sum of the squares of plain numbers."""
    found = []
    for x in values:
        scaled = _SPLITTER * x
        high = scaled - (scaled - x)
        low = x - high
        square = x * x
        found.append(square)
        found.append(((high * high - square) + 2.0 * high * low) + low * low)
    return found


def _is_plain_number(x: float) -> bool:
    least, most = _SQUARABLE
    return type(x) is float and (least < abs(x) < most or not x)
