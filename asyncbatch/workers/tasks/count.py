"""Tasks that count and validate the records of files, or only measure the files."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncbatch.core.batches import Part, SplitFile
from asyncbatch.core.progress import Progress
from asyncbatch.core.records import STDIN, Position, display_path
from asyncbatch.formats.detect import (
    begins_array,
    is_compressed,
    is_json_lines,
    is_splittable,
    open_text,
)
from asyncbatch.formats.failures import (
    FILE_ERRORS,
    InvalidTextError,
    file_failure,
    line_failure,
    validate_text,
    with_record_count,
)
from asyncbatch.formats.lines import InvalidLine, validate_lines
from asyncbatch.formats.positions import BOM
from asyncbatch.formats.validator import make_validator
from asyncbatch.sources.reader import OPEN_ERRORS, InputOpener, Reader, close_opened, read_size
from asyncbatch.storage.local import Content, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from asyncbatch.core.batches import Batch, Split, SplitForm
    from asyncbatch.core.records import Failure
    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.formats.arrays import ArrayWindow
    from asyncbatch.formats.lines import Lines
    from asyncbatch.sources.reader import Opened

    # a record count, and the invalid lines among the records
    Verdicts = tuple[int, list[InvalidLine]]

# A batch is returned unfinished after this many bytes, or after some time (see
# `settings.WorkLimit`): progress stays live, stopping stays quick, and another worker can take the
# rest.
MAX_BATCH_BYTES = 8 * 1024 * 1024
# rejected records in one part: bounds the memory for a file of rejected records
MAX_REJECTIONS = 1000


class CountTask:
    """Validates and counts the records of files, batch by batch.

    One instance serves one thread: it keeps a parser, and its knowledge about the speed of storage.
    """

    def __init__(self, settings: FileWorkSettings) -> None:
        self._settings = settings
        self._validator = make_validator()
        self._opener = InputOpener(settings)
        self._reader = Reader(settings.max_file_size, settings.read_ahead, self._opener)
        self._max_bytes = settings.portion.bytes or MAX_BATCH_BYTES
        self.progress: Progress = Progress()  # a worker process replaces it by a shared one

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield the outcome of the files, in order; may end before the last at a limit."""
        validator, now = self._validator, time.perf_counter
        names_tell = self._settings.format == "auto"
        if batch.split is not None and not batch.split.is_whole:
            yield from self._count_split(batch)
            return
        part = Part(batch.start)
        began = now()
        seconds = self._settings.portion.seconds
        contents = self._reader.contents(batch, self._max_bytes, seconds, self.progress)
        for path, opened in contents:
            # The fast path for most files: small, uncompressed, one valid JSON text.
            verdict = None
            if type(opened) is bytes and names_tell and path.endswith(".json"):
                verdict = validator(opened)
            if type(verdict) is int and type(opened) is bytes:
                part.records.append(verdict)
                part.bytes.append(len(opened))
            elif batch.split is None and (form := self._split_form(path, opened)) is not None:
                close_opened(opened)
                contents.close()
                yield part
                yield Part(part.start + len(part), split_file=SplitFile(form, is_relative=True))
                return
            else:
                verdicts = self._file_verdicts(path, opened)
                part = yield from self._add_file(path, verdicts, part)
                part.bytes.append(read_size(opened))
            ended = now()
            part.elapsed_ms.append((ended - began) * 1000)
            began = ended
        part.retries = self._opener.take_retry_count()
        yield part

    def _split_form(self, path: str, opened: Opened) -> SplitForm | None:
        """Return the unit of the splits of a file for several workers; None for one worker."""
        form, sizes = self._settings.format, self._settings.sizes
        if not isinstance(opened, Content):
            return None
        if is_json_lines(path, form):
            return "lines" if is_splittable(path, opened, sizes, "jsonl") else None
        # A guess is a read at any offset, which is a request for an object.
        may_guess = form in ("auto", "json") and type(path) is str and begins_array(opened.head)
        return "array" if may_guess and is_splittable(path, opened, sizes) else None

    def _count_split(self, batch: Batch) -> Iterator[Part]:
        """Yield the outcome of a split, as if it were a file."""
        split, path = batch.split, batch.paths[0]
        if split is None or split.is_end_marker:
            yield end_of_splits(batch)
            return
        began = time.perf_counter()
        if split.is_guess:
            yield self._count_guess(batch.start, path, split, began)
            return
        chunks = self._opener.byte_range(path, split.start.byte, split.length, split.etag)
        lines = 0

        def verdicts() -> Iterator[Verdicts]:
            nonlocal lines
            for block in validate_lines(chunks, self._validator, split.start):
                lines += block.lines
                yield _line_verdicts(block)

        part = yield from self._add_file(path, verdicts(), Part(batch.start))
        end = split.start.byte + split.length
        part.position = Position(
            end, split.start.record + part.records[0], split.start.line + lines
        )
        part.bytes.append(split.length)
        part.elapsed_ms.append((time.perf_counter() - began) * 1000)
        part.retries = self._opener.take_retry_count()
        yield part

    def _count_guess(self, start: int, path: str, split: Split, began: float) -> Part:
        """Return the outcome of a split whose bounds are guessed, or the answer that it is refused.

        An error is refused, too: the task that reads the whole file explains it.
        """
        count = 0
        with suppress(*FILE_ERRORS):
            count = self._validator.count_valid(self._read_guess(path, split))
        if not count:  # also if it is empty: a comma without a value ends no element
            return Part(start, split_file=SplitFile("array", is_relative=True))
        elapsed_ms = (time.perf_counter() - began) * 1000
        retries = self._opener.take_retry_count()
        return Part(start, [count], [split.length], [elapsed_ms], retries=retries)

    def _read_guess(self, path: str, split: Split) -> bytes:
        """Return a split as an array: the comma before it becomes a bracket, and the one after it.

        Raises OSError.
        """
        begin, end = split.start.byte, split.start.byte + split.length
        first, *rest = self._opener.byte_range(path, begin, split.length)
        first = b"[" + first[1:] if begin else first.removeprefix(BOM)
        last = b"]" if end < self._opener.size(path) else b""
        return b"".join((first, *rest, last))

    def _add_file(
        self, path: str, verdicts: Iterator[Verdicts], part: Part
    ) -> Generator[Part, None, Part]:
        """Add to `part` the outcome of a file; yield full parts, return the last."""
        file = display_path(path)
        records = rejected = 0
        first = error = None
        found: list[Failure] = []
        try:
            for count, bad_lines in verdicts:
                records += count
                rejected += len(bad_lines)
                found += [line_failure(file, bad) for bad in bad_lines]
                first = first or next(iter(found), None)
                if len(found) >= MAX_REJECTIONS:
                    if len(part):
                        yield part
                        part = Part(part.start + len(part))
                    yield Part(part.start, rejections=[(0, failure) for failure in found])
                    found = []
        except FILE_ERRORS as problem:
            error = file_failure(file, problem)
            if isinstance(
                problem, InvalidTextError
            ):  # of a document, distinguished only if it must be split
                error = with_record_count(error, records)
            # The file failed as a whole: its records are not counted.
            records = rejected = 0
            found = []
        part.rejections += [(len(part), failure) for failure in found]
        if records and rejected == records:
            error = first
        if error:
            part.errors[len(part)] = error
        if rejected:
            part.rejected[len(part)] = rejected
        part.records.append(records)
        return part

    def _file_verdicts(self, path: str, opened: Opened) -> Iterator[Verdicts]:
        """Yield record counts and invalid lines. Raises one of `FILE_ERRORS`."""
        if isinstance(opened, Exception):
            raise opened
        with opened if isinstance(opened, Content) else Content(opened) as content:
            form, chunks = open_text(content, path, self._settings, self._validator)
            compressed = is_compressed(content)
            if form in ("concat", "seq"):  # rare, so the module is imported only here
                from asyncbatch.formats.sequences import read_concatenated, read_sequence

                read = read_sequence if form == "seq" else read_concatenated
                for block in read(chunks, self._validator, self._settings.sizes.record):
                    parts = block.split() if block.faults else ()
                    bad = [one for one in parts if isinstance(one, InvalidLine)]
                    yield len(block.texts), bad
            elif form == "jsonl":
                yield from map(_line_verdicts, validate_lines(chunks, self._validator))
            elif isinstance(opened, bytes) and not compressed:
                yield validate_text(opened, self._validator), []
            else:
                from asyncbatch.formats.arrays import ArrayStream

                stream = ArrayStream(chunks, None, self._validator, self._settings.sizes)
                if stream.begin(is_split=is_splittable(path, content, self._settings.sizes)):
                    yield from map(_window_verdicts, stream.windows())
                else:
                    yield validate_text(stream.whole(drain=compressed), self._validator), []


