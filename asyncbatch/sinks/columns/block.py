"""Column blocks: rows as columns, sent from the workers to a table.

A value keeps its JSON type in a block, whatever stands beside it. It is converted only when the
column of the table is known (`cells`), and the conversion depends on nothing but the value and the
column.
"""

from __future__ import annotations

from itertools import chain, compress, repeat
from operator import contains, itemgetter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from asyncbatch.errors import SinkError
from asyncbatch.formats.decoder import decode, encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from asyncbatch.core.records import Json

# The JSON types of the values of a field that are not null. "integer": 64-bit integers. "real":
# numbers with a fraction or an exponent. "number": both of these. "numeric": numbers of any size.
# "json": arrays and objects. "mixed": anything. A block holds values of the last three kinds as
# JSON texts, and other values as Python values.
Kind = Literal[
    "null", "boolean", "integer", "real", "number", "numeric", "text", "json", "mixed"
]  # fmt: skip

# The kind of a column. A column of kind "any" gets each value by its own type, and never widens.
ColumnKind = Literal["null", "boolean", "integer", "real", "numeric", "text", "json", "any"]

# The largest number of fields in a block. Records whose keys are data would need a column each.
MAX_FIELDS = 10_000

# The kind of a field whose values are all of one Python type.
_PLAIN: dict[type | None, Kind] = {None: "null", bool: "boolean", float: "real", str: "text"}
_JSON_TEXTS: tuple[Kind, ...] = ("numeric", "json", "mixed")
_WIDE: tuple[Kind, ...] = ("number", "numeric", "mixed")  # some rows may have a narrower kind
_NUMBERS = {"integer", "real", "number"}
_INT64 = 2**63
# Rows that become columns at a time: their values stay in the cache of the processor.
_CHUNK_ROWS = 256
_MAX_SHORT = 4  # one of this number of rows may lack fields, to be added with those that do not
EXACT = 2**53  # integers from -EXACT to EXACT are exact as doubles


