"""Pages by number or offset: several at a time, given in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from asyncbatch.codec.pointer import parse_pointer
from asyncbatch.http.counting import NoRecordsError, count_lines, count_records, value_at
from asyncbatch.http.failure import HttpError
from asyncbatch.http.page import Page
from asyncbatch.http.settings import OffsetPagination, PagePagination

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from yarl import URL

    from asyncbatch.http.answering import Answer
    from asyncbatch.http.asking import Asker

_NOT_FOUND = 404


class _Got(NamedTuple):
    """An answer and how many records it holds; no answer behind the last page."""

    url: URL
    answer: Answer | None
    records: int


class Numbered:
    """The pages of `first`, a URL of the settings.

    Pages are asked for ahead, on the guess that each is full. A page is taken when all before
    it are known: then its position was no guess. At first few are, so that a URL of one page
    is not asked for many, and twice as many each round, up to `concurrency`; as many at once
    if an answer has told where the end is. Unless it `asks_ahead`, one by one.
    """

    def __init__(
        self,
        asker: Asker,
        first: URL,
        pagination: PagePagination | OffsetPagination,
        *,
        asks_ahead: bool = True,
    ) -> None:
        self._asker, self._first, self._pagination = asker, first, pagination
        self._asks_ahead = asks_ahead
        self._records = parse_pointer(asker.settings.records)
        self._is_offset = isinstance(pagination, OffsetPagination)
        self._step = pagination.limit if isinstance(pagination, OffsetPagination) else 1
        self._at = pagination.start
        """The position of the page that is asked for next."""
        self._ahead = 1
        """How many pages may be asked for ahead of the one that is given."""
        self._end: int | None = None
        """The position behind the last, if an answer has told it."""
        self._seen = self._largest = 0
        """Records so far, and of the page that holds most."""
        self._waiting: deque[tuple[int, asyncio.Task[_Got]]] = deque()

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the pages. Raises HttpError."""
        limit = self._asker.settings.max_pages
        number = 0
        try:
            while True:
                self._ask_ahead(limit - number)
                at, task = self._waiting.popleft()
                url, answer, count = await task
                if answer is None or not count:
                    return
                if number == limit:
                    text = f"over {limit:,} pages, the limit (max_pages)"
                    raise self._asker.failure(url, "max_pages", text)
                number += 1
                is_last = self._learn(at, answer, count)
                if not is_last:
                    await self._adapt(at, count)
                    if self._asks_ahead:
                        self._ask_ahead(limit - number)
                yield Page(
                    self._asker.redactor.url(url),
                    number,
                    answer.body,
                    answer.content_type,
                    "jsonl" if answer.is_lines else "json",
                    is_last=is_last,
                )
                if is_last:
                    return
        finally:
            await self._drop()

    def _ask_ahead(self, remaining: int) -> None:
        """Ask for pages, of which `remaining` may come; one more shows that it is too many."""
        while len(self._waiting) < min(self._ahead, remaining + 1):
            if self._waiting and self._end is not None and self._at >= self._end:
                return
            task = asyncio.create_task(self._get(self._at))
            self._waiting.append((self._at, task))
            self._at += self._step

    def _learn(self, at: int, answer: Answer, count: int) -> bool:
        """Take what the answer at `at` tells of the end; return whether it is the last."""
        self._seen += count
        self._largest = max(self._largest, count)
        if self._is_offset:
            total = self._told(answer, "total")
            if total is not None:
                self._end = total
            return total is not None and at + count >= total
        total, pages = self._told(answer, "total"), self._told(answer, "pages")
        if total is not None:
            self._end = self._pagination.start - (-total // self._largest)
        if pages is not None:
            self._end = self._pagination.start + pages
        is_all = total is not None and self._seen >= total
        return is_all or (pages is not None and at + 1 >= self._pagination.start + pages)

    def _told(self, answer: Answer, name: str) -> int | None:
        """Return the number that `answer` has where the settings say that `name` is."""
        pointer: str | None = getattr(self._pagination, name)
        if pointer is None or answer.is_lines:
            return None
        value = value_at(answer.body, parse_pointer(pointer))
        return value if type(value) is int and value > 0 else None

    async def _adapt(self, at: int, count: int) -> None:
        """Guess what follows the page at `at`, which holds `count` records."""
        if self._is_offset and count != self._step:
            # The last, or the server gives fewer than it was asked for: what was guessed is wrong.
            await self._drop()
            self._at, self._step, self._ahead = at + count, count, 1
        elif count < self._largest:
            self._ahead = 1  # probably the last
        else:
            most = self._asker.settings.concurrency if self._asks_ahead else 1
            self._ahead = min(self._ahead + 1, most) if self._end is None else most

    async def _drop(self) -> None:
        """Cancel what was asked for ahead, and wait until that is done."""
        tasks = [task for _, task in self._waiting]
        self._waiting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _get(self, at: int) -> _Got:
        """Return the page at `at`. Raises HttpError."""
        url = self._first.update_query(self._parameters(at))
        try:
            answer = await self._asker.ask(url, self._first.origin(), may_stream=False)
        except HttpError as error:
            if at == self._pagination.start or error.failure.status is None:
                raise
            if error.failure.status == self._pagination.end_status:
                return _Got(url, None, 0)
            if error.failure.status == _NOT_FOUND:
                hint = "; if that is this server's end, say so: pagination.end_status = 404"
                raise HttpError(replace(error.failure, text=error.failure.text + hint)) from error
            raise
        try:
            return _Got(url, answer, self._count(answer))
        except NoRecordsError as error:
            raise self._asker.failed(url, error, answer.attempts) from None

    def _count(self, answer: Answer) -> int:
        if answer.is_lines:
            return count_lines(answer.body)
        return 0 if answer.is_empty else count_records(answer.body, self._records)

    def _parameters(self, at: int) -> dict[str, str]:
        match self._pagination:
            case OffsetPagination(param=param, limit_param=limit_param, limit=limit):
                return {param: str(at), limit_param: str(limit)}
            case PagePagination(param=param, size_param=str(size_param), size=size):
                return {param: str(at), size_param: str(size)}
            case PagePagination(param=param):
                return {param: str(at)}
