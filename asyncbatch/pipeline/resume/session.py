"""Ledger sessions: the ledger, admission and journal of one run, by kind of target."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncbatch.core.ledger_entries import LedgerJob
from asyncbatch.core.paths import is_object_url
from asyncbatch.errors import UsageError
from asyncbatch.pipeline.resume.admission import Admission, BookmarkAdmission, stamp_of
from asyncbatch.pipeline.resume.journal import FileJournal, Journal, KnownInputs, ResumedRows
from asyncbatch.sources.identity import InputNaming
from asyncbatch.state.ledger.file import SharedLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.ledger_entries import Entry, Extent, Ledger, Stamp
    from asyncbatch.core.settings import LedgerSettings, StoreSettings
    from asyncbatch.sinks.target import Target
    from asyncbatch.sinks.text_files import FileSink
    from asyncbatch.state.ledger.file import Generation, LedgerStore


class LedgerSession:
    """Reads the ledger entries of earlier runs, and writes those of this run.

    Owned by the delivery. Call `prepare` before the sink is opened and `begin` after it, which sets
    `admission`, `bookmarks` and `journal`; then `add` for each finished part; `before_finish` and
    `after_finish` around the finish of the sink; `close` at the end.
    """

    admission: Admission
    bookmarks: BookmarkAdmission
    journal: Journal

    def __init__(self, settings: LedgerSettings, target: Target | None, *, ordered: bool) -> None:
        self._settings, self._target, self._ordered = settings, target, ordered
        self.resumed_rows: ResumedRows | None = None
        self._known: KnownInputs = {}
        self._ledger: Ledger | None = None

    @property
    def ledger_job(self) -> LedgerJob:
        """The settings for the ledger of a database, which its sink opens."""
        settings = self._settings
        return LedgerJob(settings.fingerprint, settings.is_resuming, self._is_current)

    def add(self, batch_part: BatchPart) -> None:
        """Write the entries of a finished part, unless the loader writes them. Raises SinkError."""

    def prepare(self, sink: Any) -> None:
        """Prepare the sink before it is opened. Raises UsageError."""

    def abandon(self) -> None:
        """Close, and remove the traces of a run that cannot start."""
        self.close()

    def begin(self, sink: Any) -> None:
        """Open the ledger after the sink was opened. Raises UsageError."""

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def checkpoint(self) -> None:
        """Write the entries of all finished parts now. Raises SinkError."""

    def before_finish(self) -> None:
        """Write all entries before the target is finished. Raises SinkError."""

    def after_finish(self, *, committed: bool) -> None:
        """Write the remaining entries if the rows of the target count. Raises SinkError."""

    def mark_of(self, path: str) -> str:
        """Return a text that changes with the state of a file: that of its reading, if known."""
        known = self._known.get(path)
        stamp = known.stamp if known else stamp_of(path, by_content=self._settings.by_content)
        return "" if stamp is None else stamp.digest or f"{stamp.size} {stamp.mtime_ns}"

    def save_put_away(self, sink: Any) -> None:
        """Note in a ledger that would refuse them: new files may take the names of these.

        Raises SinkError.
        """

    def is_done(self, name: str) -> bool:
        """Whether an input is done, and has not changed since. Raises SinkError."""
        entry = self._ledger.lookup([name]).get(name) if self._ledger else None
        if entry is None or entry.outcome == "failed":
            return False
        return self._is_current(name, entry.stamp)

    def _is_current(self, name: str, stamp: Stamp) -> bool:
        settings = self._settings
        path = InputNaming(settings.root).path(name) or name
        if is_object_url(path):
            from asyncbatch.storage.objects import ObjectReader

            path = ObjectReader(settings.stores).head(path)
        else:
            from asyncbatch.sources.archives import find_named_member

            path = find_named_member(path)
        current = stamp_of(path, by_content=settings.by_content)
        return current is not None and current.describes_same_file(stamp)

    def _make_admission(self, ledger: Ledger, **options: Any) -> None:
        ledger = self._ledger = SharedLedger(ledger)
        self.admission = Admission(self._settings, ledger, self._known, **options)
        appends = bool(options.get("appends"))
        self.bookmarks = BookmarkAdmission(self._settings, ledger, self._known, appends=appends)


class TableLedgerSession(LedgerSession):
    """The session of a table: its database keeps the ledger, written in the same transactions."""

    def begin(self, sink: Any) -> None:
        target = self._target
        assert target is not None
        replaces = target.mode == "replace"
        self.journal = Journal(self._known, generation=int(replaces))
        appends = not target.key and target.mode != "mirror"
        appends = appends and (target.mode == "append" or self._settings.is_resuming)
        # In a mirror, a rejected row may have had the key of a row that is gone now.
        repeats = target.mode == "mirror" and bool(target.key)
        self._make_admission(sink.ledger(), appends=appends, repeats_rejected=repeats)

    def save_put_away(self, sink: Any) -> None:
        naming, paths = InputNaming(self._settings.root), set(self.admission.put_away)
        if paths:
            sink.put_away(list(map(naming.name, paths)))
            self.admission.put_away -= paths


class FileLedgerSession(LedgerSession):
    """The session of a ledger in its own file."""

    def __init__(self, settings: LedgerSettings, target: Target | None, *, ordered: bool) -> None:
        super().__init__(settings, target, ordered=ordered)
        from asyncbatch.state.ledger.file import LedgerStore

        self._location = target.location if target else ""
        self._store: LedgerStore = LedgerStore(
            settings.path, settings.fingerprint, self._location, settings.description
        )
        self._store.open()

    def begin(self, sink: Any) -> None:  # noqa: ARG002 - this ledger is not in the sink
        self.journal = FileJournal(self._known, self._store, lambda: None)
        self._make_admission(self._reader(), appends=False)

    def add(self, batch_part: BatchPart) -> None:
        assert isinstance(self.journal, FileJournal)
        self.journal.add(batch_part)

    def checkpoint(self) -> None:
        assert isinstance(self.journal, FileJournal)
        self.journal.checkpoint()

    def before_finish(self) -> None:
        self.checkpoint()

    def close(self) -> None:
        super().close()
        self._store.close()

    def _reader(self) -> Ledger:
        from asyncbatch.state.ledger.sqlite import sqlite_ledger

        return sqlite_ledger(self._settings.path, self._settings.fingerprint)


class FolderLedgerSession(FileLedgerSession):
    """The session of a folder. Entries hold the extent of each output: others may write there."""

    _extent_of: Callable[[str], Extent | None]

    def begin(self, sink: Any) -> None:  # noqa: ARG002 - this ledger is not in the sink
        from asyncbatch.sinks.folder import extent_of
        from asyncbatch.storage.atomic import sync_file_system

        target = self._target
        assert target is not None
        self._extent_of = partial(extent_of, target)
        self.journal = FileJournal(self._known, self._store, partial(sync_file_system, target.path))
        self._make_admission(self._reader(), appends=False, is_unchanged=self._is_output_unchanged)

    def add(self, batch_part: BatchPart) -> None:
        assert isinstance(self.journal, FileJournal)
        part, first = batch_part.part, batch_part.part.start - batch_part.batch.start
        extents = [
            self._extent_of(path) if (kept := part.entries.get(place)) is None else kept.extent
            for place, path in enumerate(batch_part.batch.paths[first : first + len(part)])
        ]
        self.journal.add(batch_part, extents)

    def known_outputs(self) -> list[tuple[str, list[Extent]]]:
        """Return the escaped identity of each input that has outputs, with their states."""
        return self._store.outputs()

    def forget(self, inputs: Sequence[str]) -> None:
        """Delete the entries of inputs. Raises SinkError."""
        self._store.forget_files(inputs)

    def _is_output_unchanged(self, path: str, entry: Entry) -> bool:
        if entry.extent is None:  # a document that was dropped has no output
            return not entry.written
        return entry.extent == self._extent_of(path)


class PrefixLedgerSession(FolderLedgerSession):
    """The session of a prefix in a store. Workers report versions; a listing checks them."""

    def __init__(
        self, settings: LedgerSettings, target: Target, stores: StoreSettings, *, ordered: bool
    ) -> None:
        super().__init__(settings, target, ordered=ordered)
        self._stores = stores

    def begin(self, sink: Any) -> None:  # noqa: ARG002 - this ledger is not in the sink
        from asyncbatch.sinks.folder import ObjectStates

        assert self._target is not None
        self._extent_of = ObjectStates(self._target, self._stores).extent_of
        self.journal = FileJournal(self._known, self._store, lambda: None)
        self._make_admission(self._reader(), appends=False, is_unchanged=self._is_output_unchanged)

    def add(self, batch_part: BatchPart) -> None:
        assert isinstance(self.journal, FileJournal)
        part = batch_part.part
        self.journal.add(
            batch_part,
            [
                part.outputs.get(place)
                if (kept := part.entries.get(place)) is None
                else kept.extent
                for place in range(len(part))
            ],
        )


class OutputFileLedgerSession(FileLedgerSession):
    """The session of a single file. Each run writes a new version, called a generation."""

    _sink: FileSink | None = None

    def prepare(self, sink: FileSink) -> None:
        """Register a new generation, and set the name of the file until it is complete."""
        self._generations = self._usable_generations()
        self._sink, self._generation_number = sink, self._store.begin()
        folder, name = os.path.split(sink.file.final_path)
        self._unfinished_path = os.path.join(
            folder, f".{name}.{self._store.key}-{self._generation_number}.asyncbatch"
        )
        if self._keeps_unfinished:
            sink.file.keep_unfinished(self._unfinished_path)

    def begin(self, sink: FileSink) -> None:
        if self._keeps_unfinished:
            self._store.unfinished_generation(self._generation_number, self._unfinished_path)
        target = self._target
        assert target is not None
        sync = sink.file.sync if self._keeps_unfinished else None
        self.journal = FileJournal(
            self._known, self._store, sync, generation=self._generation_number
        )
        from asyncbatch.formats.compression import compression_by_name

        # The rows of partitions are compressed only at the end.
        is_compressed = target.layout is None and compression_by_name(target.path) is not None
        compressed = target.form == "lines" and is_compressed
        self.resumed_rows = ResumedRows(
            sink, self.journal, self._generations, compressed=compressed
        )
        finds_columns = target.form == "csv" and target.columns is None
        reuses = self._ordered or not finds_columns
        self._make_admission(
            self._reader(),
            appends=False,
            is_unchanged=lambda _, entry: reuses and entry.generation in self._generations,
            needs_first=finds_columns,
        )

    def abandon(self) -> None:
        if self._sink is not None:
            self._sink.file.remove_unfinished()
            self._store.forget([self._generation_number])
        super().abandon()

    def add(self, batch_part: BatchPart) -> None:
        """Do nothing: the loader writes the entries."""

    def before_finish(self) -> None:
        super().before_finish()
        if self._keeps_unfinished:
            self._store.seal(self._generation_number, self._unfinished_path)

    def after_finish(self, *, committed: bool) -> None:
        if not committed:
            return
        assert isinstance(self.journal, FileJournal)
        if not self._keeps_unfinished:
            self._store.unfinished_generation(self._generation_number, self._location)
            self.journal.write()
        self._store.completed(self._generation_number)
        self._drop_generations(
            [number for number in self._generations if number != self._generation_number]
        )

    @property
    def _keeps_unfinished(self) -> bool:
        """Whether the next run can use the unfinished file."""
        return self._target is not None and self._target.form != "parquet"

    def _usable_generations(self) -> Mapping[int, Generation]:
        """Return the files of earlier runs that this run can use, and remove the others."""
        from asyncbatch.storage.atomic import is_being_written

        generations = dict(self._store.generations())
        sizes = self._store.sizes()
        unusable = [number for number in sizes if number not in generations]
        if self._settings.retry_failed and not sizes:
            raise UsageError(
                f"--retry-failed: no run of this job has written {self._location} yet: run without "
                "--retry-failed"
            )
        if self._settings.retry_failed and (unusable or not generations):
            raise UsageError(
                f"{self._location} is not the file that the last run of this job left, so the "
                "rows of inputs that did not fail are missing: run with --resume"
            )
        kept: dict[int, Generation] = {}
        for number in sorted(generations, key=lambda number: (-sizes.get(number, 0), number)):
            generation = generations[number]
            if generation.path == self._location:
                kept[number] = generation
            elif is_being_written(generation.path):
                if self._settings.is_resuming:
                    raise UsageError(
                        f"another run is writing {self._location}: wait for it (with --lock, runs "
                        "of one job never overlap)"
                    )
            elif self._settings.is_resuming and self._store.adds(number, list(kept)):
                kept[number] = generation
            else:
                self._unlink(generation)
                unusable.append(number)
        self._store.forget(unusable)
        return kept

    def _drop_generations(self, numbers: list[int]) -> None:
        for number in numbers:
            self._unlink(self._generations[number])

    def _unlink(self, generation: Generation) -> None:
        if generation.path != self._location:
            with suppress(OSError):  # a leftover file does no harm
                os.unlink(generation.path)


class PartitionsLedgerSession(OutputFileLedgerSession):
    """The session of partitions. An interrupted run leaves its stage, a finished one nothing."""

    def prepare(self, sink: FileSink) -> None:
        if self._settings.retry_failed:
            raise UsageError(
                f"--retry-failed cannot add to {self._location}: each run writes the files of "
                "partitions whole; leave it out"
            )
        super().prepare(sink)

    def after_finish(self, *, committed: bool) -> None:
        if committed:
            self._drop_generations(list(self._generations))
            self._store.forget([*self._generations, self._generation_number])


def make_ledger_session(
    settings: LedgerSettings, target: Target | None, stores: StoreSettings, *, ordered: bool
) -> LedgerSession:
    """Return the ledger session of a run. Raises UsageError."""
    if target is not None and target.is_remote:
        return PrefixLedgerSession(settings, target, stores, ordered=ordered)
    kind: type[LedgerSession] = FileLedgerSession
    if target is not None and target.is_database:
        kind = TableLedgerSession
    elif target is not None:
        kind = FolderLedgerSession if target.form == "folder" else OutputFileLedgerSession
        if target.layout is not None:
            kind = PartitionsLedgerSession
    return kind(settings, target, ordered=ordered)
