"""The origin policy of requests, and the redaction of secrets."""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote

from yarl import URL

from asyncbatch.core.secrets import REDACTED
from asyncbatch.errors import valid_text
from asyncbatch.sources.http.access.credentials import (
    BasicAuth,
    BearerAuth,
    HeaderAuth,
    OAuth2Auth,
    QueryAuth,
)
from asyncbatch.sources.http.access.oauth2 import client_credentials
from asyncbatch.sources.http.access.secret_names import HARMLESS_HEADERS, is_secret_name
from asyncbatch.sources.http.base import EXCERPT_CHARACTERS
from asyncbatch.sources.http.failures import RefusedLinkError
from asyncbatch.sources.http.urls import parse_url, with_parameters, without_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.sources.http.access.credentials import Auth
    from asyncbatch.sources.http.base import Request
    from asyncbatch.sources.http.settings import HttpSettings

# Characters. A shorter header value is not redacted: it also occurs in ordinary text.
_MIN_SECRET_CHARACTERS = 6
# A shorter text of `hidden` is not redacted, for the same reason. The user says that it is secret.
_MIN_HIDDEN_CHARACTERS = 4
_HEADERS_WITH_PARTS = {"authorization", "proxy-authorization", "cookie"}
# The names that versions up to 0.2.0 took for those of secrets, also `author`.
_FORMER_SECRET_NAME = re.compile(
    r"token|secret|passw|pwd|api[_-]?key|access[_-]?key|^key$|^sig$|signature|^auth|credential",
    re.IGNORECASE,
)
_BETWEEN_CREDENTIALS = re.compile(r"[\s,;]+")  # of a header: `Bearer TOKEN`, `sid=TOKEN; lang=en`


