"""Percentiles and distinct counts in little memory, with known errors, by their libraries."""

from __future__ import annotations

from math import copysign, inf
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

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


class PercentilesState(Struct, frozen=True, array_like=True):
    """A DDSketch written down: how many numbers each bin has; the extremes if there are any."""

    positive: list[tuple[int, float]]
    negative: list[tuple[int, float]]
    zeros: float
    lowest: float | None
    highest: float | None


class Percentiles:
    """How numbers are spread: a DDSketch, which is the same for any order and split.

    Numbers are taken for the nearest floats.
    """

    __slots__ = ("_highest", "_lowest", "_sketch")
    State: ClassVar[Any] = PercentilesState

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

    def state(self) -> PercentilesState:
        """Return what `restore` takes; see `Statistic`."""
        sketch = self._sketch
        return PercentilesState(
            _bins(sketch._store),
            _bins(sketch._negative_store),
            sketch._zero_count,
            *((self._lowest, self._highest) if sketch._count else (None, None)),
        )

    def restore(self, state: PercentilesState) -> None:
        """Become what `state` was called on, which this is made for: it has seen nothing."""
        sketch = self._sketch
        for store, bins in (
            (sketch._store, state.positive),
            (sketch._negative_store, state.negative),
        ):
            for key, number in bins:
                store.add(key, number)
                sketch._count += number
        sketch._zero_count = state.zeros
        sketch._count += state.zeros
        if state.lowest is not None and state.highest is not None:
            self._lowest, self._highest = state.lowest, state.highest

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
    State: ClassVar[Any] = bytes

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

    def state(self) -> bytes:
        """Return what `restore` takes; see `Statistic`."""
        data: bytes = self._sketch.serialize()
        return data

    def restore(self, state: bytes) -> None:
        """Become what `state` was called on. Raises ValueError if that is no such sketch."""
        try:
            self._sketch = _sketch_library().cpc_sketch.deserialize(state)
        except RuntimeError as error:
            raise ValueError(f"no CPC sketch: {error}") from None

    def result(self) -> int:
        """Return the estimate."""
        estimate: float = _union(self._sketch).get_estimate()
        return round(estimate)


def _bins(store: Any) -> list[tuple[int, float]]:  # noqa: ANN401 - the library ships no types
    """Return the bins of a store that have anything, by key."""
    return [(store.offset + place, number) for place, number in enumerate(store.bins) if number]


def _union(*sketches: Any) -> Any:  # noqa: ANN401 - the library ships no types
    union = _sketch_library().cpc_union(_LOG_ROWS)
    for sketch in sketches:
        union.update(sketch)
    return union.get_result()


def _distinct_of(data: bytes) -> Distinct:
    found = Distinct()
    found.restore(data)
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
