"""Whole lines of a file, with their place there, on their way to whoever reads them."""

from __future__ import annotations

from msgspec import Struct

from asyncbatch.codec.lines import count_lines
from asyncbatch.records import Position


class Piece(Struct, frozen=True):
    """Whole lines that begin at a place of a file; the last of all may lack its end."""

    file: str
    at: Position
    lines: bytes

    @property
    def after(self) -> Position:
        """The place where they end."""
        lines, at = self.lines, self.at
        count = count_lines(lines, len(lines), first=not at.byte)
        ends = count.ends + (not lines.endswith(b"\n"))
        return Position(at.byte + len(lines), at.record + count.records, at.line + ends)

    def parted(self, line: int) -> tuple[Piece, Piece, Piece]:
        """Return what is before a line (counted from 0), it, and what is behind it."""
        lines, start = self.lines, 0
        for _ in range(line):
            start = lines.find(b"\n", start) + 1
        end = lines.find(b"\n", start) + 1 or len(lines)
        before = Piece(self.file, self.at, lines[:start])
        one = Piece(self.file, before.after if start else self.at, lines[start:end])
        return before, one, Piece(self.file, one.after, lines[end:])

    def cut(self, size: int) -> list[Piece]:
        """Return it in pieces of about so many bytes, of whole lines."""
        pieces, at, start, lines = list[Piece](), self.at, 0, self.lines
        while len(lines) - start > size:
            end = lines.rfind(b"\n", start, start + size) + 1 or lines.find(b"\n", start) + 1
            if not end:
                break
            pieces.append(Piece(self.file, at, lines[start:end]))
            at, start = pieces[-1].after, end
        if start < len(lines):
            pieces.append(Piece(self.file, at, lines[start:]))
        return pieces
