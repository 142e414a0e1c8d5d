"""Which digests there were: exactly, and in bounded memory."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Self

from asyncbatch.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Iterable

MEMORY_DIGESTS = 500_000
"""Digests kept in memory (100 bytes each); those that come later are on disk."""
_CACHE_KIB = 32 * 1024


class DigestSet:
    """Digests that were seen: the first in memory, then a temporary table of SQLite's.

    Used by one thread at a time. A context manager that takes its file away.
    """

    def __init__(self, most_in_memory: int = MEMORY_DIGESTS) -> None:
        self._most = most_in_memory
        self._first: set[bytes] = set()
        self._rest: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the file away, if there is one."""
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    def add(self, digests: Iterable[bytes | None]) -> list[bool]:
        """Add digests in order; tell of each whether it is new. None is always new.

        Raises SinkError if there is no room for them on disk.
        """
        return [digest is None or self._add(digest) for digest in digests]

    def _add(self, digest: bytes) -> bool:
        if digest in self._first:
            return False
        if len(self._first) < self._most:
            self._first.add(digest)
            return True
        try:
            if self._rest is None:
                self._rest = _open_table()
            return (
                self._rest.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0
            )
        except sqlite3.Error as error:
            raise SinkError(f"dedupe cannot keep the keys that it has seen: {error}") from None


def _open_table() -> sqlite3.Connection:
    """Open a database of our own in a temporary file, which SQLite takes away by itself."""
    table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    # Nothing in it outlives this process, so nothing has to be safe.
    table.execute("PRAGMA journal_mode = OFF")
    table.execute("PRAGMA synchronous = OFF")
    table.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    table.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
    table.execute("BEGIN")
    return table
