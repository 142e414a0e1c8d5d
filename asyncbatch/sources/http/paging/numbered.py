"""Pages by number or offset, requested ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from asyncbatch.core.units import format_count
from asyncbatch.sources.http.base import HttpError, Page
from asyncbatch.sources.http.failures import NoRecordsError
from asyncbatch.sources.http.paging.records import MAX_EMPTY_PAGES, PageRecords, RecordsCheck
from asyncbatch.sources.http.paging.told import Told
from asyncbatch.sources.http.requests.plan import page_name
from asyncbatch.sources.http.settings import OffsetPagination, PagePagination

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from yarl import URL

    from asyncbatch.sources.http.base import Request
    from asyncbatch.sources.http.client import HttpClient
    from asyncbatch.sources.http.requests.plan import RequestPlan
    from asyncbatch.sources.http.response import HttpResponse

_NOT_FOUND = 404
# The same at the start, if the answers tell a total, and no page has told the size of a page.
_MAX_EMPTY_FIRST_PAGES = 10


class _FetchedPage(NamedTuple):
    """A response and its records. After the last page, `answer` is None."""

    request: Request
    answer: HttpResponse | None
    records: PageRecords
    failure: HttpError | None = None  # the error with the status `end_status`


class NumberedPages:
    """Pages by number or offset, requested by `plan`.

    Pages are requested ahead, on the assumption that each page is full. A page is yielded only when
    all earlier pages are known, because its position is then certain. The number of requests ahead
    starts at one and grows by one with each full page, up to `concurrency`. Once a response
    contains the total, it is `concurrency`. Without `asks_ahead`, pages are requested one by one.

    A page without records is the end, unless the answers tell that more pages follow.
    """

    def __init__(
        self,
        client: HttpClient,
        plan: RequestPlan,
        pagination: PagePagination | OffsetPagination,
        *,
        asks_ahead: bool = True,
    ) -> None:
        self._client, self._plan, self._pagination = client, plan, pagination
        self._first = plan.first.url
        self._asks_ahead = asks_ahead
        self._check = RecordsCheck(client.settings, client.redactor.excerpt)
        self._told = Told(client.settings)
        self._is_offset = isinstance(pagination, OffsetPagination)
        self._page_step = pagination.limit if isinstance(pagination, OffsetPagination) else 1
        self._next_position = pagination.start  # of the page that is requested next
        # The position of the first record or page of all. A larger `start` skips the first ones.
        self._base = min(pagination.start, 1)
        self._max_ahead = 1  # requests ahead
        self._total: int | None = None  # the number of records, once a page told it
        self._page_count: int | None = None  # the number of pages, once a page told it
        self._more: bool | None = None  # the value of the last page
        self._record_count = self._largest_page = 0  # records so far, and in the largest page
        self._prefetched: deque[tuple[int, asyncio.Task[_FetchedPage]]] = deque()

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the pages that have records. Raises HttpError."""
        limit = self._client.settings.max_pages
        number = empty_pages = 0
        try:
            while True:
                self._prefetch(limit - number)
                at, task = self._prefetched.popleft()
                request, answer, records, failure = await task
                url = request.url
                if answer is None:
                    self._check_told_end(at, failure)
                    break
                self._note_told(answer, records.count or 0)
                if not records.count and not self._goes_on(at, url, empty_pages):
                    break
                if number == limit:
                    text = f"more than {format_count(limit, 'page')}, the limit (max_pages)"
                    raise self._client.make_error(url, "max_pages", text)
                number += 1
                empty_pages = 0 if records.count else empty_pages + 1
                if not records.count:
                    continue
                earlier = self._check.earlier_page(records, number)
                if earlier is not None and self._pagination.on_repeat == "fail":
                    raise self._client.make_repeat_error(url, number, earlier)
                if earlier is not None and self._pagination.on_repeat == "end":
                    break
                self._told.note(answer)
                is_last = self._is_last(at, records.count)
                if not is_last:
                    await self._adapt(at, records.count)
                    if self._asks_ahead:
                        self._prefetch(limit - number)
                yield Page(
                    page_name(self._client, request, number),
                    number,
                    answer.body,
                    answer.content_type,
                    answer.form,
                    is_last=is_last,
                )
                if is_last:
                    break
            self._add_notes()
        finally:
            await self._cancel_prefetched()

    @property
    def _end_position(self) -> int | None:
        """The position after the last page, None while no page has told it."""
        if self._is_offset:
            return None if self._total is None else self._base + self._total
        if self._page_count is not None:
            return self._base + self._page_count
        if self._total is None or not self._largest_page:
            return None
        return self._base - (-self._total // self._largest_page)

    def _prefetch(self, remaining: int) -> None:
        """Request pages ahead.

        At most `remaining` pages may follow. One more request finds out whether there are more.
        """
        end = self._end_position
        while len(self._prefetched) < min(self._max_ahead, remaining + 1):
            if self._prefetched and end is not None and self._next_position >= end:
                return
            task = asyncio.create_task(self._fetch(self._next_position))
            self._prefetched.append((self._next_position, task))
            self._next_position += self._page_step

    def _note_told(self, answer: HttpResponse, count: int) -> None:
        """Note the numbers in a response with `count` records."""
        self._record_count += count
        self._largest_page = max(self._largest_page, count)
        self._more = self._told.has_more(answer)
        total, pages = self._told.number(answer, "total"), self._told.number(answer, "pages")
        self._total = self._total if total is None else total
        self._page_count = self._page_count if pages is None else pages
        if (end := self._end_position) is not None:
            left = max(0, end - self._pagination.start)
            self._client.expected_pages[str(self._first)] = -(-left // self._page_step)

    def _is_last(self, at: int, count: int) -> bool:
        """Whether the page at `at`, with `count` records, is known to be the last."""
        if self._more is not None:
            return not self._more
        if self._is_offset:
            return self._total is not None and at + count >= self._base + self._total
        if self._page_count is not None:
            return at + 1 >= self._base + self._page_count
        return self._total is not None and self._record_count >= self._total

    def _goes_on(self, at: int, url: URL, empty_pages: int) -> bool:
        """Whether pages follow the page without records at `at`. Raises HttpError.

        `empty_pages` is the number of pages without records just before it.
        """
        end = self._end_position
        if self._more is not None:
            if self._more and empty_pages >= MAX_EMPTY_PAGES:
                text = (
                    f"{empty_pages:,} pages in a row have no records, although each says that "
                    "there are more"
                )
                raise self._client.make_error(url, "no_records", text)
            return self._more
        if end is not None:
            return at + self._page_step < end
        return self._total is not None and empty_pages < _MAX_EMPTY_FIRST_PAGES

    def _check_told_end(self, at: int, error: HttpError | None) -> None:
        """Raise `error`, which ends the pages at `at`, if the answers told that more follow."""
        told, end = "", self._end_position
        if self._more is not None:
            told = "the page before says that there are more" if self._more else ""
        elif end is not None and at < end:
            name, number = "total", self._total
            if not self._is_offset and self._page_count is not None:
                name, number = "pages", self._page_count
            told = f"the answers told {number:,} (pagination.{name})"
        if error is not None and told:
            failure = error.failure
            raise HttpError(replace(failure, text=f"{failure.text}; this is not the end: {told}"))

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
        request = self._plan.with_parameters(self._parameters(at))
        try:
            answer = await self._client.request(request, self._first.origin(), may_stream=False)
        except HttpError as error:
            if at == self._pagination.start or error.failure.status is None:
                raise
            if error.failure.status == self._pagination.end_status:
                return _FetchedPage(request, None, PageRecords("array", 0), error)
            if error.failure.status == _NOT_FOUND:
                hint = "; if this is the end of the pages, set pagination.end_status = 404"
                raise HttpError(replace(error.failure, text=error.failure.text + hint)) from error
            raise
        try:
            return _FetchedPage(request, answer, self._check.find(answer))
        except NoRecordsError as error:
            raise self._client.to_http_error(request.url, error, answer.attempts) from None

    def _parameters(self, at: int) -> dict[str, int]:
        match self._pagination:
            case OffsetPagination(param=param, limit_param=limit_param, limit=limit):
                return {param: at, limit_param: limit}
            case PagePagination(param=param, size_param=str(size_param), size=int(size)):
                return {param: at, size_param: size}
            case PagePagination(param=param):
                return {param: at}

    def _add_notes(self) -> None:
        """Add a warning if fewer records came than the answers told, or nothing was told."""
        shown = self._client.redactor.redact_url(self._first)
        is_whole = self._pagination.start <= 1 and self._client.settings.incremental is None
        if self._total is not None and is_whole and self._record_count < self._total:
            self._client.notes.append(
                f"warning: {shown}: {self._record_count:,} records came, and the answers told "
                f"{self._total:,} (pagination.total)"
            )
        self._client.notes += self._told.warnings(shown)
