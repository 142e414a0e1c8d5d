"""The profile of records and files: fields, shapes of records, and shapes of files."""

from __future__ import annotations

import pickle
from collections import Counter
from heapq import nsmallest
from typing import TYPE_CHECKING

from msgspec import Struct, field

from asyncbatch.core.settings import ProfileSettings
from asyncbatch.transforms.profile.fields import Field

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from asyncbatch.core.records import Json

    # A type, and of objects the sorted names of the fields.
    Shape = tuple[str, tuple[str, ...]]

MAX_SHAPES = 1000  # different shapes, of records and of files
MAX_SHAPE_NAMES = 200  # an object with more fields has the shape of a map
MAX_FILES = 5  # of one shape that are named

MANY_NAMES = "*"  # stands for the names of an object that has more

_KINDS: dict[type, str] = {
    list: "array",
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
}


class FileGroup(Struct, gc=False):
    """Files of one shape: their number, and the first names in alphabetical order."""

    count: int = 0
    files: list[str] = field(default_factory=list)

    def add(self, count: int, files: Iterable[str]) -> None:
        """Add files."""
        self.count += count
        self.files = nsmallest(MAX_FILES, {*self.files, *files})


class FileShape(Struct, frozen=True, order=True):
    """The types of the records of a file, and the names of the fields that any of them has."""

    types: tuple[str, ...]
    names: tuple[str, ...]


class Profile(Struct):
    """The profile of records. Add records and files, merge it with other profiles.

    `documents` are records that are whole documents or lines, `elements` those that are elements
    of the array that a document is.
    """

    settings: ProfileSettings = ProfileSettings()
    documents: Field = field(default_factory=Field)
    elements: Field = field(default_factory=Field)
    arrays: int = 0  # documents that are arrays of records
    shapes: Counter[Shape] = field(default_factory=Counter)
    other_shapes: int = 0  # records whose shapes are not kept
    files: dict[FileShape, FileGroup] = field(default_factory=dict)
    other_files: int = 0  # files whose shapes are not kept
    is_reduced: bool = False  # whether the limit of fields was exceeded

    def __bool__(self) -> bool:
        """Whether it has anything."""
        return bool(self.documents.count or self.elements.count or self.arrays or self.files)

    def add_records(self, records: Sequence[Json], *, in_array: bool) -> None:
        """Add records, which are elements of top-level arrays or not."""
        self.collect(list(records), in_array=in_array)
        self.settle()

    def collect(self, records: list[Json], *, in_array: bool) -> None:
        """Add records, but keep scalars until `settle`, which is faster for many calls.

        It takes the records: the list is empty then.
        """
        if not records:
            return
        root, limit = self.elements if in_array else self.documents, self.settings.max_fields
        root.column = records[:]
        records.clear()
        # A document may have a million fields: the tree is bounded while they are made.
        made = root.collect(self.settings.detail, limit)
        while made is None:
            self.is_reduced |= root.shrink(limit)
            made = root.collect(self.settings.detail, limit, resumes=True)
        if made:
            self.is_reduced |= root.shrink(limit)

    def settle(self) -> None:
        """Count the scalars that are kept."""
        self.documents.settle(self.settings.detail)
        self.elements.settle(self.settings.detail)

    def add_shapes(self, shapes: Counter[Shape]) -> None:
        """Add the shapes of records (see `shapes_of`)."""
        self.shapes.update(shapes)
        self._bound_shapes()

    def add_file(self, name: str, shapes: Iterable[Shape], *, arrays: int = 0) -> None:
        """Add a file, which is an array or not, with records of these shapes."""
        shapes = list(shapes)
        self.arrays += arrays
        types = {kind for kind, _ in shapes}
        if arrays:
            types = {f"array of {one}s" for one in types} or {"empty array"}
        names = set().union(*(names for _, names in shapes))
        shape = FileShape(tuple(sorted(types)), _bounded(names))
        self.files.setdefault(shape, FileGroup()).add(1, (name,))
        self._bound_shapes()

    def merge(self, other: Profile) -> None:
        """Add the profile of other records. It takes parts of `other`."""
        self.documents.merge([other.documents])
        self.elements.merge([other.elements])
        self.arrays += other.arrays
        self.shapes.update(other.shapes)
        self.other_shapes += other.other_shapes
        for shape, group in other.files.items():
            self.files.setdefault(shape, FileGroup()).add(group.count, group.files)
        self.other_files += other.other_files
        self.is_reduced |= other.is_reduced
        self._bound_fields()
        self._bound_shapes()

    def records(self) -> Field:
        """Return the statistics of all records."""
        found = _copy(self.documents)
        found.merge([_copy(self.elements)])
        return found

    def whole_documents(self) -> Field:
        """Return the statistics of documents: arrays of records are one value each."""
        found = _copy(self.documents)
        if self.arrays:
            items = _copy(self.elements) if self.elements.count else None
            found.merge([Field(arrays=self.arrays, items=items)])
        return found

    def successor(self) -> Profile:
        """Return an empty profile for further records, which knows the maps of this one."""
        return Profile(
            self.settings, self.documents.maps() or Field(), self.elements.maps() or Field()
        )

    def _bound_fields(self) -> None:
        for one in (self.documents, self.elements):
            self.is_reduced |= one.shrink(self.settings.max_fields)

    def _bound_shapes(self) -> None:
        if len(self.shapes) > MAX_SHAPES:
            kept = Counter(dict(self.shapes.most_common(MAX_SHAPES // 2)))
            self.other_shapes += self.shapes.total() - kept.total()
            self.shapes = kept
        if len(self.files) > MAX_SHAPES:
            ranked = sorted(self.files.items(), key=lambda one: -one[1].count)
            self.other_files += sum(group.count for _, group in ranked[MAX_SHAPES // 2 :])
            self.files = dict(ranked[: MAX_SHAPES // 2])


def _copy(field: Field) -> Field:
    """Return a copy, in a fifth of the time of `deepcopy`."""
    found: Field = pickle.loads(pickle.dumps(field, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - its own bytes
    return found


def shapes_of(records: Sequence[Json]) -> Counter[Shape]:
    """Return the number of records of each shape."""
    found: Counter[Shape] = Counter()
    objects = [one for one in records if type(one) is dict]
    for names, count in Counter(map(tuple, objects)).items():
        found["object", _bounded(names)] += count
    if len(objects) < len(records):
        others = (type(one) for one in records if type(one) is not dict)
        found.update((_KINDS.get(one, "null"), ()) for one in others)
    return found


def _bounded(names: Collection[str]) -> tuple[str, ...]:
    """Return names sorted; of an object with many, which may be a map, none of them."""
    return tuple(sorted(names)) if len(names) <= MAX_SHAPE_NAMES else (MANY_NAMES,)
