"""How far a file was read, and what tells whether it is still the same so far."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from asyncbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

SPAN = 4096
"""Bytes at the beginning, and before the place that was reached, that must be the same."""


class Mark(Struct, frozen=True, omit_defaults=True):
    """A place in a file: so many bytes from its beginning, decompressed.

    `head` and `tail` are digests of the first bytes and of those before the place. `inode` is
    where to look first: only what the bytes are decides.
    """

    offset: int
    head: str
    tail: str
    inode: int = 0


class Trace:
    """What was read of a file, as far as it tells the file from others."""

    def __init__(self, inode: int = 0) -> None:
        self.offset, self.tail, self.inode = 0, b"", inode
        self._head, self._head_digest = b"", ""

    def take(self, data: bytes) -> None:
        """Take note of the bytes that come next."""
        self.offset += len(data)
        if not self._head_digest:
            self._head += data[: SPAN - len(self._head)]
            if len(self._head) == SPAN:
                self._head_digest = _digest(self._head)
        self.tail = data[-SPAN:] if len(data) >= SPAN else (self.tail + data)[-SPAN:]

    def mark(self) -> Mark:
        """Return the place that was reached."""
        head = self._head_digest or _digest(self._head)
        return Mark(self.offset, head, _digest(self.tail), self.inode)

    def found(self, mark: Mark, read_at: Callable[[int, int], bytes]) -> bool:
        """Go to `mark`, if the file has the same bytes before it; tell whether it has.

        `read_at` returns so many bytes of the file from an offset on, fewer only at its end.
        """
        head = read_at(0, min(SPAN, mark.offset))
        length = min(SPAN, mark.offset)
        tail = read_at(mark.offset - length, length)
        if len(tail) < length or (_digest(head), _digest(tail)) != (mark.head, mark.tail):
            return False
        self.offset, self.tail, self._head = mark.offset, tail, head
        self._head_digest = mark.head if len(head) == SPAN else ""
        return True


def as_position(mark: Mark) -> dict[str, Any]:
    """Return a mark as JSON can hold it."""
    position: dict[str, Any] = msgspec.to_builtins(mark)
    return position


def as_mark(position: Any) -> Mark:  # noqa: ANN401 - JSON
    """Return the mark that a position is. Raises UsageError if it is none."""
    try:
        return msgspec.convert(position, Mark)
    except msgspec.ValidationError as error:
        raise UsageError(f"this is no place in a file: {position!r} ({error})") from None


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
