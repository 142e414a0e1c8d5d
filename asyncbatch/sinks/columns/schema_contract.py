"""The schema contract of a table: whether its columns may change, and which values fit them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.formats.decoder import encode
from asyncbatch.sinks.columns.block import EXACT, ColumnBlock, ColumnKind, Kind, json_values
from asyncbatch.transforms.base import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.sinks.base import SchemaContract

    # A function that returns whether a column of kind "any" (by its name) would change a value, or
    # would need another type to hold it.
    Alters = Callable[[str, Any], bool]

_INT64 = 2**63
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
        present = {name: block.present[name] for name in names if name in block.present}
        return ColumnBlock(names, found, columns, block.count, present), reasons

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
        reason = _misfit_reason(name, value, have)
        if self._mode == "discard":
            return f"{reason}; without it the key would be incomplete"
        return (
            f"{reason}, and the schema contract is freeze: change the column, or choose evolve or"
            " discard"
        )


def fit_fixed(
    block: ColumnBlock, fixed: Mapping[str, tuple[ColumnKind, str]], alters: Alters | None
) -> tuple[ColumnBlock, dict[int, list[str]]]:
    """Return a block whose fields fit columns that cannot change, and the reasons against rows.

    `fixed` has the kind of the column of such a field, and the reason why it cannot change.
    """
    reasons: dict[int, list[str]] = {}
    fields: list[_Field] = []
    for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
        field = _Field(name, kind, values)
        if name in fixed:
            have, reason = fixed[name]
            field, misfits = _fitted(field, have, alters)
            for row, value in misfits.items():
                misfit = _misfit_reason(name, value, have)
                reasons.setdefault(row, []).append(f"{misfit}, and {reason}")
        fields.append(field)
    names, kinds = [field.name for field in fields], [field.kind for field in fields]
    columns = [field.values for field in fields]
    return ColumnBlock(names, kinds, columns, block.count, block.present), reasons


def _misfit_reason(name: str, value: Json, have: ColumnKind) -> str:
    shown = encode(value).decode() if type(value) in (int, float) else kind_of(value)
    return f"field {name!r} is {shown}, which its column {_MISFIT_REASON[have]}"


def _fitted(
    field: _Field, have: ColumnKind, alters: Alters | None
) -> tuple[_Field, Mapping[int, Any]]:
    """Return a field with null in place of misfits, and the misfits by row."""
    name, kind, values = field
    if kind in ("null", have) or have in ("null", "text"):
        return field, {}
    originals = json_values(values, kind)
    present = ((row, value) for row, value in enumerate(originals) if value is not None)
    if have != "any":
        fit = _FITS[have]
        fitted = [None if value is None else fit(value) for value in originals]
        misfits = {row: value for row, value in present if fitted[row] is None}
        return _Field(name, have, fitted), misfits
    if alters is None:
        return field, {}
    misfits = {row: value for row, value in present if alters(name, value)}
    kept = [None if row in misfits else value for row, value in enumerate(values)]
    return _Field(name, kind, kept), misfits


def _boolean(value: Json) -> bool | None:
    return bool(value) if type(value) in (bool, int, float) and value in (0, 1) else None


def _integer(value: Json) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    # Not a boolean, although Python has 1 for true: these are two values.
    return value if type(value) is int and -_INT64 <= value < _INT64 else None


def _real(value: Json) -> float | None:
    is_exact = type(value) is float or (type(value) is int and abs(value) <= EXACT)
    return float(value) if is_exact else None


def _numeric(value: Json) -> str | None:
    return encode(value).decode() if type(value) in (int, float) else None


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
