"""The HTTP source and its connection pool. Imports aiohttp when it is entered."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from asyncbatch.core.batches import Chunk
from asyncbatch.core.records import Bookmark, Failure
from asyncbatch.core.report import Traffic
from asyncbatch.core.system import install_command
from asyncbatch.errors import UsageError, error_reason
from asyncbatch.formats.decoder import encode
from asyncbatch.formats.failures import FeedError
from asyncbatch.sources.cursor import is_ahead, minus_lag
from asyncbatch.sources.http.access.credentials import OAuth2Auth
from asyncbatch.sources.http.access.secret_names import ambiguous_urls, masked_url
from asyncbatch.sources.http.base import HttpError, PageMark
from asyncbatch.sources.http.requests.conditions import Validators
from asyncbatch.sources.http.settings import parent_settings, setting_mistakes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from collections.abc import Set as AbstractSet

    from aiohttp import ClientSession

    from asyncbatch.core.records import CursorKind, Scalar
    from asyncbatch.sources.base import Feed
    from asyncbatch.sources.http.base import Page
    from asyncbatch.sources.http.client import Clock, HttpClient, Sleep
    from asyncbatch.sources.http.paging.children import Child
    from asyncbatch.sources.http.settings import HttpSettings, Incremental, Pagination


class Connections:
    """A shared connection pool: an async context manager for several sources.

    It opens with the first `async with` and closes at the end of the last.
    """

    def __init__(self) -> None:
        self._users = 0
        self._session: ClientSession | None = None

    async def __aenter__(self) -> ClientSession:
        """Return the session of the pool. Raises ImportError without aiohttp."""
        from asyncbatch.sources.http.client import open_session

        if self._session is None:
            self._session = open_session()
        self._users += 1
        return self._session

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users and self._session is not None:
            session, self._session = self._session, None
            await session.close()


class HttpSource:
    """A reader of the pages of the settings' URLs: an async context manager.

    All URLs share the limits of the settings. Several sources may share `connections`. Without
    `asks_ahead`, no page is requested before the caller needs it. `clock` and `sleep` (seconds) are
    for tests. Raises UsageError for invalid settings, and on entry if aiohttp is not installed.
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
        if found := [f"{where}: {advice}" for where, advice in setting_mistakes(settings)]:
            raise UsageError("; ".join(found))
        self.settings = settings
        self.page_count: int = 0  # the pages yielded so far, of all URLs
        self._asks_ahead = asks_ahead
        self._requests_before = 0
        self._clock, self._sleep = clock, sleep
        self._connections = connections or Connections()
        self._client: HttpClient | None = None

    async def __aenter__(self) -> Self:
        try:
            from asyncbatch.sources.http.client import HttpClient

            session = await self._connections.__aenter__()
        except ImportError as error:
            if error.name not in ("aiohttp", "yarl"):
                raise
            raise UsageError(
                f"reading from HTTP needs one more package: {install_command('http')}"
            ) from None
        try:
            self._client = HttpClient(self.settings, session, self._clock, self._sleep)
        except OSError as error:  # certificates that are gone since they were checked
            await self._connections.__aexit__()
            raise UsageError(error_reason(error)) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            self._requests_before = self.request_count
            client, self._client = self._client, None
            await client.close()
            await self._connections.__aexit__()

    def shown(self, url: str, *, keep_escapes: bool = False) -> str:
        """Return a URL without secrets, with usual escapes or with its own."""
        return self._entered_client().redact_url(url, keep_escapes=keep_escapes)

    def excerpt(self, text: str) -> str:
        """Return the first characters of a text of the server, without secrets."""
        return self._entered_client().redactor.excerpt(text)

    def former_shown(self, url: str, *, keep_escapes: bool = False) -> str:
        """Return a URL as ledgers of earlier versions have it. It may contain secrets."""
        return self._entered_client().former_url(url, keep_escapes=keep_escapes)

    def shows_whole(self, url: str) -> bool:
        """Whether nothing of a URL is hidden when it is shown."""
        return self._entered_client().shows_whole(url)

    def share_limits(self, other: HttpSource) -> None:
        """Count the requests of this source and of `other` together. Both are entered."""
        self._entered_client().share_limits(other._entered_client())

    def retries(self) -> int:
        """Return the number of retried requests since the last call."""
        return 0 if self._client is None else self._client.retrier.take_retry_count()

    def add_note(self, note: str) -> None:
        """Add a warning for the user, without secrets."""
        self._entered_client().notes.append(note)

    def take_notes(self) -> list[str]:
        """Return the warnings since the last call, without secrets."""
        if self._client is None:
            return []
        notes, self._client.notes = self._client.notes, []
        return notes

    @property
    def request_count(self) -> int:
        """The number of requests made: for pages, redirects and retries."""
        return self._requests_before + (self._client.request_count if self._client else 0)

    @property
    def expected_page_count(self) -> int | None:
        """The number of pages of all URLs, once the server has told it for each."""
        told = self._client.expected_pages if self._client else {}
        return sum(told.values()) if len(told) == len(self.settings.urls) else None

    def expect(self, url: str, validators: Validators) -> None:
        """Ask for the body of a URL only if it differs from the one with these validators."""
        client = self._entered_client()
        client.conditions.expect(client.first_url(url), validators)

    def is_unchanged(self, url: str) -> bool:
        """Whether the server has said that the body of a URL is the expected one."""
        client = self._entered_client()
        return client.conditions.was_unchanged(client.first_url(url))

    def validators(self, url: str) -> Validators:
        """Return the validators of the body of a URL that was read now."""
        client = self._entered_client()
        return client.conditions.validators(client.first_url(url))

    async def pages(
        self,
        url: str,
        start: PageMark | None = None,
        since: Scalar | None = None,
        *,
        kind: CursorKind | None = None,
        shape: str = "",
    ) -> AsyncGenerator[Page, None]:
        """Yield the pages of one of the settings' URLs, in order.

        Begins after the page with the mark `start`. `since` is the largest value of an earlier run,
        None for `initial`, and `kind` says how such values are compared. `shape` is that of the
        pages of an earlier run: an object in the place of an array is then an error. At most
        `concurrency` pages are requested ahead. Closing the generator cancels these requests.
        Raises HttpError after all good pages.
        """
        from asyncbatch.sources.http.paging.pages import open_pages

        client, last = self._entered_client(), 0
        async with aclosing(
            open_pages(
                client, url, start, since,
                kind=kind, asks_ahead=self._asks_ahead, shape=shape,
            )
        ) as pages:  # fmt: skip
            async for page in pages:
                if page.number != last:  # a streamed response is yielded in several parts
                    last = page.number
                    self.page_count += 1
                yield page

    def _entered_client(self) -> HttpClient:
        if self._client is None:
            raise RuntimeError("enter the HttpSource with `async with` before reading pages")
        return self._client


