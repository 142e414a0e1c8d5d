"""From the workers' parts to the target and the dead letters, and only then to the report."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError
from asyncbatch.huge_files import PieceSums
from asyncbatch.ordering import InputOrder, PieceOrder
from asyncbatch.whole_files import WholeFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncbatch.dead_letters import DeadLetterFile
    from asyncbatch.job import Job
    from asyncbatch.loading import Loader
    from asyncbatch.records import BatchPart, Settled
    from asyncbatch.sinks import Sink


class Delivery:
    """Takes what the workers say; gives it back when all that hangs on it is done.

    `order` is there if rows must reach the target in the order of the inputs.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        target = job.target
        has_sink = target is not None and target.form != "folder"
        self.order = InputOrder() if job.ordered and (has_sink or job.dead_letter) else None
        self._piece_order = PieceOrder()
        self._sums = PieceSums()
        self._whole = WholeFiles()
        self._sink: Sink[bytes | bytearray] | None = None
        self._loader: Loader | None = None
        self._letters: DeadLetterFile | None = None

    async def open(self) -> None:
        """Open the target and the dead letters. Raises UsageError if that is not possible."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        target = self._job.target
        if self._job.dead_letter is not None:
            from asyncbatch.dead_letters import DeadLetterFile  # noqa: PLC0415 - if asked for

            self._letters = DeadLetterFile(self._job.dead_letter)
            self._letters.open()
        if target is not None and target.form != "folder":
            from asyncbatch.loading import make_loader  # noqa: PLC0415 - if there is a target

            sink = target.open_sink()
            try:
                sink.open()
            except UsageError:
                self.refuse()
                raise
            self._sink, self._loader = sink, make_loader(target, sink, self._job.load_batch)

    def refuse(self) -> None:
        """Take note that the run is refused: earlier dead letters stay."""
        letters, self._letters = self._letters, None
        if letters is not None:
            letters.discard()

    def clear_up(self, path: str) -> None:
        """Take away what a worker that died has left of the output for `path`."""
        target = self._job.target
        if target is not None and target.form == "folder":
            from asyncbatch.sinks.folder import output_path, temporary  # noqa: PLC0415 - see above

            with suppress(OSError, UsageError):  # there may be nothing, nor a place for it
                os.unlink(temporary(output_path(target, path)))

    async def take(self, found: BatchPart | Settled) -> AsyncIterator[BatchPart]:
        """Take what a worker says; yield the parts that are through. Raises SinkError, OSError."""
        for item in (self.order or self._piece_order).pass_on(found):
            for said in self._sums.pass_on(item):
                for part in self._whole.pass_on(said):
                    for loaded in await self._load(part):
                        yield loaded

    async def _load(self, found: BatchPart) -> Sequence[BatchPart]:
        through = (found,) if self._loader is None else await self._loader.load(found)
        return await self._keep_letters(through)

    async def _keep_letters(self, parts: Sequence[BatchPart]) -> Sequence[BatchPart]:
        if self._letters is not None:
            for found in parts:
                if found.part.letters or found.part.errors:
                    await asyncio.to_thread(self._letters.add, found)
        return parts

    async def flush(self) -> Sequence[BatchPart]:
        """Load what waits for more; return the parts that are through. Raises SinkError."""
        return await self._keep_letters(await self._loader.flush()) if self._loader else ()

    async def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End the target and the dead letters; return whether what was loaded stands.

        `ended` if all input was taken, `succeeded` if the run counts as good. Raises SinkError.
        """
        return await asyncio.to_thread(self._finish, succeeded=succeeded, ended=ended)

    def _finish(self, *, succeeded: bool, ended: bool) -> bool:
        self._whole.close()
        sink, self._sink = self._sink, None
        letters, self._letters = self._letters, None
        try:
            return sink is None or sink.finish(succeeded=succeeded, ended=ended)
        finally:
            if letters is not None:
                letters.finish()
