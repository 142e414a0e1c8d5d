"""The contract of sources whose records arrive, instead of lying in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncbatch.record_settings import RecordWorkSettings
    from asyncbatch.records import Arrival, Bookmark


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

    def arrivals(self, bookmark: Bookmark | None) -> AsyncGenerator[Arrival, None]:
        """Yield what comes, in order, from where an earlier run left its `bookmark`.

        Raises FeedError, behind what is good.
        """
        ...


class FeedSource(Protocol):
    """Feeds that share connections: an async context manager, entered once.

    `record_work` says what is done to their records. Not more than `at_once` feeds of a group are
    read at a time.
    """

    name: str
    record_work: RecordWorkSettings
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