class Redactor:
    """Replaces the secrets of the settings in any text, for instance in a response."""

    def __init__(self, settings: HttpSettings) -> None:
        self._found: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._former_pattern: re.Pattern[str] | None = None
        self.add(*_secret_values(settings))
        self._former_pattern = self._pattern
        self.add(*_hidden_values(settings))
        # Query parameters that are never redacted, although their name may look like a secret's.
        self._public_parameters = {getattr(settings.pagination, "param", None)}

    def add(self, *secrets: str) -> None:
        """Also replace these secrets from now on."""
        new = {form for secret in secrets for form in _encodings_of(secret) if form} - self._found
        if new:
            self._found |= new
            longest_first = sorted(self._found, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def redact(self, text: str) -> str:
        """Return `text` with each secret replaced by `***`, and without invalid characters."""
        return valid_text(self._pattern.sub(REDACTED, text) if self._pattern else text)

    def excerpt(self, text: str) -> str:
        """Return the first characters of a text of a server, without secrets.

        A secret that was cut in two would not be found any more.
        """
        shown = self.redact(text)
        return shown if len(shown) <= EXCERPT_CHARACTERS else f"{shown[:EXCERPT_CHARACTERS]}…"

    def redact_url(self, url: URL) -> str:
        """Return a URL without user name, password, fragment and secret parameters."""
        bare = url.with_user(None).with_fragment(None)
        for name in {*bare.query} - self._public_parameters:
            if is_secret_name(name):
                bare = bare.update_query({name: REDACTED})
        return self.redact(str(bare))

    def former_url(self, url: URL) -> str:
        """Return a URL as earlier versions have redacted it, for the names in their ledgers.

        It may contain secrets.
        """
        bare = url.with_user(None).with_fragment(None)
        for name in {*bare.query} - self._public_parameters:
            if _FORMER_SECRET_NAME.search(name):
                bare = bare.update_query({name: REDACTED})
        text = str(bare)
        return valid_text(
            self._former_pattern.sub(REDACTED, text) if self._former_pattern else text
        )

    def hides_nothing_in(self, url: URL) -> bool:
        """Whether a URL without user and fragment is shown as it is."""
        return self.redact_url(url) == str(url.with_user(None).with_fragment(None))

    def has_no_secret(self, text: str) -> bool:
        """Whether no secret of the settings is in a text."""
        return self._pattern is None or self._pattern.search(text) is None

    def is_secret_pair(self, name: str, value: str) -> bool:
        """Whether the value of a parameter of this name is redacted, or contains a secret."""
        if name not in self._public_parameters and is_secret_name(name):
            return True
        return not self.has_no_secret(value)


def basic_credentials(auth: BasicAuth) -> str:
    """Return user name and password in the encoding of HTTP Basic (RFC 7617)."""
    return b64encode(f"{auth.username}:{auth.password.reveal()}".encode()).decode()


def _secret_values(settings: HttpSettings) -> Iterator[str]:
    yield from _auth_secrets(settings.auth)
    if settings.proxy is not None:
        yield from proxy_secrets(settings.proxy.reveal())
    for name, value in settings.headers.items():
        if name.lower() not in HARMLESS_HEADERS:
            has_parts = name.lower() in _HEADERS_WITH_PARTS or is_secret_name(name)
            texts = _secrets_in_header(value.reveal()) if has_parts else [value.reveal()]
            yield from (text for text in texts if len(text) >= _MIN_SECRET_CHARACTERS)
    yield from _secrets_in(settings.body)
    following = getattr(settings.pagination, "following", None)
    if following is not None:
        yield from _secrets_in(following.body)
    public = getattr(settings.pagination, "param", None)
    for url in map(URL, settings.urls):
        for name, text in url.query.items():
            is_secret = name != public and is_secret_name(name)
            if is_secret and len(text) >= _MIN_SECRET_CHARACTERS:
                yield text


def _auth_secrets(auth: Auth | None) -> Iterator[str]:
    match auth:
        case BearerAuth(token=secret) | BasicAuth(password=secret):
            yield secret.reveal()
        case HeaderAuth(value=secret) | QueryAuth(value=secret):
            yield secret.reveal()
        case OAuth2Auth():
            yield from _oauth2_secrets(auth)
        case None:
            pass
    if isinstance(auth, BasicAuth):
        yield basic_credentials(auth)


def _oauth2_secrets(auth: OAuth2Auth) -> Iterator[str]:
    for secret in (auth.client_secret, auth.refresh_token):
        if secret is not None:
            yield secret.reveal()
    if auth.client_secret is not None:
        yield client_credentials(auth)
    for name, value in auth.params.items():
        if is_secret_name(name) and len(value.reveal()) >= _MIN_SECRET_CHARACTERS:
            yield value.reveal()


def proxy_secrets(proxy: str) -> Iterator[str]:
    """Yield the password in the URL of a proxy, as it is written and as it is sent."""
    try:
        url = URL(proxy)
    except ValueError:
        return
    if url.password:
        yield url.password
        yield b64encode(f"{url.user or ''}:{url.password}".encode()).decode()


def _hidden_values(settings: HttpSettings) -> Iterator[str]:
    for secret in settings.hidden:
        text = secret.reveal()
        if len(text) >= _MIN_HIDDEN_CHARACTERS:
            yield text
            yield unquote(text)  # a secret of a URL may be written with its escapes


def _secrets_in_header(value: str) -> Iterator[str]:
    """Yield the value of a header, and its parts: a server may repeat the token alone.

    The parts are the credentials behind a scheme (`Bearer`, `Basic`), and the values of pairs, as
    cookies and `Digest` have them.
    """
    yield value
    parts = [part for part in _BETWEEN_CREDENTIALS.split(value) if part]
    for part in parts:
        name, equals, text = part.partition("=")
        text = text.strip('"')
        is_pair = bool(equals and name and text and text.strip("="))  # not the end of Base64
        if is_pair:
            yield text
        elif len(parts) > 1 and part != parts[0]:
            yield part
    if len(parts) == 2 and parts[0].lower() == "basic":
        yield from _basic_password(parts[1])


def _basic_password(credentials: str) -> Iterator[str]:
    try:
        text = b64decode(credentials, validate=True).decode()
    except ValueError:
        return
    yield text.partition(":")[2]


def _secrets_in(value: Any, *, is_secret: bool = False) -> Iterator[str]:
    """Yield the texts of a body whose names, or those of tables around them, look like secrets'."""
    if isinstance(value, list):
        for one in value:
            yield from _secrets_in(one, is_secret=is_secret)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _secrets_in(one, is_secret=is_secret or _is_secret_field(name))
    elif isinstance(value, str) and is_secret and len(value) >= _MIN_SECRET_CHARACTERS:
        yield value


def _is_secret_field(name: str) -> bool:
    """Whether the field of a body has a secret, or several: `keys`."""
    return is_secret_name(name) or name.lower() == "keys"


def _encodings_of(secret: str) -> set[str]:
    """Return the forms in which a server may repeat a secret: in URLs, in JSON and in HTML."""
    texts = {secret, secret.encode("utf-8", "surrogateescape").decode("latin-1")}
    forms = set(texts)
    for text in texts:
        forms |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    for text in (secret, valid_text(secret)):
        escaped = {quote(text, safe="", errors="replace"), quote(text, errors="replace")}
        escaped |= {quote_plus(text, errors="replace"), quote_plus(text, safe="/:@,!")}
        # as the client sends it: it leaves some characters alone
        escaped.add(URL.build(query={"k": valid_text(text)}).raw_query_string[2:])
        escaped |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), one) for one in escaped}
        forms |= escaped
    forms |= {form.replace("/", "\\/") for form in forms}
    return forms | {html.escape(form, quote=quoted) for form in forms for quoted in (True, False)}


