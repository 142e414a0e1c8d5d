"""A stream of text seen through a window: filled at its end, dropped from its start."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from asyncbatch.codec.place import BOM, Place
from asyncbatch.records import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SPACE = b" \t\n\r"


class Feed:
    """`text` is the part of the stream in view, `at` where it begins, `ended` if no more follows.

    `seek` has `chunks` go on at a byte of the stream, where there is such a way.
    """

    def __init__(
        self, chunks: Iterator[bytes], seek: Callable[[int], object] | None = None
    ) -> None:
        self.text = b""
        self.at = Position()
        self.ended = False
        self._chunks, self._seek = chunks, seek
        self._ahead: deque[bytes] = deque()
        """Chunks that were taken and are not in view."""

    @property
    def read_to(self) -> int:
        """The byte up to which chunks were taken."""
        return self.at.byte + len(self.text) + sum(map(len, self._ahead))

    def holds(self, size: int) -> bool:
        """Whether `size` bytes follow; takes so many, and leaves them out of view."""
        missing = size - len(self.text) - sum(map(len, self._ahead))
        while missing > 0 and (chunk := next(self._chunks, None)) is not None:
            self._ahead.append(chunk)
            missing -= len(chunk)
        return missing <= 0

    def fill(self, size: int) -> None:
        """Have `size` bytes in view, or a few more, if there are so many."""
        pieces, length = [self.text], len(self.text)
        while length < size and not self.ended:
            chunk = self._ahead.popleft() if self._ahead else next(self._chunks, None)
            if chunk is None:
                self.ended = True
            else:
                pieces.append(chunk)
                length += len(chunk)
        if len(pieces) > 1:
            self.text = b"".join(pieces)

    def drop(self, count: int, records: int = 0) -> None:
        """Let go of the first bytes in view, which hold so many records."""
        self.at = after(self.at, self.text[:count], records)
        self.text = self.text[count:]

    def drop_mark(self) -> None:
        """Let go of a byte order mark, which takes no column."""
        if self.text.startswith(BOM):
            self.text = self.text[len(BOM) :]
            self.at = Position(len(BOM))

    def skip_space(self) -> bytes:
        """Let go of white space; return the byte in view then, or nothing at the end."""
        while True:
            rest = self.text.lstrip(_SPACE)
            self.drop(len(self.text) - len(rest))
            if rest or self.ended:
                return rest[:1]
            self.fill(1)

    def jump(self, position: Position) -> None:
        """Let go of all before `position`, which lies ahead."""
        at = self.at.byte
        if self._seek is not None and position.byte - at > len(self.text):
            self._seek(position.byte)
            self._ahead.clear()
            self.text, at = b"", position.byte
        while (ahead := position.byte - at) > len(self.text) and not self.ended:
            at += len(self.text)
            self.text = b""
            self.fill(1)
        self.text, self.at = self.text[ahead:], position

    def rest(self) -> Iterator[bytes]:
        """Yield what is in view, and what follows."""
        yield self.text
        yield from self._ahead
        yield from self._chunks


def after(at: Position, text: bytes, records: int) -> Position:
    """Return the position behind a text of so many records that begins at `at`."""
    ends = text.count(b"\n") if b"\n" in text else 0  # to find none is far quicker
    last = text[text.rfind(b"\n") + 1 :] if ends else text
    column = len(last.decode("utf-8", "replace")) + (0 if ends else at.column)
    return Position(at.byte + len(text), at.record + records, at.line + ends, column)


def place_after(at: Position, text: bytes) -> Place:
    """Return the place behind a text that begins at `at`."""
    here = after(at, text, 0)
    return Place(here.line + 1, here.column + 1, here.byte)
