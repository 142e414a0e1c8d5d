"""Source protocols: `Feed` (bounded) and `LiveSource` (unbounded)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncbatch.core.batches import Chunk
    from asyncbatch.core.records import Bookmark, Failure
    from asyncbatch.core.report import Traffic


class Feed(Protocol):
    """One input of such a source: a URL with its pages, a program's generator."""

    @property
    def name(self) -> str:
        """What people and ledgers call it; without secrets."""
        ...

    @property
    def group(self) -> str:
        """Whom it waits for: feeds of one host, say, share what that bears."""
        ...

    @property
    def form(self) -> str:
        """What tells how its records are found: a bookmark of another form is of no use."""
        ...

    @property
    def is_incremental(self) -> bool:
        """Whether it is asked for what is newer than before."""
        ...

    def chunks(self, bookmark: Bookmark | None) -> AsyncGenerator[Chunk, None]:
        """Yield what comes, in order, from where an earlier run left its `bookmark`.

        Raises FeedError, behind what is good.
        """
        ...


class FeedSource(Protocol):
    """Feeds that share connections: an async context manager, entered once.

    Not more than `at_once` feeds of a group are
    read at a time. `kind` is what reports call it, as a pipeline file its `type`.
    """

    name: str
    kind: str
    feeds: Sequence[Feed]
    at_once: int

    async def __aenter__(self) -> Self:
        """Open connections. Raises UsageError."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        ...

    def end(self) -> bool:
        """End the feeds where they are, if what has come of them by then must not be lost.

        Returns whether it is so; else whoever reads them just stops.
        """
        ...

    def retries(self) -> int:
        """Return how often something was tried again since the last time this was asked."""
        ...

    def traffic(self) -> Traffic | None:
        """Return what it has asked a server for so far, if that is where its records are."""
        ...


CHUNK = 128 * 1024
"""What is given at a time: more would no longer fit into a processor's cache as events."""


class LiveChunk(Struct, frozen=True):
    """Bytes of a file, in order; after the one that `ends` it, its last line is whole.

    One that `begins` its file is no continuation of what had the same name. `position` is where
    the source goes on behind them, as JSON can hold it; None if it cannot be read again. `loss`
    is what could not be read before them, if anything. With a `flaw` they are no lines, but show
    what cannot be one, and that says why.
    """

    file: str
    data: bytes
    ends: bool = False
    position: Any = None
    begins: bool = False
    loss: Failure | None = None
    error: str = ""


class LiveSource(Protocol):
    """Gives chunks, as soon as there are any; `wake` ends a wait, whatever for."""

    name: str
    """What tells it from other sources: the watermark waits for each."""
    is_over: bool
    """Whether all was given; then there is no more to read."""

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - nothing is cancelled: a pipe's reader stays
        """Return what has come next, None after `timeout` seconds or `wake`.

        Raises OSError, SourceError.
        """
        ...

    def wake(self) -> None:
        """End the wait of `read`, if there is one."""
        ...

    def close(self) -> None:
        """Leave the source."""
        ...


@runtime_checkable
class ReplayableSource(LiveSource, Protocol):
    """A source that may be able to go on where it was before.

    `can_resume` tells; then its chunks have positions.
    """

    can_resume: bool

    @property
    def position(self) -> Any:
        """Where it goes on, also before the first `read`; None if it cannot be read again."""
        ...

    def start_at(self, position: Any) -> None:
        """Go on behind a chunk that had this position; to be called before the first `read`.

        Raises UsageError if what was read is no longer there; OSError.
        """
        ...
