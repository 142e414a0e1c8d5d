"""The search for input files: the first paths before the run, the rest during it."""

from __future__ import annotations

import time
from functools import partial
from itertools import filterfalse, islice
from typing import TYPE_CHECKING, NoReturn, TypeVar

from asyncbatch.core.paths import is_object_url
from asyncbatch.sources.count_ahead import InputCount, InputCounter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asyncbatch.sources.inputs import Inputs

T = TypeVar("T")

OPENING_PATHS = 2048  # paths that are found before the run starts
# A chunk of paths is complete at the first of these two limits.
CHUNK_PATHS = 2048
CHUNK_SECONDS = 0.05
# The time limit of the first listing of a store: less than the start of workers takes.
OBJECTS_SECONDS = 0.5
# Paths between two checks of the time. In a list, the time is checked at each path.
_WALK_PATHS = 32


class Search:
    """Finds the paths of the inputs, in the shard. Call `open` first, then iterate `chunks`."""

    def __init__(self, inputs: Inputs) -> None:
        self.opening: Sequence[str] = ()  # the first paths, after `open`
        self.found_count: int = 0
        self.is_exhausted: bool = False  # whether all paths were found
        self.has_matches: bool = False  # whether any input was found, in this shard or another
        # Whether a path is no input although it was found. Set it before `open`.
        self.leaves_out: Callable[[str], bool] | None = None
        self._inputs, self._paths = inputs, inputs.find_all()
        self._counter: InputCounter | None = None
        self._objects = inputs.object_search() if inputs.may_name_objects else None
        has_urls = any(map(is_object_url, inputs.paths))
        self._open_seconds = OBJECTS_SECONDS if has_urls else CHUNK_SECONDS
        self._is_in_shard = None if inputs.shard is None else inputs.is_in_shard
        self._batch_size = _WALK_PATHS if inputs.files_from is None else 1

    def open(self) -> None:
        """Find the first paths. Blocks the calling thread."""
        if self._objects is None:
            self.opening = self._next_paths(OPENING_PATHS + 1, self._open_seconds)
        else:
            self.opening = _run_interruptibly(
                lambda: self._next_paths(OPENING_PATHS + 1, self._open_seconds)
            )

    async def chunks(self) -> AsyncIterator[Sequence[str]]:
        """Yield all paths in chunks. Paths after `opening` are found on demand, in a thread."""
        import asyncio

        if self.opening:
            yield self.opening
        while not self.is_exhausted:
            if chunk := await asyncio.to_thread(self._next_paths, CHUNK_PATHS):
                yield chunk

    def count_ahead(self) -> None:
        """Start to count the inputs ahead of `chunks`, if a second search costs little."""
        if self._counter is not None or not self._inputs.may_be_counted:
            return
        has_all = self.is_exhausted and len(self.opening) == self.found_count
        self._counter = InputCounter(self.opening if has_all else self._inputs.find())
        self._counter.start()

    @property
    def expected(self) -> InputCount:
        """The number of inputs in the shard, as far as it is known."""
        counted = InputCount(0, None) if self._counter is None else self._counter.count
        if self.is_exhausted:
            return InputCount(self.found_count, counted.bytes)
        is_complete = counted.is_complete and self._counter is not None
        if self.found_count > counted.files:  # files came after the count
            return InputCount(self.found_count, None, is_complete=False)
        return InputCount(counted.files, counted.bytes, is_complete)

    def close(self) -> None:
        """End the count."""
        if self._counter is not None:
            self._counter.stop()

    def with_metadata(self, paths: Sequence[str]) -> Sequence[str]:
        """Return the paths, with size and ETag for those of objects. Blocks the thread."""
        return paths if self._objects is None else self._objects.with_metadata(list(paths))

    def _next_paths(self, max_paths: int, seconds: float = CHUNK_SECONDS) -> Sequence[str]:
        """Return about `max_paths` next paths in the shard; note whether they are the last."""
        chunk: list[str] = []
        deadline = time.monotonic() + seconds
        while len(chunk) < max_paths and time.monotonic() <= deadline:
            more = list(islice(self._paths, self._batch_size))
            self.is_exhausted = len(more) < self._batch_size
            if self.leaves_out is not None:
                more = list(filterfalse(self.leaves_out, more))
            chunk += more if self._is_in_shard is None else filter(self._is_in_shard, more)
            self.has_matches = self.has_matches or bool(more)
            if self.is_exhausted:
                break
        self.found_count += len(chunk)
        return chunk


def _run_interruptibly(function: Callable[[], T]) -> T:
    """Call `function` in a thread, and wait for it so that Ctrl-C interrupts the wait.

    A store may take a minute to answer, and the library that waits for it handles no signal.
    Raises the exceptions of `function`.
    """
    from threading import Thread

    done: list[Callable[[], T]] = []

    def carry_out() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            done.append(partial(_reraise, error))
        else:
            done.append(lambda: result)

    thread = Thread(target=carry_out, daemon=True)
    thread.start()
    thread.join()
    return done[0]()


def _reraise(error: BaseException) -> NoReturn:
    raise error
