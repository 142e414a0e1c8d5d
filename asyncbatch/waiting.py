"""Parts whose rows wait to be loaded, as whichever of rows and columns they are wanted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncbatch.codec.decode import decode
from asyncbatch.records import BatchPart, Rows
from asyncbatch.sinks.block import Block, make_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.entries import Extent


class WaitingPart:
    """A part of whose rows `left` are not loaded yet."""

    def __init__(self, found: BatchPart) -> None:
        self.found = found
        self.rows = found.part.rows or Rows(b"", 0)
        self.left = self.rows.count
        self.refused: dict[tuple[int, int], tuple[int, str]] = {}
        """By file and record: a row that was refused, and why."""
        self.refused_rows: Counter[int] = Counter()
        """How many, by file."""
        self.extents: list[Extent | None] = []
        """Where the rows of each file are in the target, if that is a file."""
        found.part.rows = None
        self.is_settled = False
        self._block: Block | None = None
        self._objects: list[dict[str, Any]] | None = None

    def extend(self, place: int, extent: Extent) -> None:
        """Take note of more rows of the file at `place`, behind those before."""
        if not self.extents:
            self.extents = [None] * max(1, len(self.found.part))
        before = self.extents[place]
        self.extents[place] = before.joined(extent) if before else extent

    def drop_rows(self) -> None:
        """Let go of what was loaded."""
        self.rows = Rows(b"", 0)
        self._block = self._objects = None

    def objects(self, rows: range) -> list[dict[str, Any]]:
        """Return some rows as the objects that they came as."""
        if self._objects is None:
            self._objects = decode(bytes(self.rows.payload))
        return (self._objects or [])[rows.start : rows.stop]

    def columns(self, rows: range, *, of_objects: bool) -> Block:
        """Return some rows as columns; they came as such, or as objects."""
        if of_objects:
            return make_block(self.objects(rows))
        return self.unpack().slice(rows.start, rows.stop)

    def unpack(self) -> Block:
        """Return all rows, which came as columns."""
        if self._block is None:
            self._block = Block.from_bytes(self.rows.payload)
        return self._block

    def record(self, row: int) -> tuple[int, int]:
        """Return the file and the record that a row was made of."""
        return self.rows.places[row], self.rows.records[row]

    def origins(self, rows: range) -> Iterator[tuple[int, int, int]]:
        """Yield what tells the records of these rows from all others of the run."""
        first = self.found.part.start
        for row in rows:
            yield first, *self.record(row)

    def cut(self, start: int, stop: int, *, may_be_empty: bool) -> int:
        """Return the row nearest `stop`, before it if that can be, where a record's rows begin."""
        at = stop
        while at > start and self.record(at) == self.record(at - 1):
            at -= 1
        if at > start or may_be_empty:
            return at
        at = stop
        while at < self.rows.count and self.record(at) == self.record(at - 1):
            at += 1
        return at


Taken: TypeAlias = list[tuple[WaitingPart, range]]
"""Rows of one load, by what they came in."""
