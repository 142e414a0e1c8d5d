"""Pages that link to the next one, or have a cursor for it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.core.secrets import REDACTED
from asyncbatch.core.units import format_count
from asyncbatch.formats.decoder import decode, encode
from asyncbatch.formats.positions import parse_pointer, text_at
from asyncbatch.sources.http.base import HttpError, Page, PageMark
from asyncbatch.sources.http.failures import REQUEST_ERRORS, NoRecordsError, RefusedLinkError
from asyncbatch.sources.http.paging.records import MAX_EMPTY_PAGES, RecordsCheck
from asyncbatch.sources.http.paging.told import Told
from asyncbatch.sources.http.requests.plan import CursorError, describe_type, page_name
from asyncbatch.sources.http.response import BodyPart
from asyncbatch.sources.http.settings import (
    CursorPagination,
    LinkHeaderPagination,
    NextUrlPagination,
)
from asyncbatch.sources.http.urls import is_absolute, with_hidden_values, with_values_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from yarl import URL

    from asyncbatch.sources.http.base import Reason, Request
    from asyncbatch.sources.http.client import HttpClient
    from asyncbatch.sources.http.paging.records import PageRecords
    from asyncbatch.sources.http.requests.plan import RequestPlan
    from asyncbatch.sources.http.response import HttpResponse, LineStream

_MAX_REMEMBERED_URLS = 10_000  # for the check of repetition; `max_pages` ends longer cycles


class BadLinkError(Exception):
    """The link to the next page is invalid. The message has the reason."""


class LinkedPages:
    """Pages that link to the next one, or have a cursor for it.

    They begin with the first request of `plan`, or at the mark `start` of an earlier run, whose
    pages had `shape`. `home_origin` is the origin of the settings' URL.
    """

    def __init__(
        self,
        client: HttpClient,
        plan: RequestPlan,
        home_origin: URL,
        start: PageMark | None = None,
        shape: str = "",
    ) -> None:
        self._client, self._plan, self._home_origin = client, plan, home_origin
        self._start = start
        self._pagination = client.settings.pagination
        shape = start.shape if start is not None and start.shape else shape
        self._check = RecordsCheck(client.settings, client.redactor.excerpt, shape)
        self._told = Told(client.settings)
        self._requested: dict[tuple[URL, bytes], None] = {}
        self._asked_again: Request | None = None  # a request whose own page led to it again
        self._may_repeat = getattr(self._pagination, "repeatable", True)
        self._empty_pages = 0  # in a row, up to the current one

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the pages that have records. Raises HttpError.

        The error of a link is raised after the page that contains the link.
        """
        request, number = self._begin()
        while request is not None:
            self._check_request(request, number)
            answer = await self._request(request)
            records = await self._find_records(request.url, answer)
            earlier = self._check.earlier_page(records, number)
            if earlier is not None and self._is_end(request, number, earlier):
                break
            if records.count:
                self._told.note(answer)
            following, broken = self._find_next(request, answer, records)
            if following is not None:
                self._check_empty(request, records)
            end = Page(
                page_name(self._client, request, number),
                number,
                answer.body,
                answer.content_type,
                answer.form,
                None if following is None else self._mark(request, following, number, records),
                is_last=following is None and broken is None,
                shape="" if self._client.settings.records else self._check.shape,
            )
            if answer.stream is not None:
                async with aclosing(self._stream_pages(answer, answer.stream, end)) as pages:
                    async for page in pages:
                        yield page
            elif not records.is_absent:
                yield end
            if broken is not None:
                raise broken
            request, number = following, number + 1
        shown = self._client.redactor.redact_url(self._plan.first.url)
        self._client.notes += self._told.warnings(shown)

    def _begin(self) -> tuple[Request | None, int]:
        """Return the first request, and the number of its page."""
        if self._start is None:
            return self._plan.first, 1
        first = self._plan.first.url
        url = self._client.policy.resolve(first, self._start.link)
        if self._start.hidden and url.origin() == first.origin():
            url = with_values_of(url, first, self._start.hidden)
        request, number = self._plan.resumed(self._start, url), self._start.number
        if self._start.digest:
            self._check.remember(self._start.digest, number - 1)
            self._asked_again = request
        return request, number

    async def _request(self, request: Request) -> HttpResponse:
        """Return the response of a request. Raises HttpError."""
        may_repeat = self._may_repeat or len(self._requested) == 1
        try:
            return await self._client.request(
                request, self._home_origin, may_stream=True, may_repeat=may_repeat
            )
        except HttpError as error:
            failure = error.failure
            is_resumed = self._start is not None and len(self._requested) == 1
            if is_resumed and failure.reason == "status" and not failure.is_transient:
                text = f"{failure.text}; an earlier run ended here: if the link has expired, "
                text += "--full-refresh reads the URL from its start"
                raise HttpError(replace(failure, text=text)) from None
            raise

    async def _find_records(self, url: URL, answer: HttpResponse) -> PageRecords:
        try:
            return self._check.find(answer)
        except NoRecordsError as error:
            raise self._client.to_http_error(url, error, answer.attempts) from None

    def _is_end(self, request: Request, number: int, earlier: int) -> bool:
        """Whether a page with the records of an `earlier` page is the end. Raises HttpError."""
        on_repeat = getattr(self._pagination, "on_repeat", "fail")
        if request == self._asked_again and earlier == number - 1:
            if self._start is not None or request != self._plan.first:
                return True
            text = "the pages form a cycle: the first page leads to itself"
            raise self._make_error(request.url, "repeated_next", text)
        if on_repeat == "fail":
            raise self._client.make_repeat_error(request.url, number, earlier)
        return bool(on_repeat == "end")

    def _find_next(
        self, request: Request, answer: HttpResponse, records: PageRecords
    ) -> tuple[Request | None, HttpError | None]:
        """Return the next request, None after the last page, and the error of the link.

        The request is not checked yet.
        """
        more = self._told.has_more(answer)
        if more is False:
            return None, None
        try:
            following = self._next_request(answer, records)
        except (BadLinkError, RefusedLinkError, CursorError) as error:
            return None, self._make_error(request.url, "bad_next", str(error))
        if following is not None and (following == request or not self._may_repeat):
            if records.count == 0:
                following = None
            elif records.count is not None:
                self._asked_again = following
        if following is None and more:
            text = "the page says that there are more, and names no other page"
            return None, self._make_error(request.url, "bad_next", text)
        return following, None

    def _mark(
        self, request: Request, following: Request, number: int, records: PageRecords
    ) -> PageMark | None:
        """Return the mark of the request that follows.

        None if the server repeats no page, or if the link has a secret at a place of its own: a
        later run then begins at the first page.
        """
        hidden = self._secret_parameters(following.url)
        link = self._link_without_secrets(following.url, hidden)
        if not self._may_repeat or link is None:
            return None
        return PageMark(
            link,
            number + 1,
            "" if self._client.settings.records else self._check.shape,
            records.digest if following == request else "",
            self._plan.cursor_of(following),
            self._plan.moment,
            hidden,
        )

    def _secret_parameters(self, url: URL) -> tuple[str, ...]:
        """Return the parameters of `url` with secrets that the first request has, too."""
        first, redactor = self._plan.first.url, self._client.redactor
        if url.origin() != first.origin():
            return ()
        return tuple(
            name
            for name in dict.fromkeys(url.query)
            if url.query.getall(name) == first.query.getall(name, None)
            and redactor.is_secret_pair(name, url.query[name])
        )

    def _link_without_secrets(self, url: URL, hidden: tuple[str, ...]) -> str | None:
        """Return the link of a mark, with `***` for the parameters `hidden`; None if others remain.

        A link in the path of the first request, which may have a secret, is relative to it.
        """
        redactor, first = self._client.redactor, self._plan.first.url
        link = str(with_hidden_values(url, hidden, REDACTED) if hidden else url)
        if redactor.has_no_secret(link):
            return link
        start, mark, query = link.partition("?")
        is_below = mark and start == str(first).partition("?")[0]
        return f"?{query}" if is_below and redactor.has_no_secret(query) else None

    def _check_empty(self, request: Request, records: PageRecords) -> None:
        """Raise HttpError if too many pages in a row lead to another one, and have no records."""
        self._empty_pages = self._empty_pages + 1 if records.count == 0 else 0
        if self._empty_pages >= MAX_EMPTY_PAGES:
            text = (
                f"{self._empty_pages:,} pages in a row have no records, although each leads to "
                "another one"
            )
            raise self._make_error(request.url, "no_records", text)

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

    def _next_request(self, answer: HttpResponse, records: PageRecords) -> Request | None:
        """Return the request for the next page, None after the last. It is not checked yet.

        Raises BadLinkError, RefusedLinkError and CursorError.
        """
        pagination = self._pagination
        if isinstance(pagination, CursorPagination):
            if pagination.last_record is not None:
                return self._after_record(pagination.last_record, answer, records)
            cursor = self._next_value(pagination, answer)
            if cursor is None:
                return None
            try:
                return self._plan.with_cursor(cursor)
            except CursorError as error:
                where = pagination.next or pagination.next_header
                raise BadLinkError(f"{error} at {where}") from None
        link: object = answer.next_link
        if isinstance(pagination, NextUrlPagination):
            found = self._next_value(pagination, answer)
            link = None if found is None else decode(found)
        elif not isinstance(pagination, LinkHeaderPagination):
            return None
        if link is None or link == "":
            return None
        if not isinstance(link, str):
            raise BadLinkError(f"expected the URL of the next page, found {describe_type(link)}")
        return self._plan.with_link(self._resolve(answer, link))

    def _next_value(
        self, pagination: CursorPagination | NextUrlPagination, answer: HttpResponse
    ) -> bytes | None:
        """Return the JSON text of the cursor or link to the next page, None after the last."""
        if pagination.next_header is not None:
            value = (answer.next_link or "").strip()
            return encode(value) if value else None
        if answer.is_lines or answer.is_csv:
            form = "JSON Lines" if answer.is_lines else "CSV"
            raise BadLinkError(f"{form} have no next page: use next_header, link_header or page")
        if answer.is_empty:
            return None
        text = text_at(answer.body, parse_pointer(pagination.next or ""))
        if text is None:
            return None
        # A JSON text keeps the digits that a float would lose.
        cursor = bytes(memoryview(text))
        return None if decode(cursor) in (None, False, "", 0) else cursor

    def _after_record(
        self, pointer: str, answer: HttpResponse, records: PageRecords
    ) -> Request | None:
        """Return the request for the page after the last record, None without records."""
        if answer.is_lines or answer.is_csv:
            raise BadLinkError("last_record needs pages of JSON")
        if records.last is None:
            return None
        text = text_at(bytes(records.last), parse_pointer(pointer))
        if text is None or bytes(memoryview(text)) == b"null":
            raise BadLinkError(f"the last record has nothing at {pointer} (last_record)")
        return self._plan.with_cursor(bytes(memoryview(text)))

    def _resolve(self, answer: HttpResponse, link: str) -> URL:
        """Return the URL of a link, which may be relative to `base`."""
        base = getattr(self._pagination, "base", None)
        if base is not None and not is_absolute(link):
            if base.startswith("/"):
                found = text_at(answer.body, parse_pointer(base))
                start = None if found is None else decode(found)
                if not isinstance(start, str):
                    raise BadLinkError(f"there is no text at {base} (base)")
                base = start
            slash = "" if link[0] in "?#" else "/"
            link = base.rstrip("/") + slash + link.lstrip("/")
        return self._client.policy.resolve(answer.url, link)

    def _check_request(self, request: Request, number: int) -> None:
        """Raise HttpError if `request` may not be made for page `number`."""
        limit = self._client.settings.max_pages
        if request.identity in self._requested and request != self._asked_again:
            text = "the pages form a cycle: this page was already read"
            raise self._make_error(request.url, "repeated_next", text)
        if number > limit:
            text = f"more than {format_count(limit, 'page')}, the limit (max_pages)"
            raise self._make_error(request.url, "max_pages", text)
        try:
            self._client.policy.check_request(request, self._home_origin)
        except RefusedLinkError as error:
            raise self._client.to_http_error(request.url, error) from None
        self._requested[request.identity] = None
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
