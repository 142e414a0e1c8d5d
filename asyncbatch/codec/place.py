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
    """Locates many bytes of one text, quickly if each lies behind the one before."""

    def __init__(self, text: bytes, *, line: int = 1, offset: int = 0) -> None:
        self._text, self._first_line, self._offset = text, line, offset
        self._byte, self._line = 0, line

    def locate(self, byte: int) -> Place:
        """Return the place of `text[byte]`; see the function of this name."""
        if byte < self._byte:
            self._byte, self._line = 0, self._first_line
        self._line += self._text.count(b"\n", self._byte, byte)
        self._byte = byte
        line_start = self._text.rfind(b"\n", 0, byte) + 1
        column = locate(self._text[line_start:byte], byte - line_start, offset=1).column
        return Place(self._line, column, self._offset + byte)