class HttpFeedSource:
    """The URLs of one source as feeds, over one connection pool.

    If `is_alone` is false, another source has the same URLs: the names of the feeds then contain
    the name of the source. `ambiguous`: the URLs that differ from another one of the run in secrets
    only; by default those of this source.
    """

    kind = "http"
    name: str
    settings: HttpSettings

    def __init__(
        self,
        name: str,
        settings: HttpSettings,
        *,
        is_alone: bool = True,
        ambiguous: AbstractSet[str] | None = None,
        connections: Connections | None = None,
        asks_ahead: bool = True,
    ) -> None:
        self.name, self.settings = name, settings
        self._ambiguous = ambiguous_urls([settings]) if ambiguous is None else ambiguous
        self.concurrency: int = settings.concurrency
        self.feeds: Sequence[Feed] = ()
        self.files: Sequence[str] = _files_of(settings)
        self._is_alone = is_alone
        self._pages = HttpSource(settings, connections=connections, asks_ahead=asks_ahead)
        self._parents: HttpSource | None = None
        self.is_complete: bool = settings.parent is None
        if settings.parent is not None:
            own = parent_settings(settings, settings.parent)
            self._parents = HttpSource(own, connections=connections, asks_ahead=asks_ahead)
        # The names of the URLs of children so far.
        self._child_names: set[str] = set()

    async def __aenter__(self) -> Self:
        await self._pages.__aenter__()
        if self._parents is not None:
            await self._parents.__aenter__()
            self._pages.share_limits(self._parents)
            return self
        names = Counter(map(self._pages.shown, self.settings.urls))
        self.feeds = [
            self._make_feed(
                url,
                keeps_escapes=names[self._pages.shown(url)] > 1,
                is_ambiguous=url in self._ambiguous,
            )
            for url in self.settings.urls
        ]
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._parents is not None:
            await self._parents.__aexit__(*exception)
        await self._pages.__aexit__(*exception)

    async def each_feed(self) -> AsyncGenerator[Feed, None]:
        """Yield all feeds, those of children as the pages of their parents come."""
        parent, parents = self.settings.parent, self._parents
        if parent is None or parents is None:
            for feed in self.feeds:
                yield feed
            return
        from asyncbatch.sources.http.paging.children import Children, FailedFeed

        found: list[Feed] = []
        self.feeds = found
        async with aclosing(Children(self.settings, parent, parents).each()) as children:
            async for child in children:
                feed = child if isinstance(child, FailedFeed) else self._make_child(child)
                found.append(feed)
                yield feed
        self.is_complete = True

    def end(self) -> bool:
        """Return False: pages can be requested again."""
        return False

    def take_retry_count(self) -> int:
        return sum(source.retries() for source in self._sources)

    def take_notes(self) -> list[str]:
        return [note for source in self._sources for note in source.take_notes()]

    def traffic(self) -> Traffic:
        pages = sum(source.page_count for source in self._sources)
        requests = sum(source.request_count for source in self._sources)
        expected = self._pages.expected_page_count if self._parents is None else None
        return Traffic(pages, requests, expected)

    @property
    def _sources(self) -> list[HttpSource]:
        return [self._pages] if self._parents is None else [self._parents, self._pages]

    def _make_child(self, child: Child) -> UrlFeed:
        shown = self._pages.shown(child.url)
        keeps_escapes = shown in self._child_names
        self._child_names.add(shown)
        is_ambiguous = not self._ambiguous.isdisjoint(self.settings.urls)
        return self._make_feed(
            child.url, keeps_escapes=keeps_escapes, is_ambiguous=is_ambiguous, fields=child.fields
        )

    def _make_feed(
        self, url: str, *, keeps_escapes: bool, is_ambiguous: bool, fields: bytes = b""
    ) -> UrlFeed:
        """Return the feed of a URL.

        `keeps_escapes`: another URL differs only in its escapes, or in a secret. `is_ambiguous`:
        another one may differ in the secrets of the settings only.
        """
        shown = self._pages.shown(url, keep_escapes=keeps_escapes)
        # A secret may be replaced by another one: it counts only if nothing else tells URLs apart.
        masked = masked_url(url, self.settings)
        if is_ambiguous or not self._pages.shows_whole(masked):
            shown += f" [{_digest_of(url if is_ambiguous else masked)}]"
        former = self._pages.former_shown(url, keep_escapes=keeps_escapes)
        source = "" if self._is_alone else f" ({self.name})"
        return UrlFeed(self._pages, url, shown + source, former + source, fields)


