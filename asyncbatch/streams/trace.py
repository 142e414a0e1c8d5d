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
                self._head_digest = digest(self._head)
        self.tail = data[-SPAN:] if len(data) >= SPAN else (self.tail + data)[-SPAN:]

    def mark(self) -> Mark:
        """Return the place that was reached."""
        head = self._head_digest or digest(self._head)
        return Mark(self.offset, head, digest(self.tail), self.inode)

    def found(self, mark: Mark, read_at: Callable[[int, int], bytes]) -> bool:
        """Go to `mark`, if the file has the same bytes before it; tell whether it has.

        `read_at` returns so many bytes of the file from an offset on, fewer only at its end.
        """
        other = Trace(mark.inode)
        other.jump(mark.offset, read_at)
        if len(other.tail) < min(SPAN, mark.offset) or other.mark() != mark:
            return False
        self.offset, self.tail = other.offset, other.tail
        self._head, self._head_digest = other._head, other._head_digest
        return True

    def jump(self, offset: int, read_at: Callable[[int, int], bytes]) -> None:
        """Go to an offset, whatever is before it."""
        length = min(SPAN, offset)
        self._head, self._head_digest = b"", ""
        self.offset, self.tail = 0, b""
        self.take(read_at(0, length))
        self.offset, self.tail = offset, read_at(offset - length, length)


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


def digest(data: bytes) -> str:
    """Return a text that tells bytes from others."""
    return blake2b(data, digest_size=8).hexdigest()
