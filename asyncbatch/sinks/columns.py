"""The columns of one table as rows come in: what each holds, and which fields cannot join."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asyncbatch.sinks.block import Block, Kind, common_kind, convert, is_exact
from asyncbatch.sinks.contract import Contract, by_itself, plain
from asyncbatch.sinks.refusing import refusals, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncbatch.sinks import Refusal
    from asyncbatch.sinks.contract import Alters

ColumnKind = Kind | Literal["any"]
"""A column's kind; one of kind "any" takes each value as it is, so it never widens."""

NO_FIELDS = "an object without fields, before any field has made a column"
"""Why the first rows of a table are refused if they have nothing in them."""


class Admitted(NamedTuple):
    """What a table takes of a block: its rows, their numbers there and groups; and the others."""

    block: Block
    rows: Sequence[int]
    groups: Sequence[int] | None
    refused: list[Refusal]


def admit(
    block: Block,
    groups: Sequence[int] | None,
    unfit: Mapping[str, str],
    against: Mapping[int, list[str]] = MappingProxyType({}),
) -> Admitted:
    """Leave out the fields that `unfit` gives a reason against, and the rows with values there.

    Reasons `against` rows that were found before are told first.
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
    reasons = spread({row: "; ".join(found[row]) for row in found}, groups)
    rows = [row for row in range(block.count) if row not in reasons]
    names, kinds = [field[0] for field in fields], [field[1] for field in fields]
    taken = Block(names, kinds, [field[2] for field in fields], block.count).without(reasons)
    kept = None if groups is None else [groups[row] for row in rows]
    return Admitted(taken, rows, kept, refusals(reasons))


class Columns:
    """The columns of one table and their kinds, which only ever widen.

    `fold` gives what makes two names one to the database, `flaw` what is wrong with a name, if
    anything is; `limit` is how many columns there can be; for `rich` see `make_block`. Once there
    are columns, the `contract` is applied, for which see `alters`.
    """

    def __init__(
        self,
        kinds: Mapping[str, ColumnKind],
        *,
        limit: int,
        fold: Callable[[str], str] = str,
        flaw: Callable[[str], str | None] = lambda _: None,
        rich: bool = False,
        contract: Contract | None = None,
        alters: Alters | None = None,
    ) -> None:
        self._contract, self._alters = contract or Contract(), alters
        self.kinds: dict[str, ColumnKind] = {}
        self._rich = rich
        self._limit, self._fold, self._flaw = limit, fold, flaw
        self._columns: dict[str, str] = {}
        self.refresh(kinds)
        self._fields: dict[str, str] = {}
        """The field that fills each column, by folded name: the first one that came."""

    def refresh(self, kinds: Mapping[str, ColumnKind]) -> None:
        """Take in what the columns of the table are now."""
        self.kinds.update(kinds)
        self._columns.update({self._fold(name): name for name in kinds})

    def admit(self, block: Block, groups: Sequence[int] | None) -> Admitted:
        """Return what the table takes of a block, its fields named as the columns are."""
        against: Mapping[int, list[str]] = {}
        if self._contract.holds and not self.kinds:
            block = by_itself(block)
        elif self._contract.holds:
            block, against = self._contract.apply(
                block, self._kinds_of(block.names), self._fold, self._alters
            )
        if not self._rich:
            block = plain(block)
        room = self._limit - len(self.kinds)
        unfit: dict[str, str] = {}
        # A field that is spelled as its column is comes before one that only resembles it.
        for name in sorted(block.names, key=lambda name: name not in self.kinds):
            folded = self._fold(name)
            other = self._fields.setdefault(folded, name)
            if reason := self._flaw(name):
                unfit[name] = f"field {name!r}: {reason}"
            elif other != name:
                unfit[name] = f"fields {other!r} and {name!r} cannot be told apart in a table"
            elif folded not in self._columns:
                room -= 1
                if room < 0:
                    unfit[name] = f"field {name!r}: the table has {self._limit:,} columns already"
                else:
                    self._columns[folded] = name
        admitted = admit(block, groups, unfit, against)
        taken = admitted.block
        names = [self._columns[self._fold(name)] for name in taken.names]
        return admitted._replace(block=Block(names, taken.kinds, taken.values, taken.count))

    def changes(self, block: Block, column_is_exact: Callable[[str], bool]) -> dict[str, Kind]:
        """Return the columns that `block` needs new or wider, and the kinds that they get.

        `column_is_exact` tells whether the integers that a column holds now all are double
        precision numbers too.
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

    def fitted(self, block: Block) -> list[list[Any]]:
        """Return the values of an admitted block, each column of the kind that its column has."""
        return [
            values if (have := self.kinds[name]) == "any" else convert(values, kind, have)
            for name, kind, values in zip(block.names, block.kinds, block.values, strict=True)
        ]

    def _kinds_of(self, names: Sequence[str]) -> dict[str, ColumnKind | None]:
        """Return the kinds of the columns that fields go to, None where there is none."""
        return {name: self.kinds.get(self._columns.get(self._fold(name), name)) for name in names}

    def _needed(
        self, have: Kind | None, kind: Kind, values: list[Any], column_is_exact: Callable[[], bool]
    ) -> Kind:
        """Return what a column must be to hold also `values`."""

        def are_exact() -> bool:
            return is_exact(values) if kind == "integer" else column_is_exact()

        needed = kind if have is None else common_kind({have, kind}, are_exact, rich=self._rich)
        return "text" if needed == "mixed" else needed
