"""Errors of HTTP requests, each with a reason and a message for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from asyncbatch.core.units import format_size
from asyncbatch.formats.compression import CorruptArchiveError
from asyncbatch.formats.positions import TextPosition, locate_byte

if TYPE_CHECKING:
    from asyncbatch.sources.http.base import Reason


class BodyTooLargeError(Exception):
    """A body, or one of its lines, exceeds the limit."""


class UnknownEncodingError(Exception):
    """A body has an unknown content coding, which the message names."""


class RefusedLinkError(Exception):
    """A link or redirect leads to a forbidden origin, which the message names."""


class NoRecordsError(Exception):
    """There is no array at the records' place; the message says what is there."""


class StatusError(Exception):
    """An error status. `retry_after` is in seconds."""

    def __init__(self, status: int, phrase: str, body: bytes, retry_after: float | None) -> None:
        super().__init__(status, phrase)
        self.status, self.phrase, self.body, self.retry_after = status, phrase, body, retry_after


class NotJsonError(Exception):
    """An answer is not JSON: the error, and its byte."""

    def __init__(self, message: str, byte: int, body: bytes, content_type: str) -> None:
        super().__init__(message, byte)
        self.message, self.byte, self.body, self.content_type = message, byte, body, content_type

    @property
    def is_cut(self) -> bool:
        """Whether the answer is the beginning of a JSON text."""
        return bool(self.body.strip()) and self.byte >= len(self.body)

    @property
    def position(self) -> TextPosition:
        """Where the fault is."""
        return locate_byte(self.body, self.byte)


class RedirectLoopError(Exception):
    """Redirects form a circle, or never end; the message tells which."""


# All errors that `explain_error` knows; any other is a defect of asyncbatch. UnicodeError: an
# invalid host name.
REQUEST_ERRORS = (
    aiohttp.ClientError, TimeoutError, OSError, UnicodeError, StatusError, NotJsonError,
    RedirectLoopError, RefusedLinkError, BodyTooLargeError, UnknownEncodingError,
    CorruptArchiveError, NoRecordsError,
)  # fmt: skip


_REASONS: dict[type, Reason] = {
    NoRecordsError: "no_records",
    RedirectLoopError: "redirect_loop",
    RefusedLinkError: "refused_origin",
}


def explain_error(error: Exception, *, timeout: float, max_body: int) -> tuple[Reason, str]:
    """Return the reason and the message of one of `REQUEST_ERRORS`."""
    match error:
        case StatusError(status=status, phrase=phrase, retry_after=seconds):
            rest = "" if seconds is None else f", asks to wait {seconds:,.0f} s"
            return "status", f"HTTP {status} {phrase}".rstrip() + rest
        case BodyTooLargeError():
            return "too_large", f"the answer is over {format_size(max_body)}, the limit (max_body)"
        case NoRecordsError() | RedirectLoopError() | RefusedLinkError():
            return _REASONS[type(error)], str(error)
        case NotJsonError() | UnknownEncodingError() | CorruptArchiveError():
            return _body_reason(error)
        case TimeoutError():
            return "timeout", f"no whole answer within {timeout:g} s (timeout)"
        case _:
            return _connection_reason(error)


def _body_reason(
    error: NotJsonError | UnknownEncodingError | CorruptArchiveError,
) -> tuple[Reason, str]:
    match error:
        case NotJsonError(body=b""):
            return "not_json", "the answer is empty"
        case NotJsonError(is_cut=True, body=body):
            return "truncated", f"the answer ends in the middle, after {len(body):,} bytes"
        case NotJsonError(message=message, position=place, content_type=kind):
            where = f"line {place.line}, column {place.column}"
            return "not_json", f"the answer, {kind}, is no JSON: {message} ({where})"
        case CorruptArchiveError():
            return "truncated", f"the answer is cut or damaged ({error})"
        case _:
            return "not_json", f"the answer is compressed: {error}"


def _connection_reason(error: Exception) -> tuple[Reason, str]:
    match error:
        case aiohttp.ClientPayloadError():
            return "truncated", "the connection ended in the middle of the answer"
        case aiohttp.ClientSSLError():
            return "tls", f"no trusted connection: {error}"
        case aiohttp.InvalidURL():
            return "refused_origin", "leads to what is no URL to go to"
        case _:
            return "network", f"no connection: {str(error) or type(error).__name__}"