def _window_verdicts(window: ArrayWindow) -> Verdicts:
    return window.elements, []


def _line_verdicts(lines: Lines) -> Verdicts:
    parts = lines.split() if lines.faults else ()
    return lines.records, [one for one in parts if isinstance(one, InvalidLine)]


def end_of_splits(batch: Batch) -> Part:
    """Return the last part of a split file: its end, and its remaining bytes."""
    split = batch.split
    if split is None:
        return Part(batch.start)
    errors = {} if split.error is None else {0: split.error}
    return Part(batch.start, [0], [split.length], [0.0], errors=errors)


class PlanTask:
    """Measures files, and ends a batch at the same number of bytes as `CountTask`."""

    def __init__(self, settings: FileWorkSettings) -> None:
        self._limit, self._opener = settings.max_file_size, InputOpener(settings)

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield one part: the files of one batch, with sizes and no records."""
        part = Part(batch.start)
        taken = 0
        for place, path in enumerate(batch.paths):
            try:
                size = self._size(path)
            except OPEN_ERRORS as error:
                part.errors[place] = file_failure(display_path(path), error)
                size = 0
            part.records.append(0)
            part.bytes.append(size)
            part.elapsed_ms.append(0.0)
            taken += size
            if taken >= MAX_BATCH_BYTES:
                break
        yield part

    def _size(self, path: str) -> int:
        size = 0 if path == STDIN else self._opener.size(path)
        if self._limit is not None and size > self._limit:
            raise TooLargeError(size, self._limit)
        return size
