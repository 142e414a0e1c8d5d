"""Pagination by link, cursor, offset or page number."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace
from yarl import URL

from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import decode, decode_array
from asyncbatch.formats.positions import format_pointer, parse_pointer, text_at
from asyncbatch.sources.http.base import HttpError, Page, PageMark
from asyncbatch.sources.http.failures import REQUEST_ERRORS, NoRecordsError, RefusedLinkError
from asyncbatch.sources.http.response import BodyPart
from asyncbatch.sources.http.settings import (
    CursorPagination,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asyncbatch.sources.http.base import Reason
    from asyncbatch.sources.http.client import HttpClient
    from asyncbatch.sources.http.response import HttpResponse, LineStream
    from asyncbatch.sources.http.settings import HttpSettings


def count_records(body: bytes, pointer: Sequence[str]) -> int:
    """Return the length of the array at `pointer` of a valid JSON text, 0 for null.

    Raises NoRecordsError for any other value.
    """
    at = text_at(body, pointer)
    first = b"" if at is None else bytes(memoryview(at)[:1])
    if at is not None and first == b"[":
        return len(decode_array(at))
    if first == b"n":
        return 0
    where = f"at {format_pointer(pointer)}" if pointer else "at the top of the response"
    there = "nothing" if at is None else "an object" if first == b"{" else "a single value"
    raise NoRecordsError(
        f"expected an array of records {where}, found {there}: `records` sets its JSON Pointer"
    )


def count_lines(body: bytes) -> int:
    """Return the number of lines that are not blank."""
    return sum(1 for line in body.split(b"\n") if line.strip())


def value_at(body: bytes, pointer: Sequence[str]) -> Any:
    """Return the value at `pointer` of a valid JSON text, None if it is missing."""
    at = text_at(body, pointer)
    return None if at is None else decode(at)


_MAX_REMEMBERED_URLS = 10_000  # for the check of repetition; `max_pages` ends longer cycles


class BadLinkError(Exception):
    """The link to the next page is invalid. The message has the reason."""


class LinkedPages:
    """Pages that link to the next one, or have a cursor for it, from the page `first`.

    `home_origin` is the origin of the settings' URL.
    """

    def __init__(self, client: HttpClient, first: URL, home_origin: URL) -> None:
        self._client, self._first, self._home_origin = client, first, home_origin
        self._requested: dict[URL, None] = {}

    async def pages(self, number: int) -> AsyncGenerator[Page, None]:
        """Yield the pages; the first one has the number `number`. Raises HttpError.

        The error of a link is raised after the page that contains the link.
        """
        url: URL | None = self._first
        while url is not None:
            self._check_url(url, number)
            answer = await self._client.request(url, self._home_origin, may_stream=True)
            following: URL | None = None
            broken: HttpError | None = None
            try:
                following = self._next_url(answer)
            except (BadLinkError, RefusedLinkError) as error:
                broken = self._make_error(url, "bad_next", str(error))
            end = Page(
                self._client.redactor.redact_url(url),
                number,
                answer.body,
                answer.content_type,
                "jsonl" if answer.is_lines else "json",
                None if following is None else PageMark(str(following), number + 1),
                is_last=following is None and broken is None,
            )
            if answer.stream is not None:
                async with aclosing(self._stream_pages(answer, answer.stream, end)) as pages:
                    async for page in pages:
                        yield page
            elif not answer.is_empty:
                yield end
            if broken is not None:
                raise broken
            url, number = following, number + 1

    async def _stream_pages(
        self, answer: HttpResponse, stream: LineStream, end: Page
    ) -> AsyncGenerator[Page, None]:
        """Yield the parts of a response as pages. Only the last part has the mark of `end`."""
        held = BodyPart(b"", 1, 0)
        try:
            async for part in stream.parts():
                if held.text:
                    yield _page_part(end, held, mark=None, is_last=False)
                held = part
        except REQUEST_ERRORS as error:
            raise self._client.to_http_error(answer.url, error, answer.attempts) from None
        finally:
            await stream.close()
        yield _page_part(end, held, mark=end.mark, is_last=end.is_last)

    def _next_url(self, answer: HttpResponse) -> URL | None:
        """Return the URL of the next page, None after the last. It is not checked yet.

        Raises BadLinkError and RefusedLinkError.
        """
        pagination = self._client.settings.pagination
        link: object = None
        match pagination:
            case LinkHeaderPagination():
                link = answer.next_link
            case CursorPagination(next=pointer) | NextUrlPagination(next=pointer):
                if answer.is_lines:
                    raise BadLinkError("JSON Lines have no next page: use link_header or page")
                if not answer.is_empty:
                    link = value_at(answer.body, parse_pointer(pointer))
        if link is None or link == "":
            return None
        if isinstance(pagination, CursorPagination):
            if isinstance(link, bool) or not isinstance(link, str | int | float):
                raise BadLinkError(
                    f"expected a cursor at {pagination.next}, found {_describe_type(link)}"
                )
            return self._first.update_query({pagination.param: str(link)})
        if not isinstance(link, str):
            raise BadLinkError(f"expected the URL of the next page, found {_describe_type(link)}")
        return self._client.policy.resolve(answer.url, link)

    def _check_url(self, url: URL, number: int) -> None:
        """Raise HttpError if `url` may not be requested as page `number`."""
        limit = self._client.settings.max_pages
        if url in self._requested:
            text = "the pages form a cycle: this page was already read"
            raise self._make_error(url, "repeated_next", text)
        if number > limit:
            text = f"more than {limit:,} pages, the limit (max_pages)"
            raise self._make_error(url, "max_pages", text)
        try:
            self._client.policy.check(url, self._home_origin)
        except RefusedLinkError as error:
            raise self._client.to_http_error(url, error) from None
        self._requested[url] = None
        if len(self._requested) > _MAX_REMEMBERED_URLS:
            del self._requested[next(iter(self._requested))]

    def _make_error(self, url: URL, reason: Reason, text: str) -> HttpError:
        return self._client.make_error(url, reason, text)


def _page_part(page: Page, part: BodyPart, *, mark: PageMark | None, is_last: bool) -> Page:
    return replace(
        page,
        body=part.text,
        line=part.line,
        byte=part.byte,
        mark=mark,
        is_last=is_last,
    )


def _describe_type(value: object) -> str:
    names = {bool: "true or false", dict: "an object", list: "an array"}
    return names.get(type(value), "a number")


_NOT_FOUND = 404


class _FetchedPage(NamedTuple):
    """A response and its number of records. After the last page, `answer` is None."""

    url: URL
    answer: HttpResponse | None
    record_count: int


class NumberedPages:
    """Pages by number or offset, from `first`.

    Pages are requested ahead, on the assumption that each page is full. A page is yielded only when
    all earlier pages are known, because its position is then certain. The number of requests ahead
    starts at one and grows by one with each full page, up to `concurrency`. Once a response
    contains the total, it is `concurrency`. Without `asks_ahead`, pages are requested one by one.
    """

    def __init__(
        self,
        client: HttpClient,
        first: URL,
        pagination: PagePagination | OffsetPagination,
        *,
        asks_ahead: bool = True,
    ) -> None:
        self._client, self._first, self._pagination = client, first, pagination
        self._asks_ahead = asks_ahead
        self._records_pointer = parse_pointer(client.settings.records)
        self._is_offset = isinstance(pagination, OffsetPagination)
        self._page_step = pagination.limit if isinstance(pagination, OffsetPagination) else 1
        self._next_position = pagination.start  # of the page that is requested next
        self._max_ahead = 1  # requests ahead
        self._end_position: int | None = None  # after the last page, once it is known
        self._record_count = self._largest_page = 0  # records so far, and in the largest page
        self._prefetched: deque[tuple[int, asyncio.Task[_FetchedPage]]] = deque()

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the pages. Raises HttpError."""
        limit = self._client.settings.max_pages
        number = 0
        try:
            while True:
                self._prefetch(limit - number)
                at, task = self._prefetched.popleft()
                url, answer, count = await task
                if answer is None or not count:
                    return
                if number == limit:
                    text = f"more than {limit:,} pages, the limit (max_pages)"
                    raise self._client.make_error(url, "max_pages", text)
                number += 1
                is_last = self._note_total(at, answer, count)
                if not is_last:
                    await self._adapt(at, count)
                    if self._asks_ahead:
                        self._prefetch(limit - number)
                yield Page(
                    self._client.redactor.redact_url(url),
                    number,
                    answer.body,
                    answer.content_type,
                    "jsonl" if answer.is_lines else "json",
                    is_last=is_last,
                )
                if is_last:
                    return
        finally:
            await self._cancel_prefetched()

    def _prefetch(self, remaining: int) -> None:
        """Request pages ahead.

        At most `remaining` pages may follow. One more request finds out whether there are more.
        """
        while len(self._prefetched) < min(self._max_ahead, remaining + 1):
            if (
                self._prefetched
                and self._end_position is not None
                and self._next_position >= self._end_position
            ):
                return
            task = asyncio.create_task(self._fetch(self._next_position))
            self._prefetched.append((self._next_position, task))
            self._next_position += self._page_step

    def _note_total(self, at: int, answer: HttpResponse, count: int) -> bool:
        """Note the total in a response. Return whether the page at `at` is the last."""
        self._record_count += count
        self._largest_page = max(self._largest_page, count)
        if self._is_offset:
            total = self._total_of(answer, "total")
            if total is not None:
                self._end_position = total
            return total is not None and at + count >= total
        total, pages = self._total_of(answer, "total"), self._total_of(answer, "pages")
        if total is not None:
            self._end_position = self._pagination.start - (-total // self._largest_page)
        if pages is not None:
            self._end_position = self._pagination.start + pages
        is_all = total is not None and self._record_count >= total
        return is_all or (pages is not None and at + 1 >= self._pagination.start + pages)

    def _total_of(self, answer: HttpResponse, name: str) -> int | None:
        """Return the number at the JSON Pointer of the setting `name`, None without one."""
        pointer: str | None = getattr(self._pagination, name)
        if pointer is None or answer.is_lines:
            return None
        value = value_at(answer.body, parse_pointer(pointer))
        return value if type(value) is int and value > 0 else None

    async def _adapt(self, at: int, count: int) -> None:
        """Adapt step and requests ahead to a page at `at` with `count` records."""
        if self._is_offset and count != self._page_step:
            # This is the last page, or the server has a lower limit: the requests ahead have the
            # wrong offsets.
            await self._cancel_prefetched()
            self._next_position, self._page_step, self._max_ahead = at + count, count, 1
        elif count < self._largest_page:
            self._max_ahead = 1  # this is probably the last page
        else:
            most = self._client.settings.concurrency if self._asks_ahead else 1
            self._max_ahead = min(self._max_ahead + 1, most) if self._end_position is None else most

    async def _cancel_prefetched(self) -> None:
        """Cancel the requests ahead, and wait for their end."""
        tasks = [task for _, task in self._prefetched]
        self._prefetched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, at: int) -> _FetchedPage:
        """Return the page at position `at`. Raises HttpError."""
        url = self._first.update_query(self._query_parameters(at))
        try:
            answer = await self._client.request(url, self._first.origin(), may_stream=False)
        except HttpError as error:
            if at == self._pagination.start or error.failure.status is None:
                raise
            if error.failure.status == self._pagination.end_status:
                return _FetchedPage(url, None, 0)
            if error.failure.status == _NOT_FOUND:
                hint = "; if this is the end of the pages, set pagination.end_status = 404"
                raise HttpError(replace(error.failure, text=error.failure.text + hint)) from error
            raise
        try:
            return _FetchedPage(url, answer, self._count_records(answer))
        except NoRecordsError as error:
            raise self._client.to_http_error(url, error, answer.attempts) from None

    def _count_records(self, answer: HttpResponse) -> int:
        if answer.is_lines:
            return count_lines(answer.body)
        return 0 if answer.is_empty else count_records(answer.body, self._records_pointer)

    def _query_parameters(self, at: int) -> dict[str, str]:
        match self._pagination:
            case OffsetPagination(param=param, limit_param=limit_param, limit=limit):
                return {param: str(at), limit_param: str(limit)}
            case PagePagination(param=param, size_param=str(size_param), size=size):
                return {param: str(at), size_param: str(size)}
            case PagePagination(param=param):
                return {param: str(at)}


def open_pages(
    client: HttpClient,
    url: str,
    start: PageMark | None,
    since: str | None,
    *,
    asks_ahead: bool = True,
) -> AsyncGenerator[Page, None]:
    """Return the pages of `url` as `HttpSource.pages` does. Raises UsageError."""
    settings = client.settings
    first = client.policy.without_credentials(URL(url))
    if not client.policy.is_home_origin(first):
        raise UsageError(f"{client.redactor.redact_url(first)} has an origin that is not in `urls`")
    home = first.origin()
    first = _with_cursor(first, settings, since)
    if isinstance(settings.pagination, PagePagination | OffsetPagination):
        if start is not None:
            raise UsageError("pages by number or offset cannot resume: start without a mark")
        return NumberedPages(client, first, settings.pagination, asks_ahead=asks_ahead).pages()
    if start is None:
        return LinkedPages(client, first, home).pages(1)
    return LinkedPages(client, client.policy.resolve(first, start.link), home).pages(start.number)


def _with_cursor(url: URL, settings: HttpSettings, since: str | None) -> URL:
    if settings.incremental is None:
        return url
    value = settings.incremental.initial if since is None else since
    return url if value is None else url.update_query({settings.incremental.param: str(value)})
