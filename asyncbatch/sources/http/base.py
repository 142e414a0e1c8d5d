"""Requests, their pages and their failures. Does not import aiohttp."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from asyncbatch.errors import AsyncbatchError
from asyncbatch.formats.decoder import encode

if TYPE_CHECKING:
    from yarl import URL

Reason = Literal[
    "status",
    "network",
    "timeout",
    "tls",
    "not_json",
    "truncated",
    "too_large",
    "no_records",
    "bad_next",
    "repeated_next",
    "repeated_page",
    "max_pages",
    "redirect_loop",
    "refused_origin",
    "token",
    "proxy",
]

_TRANSIENT_REASONS = {"network", "timeout", "truncated"}
_TRANSIENT_STATUSES = {408, 425, 429}
_DIGEST_BYTES = 16
EXCERPT_CHARACTERS = 200  # of a text of the server, quoted in a failure


class Request(Struct, frozen=True):
    """One request, without the headers of the settings."""

    url: URL
    method: str = "GET"
    body: bytes | None = None  # a JSON text
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> tuple[URL, bytes]:
        """A short key, equal for equal requests."""
        if self.body is None and not self.headers:
            return self.url, b""
        rest = encode([self.method, (self.body or b"").decode(), self.headers])
        return self.url, hashlib.blake2b(rest, digest_size=_DIGEST_BYTES).digest()

    @property
    def is_tied(self) -> bool:
        """Whether the request has more than a URL, so that no other origin may receive it."""
        return bool(self.body or self.headers)


class HttpFailure(Struct, frozen=True):
    """The failure to read a URL, without secrets."""

    url: str
    reason: Reason
    text: str  # a message with advice
    status: int | None = None  # None if the response has no error status
    attempts: int = 1  # the number of requests made
    body: str = ""  # the first characters of the response
    # the seconds for which the response asks to wait; None if it does not
    retry_after: float | None = None
    is_rate_limited: bool = False  # whether the status is that of a rate limit

    @property
    def message(self) -> str:
        """The text, the number of attempts and the body, in one line."""
        tries = f" (tried {self.attempts} times)" if self.attempts > 1 else ""
        return f"{self.text}{tries}" + (f": {self.body!r}" if self.body else "")

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later, so that a retry makes sense."""
        if self.is_rate_limited:
            return True
        if self.reason != "status":
            return self.reason in _TRANSIENT_REASONS
        status = self.status or 0
        return status in _TRANSIENT_STATUSES or status >= 500


class HttpError(AsyncbatchError):
    """A URL could not be read, or not to its end. `failure` has the reason."""

    def __init__(self, failure: HttpFailure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure.url}: {self.failure.message}"


class PageMark(Struct, frozen=True):
    """The next page, at which a later run resumes. It is stored, and holds no secret."""

    link: str  # its URL, without credentials
    number: int  # from 1
    # the shape of the pages before, without `records`: "array", "single", "lines" or "csv"
    shape: str = ""
    # The digest of the records before, if the link of the page before leads to itself: the same
    # records again are then the end. Empty otherwise.
    digest: str = ""
    cursor: str = ""  # the JSON text of a cursor that is not in the link
    # The time of the first request in seconds since 1970, if its templates have the time.
    moment: int | None = None
    # The parameters of the link whose values are `***`, and come from the first request again.
    hidden: tuple[str, ...] = ()


class Page(Struct, frozen=True):
    """One page of an API, or some lines of a streamed JSON Lines response."""

    url: str  # for messages, without secrets; with the number, if the pages share a URL
    number: int  # from 1; the parts of a streamed response share it
    body: bytes  # one valid JSON text, CSV with a header, or lines that are not validated
    content_type: str
    format: Literal["json", "jsonl", "csv"] = "json"
    # Resumes after this page. None for page numbers and offsets, which are not stable, after the
    # last page, and in the middle of a response.
    mark: PageMark | None = None
    is_last: bool = False  # whether it is known that no page follows
    line: int = 1  # the first line of this part in the response, from 1
    byte: int = 0  # the first byte of this part in the response, from 0
    # the shape of the pages, without `records`: "array", "single", "lines" or "csv"
    shape: str = ""
