"""Statistics of the scalars of one type at one path: extremes, frequent and different values."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from heapq import nlargest, nsmallest
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from asyncbatch.transforms.profile.text_formats import TESTS, format_shares, formats_of_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from asyncbatch.core.settings import Detail

MAX_COUNTED = 256  # different values, up to which each value is counted exactly
MAX_HASHES = 1024  # the standard error of a distinct count beyond: 1/sqrt(1022), 3.1 %
MAX_SAMPLES = 32
_FEW_HASHES = 64  # are inserted one by one in less time than all are sorted again
MAX_CHARACTERS = 256  # of a text that is kept
_SAMPLING = 8  # every eighth value is counted, if not all values can be
_FREQUENT = 0.01  # the least share of a value that is frequent, if not all values are counted
_SPAN = 2.0**64  # hashes are uniform over this number of integers
_LEAST = -(2**63)
_TOLERANCE = 0.125  # of a distinct count of unique values: four standard errors


class Scalars(Struct, gc=False):
    """The statistics of strings, of integers or of floats at one path.

    Up to `MAX_COUNTED` different values, `counts` has all of them, and the other fields are unused.
    With more, `counts` has estimates for frequent values, and values are known by hashes: those
    with the smallest hashes (a bottom-k sketch) are a random sample of the different values, the
    same for any order and any division into parts.
    """

    count: int = 0
    counts: Counter[Any] = field(default_factory=Counter)
    is_complete: bool = True  # whether `counts` has all values
    repeats: bool = False  # whether a value is known to occur twice
    lowest: Any = None
    highest: Any = None
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
        if self.is_complete and is_text and max(map(len, values)) > MAX_CHARACTERS:
            self._seal()
        if self.is_complete:
            self.counts.update(values)
            if len(self.counts) > MAX_COUNTED:
                self._seal()
        else:
            self._fold(values, None)

    def add_counts(self, counts: Mapping[Any, int], detail: Detail = "full") -> None:
        """Add counted values of one type."""
        if not counts:
            return
        if detail != "full":
            self.add(list(counts), detail)
            self.count += sum(counts.values()) - len(counts)
            return
        self.count += sum(counts.values())
        if any(type(value) is str and len(value) > MAX_CHARACTERS for value in counts):
            self._seal()
        if self.is_complete:
            self.counts.update(counts)
            if len(self.counts) > MAX_COUNTED:
                self._seal()
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
            if len(self.counts) > MAX_COUNTED:
                self._seal()
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
        self._keep_hashes(other.hashes, other.samples)
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

    def kept(self) -> list[Any]:
        """Return the values that are known: all of them, or a random sample, sorted."""
        return sorted(self.counts if self.is_complete else self.samples.values())

    def frequent(self, limit: int) -> list[tuple[Any, int]]:
        """Return the most frequent values and their counts.

        Unless it is complete, these are estimates of values that are at least 1 % of all.
        """
        least = 1 if self.is_complete else max(2, self.count * _FREQUENT)
        found = [(value, count) for value, count in self.counts.items() if count >= least]
        return nsmallest(limit, found, key=lambda one: (-one[1], one[0]))

    def extremes(self) -> tuple[Any, Any]:
        """Return the smallest and the largest value; of long texts, the beginnings."""
        if self.is_complete:
            return min(self.counts), max(self.counts)
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
        return format_shares(self.kept())

    def _seal(self) -> None:
        """Go from the counts of all values to sketches."""
        if self.is_complete:
            counts, self.counts, self.is_complete = self.counts, Counter(), False
            if counts:
                self._fold(list(counts), counts)

    def _fold(self, values: Sequence[Any], counts: Mapping[Any, int] | None) -> None:
        """Add values to the sketches. They are different if they have `counts`."""
        low, high = min(values), max(values)
        shortest = longest = 0
        if is_text := type(low) is str:
            lengths = list(map(len, values))
            shortest, longest = min(lengths), max(lengths)
            low, high = low[:MAX_CHARACTERS], high[:MAX_CHARACTERS]
            if self.formats:
                self.formats = formats_of_all(values, self.formats)
        self._extend(low, high, shortest, longest)
        hashes = _hashes(values, is_text=is_text)
        if len(self.hashes) < MAX_HASHES:
            near = dict(zip(hashes, values, strict=True))
        else:
            most = self.hashes[-1]
            near = {one: value for one, value in zip(hashes, values, strict=True) if one <= most}
        if not self.repeats:
            has_repeats = any(one > 1 for one in counts.values()) if counts else False
            self.repeats = (
                has_repeats or len(set(hashes)) < len(hashes) or any(map(self._has_hash, near))
            )
        samples = {one: _shortened(near[one]) for one in nsmallest(MAX_SAMPLES, near)}
        self._keep_hashes(near, samples)
        if longest > MAX_CHARACTERS:
            values = [text for text in values if len(text) <= MAX_CHARACTERS]
        if counts is None:
            counts = _estimates(values)
        elif longest > MAX_CHARACTERS:
            counts = {text: counts[text] for text in values}
        self._count_frequent(counts)

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
        """Add counts of values; drop the rarest if they are many."""
        mine = self.counts
        mine.update(counts)
        if len(mine) > MAX_COUNTED:
            ranked = nlargest(MAX_COUNTED // 2, mine.items(), key=itemgetter(1))
            self.counts = Counter(dict(ranked))


def _estimates(values: Sequence[Any]) -> dict[Any, int]:
    """Return estimates of the counts of frequent values, from a few of these values."""
    step = _SAMPLING if len(values) > _SAMPLING * MAX_COUNTED else 1
    found = Counter(values[::step])
    return {value: count * step for value, count in found.items() if count > 1}


def _hashes(values: Iterable[Any], *, is_text: bool) -> list[int]:
    """Return a hash of each value, the same in all processes, unlike that of a text.

    CPython's hash of a tuple mixes well, and a tuple of an integer needs no random seed.
    """
    numbers = map(int.from_bytes, map(str.encode, values)) if is_text else values
    return list(map(hash, zip(numbers, strict=False)))


def _shortened(value: Any) -> Any:
    return value[:MAX_CHARACTERS] if type(value) is str else value
