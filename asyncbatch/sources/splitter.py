"""A splitter that cuts a large file into byte ranges for several workers."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from asyncbatch.core.batches import Split
from asyncbatch.core.records import Position, display_path
from asyncbatch.core.settings import FileWorkSettings
from asyncbatch.formats.array_cutter import find_boundaries
from asyncbatch.formats.arrays import ArrayStream
from asyncbatch.formats.element_pattern import ElementPattern
from asyncbatch.formats.failures import FILE_ERRORS, file_failure
from asyncbatch.formats.lines import count_lines
from asyncbatch.formats.positions import BOM, WHITE_SPACE, parse_pointer
from asyncbatch.formats.validator import make_validator
from asyncbatch.storage.local import Content, TooLargeError
from asyncbatch.storage.opener import Opener
from asyncbatch.storage.store_errors import CHANGED_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.batches import SplitFile
    from asyncbatch.core.settings import Sizes
    from asyncbatch.storage.opener import RandomAccess

_SEARCH_BYTES = 16 * 1024  # bytes of one read in the search for a line end
_SAMPLE_BYTES = 256 * 1024  # bytes of the first sample of elements
_MIN_BOUNDARIES = 4  # boundaries of a sample that is large enough
# Each split costs the main process a millisecond. So the splits of a file whose records are only
# counted grow with the file: from this number of them, up to this factor.
_MANY_SPLITS, _MAX_GROWTH = 64, 4


class Splitter:
    """Cuts one uncompressed file or object, from `split_file.start`. For one thread.

    `pointer` is the JSON Pointer of the array with the records.
    """

    def __init__(
        self,
        path: str,
        split_file: SplitFile,
        sizes: Sizes,
        pointer: str | None = None,
        opener: Opener | None = None,
    ) -> None:
        self._path, self._form, self._sizes = path, split_file.form, sizes
        self._opener = opener or Opener(FileWorkSettings())
        self._etag: str | None = None
        self._is_relative = split_file.is_relative
        self._pointer = None if pointer is None else parse_pointer(pointer)
        self._position = self._start = split_file.start or Position()
        self._end_of_reading = self._start.byte
        self._is_whole = False  # whether no more boundaries can be guessed

    def splits(self) -> Iterator[Split]:
        """Yield the splits in order, then an end marker that has the error, if any.

        Reads the whole file and blocks: call it in a thread.
        """
        number, covered, error = 0, 0, None
        try:
            for begin in self._split_starts():
                length = self._position.byte - begin.byte
                yield Split(
                    number,
                    self._form,
                    begin,
                    length,
                    is_relative=self._is_relative,
                    etag=self._etag,
                )
                number, covered = number + 1, covered + length
        except FILE_ERRORS as problem:
            error = file_failure(display_path(self._path), problem)
        rest = self._end_of_reading - self._start.byte - covered
        yield Split(
            number,
            self._form,
            self._position,
            max(0, rest),
            is_end_marker=True,
            error=error,
            is_relative=self._is_relative,
            is_whole=self._is_whole,
        )

    def _split_starts(self) -> Iterator[Position]:
        """Yield the start of each split; `_position` is then its end."""
        if self._form == "array":
            return self._guessed_starts() if self._is_relative else self._starts_of_elements()
        return self._starts_by_line_ends() if self._is_relative else self._starts_of_lines()

    def _starts_by_line_ends(self) -> Iterator[Position]:
        """Yield the start of each split of lines, by a search for line ends only.

        Lines and records are not counted: their numbers are relative to the split.
        """
        window_buffer = memoryview(bytearray(_SEARCH_BYTES))
        with closing(self._opener.random_access(self._path)) as file:
            self._etag = file.etag
            length = self._split_length(file.size)
            while (begin := self._position).byte < file.size:
                end = begin.byte + length
                while end < file.size and (count := file.read_into(window_buffer, end)):
                    found = bytes(window_buffer[:count]).find(b"\n") + 1
                    end += found or count
                    if found:
                        break
                    if end - begin.byte > self._sizes.record + length:
                        raise _line_too_long(self._sizes.record)
                self._end_of_reading = min(end, file.size)
                self._position = Position(self._end_of_reading)
                yield begin

    def _split_length(self, size: int) -> int:
        """Return the length of the splits of a file of `size` bytes."""
        smallest = self._sizes.split
        return min(max(smallest, size // _MANY_SPLITS), smallest * _MAX_GROWTH)

    def _starts_of_lines(self) -> Iterator[Position]:
        """Yield the start of each split of lines; count lines and records."""
        max_bytes = self._sizes.record
        buffer = bytearray(self._sizes.split)
        with closing(self._opener.random_access(self._path)) as file:
            self._etag = file.etag
            while size := _fill_buffer(file, buffer, self._position.byte):
                cut = size if size < len(buffer) else buffer.rfind(b"\n") + 1
                if not cut:
                    if size >= max_bytes:
                        raise _line_too_long(max_bytes)
                    buffer = bytearray(min(2 * size, max_bytes))
                    continue
                begin = self._position
                ends, records = count_lines(buffer, cut, first=not begin.byte)
                self._end_of_reading = begin.byte + cut
                self._position = Position(
                    self._end_of_reading, begin.record + records, begin.line + ends
                )
                yield begin
                if len(buffer) > self._sizes.split:  # it was enlarged for one long line
                    buffer = bytearray(self._sizes.split)

    def _starts_of_elements(self) -> Iterator[Position]:
        """Yield the start of each split of array elements."""
        opened = self._opener.open(self._path)
        if not isinstance(opened, Content):
            raise OSError(CHANGED_MESSAGE)
        with opened as content:
            self._etag = content.etag
            stream = ArrayStream(
                content.chunks(), self._pointer, make_validator(), self._sizes, content.seek
            )
            if not stream.begin(is_split=True):
                raise OSError(CHANGED_MESSAGE)
            try:
                for window in stream.windows(self._start):
                    self._position = window.end
                    yield window.start
            finally:
                self._end_of_reading = stream.read_to

    def _guessed_starts(self) -> Iterator[Position]:
        """Yield the start of each split of array elements, by guesses without parsing."""
        with closing(self._opener.random_access(self._path)) as file:
            pattern = self._learn_pattern(file)
            length = self._split_length(file.size)
            while pattern is not None and (begin := self._position).byte < file.size:
                end = self._find_match(file, pattern, begin.byte + length)
                if end is None:
                    break
                self._end_of_reading = end
                self._position = Position(end)
                yield begin
            self._is_whole = not 0 < self._position.byte == file.size

    def _learn_pattern(self, file: RandomAccess) -> ElementPattern | None:
        """Return the pattern of the elements of an array; None if guesses would be bad."""
        size, most = min(_SAMPLE_BYTES, self._sizes.split), self._sizes.split
        while True:
            text = _read(file, 0, size).removeprefix(BOM).lstrip(WHITE_SPACE)
            if not text.startswith(b"["):
                return None
            boundaries = find_boundaries(text)
            if size >= most or len(boundaries) >= _MIN_BOUNDARIES:
                return ElementPattern.learn(text, boundaries)
            size = min(4 * size, most)

    def _find_match(self, file: RandomAccess, pattern: ElementPattern, start: int) -> int | None:
        """Return the offset of the first match from `start` on, or the end of the file.

        None: both are too far away, so that a split would need too much memory.
        """
        most, overlap = start + self._sizes.split_threshold, len(pattern.prefix)
        while start < file.size:
            if start >= most:
                return None
            text = _read(file, start, _SEARCH_BYTES)
            if (at := pattern.find(text)) >= 0:
                return start + at
            start += max(1, len(text) - overlap)
        return file.size


def _line_too_long(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        max_bytes + 1, max_bytes, f"a line has more than {max_bytes:,} bytes, the limit"
    )


def _read(file: RandomAccess, offset: int, size: int) -> bytes:
    """Return up to `size` bytes at `offset`."""
    buffer = bytearray(size)
    return bytes(buffer[: _fill_buffer(file, buffer, offset)])


def _fill_buffer(file: RandomAccess, buffer: bytearray, offset: int) -> int:
    """Fill `buffer` with the bytes at `offset`, and return their number."""
    with memoryview(buffer) as view:
        return file.read_into(view, offset)
