"""A HyperLogLog sketch: the number of different hashes, in bounded memory.

Flajolet, Fusy, Gandouet, Meunier: HyperLogLog (2007). The estimator is that of Ertl: New
cardinality estimation algorithms for HyperLogLog sketches (2017). It needs no corrections.
"""

from __future__ import annotations

import zlib
from itertools import repeat
from math import log, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_INDEX_BITS = 14
REGISTERS = 1 << _INDEX_BITS  # the standard error of an estimate is 1.04 / sqrt(REGISTERS), 0.8 %
_RANK_BITS = 64 - _INDEX_BITS
MAX_HASHES = 256  # they are kept as they are; more take more memory than the registers
HASH_BYTES = 8
_ALPHA = 1 / (2 * log(2))


class HyperLogLog:
    """The number of different hashes of 64 bits: exact up to `MAX_HASHES`, then an estimate.

    It is the same for any order of the hashes and any division into parts.
    """

    __slots__ = ("_hashes", "_registers")

    def __init__(self) -> None:
        self._hashes: set[int] = set()  # all of them, while there are no registers
        self._registers: bytearray | None = None

    def add(self, hashes: Iterable[int]) -> None:
        """Add hashes."""
        if self._registers is None:
            self._hashes.update(hashes)
            if len(self._hashes) <= MAX_HASHES:
                return
            self._registers = bytearray(REGISTERS)
            hashes, self._hashes = self._hashes, set()
        registers = self._registers
        for one in hashes:
            index = one & (REGISTERS - 1)
            # the place of the first 1 among the other bits
            rank = _RANK_BITS + 1 - (one >> _INDEX_BITS).bit_length()
            if rank > registers[index]:  # noqa: PLR1730 - `max` takes twice as long
                registers[index] = rank

    def merge(self, other: HyperLogLog) -> None:
        """Add the hashes of another sketch."""
        if other._registers is None:
            self.add(other._hashes)
            return
        if self._registers is None:
            hashes, self._hashes = self._hashes, set()
            self._registers = bytearray(other._registers)
            self.add(hashes)
            return
        self._registers = bytearray(map(max, self._registers, other._registers))

    def estimate(self) -> int:
        """Return the number of different hashes."""
        registers = self._registers
        if registers is None:
            return len(self._hashes)
        counts = list(map(registers.count, range(_RANK_BITS + 2)))
        total = REGISTERS * _tau(1 - counts[-1] / REGISTERS)
        for count in reversed(counts[1:-1]):
            total = (total + count) / 2
        total += REGISTERS * _sigma(counts[0] / REGISTERS)
        return round(_ALPHA * REGISTERS**2 / total)

    def state(self) -> bytes:
        """Return a compressed form of the sketch."""
        if self._registers is not None:
            return zlib.compress(self._registers, 1)
        numbers = map(int.to_bytes, sorted(self._hashes), repeat(HASH_BYTES))
        return zlib.compress(b"".join(numbers), 1)

    def restore(self, state: bytes) -> None:
        """Become the sketch with this state. Raises ValueError if it is the state of none."""
        try:
            data = zlib.decompress(state)
        except zlib.error:
            data = b"?"
        if len(data) == REGISTERS and max(data) <= _RANK_BITS + 1:
            self._hashes, self._registers = set(), bytearray(data)
        elif len(data) % HASH_BYTES == 0 and len(data) <= MAX_HASHES * HASH_BYTES:
            starts = range(0, len(data), HASH_BYTES)
            self._hashes = {int.from_bytes(data[at : at + HASH_BYTES]) for at in starts}
            self._registers = None
        else:
            raise ValueError("it has other distinct counts")


def _sigma(share: float) -> float:
    """Return the term of the registers that are 0."""
    if share == 1:
        return float("inf")
    weight, total, before = 1.0, share, -1.0
    while total != before:
        share *= share
        before = total
        total += share * weight
        weight += weight
    return total


def _tau(share: float) -> float:
    """Return the term of the highest rank; `share` is that of the registers with other ranks."""
    if share in (0, 1):
        return 0.0
    weight, total, before = 1.0, 1 - share, -1.0
    while total != before:
        share = sqrt(share)
        before = total
        weight /= 2
        total -= (1 - share) ** 2 * weight
    return total / 3
