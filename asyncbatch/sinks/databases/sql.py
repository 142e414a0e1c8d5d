"""SQL that all databases understand: names and statements."""

from __future__ import annotations

import hashlib
import string
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.sinks.columns.block import EXACT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# SQLite and DuckDB ignore the case of ASCII letters only.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class TableName(NamedTuple):
    """The name of a table. Without a schema, the database decides."""

    schema: str | None
    table: str

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Return the name that the text TABLE or SCHEMA.TABLE gives."""
        schema, dot, table = text.partition(".")
        return cls(schema, table) if dot else cls(None, text)

    @property
    def sql(self) -> str:
        """The name, quoted for SQL."""
        return ".".join(map(quote, filter(None, self)))

    def sibling(self, suffix: str, most_bytes: int | None = None) -> TableName:
        """Return the name, of this size at most, of a table or index that belongs to the table."""
        ending = f".asyncbatch-{suffix}"
        raw = self.table.encode(errors="replace")
        if most_bytes is None or len(raw) <= most_bytes - len(ending):
            return self._replace(table=self.table + ending)
        digest = hashlib.blake2b(raw, digest_size=4).hexdigest()
        cut = raw[: most_bytes - len(ending) - len(digest) - 1].decode(errors="ignore")
        return self._replace(table=f"{cut}~{digest}{ending}")


def quote(name: str) -> str:
    """Return a name in double quotes. Quotes in the name are doubled."""
    return '"' + name.replace('"', '""') + '"'


def quoted(names: Iterable[str]) -> str:
    """Return quoted names, separated by commas."""
    return ", ".join(map(quote, names))


def fold(name: str) -> str:
    """Return a text that is equal for names that SQLite and DuckDB treat as equal."""
    return name.translate(_LOWER)


def creation(table: str, types: Mapping[str, str], key: Iterable[str] = ()) -> str:
    """Return the statement that creates a table (quoted) with columns of these types."""
    parts = [f"{quote(name)} {declared}".rstrip() for name, declared in types.items()]
    if names := quoted(key):
        parts.append(f"PRIMARY KEY ({names})")
    return f"CREATE TABLE {table} ({', '.join(parts)})"


def removal(table: str, names: Iterable[str]) -> str:
    """Return the statement that deletes a row by the values of these columns."""
    same = " AND ".join(f"{quote(name)} = ?" for name in names)
    return f"DELETE FROM {table} WHERE {same}"  # noqa: S608 - quoted


def replacement(key: Iterable[str], replaced: Iterable[str]) -> str:
    """Return the end of an insertion that gives an existing row new values in some columns."""
    update = ", ".join(f"{name} = excluded.{name}" for name in map(quote, replaced))
    return f" ON CONFLICT ({quoted(key)}) DO {f'UPDATE SET {update}' if update else 'NOTHING'}"


def repetition(table: str, key: Iterable[str]) -> str:
    """Return the query for a row if two rows have the same values in these columns."""
    there = " AND ".join(f"{quote(name)} IS NOT NULL" for name in key)
    return f"SELECT 1 FROM {table} WHERE {there} GROUP BY {quoted(key)} HAVING count(*) > 1 LIMIT 1"  # noqa: S608 - quoted


def inexactness(table: str, column: str, condition: str = "") -> str:
    """Return the query for a row if an integer in a column is not exact as a double."""
    where = f"WHERE {condition}{quote(column)} NOT BETWEEN {-EXACT} AND {EXACT}"
    return f"SELECT 1 FROM {table} {where} LIMIT 1"  # noqa: S608 - quoted
