"""Pages, and failures of requests; loads no aiohttp."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from asyncbatch.errors import AsyncbatchError

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
    "max_pages",
    "redirect_loop",
    "refused_origin",
]

_TRANSIENT_REASONS = {"network", "timeout", "truncated"}
_TRANSIENT_STATUSES = {408, 425, 429}
EXCERPT_CHARACTERS = 200  # Characters of a body that a failure quotes.


class HttpFailure(Struct, frozen=True):
    """The failure of a URL, without secrets."""

    url: str
    reason: Reason
    text: str  # the reason, and advice
    status: int | None = None
    attempts: int = 1  # number of requests made
    body: str = ""  # the first characters of the answer
    retry_after: float | None = None  # the seconds that the server asked for

    @property
    def message(self) -> str:
        """All of it but the URL, in one line."""
        tries = f" (tried {self.attempts} times)" if self.attempts > 1 else ""
        return f"{self.text}{tries}" + (f": {self.body!r}" if self.body else "")

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        if self.reason != "status":
            return self.reason in _TRANSIENT_REASONS
        status = self.status or 0
        return status in _TRANSIENT_STATUSES or status >= 500


class HttpError(AsyncbatchError):
    """A URL could not be read, or not to its end; `failure` says why."""

    def __init__(self, failure: HttpFailure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure.url}: {self.failure.message}"


class PageMark(Struct, frozen=True):
    """Where a later run resumes: the URL of the next page, without credentials; its number."""

    link: str
    number: int


class Page(Struct, frozen=True):
    """One page of an API, or some lines of a streamed JSON Lines answer."""

    url: str  # for people, without secrets
    number: int  # from 1; the parts of a streamed answer share it
    body: bytes  # one valid JSON text, or lines that are not validated
    content_type: str
    format: Literal["json", "jsonl"] = "json"
    # Where to resume after it. None for page numbers and offsets, which are not stable, after the
    # last page, and in the middle of an answer.
    mark: PageMark | None = None
    is_last: bool = False  # whether it is known that no page follows
    line: int = 1  # where a part begins in the answer, from 1
    byte: int = 0  # where a part begins in the answer, from 0
