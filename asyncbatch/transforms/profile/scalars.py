"""Statistics of the scalars of one type at one path: extremes, frequent and different values."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections import Counter
from heapq import nsmallest
from itertools import repeat
from operator import and_, xor
from typing import TYPE_CHECKING, Any
from zlib import crc32

from msgspec import Struct, field

from asyncbatch.transforms.profile.text_formats import (
    INSTANT_FORMATS,
    TESTS,
    format_shares,
    formats_of_all,
    have_order,
    instant,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from asyncbatch.core.settings import Detail

MAX_COUNTED = 256  # different values, up to which each value is counted exactly
MAX_HASHES = 1024  # the standard error of a distinct count beyond: 1/sqrt(1022), 3.1 %
MAX_SAMPLES = 32
_FEW_HASHES = 64  # are inserted one by one in less time than all are sorted again
MAX_CHARACTERS = 256  # of a text that is kept; counted texts have as many on average
_FREQUENT = 0.01  # the least share of a value that is frequent, if not all values are counted
_SPAN = 2.0**64  # hashes are uniform over this number of integers
_LEAST = -(2**63)
_LOWER_BITS = 2**24 - 1  # in which a hash differs from its quick hash
_LOW_BITS = 2**60 - 1  # below the prime number modulo which CPython hashes integers
_TOLERANCE = 0.125  # of a distinct count of unique values: four standard errors


class Scalars(Struct, gc=False):
    """The statistics of strings, of integers or of floats at one path.

    Up to `MAX_COUNTED` different values, unless these are long texts, `counts` has all of them, and
    the other fields are unused. With more, `counts` has the frequent values (a Misra-Gries sketch),
    long ones as digests, and values are known by hashes: those with the smallest hashes (a bottom-k
    sketch) are a random sample of the different values, the same for any order and any division
    into parts.
    """

    count: int = 0
    counts: Counter[Any] = field(default_factory=Counter)
    is_complete: bool = True  # whether `counts` has all values
    missed: int = 0  # by which a count in `counts`, or that of another value, may be too low
    repeats: bool = False  # whether a value is known to occur twice
    lowest: Any = None
    highest: Any = None
    earliest: str | None = None  # of texts that are all times
    latest: str | None = None
    shortest: int = 0  # the length of a text
    longest: int = 0
    formats: frozenset[str] = frozenset(TESTS)  # those that all texts have
    hashes: array[int] = field(default_factory=lambda: array("q"))  # the smallest, sorted
    samples: dict[int, Any] = field(default_factory=dict)  # values by their hashes

    def add(self, values: Sequence[Any], detail: Detail = "full") -> None:
        """Add values of one type."""
        self.count += len(values)
        is_text = type(values[0]) is str
        if detail != "full":
            self.is_complete = False
            if detail == "formats" and is_text and self.formats:
                self.formats = formats_of_all(values, self.formats)
            return
        if self.is_complete:
            known = len(self.counts)
            self.counts.update(values)
            if len(self.counts) > known:
                self._bound()
        elif not self.repeats and len(set(values)) == len(values):
            self._fold(values, {})
        else:
            counts = Counter(values)
            self._fold(list(counts), counts)

    def add_counts(self, counts: Mapping[Any, int], detail: Detail = "full") -> None:
        """Add counted values of one type."""
        if not counts:
            return
        if detail != "full":
            self.add(list(counts), detail)
            self.count += sum(counts.values()) - len(counts)
            return
        self.count += sum(counts.values())
        if self.is_complete:
            self.counts.update(counts)
            self._bound()
        else:
            self._fold(list(counts), counts)

    def merge(self, others: Sequence[Scalars]) -> None:
        """Add the statistics of other values of the type."""
        counts: Counter[Any] = Counter()
        for other in others:
            self.count += other.count
            if other.is_complete:
                counts.update(other.counts)
            else:
                self._merge_sketches(other)
        if self.is_complete:
            self.counts.update(counts)
            self._bound()
        elif counts:
            self._fold(list(counts), counts)

    def _merge_sketches(self, other: Scalars) -> None:
        self._seal()
        self.repeats = (
            self.repeats or other.repeats or not set(self.hashes).isdisjoint(other.hashes)
        )
        if other.lowest is not None:
            self._extend(other.lowest, other.highest, other.shortest, other.longest)
        self.formats &= other.formats
        if other.earliest is not None and other.latest is not None:
            self._extend_times((other.earliest, other.latest))
        self._keep_hashes(other.hashes, other.samples)
        self.missed += other.missed
        self._count_frequent(other.counts)

    @property
    def distinct(self) -> int:
        """The number of different values, an estimate if they are many."""
        if self.is_complete:
            return len(self.counts)
        known = len(self.hashes)
        if known < MAX_HASHES:
            return known
        return min(self.count, round((known - 1) / ((self.hashes[-1] - _LEAST) / _SPAN)))

    @property
    def is_unique(self) -> bool:
        """Whether no value is known to occur twice, and the estimate allows that none does."""
        if self.is_complete:
            return len(self.counts) == self.count
        return not self.repeats and self.distinct >= self.count * (1 - _TOLERANCE)

    def all_values(self) -> list[Any]:
        """Return all values, if they are known."""
        return sorted(self.counts) if self.is_complete else []

    def kept(self) -> list[Any]:
        """Return the values that are known: all of them, or a random sample, sorted.

        Of long texts, the beginnings.
        """
        return sorted(map(_shortened, self.counts if self.is_complete else self.samples.values()))

    def frequent(self, limit: int) -> list[tuple[Any, int]]:
        """Return the most frequent values and their counts; of long texts, the beginnings.

        Unless it is complete, these are the values that are at least 1 % of all, and some of hardly
        less. A count may be too low then, by at most 0.4 % of all.
        """
        least = 1 if self.is_complete else max(2, self.count * _FREQUENT - self.missed)
        found = [(value, count) for value, count in self.counts.items() if count >= least]
        ranked = nsmallest(limit, found, key=lambda one: (-one[1], one[0]))
        return [(_shortened(value), count) for value, count in ranked]

    def extremes(self) -> tuple[Any, Any]:
        """Return the smallest and the largest value; of long texts, the beginnings.

        If all are times with their zones, or all without, these are the earliest and the latest.
        """
        if self.is_complete:
            is_text = type(next(iter(self.counts))) is str
            is_time = is_text and bool(formats_of_all(self.counts, INSTANT_FORMATS))
            key = instant if is_time else None
            return _shortened(min(self.counts, key=key)), _shortened(max(self.counts, key=key))
        if self.earliest is not None and self.formats & INSTANT_FORMATS:
            return self.earliest, self.latest
        return self.lowest, self.highest

    def lengths(self) -> tuple[int, int]:
        """Return the lengths of the shortest and the longest text."""
        if self.is_complete:
            return min(map(len, self.counts)), max(map(len, self.counts))
        return self.shortest, self.longest

    def formats_of_all(self) -> frozenset[str]:
        """Return the formats that all texts have."""
        return formats_of_all(self.counts, TESTS) if self.is_complete else self.formats

    def format_shares(self) -> dict[str, float]:
        """Return the shares of the formats among the different texts, or a sample of these."""
        return format_shares(self.counts if self.is_complete else self.kept())

    def _bound(self) -> None:
        """Go to sketches if there are too many values, or too many characters in them."""
        is_text = type(next(iter(self.counts), None)) is str
        if len(self.counts) > MAX_COUNTED or (
            is_text and sum(map(len, self.counts)) > MAX_COUNTED * MAX_CHARACTERS
        ):
            self._seal()

    def _seal(self) -> None:
        """Go from the counts of all values to sketches."""
        if self.is_complete:
            counts, self.counts, self.is_complete = self.counts, Counter(), False
            if counts:
                self._fold(list(counts), counts)

    def _fold(self, values: Sequence[Any], counts: Mapping[Any, int]) -> None:
        """Add different values to the sketches. Without `counts`, each is one value."""
        low, high = min(values), max(values)
        shortest = longest = 0
        if type(low) is str:
            lengths = set(map(len, values))
            shortest, longest = min(lengths), max(lengths)
            low, high = low[:MAX_CHARACTERS], high[:MAX_CHARACTERS]
            if self.formats:
                self.formats = formats_of_all(values, self.formats)
            if self.formats & INSTANT_FORMATS:
                self._extend_times(values)
        self._extend(low, high, shortest, longest)
        near = _near(values, self.hashes[-1] if len(self.hashes) == MAX_HASHES else None)
        most = max(counts.values(), default=1)
        if not self.repeats:
            self.repeats = most > 1 or any(map(self._has_hash, near))
        samples = {one: _shortened(near[one]) for one in nsmallest(MAX_SAMPLES, near)}
        self._keep_hashes(near, samples)
        if len(values) > MAX_COUNTED:  # see `_count_frequent`
            least = _surplus(counts.values()) if most > 1 else 1
            self.missed += least
            counts = (
                {one: count - least for one, count in counts.items() if count > least}
                if most > least
                else {}
            )
        elif not counts:
            counts = dict.fromkeys(values, 1)
        if counts and longest > MAX_CHARACTERS:
            texts = list(counts)
            digests = map(_digest, texts, _hashes(texts, _quick_hashes(texts)))
            counts = dict(zip(digests, counts.values(), strict=True))
        if counts:
            self._count_frequent(counts)

    def _extend_times(self, times: Collection[str]) -> None:
        known = [one for one in (self.earliest, self.latest) if one is not None]
        ends = {min(times), max(times)} if have_order(times) else times
        ranked = sorted((*known, *ends), key=instant)
        self.earliest, self.latest = ranked[0], ranked[-1]

    def _extend(self, low: Any, high: Any, shortest: int, longest: int) -> None:
        if self.lowest is None:
            self.lowest, self.highest, self.shortest, self.longest = low, high, shortest, longest
            return
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self.shortest, self.longest = min(self.shortest, shortest), max(self.longest, longest)

    def _has_hash(self, one: int) -> bool:
        place = bisect_left(self.hashes, one)
        return place < len(self.hashes) and self.hashes[place] == one

    def _keep_hashes(self, hashes: Collection[int], samples: Mapping[int, Any]) -> None:
        """Keep the smallest hashes, and the values of the smallest of these."""
        if not hashes:
            return
        if len(hashes) <= _FEW_HASHES:
            is_changed = self._insert_hashes(hashes)
        else:
            known = set(self.hashes)
            size = len(known)
            known.update(hashes)
            is_changed = len(known) > size
            if is_changed:
                self.hashes = array("q", sorted(known)[:MAX_HASHES])
        if is_changed:
            merged = self.samples | dict(samples)
            self.samples = {one: merged[one] for one in nsmallest(MAX_SAMPLES, merged)}

    def _insert_hashes(self, hashes: Iterable[int]) -> bool:
        """Insert hashes one by one; return whether any is new and small enough."""
        mine, is_changed = self.hashes, False
        for one in hashes:
            place = bisect_left(mine, one)
            if place < MAX_HASHES and (place == len(mine) or mine[place] != one):
                mine.insert(place, one)
                is_changed = True
        del mine[MAX_HASHES:]
        return is_changed

    def _count_frequent(self, counts: Mapping[Any, int]) -> None:
        """Add counts of values. If they are many, lower all until few are left.

        A count is lowered together with `MAX_COUNTED` others: by at most that share of all values.
        """
        merged = dict(counts)
        for value, count in self.counts.items():
            merged[value] = merged.get(value, 0) + count
        if len(merged) > MAX_COUNTED:
            least = _surplus(merged.values())
            merged = {value: count - least for value, count in merged.items() if count > least}
            self.missed += least
        self.counts = Counter(merged)


def _surplus(counts: Iterable[int]) -> int:
    """Return the least number by which counts are lowered so that `MAX_COUNTED` are left."""
    above = 0
    for count, times in sorted(Counter(counts).items(), reverse=True):
        above += times
        if above > MAX_COUNTED:
            return count
    return 0


def _near(values: Sequence[Any], end: int | None) -> dict[int, Any]:
    """Return the values whose hashes are up to `end`, by their hashes, and a few others.

    `end` None: those whose hashes may be among the `MAX_HASHES` smallest.
    """
    quick = _quick_hashes(values)
    is_guess = end is None and len(values) > 2 * MAX_HASHES
    if is_guess:  # to sort all hashes would take as long as all the rest
        end = _LEAST + int(_SPAN * 1.25 * MAX_HASHES / len(values))
    if end is not None:
        end |= _LOWER_BITS
        pairs = [pair for pair in zip(quick, values, strict=True) if pair[0] <= end]
        if not is_guess or len(pairs) >= MAX_HASHES:
            quick, values = [one for one, _ in pairs], [value for _, value in pairs]
    return dict(zip(_hashes(values, quick), values, strict=True)) if values else {}


def _quick_hashes(values: Sequence[Any]) -> list[int]:
    """Return a hash of each value of one type, the same in all processes, unlike that of a text.

    CPython's hash of a tuple mixes well, and a tuple of numbers needs no random seed. Some
    different values have the same: -1 and -2, numbers that differ by a multiple of 2^61 - 1.
    """
    if type(values[0]) is str:
        return list(map(hash, zip(map(int.from_bytes, map(str.encode, values)))))
    return list(map(hash, zip(values)))


def _hashes(values: Sequence[Any], quick: Sequence[int]) -> list[int]:
    """Return a hash of each value: its quick hash, with lower bits of another one."""
    others: Iterable[int]
    if type(values[0]) is str:
        others = map(crc32, map(str.encode, values))
    elif type(values[0]) is float:  # -0.0 is 0.0
        others = struct.unpack(f"{len(values)}q", array("d", [one + 0.0 for one in values]))
    else:
        others = map(and_, values, repeat(_LOW_BITS))
    # Of a tuple of two, since the lower bits depend on all bits of the first one only.
    seconds = map(hash, zip(others, quick, strict=True))
    return list(map(xor, quick, map(and_, seconds, repeat(_LOWER_BITS))))


def _digest(text: str, hashed: int) -> str:
    """Return a text that stands for a long one: its beginning, and its hash."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}{hashed:x}"


def _shortened(value: Any) -> Any:
    return value[:MAX_CHARACTERS] if type(value) is str else value
