"""Column blocks: rows as columns, sent from the workers to a database."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import chain, compress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from asyncbatch.errors import SinkError
from asyncbatch.formats.decoder import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from asyncbatch.core.records import Json

# The kind of the values of a column that are not null, from narrow to wide. "numeric" (numbers of
# any size), "json" (nested values) and "mixed" exist only in blocks made with `rich`; other blocks
# have text instead. A block holds values of these three kinds as JSON texts.
Kind = Literal["null", "boolean", "integer", "real", "numeric", "text", "json", "mixed"]

# The largest number of fields in a block. Records whose keys are data would need a column each.
MAX_FIELDS = 10_000

_RANK: dict[Kind, int] = {kind: rank for rank, kind in enumerate(get_args(Kind))}
# The kind of a column whose values are all of one Python type.
_PLAIN: dict[type | None, Kind] = {None: "null", bool: "boolean", float: "real", str: "text"}
_INT64 = 2**63
_EXACT = 2**53  # Integers from -_EXACT to _EXACT are exact as doubles.


# A part of a joined column: its first row, its kind and its values.
_ColumnPart = tuple[int, Kind, list[Any]]


class ColumnBlock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Rows as columns.

    A value is None if it is null or missing in its row. Every other value is of the kind of its
    column.
    """

    names: list[str]
    kinds: list[Kind]
    values: list[list[Any]]  # one list for each column, each with `count` values
    count: int  # rows

    def to_bytes(self) -> bytes:
        """Return the block as MessagePack, to be sent to another process."""
        return _encoder.encode(self)

    @staticmethod
    def from_bytes(data: bytes | bytearray) -> ColumnBlock:
        """Return the block that `to_bytes` encoded."""
        return _decoder.decode(data)

    def slice(self, start: int, stop: int) -> ColumnBlock:
        """Return the rows from number `start` (from 0) up to `stop`, exclusive."""
        if not start and stop >= self.count:
            return self
        values = [column[start:stop] for column in self.values]
        return ColumnBlock(self.names, self.kinds, values, len(range(self.count)[start:stop]))

    def without(self, rows: Collection[int]) -> ColumnBlock:
        """Return the block without the rows of these numbers."""
        if not rows:
            return self
        kept = [row not in rows for row in range(self.count)]
        values = [list(compress(column, kept)) for column in self.values]
        return ColumnBlock(self.names, self.kinds, values, sum(kept))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ColumnBlock)


def make_block(rows: Sequence[dict[str, Json]], *, rich: bool = False) -> ColumnBlock:
    """Return rows (JSON objects) as a block, with fields in order of appearance.

    In a column with floats, integers become floats if all of them are exact as floats. In a column
    with numbers, booleans become 1 and 0. Values without a common kind become text, and nested
    values become JSON text. With `rich`, larger numbers are of kind numeric, nested values of kind
    json, and values without a common kind of kind mixed. Raises SinkError for more than
    `MAX_FIELDS` fields.
    """
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    if len(names) > MAX_FIELDS:
        raise SinkError(
            f"a table cannot hold these records: more than {MAX_FIELDS:,} different fields, such "
            f"as {names[-1]!r}; if the keys are data, make one record of each"
        )
    kinds, values = [], []
    for name in names:
        kind, column = _typed(_column(rows, name), rich=rich)
        kinds.append(kind)
        values.append(column)
    return ColumnBlock(names, kinds, values, len(rows))


def _column(rows: Sequence[dict[str, Json]], name: str) -> list[Any]:
    """Return the values of a field, with None for each row without the field."""
    with suppress(KeyError):  # fast: most fields are in all rows, or missing in one of the first
        return list(map(itemgetter(name), rows))
    return [row.get(name) for row in rows]


