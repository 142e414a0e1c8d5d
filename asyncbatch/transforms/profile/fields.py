"""The tree of fields: the statistics of the values at each path."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from asyncbatch.transforms.profile.scalars import Scalars
from asyncbatch.transforms.profile.text_formats import KEY_FORMATS, formats_of_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.core.settings import Detail

MAX_NAMES = 1000  # of the fields of an object; with more, it is a map
MAX_DEPTH = 64  # levels that are followed
_MIN_KEYS = 3  # of a map whose keys have a format
_MANY_KEYS = 32  # of a map whose keys have none
_SPARSE = 0.2  # the share of keys that an object of a map has, at most
_KEYS_PER_MAP = 8  # different keys for each object, of a map that occurs only a few times

# Scalars of a path that are counted together: to count one costs as much as to count twenty, and
# values that repeat are then hashed, compared and tested for formats once.
_MANY_SCALARS = 4096
_BITS: dict[type, int] = {str: 1, int: 2, float: 4}  # of `Field.kept_types`


class Field(Struct, gc=False):
    """The statistics of the values at one path, and of the values in them.

    The sub-fields of an object are in `names`; if the object is a map, all its values are in
    `map_values`, and its keys in `map_keys`.
    """

    nulls: int = 0
    trues: int = 0
    falses: int = 0
    integers: Scalars | None = None
    numbers: Scalars | None = None  # with a fraction or an exponent
    strings: Scalars | None = None
    arrays: int = 0
    fewest: int = 0  # the items of the shortest array
    most: int = 0
    items: Field | None = None
    objects: int = 0
    names: dict[str, Field] = field(default_factory=dict)
    map_keys: Scalars | None = None
    map_values: Field | None = None
    is_cut: bool = False  # whether the values in its arrays and objects are not followed
    column: Sequence[Any] | None = None  # values that `collect` has not looked at yet
    kept: list[Any] | None = None  # scalars that `settle` has not counted yet
    kept_types: int = 0  # a bit for each of their types

    def add(self, values: Sequence[Json], detail: Detail = "full") -> None:
        """Add values at this path, with statistics in `detail`."""
        self.column = values
        self.collect(detail)
        self.settle(detail)

    def collect(
        self, detail: Detail, limit: int | None = None, *, resumes: bool = False
    ) -> int | None:
        """Add the values of `column`, but keep scalars: `settle` counts many of a path together.

        Return the number of new fields. If they are more than `limit`, stop and return None: after
        `shrink`, a call that `resumes` adds the columns that are left.
        """
        # Level by level, so that the tree is sound wherever it stops.
        made, depth, level = 0, 0, [self]
        while level:
            below: list[Field] = []
            for one in level:
                if one.column is not None:
                    made += one._expand(detail, depth, below)
                    if limit is not None and made > limit:
                        return None
            if resumes:
                below = _level_below(level)
            level, depth = below, depth + 1
        return made

    def settle(self, detail: Detail = "full") -> None:
        """Count the scalars that are kept, here and below."""
        for one in self.all():
            if one.kept is not None:
                one._count_kept(detail)

    def _expand(self, detail: Detail, depth: int, below: list[Field]) -> int:
        """Add the values of `column`, `depth` levels deep, and the fields in them to `below`.

        Return the number of new fields.
        """
        values, self.column = self.column or (), None
        kinds = set(map(type, values))
        if len(kinds) == 1:
            [kind] = kinds
            if kind is dict:
                return self._add_objects(values, detail, depth, below)
            if kind is list:
                return self._add_arrays(values, depth, below)
            self._keep(kind, values, detail)
            return 0
        if NoneType in kinds and len(kinds) == 2:  # often, and quicker
            known, values = len(values), [value for value in values if value is not None]
            self.nulls += known - len(values)
            self.column = values
            return self._expand(detail, depth, below)
        made = 0
        for kind in kinds:
            same: list[Any] = [value for value in values if type(value) is kind]
            if kind is dict:
                made += self._add_objects(same, detail, depth, below)
            elif kind is list:
                made += self._add_arrays(same, depth, below)
            else:
                self._keep(kind, same, detail)
        return made

    def _keep(self, kind: type, values: Sequence[Any], detail: Detail) -> None:
        """Count nulls and booleans, keep other scalars."""
        if kind is NoneType:
            self.nulls += len(values)
        elif kind is bool:
            self.trues += (trues := sum(values))
            self.falses += len(values) - trues
        elif detail == "types":
            self._scalars(kind).add(values, detail)
        else:
            if self.kept is None:
                self.kept = []
            self.kept += values
            self.kept_types |= _BITS[kind]
            if len(self.kept) >= _MANY_SCALARS:
                self._count_kept(detail)

    def _count_kept(self, detail: Detail) -> None:
        values, bits = self.kept or (), self.kept_types
        self.kept, self.kept_types = None, 0
        for kind, bit in _BITS.items():
            if bits == bit:
                self._scalars(kind).add(values, detail)
            elif bits & bit:
                self._scalars(kind).add([one for one in values if type(one) is kind], detail)

    def _scalars(self, kind: type) -> Scalars:
        """Return the statistics of the scalars of a type."""
        if kind is str:
            if self.strings is None:
                self.strings = Scalars()
            return self.strings
        if kind is int:
            if self.integers is None:
                self.integers = Scalars()
            return self.integers
        if self.numbers is None:
            self.numbers = Scalars()
        return self.numbers

    def _add_arrays(self, arrays: Sequence[list[Json]], depth: int, below: list[Field]) -> int:
        lengths = set(map(len, arrays))
        self._extend_lengths(min(lengths), max(lengths))
        self.arrays += len(arrays)
        if self._is_end(depth):
            return 0
        items = list(chain.from_iterable(arrays)) if len(arrays) > 1 else arrays[0]
        if not items:
            return 0
        made = self.items is None
        if self.items is None:
            self.items = Field()
        self.items._take(items, below)
        return int(made)

    def _extend_lengths(self, fewest: int, most: int) -> None:
        self.fewest = min(self.fewest, fewest) if self.arrays else fewest
        self.most = max(self.most, most)

    def _add_objects(
        self, objects: Sequence[dict[str, Json]], detail: Detail, depth: int, below: list[Field]
    ) -> int:
        self.objects += len(objects)
        if self._is_end(depth):
            return 0
        names = self.names
        if self.map_values is None:
            columns = _columns(objects)
            if len(names) + len(columns) <= MAX_NAMES or len(names | columns) <= MAX_NAMES:
                made = -len(names)
                for name, column in columns.items():
                    one = names.get(name)
                    if one is None:
                        one = names[name] = Field()
                    one._take(column, below)
                return made + len(names)
            self.make_map(detail)
        keys = list(chain.from_iterable(objects))
        if keys and self.map_keys is not None and self.map_values is not None:
            self.map_keys.add(keys, detail)
            found = list(chain.from_iterable(map(dict.values, objects)))
            self.map_values._take(found, below)
        return 0

    def _take(self, values: Sequence[Any], below: list[Field]) -> None:
        """Add values to the column. It has some already if fields were merged after a stop."""
        self.column = values if self.column is None else [*self.column, *values]
        below.append(self)

    def _is_end(self, depth: int) -> bool:
        """Whether values at this depth are not followed."""
        if depth >= MAX_DEPTH:
            self.is_cut = True
        return self.is_cut

    def merge(self, others: Sequence[Field]) -> None:
        """Add the statistics of other values at this path. It takes parts of `others`.

        Many at once: the fields of a map of 1,000 names become one in a fiftieth of the time.
        """
        for other in others:
            self.nulls += other.nulls
            self.trues += other.trues
            self.falses += other.falses
            if other.arrays:
                self._extend_lengths(other.fewest, other.most)
                self.arrays += other.arrays
            self.objects += other.objects
        self._merge_values(others)
        self.integers = _merged(self.integers, [one.integers for one in others])
        self.numbers = _merged(self.numbers, [one.numbers for one in others])
        self.strings = _merged(self.strings, [one.strings for one in others])
        if self.is_cut or any(one.is_cut for one in others):
            self.cut()
            return
        self.items = _merged(self.items, [one.items for one in others])
        if any(one.map_values is not None for one in others):
            self.make_map()
        if self.map_values is not None:
            for one in others:
                if one.names:
                    one.make_map()
            self.map_keys = _merged(self.map_keys, [one.map_keys for one in others])
            self.map_values = _merged(self.map_values, [one.map_values for one in others])
            return
        found = defaultdict(list)
        for other in others:
            for name, one in other.names.items():
                found[name].append(one)
        for name, same in found.items():
            self.names[name] = _merged(self.names.get(name), same)
        if len(self.names) > MAX_NAMES:
            self.make_map()

    def _merge_values(self, others: Sequence[Field]) -> None:
        """Add the values of other fields that are not counted yet."""
        if columns := [one.column for one in (self, *others) if one.column is not None]:
            self.column = list(chain.from_iterable(columns))
        if kept := [one.kept for one in (self, *others) if one.kept is not None]:
            self.kept = list(chain.from_iterable(kept))
            for other in others:
                self.kept_types |= other.kept_types

    def make_map(self, detail: Detail = "full") -> None:
        """Take the names of the fields for data: merge these to the values of a map."""
        if self.map_values is not None:
            return
        names, self.names = self.names, {}
        self.map_keys, self.map_values = Scalars(), Field()
        self.map_keys.add_counts({name: one.count for name, one in names.items()}, detail)
        self.map_values.merge(list(names.values()))

    def cut(self) -> None:
        """Forget the values in arrays and objects, and do not follow these any more."""
        self.is_cut = True
        self.items = self.map_keys = self.map_values = None
        self.names = {}

    def maps(self) -> Field | None:
        """Return a field without values, with the same maps here and below; None without any.

        A field that is known to be a map needs no names, so values of more parts are added faster.
        """
        found = Field()
        if self.map_values is not None:
            found.map_keys = Scalars()
            found.map_values = self.map_values.maps() or Field()
        found.names = {
            name: below for name, one in self.names.items() if (below := one.maps()) is not None
        }
        found.items = None if self.items is None else self.items.maps()
        return found if found.map_values or found.names or found.items else None

    @property
    def count(self) -> int:
        """The number of values."""
        found = self.nulls + self.trues + self.falses + self.arrays + self.objects
        for one in (self.integers, self.numbers, self.strings):
            if one is not None:
                found += one.count
        return found + len(self.kept or ()) + len(self.column or ())

    @property
    def booleans(self) -> int:
        """The number of booleans."""
        return self.trues + self.falses

    def scalars(self) -> list[Scalars]:
        """Return the statistics of strings and numbers."""
        return [one for one in (self.integers, self.numbers, self.strings) if one is not None]

    def types(self) -> dict[str, int]:
        """Return the number of values of each JSON type, the most frequent first."""
        found = {
            "null": self.nulls,
            "boolean": self.booleans,
            "integer": self.integers.count if self.integers else 0,
            "number": self.numbers.count if self.numbers else 0,
            "string": self.strings.count if self.strings else 0,
            "array": self.arrays,
            "object": self.objects,
        }
        ranked = sorted(found.items(), key=lambda one: -one[1])
        return {name: count for name, count in ranked if count}

    def children(self) -> Iterator[Field]:
        """Yield the fields one level below."""
        yield from self.names.values()
        for one in (self.items, self.map_values):
            if one is not None:
                yield one

    def size(self) -> int:
        """Return the number of fields, with those below."""
        found, level = 0, [self]
        while level:
            found += len(level)
            level = _level_below(level)
        return found

    def looks_like_map(self) -> bool:
        """Whether the names of the fields are data, as far as it can be told."""
        names = self.names
        if len(names) < _MIN_KEYS:
            return False
        if formats_of_all(names, KEY_FORMATS):
            return True
        if (
            len(names) < _MANY_KEYS
            or len({tuple(sorted(one.types())) for one in names.values()}) > 1
        ):
            return False
        present = sum(one.count for one in names.values()) / (self.objects * len(names))
        return present <= _SPARSE or self.objects * _KEYS_PER_MAP <= len(names)

    def find_maps(self) -> None:
        """Make maps of the objects that look like maps, here and below."""
        for one in self.children():
            one.find_maps()
        if self.looks_like_map():
            self.make_map()

    def shrink(self, limit: int) -> bool:
        """Make at most `limit` fields of this one and those below; return whether there were more.

        The object with most fields becomes a map, again and again. Where none is left, the deepest
        fields are not followed any more.
        """
        size = self.size()
        if size <= limit:
            return False
        while size > limit:
            widest = max(self.all(), key=_width)
            if len(widest.names) > 1:
                widest.make_map()
            else:
                self._cut_deepest()
            size = self.size()
        return True

    def all(self) -> list[Field]:
        """Return this field and all below, the upper ones first."""
        found, level = [self], [self]
        while level := _level_below(level):
            found += level
        return found

    def _cut_deepest(self) -> None:
        """Cut the fields above the deepest ones."""
        level = above = [self]
        while below := _level_below(level):
            level, above = below, level
        for one in above:
            one.cut()


def _level_below(fields: Iterable[Field]) -> list[Field]:
    """Return the fields one level below any of `fields`."""
    found: list[Field] = []
    for one in fields:
        if one.names:
            found += one.names.values()
        if one.items is not None:
            found.append(one.items)
        if one.map_values is not None:
            found.append(one.map_values)
    return found


def _width(one: Field) -> int:
    return len(one.names)


def _columns(objects: Sequence[dict[str, Json]]) -> dict[str, Sequence[Json]]:
    """Return the values of each name of some objects."""
    if len(objects) == 1:
        return {name: (value,) for name, value in objects[0].items()}
    if len(set(map(len, objects))) == 1:
        # As many names, and all those of the first: the same names.
        with suppress(KeyError):
            return {name: list(map(itemgetter(name), objects)) for name in objects[0]}
    by_shape: dict[tuple[str, ...], list[dict[str, Json]]] = defaultdict(list)
    for one in objects:
        by_shape[tuple(one)].append(one)
    columns: dict[str, Any] = defaultdict(list)
    for shape, group in by_shape.items():
        if len(group) == 1:
            for name, value in group[0].items():
                columns[name].append(value)
        else:
            for name, column in zip(shape, _slices(shape, group), strict=True):
                columns[name] += column
    return columns


def _slices(shape: tuple[str, ...], objects: Sequence[dict[str, Json]]) -> Iterable[list[Json]]:
    """Return the values of each name of objects of one shape.

    As slices of one list: this takes half the time of a loop over the names or the objects.
    """
    values = list(chain.from_iterable(map(dict.values, objects)))
    step = len(shape)
    return (values[start::step] for start in range(step))


def _merged(mine: Any, theirs: Iterable[Any]) -> Any:
    """Return the statistics of all, or None if there are none."""
    present = [one for one in (mine, *theirs) if one is not None]
    if len(present) > 1:
        present[0].merge(present[1:])
    return present[0] if present else None
