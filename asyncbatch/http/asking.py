"""One request, until it is answered: in its turn, along redirects, and again if need be."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from yarl import URL

from asyncbatch.codec.judge import make_judge
from asyncbatch.http.answering import Answer, check_status, next_link, read_answer
from asyncbatch.http.body import LineStream, is_lines
from asyncbatch.http.borders import Borders
from asyncbatch.http.failure import EXCERPT, HttpError, HttpFailure
from asyncbatch.http.pace import Pace, parse_rate
from asyncbatch.http.proxies import Proxies
from asyncbatch.http.redaction import Redactor
from asyncbatch.http.troubles import TROUBLES, RedirectLoopError, StatusError, explain
from asyncbatch.retrying import Retrier, Retries

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

    from asyncbatch.http.failure import Reason
    from asyncbatch.http.pace import Clock, Sleep
    from asyncbatch.http.settings import HttpSettings

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10
_QUOTED = 4096  # bytes, which are more than the characters quoted, whatever is hidden in them


class Asker:
    """Makes the requests of one source, over the connections of `session`."""

    def __init__(
        self, settings: HttpSettings, session: ClientSession, clock: Clock, sleep: Sleep
    ) -> None:
        self.settings = settings
        self.borders = Borders(settings)
        self.redactor = Redactor(settings)
        self.retrier = Retrier(Retries(settings.retries, settings.retry_delay))
        self.requests = 0
        """How many were made."""
        self._session, self._sleep = session, sleep
        self._judge, self._proxies = make_judge(), Proxies()
        rate = parse_rate(settings.rate_limit) if settings.rate_limit is not None else None
        self._paces: defaultdict[str, Pace] = defaultdict(
            lambda: Pace(rate, settings.concurrency, clock, sleep)
        )

    async def ask(self, url: URL, home: URL, *, may_stream: bool) -> Answer:
        """Return the answer of `url`, to which a URL of the settings led, one of origin `home`.

        The body is whole, or still to be read if it is JSON Lines and `may_stream`.
        Raises HttpError.
        """
        attempts = 0

        async def attempt() -> Answer:
            nonlocal attempts
            attempts += 1
            try:
                return await self._follow(url, home, attempts, may_stream=may_stream)
            except TROUBLES as error:  # whose own words may hold secrets
                raise self.failed(url, error, attempts) from None

        return await self.retrier.call_async(
            attempt, self._is_transient, least=_asked_wait, sleep=self._sleep
        )

    def shown(self, url: str) -> str:
        """Return a URL of the settings as people may see it."""
        return self.redactor.url(URL(url))

    def failed(self, url: URL, error: Exception, attempts: int = 1) -> HttpError:
        """Return what is raised of one of `TROUBLES` with `url`."""
        limits = self.settings
        reason, text = explain(error, timeout=limits.timeout, max_body=limits.max_body)
        quoted = getattr(error, "body", b"")[:_QUOTED].decode("utf-8", "replace")
        return HttpError(
            HttpFailure(
                self.redactor.url(url),
                reason,
                self.redactor.hide(text),
                error.status if isinstance(error, StatusError) else None,
                attempts,
                self.redactor.hide(quoted)[:EXCERPT],
                error.retry_after if isinstance(error, StatusError) else None,
            )
        )

    def failure(self, url: URL, reason: Reason, text: str) -> HttpError:
        """Return what is raised for `reason`, in our own words."""
        return HttpError(HttpFailure(self.redactor.url(url), reason, self.redactor.hide(text)))

    async def _follow(self, url: URL, home: URL, attempts: int, *, may_stream: bool) -> Answer:
        """Return the answer to which `url` leads in the end. Raises `TROUBLES`."""
        seen = {url}
        while True:
            async with (
                self._paces[url.authority].turn(),
                asyncio.timeout(self.settings.timeout) as limit,
            ):
                response = await self._request(url, home)
                try:
                    target = response.headers.get("Location")
                    if target is None or response.status not in _REDIRECTS:
                        await self._check(response, url)
                        if may_stream and is_lines(response, self.settings.format):
                            limit.reschedule(None)  # each read has its own
                            return await self._begin(response, url, attempts)
                        return await read_answer(
                            response, url, attempts, self.settings, self._judge
                        )
                    response.release()
                except BaseException:
                    response.close()
                    raise
            url = self.borders.resolve(url, target)
            self.borders.check(url, home)
            if url in seen:
                raise RedirectLoopError(
                    f"redirected in a circle, to {self.redactor.url(url)} again"
                )
            if len(seen) > _MAX_REDIRECTS:
                raise RedirectLoopError(f"redirected more than {_MAX_REDIRECTS} times")
            seen.add(url)

    async def _request(self, url: URL, home: URL) -> ClientResponse:
        target, headers = self.borders.request(url, home)
        proxy = self._proxies.proxy_for(target)
        self.requests += 1
        return await self._session.get(target, headers=headers, proxy=proxy, allow_redirects=False)

    async def _begin(self, response: ClientResponse, url: URL, attempts: int) -> Answer:
        """Return an answer in JSON Lines of which the first stretch is read."""
        stream = LineStream(response, self.settings.max_body, self.settings.timeout)
        await stream.begin()
        link = next_link(response)
        return Answer(url, response.content_type, b"", True, link, attempts, stream)

    async def _check(self, response: ClientResponse, url: URL) -> None:
        """Raise StatusError for a response that is no answer; see to what it asks for."""
        try:
            await check_status(response, time.time())
        except StatusError as error:
            if error.retry_after is not None and error.retry_after <= self.settings.longest_wait:
                self._paces[url.authority].rest(error.retry_after)
            raise

    def _is_transient(self, error: BaseException) -> bool:
        if not isinstance(error, HttpError) or not error.failure.is_transient:
            return False
        return _asked_wait(error) <= self.settings.longest_wait


def _asked_wait(error: BaseException) -> float:
    """Return the seconds for which a server asked."""
    return (error.failure.retry_after or 0.0) if isinstance(error, HttpError) else 0.0
