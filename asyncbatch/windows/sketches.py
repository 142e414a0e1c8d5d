"""Percentiles and distinct counts in little memory, with known errors, by their libraries."""

from __future__ import annotations

from math import copysign, inf
from typing import TYPE_CHECKING, Any

from asyncbatch.codec.encode import encode
from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ACCURACY = 0.01
"""A percentile differs from the value of that rank by at most this share of it."""
_LARGEST = 1e307
"""Numbers beyond are taken for this one: near it the sketch's own arithmetic overflows."""
_LOG_ROWS = 13
"""2^13 rows: the standard error of a distinct count is 0.8%."""


class Percentiles:
    """How numbers are spread: a DDSketch, which is the same for any order and split.

    Numbers are taken for the nearest floats.
    """

    __slots__ = ("_highest", "_lowest", "_sketch")

    def __init__(self) -> None:
        from ddsketch import DDSketch  # noqa: PLC0415 - only if asked for

        self._sketch: Any = DDSketch(ACCURACY)
        self._lowest, self._highest = inf, -inf

    def add(self, values: Sequence[float]) -> None:
        """Add numbers."""
        add = self._sketch.add
        for value in values:
            add(value if abs(value) < _LARGEST else copysign(_LARGEST, value > 0 or -1))
        self._see(min(values), max(values))

    def merge(self, other: Percentiles) -> None:
        """Add what another has."""
        self._sketch.merge(other._sketch)
        self._see(other._lowest, other._highest)

    def at(self, percent: float) -> float | None:
        """Return about the value below which `percent` of all are."""
        found: float | None = self._sketch.get_quantile_value(percent / 100)
        return None if found is None else float(min(max(found, self._lowest), self._highest))

    def _see(self, lowest: float, highest: float) -> None:
        self._lowest = min(self._lowest, max(lowest, -_LARGEST))
        self._highest = max(self._highest, min(highest, _LARGEST))


class Distinct:
    """How many different values there are, about: a CPC sketch. 1 is 1.0, but not "1".

    It is asked by way of a union, whose estimate depends on what there is and not on how it
    came together.
    """

    __slots__ = ("_sketch",)

    def __init__(self) -> None:
        self._sketch: Any = _sketch_library().cpc_sketch(_LOG_ROWS)

    def __reduce__(self) -> tuple[Callable[[bytes], Distinct], tuple[bytes]]:
        """Pickle the sketch as its library has it in bytes."""
        return _distinct_of, (self._sketch.serialize(),)

    def add(self, values: Sequence[Any]) -> None:
        """Add scalars."""
        update = self._sketch.update
        for value in values:
            update(_text(value))

    def merge(self, other: Distinct) -> None:
        """Add what another has."""
        self._sketch = _union(self._sketch, other._sketch)

    def result(self) -> int:
        """Return the estimate."""
        estimate: float = _union(self._sketch).get_estimate()
        return round(estimate)


def _union(*sketches: Any) -> Any:  # noqa: ANN401 - the library ships no types
    union = _sketch_library().cpc_union(_LOG_ROWS)
    for sketch in sketches:
        union.update(sketch)
    return union.get_result()


def _distinct_of(data: bytes) -> Distinct:
    found = Distinct()
    found._sketch = _sketch_library().cpc_sketch.deserialize(data)
    return found


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    if type(value) is str:
        return '"' + value
    if type(value) is float and value.is_integer():
        value = int(value)
    return encode(value).decode()


def _sketch_library() -> Any:  # noqa: ANN401 - a module
    try:
        import datasketches  # noqa: PLC0415 - only if asked for
    except ImportError:
        raise UsageError(
            "distinct needs the library datasketches: pip install 'asyncbatch[distinct]'"
        ) from None
    return datasketches
