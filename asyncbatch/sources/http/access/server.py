"""The way to servers: proxies, TLS, and the access tokens of OAuth2."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from yarl import URL

from asyncbatch.core.system import proxy_for
from asyncbatch.sources.http.access.credentials import OAuth2Auth
from asyncbatch.sources.http.access.oauth2 import TokenSource
from asyncbatch.sources.http.access.security import proxy_secrets
from asyncbatch.sources.http.access.tls import make_context
from asyncbatch.sources.http.failures import (
    REQUEST_ERRORS,
    ProxyError,
    TokenError,
    explain_error,
)
from asyncbatch.sources.http.response import whole_body
from asyncbatch.sources.http.setting_checks import NO_PROXY, check_proxy
from asyncbatch.sources.http.waits import Wait, requested_wait

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from typing import Any

    from aiohttp import ClientResponse, ClientSession

    from asyncbatch.sources.http.access.security import Redactor
    from asyncbatch.sources.http.settings import HttpSettings

_MAX_TOKEN_BYTES = 1024 * 1024  # of the answer of a token endpoint
_UNAUTHORIZED = 401
_BEARER = "Bearer "


class ServerAccess:
    """Sends the requests of one source: through its proxy, with its certificates and its token.

    The caller owns `session`, and calls `close` at the end.
    """

    def __init__(
        self,
        settings: HttpSettings,
        session: ClientSession,
        redactor: Redactor,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._session, self._redactor = settings, session, redactor
        self._home_tls: ssl.SSLContext | bool = True
        self._other_tls: ssl.SSLContext | bool = True
        if settings.tls is not None:
            self._home_tls = make_context(settings.tls, has_certificate=True)
            self._other_tls = make_context(settings.tls, has_certificate=False)
        self._tokens: TokenSource | None = None
        if isinstance(settings.auth, OAuth2Auth):
            self._token_url = URL(settings.auth.token_url)
            self._shown_url = redactor.redact_url(self._token_url)
            self._tokens = TokenSource(
                settings.auth, self._shown_url, self._post, redactor.add, clock,
                excerpt=redactor.excerpt,
            )  # fmt: skip

    def share_tokens(self, other: ServerAccess) -> None:
        """Use the tokens of `other`, which has the same credentials."""
        self._tokens = other._tokens
        if self._tokens is not None:
            self._tokens.also_tell(self._redactor.add)

    async def prepare(self) -> None:
        """Fetch a token if one is needed, outside of the limits of a request. Raises TokenError."""
        if self._tokens is not None:
            await self._tokens.token()

    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], *, is_home: bool, **more: Any
    ) -> ClientResponse:
        """Send a request. Only one to the origin of the settings has a certificate and a token.

        Raises `REQUEST_ERRORS`.
        """
        if is_home and self._tokens is not None:
            headers = {**headers, "Authorization": _BEARER + await self._tokens.token()}
        return await self._session.request(
            method,
            url,
            headers=headers,
            proxy=self._proxy(url),
            ssl=self._home_tls if is_home else self._other_tls,
            allow_redirects=False,
            **more,
        )

    def may_repeat(self, response: ClientResponse, *, is_home: bool) -> bool:
        """Whether a response refuses the token, so that a request with another one may succeed."""
        if response.status != _UNAUTHORIZED or not is_home or self._tokens is None:
            return False
        sent = response.request_info.headers.get("Authorization", "")
        self._tokens.discard(sent.removeprefix(_BEARER))
        return True

    async def close(self) -> None:
        """End a request for a token that is under way."""
        if self._tokens is not None:
            await self._tokens.close()

    def _proxy(self, url: URL) -> str | None:
        """Return the URL of the proxy for `url`. Raises ProxyError for an invalid one."""
        proxy = self._settings.proxy
        if proxy is not None:
            return None if proxy.reveal() == NO_PROXY else proxy.reveal()
        found = proxy_for(url.scheme, url.authority)
        if found is None:
            return None
        try:
            check_proxy(found)
        except ValueError as error:
            message = f"the proxy that the environment names for {url.scheme}: URLs {error}"
            raise ProxyError(message) from None
        self._redactor.add(*proxy_secrets(found))
        return found

    async def _post(
        self, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, bytes, Wait]:
        """Send a form to the token endpoint. Raises TokenError."""
        limit = self._settings.timeout
        try:
            async with asyncio.timeout(limit):
                response = await self._session.post(
                    self._token_url,
                    data=form,
                    headers=headers,
                    proxy=self._proxy(self._token_url),
                    ssl=self._home_tls,
                    allow_redirects=False,
                )
                async with response:
                    body = await whole_body(response, _MAX_TOKEN_BYTES)
        except REQUEST_ERRORS as error:
            reason, text = explain_error(error, timeout=limit, max_body=_MAX_TOKEN_BYTES)
            raise TokenError(f"{self._shown_url}: {text}", reason=reason) from None
        wait = requested_wait(response.status, response.headers, time.time())
        return response.status, body, wait