def _files_of(settings: HttpSettings) -> tuple[str, ...]:
    """Return the files of the refresh token and of the certificates."""
    auth, tls = settings.auth, settings.tls
    paths = [auth.refresh_token_file] if isinstance(auth, OAuth2Auth) else []
    paths += [] if tls is None else [tls.ca, tls.cert, tls.key]
    return tuple(os.path.expanduser(path) for path in paths if path is not None)


def _digest_of(url: str) -> str:
    """Return a short digest, by which names of URLs differ that are shown alike."""
    data = url.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8, person=b"asyncbatch url").hexdigest()


# Settings that decide where pages end and which value is kept, not which records are requested.
_NOT_SELECTING = {"more", "end", "on_repeat", "type", "max", "lag"}
# Settings that came later, with their defaults: without them the digests of old ledgers stay.
_NOT_IN_OLD_LEDGERS = {
    "next_header": None, "last_record": None, "param_in": "query", "following": None,
    "repeatable": True, "base": None,
}  # fmt: skip
_ABSENT = object()


def _selecting_settings(table: Pagination | Incremental | None) -> dict[str, object] | None:
    """Return the settings of a table that select the records."""
    plain: dict[str, object] | None = msgspec.to_builtins(table)
    if plain is None:
        return None
    return {
        name: value
        for name, value in plain.items()
        if name not in _NOT_SELECTING and value != _NOT_IN_OLD_LEDGERS.get(name, _ABSENT)
    }


