"""Delivery of the parts of workers: to the target, then to the dead letters and the ledger."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from asyncbatch.config.job import DEFAULT_PATIENCE
from asyncbatch.core.retry import Retrier
from asyncbatch.errors import SinkError, TargetBusyError, UsageError
from asyncbatch.pipeline.order import InputOrder, SourceOrder, SplitOrder, WholeFiles
from asyncbatch.pipeline.splits import SplitSums

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asyncbatch.config.job import Job
    from asyncbatch.core.batches import BatchPart, SettledInputs
    from asyncbatch.pipeline.dedupe import Deduplicator
    from asyncbatch.pipeline.finished_files import FinishedFiles
    from asyncbatch.pipeline.launch import Launch
    from asyncbatch.pipeline.loader import Loader
    from asyncbatch.pipeline.mirror import Mirror
    from asyncbatch.pipeline.order import Order
    from asyncbatch.pipeline.resume.admission import Admission, BookmarkAdmission
    from asyncbatch.pipeline.resume.session import LedgerSession
    from asyncbatch.sinks.base import BatchSink
    from asyncbatch.sinks.columns.schema_contract import SchemaContractCheck
    from asyncbatch.sinks.dead_letters import DeadLetterFile
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.live.watched_search import WatchedSearch

_WRITE_SECONDS = 2.0  # time for a write in progress after a cancellation
# A run that watches folders saves the rows of the files that came together within this time, ...
_SAVE_SECONDS = 0.05
_SAVE_SHARE = 5  # ... and at most a sixth of the time is spent with saves
# Seconds between two looks whether files of a watched folder are gone. After it has listed the
# folder for that, a run waits for ten times as long as the list took.
_GONE_SECONDS = 1.0
_PRUNE_SHARE = 10


class Delivery:
    """Delivers the parts of the workers, and yields each part once its rows are written.

    Owned by the run, which calls `open` first and `finish` last. `order` is None unless rows must
    reach the target in the order of the inputs.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        target = job.target
        work = job.record_work
        # Aggregates do not depend on the order, but the first of several duplicates does.
        has_rows = target is not None and target.has_sink
        if target is not None and target.groups is not None:
            has_rows = work is not None and bool(work.dedupe)
        most = job.files.sizes.held
        self.order: Order | None = None
        if job.ordered and (has_rows or job.dead_letter):
            is_plain = len(job.sources) == 1 and not job.has_feeds
            self.order = (
                InputOrder(max_bytes=most) if is_plain else SourceOrder(job, max_bytes=most)
            )
        # retries while another process holds the target
        self.retrier: Retrier = Retrier(job.files.retries)
        self._split_order = SplitOrder()
        self._sums = SplitSums(job)
        self._whole_files = WholeFiles()
        self._notes: list[str] = []
        self._sink: BatchSink[bytes | bytearray] | None = None
        self._loader: Loader | None = None
        self._contract: SchemaContractCheck | None = None
        self._deduplicator: Deduplicator | None = None
        self._dead_letters: DeadLetterFile | None = None
        self._ledger_session: LedgerSession | None = None
        self._mirror: Mirror | None = None
        self.deleted: int = 0  # rows, or outputs, of gone files that the mirror has ended
        self._abort_uploads: Callable[[], None] | None = None
        self.written_at_end: int = 0  # rows that were written by `finish`
        self.is_saved: bool = True  # whether all delivered parts are in the target and the ledger
        self._save_at = 0.0  # the time of the next save of a run that watches folders
        self._prune_at = 0.0  # the earliest time of the next prune of such a run
        # Held during a write to the target: a task can be cancelled, but not its thread.
        self._write_lock = threading.Lock()

    async def open(self) -> None:
        """Open the target and the dead letters. Raises UsageError."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        target = self._job.target
        if self._job.dead_letter is not None:
            from asyncbatch.sinks.dead_letters import DeadLetterFile

            self._dead_letters = DeadLetterFile(self._job.dead_letter, self._job.stores)
            self._dead_letters.open()
        try:
            self._ledger_session = self._open_ledger()
            if target is not None and target.has_sink:
                self._open_target(target)
            elif self._ledger_session:
                self._ledger_session.begin(None)
                if target is not None and target.mode == "mirror":
                    self._mirror = self._folder_mirror(target, self._ledger_session)
            if target is not None and target.form == "folder":
                self._check_folder(target)
        except UsageError:
            self.discard_outputs()
            raise

    def _folder_mirror(self, target: Target, session: LedgerSession) -> Mirror:
        from asyncbatch.pipeline.mirror import FolderMirror

        source, is_watching = self._job.file_sources[0][1], self._job.watch is not None
        return FolderMirror(target, source, session, is_watching=is_watching)

    def _check_folder(self, target: Target) -> None:
        if target.is_remote:
            from asyncbatch.sinks.folder import check_prefix

            check_prefix(target, self._job.stores)
        else:
            from asyncbatch.sinks.folder import check_disk

            check_disk(target.path)

    def _open_ledger(self) -> LedgerSession | None:
        settings = self._job.ledger
        if settings is None:
            return None
        from asyncbatch.pipeline.resume.session import make_ledger_session

        try:
            return make_ledger_session(
                settings, self._job.target, self._job.stores, ordered=self._job.ordered
            )
        except UsageError as error:
            if settings.is_required:
                raise
            self._notes.append(f"if this run is interrupted, it cannot be resumed: {error}")
            return None

    def _open_target(self, target: Target) -> None:
        from asyncbatch.pipeline.loader import make_loader
        from asyncbatch.sinks.columns.schema_contract import SchemaContractCheck

        ledger_session = self._ledger_session
        self._contract = SchemaContractCheck(target.contract, target.key)
        sink: Any = self._job.sink or target.open_sink(
            ledger_session.ledger_job if ledger_session else None,
            self.retrier,
            self._contract,
            self._job.stores,
            sorts_columns=not self._job.ordered,
        )
        if target.groups is not None:
            from asyncbatch.sinks.groups import GroupSink

            sink = GroupSink(target, target.groups, sink)
        if ledger_session:
            ledger_session.prepare(sink)
        self.retrier.call(sink.open, lambda error: isinstance(error, TargetBusyError))
        self._sink = sink
        if target.is_remote or target.layout is not None:
            self._abort_uploads = sink.give_up
        if ledger_session:
            ledger_session.begin(sink)
        if self._job.record_work and self._job.record_work.dedupe:
            from asyncbatch.pipeline.dedupe import Deduplicator

            self._deduplicator = Deduplicator(target)
        mirror = None
        if ledger_session and target.mode == "mirror":
            from asyncbatch.pipeline.mirror import TableMirror

            mirror = self._mirror = TableMirror(
                *(sink, target, self._job.file_sources[0][1], ledger_session),
                is_watching=self._job.watch is not None,
            )
        journal = ledger_session.journal if ledger_session and target.is_database else None
        kept = ledger_session.resumed_rows if ledger_session else None
        self._loader = make_loader(
            target,
            sink,
            self._job.load_batch,
            journal=journal,
            resumed_rows=kept,
            sizes=self._job.files.sizes,
            wait_seconds=self._job.record_work.patience
            if self._job.record_work
            else DEFAULT_PATIENCE,
            ordered=self._job.ordered,
            mirror=mirror,
        )

    async def prune(self, launch: Launch) -> None:
        """End the rows or outputs of files that are gone. Raises UsageError for too many."""
        await asyncio.to_thread(self._prune, launch)

    async def prune_watched(self, launch: Launch) -> None:
        """Do the same in a run that watches folders, if files may be gone. Raises SinkError."""
        if self._mirror is None or not self.is_saved or time.monotonic() < self._prune_at:
            return
        if not cast("WatchedSearch", launch.searches[0]).take_lost():
            return
        began = time.monotonic()
        try:
            await self.prune(launch)
        except UsageError as error:
            raise SinkError(str(error)) from None
        now = time.monotonic()
        self._prune_at = now + _PRUNE_SHARE * (now - began)

    def _prune(self, launch: Launch) -> None:
        with self._write_lock:
            if self._mirror is not None:
                deleted, note = self._mirror.prune(launch)
                self.deleted += deleted
                self._notes += [] if note is None else [note]

    @property
    def admission(self) -> Admission | None:
        """The admission of inputs; None if all are processed. Valid after `open`."""
        return self._ledger_session.admission if self._ledger_session else None

    @property
    def bookmarks(self) -> BookmarkAdmission | None:
        """The admission of feeds; None without a ledger. Valid after `open`."""
        return self._ledger_session.bookmarks if self._ledger_session else None

    def _take_sink_notes(self, sink: Any) -> None:
        self._notes += getattr(sink, "notes", ())  # of some sinks only

    def take_notes(self) -> list[str]:
        """Return the notes for the user that are new since the last call."""
        notes, self._notes = self._notes, []
        return notes + self._sums.take_notes()

    def discard_outputs(self) -> None:
        """Release the outputs of a run that cannot start. Earlier dead letters stay."""
        dead_letters, self._dead_letters = self._dead_letters, None
        if dead_letters is not None:
            dead_letters.discard()
        if self._ledger_session is not None:
            self._ledger_session.abandon()
            self._ledger_session = None

    def remove_unfinished(self, path: str) -> None:
        """Remove the unfinished output of input `path`, whose worker died."""
        target = self._job.target
        if target is not None and target.form == "folder" and not target.is_remote:
            from asyncbatch.sinks.folder import (
                output_path,
                temporary,
            )

            with suppress(OSError, UsageError):  # there may be no such file or folder
                os.unlink(temporary(output_path(target, path)))

    async def deliver(self, result: BatchPart | SettledInputs) -> AsyncIterator[BatchPart]:
        """Take a result of a worker; yield the finished parts. Raises SinkError, OSError."""
        self.is_saved = False
        for item in (self.order or self._split_order).pass_on(result):
            for summed in self._sums.pass_on(item):
                for part in self._whole_files.pass_on(summed):
                    async for loaded in self._written(partial(self._load, part)):
                        yield loaded
                        if loaded.part.target_error:
                            raise SinkError(loaded.part.target_error)

    async def _written(self, write: Callable[[], Sequence[BatchPart]]) -> AsyncIterator[BatchPart]:
        """Call `write` in a thread, and yield the parts that it finished.

        A cancellation takes effect after that, because the thread would commit rows that no report
        counts. Only a write that hangs is not waited for.
        """
        if not (self._loader or self._ledger_session or self._dead_letters):
            for part in write():
                yield part
            return
        writing = asyncio.ensure_future(asyncio.to_thread(write))
        cancellation: asyncio.CancelledError | None = None
        try:
            await asyncio.wait((writing,))
        except asyncio.CancelledError as error:
            if (end_soon := getattr(self._sink, "end_soon", None)) is not None:
                end_soon()
            await asyncio.wait((writing,), timeout=_WRITE_SECONDS)
            writing.add_done_callback(_take_error)
            if not writing.done() or writing.exception() is not None:
                raise
            cancellation = error
        for part in writing.result():
            yield part
        if cancellation:
            raise cancellation

    @property
    def loaded_by_program(self) -> int:
        """The number of records that a sink of the program has loaded."""
        return int(getattr(self._job.sink, "loaded", 0))

    def _load(self, batch_part: BatchPart) -> Sequence[BatchPart]:
        with self._write_lock:
            if self._deduplicator is not None:
                self._deduplicator.drop_duplicates(batch_part)
            finished: Sequence[BatchPart] = (batch_part,)
            if self._loader is not None:
                finished = self._loader.load(batch_part)
            return self._settle(finished)

    def _settle(self, parts: Sequence[BatchPart]) -> Sequence[BatchPart]:
        """Write the dead letters and ledger entries of finished parts."""
        for batch_part in parts:
            if self._ledger_session is not None:
                self._ledger_session.add(batch_part)
                if self._dead_letters is not None:
                    resumed = self._ledger_session.journal.take_dead_letters(batch_part)
                    self._dead_letters.write(resumed)
            if self._dead_letters is not None:
                self._dead_letters.add(batch_part)
        return parts

    @property
    def wait_seconds(self) -> float | None:
        """Seconds without a new part after which rows may be late; None: never."""
        if self._job.watch is not None:
            if self.is_saved:
                return None if self._mirror is None else _GONE_SECONDS
            return max(0.0, self._save_at - time.monotonic())
        return self._loader.wait_seconds if self._loader else None

    @property
    def is_late(self) -> bool:
        """Whether rows have waited long enough, so that `flush` is due."""
        if self._job.watch is not None:
            return not self.is_saved and time.monotonic() >= self._save_at
        return self._loader is not None and self._loader.is_late

    def flush(self) -> AsyncIterator[BatchPart]:
        """Load all waiting rows; yield the finished parts. Raises SinkError."""
        return self._written(self._flush if self._job.watch is None else self._save)

    def _flush(self) -> Sequence[BatchPart]:
        if self._loader is None:
            return ()
        with self._write_lock:
            return self._settle(self._loader.flush())

    def _save(self) -> Sequence[BatchPart]:
        """Load all waiting rows, and write the ledger, so that nothing is left in memory."""
        began = time.monotonic()
        finished = self._flush()
        with self._write_lock:
            if self._ledger_session is not None:
                self._ledger_session.checkpoint()
            if self._dead_letters is not None:
                self._dead_letters.publish()
        now = time.monotonic()
        self.is_saved, self._save_at = True, now + max(_SAVE_SECONDS, _SAVE_SHARE * (now - began))
        return finished

    def put_away(self, finished: FinishedFiles) -> None:
        """Move or delete the files of watched folders whose outcome is saved. Raises SinkError."""
        session = self._ledger_session
        finished.clear(session.admission.put_away if session else set())
        if session is not None:
            with self._write_lock:
                session.save_put_away(self._sink)

    def abandon(self) -> bool:
        """Stop uploads to a store, or the writing of partitions; return whether there are any."""
        if self._abort_uploads is not None:
            self._abort_uploads()
        return self._abort_uploads is not None

    async def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """Finish the target and the dead letters; return whether the loaded rows count.

        `ended`: all input was read; `succeeded`: the run succeeded. Raises SinkError.
        """
        return await asyncio.to_thread(self._finish, succeeded=succeeded, ended=ended)

    def _finish(self, *, succeeded: bool, ended: bool) -> bool:
        with self._write_lock:
            self._whole_files.close()
            if self._deduplicator is not None:
                self._deduplicator.close()
                if missing := self._deduplicator.note:
                    self._notes.append(missing)
            if self._contract is not None and (note := self._contract.note):
                self._notes.append(note)
            if self._loader is not None:
                self._loader.close()
            if self._mirror is not None:
                self._mirror.close()
            sink, self._sink = self._sink, None
            dead_letters, self._dead_letters = self._dead_letters, None
            ledger_session, self._ledger_session = self._ledger_session, None
            with ExitStack() as ends:  # each is finished, even if another fails
                ends.callback(self._take_sink_notes, sink)
                if dead_letters is not None:
                    ends.callback(dead_letters.finish)
                if ledger_session is None:
                    committed = sink is None or sink.finish(succeeded=succeeded, ended=ended)
                    self.written_at_end = getattr(sink, "written", 0)  # of aggregates only
                    return committed
                ends.callback(ledger_session.close)
                try:
                    ledger_session.before_finish()
                except SinkError:
                    if sink is not None:
                        sink.finish(succeeded=False, ended=False)
                    raise
                committed = sink is None or sink.finish(succeeded=succeeded, ended=ended)
                has_file = getattr(sink, "has_file", True)  # there is nothing to resume without one
                ledger_session.after_finish(committed=committed and has_file)
            return committed


def _take_error(task: asyncio.Future[Any]) -> None:
    """Take the error of a write that nobody waits for any more: the run was cancelled."""
    if not task.cancelled():
        task.exception()
