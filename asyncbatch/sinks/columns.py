"""The columns of a table: their kinds, the schema contract, and rejected rows."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asyncbatch.formats.decoder import decode, encode
from asyncbatch.sinks.base import Refusal
from asyncbatch.sinks.column_block import (
    ColumnBlock,
    Kind,
    common_kind,
    convert_values,
    is_exact,
    make_block,
)
from asyncbatch.transforms.base import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.base import SchemaContract

    # A function that returns whether a column of kind "any" (by its name) would change a value, or
    # would need another type to hold it.
    Alters = Callable[[str, Any], bool]


def spread_reasons(reasons: Mapping[int, str], groups: Sequence[int] | None) -> Mapping[int, str]:
    """Return the reasons by row; each applies to all rows of its group."""
    if groups is None or not reasons:
        return reasons
    by_group: dict[int, str] = {}
    for row in sorted(reasons):
        by_group.setdefault(groups[row], reasons[row])
    return {row: by_group[group] for row, group in enumerate(groups) if group in by_group}


def group_edges(count: int, groups: Sequence[int] | None) -> Sequence[int]:
    """Return the first row of each group, and `count` at the end."""
    if groups is None:
        return range(count + 1)
    return [row for row in range(count) if not row or groups[row] != groups[row - 1]] + [count]


def load_salvaging(
    edges: Sequence[int], attempt: Callable[[int, int], str | None]
) -> dict[int, str]:
    """Load all rows except those of failing groups; return reasons by failing row.

    `attempt(start, stop)` loads these rows and returns None, or changes nothing and returns a
    reason. A range that fails is tried again in two halves: a few bad groups then need only a few
    attempts.
    """
    reasons: dict[int, str] = {}
    to_do = [(0, len(edges) - 1)]
    while to_do:
        first, last = to_do.pop()
        start, stop = edges[first], edges[last]
        if start == stop or (reason := attempt(start, stop)) is None:
            continue
        if last - first == 1:
            reasons.update(dict.fromkeys(range(start, stop), reason))
        else:
            middle = (first + last) // 2
            to_do += [(middle, last), (first, middle)]
    return reasons


def make_refusals(reasons: Mapping[int, str], rows: Sequence[int] | None = None) -> list[Refusal]:
    """Return a Refusal for each reason. `rows` has the original index of each row."""
    return [Refusal(row if rows is None else rows[row], reasons[row]) for row in sorted(reasons)]


# The kind of a column. A column of kind "any" gets values unconverted, and never widens.
ColumnKind = Kind | Literal["any"]

# The reason against rows that come first and have no fields.
NO_FIELDS = "an object without fields, and the table has no columns yet"


class Admitted(NamedTuple):
    """The result of a check: the rows that a table accepts, and the rejected rows."""

    block: ColumnBlock  # the accepted rows
    rows: Sequence[int]  # their indexes in the checked block
    groups: Sequence[int] | None  # their groups
    refused: list[Refusal]


def admit(
    block: ColumnBlock,
    groups: Sequence[int] | None,
    unfit: Mapping[str, str],
    against: Mapping[int, list[str]] = MappingProxyType({}),
) -> Admitted:
    """Drop the fields with a reason in `unfit`; reject the rows with values in them.

    `against` has the reasons of earlier checks by row; they come first in messages.
    """
    if not unfit and not against:
        return Admitted(block, range(block.count), groups, [])
    found = {row: list(reasons) for row, reasons in against.items()}
    fields: list[tuple[str, Kind, list[Any]]] = []
    for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
        if name not in unfit:
            fields.append((name, kind, values))
            continue
        for row, value in enumerate(values):
            if value is not None:
                found.setdefault(row, []).append(unfit[name])
    reasons = spread_reasons({row: "; ".join(found[row]) for row in found}, groups)
    rows = [row for row in range(block.count) if row not in reasons]
    names, kinds = [field[0] for field in fields], [field[1] for field in fields]
    columns = [field[2] for field in fields]
    accepted = ColumnBlock(names, kinds, columns, block.count).without(reasons)
    accepted_groups = None if groups is None else [groups[row] for row in rows]
    return Admitted(accepted, rows, accepted_groups, make_refusals(reasons))


class Columns:
    """The columns of one table and their kinds. A kind may widen, but never narrows.

    A sink owns one, and calls `admit`, `changes` and `fit` for each block, in this order. `fold`
    maps names that are equal to the database to one text. `flaw` returns the error of a name, or
    None. `limit` is the largest number of columns. `make_block` describes `rich`, and `Alters`
    describes `alters`. The `contract` applies as soon as the table has columns.
    """

    def __init__(
        self,
        kinds: Mapping[str, ColumnKind],
        *,
        limit: int,
        fold: Callable[[str], str] = str,
        flaw: Callable[[str], str | None] = lambda _: None,
        rich: bool = False,
        contract: SchemaContractCheck | None = None,
        alters: Alters | None = None,
    ) -> None:
        self._contract, self._alters = contract or SchemaContractCheck(), alters
        self.kinds: dict[str, ColumnKind] = {}
        self._rich = rich
        self._limit, self._fold, self._flaw = limit, fold, flaw
        self._columns: dict[str, str] = {}
        self.refresh(kinds)
        # The first field that filled each column, by its folded name.
        self._fields: dict[str, str] = {}

    def refresh(self, kinds: Mapping[str, ColumnKind]) -> None:
        """Update the kinds of columns to those of the table now."""
        self.kinds.update(kinds)
        self._columns.update({self._fold(name): name for name in kinds})

    def admit(self, block: ColumnBlock, groups: Sequence[int] | None) -> Admitted:
        """Return the accepted rows of a block, with fields renamed to their columns."""
        against: Mapping[int, list[str]] = {}
        if self._contract.holds and not self.kinds:
            block = single_column_kinds(block)
        elif self._contract.holds:
            block, against = self._contract.apply(
                block, self._kinds_of(block.names), self._fold, self._alters
            )
        if not self._rich:
            block = plain_block(block)
        free = self._limit - len(self.kinds)
        unfit: dict[str, str] = {}
        # A field with exactly the name of a column comes before fields that differ in case.
        for name in sorted(block.names, key=lambda name: name not in self.kinds):
            folded = self._fold(name)
            other = self._fields.setdefault(folded, name)
            if reason := self._flaw(name):
                unfit[name] = f"field {name!r}: {reason}"
            elif other != name:
                unfit[name] = f"fields {other!r} and {name!r} have the same name in a table"
            elif folded not in self._columns:
                free -= 1
                if free < 0:
                    unfit[name] = f"field {name!r}: the table already has {self._limit:,} columns"
                else:
                    self._columns[folded] = name
        admitted = admit(block, groups, unfit, against)
        accepted = admitted.block
        names = [self._columns[self._fold(name)] for name in accepted.names]
        renamed = ColumnBlock(names, accepted.kinds, accepted.values, accepted.count)
        return admitted._replace(block=renamed)

    def changes(
        self, block: ColumnBlock, column_is_exact: Callable[[str], bool]
    ) -> dict[str, Kind]:
        """Return the new and wider columns that `block` needs, with their kinds.

        `column_is_exact` returns whether all integers of a column are exact as doubles.
        """
        changed: dict[str, Kind] = {}
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            have = self.kinds.get(name)
            if have == "any":
                continue
            needed = self._needed(have, kind, values, partial(column_is_exact, name))
            if needed != have:
                changed[name] = needed
        return changed

    def fit(self, block: ColumnBlock) -> list[list[Any]]:
        """Return the values of an admitted block, converted to the kinds of the columns."""
        return [
            values if (have := self.kinds[name]) == "any" else convert_values(values, kind, have)
            for name, kind, values in zip(block.names, block.kinds, block.values, strict=True)
        ]

    def _kinds_of(self, names: Sequence[str]) -> dict[str, ColumnKind | None]:
        """Return the kind of the column of each field, None for a missing column."""
        return {name: self.kinds.get(self._columns.get(self._fold(name), name)) for name in names}

    def _needed(
        self, have: Kind | None, kind: Kind, values: list[Json], column_is_exact: Callable[[], bool]
    ) -> Kind:
        """Return the kind of a column that also holds `values`."""

        def are_exact() -> bool:
            return is_exact(values) if kind == "integer" else column_is_exact()

        needed = kind if have is None else common_kind({have, kind}, are_exact, rich=self._rich)
        return "text" if needed == "mixed" else needed


_INT64 = 2**63
_EXACT = 2**53
_JSON: tuple[Kind, ...] = (
    "numeric",
    "json",
    "mixed",
)  # kinds whose values are JSON texts in a block
# The kinds of columns that hold all values of another kind.
_WIDENING: dict[Kind, tuple[Kind, ...]] = {
    "boolean": ("integer", "real", "numeric"),
    "integer": ("numeric",),
    "real": ("numeric",),
}
# The end of the message about a value, by the kind of its column.
_MISFIT_REASON: dict[str, str] = {
    "boolean": "of booleans cannot hold",
    "integer": "of 64-bit integers cannot hold",
    "real": "of floating-point numbers cannot hold",
    "numeric": "of numbers cannot hold",
    "any": "would change",
}
_LISTED_FIELDS = 10  # in a note; more fields are only counted


class _Field(NamedTuple):
    name: str
    kind: Kind
    values: list[Any]


class SchemaContractCheck:
    """The schema contract of a table.

    `evolve` accepts all rows. `freeze` rejects rows that do not fit the table. `discard` drops
    fields without a column and values that do not fit, but rejects a row if its `key` would be
    incomplete. It collects the names of dropped fields for `note`.
    """

    def __init__(self, mode: SchemaContract = "evolve", key: Sequence[str] = ()) -> None:
        self._mode, self._key = mode, key
        # Dropped fields, and fields with dropped values, in order of appearance.
        self._unknown: dict[str, None] = {}
        self._misfits: dict[str, None] = {}

    @property
    def holds(self) -> bool:
        """Whether the columns of the table must not change."""
        return self._mode != "evolve"

    @property
    def note(self) -> str | None:
        """The note about dropped fields and values, or None."""
        parts = []
        if self._unknown:
            parts.append(f"fields without a column ({_listed(self._unknown)})")
        if self._misfits:
            parts.append(f"values that do not fit their column ({_listed(self._misfits)})")
        return f"left out by the schema contract: {' and '.join(parts)}" if parts else None

    def apply(
        self,
        block: ColumnBlock,
        kinds: Mapping[str, ColumnKind | None],
        fold: Callable[[str], str],
        alters: Alters | None,
    ) -> tuple[ColumnBlock, dict[int, list[str]]]:
        """Return the accepted fields and values of a block, and the reasons against rows.

        `kinds` has the kind of the column of each field, None for a missing column. `Columns`
        describes `fold`.
        """
        key_names = set(map(fold, self._key))
        reasons: dict[int, list[str]] = {}
        fields: list[_Field] = []
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if (have := kinds[name]) is None:
                self._leave_out(name, values, reasons)
                continue
            field, misfits = _fitted(_Field(name, kind, values), have, alters)
            fields.append(field)
            if misfits and self._mode == "discard" and fold(name) not in key_names:
                self._misfits[name] = None
            else:
                for row, value in misfits.items():
                    reasons.setdefault(row, []).append(self._misfit(name, value, have))
        columns = [field.values for field in fields]
        names, found = [field.name for field in fields], [field.kind for field in fields]
        return ColumnBlock(names, found, columns, block.count), reasons

    def _leave_out(self, name: str, values: list[Json], reasons: dict[int, list[str]]) -> None:
        """Drop a field without a column, or add a reason to each row with a value in it."""
        rows = [row for row, value in enumerate(values) if value is not None]
        if rows and self._mode == "discard":
            self._unknown[name] = None
            return
        for row in rows:
            reasons.setdefault(row, []).append(
                f"field {name!r} is new, and the schema contract is freeze: add a column for it, or"
                " choose evolve or discard"
            )

    def _misfit(self, name: str, value: Json, have: ColumnKind) -> str:
        shown = encode(value).decode() if type(value) in (int, float) else kind_of(value)
        reason = f"field {name!r} is {shown}, which its column {_MISFIT_REASON[have]}"
        if self._mode == "discard":
            return f"{reason}; without it the key would be incomplete"
        return (
            f"{reason}, and the schema contract is freeze: change the column, or choose evolve or"
            " discard"
        )


def single_column_kinds(block: ColumnBlock) -> ColumnBlock:
    """Return a rich block with only the columns and kinds that its own values need.

    A slice of a larger block may have wider ones. If all values are null, all fields stay.
    """
    columns = [
        _decoded(values) if kind in _JSON else values
        for kind, values in zip(block.kinds, block.values, strict=True)
    ]
    rows: list[dict[str, Any]] = [{} for _ in range(block.count)]
    for name, values in zip(block.names, columns, strict=True):
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                row[name] = value
    return make_block(rows, rich=True) if any(rows) else block


def plain_block(block: ColumnBlock) -> ColumnBlock:
    """Return a rich block as `make_block` would make it without `rich`."""
    if not any(kind in _JSON for kind in block.kinds):
        return block
    kinds: list[Kind] = ["text" if kind in _JSON else kind for kind in block.kinds]
    values = [
        convert_values(values, kind, "text") if kind in _JSON else values
        for kind, values in zip(block.kinds, block.values, strict=True)
    ]
    return ColumnBlock(block.names, kinds, values, block.count)


def _fitted(
    field: _Field, have: ColumnKind, alters: Alters | None
) -> tuple[_Field, Mapping[int, Any]]:
    """Return a field with null in place of misfits, and the misfits by row."""
    name, kind, values = field
    if kind in ("null", have) or have in ("null", "text") or have in _WIDENING.get(kind, ()):
        return field, {}
    if kind == "integer" and have == "real" and is_exact(values):
        return field, {}
    originals = _decoded(values) if kind in _JSON else values
    present = ((row, value) for row, value in enumerate(originals) if value is not None)
    if have != "any":
        fit = _FITS[have]
        fitted = [None if value is None else fit(value) for value in originals]
        return _Field(name, have, fitted), {row: v for row, v in present if fitted[row] is None}
    if alters is None:
        return field, {}
    misfits = {row: value for row, value in present if alters(name, value)}
    kept = [None if row in misfits else value for row, value in enumerate(values)]
    return _Field(name, kind, kept), misfits


def _decoded(texts: list[str | None]) -> list[Any]:
    return [None if text is None else decode(text.encode()) for text in texts]


def _boolean(value: Json) -> bool | None:
    return bool(value) if type(value) in (bool, int, float) and value in (0, 1) else None


def _integer(value: Json) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    is_whole = type(value) in (bool, int)
    return int(value) if is_whole and -_INT64 <= value < _INT64 else None


def _real(value: Json) -> float | None:
    is_exact = type(value) is float or (type(value) in (bool, int) and abs(value) <= _EXACT)
    return float(value) if is_exact else None


def _numeric(value: Json) -> str | None:
    if type(value) not in (bool, int, float):
        return None
    return encode(int(value) if type(value) is bool else value).decode()


# Functions that convert a value to the kind of its column, or return None if it does not fit.
_FITS: dict[str, Callable[[Any], Any]] = {
    "boolean": _boolean,
    "integer": _integer,
    "real": _real,
    "numeric": _numeric,
}


def _listed(names: Iterable[str]) -> str:
    listed = list(map(repr, names))
    if len(listed) > _LISTED_FIELDS:
        listed[_LISTED_FIELDS:] = [f"{len(listed) - _LISTED_FIELDS:,} more"]
    return ", ".join(listed)
