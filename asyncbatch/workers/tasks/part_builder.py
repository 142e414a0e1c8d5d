"""The builder of parts: the outcome of records since the last part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncbatch.core.batches import Counts, Part
from asyncbatch.core.records import Failure, MissingNames
from asyncbatch.formats.failures import with_record_count
from asyncbatch.sinks.base import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.core.batches import Rows, SplitFile
    from asyncbatch.core.records import CursorValues, Position
    from asyncbatch.sinks.base import Pending
    from asyncbatch.transforms.base import MissingName

    Pack = Callable[["PartContents"], Rows | None]  # Encodes rows for the main process.

MAX_ROWS = 8192  # approximate limit of rows in one part, unless they are encoded already
# rejected records in one part: bounds the memory for a file of rejected records
MAX_REJECTIONS = 1000


class PartContents:
    """Rows and the records they were made of; rejections and their dead letters."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        # in place of rows: JSON Lines, the number of their rows, and their size at each file's end
        self.encoded: list[bytes] = []
        self.encoded_rows: int = 0
        self.encoded_ends: list[int] = []
        self._encoded_size = 0
        self.added: dict[str, list[Any]] = {}  # the values of added columns, one for each row
        self.places: list[int] = []
        self.records: list[int] = []
        self.lines: list[int | None] = []
        self.original_texts: list[bytes] = []
        self.has_many_rows: bool = False
        self.file_ends: list[int] = []  # for each finished file, the number of rows up to its end
        self.rejections: list[Failure] = []
        self.dead_letters: list[bytes] = []
        self.missing: MissingNames = MissingNames()
        self.bytes: int = 0  # bytes of the records, as an estimate for their rows

    def __bool__(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.row_count or self.rejections)

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(self.rows) + self.encoded_rows

    def exceeds(self, max_bytes: int) -> bool:
        """Whether to report now: more than `max_bytes` bytes, or many rows or rejections."""
        return (
            len(self.rows) >= MAX_ROWS
            or (self.bytes >= max_bytes and bool(self.row_count))
            or len(self.rejections) >= MAX_REJECTIONS
        )

    def add_encoded(self, lines: bytes, count: int) -> None:
        """Append `count` rows as JSON Lines."""
        if count:
            self.encoded.append(lines)
            self.encoded_rows += count
            self._encoded_size += len(lines)

    def add(self, other: PartContents) -> None:
        """Append the contents of another file."""
        self.rows += other.rows
        self.encoded += other.encoded
        self.encoded_rows += other.encoded_rows
        self._encoded_size += other._encoded_size
        for name, values in other.added.items():
            self.added.setdefault(name, []).extend(values)
        self.places += other.places
        self.records += other.records
        self.lines += other.lines
        self.original_texts += other.original_texts
        self.has_many_rows |= other.has_many_rows
        self.dead_letters += other.dead_letters
        self.bytes += other.bytes

    def end_file(self) -> None:
        """Note that the rows of a file end here."""
        self.file_ends.append(len(self.rows))
        self.encoded_ends.append(self._encoded_size)


class FilePart:
    """The current file: its counts, and its contents since the last part.

    The records of a large file are yielded in several parts; `reported` are their counts. They
    count even if the file fails later.
    """

    rejected: int

    def __init__(self) -> None:
        self.read = self.dropped = self.rejected = 0
        self.first_failure: Failure | None = None
        self.contents: PartContents = PartContents()
        self.is_huge = False
        self.reported: Counts = Counts()
        self.position: Position | None = None
        self.cursor_values: CursorValues | None = None

    @property
    def is_all_rejected(self) -> bool:
        """Whether every record was rejected, so that the file has failed."""
        return bool(self.rejected) and self.rejected == self.read

    def report_counts(self) -> Counts:
        """Return the change of the counts since the last call."""
        reported = self.reported
        more = Counts(
            self.read - reported.read,
            self.dropped - reported.dropped,
            self.rejected - reported.rejected,
        )
        reported.add(more)
        return more

    def reject(
        self, failure: Failure, dead_letter: bytes | None, missing: MissingName | None = None
    ) -> None:
        """Reject a record, which the caller has counted as read."""
        self.rejected += 1
        if missing is not None:
            self.contents.missing.add(missing.subject, missing.note)
        else:
            self.contents.missing.reject_other(failure.kind)
        self.first_failure = self.first_failure or failure
        self.contents.rejections.append(failure)
        if dead_letter is not None:
            self.contents.dead_letters.append(dead_letter)