def join_blocks(blocks: Sequence[ColumnBlock], *, rich: bool = False) -> ColumnBlock:
    """Return the rows of all blocks as one block, with a common kind for each column."""
    if len(blocks) == 1:
        return blocks[0]
    parts: dict[str, list[_ColumnPart]] = {}
    start = 0
    for block in blocks:
        for name, kind, column in zip(block.names, block.kinds, block.values, strict=True):
            parts.setdefault(name, []).append((start, kind, column))
        start += block.count
    kinds, values = [], []
    for column_parts in parts.values():
        found_kinds = {kind for _, kind, _ in column_parts}
        kind = common_kind(found_kinds, partial(_all_exact, column_parts), rich=rich)
        joined: list[Any] = []
        for at, found, column in column_parts:
            joined.extend([None] * (at - len(joined)))
            joined.extend(convert_values(column, found, kind))
        joined.extend([None] * (start - len(joined)))
        kinds.append(kind)
        values.append(joined)
    return ColumnBlock(list(parts), kinds, values, start)


def _all_exact(parts: list[_ColumnPart]) -> bool:
    return all(is_exact(column) for _, kind, column in parts if kind == "integer")


def common_kind(
    kinds: Collection[Kind], are_exact: Callable[[], bool], *, rich: bool = False
) -> Kind:
    """Return the narrowest kind that can hold the values of all these kinds.

    `are_exact` returns whether every integer is exact as a double. If not, integers and floats
    together become text. `make_block` describes `rich`.
    """
    present = set(kinds) - {"null"}
    widest = max(kinds, key=_RANK.__getitem__)
    if widest == "real" and "integer" in kinds and not are_exact():
        return "numeric" if rich else "text"
    return "mixed" if rich and widest in ("text", "json") and len(present) > 1 else widest


def is_exact(integers: Iterable[int | None]) -> bool:
    """Whether double precision numbers can hold all these integers."""
    return _in_range(integers, -_EXACT, _EXACT)


def convert_values(values: list[Json], kind: Kind, wider: Kind) -> list[Any]:
    """Return the values of a column converted to a wider kind."""
    if kind in ("null", wider) or (kind in ("numeric", "json") and wider == "mixed"):
        return values
    if kind == "text":  # and `wider` is "mixed"
        return [None if text is None else encode(text).decode() for text in values]
    if kind in ("numeric", "json", "mixed"):  # and `wider` is "text"
        return [decode(text.encode()) if text and text[0] == '"' else text for text in values]
    if wider == "numeric" and kind == "boolean":
        values = convert_values(values, "boolean", "integer")
    if wider in ("text", "numeric", "mixed"):
        texts = encode(values)[1:-1].decode().split(",")
        return [None if text == "null" else text for text in texts] if values else []
    number = float if wider == "real" else int
    return [None if value is None else number(value) for value in values]


def _typed(column: list[Any], *, rich: bool) -> tuple[Kind, list[Any]]:
    """Return the kind of a column of JSON values, and its values converted to it."""
    types = set(map(type, column))
    types.discard(type(None))
    if len(types) <= 1 and (kind := _PLAIN.get(next(iter(types), None))):
        return kind, column
    if types <= {int, bool} and _in_range(column, -_INT64, _INT64 - 1):
        return "integer", convert_values(column, "boolean", "integer") if bool in types else column
    if types <= {int, bool, float} and float in types:
        integers = [value for value in column if type(value) is int] if int in types else []
        if is_exact(integers):
            return "real", convert_values(column, "integer", "real")
    if rich and types <= {int, bool, float}:
        plain = [int(value) if type(value) is bool else value for value in column]
        return "numeric", [None if value is None else encode(value).decode() for value in plain]
    if rich:
        nested: Kind = "json" if types <= {dict, list} else "mixed"
        return nested, [None if value is None else encode(value).decode() for value in column]
    return "text", [
        value if value is None or type(value) is str else encode(value).decode() for value in column
    ]


def _in_range(integers: Iterable[int | None], low: int, high: int) -> bool:
    present = [value for value in integers if value is not None]
    return not present or (low <= min(present) and max(present) <= high)
