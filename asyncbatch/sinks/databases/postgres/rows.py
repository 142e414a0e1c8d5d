"""Loads of rows into a PostgreSQL table: by COPY, or through a staging table."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from asyncbatch.sinks.databases.postgres.values import as_sent
from asyncbatch.sinks.databases.sql import TableName, quote, quoted, replacement

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncbatch.sinks.columns.block import ColumnBlock
    from asyncbatch.sinks.databases.postgres.server import PostgresConnection
    from asyncbatch.sinks.databases.postgres.values import ColumnType


class PostgresLoad:
    """The load of a block into a table.

    `types` has the types of its columns. Columns without a field get their defaults; so does the
    column of a field that a row lacks, if `defaults` has its SQL expression. With a `key`, a row
    replaces earlier rows of the block with the same key. It replaces a row of the table only if
    `replaces` is true, which takes twice as long: the columns `replaced` of that row then get the
    values of the new one. If `is_staged` is true, rows are copied into a temporary table first.
    Both may be set after `load` has failed. `overrides`: identities are written. Call `misfits`,
    then `load` for ranges of rows (and `undo` after each error), then `end`.
    """

    def __init__(
        self,
        connection: PostgresConnection,
        table: TableName,
        types: Mapping[str, ColumnType],
        block: ColumnBlock,
        *,
        key: Sequence[str] = (),
        replaced: Collection[str] = (),
        defaults: Mapping[str, str] = MappingProxyType({}),
        overrides: bool = False,
    ) -> None:
        self._connection, self._table = connection, table
        self.replaces = self.is_staged = False
        self._key, self._overrides, self._count = key, overrides, block.count
        self._replaced = [name for name in types if name in replaced and name not in key]
        there = [place for place, name in enumerate(block.names) if name in types]
        # The columns that are fields of the block.
        self._names = [block.names[place] for place in there]
        fields = [
            as_sent(block.kinds[place], block.values[place], types[block.names[place]])
            for place in there
        ]
        self._types = [column for column, _ in fields]
        self._values = [values for _, values in fields]
        self._places = [self._names.index(name) for name in key if name in self._names]
        staged = [
            f"c{place} {column.declared if column.is_known else 'text'}"
            for place, column in enumerate(self._types)
        ]
        self._selected = [f"c{place}{column.cast}" for place, column in enumerate(self._types)]
        for place, name in enumerate(self._names):
            if name in defaults and name in block.present:
                flag = f"c{len(staged)}"
                staged.append(f"{flag} boolean")
                self._values.append(list(map(bool, block.present[name])))
                selected = f"CASE WHEN {flag} THEN {self._selected[place]}"
                self._selected[place] = f"{selected} ELSE {defaults[name]} END"
        # The columns of the stage: those of the fields, then whether rows have fields.
        self._staged = [f"c{place}" for place in range(len(staged))]
        stage = ", ".join(staged)
        digest = hashlib.blake2b(stage.encode(), digest_size=8).hexdigest()
        # A temporary table for rows of these types. All loads of the session use it.
        self._stage = TableName("pg_temp", f"asyncbatch: {digest}")
        self._create = f"CREATE TEMP TABLE IF NOT EXISTS {quote(self._stage.table)} ({stage})"
        # Behind a pooler, the session is that of other clients afterwards.
        end = "DROP" if connection.is_pooled else "DELETE ROWS"
        self._create += f" ON COMMIT {end}; "
        self._is_tried = False

    @property
    def _needs_stage(self) -> bool:
        if not self._names or self.is_staged:
            return bool(self._names)
        if len(self._staged) > len(self._names):
            return True
        return (bool(self._key) and self.replaces) or not all(
            column.is_known for column in self._types
        )

    def misfits(self) -> dict[int, str]:
        """Return reasons against rows with values that the server would change silently."""
        reasons: dict[int, str] = {}
        for name, column, values in zip(self._names, self._types, self._values, strict=False):
            if (loss := column.loss) is None:
                continue
            for row, value in enumerate(values):
                if value is not None and (found := loss(value)) is not None:
                    reasons.setdefault(
                        row, f"column {name} is {column.declared}, which {found} {value}"
                    )
        return reasons

    def load(self, start: int, stop: int) -> None:
        """Load the rows from `start` up to `stop`, exclusive.

        Raises the error of the server; call `undo` after it.
        """
        before = "RELEASE attempt; " if self._is_tried else ""
        create = self._create if self._needs_stage else ""
        self._connection.execute(f"{before}{create}SAVEPOINT attempt")
        self._is_tried = True
        if not self._names:
            for _ in range(start, stop):
                self._connection.execute(f"INSERT INTO {self._table.sql} DEFAULT VALUES")
            return
        parts = self._values
        if stop - start < self._count:
            parts = [values[start:stop] for values in parts]
        if self._key:
            parts = self._latest(parts)
        rows = zip(*parts, strict=True)
        if not self._needs_stage:
            self._connection.copy(self._table, self._names, rows)
            return
        self._connection.copy(self._stage, self._staged, rows)
        self._connection.execute(f"{self._move}; TRUNCATE {self._stage.sql}")

    def remove(self) -> None:
        """Delete the rows of the table that have the key of a row of the block."""
        self._connection.execute(self._create)
        self._connection.copy(self._stage, self._staged, zip(*self._values, strict=True))
        self._connection.execute(
            f"DELETE FROM {self._table.sql} t USING {self._stage.sql} s WHERE {self._same};"  # noqa: S608 - quoted
            f" TRUNCATE {self._stage.sql}"
        )

    def owners(self, owner: str) -> dict[int, str | None]:
        """Return the value of an expression of the row `t` with the same key, by row."""
        self._connection.execute(self._create)
        self._connection.copy(self._stage, self._staged, zip(*self._values, strict=True))
        # COPY fills the empty stage in order, so the place of a row in it is its number.
        numbered = f"(SELECT *, row_number() OVER (ORDER BY ctid) - 1 AS n FROM {self._stage.sql})"  # noqa: S608 - quoted
        query = f"SELECT s.n, {owner} FROM {numbered} s JOIN {self._table.sql} t ON {self._same}"  # noqa: S608 - quoted
        owners: dict[int, str | None] = dict(self._connection.fetch(query))
        self._connection.execute(f"TRUNCATE {self._stage.sql}")
        return owners

    @property
    def _same(self) -> str:
        """The condition that a row `t` of the table has the key of the staged row `s`."""
        return " AND ".join(
            f"t.{quote(self._names[place])} = s.c{place}::{self._types[place].declared}"
            for place in self._places
        )

    def end(self) -> None:
        """Release the savepoint of the last `load`."""
        if self._is_tried:
            self._connection.execute("RELEASE attempt")

    def undo(self) -> None:
        """Roll back a `load` that failed."""
        self._connection.execute("ROLLBACK TO attempt")

    def _latest(self, parts: list[list[Any]]) -> list[list[Any]]:
        """Return the columns with only the last row of each key."""
        columns = [parts[place] for place in self._places]
        keys = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        if len(set(keys)) == len(keys):
            return parts
        kept = sorted({key: row for row, key in enumerate(keys)}.values())
        return [[values[row] for row in kept] for values in parts]

    @property
    def _move(self) -> str:
        """Return the statement that moves the staged rows into the table."""
        statement = f"INSERT INTO {self._table.sql} ({quoted(self._names)})"
        if self._overrides:  # COPY always does
            statement += " OVERRIDING SYSTEM VALUE"
        statement += f" SELECT {', '.join(self._selected)} FROM {self._stage.sql}"  # noqa: S608 - quoted
        return statement + (replacement(self._key, self._replaced) if self._key else "")
