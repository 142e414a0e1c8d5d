"""Records of a key that was there before: dropped, whatever number of keys there is.

Which record is the first is a matter of the order of the inputs, and of whole files: one that
fails near its end has none. So workers tell the digests of keys (`KeyDigest`), and the main
process asks a `DigestSet` as rows come by in order; where there is one process and nothing can
fail later, `Dedupe` does both.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from msgspec.json import Encoder

from asyncbatch.transforms.path import make_getter, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.transforms import Position
    from asyncbatch.transforms.dedupe_store import DigestSet

DIGEST_BYTES = 16
"""Two keys out of a billion come to the same digest with a chance of 1 in 10^21."""

_encode = Encoder(order="sorted").encode


class KeyDigest:
    """Tells the keys of records apart: the values at some paths, taken together.

    Numbers are equal by value (1 is 1.0), objects whatever the order of their fields. Raises
    ValueError if a path is none.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self._gets = [make_getter(parse_path(field)) for field in key]

    def __call__(self, value: Any) -> bytes | None:  # noqa: ANN401 - JSON
        """Return the digest of a record's key; None if all of it is missing or null."""
        if type(value) is not dict:
            return None
        key = [_plain_number(get(value)) for get in self._gets]
        if all(part is None for part in key):
            return None
        return blake2b(_encode(key), digest_size=DIGEST_BYTES).digest()


class Dedupe:
    """Passes the first record of each key, and those without any; drops the others.

    For records that come in order, in one process.
    """

    def __init__(self, key: Sequence[str], seen: DigestSet) -> None:
        self._digest, self._seen = KeyDigest(key), seen

    def __call__(
        self,
        value: Any,  # noqa: ANN401 - JSON
        position: Position,  # noqa: ARG002 - part of the contract
    ) -> Iterable[Any]:
        """Return the record, or nothing. Raises SinkError; see `DigestSet.add`."""
        return (value,) if self._seen.add((self._digest(value),))[0] else ()


def _plain_number(value: Any) -> Any:  # noqa: ANN401 - JSON
    return int(value) if type(value) is float and value.is_integer() else value
