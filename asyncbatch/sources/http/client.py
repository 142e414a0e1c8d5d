"""The HTTP client: requests with rate limits, retries, redirects and proxies."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from msgspec.structs import replace
from yarl import URL

import asyncbatch
from asyncbatch.core.retry import Retrier, Retries
from asyncbatch.core.units import parse_rate
from asyncbatch.formats.compression import accepted_encodings
from asyncbatch.formats.validator import make_validator
from asyncbatch.sources.http.access.resolver import StableResolver
from asyncbatch.sources.http.access.security import OriginPolicy, Redactor
from asyncbatch.sources.http.access.server import ServerAccess
from asyncbatch.sources.http.base import EXCERPT_CHARACTERS, HttpError, HttpFailure
from asyncbatch.sources.http.failures import (
    REQUEST_ERRORS,
    GraphqlError,
    RedirectLoopError,
    RefusedLinkError,
    StatusError,
    explain_error,
)
from asyncbatch.sources.http.graphql import check_errors, is_graphql
from asyncbatch.sources.http.rate_limiter import RateLimiter
from asyncbatch.sources.http.requests.conditions import Conditions
from asyncbatch.sources.http.requests.templates import without_escapes
from asyncbatch.sources.http.response import (
    QUOTED_BYTES,
    HttpResponse,
    LineStream,
    check_status,
    is_lines,
    next_link,
    read_response,
)
from asyncbatch.sources.http.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import ClientResponse, ClientSession

    from asyncbatch.sources.http.base import Reason, Request
    from asyncbatch.sources.http.settings import HttpSettings
    from asyncbatch.sources.http.waits import Wait

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
_KEEPING_REDIRECTS = {307, 308}  # which repeat the method and the body
_MAX_REDIRECTS = 10


class HttpClient:
    """Makes the requests of one source. The caller owns `session`."""

    def __init__(
        self, settings: HttpSettings, session: ClientSession, clock: Clock, sleep: Sleep
    ) -> None:
        self.settings = settings
        self.redactor: Redactor = Redactor(settings)
        self.policy: OriginPolicy = OriginPolicy(settings, self.redactor)
        self.retrier: Retrier = Retrier(Retries(settings.retries, settings.retry_delay))
        self.request_count: int = 0  # the requests made, including redirects and retries
        self.notes: list[str] = []  # warnings for the user, without secrets
        self.expected_pages: dict[str, int] = {}  # by URL, as the server told it
        self.conditions: Conditions = Conditions()
        self._access = ServerAccess(settings, session, self.redactor, clock)
        self._sleep = sleep
        self._validator = make_validator()
        self._is_graphql = is_graphql(settings)
        rate = parse_rate(settings.rate_limit) if settings.rate_limit is not None else None
        self._rate_limiters: defaultdict[str, RateLimiter] = defaultdict(
            lambda: RateLimiter(rate, settings.concurrency, clock, sleep)
        )

    async def request(
        self, request: Request, home_origin: URL, *, may_stream: bool, may_repeat: bool = True
    ) -> HttpResponse:
        """Return the response of a request, after redirects and retries. Raises HttpError.

        `home_origin` is the origin of the settings' URL. With `may_stream`, JSON Lines are not read
        yet: the caller reads and closes the stream of the response. Without `may_repeat`, a request
        is retried only after an answer with an error status.
        """
        attempts = 0

        async def attempt() -> HttpResponse:
            nonlocal attempts
            attempts += 1
            try:
                return await self._follow_redirects(
                    request, home_origin, attempts, may_stream=may_stream
                )
            except REQUEST_ERRORS as error:  # its message may contain secrets
                raise self.to_http_error(request.url, error, attempts) from None

        def is_transient(error: BaseException) -> bool:
            return self._is_transient(error) and (
                may_repeat or (isinstance(error, HttpError) and error.failure.status is not None)
            )

        return await self.retrier.call_async(
            attempt, is_transient, min_delay=_requested_wait, sleep=self._sleep
        )

    def first_url(self, url: str) -> URL:
        """Return a URL of the settings as it is requested."""
        return self.policy.without_credentials(parse_url(url))

    def share_limits(self, other: HttpClient) -> None:
        """Count the requests of this client and of `other` together, which has equal limits.

        They share their access tokens, too.
        """
        self._rate_limiters = other._rate_limiters
        self._access.share_tokens(other._access)

    def redact_url(self, url: str, *, keep_escapes: bool = False) -> str:
        """Return a URL of the settings without secrets, with usual escapes or with its own."""
        return without_escapes(
            self.redactor.redact_url(parse_url(url) if keep_escapes else URL(url))
        )

    def former_url(self, url: str, *, keep_escapes: bool = False) -> str:
        """Return a URL of the settings as earlier versions have redacted it.

        It may contain secrets.
        """
        parsed = parse_url(url) if keep_escapes else URL(url)
        return without_escapes(self.redactor.former_url(parsed))

    def shows_whole(self, url: str) -> bool:
        """Whether nothing of a URL of the settings is hidden when it is shown."""
        return self.redactor.hides_nothing_in(URL(url))

    def to_http_error(self, url: URL, error: Exception, attempts: int = 1) -> HttpError:
        """Return the HttpError about `url` for one of `REQUEST_ERRORS`."""
        limits = self.settings
        reason, text = explain_error(error, timeout=limits.timeout, max_body=limits.max_body)
        quoted = getattr(error, "body", b"")[:QUOTED_BYTES].decode("utf-8", "replace")
        wait: Wait | None = getattr(error, "wait", None)
        return HttpError(
            HttpFailure(
                self.redactor.redact_url(url),
                reason,
                self.redactor.redact(text),
                (error.status or None) if isinstance(error, StatusError) else None,
                attempts,
                self.redactor.redact(quoted)[:EXCERPT_CHARACTERS],
                wait.seconds if wait is not None else None,
                is_rate_limited=wait is not None and wait.is_rate_limited,
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
        self, request: Request, home_origin: URL, attempts: int, *, may_stream: bool
    ) -> HttpResponse:
        """Return the response of a request after redirects. Raises `REQUEST_ERRORS`."""
        first = url = request.url
        seen = {url}
        while True:
            await self._access.prepare()
            async with (
                self._rate_limiters[url.authority].acquire(),
                asyncio.timeout(self.settings.timeout) as limit,
            ):
                response = await self._send(request, home_origin, self.conditions.headers(first))
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
                        answer = await read_response(
                            response, url, attempts, self.settings, self._validator
                        )
                        if self._is_graphql:
                            self._check_errors(answer, response)
                        return answer
                    response.release()
                except BaseException:
                    response.close()
                    raise
            if request.body is not None and response.status not in _KEEPING_REDIRECTS:
                raise RefusedLinkError(
                    f"HTTP {response.status} redirects without the body of the request, to "
                    f"{self.redactor.redact_url(self.policy.resolve(url, target))}: use that URL"
                )
            url = self.policy.resolve(url, target)
            request = replace(request, url=url)
            self.policy.check_request(request, home_origin)
            if url in seen:
                raise RedirectLoopError(
                    f"redirected in a circle, to {self.redactor.redact_url(url)} again"
                )
            if len(seen) > _MAX_REDIRECTS:
                raise RedirectLoopError(f"redirected more than {_MAX_REDIRECTS} times")
            seen.add(url)

    async def _send(
        self, request: Request, home_origin: URL, conditions: Mapping[str, str]
    ) -> ClientResponse:
        target, headers = self.policy.allowed_request(request.url, home_origin)
        if request.body is not None:
            headers = {"Content-Type": "application/json", **headers}
        headers = {**headers, **dict(request.headers), **conditions}
        is_home = target.origin() == home_origin
        send = partial(
            self._access.send, request.method, target, headers, is_home=is_home, data=request.body
        )
        self.request_count += 1
        response = await send()
        if self._access.may_repeat(response, is_home=is_home):
            response.close()
            self.request_count += 1
            response = await send()
        return response

    async def close(self) -> None:
        """End requests for credentials that are under way."""
        await self._access.close()

    async def _open_stream(self, response: ClientResponse, url: URL, attempts: int) -> HttpResponse:
        """Return a JSON Lines response with its first part read."""
        stream = LineStream(response, self.settings.max_body, self.settings.timeout)
        await stream.read_first_part()
        link = next_link(response, self.settings)
        return HttpResponse(url, response.content_type, b"", True, link, attempts, stream)

    async def _check_status(self, response: ClientResponse, url: URL) -> None:
        """Raise StatusError for an error status; pause the host as long as it asks for."""
        try:
            await check_status(response, time.time())
        except StatusError as error:
            self._pause(url, error.wait)
            raise

    def _check_errors(self, answer: HttpResponse, response: ClientResponse) -> None:
        """Raise GraphqlError for errors of GraphQL; pause the host as long as they ask for."""
        try:
            check_errors(answer.body, response.headers, time.time(), self.redactor.excerpt)
        except GraphqlError as error:
            self._pause(answer.url, error.wait)
            raise

    def _pause(self, url: URL, wait: Wait | None) -> None:
        seconds = None if wait is None else wait.seconds
        if seconds is not None and seconds <= self.settings.longest_wait:
            self._rate_limiters[url.authority].pause(seconds)

    def _is_transient(self, error: BaseException) -> bool:
        if not isinstance(error, HttpError) or not error.failure.is_transient:
            return False
        return _requested_wait(error) <= self.settings.longest_wait


def _requested_wait(error: BaseException) -> float:
    """Return the seconds for which a response asked to wait, 0 if it did not."""
    return (error.failure.retry_after or 0.0) if isinstance(error, HttpError) else 0.0