class ColumnBlock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Rows as columns.

    A value is None if it is null or missing in its row. Every other value is of the kind of its
    column. `present` tells these two apart for each field that some rows lack: it has a byte for
    each row, 1 if the row has the field, else 0.
    """

    names: list[str]
    kinds: list[Kind]
    values: list[list[Any]]  # one list for each column, each with `count` values
    count: int  # rows
    present: dict[str, bytes] = {}

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
        count = len(range(self.count)[start:stop])
        present = {name: rows[start:stop] for name, rows in self.present.items()}
        return self._narrowed([column[start:stop] for column in self.values], count, present)

    def without(self, rows: Collection[int]) -> ColumnBlock:
        """Return the block without the rows of these numbers, and without fields of only these."""
        if not rows:
            return self
        kept = [row not in rows for row in range(self.count)]
        values = [list(compress(column, kept)) for column in self.values]
        present = {name: bytes(compress(rows, kept)) for name, rows in self.present.items()}
        block = self._narrowed(values, sum(kept), present)
        gone = {name for name, rows in block.present.items() if 1 not in rows}
        places = [place for place, name in enumerate(block.names) if name not in gone]
        return block.fields(places) if gone else block

    def select(self, rows: Sequence[int]) -> ColumnBlock:
        """Return the rows of these numbers, in this order, without fields that none of them has."""
        values = [[column[row] for row in rows] for column in self.values]
        present = {name: bytes(there[row] for row in rows) for name, there in self.present.items()}
        gone = {name for name, there in present.items() if 1 not in there}
        block = self._narrowed(values, len(rows), present)
        places = [place for place, name in enumerate(block.names) if name not in gone]
        return block.fields(places) if gone else block

    def fields(self, places: Sequence[int]) -> ColumnBlock:
        """Return the block with only the fields at these places."""
        names = [self.names[place] for place in places]
        return ColumnBlock(
            names,
            [self.kinds[place] for place in places],
            [self.values[place] for place in places],
            self.count,
            {name: self.present[name] for name in names if name in self.present},
        )

    def with_columns(self, columns: Mapping[str, Sequence[Any]]) -> ColumnBlock:
        """Return the block with more fields, which no row has yet.

        They stand where `make_block` puts fields at the end of each row.
        """
        typed = [_typed(list(values)) for values in columns.values()]
        block = ColumnBlock(
            [*self.names, *columns],
            [*self.kinds, *(kind for kind, _ in typed)],
            [*self.values, *(values for _, values in typed)],
            self.count,
            self.present,
        )
        firsts = list(map(_first_row, block.values))
        if firsts == sorted(firsts):
            return block
        return block.fields(sorted(range(len(firsts)), key=firsts.__getitem__))

    def _narrowed(
        self, values: list[list[Any]], count: int, present: Mapping[str, bytes]
    ) -> ColumnBlock:
        """Return a block of some rows, whose kinds are those of their own values."""
        kinds: list[Kind] = []
        for place, (kind, column) in enumerate(zip(self.kinds, values, strict=True)):
            found = kind
            if kind in _WIDE:
                found, values[place] = _typed(json_values(column, kind))
            elif kind != "null" and all(value is None for value in column):
                found = "null"
            kinds.append(found)
        return ColumnBlock(self.names, kinds, values, count, _incomplete(self.names, present))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ColumnBlock)


def make_block(rows: Sequence[dict[str, Json]]) -> ColumnBlock:
    """Return rows (JSON objects) as a block.

    Fields are in the order of their first values; fields without a value come last, in order of
    appearance. Neither order depends on how rows are divided into blocks. Raises SinkError for more
    than `MAX_FIELDS` fields.
    """
    fields: dict[str, _FieldValues] = {}
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        if not _add_uniform(fields, chunk):
            _add_any(fields, chunk, start)
            if len(fields) > MAX_FIELDS:
                raise SinkError(
                    f"a table cannot hold these records: more than {MAX_FIELDS:,} different fields,"
                    f" such as {next(reversed(fields))!r}; if the keys are data, make one record of"
                    " each"
                )
    names = list(fields)
    if any(field.values[0] is None for field in fields.values()):
        names = _by_first_value(rows, {name: field.values for name, field in fields.items()})
    typed = [_typed(fields[name].values, fields[name].types) for name in names]
    kinds, values = [kind for kind, _ in typed], [column for _, column in typed]
    present = {name: bytes(fields[name].present) for name in names if fields[name].present}
    return ColumnBlock(names, kinds, values, len(rows), present)


class _FieldValues(msgspec.Struct, gc=False):
    """The values of a field in the rows so far, their types, and which rows have the field."""

    values: list[Any]
    types: set[type]
    present: bytearray  # empty if all rows have it

    def add(self, column: Collection[Any], present: bytes | bytearray = b"") -> None:
        """Add the values of more rows; `present` is empty if all of them have the field."""
        if present and not self.present:
            self.present += b"\1" * len(self.values)
        if present or self.present:
            self.present += present or b"\1" * len(column)
        self.values += column
        self.types.update(map(type, column))


def _add_uniform(fields: Mapping[str, _FieldValues], rows: Sequence[dict[str, Json]]) -> bool:
    """Add rows that have these fields, most of them all; or change nothing and return False.

    Row by row, which is twice as fast as field by field: the values of a row are neighbours.
    """
    count = len(fields)
    short = [place for place, row in enumerate(rows) if len(row) != count]
    if count < 2 or len(short) > len(rows) // _MAX_SHORT:
        return False
    present: dict[str, bytearray] = {}
    if short:
        rows, blank = list(rows), dict.fromkeys(fields)
        for place in short:
            row = rows[place]
            for name in blank.keys() - row:
                present.setdefault(name, bytearray(b"\1" * len(rows)))[place] = 0
            rows[place] = blank | row
            if len(rows[place]) != count:
                return False
    try:
        columns = list(zip(*map(itemgetter(*fields), rows), strict=True))
    except KeyError:
        return False
    for (name, field), column in zip(fields.items(), columns, strict=True):
        field.add(column, present.get(name, b""))
    return True


def _add_any(fields: dict[str, _FieldValues], rows: Sequence[dict[str, Json]], before: int) -> None:
    """Add rows of any fields to those of the `before` rows."""
    there = dict.fromkeys(chain.from_iterable(rows))
    for name in there:
        if name not in fields:
            fields[name] = _FieldValues([None] * before, set(), bytearray(before))
    for name, field in fields.items():
        if name not in there:
            field.add([None] * len(rows), bytes(len(rows)))
            continue
        try:
            field.add(list(map(itemgetter(name), rows)))
        except KeyError:
            field.add([row.get(name) for row in rows], bytes(map(contains, rows, repeat(name))))


def _first_row(column: Sequence[Any]) -> int:
    """Return the number of the first row with a value, or that of rows."""
    if column and column[0] is not None:  # fast
        return 0
    return next((row for row, value in enumerate(column) if value is not None), len(column))


def _incomplete(names: Iterable[str], present: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return `present` in the order of `names`, without the fields that all rows have."""
    return {name: present[name] for name in names if name in present and 0 in present[name]}


