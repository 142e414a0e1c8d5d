"""Where in a text a byte stands, the way an editor counts."""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """`line` and `column` count from 1, `byte` from 0."""

    line: int
    column: int
    byte: int


def locate(text: bytes, byte: int, *, line: int = 1, offset: int = 0) -> Place:
    """Return the place of `text[byte]` (or of the end) in a stream.

    `text` begins at `line` and at byte `offset` of the stream. A line ends at LF. A column
    is a code point; a byte order mark is a signature, not text, and takes no column.
    """
    line_start = text.rfind(b"\n", 0, byte) + 1
    before = text[line_start:byte]
    if offset == 0 and line_start == 0:
        before = before.removeprefix(BOM)
    column = len(before.decode("utf-8", "replace")) + 1
    return Place(line + text.count(b"\n", 0, byte), column, offset + byte)


class Locator:
    """Locates many bytes of one text, which has no byte order mark.

    Quick if each lies behind the one before, however long the lines. The text begins at `line`,
    `column` and byte `offset` of its stream.
    """

    def __init__(self, text: bytes, *, line: int = 1, column: int = 1, offset: int = 0) -> None:
        self._text, self._offset = text, offset
        self._first = self._last = Place(line, column, 0)

    def locate(self, byte: int) -> Place:
        """Return the place of `text[byte]`; see the function of this name."""
        last = self._last if byte >= self._last.byte else self._first
        between = self._text[last.byte : byte]
        above, newline, before = between.rpartition(b"\n")
        line = last.line + above.count(b"\n") + len(newline)
        column = len(before.decode("utf-8", "replace")) + (1 if newline else last.column)
        self._last = Place(line, column, byte)
        return self._last._replace(byte=self._offset + byte)
