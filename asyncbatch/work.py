"""The unit of work: judge every file of a batch. Runs in a worker, without the event loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncbatch.codec.judge import make_judge
from asyncbatch.codec.lines import BadLine, judge_lines
from asyncbatch.content import Content
from asyncbatch.documents import unpack
from asyncbatch.failures import FILE_ERRORS, file_failure, judge_text, line_failure
from asyncbatch.progress import Progress
from asyncbatch.reading import Reader, size_read
from asyncbatch.records import Part, display_path
from asyncbatch.retrying import Retrier

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from asyncbatch.reading import Opened
    from asyncbatch.records import Batch, Failure
    from asyncbatch.settings import FileWorkSettings

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch is given back unfinished once so many bytes of it were read, ..."""
MAX_BATCH_SECONDS = 0.5
"""... or after so long: progress stays live, stopping quick, and the rest can go elsewhere."""
MAX_REJECTIONS = 1000
"""Bad records that one part carries: a file of nothing else still needs bounded memory."""


class FileWork:
    """Judges batches of files, one after another, and reports in parts.

    One instance serves one thread: it keeps a parser, and what it learned about the storage.
    """

    def __init__(self, settings: FileWorkSettings) -> None:
        self._format = settings.format
        self._judge = make_judge()
        self._retrier = Retrier(settings.retries)
        self._reader = Reader(settings.max_file_size, settings.read_ahead, self._retrier)
        self.progress = Progress()
        """Where it says which file it is at; a worker process puts a shared one in its place."""

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield what became of the files, in order; it may end before the last (see the limits)."""
        judge, now = self._judge, time.perf_counter
        names_tell = self._format == "auto"
        part = Part(batch.start)
        began = now()
        for path, opened in self._reader.contents(
            batch, MAX_BATCH_BYTES, MAX_BATCH_SECONDS, self.progress
        ):
            # The short way, for what nearly every file is: small, plain, one good JSON text.
            verdict = None
            if type(opened) is bytes and names_tell and path.endswith(".json"):
                verdict = judge(opened)
            if type(verdict) is int and type(opened) is bytes:
                part.records.append(verdict)
                part.bytes.append(len(opened))
            else:
                part = yield from self._thoroughly(path, opened, part)
            ended = now()
            part.elapsed_ms.append((ended - began) * 1000)
            began = ended
        part.retries = self._retrier.taken()
        yield part

    def _thoroughly(self, path: str, opened: Opened, part: Part) -> Generator[Part, None, Part]:
        """Add to `part` what became of any file; yield it when full and return the one to go on."""
        file = display_path(path)
        records = rejected = 0
        first = error = None
        found: list[Failure] = []
        try:
            for count, bad_lines in self._verdicts(path, opened):
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
        part.bytes.append(size_read(opened))
        return part

    def _verdicts(self, path: str, opened: Opened) -> Iterator[tuple[int, list[BadLine]]]:
        """Yield record counts and bad lines, stretch by stretch. Raises one of `FILE_ERRORS`."""
        if isinstance(opened, Exception):
            raise opened
        with opened if isinstance(opened, Content) else Content(opened) as content:
            is_lines, chunks = unpack(content, path, self._format, self._judge)
            if is_lines:
                for lines in judge_lines(chunks, self._judge):
                    pieces = lines.split() if lines.faults else ()
                    yield lines.records, [one for one in pieces if isinstance(one, BadLine)]
            else:
                yield judge_text(b"".join(chunks), self._judge), []