def _by_first_value(rows: Sequence[dict[str, Json]], columns: dict[str, list[Any]]) -> list[str]:
    """Return the names of fields in the order of their first values."""
    firsts: dict[int, list[str]] = {}
    for name, column in columns.items():
        row = next((row for row, value in enumerate(column) if value is not None), len(rows))
        firsts.setdefault(row, []).append(name)
    names: list[str] = []
    for row in sorted(firsts):
        there = set(firsts[row])
        names += [name for name in rows[row] if name in there] if row < len(rows) else firsts[row]
    return names


def join_blocks(blocks: Sequence[ColumnBlock]) -> ColumnBlock:
    """Return the rows of all blocks as one block, with fields in the order of `make_block`."""
    if len(blocks) == 1:
        return blocks[0]
    # The parts of each field: the first row, the kind and the values.
    parts: dict[str, list[tuple[int, Kind, list[Any]]]] = {}
    empty: dict[str, list[tuple[int, Kind, list[Any]]]] = {}
    start = 0
    for block in blocks:
        for name, kind, column in zip(block.names, block.kinds, block.values, strict=True):
            if kind != "null":
                parts.setdefault(name, []).append((start, kind, column))
            else:
                empty.setdefault(name, [])
        start += block.count
    joined = parts | {name: found for name, found in empty.items() if name not in parts}
    kinds, values = [], []
    for field in joined.values():
        kind = joined_kind({kind for _, kind, _ in field})
        column = []
        for at, found, part in field:
            column.extend([None] * (at - len(column)))
            column.extend(_as_kind(part, found, kind))
        column.extend([None] * (start - len(column)))
        kinds.append(kind)
        values.append(column)
    return ColumnBlock(list(joined), kinds, values, start, _joined_present(blocks, joined))


def _joined_present(blocks: Sequence[ColumnBlock], names: Collection[str]) -> dict[str, bytes]:
    if all(len(block.names) == len(names) and not block.present for block in blocks):
        return {}  # fast: all rows have all fields
    parts: dict[str, list[bytes]] = {name: [] for name in names}
    for block in blocks:
        there = set(block.names)
        for name, found in parts.items():
            rows = block.present.get(name, b"\1" * block.count)
            found.append(rows if name in there else bytes(block.count))
    return _incomplete(names, {name: b"".join(found) for name, found in parts.items()})


def joined_kind(kinds: Collection[Kind]) -> Kind:
    """Return the kind of a field with values of all these kinds."""
    present = set(kinds) - {"null"}
    if len(present) <= 1:
        return next(iter(present), "null")
    if present <= _NUMBERS:
        return "number"
    return "numeric" if present <= _NUMBERS | {"numeric"} else "mixed"


