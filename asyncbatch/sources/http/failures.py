"""The errors of HTTP requests, with a reason and a message for each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import aiohttp

from asyncbatch.core.units import format_count, format_size
from asyncbatch.errors import error_reason
from asyncbatch.formats.members import CorruptArchiveError
from asyncbatch.formats.positions import TextPosition, locate_byte
from asyncbatch.sources.http.waits import Wait

if TYPE_CHECKING:
    from asyncbatch.sources.http.base import Reason


class BodyTooLargeError(Exception):
    """A body, or a line of JSON Lines, exceeds the limit."""


class UnknownEncodingError(Exception):
    """A body has an unknown content coding. The message names it."""


class ProxyError(Exception):
    """A proxy refuses a request, or its setting is invalid. The message says which."""


class RefusedLinkError(Exception):
    """A link or redirect is invalid, or leads to a forbidden origin."""


class NoRecordsError(Exception):
    """A page has no records, or an error in their place. The message says which."""

    def __init__(self, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body


class GraphqlError(NoRecordsError):
    """An answer has errors of GraphQL. `wait` is set if they are about a rate limit."""

    def __init__(self, message: str, body: bytes, wait: Wait | None) -> None:
        super().__init__(message, body)
        self.wait = wait


class StatusError(Exception):
    """A response has an error status, and may ask to wait."""

    status: int
    phrase: str
    body: bytes
    wait: Wait

    def __init__(self, status: int, phrase: str, body: bytes, wait: Wait) -> None:
        super().__init__(status, phrase)
        self.status, self.phrase, self.body, self.wait = status, phrase, body, wait


class TokenError(StatusError):
    """There is no access token of OAuth2. The message says why, without secrets.

    With the reason "token" a retry makes no sense.
    """

    def __init__(
        self, message: str, *, reason: Reason = "token", status: int = 0, wait: Wait | None = None
    ) -> None:
        super().__init__(status, message, b"", wait or Wait())
        self.reason = reason

    def __str__(self) -> str:
        return f"no access token (OAuth2): {self.phrase}"


class NotJsonError(Exception):
    """A response is not JSON. `byte` is the position of the error in `body`."""

    message: str
    byte: int
    body: bytes
    content_type: str

    def __init__(self, message: str, byte: int, body: bytes, content_type: str) -> None:
        super().__init__(message, byte)
        self.message, self.byte, self.body, self.content_type = message, byte, body, content_type

    @property
    def is_cut(self) -> bool:
        """Whether the response is truncated: the error is at its end."""
        return bool(self.body.strip()) and self.byte >= len(self.body)

    @property
    def position(self) -> TextPosition:
        """The line and column of the error."""
        return locate_byte(self.body, self.byte)


class RedirectLoopError(Exception):
    """Redirects repeat a URL, or there are too many. The message says which."""


# All errors that `explain_error` knows. Any other error is a bug in asyncbatch. An invalid host
# name raises UnicodeError.
REQUEST_ERRORS = (
    aiohttp.ClientError, TimeoutError, OSError, UnicodeError, StatusError, NotJsonError,
    RedirectLoopError, RefusedLinkError, BodyTooLargeError, UnknownEncodingError,
    CorruptArchiveError, NoRecordsError, ProxyError,
)  # fmt: skip


_REASONS: dict[type, Reason] = {
    NoRecordsError: "no_records",
    GraphqlError: "no_records",
    RedirectLoopError: "redirect_loop",
    RefusedLinkError: "refused_origin",
    ProxyError: "proxy",
}


def explain_error(error: Exception, *, timeout: float, max_body: int) -> tuple[Reason, str]:
    """Return the reason and the message of one of `REQUEST_ERRORS`."""
    match error:
        case (
            TokenError() | ProxyError() | NoRecordsError() | RedirectLoopError()
            | RefusedLinkError()
        ):  # fmt: skip
            return getattr(error, "reason", None) or _REASONS[type(error)], str(error)
        case StatusError(status=status, phrase=phrase, wait=wait):
            rest = "" if wait.seconds is None else f", {wait.header} {wait.seconds:,.0f} s"
            return "status", f"HTTP {status} {phrase}".rstrip() + rest
        case BodyTooLargeError():
            limit = format_size(max_body)
            return "too_large", f"the response exceeds {limit}, the limit (max_body)"
        case NotJsonError() | UnknownEncodingError() | CorruptArchiveError():
            return _body_reason(error)
    if isinstance(error, TimeoutError):
        return "timeout", f"no complete response within {timeout:g} s (timeout)"
    return _access_reason(error) or _connection_reason(error)


def _body_reason(
    error: NotJsonError | UnknownEncodingError | CorruptArchiveError,
) -> tuple[Reason, str]:
    match error:
        case NotJsonError(body=b""):
            return "not_json", "the response is empty"
        case NotJsonError(is_cut=True, body=body):
            return "truncated", f"the response is cut off after {format_count(len(body), 'byte')}"
        case NotJsonError(message=message, position=position, content_type=kind):
            where = f"line {position.line}, column {position.column}"
            return "not_json", f"the response ({kind}) is not JSON: {message} ({where})"
        case CorruptArchiveError():
            return "truncated", f"the response is cut off or damaged ({error})"
        case _:
            return "not_json", f"the response is compressed: {error}"


_AUTHORITY_ADVICE = "; if its authority is your own, name it by tls.ca"
# Since 3.13, Python checks that certificates have the extensions that RFC 5280 demands.
_INCOMPLETE_CERTIFICATE = re.compile("does not include|Missing|not marked critical")
_RENEW_ADVICE = "; Python demands it since 3.13: renew the certificate"
_CLIENT_ADVICE = "; if the server asks for a certificate of this client, name it by tls.cert"


def _access_reason(error: Exception) -> tuple[Reason, str] | None:
    """Return the reason and the message of an error of TLS or of a proxy, None for others."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            is_incomplete = _INCOMPLETE_CERTIFICATE.search(str(error))
            advice = _RENEW_ADVICE if is_incomplete else _AUTHORITY_ADVICE
            return "tls", f"the TLS connection failed: {error}{advice}"
        case aiohttp.ClientSSLError():
            is_refused = "HANDSHAKE_FAILURE" in str(error)
            return (
                "tls",
                f"the TLS connection failed: {error}{_CLIENT_ADVICE if is_refused else ''}",
            )
        case OSError() if "_CERTIFICATE_REQUIRED" in str(error):
            return "tls", f"the server has ended the TLS connection{_CLIENT_ADVICE}"
        case aiohttp.ClientProxyConnectionError(host=host, port=port, os_error=cause):
            return "network", f"cannot connect to the proxy {host}:{port}: {error_reason(cause)}"
        case aiohttp.ClientHttpProxyError(status=status, message=message):
            advice = ": check its user and password" if status == 407 else ""
            reason: Reason = "network" if status >= 500 else "proxy"
            return reason, f"the proxy refuses the connection: {status} {message}{advice}"
    return None


def _connection_reason(error: Exception) -> tuple[Reason, str]:
    match error:
        case aiohttp.ClientPayloadError():
            return "truncated", "the connection was closed in the middle of the response"
        case aiohttp.ClientConnectorError(host=host, port=port, os_error=cause):
            return "network", f"cannot connect to {host}:{port}: {error_reason(cause)}"
        case aiohttp.ClientResponseError(status=status, message=message):  # its text has the URL
            return "network", f"the connection failed: {message} ({status})"
        case aiohttp.InvalidURL():
            return "refused_origin", "leads to an invalid URL"
        case _:
            return "network", f"the connection failed: {str(error) or type(error).__name__}"
