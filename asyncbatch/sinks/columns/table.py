"""The columns of a table: their names and kinds, admitted and rejected rows."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.sinks.base import Refusal
from asyncbatch.sinks.columns.block import (
    ColumnBlock,
    ColumnKind,
    Kind,
    block_objects,
    integers_of,
    is_exact,
    json_values,
    make_block,
    plain_texts,
)
from asyncbatch.sinks.columns.schema_contract import SchemaContractCheck, fit_fixed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from asyncbatch.sinks.columns.schema_contract import Alters


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


# The reason against rows that come first and have no fields.
NO_FIELDS = "an object without fields, and the table has no columns yet"


class Admitted(NamedTuple):
    """The result of a check: the rows that a table accepts, and the rejected rows."""

    block: ColumnBlock  # the accepted rows, with fields renamed to their columns
    rows: Sequence[int]  # their indexes in the checked block
    groups: Sequence[int] | None  # their groups
    refused: list[Refusal]
    spellings: Mapping[str, str] = MappingProxyType({})  # new fields by folded name


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
    places = []
    for place, (name, values) in enumerate(zip(block.names, block.values, strict=True)):
        if name not in unfit:
            places.append(place)
            continue
        for row, value in enumerate(values):
            if value is not None:
                found.setdefault(row, []).append(unfit[name])
    reasons = spread_reasons({row: "; ".join(found[row]) for row in found}, groups)
    rows = [row for row in range(block.count) if row not in reasons]
    accepted_groups = None if groups is None else [groups[row] for row in rows]
    accepted = block.fields(places).without(reasons)
    return Admitted(accepted, rows, accepted_groups, make_refusals(reasons))


class ColumnsState(NamedTuple):
    """The state of `Columns`, to which they return if a change of the table is undone."""

    kinds: dict[str, ColumnKind]
    columns: dict[str, str]


class Columns:
    """The columns of one table and their kinds. A kind may widen, but never narrows.

    A sink owns one, and calls `admit`, `changes`, `cells` and `accept` for each block, in this
    order. `fold` maps names that are equal to the database to one text. `flaw` returns the error of
    a name, or None. `limit` is the largest number of columns. A `rich` table has columns of kinds
    "numeric" and "json"; another table has text instead. `Alters` describes `alters`. The
    `contract` applies as soon as the table has columns.
    """

    contract: SchemaContractCheck

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
        self.contract, self._alters = contract or SchemaContractCheck(), alters
        self.kinds: dict[str, ColumnKind] = {}
        self._rich = rich
        self._limit, self._fold, self._flaw = limit, fold, flaw
        self._columns: dict[str, str] = {}
        self.refresh(kinds)
        # The first field that filled each column, by its folded name.
        self._fields: dict[str, str] = {}
        self._fixed: dict[str, str] = {}  # see `fix`

    def reset(self, kinds: Mapping[str, ColumnKind], *, limit: int) -> None:
        """Start anew with the columns of the table, and their largest number."""
        self.kinds, self._columns, self._limit = {}, {}, limit
        self.refresh(kinds)

    def refresh(self, kinds: Mapping[str, ColumnKind]) -> None:
        """Update the kinds of columns to those of the table now.

        A column without values has its place among the others from its first value.
        """
        for name, kind in kinds.items():
            if kind != "null" and self.kinds.get(name) == "null":
                del self.kinds[name]
        self.kinds.update(kinds)
        self._columns.update({self._fold(name): name for name in kinds})

    def forget(self, present: Collection[str]) -> None:
        """Forget the columns that the table has no longer. Those without values have none yet."""
        gone = [name for name, kind in self.kinds.items() if kind != "null" and name not in present]
        for name in gone:
            del self.kinds[name]
            self._columns.pop(self._fold(name), None)

    def fix(self, reasons: Mapping[str, str]) -> None:
        """Set the columns whose types the database cannot change, each with the reason.

        Rows with values that do not fit them are rejected.
        """
        self._fixed = dict(reasons)

    def state(self) -> ColumnsState:
        """Return a copy of the state before a change."""
        return ColumnsState(dict(self.kinds), dict(self._columns))

    def restore(self, state: ColumnsState) -> None:
        """Return to an earlier state."""
        self.kinds, self._columns = state

    def admit(self, block: ColumnBlock, groups: Sequence[int] | None) -> Admitted:
        """Return the accepted rows of a block, with fields renamed to their columns.

        A rejected row leaves no trace: neither its names nor its types count for other rows.
        """
        against: Mapping[int, list[str]] = {}
        if self.contract.holds and not self.kinds:
            block = _with_values(block)
        elif self.contract.holds:
            block, against = self.contract.apply(
                block, self._kinds_of(block.names), self._fold, self._alters
            )
        elif self._fixed:
            columns = {name: self._columns.get(self._fold(name), name) for name in block.names}
            fixed = {
                name: (self.kinds[column], self._fixed[column])
                for name, column in columns.items()
                if column in self._fixed and column in self.kinds
            }
            block, against = fit_fixed(block, fixed, self._alters)
        unfit: dict[str, str] = {}
        new: dict[str, list[str]] = {}  # new fields by folded name
        # A field with exactly the name of a column comes before fields that differ in case.
        for name in sorted(block.names, key=lambda name: name not in self.kinds):
            folded = self._fold(name)
            known = self._fields.get(folded) or (name if name in self.kinds else None)
            if folded in new and new[folded][0] in self.kinds:
                known = new[folded][0]
            if reason := self._flaw(name):
                unfit[name] = f"field {name!r}: {reason}"
            elif known not in (None, name):
                unfit[name] = _clash(known, name)
            else:
                new.setdefault(folded, []).append(name)
        free = self._limit - len(self.kinds)
        added = sum(folded not in self._columns for folded in new)
        if added > free or any(len(names) > 1 for names in new.values()):
            fields = zip(block.names, block.values, strict=True)
            rejecting = [values for name, values in fields if name in unfit]
            rejected = against.keys() | {
                row for values in rejecting for row, value in enumerate(values) if value is not None
            }
            edges = group_edges(block.count, groups)
            spellings, reasons, left_out = self._judge(block, edges, rejected, new, free)
            against = {
                row: [*against.get(row, ()), *reasons.get(row, ())]
                for row in sorted(against.keys() | reasons.keys())
            }
            block = block.fields([p for p, name in enumerate(block.names) if name not in left_out])
        else:
            spellings = {folded: names[0] for folded, names in new.items()}
        admitted = admit(block, groups, unfit, against)
        accepted = admitted.block
        names = {name: self._columns.get(self._fold(name), name) for name in accepted.names}
        present = {names[name]: rows for name, rows in accepted.present.items()}
        renamed = ColumnBlock(
            list(names.values()), accepted.kinds, accepted.values, accepted.count, present
        )
        there = {self._fold(name) for name in accepted.names}
        found = {folded: name for folded, name in spellings.items() if folded in there}
        return admitted._replace(block=renamed, spellings=found)

    def _judge(
        self,
        block: ColumnBlock,
        edges: Sequence[int],
        rejected: AbstractSet[int],
        new: Mapping[str, list[str]],
        free: int,
    ) -> tuple[dict[str, str], dict[int, list[str]], set[str]]:
        """Decide about new fields row by row, because they clash or are too many.

        Rows that are `rejected` for another reason do not count. Returns the field of each column
        by its folded name, the reasons against rows, and the fields that get no column.
        """
        spellings: dict[str, str] = {}
        reasons: dict[int, list[str]] = {}
        candidates = {name: folded for folded, names in new.items() for name in names}
        fields = dict(zip(block.names, block.values, strict=True))
        for start, stop in pairwise(edges):
            rows = range(start, stop)
            if not rejected.isdisjoint(rows):
                continue
            there = [n for n in candidates if any(fields[n][row] is not None for row in rows)]
            found = dict(spellings)
            found_reasons = []
            room = free - self._new_columns(spellings)
            for name in there:
                folded = candidates[name]
                if (other := found.setdefault(folded, name)) != name:
                    found_reasons.append(_clash(other, name))
                elif folded not in spellings and folded not in self._columns:
                    room -= 1
                    if room < 0:
                        reason = f"the table already has {self._limit:,} columns"
                        found_reasons.append(f"field {name!r}: {reason}")
            if found_reasons:
                reasons[start] = found_reasons
            else:
                spellings = found
        for name, folded in candidates.items():  # fields without a value
            is_new = folded not in spellings and folded not in self._columns
            if all(value is None for value in fields[name]) and (
                not is_new or free > self._new_columns(spellings)
            ):
                spellings.setdefault(folded, name)
        return spellings, reasons, {n for n, f in candidates.items() if spellings.get(f) != n}

    def _new_columns(self, spellings: Mapping[str, str]) -> int:
        return sum(folded not in self._columns for folded in spellings)

    def accept(self, admitted: Admitted) -> None:
        """Keep the names of admitted fields: the table has accepted the rows."""
        for folded, name in admitted.spellings.items():
            self._fields.setdefault(folded, name)
            self._columns.setdefault(folded, name)

    def changes(
        self, block: ColumnBlock, column_is_exact: Callable[[str], bool]
    ) -> dict[str, ColumnKind]:
        """Return the new and wider columns that `block` needs, with their kinds.

        `column_is_exact` returns whether all integers of a column are exact as doubles.
        """
        changed: dict[str, ColumnKind] = {}
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            have = self.kinds.get(name)
            if have in ("any", kind) or (have is not None and kind == "null"):
                continue
            needed = self._needed(have, kind, values, partial(column_is_exact, name))
            if needed != have:
                changed[name] = needed
        return changed

    def cells(self, block: ColumnBlock) -> list[list[Any]]:
        """Return the values of an admitted block as their columns hold them."""
        return [
            cells(values, kind, self.kinds[name])
            for name, kind, values in zip(block.names, block.kinds, block.values, strict=True)
        ]

    def _kinds_of(self, names: Sequence[str]) -> dict[str, ColumnKind | None]:
        """Return the kind of the column of each field, None for a missing column."""
        return {name: self.kinds.get(self._columns.get(self._fold(name), name)) for name in names}

    def _needed(
        self,
        have: ColumnKind | None,
        kind: Kind,
        values: list[Any],
        column_is_exact: Callable[[], bool],
    ) -> ColumnKind:
        """Return the kind of a column that also holds `values`."""
        large: ColumnKind = "numeric" if self._rich else "text"
        own: ColumnKind
        match kind:
            case "number":
                own = "real" if is_exact(integers_of(values, kind)) else large
            case "numeric":
                own = large
            case "json":
                own = "json" if self._rich else "text"
            case "mixed":
                own = "text"
            case _:
                own = kind
        if have in (None, "null", own):
            return own
        both = {have, own}
        if both == {"integer", "real"}:
            integers = integers_of(values, kind)
            is_safe = is_exact(integers) and (have == "real" or column_is_exact())
            return "real" if is_safe else large
        return "numeric" if both <= {"integer", "real", "numeric"} else "text"


def _clash(other: str | None, name: str) -> str:
    return f"fields {other!r} and {name!r} have the same name in a table"


def cells(values: list[Any], kind: Kind, have: ColumnKind) -> list[Any]:
    """Return the values of a field as a column of kind `have` holds them.

    The column must be wide enough (`Columns.changes`). A column of kind "any" gets JSON values.
    """
    if kind in ("null", have):
        return values
    match have:
        case "real":
            return [None if value is None else float(value) for value in values]
        case "text" | "numeric":
            return plain_texts(values, kind)
        case "any":
            return json_values(values, kind)
        case _:
            return values


class Written(NamedTuple):
    """The outcome of an attempt to write admitted rows."""

    reasons: Mapping[int, str]  # the reasons against rows of the block
    is_undone: bool = False  # whether nothing was written, because rejected rows changed the table


def write_accepted(
    columns: Callable[[], Columns],
    block: ColumnBlock,
    groups: Sequence[int] | None,
    write: Callable[[Admitted], Written],
) -> list[Refusal]:
    """Write the rows that the table accepts; return the rejected rows.

    If `write` rejects rows after it has changed the table for a block, it undoes everything. The
    rest is then written without these rows, so that they leave no trace in the table.
    """
    found: dict[int, str] = {}
    while True:
        rows = [row for row in range(block.count) if row not in found] if found else None
        left = groups if rows is None or groups is None else [groups[row] for row in rows]
        admitted = columns().admit(block.without(found), left)
        written = write(admitted) if admitted.block.count else Written({})
        reasons = {admitted.rows[row]: reason for row, reason in written.reasons.items()}
        if not written.is_undone:
            reasons |= {refusal.row: refusal.message for refusal in admitted.refused}
        found |= {row if rows is None else rows[row]: reasons[row] for row in reasons}
        if not written.is_undone:
            columns().accept(admitted)
            return make_refusals(found)


def _with_values(block: ColumnBlock) -> ColumnBlock:
    """Return a block with only the fields that have values. If there are none, all fields stay."""
    rows = block_objects(block)
    return make_block(rows) if any(rows) else block
