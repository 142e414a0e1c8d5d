"""Count and validate files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncbatch.core.batches import Part, SplitFile
from asyncbatch.core.progress import Progress
from asyncbatch.core.records import STDIN, Position, display_path
from asyncbatch.formats.arrays import ArrayStream
from asyncbatch.formats.detect import decompressed_text, is_compressed, is_json_lines, is_splittable
from asyncbatch.formats.failures import (
    FILE_ERRORS,
    InvalidTextError,
    after_records,
    file_failure,
    line_failure,
    validate_text,
)
from asyncbatch.formats.lines import InvalidLine, validate_lines
from asyncbatch.formats.validator import make_validator
from asyncbatch.sources.reader import Reader, close_opened, size_read
from asyncbatch.storage.local import Content, TooLargeError
from asyncbatch.storage.opener import Opener

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from asyncbatch.core.batches import Batch
    from asyncbatch.core.records import Failure
    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.formats.lines import Lines
    from asyncbatch.sources.reader import Opened

    # a record count, and the invalid lines among the records
    Verdicts = tuple[int, list[InvalidLine]]

# A batch is returned unfinished after this many bytes, or after some time (see
# `settings.WorkLimit`): progress stays live, stopping stays quick, and another worker can take the
# rest.
MAX_BATCH_BYTES = 8 * 1024 * 1024
# rejected records in one part: memory stays bounded for a file of nothing else
MAX_REJECTIONS = 1000


class CountTask:
    """Validates and counts the records of files, batch by batch.

    One instance serves one thread: it keeps a parser, and its knowledge about the speed of storage.
    """

    def __init__(self, settings: FileWorkSettings) -> None:
        self._settings = settings
        self._judge = make_validator()
        self._opener = Opener(settings)
        self._reader = Reader(settings.max_file_size, settings.read_ahead, self._opener)
        self._most_bytes = settings.portion.bytes or MAX_BATCH_BYTES
        self.progress = Progress()
        """its current file; a worker process replaces it by a shared one"""

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield the outcome of the files, in order; may end before the last (see the limits)."""
        judge, now = self._judge, time.perf_counter
        names_tell = self._settings.format == "auto"
        if batch.split is not None:
            yield from self._split(batch)
            return
        part = Part(batch.start)
        began = now()
        seconds = self._settings.portion.seconds
        contents = self._reader.contents(batch, self._most_bytes, seconds, self.progress)
        for path, opened in contents:
            # The short way, for what nearly every file is: small, plain, one good JSON text.
            verdict = None
            if type(opened) is bytes and names_tell and path.endswith(".json"):
                verdict = judge(opened)
            if type(verdict) is int and type(opened) is bytes:
                part.records.append(verdict)
                part.bytes.append(len(opened))
            elif self._is_split(path, opened):
                close_opened(opened)
                contents.close()
                yield part
                yield Part(part.start + len(part), split_file=SplitFile("lines", relative=True))
                return
            else:
                verdicts = self._verdicts(path, opened)
                part = yield from self._examine_all(path, verdicts, part)
                part.bytes.append(size_read(opened))
            ended = now()
            part.elapsed_ms.append((ended - began) * 1000)
            began = ended
        part.retries = self._opener.take_retry_count()
        yield part

    def _is_split(self, path: str, opened: Opened) -> bool:
        """Whether a file is split for several workers. An array is as fast in one."""
        return (
            isinstance(opened, Content)
            and is_splittable(path, opened, self._settings.sizes)
            and is_json_lines(path, self._settings.format)
        )

    def _split(self, batch: Batch) -> Iterator[Part]:
        """Yield the outcome of a split, as if it were a file."""
        piece, path = batch.split, batch.paths[0]
        if piece is None or piece.end:
            yield end_of_splits(batch)
            return
        began = time.perf_counter()
        chunks = self._opener.byte_range(path, piece.start.byte, piece.length, piece.etag)
        lines = 0

        def verdicts() -> Iterator[Verdicts]:
            nonlocal lines
            for block in validate_lines(chunks, self._judge, piece.start):
                lines += len(block.texts)
                yield _line_verdicts(block)

        part = yield from self._examine_all(path, verdicts(), Part(batch.start))
        end = piece.start.byte + piece.length
        part.position = Position(
            end, piece.start.record + part.records[0], piece.start.line + lines
        )
        part.bytes.append(piece.length)
        part.elapsed_ms.append((time.perf_counter() - began) * 1000)
        part.retries = self._opener.take_retry_count()
        yield part

    def _examine_all(
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
            ):  # of a document, told apart only if it is huge
                error = after_records(error, records)
            # The file failed as a whole: its records count for nothing.
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

    def _verdicts(self, path: str, opened: Opened) -> Iterator[Verdicts]:
        """Yield record counts and invalid lines. Raises one of `FILE_ERRORS`."""
        if isinstance(opened, Exception):
            raise opened
        with opened if isinstance(opened, Content) else Content(opened) as content:
            is_lines, chunks = decompressed_text(content, path, self._settings, self._judge)
            compressed = is_compressed(content)
            if is_lines:
                yield from map(_line_verdicts, validate_lines(chunks, self._judge))
            elif isinstance(opened, bytes) and not compressed:
                yield validate_text(opened, self._judge), []
            else:
                stream = ArrayStream(chunks, None, self._judge, self._settings.sizes)
                if stream.begin(is_split=is_splittable(path, content, self._settings.sizes)):
                    yield from ((window.elements, []) for window in stream.windows())
                else:
                    yield validate_text(stream.whole(drain=compressed), self._judge), []


def _line_verdicts(lines: Lines) -> Verdicts:
    pieces = lines.split() if lines.faults else ()
    return lines.records, [one for one in pieces if isinstance(one, InvalidLine)]


def end_of_splits(batch: Batch) -> Part:
    """Return the last part of a split file: its end, and its remaining bytes."""
    piece = batch.split
    if piece is None:
        return Part(batch.start)
    errors = {} if piece.error is None else {0: piece.error}
    return Part(batch.start, [0], [piece.length], [0.0], errors=errors)


class PlanTask:
    """Takes the size of each file, and ends a batch where `CountTask` would by bytes."""

    def __init__(self, settings: FileWorkSettings) -> None:
        self._limit, self._opener = settings.max_file_size, Opener(settings)

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield one part: the files of one batch, with sizes and no records."""
        part = Part(batch.start)
        taken = 0
        for place, path in enumerate(batch.paths):
            try:
                size = self._size(path)
            except (OSError, TooLargeError) as error:
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
