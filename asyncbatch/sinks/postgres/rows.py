"""Loads of rows into a PostgreSQL table: by COPY, or through a staging table."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from asyncbatch.sinks.column_block import json_texts
from asyncbatch.sinks.columns import cells
from asyncbatch.sinks.postgres.server import TableName
from asyncbatch.sinks.postgres.table import KINDS, TIME, times
from asyncbatch.sinks.sql_names import quote, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.sinks.column_block import ColumnBlock, Kind
    from asyncbatch.sinks.postgres.server import PostgresConnection

_SCALED = re.compile(r"numeric\((\d+),(-?\d+)\)")
# Types whose casts cut a value that is too long. An assignment without a cast rejects it.
_CUTTING = re.compile(r"(character varying|character|bit|bit varying)\b")


class PostgresLoad:
    """The load of a block into a table.

    `types` has the declared types of its columns. Columns without a field are null. With a `key`, a
    row replaces earlier rows of the block with the same key. It replaces a row of the table only if
    `replaces` is true, which takes twice as long; it may be set after `load` has failed. Call
    `misfits`, then `load` for ranges of rows (and `undo` after each error), then `end`.
    """

    def __init__(
        self,
        connection: PostgresConnection,
        table: TableName,
        types: Mapping[str, str],
        block: ColumnBlock,
        *,
        key: Sequence[str] = (),
        replaces: bool = False,
    ) -> None:
        self._connection, self._table = connection, table
        self.replaces = replaces
        self._key, self._columns = key, list(types)
        there = [place for place, name in enumerate(block.names) if name in types]
        # The columns that are fields of the block.
        self._names = [block.names[place] for place in there]
        self._types = [types[name] for name in self._names]
        self._values = [
            _fitted(block.kinds[place], block.values[place], declared)
            for place, declared in zip(there, self._types, strict=True)
        ]
        self._places = [self._names.index(name) for name in key if name in self._names]
        stage = ", ".join(
            f"c{place} {declared if _is_known_type(declared) else 'text'}"
            for place, declared in enumerate(self._types)
        )
        digest = hashlib.blake2b(stage.encode(), digest_size=8).hexdigest()
        # A temporary table for rows of these types. All loads of the session use it.
        self._stage = TableName("pg_temp", f"asyncbatch: {digest}")
        self._create = f"CREATE TEMP TABLE IF NOT EXISTS {quote(self._stage.table)} ({stage})"
        self._create += " ON COMMIT DELETE ROWS; "
        self._is_tried = False

    @property
    def _is_staged(self) -> bool:
        if not self._names:
            return False
        return (bool(self._key) and self.replaces) or not all(map(_is_known_type, self._types))

    def misfits(self) -> dict[int, str]:
        """Return reasons against rows with values that the server would round silently."""
        reasons: dict[int, str] = {}
        for name, declared, values in zip(self._names, self._types, self._values, strict=True):
            if found := _SCALED.fullmatch(declared):
                scale = int(found[2])
                for row, value in enumerate(values):
                    if value is not None and _is_rounded(value, scale):
                        reason = f"column {name} is {declared}, which would round {value}"
                        reasons.setdefault(row, reason)
        return reasons

    def load(self, start: int, stop: int) -> None:
        """Load the rows from `start` up to `stop`, exclusive.

        Raises the error of the server; call `undo` after it.
        """
        before = "RELEASE attempt; " if self._is_tried else ""
        create = self._create if self._is_staged else ""
        self._connection.execute(f"{before}{create}SAVEPOINT attempt")
        self._is_tried = True
        if not self._names:
            for _ in range(start, stop):
                self._connection.execute(f"INSERT INTO {self._table.sql} DEFAULT VALUES")
            return
        parts = [values[start:stop] for values in self._values]
        if self._key:
            parts = self._latest(parts)
        rows = zip(*parts, strict=True)
        if not self._is_staged:
            self._connection.copy(self._table, self._names, rows)
            return
        self._connection.copy(self._stage, [f"c{place}" for place in range(len(self._names))], rows)
        self._connection.execute(f"{self._move}; TRUNCATE {self._stage.sql}")

    def remove(self) -> None:
        """Delete the rows of the table that have the key of a row of the block."""
        self._connection.execute(self._create)
        columns = [f"c{place}" for place in range(len(self._names))]
        self._connection.copy(self._stage, columns, zip(*self._values, strict=True))
        same = " AND ".join(
            f"t.{quote(self._names[place])} = s.c{place}::{self._types[place]}"
            for place in self._places
        )
        self._connection.execute(
            f"DELETE FROM {self._table.sql} t USING {self._stage.sql} s WHERE {same};"  # noqa: S608 - quoted
            f" TRUNCATE {self._stage.sql}"
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
        selected = ", ".join(
            f"c{place}" if _is_assigned(declared) else f"c{place}::{declared}"
            for place, declared in enumerate(self._types)
        )
        statement = f"INSERT INTO {self._table.sql} ({quoted(self._names)})"
        statement += f" SELECT {selected} FROM {self._stage.sql}"  # noqa: S608 - quoted
        if not self._key:
            return statement
        replaced = [quote(name) for name in self._columns if name not in self._key]
        update = ", ".join(f"{name} = excluded.{name}" for name in replaced)
        action = f"UPDATE SET {update}" if update else "NOTHING"
        return f"{statement} ON CONFLICT ({quoted(self._key)}) DO {action}"


def _is_known_type(declared: str) -> bool:
    """Whether values of this type are sent in binary form, not as text."""
    return declared in KINDS or declared == "jsonb"


def _is_assigned(declared: str) -> bool:
    return _is_known_type(declared) or _CUTTING.match(declared) is not None


def _fitted(kind: Kind, values: list[Any], declared: str) -> list[Any]:
    """Return the values of a column as they are sent to a column of type `declared`."""
    if kind == "null":
        return values
    if declared == TIME:
        return times(values)
    if declared == "jsonb":
        return json_texts(values, kind)
    have = KINDS.get(declared, "text")  # the server reads a text as a value of another type
    fitted = cells(values, kind, have)
    return list(map(_decimal, fitted)) if have == "numeric" else fitted


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _is_rounded(text: str, scale: int) -> bool:
    try:
        exponent = Decimal(text).normalize().as_tuple().exponent
    except ArithmeticError:  # not a number: the server rejects it
        return False
    return isinstance(exponent, int) and exponent < -scale
