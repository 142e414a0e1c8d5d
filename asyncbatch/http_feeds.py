"""HTTP APIs as feeds: each URL one, its pages what arrives."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import msgspec

from asyncbatch.codec.encode import encode
from asyncbatch.failures import FeedError
from asyncbatch.http import HttpError, HttpSource, PageMark
from asyncbatch.records import Arrival, Bookmark, Failure
from asyncbatch.sections import Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncbatch.feeds import Feed
    from asyncbatch.http import Connections, HttpSettings, Page
    from asyncbatch.record_settings import RecordWorkSettings


class HttpFeeds:
    """The URLs of one source, over one pool of connections: see `feeds.FeedSource`.

    With `is_alone` false the source's name is part of its feeds': another has the same URLs.
    No page is asked for before it is wanted unless it `asks_ahead`.
    """

    kind = "http"

    def __init__(
        self,
        name: str,
        http: HttpSettings,
        work: RecordWorkSettings,
        *,
        is_alone: bool = True,
        connections: Connections | None = None,
        asks_ahead: bool = True,
    ) -> None:
        self.name, self.http, self.record_work = name, http, work
        self.at_once = http.concurrency
        self.feeds: Sequence[Feed] = ()
        self._is_alone = is_alone
        self._pages = HttpSource(http, connections=connections, asks_ahead=asks_ahead)

    async def __aenter__(self) -> Self:
        await self._pages.__aenter__()
        self.feeds = [self._feed(url) for url in self.http.urls]
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._pages.__aexit__(*exception)

    def end(self) -> bool:
        """See `FeedSource`: pages can be asked for again."""
        return False

    def retries(self) -> int:
        """See `FeedSource`."""
        return self._pages.retries()

    def traffic(self) -> Traffic:
        """See `FeedSource`."""
        return Traffic(self._pages.page_count, self._pages.request_count)

    def _feed(self, url: str) -> UrlFeed:
        shown = self._pages.shown(url)
        return UrlFeed(self._pages, url, shown if self._is_alone else f"{shown} ({self.name})")


class UrlFeed:
    """The pages of one URL: see `feeds.Feed`."""

    def __init__(self, source: HttpSource, url: str, name: str) -> None:
        self.name, self.group = name, urlsplit(url).netloc
        self.is_incremental = source.settings.incremental is not None
        self._source, self._url = source, url

    @property
    def form(self) -> str:
        """See `Feed`: a digest of what leads from page to page and to records."""
        http = self._source.settings
        told = encode([http.records, http.format, http.pagination, http.incremental])
        return hashlib.blake2b(told, digest_size=16).hexdigest()

    async def arrivals(self, bookmark: Bookmark | None) -> AsyncGenerator[Arrival, None]:
        """See `Feed`."""
        before = bookmark or Bookmark()
        start = None if before.mark is None else msgspec.json.decode(before.mark, type=PageMark)
        since = None if before.since is None else str(before.since)
        try:
            async with aclosing(self._source.pages(self._url, start, since)) as pages:
                async for page in pages:
                    yield _arrival(page, before)
        except HttpError as error:
            failure = error.failure
            raise FeedError(Failure(failure.url, "http", failure.message)) from None


def _arrival(page: Page, before: Bookmark) -> Arrival:
    mark = None if page.mark is None else encode(page.mark).decode()
    bookmark = Bookmark(mark, before.newest, before.since)
    return Arrival(page.url, page.body, page.format, page.line, page.byte, bookmark)
