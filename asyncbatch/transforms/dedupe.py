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


DIGEST_BYTES = 16  # among a billion keys, two have the same digest with a probability of 10^-21

MEMORY_DIGESTS = 500_000  # digests in a set, 100 bytes each; more of them are packed
_PACKING = 4  # packed digests in the memory of one in a set; more of them go to the disk
_BUCKETS = 1 << 16
_CACHE_KIB = 32 * 1024  # page cache of the temporary database


class PackedDigests:
    """A set of digests in a quarter of the memory of a Python set, at twice the time."""

    def __init__(self) -> None:
        self._buckets = [b""] * _BUCKETS  # each has its digests side by side
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        bucket = self._buckets[digest[-1] << 8 | digest[-2]]
        at = bucket.find(digest)
        while at % DIGEST_BYTES and at >= 0:  # it lies across two digests
            at = bucket.find(digest, at + 1)
        return at >= 0

    def add(self, digest: bytes) -> None:
        """Add a digest that the set does not have."""
        self._buckets[digest[-1] << 8 | digest[-2]] += digest
        self._count += 1


class DigestSet:
    """A set of digests: the first in a set, more of them packed, the others on the disk.

    All are packed when the first `most_in_set` are exceeded. The disk has a temporary SQLite table.
    For one thread at a time. As a context manager it removes the temporary file at the end.
    """

    def __init__(self, most_in_set: int = MEMORY_DIGESTS, cache_kib: int = _CACHE_KIB) -> None:
        self._most, self._cache_kib = most_in_set, cache_kib
        self._first: set[bytes] = set()
        self._packed: PackedDigests | None = None
        self._rest: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, digest: bytes) -> bool:
        """Whether a digest was added. Raises SinkError as `add` does."""
        if digest in self._first or (self._packed is not None and digest in self._packed):
            return True
        if self._rest is None:
            return False
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
        if len(self._first) < self._most and self._packed is None:
            self._first.add(digest)
            return True
        packed = self._packed if self._packed is not None else self._pack()
        if digest in packed:
            return False
        if len(packed) < self._most * _PACKING:
            packed.add(digest)
            return True
        try:
            if self._rest is None:
                self._rest = _open_table(self._cache_kib)
            return (
                self._rest.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0
            )
        except sqlite3.Error as error:
            raise SinkError(f"dedupe cannot store its keys: {error}") from None

    def _pack(self) -> PackedDigests:
        packed = self._packed = PackedDigests()
        while self._first:  # each is freed at once
            packed.add(self._first.pop())
        self._first = set()  # the empty one keeps the memory of its table
        return packed


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
