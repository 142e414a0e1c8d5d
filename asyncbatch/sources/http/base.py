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
EXCERPT = 200
"""Characters of a body that a failure quotes."""


class HttpFailure(Struct, frozen=True):
    """What went wrong with a URL, all without secrets.

    `text` says what, and what to do. `attempts` is how many requests were made for it, `body` the
    first characters of the answer, `retry_after` the seconds that the server asked for.
    """

    url: str
    reason: Reason
    text: str
    status: int | None = None
    attempts: int = 1
    body: str = ""
    retry_after: float | None = None

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
    """Where a later run goes on: the next page's URL, without credentials, and its number."""

    link: str
    number: int


class Page(Struct, frozen=True):
    """One answer, or some whole lines of one in JSON Lines.

    `url` is shown to people, without secrets. `number` counts from 1; the stretches of a streamed
    answer share it, and `line` (from 1) and `byte` (from 0) are where in the answer each begins.
    `body` is one valid JSON text, or lines that nobody has judged. `mark` is where a later run
    goes on behind this; None if the pages are not stable (by page number and offset), behind the
    last, and but for the last stretch of an answer. `is_last` if it is known that none follows.
    """

    url: str
    number: int
    body: bytes
    content_type: str
    format: Literal["json", "jsonl"] = "json"
    mark: PageMark | None = None
    is_last: bool = False
    line: int = 1
    byte: int = 0
