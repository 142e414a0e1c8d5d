"""What is asked of rows once their table is there: nothing, or that they fit it as it is.

A value fits a column that can hold it, whatever values come beside it: numbers count by value (1.0
is 1, and true where a column is of booleans), and a column of texts takes anything. So which rows
fit does not depend on how they come together in blocks, if these are rich (see `make_block`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asyncbatch.codec.decode import decode
from asyncbatch.codec.encode import encode
from asyncbatch.sinks.block import Block, convert, is_exact, make_block
from asyncbatch.transforms import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from asyncbatch.sinks.block import Kind
    from asyncbatch.sinks.columns import ColumnKind
    from asyncbatch.sinks.target import SchemaContract

    Alters = Callable[[str, Any], bool]
    """Whether a column of kind "any" would make something else of a value, or be changed for it."""

_INT64 = 2**63
_EXACT = 2**53
_JSON: tuple[Kind, ...] = ("numeric", "json", "mixed")
"""Kinds whose values travel as JSON texts."""
_WIDER: dict[Kind, tuple[Kind, ...]] = {
    "boolean": ("integer", "real", "numeric"),
    "integer": ("numeric",),
    "real": ("numeric",),
}
_CANNOT: dict[str, str] = {
    "boolean": "of booleans cannot hold",
    "integer": "of 64-bit integers cannot hold",
    "real": "of floating-point numbers cannot hold",
    "numeric": "of numbers cannot hold",
    "any": "would not keep as it is",
}
"""What is wrong with a value, by the kind of its column."""
_TOLD_FIELDS = 10


class _Field(NamedTuple):
    name: str
    kind: Kind
    values: list[Any]


class Contract:
    """Holds a table to what it is, unless it may `evolve`.

    `freeze` refuses rows that do not fit. `discard` leaves out fields that have no column, and
    values that do not fit theirs; but a row whose `key` would lack a part is refused.
    """

    def __init__(self, mode: SchemaContract = "evolve", key: Sequence[str] = ()) -> None:
        self._mode, self._key = mode, key
        self._unknown: dict[str, None] = {}
        self._misfits: dict[str, None] = {}
        """Fields of which something was left out, in the order of their coming."""

    @property
    def holds(self) -> bool:
        """Whether a table stays as it is."""
        return self._mode != "evolve"

    @property
    def note(self) -> str | None:
        """What was left out so far, in words."""
        told = []
        if self._unknown:
            told.append(f"fields without a column ({_listed(self._unknown)})")
        if self._misfits:
            told.append(f"values that do not fit their column ({_listed(self._misfits)})")
        return f"left out, as the schema contract has it: {' and '.join(told)}" if told else None

    def apply(
        self,
        block: Block,
        kinds: Mapping[str, ColumnKind | None],
        fold: Callable[[str], str],
        alters: Alters | None,
    ) -> tuple[Block, dict[int, list[str]]]:
        """Return what a table takes of a block, and why it refuses some of the rows.

        `kinds` are of the columns that the fields go to, None where there is none. Names that
        `fold` to the same are one.
        """
        of_key = set(map(fold, self._key))
        reasons: dict[int, list[str]] = {}
        fields: list[_Field] = []
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if (have := kinds[name]) is None:
                self._leave_out(name, values, reasons)
                continue
            field, misfits = _fitted(_Field(name, kind, values), have, alters)
            fields.append(field)
            if misfits and self._mode == "discard" and fold(name) not in of_key:
                self._misfits[name] = None
            else:
                for row, value in misfits.items():
                    reasons.setdefault(row, []).append(self._misfit(name, value, have))
        columns = [field.values for field in fields]
        names, found = [field.name for field in fields], [field.kind for field in fields]
        return Block(names, found, columns, block.count), reasons

    def _leave_out(self, name: str, values: list[Any], reasons: dict[int, list[str]]) -> None:
        """Forget a field that has no column, or refuse the rows with a value in it."""
        rows = [row for row, value in enumerate(values) if value is not None]
        if rows and self._mode == "discard":
            self._unknown[name] = None
            return
        for row in rows:
            reasons.setdefault(row, []).append(
                f"field {name!r} is new, and the schema contract is freeze: add a column for it, or"
                " choose evolve or discard"
            )

    def _misfit(self, name: str, value: Any, have: ColumnKind) -> str:  # noqa: ANN401 - JSON
        what = encode(value).decode() if type(value) in (int, float) else kind_of(value)
        reason = f"field {name!r} is {what}, which its column {_CANNOT[have]}"
        if self._mode == "discard":
            return f"{reason}; and without it the key would not be whole"
        return (
            f"{reason}, and the schema contract is freeze: change the column, or choose evolve or"
            " discard"
        )


def by_itself(block: Block) -> Block:
    """Return a rich block with no columns and kinds but those that its own values ask for.

    It may be cut from a larger one, or be of fields that are null so far; if all are, they stay.
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


