"""Pages that link to the next one, or have a cursor for it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.core.units import format_count
from asyncbatch.formats.decoder import decode
from asyncbatch.formats.positions import parse_pointer, text_at
from asyncbatch.sources.http.base import HttpError, Page, PageMark
from asyncbatch.sources.http.failures import REQUEST_ERRORS, NoRecordsError, RefusedLinkError
from asyncbatch.sources.http.page_records import RecordsCheck
from asyncbatch.sources.http.response import BodyPart
from asyncbatch.sources.http.settings import (
    CursorPagination,
    LinkHeaderPagination,
    NextUrlPagination,
)
from asyncbatch.sources.http.told import Told
from asyncbatch.sources.http.urls import with_parameters

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from yarl import URL

    from asyncbatch.formats.positions import Buffer
    from asyncbatch.sources.http.base import Reason
    from asyncbatch.sources.http.client import HttpClient
    from asyncbatch.sources.http.page_records import PageRecords
    from asyncbatch.sources.http.response import HttpResponse, LineStream

_MAX_REMEMBERED_URLS = 10_000  # for the check of repetition; `max_pages` ends longer cycles


class BadLinkError(Exception):
    """The link to the next page is invalid. The message has the reason."""


class LinkedPages:
    """Pages that link to the next one, or have a cursor for it.

    They begin at `first`, or at the mark `start` of an earlier run, whose pages had `shape`.
    `home_origin` is the origin of the settings' URL.
    """

    def __init__(
        self,
        client: HttpClient,
        first: URL,
        home_origin: URL,
        start: PageMark | None = None,
        shape: str = "",
    ) -> None:
        self._client, self._first, self._home_origin = client, first, home_origin
        self._start = start
        self._pagination = client.settings.pagination
        shape = start.shape if start is not None and start.shape else shape
        self._check = RecordsCheck(client.settings, shape)
        self._told = Told(client.settings)
        self._requested: dict[URL, None] = {}
        self._asked_again: URL | None = None  # a URL whose own page named it as the next one

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the pages that have records. Raises HttpError.

        The error of a link is raised after the page that contains the link.
        """
        url, number = self._begin()
        while url is not None:
            self._check_url(url, number)
            answer = await self._request(url)
            records = await self._find_records(url, answer)
            earlier = self._check.earlier_page(records, number)
            if earlier is not None and self._is_end(url, number, earlier):
                break
            if records.count:
                self._told.note(answer)
            following, broken = self._find_next(url, answer, records)
            end = Page(
                self._client.redactor.redact_url(url),
                number,
                answer.body,
                answer.content_type,
                "jsonl" if answer.is_lines else "json",
                None if following is None else self._mark(url, following, number, records),
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
            url, number = following, number + 1
        shown = self._client.redactor.redact_url(self._first)
        self._client.notes += self._told.warnings(shown)

    def _begin(self) -> tuple[URL | None, int]:
        """Return the first URL to request, and the number of its page."""
        if self._start is None:
            return self._first, 1
        url, number = self._client.policy.resolve(self._first, self._start.link), self._start.number
        if self._start.digest:
            self._check.remember(self._start.digest, number - 1)
            self._asked_again = url
        return url, number

    async def _request(self, url: URL) -> HttpResponse:
        """Return the response of `url`. Raises HttpError."""
        try:
            return await self._client.request(url, self._home_origin, may_stream=True)
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

    def _is_end(self, url: URL, number: int, earlier: int) -> bool:
        """Whether a page with the records of an `earlier` page is the end. Raises HttpError."""
        on_repeat = getattr(self._pagination, "on_repeat", "fail")
        if url == self._asked_again and earlier == number - 1:
            if self._start is not None or url != self._first:
                return True
            raise self._make_error(
                url, "repeated_next", "the pages form a cycle: the first page leads to itself"
            )
        if on_repeat == "fail":
            raise self._client.make_repeat_error(url, number, earlier)
        return bool(on_repeat == "end")

    def _find_next(
        self, url: URL, answer: HttpResponse, records: PageRecords
    ) -> tuple[URL | None, HttpError | None]:
        """Return the URL of the next page, None after the last, and the error of the link.

        The URL is not checked yet.
        """
        more = self._told.flag(answer, "more")
        if more is False:
            return None, None
        try:
            following = self._next_url(answer)
        except (BadLinkError, RefusedLinkError) as error:
            return None, self._make_error(url, "bad_next", str(error))
        if following == url:
            if records.count == 0:
                following = None
            elif records.count is not None:
                self._asked_again = url
        if following is None and more:
            text = "the page says that there are more, and names no other page"
            return None, self._make_error(url, "bad_next", text)
        return following, None

    def _mark(self, url: URL, following: URL, number: int, records: PageRecords) -> PageMark:
        """Return the mark of the page after the one at `url`."""
        return PageMark(
            str(following),
            number + 1,
            "" if self._client.settings.records else self._check.shape,
            records.digest if following == url else "",
        )

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
        pagination = self._pagination
        link: object = None
        text: Buffer | None = None
        match pagination:
            case LinkHeaderPagination():
                link = answer.next_link
            case CursorPagination(next=pointer) | NextUrlPagination(next=pointer):
                if answer.is_lines:
                    raise BadLinkError("JSON Lines have no next page: use link_header or page")
                if not answer.is_empty:
                    text = text_at(answer.body, parse_pointer(pointer))
                    link = None if text is None else decode(text)
        if link is None or link is False or link in ("", 0):
            return None
        if isinstance(pagination, CursorPagination):
            if isinstance(link, int | float) and link is not True and text is not None:
                link = bytes(memoryview(text)).decode()  # a float would lose digits
            if not isinstance(link, str):
                raise BadLinkError(
                    f"expected a cursor at {pagination.next}, found {_describe_type(link)}"
                )
            return with_parameters(self._first, {pagination.param: link})
        if not isinstance(link, str):
            raise BadLinkError(f"expected the URL of the next page, found {_describe_type(link)}")
        return self._client.policy.resolve(answer.url, link)

    def _check_url(self, url: URL, number: int) -> None:
        """Raise HttpError if `url` may not be requested as page `number`."""
        limit = self._client.settings.max_pages
        if url in self._requested and url != self._asked_again:
            text = "the pages form a cycle: this page was already read"
            raise self._make_error(url, "repeated_next", text)
        if number > limit:
            text = f"more than {format_count(limit, 'page')}, the limit (max_pages)"
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
