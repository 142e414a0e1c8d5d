"""Pages of which each names the next: one after the other."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.codec.pointer import parse_pointer
from asyncbatch.http.body import Stretch
from asyncbatch.http.borders import RefusedLinkError
from asyncbatch.http.counting import value_at
from asyncbatch.http.page import Page, PageMark
from asyncbatch.http.settings import CursorPagination, LinkHeaderPagination, NextUrlPagination
from asyncbatch.http.troubles import TROUBLES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from yarl import URL

    from asyncbatch.http.answering import Answer
    from asyncbatch.http.asking import Asker
    from asyncbatch.http.body import LineStream
    from asyncbatch.http.failure import HttpError, Reason

_REMEMBERED = 10_000
"""Links of which a repetition is noticed; `max_pages` ends longer circles."""


class BadLinkError(Exception):
    """What should name the next page does not; the message says why."""


class Chain:
    """The pages from `first` on, to which a URL of the settings led, one of origin `home`."""

    def __init__(self, asker: Asker, first: URL, home: URL) -> None:
        self._asker, self._first, self._home = asker, first, home
        self._seen: dict[URL, None] = {}

    async def pages(self, number: int) -> AsyncGenerator[Page, None]:
        """Yield the pages, the first being `number`. Raises HttpError.

        What is wrong with a link is raised behind the page that holds it.
        """
        url: URL | None = self._first
        while url is not None:
            self._check(url, number)
            answer = await self._asker.ask(url, self._home, may_stream=True)
            following: URL | None = None
            broken: HttpError | None = None
            try:
                following = self._following(answer)
            except (BadLinkError, RefusedLinkError) as error:
                broken = self._failure(url, "bad_next", str(error))
            end = Page(
                self._asker.redactor.url(url),
                number,
                answer.body,
                answer.content_type,
                "jsonl" if answer.is_lines else "json",
                None if following is None else PageMark(str(following), number + 1),
                is_last=following is None and broken is None,
            )
            if answer.stream is not None:
                async with aclosing(self._streamed(answer, answer.stream, end)) as pages:
                    async for page in pages:
                        yield page
            elif not answer.is_empty:
                yield end
            if broken is not None:
                raise broken
            url, number = following, number + 1

    async def _streamed(
        self, answer: Answer, stream: LineStream, end: Page
    ) -> AsyncGenerator[Page, None]:
        """Yield the stretches of an answer: as much of `end` as each is, the last all of it."""
        held = Stretch(b"", 1, 0)
        try:
            async for stretch in stream.stretches():
                if held.text:
                    yield _cut(end, held, mark=None, is_last=False)
                held = stretch
        except TROUBLES as error:
            raise self._asker.failed(answer.url, error, answer.attempts) from None
        finally:
            await stream.close()
        yield _cut(end, held, mark=end.mark, is_last=end.is_last)

    def _following(self, answer: Answer) -> URL | None:
        """Return the URL of the page behind `answer`, whether or not it may be asked for."""
        pagination = self._asker.settings.pagination
        link: object = None
        match pagination:
            case LinkHeaderPagination():
                link = answer.next_link
            case CursorPagination(next=pointer) | NextUrlPagination(next=pointer):
                if answer.is_lines:
                    raise BadLinkError("JSON Lines name no next page; use link_header or page")
                if not answer.is_empty:
                    link = value_at(answer.body, parse_pointer(pointer))
        if link is None or link == "":
            return None
        if isinstance(pagination, CursorPagination):
            if isinstance(link, bool) or not isinstance(link, str | int | float):
                raise BadLinkError(f"what {pagination.next} names is no cursor but {_kind(link)}")
            return self._first.update_query({pagination.param: str(link)})
        if not isinstance(link, str):
            raise BadLinkError(f"what should be the next URL is {_kind(link)}")
        return self._asker.borders.resolve(answer.url, link)

    def _check(self, url: URL, number: int) -> None:
        """Raise HttpError if `url` is not to be asked for as page `number`."""
        limit = self._asker.settings.max_pages
        if url in self._seen:
            what = "the pages go in a circle: this one has been there before"
            raise self._failure(url, "repeated_next", what)
        if number > limit:
            raise self._failure(url, "max_pages", f"over {limit:,} pages, the limit (max_pages)")
        try:
            self._asker.borders.check(url, self._home)
        except RefusedLinkError as error:
            raise self._asker.failed(url, error) from None
        self._seen[url] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _failure(self, url: URL, reason: Reason, text: str) -> HttpError:
        return self._asker.failure(url, reason, text)


def _cut(page: Page, stretch: Stretch, *, mark: PageMark | None, is_last: bool) -> Page:
    return replace(
        page,
        body=stretch.text,
        line=stretch.line,
        byte=stretch.byte,
        mark=mark,
        is_last=is_last,
    )


def _kind(value: object) -> str:
    names = {bool: "true or false", dict: "an object", list: "an array"}
    return names.get(type(value), "a number")