def plain(block: Block) -> Block:
    """Return a rich block as one that is not: see `make_block`."""
    if not any(kind in _JSON for kind in block.kinds):
        return block
    kinds: list[Kind] = ["text" if kind in _JSON else kind for kind in block.kinds]
    values = [
        convert(values, kind, "text") if kind in _JSON else values
        for kind, values in zip(block.kinds, block.values, strict=True)
    ]
    return Block(block.names, kinds, values, block.count)


def _fitted(
    field: _Field, have: ColumnKind, alters: Alters | None
) -> tuple[_Field, Mapping[int, Any]]:
    """Return a field with null for what its column cannot hold, and what that is, by row."""
    name, kind, values = field
    if kind in ("null", have) or have in ("null", "text") or have in _WIDER.get(kind, ()):
        return field, {}
    if kind == "integer" and have == "real" and is_exact(values):
        return field, {}
    originals = _decoded(values) if kind in _JSON else values
    present = ((row, value) for row, value in enumerate(originals) if value is not None)
    if have != "any":
        fit = _FITS[have]
        taken = [None if value is None else fit(value) for value in originals]
        return _Field(name, have, taken), {row: v for row, v in present if taken[row] is None}
    if alters is None:
        return field, {}
    misfits = {row: value for row, value in present if alters(name, value)}
    taken = [None if row in misfits else value for row, value in enumerate(values)]
    return _Field(name, kind, taken), misfits


def _decoded(texts: list[str | None]) -> list[Any]:
    return [None if text is None else decode(text.encode()) for text in texts]


def _boolean(value: Any) -> bool | None:  # noqa: ANN401 - JSON
    return bool(value) if type(value) in (bool, int, float) and value in (0, 1) else None


def _integer(value: Any) -> int | None:  # noqa: ANN401 - JSON
    if type(value) is float and value.is_integer():
        value = int(value)
    is_whole = type(value) in (bool, int)
    return int(value) if is_whole and -_INT64 <= value < _INT64 else None


def _real(value: Any) -> float | None:  # noqa: ANN401 - JSON
    is_exact = type(value) is float or (type(value) in (bool, int) and abs(value) <= _EXACT)
    return float(value) if is_exact else None


def _numeric(value: Any) -> str | None:  # noqa: ANN401 - JSON
    if type(value) not in (bool, int, float):
        return None
    return encode(int(value) if type(value) is bool else value).decode()


_FITS: dict[str, Callable[[Any], Any]] = {
    "boolean": _boolean,
    "integer": _integer,
    "real": _real,
    "numeric": _numeric,
}
"""What a value is in a column of this kind; None if that would not be the value."""


def _listed(names: Iterable[str]) -> str:
    told = list(map(repr, names))
    if len(told) > _TOLD_FIELDS:
        told[_TOLD_FIELDS:] = [f"{len(told) - _TOLD_FIELDS:,} more"]
    return ", ".join(told)
