"""The HTTP client: requests with rate limits, retries, redirects and proxies."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

import asyncbatch
from asyncbatch.core.retry import Retrier, Retries
from asyncbatch.core.units import parse_rate
from asyncbatch.formats.compression import accepted_encodings
from asyncbatch.formats.validator import make_validator
from asyncbatch.sources.http.access import ServerAccess
from asyncbatch.sources.http.base import EXCERPT_CHARACTERS, HttpError, HttpFailure
from asyncbatch.sources.http.conditions import Conditions
from asyncbatch.sources.http.failures import (
    REQUEST_ERRORS,
    RedirectLoopError,
    StatusError,
    explain_error,
)
from asyncbatch.sources.http.rate_limiter import RateLimiter
from asyncbatch.sources.http.resolver import StableResolver
from asyncbatch.sources.http.response import (
    HttpResponse,
    LineStream,
    check_status,
    is_lines,
    next_link,
    read_response,
)
from asyncbatch.sources.http.security import OriginPolicy, Redactor
from asyncbatch.sources.http.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import ClientResponse, ClientSession

    from asyncbatch.sources.http.base import Reason
    from asyncbatch.sources.http.settings import HttpSettings

    Clock = Callable[[], float]
    Sleep = Callable[[float], Awaitable[None]]

_MAX_HEADER_BYTES = 64 * 1024  # Link headers may be longer than aiohttp's default of 8190 bytes


def open_session() -> aiohttp.ClientSession:
    """Return a new session. The caller closes it.

    It verifies certificates, keeps no cookies and ignores the environment (also .netrc). It does
    not decompress, because `formats.compression` also detects truncation. It sets no limit of
    connections or time, because `HttpClient` does.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, resolver=StableResolver()),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
        headers={
            "Accept": "application/json, application/x-ndjson;q=0.9, */*;q=0.1",
            "Accept-Encoding": ", ".join(accepted_encodings()),
            "User-Agent": f"asyncbatch/{asyncbatch.__version__}",
        },
    )


_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10
_QUOTED_BYTES = 4096  # of a body, redacted before `EXCERPT_CHARACTERS` of it are quoted


