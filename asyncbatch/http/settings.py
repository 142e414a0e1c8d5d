"""What is read from HTTP APIs, and how: plain data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from asyncbatch.secret import Secret  # noqa: TC001 - msgspec reads the types at run time


class BearerAuth(Struct, frozen=True, tag_field="type", tag="bearer", forbid_unknown_fields=True):
    """`Authorization: Bearer` and a token."""

    token: Secret


class BasicAuth(Struct, frozen=True, tag_field="type", tag="basic", forbid_unknown_fields=True):
    """A user's name and password."""

    username: str
    password: Secret


class HeaderAuth(Struct, frozen=True, tag_field="type", tag="header", forbid_unknown_fields=True):
    """A header of any name, such as X-Api-Key."""

    name: str
    value: Secret


class QueryAuth(Struct, frozen=True, tag_field="type", tag="query", forbid_unknown_fields=True):
    """A parameter in the query of each URL."""

    name: str
    value: Secret


Auth: TypeAlias = BearerAuth | BasicAuth | HeaderAuth | QueryAuth


class PagePagination(Struct, frozen=True, tag_field="type", tag="page", forbid_unknown_fields=True):
    """Pages by number, from `start`; the end is the first page without records.

    `size` records a page are asked for with `size_param`. Where an answer tells how many records
    (`total`) or pages (`pages`) there are, a JSON Pointer to that spares the last requests.
    `end_status` is a status, such as 404, that a server gives for a page behind the last.
    """

    param: str = "page"
    start: int = 1
    size_param: str | None = None
    size: int | None = None
    total: str | None = None
    pages: str | None = None
    end_status: int | None = None


class OffsetPagination(
    Struct, frozen=True, tag_field="type", tag="offset", forbid_unknown_fields=True
):
    """Pages by the number of records before them, `limit` records each; see `PagePagination`."""

    param: str = "offset"
    limit_param: str = "limit"
    limit: int = 100
    start: int = 0
    total: str | None = None
    end_status: int | None = None


class CursorPagination(
    Struct, frozen=True, tag_field="type", tag="cursor", forbid_unknown_fields=True
):
    """Each answer has at the JSON Pointer `next` what the next request says in `param`.

    The end is an answer without it, or with null or an empty text.
    """

    next: str
    param: str = "cursor"


class NextUrlPagination(
    Struct, frozen=True, tag_field="type", tag="next_url", forbid_unknown_fields=True
):
    """Each answer has at the JSON Pointer `next` the URL of the next, which may be relative."""

    next: str


class LinkHeaderPagination(
    Struct, frozen=True, tag_field="type", tag="link_header", forbid_unknown_fields=True
):
    """Each answer's Link header has the URL of the next, rel=next."""


Pagination: TypeAlias = (
    PagePagination | OffsetPagination | CursorPagination | NextUrlPagination | LinkHeaderPagination
)


class Incremental(Struct, frozen=True, forbid_unknown_fields=True):
    """Only what is new: `param` of each first request is the largest value of `field` so far.

    `initial` is what it is before there is one. The field is the concern of who reads records.
    """

    field: str
    param: str
    initial: str | int | float | None = None


class HttpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which URLs are read, and how. `http.checking.mistakes` tells what is wrong with them.

    `records` is the JSON Pointer of a page's records; empty: the page itself. `timeout` is in
    seconds, for each request. `retries` is how often a request is made again, the first time
    after `retry_delay` seconds; a server that asks for more than `longest_wait` seconds is not
    waited for. `rate_limit` (20/s, 600/m, 1000/h) and `concurrency` are shared by all requests
    to a host. `max_body` is in bytes, decompressed: of a whole body, or of one line of JSON
    Lines. Links and redirects lead to the URL's own origin, or to one of `allow_origins`,
    which sees no header of ours but the harmless ones. `format` auto goes by the content type.
    """

    urls: tuple[str, ...]
    headers: dict[str, Secret] = {}
    auth: Auth | None = None
    records: str = ""
    pagination: Pagination | None = None
    format: Literal["auto", "json", "jsonl"] = "auto"
    timeout: float = 30.0
    retries: int = 5
    retry_delay: float = 0.5
    longest_wait: float = 300.0
    rate_limit: str | None = None
    concurrency: int = 8
    incremental: Incremental | None = None
    max_pages: int = 100_000
    max_body: int = 64 * 1024 * 1024
    allow_origins: tuple[str, ...] = ()