class UrlFeed:
    """The pages of one URL as a feed."""

    name: str
    former_name: str
    group: str

    def __init__(
        self, source: HttpSource, url: str, name: str, former_name: str, fields: bytes = b""
    ) -> None:
        self.name, self.former_name, self.group = name, former_name, urlsplit(url).netloc
        self._fields = fields  # a JSON object, which each record gets
        self.is_incremental: bool = source.settings.incremental is not None
        self._source, self._url = source, url

    @property
    def is_unchanged(self) -> bool:
        return self._source.settings.conditional and self._source.is_unchanged(self._url)

    @property
    def settings_digest(self) -> str:
        http = self._source.settings
        tables = map(_selecting_settings, (http.pagination, http.incremental))
        fields = None if http.parent is None else http.parent.fields
        requests = (http.method, http.body, http.key_field, fields)
        later = [requests] if any(one is not None for one in requests) else []
        selection = encode([http.records, http.format, *tables, *later])
        return hashlib.blake2b(selection, digest_size=16).hexdigest()

    async def chunks(self, bookmark: Bookmark | None) -> AsyncGenerator[Chunk, None]:
        before = bookmark or Bookmark()
        if before.is_last:
            return
        start = None if before.mark is None else msgspec.json.decode(before.mark, type=PageMark)
        try:
            since = self._since(before)
        except ValueError as error:
            raise FeedError(Failure(self.name, "http", str(error))) from None
        incremental = self._source.settings.incremental
        if incremental is not None and incremental.type is not None:
            before = structs.replace(before, kind=incremental.type)
        is_conditional = self._source.settings.conditional
        if is_conditional and (before.etag or before.modified):
            self._source.expect(self._url, Validators(before.etag, before.modified))
        try:
            async with aclosing(
                self._source.pages(self._url, start, since, kind=before.kind, shape=before.shape)
            ) as pages:
                async for page in pages:
                    yield self._chunk(page, before)
        except HttpError as error:
            failure = error.failure
            raise FeedError(Failure(failure.url, "http", failure.message)) from None
        except UsageError as error:  # a template does not fit to the largest value
            raise FeedError(Failure(self.name, "http", str(error))) from None

    def _since(self, before: Bookmark) -> Scalar | None:
        """Return the value from which records are requested, None for that of the first run.

        Raises ValueError if the lag cannot be taken off it.
        """
        incremental, value = self._source.settings.incremental, before.since
        if incremental is None or value is None:
            return None
        kind = incremental.type or before.kind
        if before.mark is None and incremental.max is None and is_ahead(value, kind):
            self._source.add_note(
                f"warning: {self.name}: records from {value!r} on are requested, which lies in the "
                "future: --full-refresh forgets this value"
            )
        return minus_lag(value, kind, incremental.lag) if incremental.lag else value

    def _chunk(self, page: Page, before: Bookmark) -> Chunk:
        mark = None if page.mark is None else encode(page.mark).decode()
        shape = page.shape or before.shape
        bookmark = Bookmark(
            mark, before.newest, before.since, before.kind, shape, is_last=page.is_last
        )
        if self._source.settings.conditional:
            found = self._source.validators(self._url)
            bookmark = structs.replace(bookmark, etag=found.etag, modified=found.modified)
        key_field = self._source.settings.key_field if page.format == "json" else None
        return Chunk(
            page.url,
            page.body,
            page.format,
            page.line,
            page.byte,
            bookmark,
            key_field,
            self._fields,
        )
