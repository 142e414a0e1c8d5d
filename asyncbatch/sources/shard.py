"""One part of the inputs, for one of several machines: which files are in it."""

from __future__ import annotations

import re
from hashlib import blake2b

from msgspec import Struct

from asyncbatch.errors import UsageError
from asyncbatch.records import STDIN

_FORM = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_PURPOSE = b"asyncbatch-shard"  # so that no other hash of the same names goes along with it


class Shard(Struct, frozen=True):
    """Shard number `index` of `count`, counted from 1.

    Each input is in exactly one of the shards, by a hash of its identity alone: not of what
    else there is, nor of the machine, the version of Python, or this program's.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that `I/N` stands for. Raises UsageError with what to write."""
        match = _FORM.fullmatch(text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        try:
            shard.check()
        except UsageError:
            raise UsageError(f"{text!r} is no shard: write I/N, 1/3 to 3/3 for three") from None
        return shard

    def check(self) -> None:
        """Raise UsageError if there is no such shard."""
        if not 1 <= self.index <= self.count:
            raise UsageError(f"there is no shard {self}: the first is 1/N, the last N/N")

    def has(self, identity: str) -> bool:
        """Whether the input of this identity is in this shard; standard input is in the first."""
        if identity == STDIN:
            return self.index == 1
        name = identity.encode("utf-8", "surrogateescape")
        number = int.from_bytes(blake2b(name, digest_size=8, person=_PURPOSE).digest())
        return number % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
