"""The base of sinks for databases that can undo a part of a transaction."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from asyncbatch.core.origin import FILE_COLUMN
from asyncbatch.sinks.columns.table import Written
from asyncbatch.sinks.databases.base import DatabaseSink
from asyncbatch.sinks.databases.sql import quote, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.sinks.columns.block import ColumnBlock, ColumnKind
    from asyncbatch.sinks.columns.table import Admitted


class SavepointSink(DatabaseSink):
    """A sink for a database that can undo a part of a transaction.

    A change of the table is made for a block of rows, and undone if the rows are rejected.
    """

    _indexed_file = quote(FILE_COLUMN)  # the indexed expression of a mirror

    def _write_admitted(self, admitted: Admitted) -> Written:
        """Change the table for admitted rows, and insert them."""
        block = admitted.block
        changes = self._changes(block)
        is_changing = any(kind != "null" for kind in changes.values()) or not self._present
        state, is_undone = self._state() if is_changing else None, False
        if is_changing:
            self._run("SAVEPOINT shape")
        if reason := self._reshape(block, changes):
            reasons = dict.fromkeys(range(block.count), reason)
        else:
            self._index()
            if is_changing and self.mode == "mirror":
                self._index_files()
            if reasons := dict(self._claim_keys(block, admitted.groups)):
                is_undone = True
            else:
                reasons = self._insert(block, admitted.groups)
                reasons = self._named_clashes(block, reasons)
        is_undone = is_undone or (is_changing and bool(reasons))
        if is_undone and is_changing:
            self._run("ROLLBACK TO shape")
            self._restore(state)
        if is_changing:
            self._run("RELEASE shape")
        return Written(reasons, is_undone)

    def _index_files(self) -> None:
        if self._has_files:
            name, columns = quote(self._sibling("file").table), self._indexed_file
            self._run(f"CREATE INDEX IF NOT EXISTS {name} ON {self._name.sql} ({columns})")

    def _index(self) -> None:
        """Create a unique index on the key, if there is none."""
        if self._lacks_index and not self._has_unique_key():
            name = quote(self._sibling("key").table)
            self._run(f"CREATE UNIQUE INDEX {name} ON {self._name.sql} ({quoted(self.key)})")

    @abstractmethod
    def _changes(self, block: ColumnBlock) -> dict[str, ColumnKind]:
        """Return the new and wider columns that a block needs, with their kinds."""

    @abstractmethod
    def _state(self) -> Any:
        """Return a copy of the state before a change of the table."""

    @abstractmethod
    def _restore(self, state: Any) -> None:
        """Return to an earlier state, after a change of the table was undone."""

    @abstractmethod
    def _reshape(self, block: ColumnBlock, changes: Mapping[str, ColumnKind]) -> str | None:
        """Change the table so that it can hold a block; return the reason if it cannot."""

    @abstractmethod
    def _insert(self, block: ColumnBlock, groups: Sequence[int] | None) -> dict[int, str]:
        """Insert the rows that the table accepts; return the reasons against the others."""
