"""Parts of unfinished files, held back until the file is done: it may yet count for nothing."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from asyncbatch.records import BatchPart, Settled
from asyncbatch.spool import MEMORY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.records import Part


class WholeFiles:
    """Lets the parts of a file through when it is finished, and none if it failed as a whole.

    That is one whose worker died on it, or that proved unreadable near its end. The parts of a
    huge one come through as they come.
    """

    def __init__(self) -> None:
        self._held: dict[int, IO[bytes]] = {}

    def pass_on(self, found: BatchPart | Settled) -> Iterator[BatchPart]:
        """Take what comes, and yield what is about finished files. Raises OSError (full disk)."""
        start = found.batch.start
        if isinstance(found, Settled):
            self._drop(start)
        elif found.part.told is not None and not len(found.part):
            if start in self._held:  # it has only now proved to be huge
                yield from self._release(found)
                self._drop(start)
            yield found
        elif not len(found.part):
            self._hold(start, found.part)
        else:
            if start in self._held:
                part = found.part
                if part.errors.get(0) is None or 0 in part.rejected:
                    yield from self._release(found)
                self._drop(start)
            yield found

    def close(self) -> None:
        """Forget what is held."""
        for start in list(self._held):
            self._drop(start)

    def _hold(self, start: int, part: Part) -> None:
        import pickle  # noqa: PLC0415 - takes a while, and few files are that big
        import tempfile  # noqa: PLC0415 - the same

        spool = self._held.get(start)
        if spool is None:
            spool = self._held[start] = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - closed by `_drop`
        pickle.dump(part, spool, pickle.HIGHEST_PROTOCOL)

    def _release(self, found: BatchPart) -> Iterator[BatchPart]:
        import pickle  # noqa: PLC0415 - see `_hold`

        spool = self._held[found.batch.start]
        end = spool.tell()
        spool.seek(0)
        while spool.tell() < end:
            yield BatchPart(found.batch, pickle.load(spool))  # noqa: S301 - our own words

    def _drop(self, start: int) -> None:
        if start in self._held:
            self._held.pop(start).close()