class OriginPolicy:
    """The rule which origins may be requested, and which headers each receives."""

    def __init__(self, settings: HttpSettings, redactor: Redactor) -> None:
        self._settings, self._redactor = settings, redactor
        self._allowed = {URL(origin).origin() for origin in settings.allow_origins}
        self._home_origins = {URL(url).origin() for url in settings.urls}
        self._harmless_headers = {
            name: value.reveal()
            for name, value in settings.headers.items()
            if name.lower() in HARMLESS_HEADERS
        }
        self._all_headers = {name: value.reveal() for name, value in settings.headers.items()}
        self._all_headers |= _auth_headers(settings)

    def is_home_origin(self, url: URL) -> bool:
        """Whether `url` has the origin of a URL in the settings."""
        return url.origin() in self._home_origins

    def resolve(self, base: URL, link: str) -> URL:
        """Return the absolute URL of a link in the response of `base`, without credentials.

        Raises RefusedLinkError for an invalid link.
        """
        try:
            url = self.without_credentials(parse_url(link, base))
            url.origin()
        except ValueError:  # for instance an invalid port, or a scheme without a host
            shown = self._redactor.excerpt(link)
            raise RefusedLinkError(f"leads to {shown!r}, which is not a valid URL") from None
        return url

    def check(self, url: URL, home_origin: URL) -> None:
        """Raise RefusedLinkError if a page of `home_origin` may not lead to `url`."""
        if url.scheme not in ("http", "https"):
            raise RefusedLinkError(f"leads to {url.scheme}:, which is neither http nor https")
        if (origin := url.origin()) != home_origin and origin not in self._allowed:
            raise RefusedLinkError(
                f"leads to another origin, {origin}, which is not in allow_origins"
            )

    def check_request(self, request: Request, home_origin: URL) -> None:
        """Raise RefusedLinkError if a page of `home_origin` may not lead to this request."""
        self.check(request.url, home_origin)
        if request.is_tied and (origin := request.url.origin()) != home_origin:
            raise RefusedLinkError(
                f"leads to another origin, {origin}, which must not receive the body or the cursor"
            )

    def without_credentials(self, url: URL) -> URL:
        """Return `url` without user, password, fragment and the parameter of QueryAuth."""
        bare = url.with_user(None).with_fragment(None)
        auth = self._settings.auth
        if isinstance(auth, QueryAuth) and auth.name in bare.query:
            bare = without_parameter(bare, auth.name)
        return bare

    def allowed_request(self, url: URL, home_origin: URL) -> tuple[URL, dict[str, str]]:
        """Return the URL to request and its headers, with credentials only for `home_origin`."""
        if url.origin() != home_origin:
            return url, self._harmless_headers
        auth = self._settings.auth
        if isinstance(auth, QueryAuth):
            return with_parameters(url, {auth.name: auth.value.reveal()}), self._all_headers
        return url, self._all_headers


def _auth_headers(settings: HttpSettings) -> dict[str, str]:
    match settings.auth:
        case BearerAuth(token=token):
            return {"Authorization": f"Bearer {token.reveal()}"}
        case BasicAuth() as auth:
            return {"Authorization": f"Basic {basic_credentials(auth)}"}
        case HeaderAuth(name=name, value=value):
            return {name: value.reveal()}
        case _:
            return {}
