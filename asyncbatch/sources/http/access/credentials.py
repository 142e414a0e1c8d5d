"""The credentials of an HTTP source, and their checks. Does not import aiohttp."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta, field

from asyncbatch.core.options import Name, Options, SecretText

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncbatch.core.options import Contradictions, Given
    from asyncbatch.sources.http.access.tls import TlsSettings

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
RESERVED_HEADERS = {"accept-encoding", "host", "content-length", "transfer-encoding", "connection"}
_TOKEN_PARAMETERS = {
    "grant_type", "client_id", "client_secret", "refresh_token", "scope", "audience",
}  # fmt: skip


class BearerAuth(Options, frozen=True, tag_field="type", tag="bearer"):
    """`Authorization: Bearer …`."""

    token: Annotated[SecretText, Meta(description="The token.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        token = given.get("token")
        if token is not None and not token.reveal():
            yield ("token",), "is empty"


class BasicAuth(Options, frozen=True, tag_field="type", tag="basic"):
    """`Authorization: Basic …`."""

    username: Annotated[str, Meta(description="The user's name.")]
    password: Annotated[SecretText, Meta(description="The password.")]


class HeaderAuth(Options, frozen=True, tag_field="type", tag="header"):
    """A header of any name."""

    name: Annotated[Name, Meta(description="The header's name, such as X-Api-Key.")]
    value: Annotated[SecretText, Meta(description="The header's value.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        name = given.get("name")
        if name and (mistake := header_mistake(name)):
            yield ("name",), mistake


class QueryAuth(Options, frozen=True, tag_field="type", tag="query"):
    """A parameter of the URL."""

    name: Annotated[Name, Meta(description="The parameter's name, such as api_key.")]
    value: Annotated[SecretText, Meta(description="The parameter's value.")]


class OAuth2Auth(Options, frozen=True, tag_field="type", tag="oauth2"):
    """Access tokens of OAuth2, fetched and renewed as they are needed."""

    token_url: Annotated[Name, Meta(description="The URL that gives access tokens.")]
    client_id: Annotated[Name, Meta(description="The name of the client.")]
    client_secret: Annotated[SecretText | None, Meta(description="The secret of the client.")] = (
        None
    )
    refresh_token: Annotated[
        SecretText | None,
        Meta(description="A refresh token; without it, the client's credentials are the grant."),
    ] = None
    refresh_token_file: Annotated[
        Name | None,
        Meta(description="A file that has the refresh token, and gets each new one."),
    ] = None
    scope: Annotated[Name | None, Meta(description="The scopes, with blanks between them.")] = None
    audience: Annotated[Name | None, Meta(description="The API for which the token is.")] = None
    params: Annotated[
        dict[str, SecretText], Meta(description="Other parameters of the request for a token.")
    ] = field(default_factory=dict)
    client_auth: Annotated[
        Literal["basic", "body"],
        Meta(description="Send the secret of the client as HTTP Basic, or in the body."),
    ] = "basic"

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if given.get("token_url"):
            yield from _token_url_mistakes(given["token_url"])
        if given.get("refresh_token_file"):
            yield from _token_file_mistakes(given["refresh_token_file"], given)
        for name in given.get("params") or ():
            if name in _TOKEN_PARAMETERS:
                yield ("params", name), f"is set by auth itself: use auth.{name}"


Auth: TypeAlias = BearerAuth | BasicAuth | HeaderAuth | QueryAuth | OAuth2Auth


def credential_mistakes(
    auth: Auth | None, headers: Mapping[str, object], tls: TlsSettings | None
) -> Contradictions:
    """Yield the credentials that do not fit to the headers and certificates of their source."""
    names = {name.lower(): name for name in headers}
    for name in headers:
        if mistake := header_mistake(name):
            yield ("headers", name), mistake
    match auth:
        case BearerAuth() | BasicAuth() | OAuth2Auth():
            header = "authorization"
        case HeaderAuth(name=name):
            header = name.lower()
        case _:
            return
    if header in names:
        yield ("headers", names[header]), "auth also sends this header: choose one"
    has_certificate = tls is not None and tls.cert is not None
    if isinstance(auth, OAuth2Auth) and not (
        auth.client_secret or auth.refresh_token or auth.refresh_token_file or has_certificate
    ):
        advice = "is missing: give it, a refresh_token, a refresh_token_file, or tls.cert"
        yield ("auth", "client_secret"), advice


def header_mistake(name: str) -> str | None:
    """Return advice if a request cannot have a header of this name, else None."""
    if not HEADER_NAME.fullmatch(name):
        return "is not the name of a header"
    if name.lower() in RESERVED_HEADERS:
        return "cannot be set: it is derived from the request"
    return None


def _token_file_mistakes(path: str, given: Given) -> Contradictions:
    from asyncbatch.sources.http.access.token_file import TokenFile, TokenFileError

    if "refresh_token" in given:
        yield ("refresh_token_file",), "excludes refresh_token: write it into the file"
    try:
        TokenFile(path).check()
    except TokenFileError as error:
        yield ("refresh_token_file",), str(error)


def _token_url_mistakes(url: str) -> Contradictions:
    from asyncbatch.sources.http.setting_checks import check_url

    try:
        check_url(url)
    except ValueError as error:
        yield ("token_url",), str(error)
        return
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield ("token_url",), "would send secrets in clear text: use https://"


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
