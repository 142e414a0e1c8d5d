"""Digests of record keys, and the set of digests that a run has seen."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import TYPE_CHECKING, Self

from msgspec.json import Encoder

from asyncbatch.errors import SinkError
from asyncbatch.transforms.base import find_nearest, names_in
from asyncbatch.transforms.fields import make_field_getter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.core.records import Json


MEMORY_DIGESTS = 500_000  # digests in memory, 100 bytes each; later ones go to the disk
_CACHE_KIB = 32 * 1024  # page cache of the temporary database


class DigestSet:
    """A set of digests: the first in memory, the others in a temporary SQLite table.

    For one thread at a time. As a context manager it removes the temporary file at the end.
    """

    def __init__(self, most_in_memory: int = MEMORY_DIGESTS, cache_kib: int = _CACHE_KIB) -> None:
        self._most, self._cache_kib = most_in_memory, cache_kib
        self._first: set[bytes] = set()
        self._rest: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, digest: bytes) -> bool:
        """Whether a digest was added. Raises SinkError as `add` does."""
        if digest in self._first or self._rest is None:
            return digest in self._first
        try:
            query = "SELECT 1 FROM seen WHERE digest = ?"
            return self._rest.execute(query, (digest,)).fetchone() is not None
        except sqlite3.Error as error:
            raise SinkError(f"dedupe cannot read its keys: {error}") from None

    def close(self) -> None:
        """Remove the temporary file, if there is one."""
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    def add(self, digests: Iterable[bytes | None]) -> list[bool]:
        """Add digests in order; return for each whether it is new. None is always new.

        Raises SinkError on an error of SQLite, for example a full disk.
        """
        return [digest is None or self.add_one(digest) for digest in digests]

    def add_one(self, digest: bytes) -> bool:
        """Add a digest; return whether it is new. Raises SinkError as `add` does."""
        if digest in self._first:
            return False
        if len(self._first) < self._most:
            self._first.add(digest)
            return True
        try:
            if self._rest is None:
                self._rest = _open_table(self._cache_kib)
            return (
                self._rest.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0
            )
        except sqlite3.Error as error:
            raise SinkError(f"dedupe cannot store its keys: {error}") from None


def _open_table(cache_kib: int) -> sqlite3.Connection:
    """Open a database in a temporary file, which SQLite removes when it is closed."""
    table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    # The content is not needed after a crash, so no journal and no fsync.
    table.execute("PRAGMA journal_mode = OFF")
    table.execute("PRAGMA synchronous = OFF")
    table.execute(f"PRAGMA cache_size = -{cache_kib}")
    table.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
    table.execute("BEGIN")
    return table


DIGEST_BYTES = 16  # among a billion keys, two have the same digest with a probability of 10^-21

_encode = Encoder(order="sorted").encode


class KeyDigest:
    """A function that returns the digest of a record's key: the values at some paths.

    Numbers with the same value are equal (1 and 1.0), and so are objects with the same fields in
    another order. Raises ValueError for an invalid path.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self._key = key
        self._gets = [make_field_getter(field) for field in key]

    def __call__(self, value: Json) -> bytes | None:
        """Return the digest of a record's key; None if all its fields are missing or null."""
        if type(value) is not dict:
            return None
        key = [_plain_number(get(value)) for get in self._gets]
        if all(part is None for part in key):
            return None
        return blake2b(_encode(key), digest_size=DIGEST_BYTES).digest()

    def missing_note(self, value: Json) -> str:
        """Return the note that no record has a key, with the nearest names that `value` has."""
        near = [find_nearest(name, names_in(value, name)) for name in self._key]
        hint = " or ".join(repr(name) for name in near if name is not None)
        more = f"; the nearest one is {hint}" if hint else ""
        return f"no record has a value for --dedupe {', '.join(self._key)}{more}"


def _plain_number(value: Json) -> Json:
    return int(value) if type(value) is float and value.is_integer() else value
