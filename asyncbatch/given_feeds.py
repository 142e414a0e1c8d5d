"""Iterables of a program as feeds: its generators, its lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from asyncbatch.drawing import draw
from asyncbatch.errors import described
from asyncbatch.failures import FeedError
from asyncbatch.records import Arrival, Failure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence

    from asyncbatch.drawing import Drawing
    from asyncbatch.feeds import Feed
    from asyncbatch.record_settings import RecordWorkSettings
    from asyncbatch.records import Bookmark


class GivenFeeds:
    """One iterable of records, async or not, as a source: see `feeds.FeedSource`.

    `error` is what it has raised.
    """

    at_once = 1

    def __init__(
        self,
        name: str,
        records: AsyncIterable[Any] | Iterable[Any],
        work: RecordWorkSettings,
    ) -> None:
        self.name, self.record_work = name, work
        self.feed = GivenFeed(name, records)
        self.feeds: Sequence[Feed] = (self.feed,)

    @property
    def error(self) -> BaseException | None:
        """What the iterable has raised, if anything."""
        return self.feed.error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the iterable, also if nothing was drawn from it."""
        await self.feed.aclose()

    def end(self) -> bool:
        """See `FeedSource`: what was drawn is nowhere else."""
        self.feed.end()
        return True

    def retries(self) -> int:
        """See `FeedSource`: nothing is tried again."""
        return 0


class GivenFeed:
    """One iterable: see `feeds.Feed`. Where it was when it ended is for its program to know."""

    form = "given"
    is_incremental = False

    def __init__(self, name: str, records: AsyncIterable[Any] | Iterable[Any]) -> None:
        self.name = self.group = name
        self.error: BaseException | None = None
        self._records = records
        self._drawing: Drawing | None = None
        self._is_ended = False

    async def arrivals(self, bookmark: Bookmark | None) -> AsyncGenerator[Arrival, None]:  # noqa: ARG002 - see the class
        """See `Feed`."""
        if self._is_ended:
            return
        drawing = self._drawing = draw(self._records)
        number = 1
        try:
            while texts := await drawing.take():
                yield Arrival(self.name, texts, "records", number)
                number += len(texts)
        finally:
            await drawing.aclose()
            self.error = drawing.error
        if self.error is not None:
            raise FeedError(Failure(self.name, "read_error", described(self.error)))

    def end(self) -> None:
        """Draw nothing more."""
        self._is_ended = True
        if self._drawing is not None:
            self._drawing.end()

    async def aclose(self) -> None:
        """Close the iterable."""
        self._is_ended = True
        if self._drawing is not None:
            await self._drawing.aclose()
        elif hasattr(self._records, "aclose"):
            await self._records.aclose()
        elif hasattr(self._records, "close"):
            self._records.close()
