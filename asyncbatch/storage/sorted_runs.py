"""Sorted runs in temporary files, for results that are larger than the memory."""

from __future__ import annotations

import pickle
import tempfile
from bisect import bisect_right
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncbatch.errors import SinkError, error_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO

T = TypeVar("T")

_BLOCK = 1_000  # items that are read and written together
# Runs that are merged at once: each has an open file, and a block in memory.
_MOST_RUNS = 64


class SortedRuns(Generic[T]):
    """Sorted sequences of items, each in a temporary file without a name.

    Methods raise SinkError on an error of the disk.
    """

    def __init__(self) -> None:
        self._files: list[IO[bytes]] = []

    def __len__(self) -> int:
        return len(self._files)

    def add(self, items: Iterable[T], order: Callable[[T], Any]) -> None:
        """Write a sorted sequence. Many sequences become one, in the given order."""
        self._files.append(self._written(items))
        if len(self._files) >= _MOST_RUNS:
            merged = self._written(self.merged((), order))
            self.close()
            self._files.append(merged)

    def merged(self, more: Iterable[T], order: Callable[[T], Any]) -> Iterator[T]:
        """Yield the items of all sequences and of another sorted one, in the given order.

        Takes from each sequence the items that no later item of another can precede, and sorts
        them together. Python's sort merges sorted parts at a fraction of the time of `heapq.merge`.
        """
        sources = [*map(self._blocks, self._files), _cut_blocks(more)]
        heads: list[list[T]] = [[] for _ in sources]
        while True:
            for place, source in enumerate(sources):
                heads[place] = heads[place] or next(source, [])
            left = [head for head in heads if head]
            if not left:
                return
            last = min(order(head[-1]) for head in left)
            ready: list[T] = []
            for place, head in enumerate(heads):
                end = bisect_right(head, last, key=order)
                ready += head[:end]
                heads[place] = head[end:]
            ready.sort(key=order)
            yield from ready

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.close()
        self._files.clear()

    def _written(self, items: Iterable[T]) -> IO[bytes]:
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            try:
                for block in _cut_blocks(items):
                    pickle.dump(block, file, pickle.HIGHEST_PROTOCOL)
                file.flush()
            except OSError:
                with suppress(OSError):  # closing writes the buffer, which fails again
                    file.close()
                raise
        except OSError as error:
            raise SinkError(
                f"{tempfile.gettempdir()} cannot hold the groups that exceed the memory: "
                f"{error_reason(error)}; set TMPDIR to a folder with more space"
            ) from None
        return file

    @staticmethod
    def _blocks(file: IO[bytes]) -> Iterator[list[T]]:
        file.seek(0)
        while True:
            try:
                yield pickle.load(file)  # noqa: S301 - a file of this process, without a name
            except EOFError:
                return


def _cut_blocks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while block := list(islice(rest, _BLOCK)):
        yield block
