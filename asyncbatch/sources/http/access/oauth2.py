"""Access tokens of OAuth2: client credentials and refresh tokens (RFC 6749)."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import msgspec

from asyncbatch.sources.http.access.token_file import TokenFile, TokenFileError
from asyncbatch.sources.http.failures import TokenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from asyncbatch.sources.http.access.credentials import OAuth2Auth
    from asyncbatch.sources.http.access.token_file import HeldToken
    from asyncbatch.sources.http.base import Reason
    from asyncbatch.sources.http.waits import Wait

    # Sends a form with headers to the token endpoint. Returns status, body, and the wait asked for.
    Post = Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[tuple[int, bytes, Wait]]]

_LONGEST_EARLY = 60.0  # seconds before its end at which a token is renewed
_EARLY_SHARE = 0.1  # of the life of a token, if that is less
_TRANSIENT_STATUSES = {408, 425, 429}
_ADVICE = {
    "invalid_client": "check client_id, client_secret and client_auth",
    "unauthorized_client": "this client may not have this kind of grant",
    "invalid_grant": "the refresh token has expired, or was used: get a new one",
    "invalid_scope": "check scope",
}


class TokenSource:
    """The access token of a source. Its requests share it, and one fetch of it.

    Once the server has refused the client, it is not asked again. `post` sends requests to the
    token endpoint, whose `shown_url` is in messages, and raises TokenError. `keep_secret` is called
    with each token, also with refresh tokens. `clock` returns seconds. `excerpt` returns the first
    characters of a text of the server, without secrets. Call `close` at the end.
    """

    def __init__(
        self,
        auth: OAuth2Auth,
        shown_url: str,
        post: Post,
        keep_secret: Callable[[str], None],
        clock: Callable[[], float],
        *,
        excerpt: Callable[[str], str],
    ) -> None:
        self._auth, self._shown_url, self._post = auth, shown_url, post
        self._keepers, self._clock, self._excerpt = [keep_secret], clock, excerpt
        refresh = auth.refresh_token
        self._refresh_token = None if refresh is None else refresh.reveal()
        path = auth.refresh_token_file
        self._file = None if path is None else TokenFile(path)
        self._told: set[str] = set()  # the tokens so far
        self._is_spending = False  # whether a token of the file is used up by a request
        self._token: str | None = None
        self._renew_at: float | None = None  # by the clock; None: the server tells no end
        self._fetch: asyncio.Task[str] | None = None
        self._refusal: TokenError | None = None

    async def token(self) -> str:
        """Return a token that is valid for some time. Raises TokenError."""
        if self._refusal is not None:
            raise self._refusal
        is_old = self._renew_at is not None and self._clock() >= self._renew_at
        if self._token is not None and not is_old:
            return self._token
        if self._fetch is None:
            self._fetch = asyncio.create_task(self._fetch_token())
            self._fetch.add_done_callback(self._end_fetch)
        # A request that gives up does not end the fetch for others.
        return await asyncio.shield(self._fetch)

    def also_tell(self, keep_secret: Callable[[str], None]) -> None:
        """Call `keep_secret`, too, with each token."""
        self._keepers.append(keep_secret)
        for secret in self._told:
            keep_secret(secret)

    def _keep_secret(self, secret: str) -> None:
        self._told.add(secret)
        for keep_secret in self._keepers:
            keep_secret(secret)

    def discard(self, token: str) -> None:
        """Use a token no more, because a server has refused it."""
        if token == self._token:
            self._token = None

    async def close(self) -> None:
        """End a fetch for which no request waits.

        If it uses up the token of a file, it has to end by itself: the answer has the next one.
        """
        if self._fetch is not None:
            if not self._is_spending:
                self._fetch.cancel()
            await asyncio.wait([self._fetch])

    def _end_fetch(self, task: asyncio.Task[str]) -> None:
        self._fetch = None
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, TokenError) and error.reason == "token":
            self._refusal = error

    async def _fetch_token(self) -> str:
        if self._file is None:
            return await self._exchange(self._refresh_token)
        try:
            async with self._file.hold() as held:
                self._keep_secret(held.token)
                await held.prepare()
                self._is_spending = True
                return await self._exchange(held.token, held)
        except TokenFileError as error:
            reason: Reason = "timeout" if error.is_held else "token"
            raise TokenError(f"refresh_token_file: {error}", reason=reason) from None
        finally:
            self._is_spending = False

    async def _exchange(self, refresh_token: str | None, held: HeldToken | None = None) -> str:
        """Return an access token for a refresh token, or for the client without one.

        The next refresh token is kept before: in the file of `held`, or for this run. Raises
        TokenError and TokenFileError.
        """
        begin = self._clock()
        status, body, wait = await self._post(*self._request(refresh_token))
        answer = _json_object(body)
        token, kind = answer.get("access_token"), answer.get("token_type")
        rotated = answer.get("refresh_token")
        for secret in (token, rotated):  # before any other text of the answer is shown
            if isinstance(secret, str) and secret:
                self._keep_secret(secret)
        if status != 200:
            raise self._refused(status, answer, wait, f"HTTP {status}")
        # Also if the answer is of no use: the server may take the old one no more.
        if refresh_token is not None and isinstance(rotated, str) and rotated:
            if held is None:
                self._refresh_token = rotated
            elif rotated != refresh_token:
                await held.replace(rotated)
        if not isinstance(token, str) or not token or not token.isprintable():
            raise self._refused(status, answer, wait, "the answer has no access_token")
        if isinstance(kind, str) and kind.lower() != "bearer":
            text = f"the token is of the type {self._excerpt(kind)}, not Bearer"
            raise TokenError(f"{self._shown_url}: {text}")
        life = _seconds(answer.get("expires_in"))
        if life is not None:
            # The server counts from its answer, which lies behind the begin of the request.
            self._renew_at = begin + life - min(_LONGEST_EARLY, life * _EARLY_SHARE)
        else:
            self._renew_at = None
        self._token = token
        return token

    def _request(self, refresh_token: str | None) -> tuple[dict[str, str], dict[str, str]]:
        """Return the form and the headers of a request for a token."""
        auth = self._auth
        form = {"grant_type": "client_credentials"}
        if refresh_token is not None:
            form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        for name in ("scope", "audience"):
            if (value := getattr(auth, name)) is not None:
                form[name] = value
        form |= {name: value.reveal() for name, value in auth.params.items()}
        headers = {"Accept": "application/json"}
        if auth.client_secret is not None and auth.client_auth == "basic":
            headers["Authorization"] = f"Basic {client_credentials(auth)}"
        else:
            form["client_id"] = auth.client_id
            if auth.client_secret is not None:
                form["client_secret"] = auth.client_secret.reveal()
        return form, headers

    def _refused(
        self, status: int, answer: Mapping[str, Any], wait: Wait, reason: str
    ) -> TokenError:
        """Return the error of an answer without a token."""
        code, description = answer.get("error"), answer.get("error_description")
        text = f"{self._shown_url}: {reason}"
        if isinstance(code, str) and code:
            text += f", {self._excerpt(code)}"
        if isinstance(description, str) and description:
            text += f": {self._excerpt(description)}"
        if isinstance(code, str) and code in _ADVICE:
            text += f" ({self._advice(code)})"
        if status >= 500 or status in _TRANSIENT_STATUSES:
            return TokenError(text, reason="status", status=status, wait=wait)
        return TokenError(text)

    def _advice(self, code: str) -> str:
        if code == "invalid_grant" and self._file is not None:
            return f"{_ADVICE[code]}, and write it into {self._file.shown}"
        if code == "invalid_grant" and self._refresh_token is None:
            return "the server does not accept the client's credentials: check them and params"
        return _ADVICE[code]


def client_credentials(auth: OAuth2Auth) -> str:
    """Return the client and its secret as HTTP Basic sends them (RFC 6749, section 2.3.1)."""
    secret = "" if auth.client_secret is None else auth.client_secret.reveal()
    return b64encode(f"{quote_plus(auth.client_id)}:{quote_plus(secret)}".encode()).decode()


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(value: object) -> float | None:
    """Return a life in seconds, also of a text, None for another value."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 16:
        value = int(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value > 0 else None  # type: ignore[arg-type, operator]  # a number
