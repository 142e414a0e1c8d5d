"""The source protocols: `Feed` (bounded) and `LiveSource` (unbounded)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncbatch.core.batches import Chunk
    from asyncbatch.core.records import Bookmark, Failure
    from asyncbatch.core.report import Traffic
    from asyncbatch.sources.selection import Selection


class Feed(Protocol):
    """One input of a feed source: a URL with its pages, or a program's generator."""

    @property
    def name(self) -> str:
        """The name for messages and ledgers, without secrets."""
        ...

    @property
    def former_name(self) -> str:
        """The name in ledgers of earlier versions. It may contain secrets: only look it up."""
        ...

    @property
    def group(self) -> str:
        """The name of the group that shares a concurrency limit, for instance a host."""
        ...

    @property
    def settings_digest(self) -> str:
        """A digest of the settings that select the records.

        A bookmark with another digest is ignored.
        """
        ...

    @property
    def is_incremental(self) -> bool:
        """Whether the feed requests only records that are new since the last run."""
        ...

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing has changed since the bookmark with which `chunks` was called."""
        ...

    def chunks(self, bookmark: Bookmark | None) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks in order, after the `bookmark` of an earlier run.

        Raises FeedError after all good chunks.
        """
        ...


class FeedSource(Protocol):
    """Feeds that share connections: an async context manager, entered once."""

    name: str
    kind: str  # the type in reports and pipeline files
    feeds: Sequence[Feed]  # those that are known so far
    concurrency: int  # the number of feeds of a group that are read at a time, at most
    files: Sequence[str]  # local files that it needs, none of which may be an output

    async def __aenter__(self) -> Self:
        """Open connections. Raises UsageError."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether `feeds` has all feeds."""
        ...

    def each_feed(self) -> AsyncGenerator[Feed, None]:
        """Yield all feeds, in order. Further ones are looked for when the caller needs them."""
        ...

    def end(self) -> bool:
        """End the feeds early if their records exist nowhere else. Return whether they end.

        The caller then reads them to their end; otherwise it cancels its reads.
        """
        ...

    def take_retry_count(self) -> int:
        """Return the number of retries since the last call."""
        ...

    def take_notes(self) -> list[str]:
        """Return the warnings for the user since the last call, without secrets."""
        ...

    def traffic(self) -> Traffic | None:
        """Return the traffic so far, or None for a source without a server."""
        ...


# Bytes of a chunk. The events of a larger chunk do not fit into the processor's cache.
CHUNK_BYTES = 128 * 1024


ARCHIVE_ADVICE = "is an archive, which a stream does not read: unpack it"


class LiveChunk(Struct, frozen=True):
    """The next bytes of a live source."""

    file: str
    data: bytes
    ends_file: bool = False  # the last line of the file is then complete
    position: Any = None  # resumes after the chunk, as JSON; None if the source cannot be replayed
    begins_file: bool = False  # true for a new file, even if it has the same name
    loss: Failure | None = None  # the failure to read the data before this chunk
    # The reason why a record is invalid. `data` is then the repr of that record. Empty otherwise.
    line_error: str = ""
    # Whether the data is the beginning of a file that does not grow, enough to know its format.
    is_head: bool = False


class LiveSource(Protocol):
    """A source that yields chunks as they arrive. For one task."""

    name: str  # unique among the sources of a stream; each has its own watermark
    is_over: bool  # whether all chunks were read

    async def read(self, timeout: float | None) -> LiveChunk | None:  # noqa: ASYNC109 - nothing is cancelled: a pipe's reader stays
        """Return the next chunk, or None after `timeout` seconds or a call of `wake`.

        Raises OSError and SourceError.
        """
        ...

    def wake(self) -> None:
        """End the current wait of `read`."""
        ...

    def close(self) -> None:
        """Release the source. No read may be running."""
        ...


@runtime_checkable
class ReplayableSource(LiveSource, Protocol):
    """A live source that may be able to resume at an earlier position."""

    can_resume: bool  # whether it can; its chunks then have positions

    @property
    def position(self) -> Any:
        """The current position, also before the first `read`; None if it cannot resume."""
        ...

    def start_at(self, position: Any) -> None:
        """Resume after the chunk with this position. Call it before the first `read`.

        Raises OSError, and UsageError if the data before the position has changed.
        """
        ...


@runtime_checkable
class SelectingSource(LiveSource, Protocol):
    """A live source that reads the files of a folder."""

    selection: Selection


@runtime_checkable
class AwaitedSource(LiveSource, Protocol):
    """A live source whose input need not exist yet."""

    @property
    def is_missing(self) -> bool:
        """Whether the input does not exist, so that the source waits for it."""
        ...
