"""The search for input files: its beginning at once, the rest during the work."""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NoReturn, TypeVar

from asyncbatch.core.paths import is_object_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asyncbatch.sources.inputs import Inputs

T = TypeVar("T")

OPENING_PATHS = 2048  # How many paths the beginning of a search has, unless these are all.
CHUNK_PATHS = 2048
CHUNK_SECONDS = 0.05  # A chunk of paths is complete at its limit, or after this time.
# The time for the first listing of a store: less than starting workers takes.
OBJECTS_SECONDS = 0.5
_WALK_PATHS = (
    32  # paths of a folder between two checks of the time; of a list, each path is checked
)


class Search:
    """Finds the paths that inputs name. `opening` are the first, once `open` was called."""

    def __init__(self, inputs: Inputs) -> None:
        self.opening: Sequence[str] = ()
        self.found_count = 0
        """How many paths were found so far."""
        self.is_exhausted = False
        """Whether these are all."""
        self.has_matches = False
        """Whether there is any input, be it in our shard or in another."""
        self._paths = inputs.find_all()
        self._objects = inputs.object_search() if inputs.may_name_objects else None
        has_urls = any(map(is_object_url, inputs.paths))
        self._open_seconds = OBJECTS_SECONDS if has_urls else CHUNK_SECONDS
        self._is_in_shard = None if inputs.shard is None else inputs.is_in_shard
        self._batch_size = _WALK_PATHS if inputs.files_from is None else 1

    def open(self) -> None:
        """Find the first paths; blocks while it does."""
        if self._objects is None:
            self.opening = self._next_paths(OPENING_PATHS + 1, self._open_seconds)
        else:
            self.opening = _run_interruptibly(
                lambda: self._next_paths(OPENING_PATHS + 1, self._open_seconds)
            )

    async def chunks(self) -> AsyncIterator[Sequence[str]]:
        """Yield all paths in chunks, those after `opening` found in a thread as they are needed."""
        import asyncio

        if self.opening:
            yield self.opening
        while not self.is_exhausted:
            if chunk := await asyncio.to_thread(self._next_paths, CHUNK_PATHS):
                yield chunk

    def with_metadata(self, paths: Sequence[str]) -> Sequence[str]:
        """Return paths of which those of objects tell in which state these are; blocks."""
        return paths if self._objects is None else self._objects.with_metadata(list(paths))

    def _next_paths(self, max_paths: int, seconds: float = CHUNK_SECONDS) -> Sequence[str]:
        """Return the next paths, up to about `max_paths`; take note if they are the last."""
        chunk: list[str] = []
        deadline = time.monotonic() + seconds
        while len(chunk) < max_paths and time.monotonic() <= deadline:
            more = list(islice(self._paths, self._batch_size))
            chunk += more if self._is_in_shard is None else filter(self._is_in_shard, more)
            self.has_matches = self.has_matches or bool(more)
            if len(more) < self._batch_size:
                self.is_exhausted = True
                break
        self.found_count += len(chunk)
        return chunk


def _run_interruptibly(function: Callable[[], T]) -> T:
    """Return what `function` returns, or raise it, in a thread that Ctrl-C does not wait for.

    A store may take a minute to answer, and in the library no signal comes through.
    """
    from threading import Thread

    done: list[Callable[[], T]] = []

    def carry_out() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised by the waiting thread
            done.append(partial(_reraise, error))
        else:
            done.append(lambda: result)

    thread = Thread(target=carry_out, daemon=True)
    thread.start()
    thread.join()
    return done[0]()


def _reraise(error: BaseException) -> NoReturn:
    raise error
