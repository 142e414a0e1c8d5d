"""Deduplicate records by key."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import TYPE_CHECKING, Self

from msgspec.json import Encoder

from asyncbatch.errors import SinkError
from asyncbatch.transforms.fields import make_getter, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.core.records import Json


MEMORY_DIGESTS = 500_000  # digests kept in memory (100 bytes each); later ones are on the disk
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
        """Remove the temporary file, if there is one."""
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    def add(self, digests: Iterable[bytes | None]) -> list[bool]:
        """Add digests in order; return for each whether it is new. None is always new.

        Raises SinkError if the disk is full.
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
    """Open a database in a temporary file, which SQLite removes itself."""
    table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    # Nothing in it outlives this process, so nothing has to be safe.
    table.execute("PRAGMA journal_mode = OFF")
    table.execute("PRAGMA synchronous = OFF")
    table.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    table.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
    table.execute("BEGIN")
    return table


DIGEST_BYTES = 16  # Two keys out of a billion come to the same digest with a chance of 1 in 10^21.

_encode = Encoder(order="sorted").encode


class KeyDigest:
    """Computes the digest of a record's key: the values at some paths.

    Numbers are equal by value (1 is 1.0), objects in any order of their fields. Raises ValueError
    for an invalid path.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self._gets = [make_getter(parse_path(field)) for field in key]

    def __call__(self, value: Json) -> bytes | None:
        """Return the digest of a record's key; None if all of it is missing or null."""
        if type(value) is not dict:
            return None
        key = [_plain_number(get(value)) for get in self._gets]
        if all(part is None for part in key):
            return None
        return blake2b(_encode(key), digest_size=DIGEST_BYTES).digest()


def _plain_number(value: Json) -> Json:
    return int(value) if type(value) is float and value.is_integer() else value
