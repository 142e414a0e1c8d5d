"""A source of pages: what the settings say, over one pool of connections."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from asyncbatch.errors import UsageError
from asyncbatch.http.checking import mistakes
from asyncbatch.http.connections import Connections

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncbatch.http.asking import Asker
    from asyncbatch.http.pace import Clock, Sleep
    from asyncbatch.http.page import Page, PageMark
    from asyncbatch.http.settings import HttpSettings


class HttpSource:
    """The pages of the URLs that `settings` name; an async context manager, to be entered once.

    The limits are shared by all URLs that are read at the same time. `clock` and `sleep`, in
    seconds, are those of waiting for a turn and before a retry. Other sources may share its
    `connections`. Unless it `asks_ahead`, no page is
    asked for before the consumer wants it. Raises UsageError for settings that cannot work, and,
    when it is entered, if aiohttp is not there.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        connections: Connections | None = None,
        asks_ahead: bool = True,
    ) -> None:
        if found := [f"{where}: {what}" for where, what in mistakes(settings)]:
            raise UsageError("; ".join(found))
        self.settings = settings
        self.page_count = 0
        """How many pages were given, of all URLs."""
        self._asks_ahead = asks_ahead
        self._requests_before = 0
        self._clock, self._sleep = clock, sleep
        self._connections = connections or Connections()
        self._asker: Asker | None = None

    async def __aenter__(self) -> Self:
        try:
            from asyncbatch.http.asking import Asker  # noqa: PLC0415 - aiohttp takes 190 ms, and is an extra

            session = await self._connections.__aenter__()
        except ImportError as error:
            if error.name not in ("aiohttp", "yarl"):
                raise
            raise UsageError(
                "reading from HTTP needs one more package: pip install 'asyncbatch[http]'"
            ) from None
        self._asker = Asker(self.settings, session, self._clock, self._sleep)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._asker is not None:
            self._requests_before = self.request_count
            self._asker = None
            await self._connections.__aexit__()

    def shown(self, url: str) -> str:
        """Return a URL as people may see it."""
        return self._entered().shown(url)

    def retries(self) -> int:
        """Return how many requests were made again since the last time this was asked."""
        return 0 if self._asker is None else self._asker.retrier.taken()

    @property
    def request_count(self) -> int:
        """How many requests were made: for pages, along redirects, and again."""
        return self._requests_before + (self._asker.requests if self._asker else 0)

    async def pages(
        self, url: str, start: PageMark | None = None, since: str | None = None
    ) -> AsyncGenerator[Page, None]:
        """Yield the pages of one of the settings' URLs, in order.

        Begins behind the page whose mark is `start`, if there is one. `since` is the value of
        `incremental.param`; None is its `initial`. Not more than `concurrency` pages are asked
        for ahead of the consumer; closing this cancels them. Raises HttpError, behind the pages
        that are good.
        """
        from asyncbatch.http.opening import open_pages  # noqa: PLC0415 - see `__aenter__`

        asker, last = self._entered(), 0
        async with aclosing(
            open_pages(asker, url, start, since, asks_ahead=self._asks_ahead)
        ) as pages:
            async for page in pages:
                if page.number != last:  # an answer may come in several stretches
                    last = page.number
                    self.page_count += 1
                yield page

    def _entered(self) -> Asker:
        if self._asker is None:
            raise RuntimeError("an HttpSource is entered (async with) before it is read")
        return self._asker