def _as_kind(values: list[Any], kind: Kind, joined: Kind) -> list[Any]:
    """Return values as a block holds them for a kind that `joined_kind` returned."""
    if joined not in _JSON_TEXTS or kind in _JSON_TEXTS:
        return values
    return [None if value is None else encode(value).decode() for value in values]


def _typed(column: list[Any], found: Iterable[type] | None = None) -> tuple[Kind, list[Any]]:
    """Return the kind of a column of JSON values, and its values as a block holds them.

    `found` has the types of the values, if they are known.
    """
    types = set(map(type, column) if found is None else found)
    types.discard(type(None))
    if len(types) <= 1 and (kind := _PLAIN.get(next(iter(types), None))):
        return kind, column
    if types <= {int, float}:
        integers = column if float not in types else [v for v in column if type(v) is int]
        if is_int64(integers):
            return "number" if float in types else "integer", column
        return "numeric", _as_kind(column, "number", "numeric")
    wide: Kind = "json" if types <= {dict, list} else "mixed"
    return wide, _as_kind(column, "text", wide)


def block_objects(block: ColumnBlock) -> list[dict[str, Any]]:
    """Return the rows of a block as objects without null fields."""
    rows: list[dict[str, Any]] = [{} for _ in range(block.count)]
    for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
        for row, value in zip(rows, json_values(values, kind), strict=True):
            if value is not None:
                row[name] = value
    return rows


def json_values(values: list[Any], kind: Kind) -> list[Any]:
    """Return the JSON values of a field."""
    if kind not in _JSON_TEXTS:
        return values
    return [None if text is None else decode(text.encode()) for text in values]


def json_texts(values: list[Any], kind: Kind) -> list[str | None]:
    """Return the values of a field as JSON texts."""
    return values if kind == "null" else _as_kind(values, kind, "mixed")


def plain_texts(values: list[Any], kind: Kind) -> list[str | None]:
    """Return the values of a field as a column of texts holds them.

    A string stays as it is. Another value becomes its JSON text; a number becomes its shortest
    text, so that 1 and 1.0 are both "1". A column of numbers cannot tell 1 from 1.0 either, and may
    become a column of texts later.
    """
    if kind in ("null", "text"):
        return values
    if kind in ("boolean", "integer", "real", "number"):
        texts = encode(values)[1:-1].decode().split(",") if values else []
        if kind in ("real", "number"):
            texts = [text.removesuffix(".0") for text in texts]
        return [None if text == "null" else text for text in texts]
    if kind == "json":
        return values
    return [None if text is None else _plain_text(text) for text in values]


def without_negative_zero(kind: Kind, values: list[Any]) -> list[Any]:
    """Return the values of a field with 0.0 in place of -0.0."""
    if kind in ("real", "number"):
        if 0.0 not in values:  # fast; -0.0 is equal to it
            return values
        return [0.0 if type(value) is float and value == 0 else value for value in values]
    if kind in ("numeric", "mixed"):
        return ["0.0" if value == "-0.0" else value for value in values]
    return values


def _plain_text(text: str) -> str:
    if text[0] == '"':
        return str(decode(text.encode()))
    return text if text[0] in "[{" else text.removesuffix(".0")


def integers_of(values: list[Any], kind: Kind) -> Iterable[int | None]:
    """Return the integers of a field of numbers, perhaps with nulls."""
    if kind == "integer":
        return values
    return (value for value in values if type(value) is int) if kind == "number" else ()


def is_int64(integers: Iterable[int | None]) -> bool:
    """Whether 64 bits can hold all these integers."""
    return _in_range(integers, -_INT64, _INT64 - 1)


def is_exact(integers: Iterable[int | None]) -> bool:
    """Whether double precision numbers can hold all these integers."""
    return _in_range(integers, -EXACT, EXACT)


def _in_range(integers: Iterable[int | None], low: int, high: int) -> bool:
    present = list(filter(None, integers))  # without nulls, and without 0, which is in the range
    return not present or (low <= min(present) and max(present) <= high)