class HttpClient:
    """Makes the requests of one source. The caller owns `session`."""

    def __init__(
        self, settings: HttpSettings, session: ClientSession, clock: Clock, sleep: Sleep
    ) -> None:
        self.settings = settings
        self.policy = OriginPolicy(settings)
        self.redactor = Redactor(settings)
        self.retrier = Retrier(Retries(settings.retries, settings.retry_delay))
        self.request_count = 0  # the requests made, including redirects and retries
        self.notes: list[str] = []  # warnings for the user, without secrets
        self.expected_pages: dict[str, int] = {}  # by URL, as the server told it
        self.conditions = Conditions()
        self._access = ServerAccess(settings, session, self.redactor, clock)
        self._sleep = sleep
        self._validator = make_validator()
        rate = parse_rate(settings.rate_limit) if settings.rate_limit is not None else None
        self._rate_limiters: defaultdict[str, RateLimiter] = defaultdict(
            lambda: RateLimiter(rate, settings.concurrency, clock, sleep)
        )

    async def request(self, url: URL, home_origin: URL, *, may_stream: bool) -> HttpResponse:
        """Return the response of `url`, after redirects and retries. Raises HttpError.

        `home_origin` is the origin of the settings' URL. With `may_stream`, JSON Lines are not read
        yet: the caller reads and closes the stream of the response.
        """
        attempts = 0

        async def attempt() -> HttpResponse:
            nonlocal attempts
            attempts += 1
            try:
                return await self._follow_redirects(
                    url, home_origin, attempts, may_stream=may_stream
                )
            except REQUEST_ERRORS as error:  # its message may contain secrets
                raise self.to_http_error(url, error, attempts) from None

        return await self.retrier.call_async(
            attempt, self._is_transient, min_delay=_requested_wait, sleep=self._sleep
        )

    def first_url(self, url: str) -> URL:
        """Return a URL of the settings as it is requested."""
        return self.policy.without_credentials(parse_url(url))

    def redact_url(self, url: str, *, keep_escapes: bool = False) -> str:
        """Return a URL of the settings without secrets, with usual escapes or with its own."""
        return self.redactor.redact_url(parse_url(url) if keep_escapes else URL(url))

    def to_http_error(self, url: URL, error: Exception, attempts: int = 1) -> HttpError:
        """Return the HttpError about `url` for one of `REQUEST_ERRORS`."""
        limits = self.settings
        reason, text = explain_error(error, timeout=limits.timeout, max_body=limits.max_body)
        quoted = getattr(error, "body", b"")[:_QUOTED_BYTES].decode("utf-8", "replace")
        return HttpError(
            HttpFailure(
                self.redactor.redact_url(url),
                reason,
                self.redactor.redact(text),
                (error.status or None) if isinstance(error, StatusError) else None,
                attempts,
                self.redactor.redact(quoted)[:EXCERPT_CHARACTERS],
                error.wait.seconds if isinstance(error, StatusError) else None,
                is_rate_limited=isinstance(error, StatusError) and error.wait.is_rate_limited,
            )
        )

    def make_error(self, url: URL, reason: Reason, text: str) -> HttpError:
        """Return the HttpError about `url` with this reason and text."""
        return HttpError(
            HttpFailure(self.redactor.redact_url(url), reason, self.redactor.redact(text))
        )

    def make_repeat_error(self, url: URL, number: int, earlier: int) -> HttpError:
        """Return the HttpError about page `number`, which has the records of an earlier page."""
        text = (
            f"page {number:,} has the same records as page {earlier:,}: does the server know the "
            'parameter of the pages? pagination.on_repeat = "end" takes this for the end, and '
            '"load" loads it'
        )
        return self.make_error(url, "repeated_page", text)

    async def _follow_redirects(
        self, url: URL, home_origin: URL, attempts: int, *, may_stream: bool
    ) -> HttpResponse:
        """Return the response of `url` after redirects. Raises `REQUEST_ERRORS`."""
        first, seen = url, {url}
        while True:
            await self._access.prepare()
            async with (
                self._rate_limiters[url.authority].acquire(),
                asyncio.timeout(self.settings.timeout) as limit,
            ):
                response = await self._send(url, home_origin, self.conditions.headers(first))
                try:
                    target = response.headers.get("Location")
                    if target is None or response.status not in _REDIRECTS:
                        if self.conditions.is_unchanged(first, response):
                            response.release()
                            return HttpResponse(url, "", b"", False, None, attempts)
                        await self._check_status(response, url)
                        self.conditions.note(first, response)
                        if may_stream and is_lines(response, self.settings.format):
                            limit.reschedule(None)  # each read has its own timeout
                            return await self._open_stream(response, url, attempts)
                        return await read_response(
                            response, url, attempts, self.settings, self._validator
                        )
                    response.release()
                except BaseException:
                    response.close()
                    raise
            url = self.policy.resolve(url, target)
            self.policy.check(url, home_origin)
            if url in seen:
                raise RedirectLoopError(
                    f"redirected in a circle, to {self.redactor.redact_url(url)} again"
                )
            if len(seen) > _MAX_REDIRECTS:
                raise RedirectLoopError(f"redirected more than {_MAX_REDIRECTS} times")
            seen.add(url)

    async def _send(
        self, url: URL, home_origin: URL, conditions: Mapping[str, str]
    ) -> ClientResponse:
        target, headers = self.policy.allowed_request(url, home_origin)
        headers = {**headers, **conditions}
        is_home = target.origin() == home_origin
        self.request_count += 1
        response = await self._access.send("GET", target, headers, is_home=is_home)
        if self._access.may_repeat(response, is_home=is_home):
            response.close()
            self.request_count += 1
            response = await self._access.send("GET", target, headers, is_home=is_home)
        return response

    async def close(self) -> None:
        """End requests for credentials that are under way."""
        await self._access.close()

    async def _open_stream(self, response: ClientResponse, url: URL, attempts: int) -> HttpResponse:
        """Return a JSON Lines response with its first part read."""
        stream = LineStream(response, self.settings.max_body, self.settings.timeout)
        await stream.read_first_part()
        link = next_link(response)
        return HttpResponse(url, response.content_type, b"", True, link, attempts, stream)

    async def _check_status(self, response: ClientResponse, url: URL) -> None:
        """Raise StatusError for an error status; pause the host as long as it asks for."""
        try:
            await check_status(response, time.time())
        except StatusError as error:
            wait = error.wait.seconds
            if wait is not None and wait <= self.settings.longest_wait:
                self._rate_limiters[url.authority].pause(wait)
            raise

    def _is_transient(self, error: BaseException) -> bool:
        if not isinstance(error, HttpError) or not error.failure.is_transient:
            return False
        return _requested_wait(error) <= self.settings.longest_wait


def _requested_wait(error: BaseException) -> float:
    """Return the seconds for which a response asked to wait, 0 if it did not."""
    return (error.failure.retry_after or 0.0) if isinstance(error, HttpError) else 0.0
