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
    """One input of a feed source: a URL with its pages, or a program's generator."""

    @property
    def name(self) -> str:
        """The name for people and ledgers, without secrets."""
        ...

    @property
    def group(self) -> str:
        """The group that shares a limit: for instance all feeds of one host."""
        ...

    @property
    def settings_digest(self) -> str:
        """A digest of the way to its records: a bookmark of another form is ignored."""
        ...

    @property
    def is_incremental(self) -> bool:
        """Whether it asks only for records newer than before."""
        ...

    def chunks(self, bookmark: Bookmark | None) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks in order, from an earlier run's `bookmark`.

        Raises FeedError, after all good chunks.
        """
        ...


class FeedSource(Protocol):
    """Feeds that share connections: an async context manager, entered once.

    At most `concurrency` feeds of a group are read concurrently. `kind` is the name in reports, as
    `type` in a pipeline file.
    """

    name: str
    kind: str
    feeds: Sequence[Feed]
    concurrency: int

    async def __aenter__(self) -> Self:
        """Open connections. Raises UsageError."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        ...

    def end(self) -> bool:
        """End the feeds, if the chunks so far must not be lost. Return whether it did.

        If not, the reader just stops.
        """
        ...

    def take_retry_count(self) -> int:
        """Return how often something was tried again since the last time this was asked."""
        ...

    def traffic(self) -> Traffic | None:
        """Return the requests so far, or None for a source without a server."""
        ...


# bytes of a chunk: the events of a larger one no longer fit into the processor's cache
CHUNK_BYTES = 128 * 1024


class LiveChunk(Struct, frozen=True):
    """Bytes of a file, in order."""

    file: str
    data: bytes
    ends_file: bool = False  # the chunk ends the file: its last line is complete
    position: Any = None  # where to resume after it, as JSON; None if the source cannot be replayed
    begins_file: bool = False  # the chunk begins a new file, even if the name is the same
    loss: Failure | None = None  # data before this chunk that could not be read
    line_error: str = ""  # the reason why `data` shows a record that cannot be a line


class LiveSource(Protocol):
    """A source of chunks as they arrive."""

    name: str  # identifies the source: the watermark waits for each source
    is_over: bool  # whether all chunks were read

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - nothing is cancelled: a pipe's reader stays
        """Return the next chunk, None after `timeout` seconds or `wake`.

        Raises OSError, SourceError.
        """
        ...

    def wake(self) -> None:
        """End the current wait of `read`."""
        ...

    def close(self) -> None:
        """Leave the source."""
        ...


@runtime_checkable
class ReplayableSource(LiveSource, Protocol):
    """A source that may resume at an earlier position.

    If it `can_resume`, its chunks have positions.
    """

    can_resume: bool

    @property
    def position(self) -> Any:
        """The position to resume at, also before the first `read`; None if it cannot."""
        ...

    def start_at(self, position: Any) -> None:
        """Resume after the chunk with this position. Call it before the first `read`.

        Raises UsageError if the data before the position has changed; OSError.
        """
        ...
