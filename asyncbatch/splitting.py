"""A huge file cut into pieces, ahead of the workers: places and numbers, and no values."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncbatch.arrays import ArrayStream
from asyncbatch.codec.judge import make_judge
from asyncbatch.codec.lines import count_lines
from asyncbatch.codec.pointer import parse_pointer
from asyncbatch.content import CUT_SHORT, Content, TooLargeError, open_content
from asyncbatch.failures import FILE_ERRORS, file_failure
from asyncbatch.records import Piece, Position, display_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.records import Huge
    from asyncbatch.settings import Sizes


_LOOK_BYTES = 16 * 1024
"""Bytes that are searched for a line end at a time."""


class Splitter:
    """Cuts one plain file, from `huge.start` on; for one thread at a time.

    `pointer` is the JSON Pointer of the array that is wanted.
    """

    def __init__(self, path: str, huge: Huge, sizes: Sizes, pointer: str | None = None) -> None:
        self._path, self._form, self._sizes = path, huge.form, sizes
        self._relative = huge.relative
        self._pointer = None if pointer is None else parse_pointer(pointer)
        self._at = self._start = huge.start or Position()
        self._read_to = self._start.byte

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces in order, last the one at the end, which says what went wrong.

        Reads the file once, and so is not for the event loop.
        """
        number, given, error = 0, 0, None
        try:
            for begin in self._cuts():
                length = self._at.byte - begin.byte
                yield Piece(number, self._form, begin, length, relative=self._relative)
                number, given = number + 1, given + length
        except FILE_ERRORS as problem:
            error = file_failure(display_path(self._path), problem)
        rest = self._read_to - self._start.byte - given
        yield Piece(number, self._form, self._at, max(0, rest), end=True, error=error)

    def _cuts(self) -> Iterator[Position]:
        """Yield where each piece begins, when `_at` is where it ends."""
        if self._form == "array":
            return self._elements()
        return self._line_ends() if self._relative else self._lines()

    def _line_ends(self) -> Iterator[Position]:
        """Yield where each piece of whole lines begins; of what is in them nothing is read."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            while (begin := self._at).byte < size:
                end = begin.byte + self._sizes.piece
                while end < size and (look := os.pread(fd, _LOOK_BYTES, end)):
                    found = look.find(b"\n") + 1
                    end += found or len(look)
                    if found:
                        break
                    if end - begin.byte > self._sizes.record + self._sizes.piece:
                        raise _too_long(self._sizes.record)
                self._read_to = min(end, size)
                self._at = Position(self._read_to)
                yield begin
        finally:
            os.close(fd)

    def _lines(self) -> Iterator[Position]:
        """Yield where each piece of whole lines begins, when `_at` is where it ends."""
        most = self._sizes.record
        buffer = bytearray(self._sizes.piece)
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while size := _read(fd, buffer, self._at.byte):
                cut = size if size < len(buffer) else buffer.rfind(b"\n") + 1
                if not cut:
                    if size >= most:
                        raise _too_long(most)
                    buffer = bytearray(min(2 * size, most))
                    continue
                begin = self._at
                ends, records = count_lines(buffer, cut, first=not begin.byte)
                self._read_to = begin.byte + cut
                self._at = Position(self._read_to, begin.record + records, begin.line + ends)
                yield begin
                if len(buffer) > self._sizes.piece:  # for one long line
                    buffer = bytearray(self._sizes.piece)
        finally:
            os.close(fd)

    def _elements(self) -> Iterator[Position]:
        """Yield where each piece of whole elements begins, when `_at` is where it ends."""
        opened = open_content(self._path)
        if not isinstance(opened, Content):
            raise OSError(CUT_SHORT)
        with opened as content:
            stream = ArrayStream(
                content.chunks(), self._pointer, make_judge(), self._sizes, content.seek
            )
            if not stream.begin(known_huge=True):
                raise OSError(CUT_SHORT)
            try:
                for window in stream.windows(self._start):
                    self._at = window.end
                    yield window.start
            finally:
                self._read_to = stream.read_to


def _too_long(most: int) -> TooLargeError:
    return TooLargeError(most + 1, most, f"a line has more than {most:,} bytes, the limit")


def _read(fd: int, buffer: bytearray, offset: int) -> int:
    """Fill `buffer` with what stands at `offset`; return how many bytes these are."""
    taken = 0
    with memoryview(buffer) as view:
        while taken < len(buffer) and (count := os.preadv(fd, [view[taken:]], offset + taken)):
            taken += count
    return taken
