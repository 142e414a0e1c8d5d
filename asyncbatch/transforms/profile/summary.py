"""The summary of a profile: one row for each field, candidate keys, shapes, files that differ."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, UnsetType

from asyncbatch.core.records import Json  # noqa: TC001 - msgspec reads the annotations
from asyncbatch.transforms.profile.profile import MANY_NAMES, FileGroup, FileShape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.transforms.profile.fields import Field
    from asyncbatch.transforms.profile.profile import Profile, Shape
    from asyncbatch.transforms.profile.scalars import Scalars

MAX_SHOWN_SHAPES = 20
MAX_DIFFERENT_FILES = 20
_COMMON = 0.95  # the share of files that have a name or type which all should have
_RARE = 0.05
_EXAMPLES = 3  # of a field
_MAX_REASONS = 3  # of a file
_MIN_FILES = 4  # with fewer, none differs from "the rest"
_PLAIN_NAME = re.compile(r"[^\W\d][\w-]*")
_LETTER = re.compile(r"[^\W\d_]")


class ValueCount(Struct, frozen=True):
    """A frequent value. Its true count may be higher, if not all values were counted."""

    value: Json
    count: int


class FieldSummary(Struct, kw_only=True, omit_defaults=True):
    """One field. `presence` is its share of the objects that may have it."""

    path: str
    count: int
    presence: float
    types: dict[str, int]
    null_share: float = 0.0
    distinct: int | UnsetType = UNSET  # different scalars
    distinct_is_exact: bool | UnsetType = UNSET
    unique: bool | UnsetType = UNSET
    min: Json | UnsetType = UNSET
    max: Json | UnsetType = UNSET
    min_length: int | UnsetType = UNSET
    max_length: int | UnsetType = UNSET
    min_items: int | UnsetType = UNSET
    max_items: int | UnsetType = UNSET
    formats: dict[str, float] | UnsetType = UNSET  # the share of the different texts
    top: list[ValueCount] | UnsetType = UNSET
    examples: list[Json] | UnsetType = UNSET
    is_map: bool = False
    keys: int | UnsetType = UNSET  # different keys of a map
    keys_are_exact: bool | UnsetType = UNSET  # whether `keys` is no estimate
    is_cut: bool = False  # the values in it were not followed


class ShapeSummary(Struct):
    """Records of one shape."""

    type: str
    names: list[str]
    records: int


class FileShapeSummary(Struct):
    """Files of one shape."""

    types: list[str]
    names: list[str]
    files: int
    examples: list[str]


class DifferentFile(Struct):
    """A file that differs from the rest, with the reasons. `files` have the same shape."""

    file: str
    files: int
    reasons: list[str]


class ProfileSummary(Struct, kw_only=True):
    """The summary of a profile."""

    records: int
    fields: list[FieldSummary]
    keys: list[str]  # fields that could be the key of a table
    shapes: list[ShapeSummary]
    other_shapes: int  # records of shapes that are not listed
    file_shapes: list[FileShapeSummary]
    different_files: list[DifferentFile]
    max_fields_exceeded: bool


def summarize(profile: Profile, *, redacts: bool = False, top: int = 5) -> ProfileSummary:
    """Return the summary of a profile, with `top` frequent values of each field.

    `redacts`: no value of the data is in it, but its form: letters as x, digits as 9.
    """
    records = profile.records()
    records.find_maps()
    show = redacted if redacts else _same
    rows = list(_rows("", records, records.count, _RowMaker(show, top)))
    record_shapes, files = profile.shapes, profile.files
    if redacts and records.map_values is not None:
        record_shapes, files = _without_names(record_shapes, files)
    shapes = record_shapes.most_common(MAX_SHOWN_SHAPES)
    shown = sum(count for _, count in shapes)
    groups = sorted(files.items(), key=lambda one: (-one[1].count, one[0]))
    return ProfileSummary(
        records=records.count,
        fields=rows,
        keys=list(_candidate_keys("", records, records.count)),
        shapes=[ShapeSummary(kind, list(names), count) for (kind, names), count in shapes],
        other_shapes=record_shapes.total() - shown + profile.other_shapes,
        file_shapes=[
            FileShapeSummary(list(shape.types), list(shape.names), group.count, group.files)
            for shape, group in groups[:MAX_SHOWN_SHAPES]
        ],
        different_files=list(_different_files(files))[:MAX_DIFFERENT_FILES],
        max_fields_exceeded=profile.is_reduced,
    )


def redacted(value: Json) -> Json:
    """Return the form of a scalar: letters as x, digits as 9."""
    if type(value) is str:
        return "".join("9" if char.isdigit() else _LETTER.sub("x", char) for char in value)
    return re.sub(r"\d", "9", str(value))


def _without_names(
    shapes: Counter[Shape], files: dict[FileShape, FileGroup]
) -> tuple[Counter[Shape], dict[FileShape, FileGroup]]:
    """Return the shapes of records that are maps, and of their files: their names are data."""
    kinds: Counter[Shape] = Counter()
    for (kind, names), count in shapes.items():
        kinds[kind, (MANY_NAMES,) if names else ()] += count
    groups: dict[FileShape, FileGroup] = {}
    for shape, group in files.items():
        names = (MANY_NAMES,) if shape.names else ()
        groups.setdefault(FileShape(shape.types, names), FileGroup()).add(group.count, group.files)
    return kinds, groups


def _same(value: Json) -> Json:
    return value


def child_path(path: str, name: str) -> str:
    """Return the path of a field of an object: a.b, or a."b c" for a name with other signs."""
    if _PLAIN_NAME.fullmatch(name) is None:
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{path}.{name}" if path else name


def _rows(path: str, field: Field, among: int, maker: _RowMaker) -> Iterator[FieldSummary]:
    """Yield the rows of a field and of those below. It is in a share of `among` objects."""
    if path or field.types().keys() - {"object"} or field.map_values is not None:
        yield maker.row(path or "$", field, among)
    for name, one in _ranked(field):
        yield from _rows(child_path(path, name), one, field.objects, maker)
    if field.map_values is not None:
        yield from _rows(f"{path}.*" if path else "*", field.map_values, 0, maker)
    if field.items is not None:
        yield from _rows(f"{path}[]", field.items, 0, maker)


def _ranked(field: Field) -> list[tuple[str, Field]]:
    """Return the fields of an object, the most frequent first, in the same order for each run."""
    found = [(name, one) for name, one in field.names.items() if one.count]
    return sorted(found, key=lambda pair: (-pair[1].count, pair[0]))


class _RowMaker:
    """Makes the rows of fields."""

    def __init__(self, show: Callable[[Json], Json], top: int) -> None:
        self._show, self._top = show, top

    def row(self, path: str, field: Field, among: int) -> FieldSummary:
        """Return the row of a field, which is in a share of `among` objects; 0: no object."""
        types, count, scalars = field.types(), field.count, field.scalars()
        row = FieldSummary(
            path=path,
            count=count,
            presence=round(count / among, 4) if among else 1.0,
            types=types,
            null_share=round(field.nulls / count, 4) if count else 0.0,
            is_cut=field.is_cut,
        )
        if field.arrays:
            row.min_items, row.max_items = field.fewest, field.most
        if field.map_keys is not None:
            row.is_map, row.keys = True, field.map_keys.distinct
            row.keys_are_exact = field.map_keys.is_complete
        if field.booleans:
            row.distinct, row.distinct_is_exact, row.unique = 0, True, False
            row.distinct += bool(field.trues) + bool(field.falses)
            counts = [(True, field.trues), (False, field.falses)]
            row.top = [ValueCount(*one) for one in counts if one[1]] if self._top else UNSET
        if scalars:
            self._add_scalars(row, scalars)
        return row

    def _add_scalars(self, row: FieldSummary, scalars: list[Scalars]) -> None:
        show = self._show
        row.distinct = (row.distinct or 0) + sum(one.distinct for one in scalars)
        row.distinct_is_exact = all(one.is_complete for one in scalars)
        row.unique = row.unique is UNSET and all(one.is_unique for one in scalars)
        numbers = [end for one in scalars for end in one.extremes() if type(end) is not str]
        texts = [one for one in scalars if type(one.extremes()[0]) is str]
        if numbers:
            row.min, row.max = show(min(numbers)), show(max(numbers))
        for one in texts:
            row.min_length, row.max_length = one.lengths()
            if not numbers:
                row.min, row.max = map(show, one.extremes())
            row.formats = {
                name: round(share, 4) for name, share in one.format_shares().items()
            } or UNSET
        found = [pair for one in scalars for pair in one.frequent(self._top)]
        found.sort(key=lambda pair: -pair[1])
        top = [*(row.top or ()), *(ValueCount(show(value), count) for value, count in found)]
        row.top = [one for one in top[: self._top] if one.count > 1] or UNSET
        kept = [value for one in scalars for value in _spread(one.kept(), _EXAMPLES)]
        row.examples = list(map(show, kept[:_EXAMPLES]))


def _spread(values: list[Any], count: int) -> list[Any]:
    """Return some values, from all over a list."""
    step = max(1, len(values) // count)
    return values[::step][:count]


def _candidate_keys(path: str, field: Field, records: int) -> Iterator[str]:
    """Yield the paths of fields that each record has, with another value in each."""
    for name, one in _ranked(field):
        here = child_path(path, name)
        if one.count != records or records < 2:
            continue
        scalars = one.scalars()
        if len(scalars) == 1 and scalars[0].count == records:
            if scalars[0].is_unique and scalars[0] is not one.numbers:
                yield here
        elif one.objects == records:
            yield from _candidate_keys(here, one, records)


def _different_files(groups: dict[FileShape, FileGroup]) -> Iterator[DifferentFile]:
    """Yield files with a type or field that few have, or without one of most; rarest first."""
    total = sum(group.count for group in groups.values())
    if total < _MIN_FILES:
        return
    types: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for shape, group in groups.items():
        types[_types_text(shape)] += group.count
        names.update(dict.fromkeys(shape.names, group.count))
    for shape, group in sorted(groups.items(), key=lambda one: (one[1].count, one[0])):
        if group.count == 1 or group.count <= total * _RARE:
            reasons = list(islice(_reasons(shape, types, names, total), _MAX_REASONS))
            if reasons:
                yield DifferentFile(group.files[0], group.count, reasons)


def _reasons(
    shape: FileShape, types: Counter[str], names: Counter[str], total: int
) -> Iterator[str]:
    """Yield the differences of a file from the rest."""
    kind = _types_text(shape)
    usual, count = types.most_common(1)[0]
    if kind != usual and count >= total * _COMMON:
        yield f"is {kind}, where {_percent(count, total)} are {usual}"
    elif MANY_NAMES not in shape.names:
        for name, count in names.items():
            if total * _COMMON <= count < total and name not in shape.names:
                yield f"lacks {name}, which {_percent(count, total)} of the files have"
        for name in shape.names:
            if names[name] <= max(1, total * _RARE):
                yield f"has {name}, which {_percent(names[name], total)} of the files have"


def _types_text(shape: FileShape) -> str:
    return ", ".join(shape.types) or "empty"


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{share:.0f}%" if 1 <= share <= 99 or count in (0, total) else f"{share:.1f}%"