class PartBuilder:
    """Builds a part, and the contents of the unfinished file after it.

    `only_counts`: no record of a file that fails counts, also if it was reported.
    """

    def __init__(self, start: int, pack: Pack, max_bytes: int, *, only_counts: bool) -> None:
        self._part, self._pack, self._max_bytes = Part(start), pack, max_bytes
        self._only_counts = only_counts
        self._contents = PartContents()
        # the pending uploads of finished files, with their names, by index
        self._uploads: dict[int, tuple[str, Pending]] = {}
        self.file: FilePart = FilePart()

    def flush(self) -> Iterator[Part]:
        """Yield the part about finished files, if there are any."""
        if len(self._part):
            self._wait_for_uploads()
            self._part.rows = self._pack(self._contents)
            yield self._part
            self._part, self._contents = Part(self._part.start + len(self._part)), PartContents()

    def flush_if_large(self) -> Iterator[Part]:
        """Yield a part if the contents are large, also those of the unfinished file."""
        if self.file.contents.exceeds(self._max_bytes):
            yield from self.flush_file(None)
        elif self._contents.exceeds(self._max_bytes):
            yield from self.flush()

    def flush_file(self, position: Position | None, size: int = 0) -> Iterator[Part]:
        """Yield the contents of the unfinished file up to `position`, `size` bytes."""
        yield from self.flush()
        found, self.file.contents = self.file.contents, PartContents()
        part = Part(self._part.start)
        self._move_rejections(part, found)
        part.rows = self._pack(found)
        if self.file.is_huge:
            part.counts, part.position = self.file.report_counts(), position
            part.counts.bytes, part.cursor_values = size, self.file.cursor_values
        yield part

    def report_split_file(self, split_file: SplitFile) -> Iterator[Part]:
        """Yield the contents, then the request to split the next file."""
        yield from self.flush()
        yield Part(self._part.start, split_file=split_file)

    def end_split(self, size: int, error: Failure | None) -> Iterator[Part]:
        """Yield the contents of a split of `size` bytes, with the error that ends its file."""
        yield from self.flush_file(self.file.position, size)
        self.file = FilePart()
        if error is not None:
            yield Part(self._part.start, [0], [0], [0.0], errors={0: error})

    def set_target_error(self, message: str) -> None:
        """Note that no output can be written any more; the run then ends."""
        self._part.target_error = message

    def end_file(
        self, size: int, elapsed_ms: float, error: Failure | None, written: int = 0
    ) -> None:
        """Finish the file, of which `size` bytes were read.

        With an `error` its records do not count, unless it is a large file whose records are used.
        """
        part, file, place = self._part, self.file, len(self._part)
        self.file = FilePart()
        if file.is_huge:
            part.counts = part.counts or Counts()
            part.counts.add(file.reported)
            if error is not None:
                error = with_record_count(error, file.read)
                if self._only_counts:
                    file = FilePart()
        elif error is not None:
            file = FilePart()
        if error is None and file.is_all_rejected:
            error = file.first_failure
        if error is not None:
            part.errors[place] = error
        if file.rejected:
            part.rejected[place] = file.rejected
        if file.dropped:
            part.dropped[place] = file.dropped
        self._move_rejections(part, file.contents)
        self._contents.add(file.contents)
        self._contents.end_file()
        part.spooled_rows.append(written or file.contents.row_count)
        part.written += written
        part.records.append(file.read)
        part.bytes.append(size)
        part.elapsed_ms.append(elapsed_ms)

    def wait_for_upload(self, file: str, pending: Pending) -> None:
        """Note the pending upload of the last file, named `file`."""
        self._uploads[len(self._part) - 1] = file, pending

    def _wait_for_uploads(self) -> None:
        """Wait for the uploads of finished files. A failed upload fails its file."""
        for place, (file, pending) in self._uploads.items():
            try:
                self._part.outputs[place] = pending()
            except OutputError as error:
                _retract(self._part, place)
                self._part.errors[place] = Failure(file, "sink", str(error))
                if error.is_lost:
                    self.set_target_error(str(error))
        self._uploads.clear()

    def _move_rejections(self, part: Part, found: PartContents) -> None:
        """Move rejections into `part`, as those of the file after its last."""
        place = len(part)
        part.rejections += [(place, failure) for failure in found.rejections]
        part.dead_letters += found.dead_letters
        found.dead_letters = []
        if found.missing.notes or found.missing.others:
            part.missing = part.missing or MissingNames()
            part.missing.update(found.missing)
            found.missing = MissingNames()
        found.places = [place] * len(found.rows)


def _retract(part: Part, place: int) -> None:
    """Remove the counts of a finished file that is reported in this part only."""
    part.written -= part.spooled_rows[place]
    part.records[place] = part.spooled_rows[place] = 0
    part.dropped.pop(place, None)
    part.rejected.pop(place, None)
    kept = [number for number, (at, _) in enumerate(part.rejections) if at != place]
    part.dead_letters = [part.dead_letters[number] for number in kept] if part.dead_letters else []
    part.rejections = [part.rejections[number] for number in kept]
