"""What is wrong with settings, before anything is asked of anybody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from asyncbatch.codec.pointer import parse_pointer
from asyncbatch.http.pace import parse_rate
from asyncbatch.http.settings import (
    BasicAuth,
    BearerAuth,
    CursorPagination,
    HeaderAuth,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
    QueryAuth,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncbatch.http.settings import HttpSettings

    Mistake = tuple[str, str]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = {"accept-encoding", "host", "content-length", "transfer-encoding", "connection"}


def mistakes(settings: HttpSettings) -> Iterator[Mistake]:
    """Yield all that is wrong: where, such as `urls[0]` or `pagination.next`, and what to write.

    No message holds a secret.
    """
    if not settings.urls:
        yield "urls", "must name at least one URL"
    for place, url in enumerate(settings.urls):
        yield from _about(f"urls[{place}]", _check_url, url)
    for place, origin in enumerate(settings.allow_origins):
        yield from _about(f"allow_origins[{place}]", _check_origin, origin)
    yield from _about("records", parse_pointer, settings.records)
    if settings.rate_limit is not None:
        yield from _about("rate_limit", parse_rate, settings.rate_limit)
    yield from _numbers(settings)
    yield from _headers(settings)
    yield from _pagination(settings)
    if settings.incremental is not None and not settings.incremental.param:
        yield "incremental.param", "must not be empty"


def _about(where: str, check: Callable[[str], object], value: str) -> Iterator[Mistake]:
    try:
        check(value)
    except ValueError as error:
        yield where, str(error)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a whole URL that begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError('must hold no password; write auth = { type = "basic", ... }')
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must hold no spaces, backslashes or control characters (%20 is a space)")
    _ = parts.port  # raises ValueError for what is no port


def _check_origin(origin: str) -> None:
    _check_url(origin)
    parts = urlsplit(origin)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be an origin, such as https://cdn.example.com, without a path")


def _numbers(settings: HttpSettings) -> Iterator[Mistake]:
    if not settings.timeout > 0:
        yield "timeout", "must be more than 0 seconds"
    for name in ("retries", "retry_delay", "longest_wait"):
        if not getattr(settings, name) >= 0:
            yield name, "must not be negative"
    for name in ("concurrency", "max_pages", "max_body"):
        if getattr(settings, name) < 1:
            yield name, "must be at least 1"


def _headers(settings: HttpSettings) -> Iterator[Mistake]:
    for name, secret in settings.headers.items():
        where = f"headers.{name}"
        if not _TOKEN.fullmatch(name):
            yield where, "is no name of a header"
        elif name.lower() in _OURS:
            yield where, "cannot be set: it follows from the request"
        elif not _is_header_value(secret.reveal()):
            yield where, "must hold no line ends or other control characters"
    taken = {name.lower() for name in settings.headers}
    match settings.auth:
        case BearerAuth() | BasicAuth() if "authorization" in taken:
            yield "auth", "cannot stand beside a header Authorization"
        case BearerAuth(token=token) if not token.reveal() or not _is_header_value(token.reveal()):
            yield "auth.token", "must not be empty, and hold no line ends or control characters"
        case HeaderAuth(name=name, value=value):
            if not _TOKEN.fullmatch(name):
                yield "auth.name", "is no name of a header"
            if name.lower() in taken:
                yield "auth.name", f"cannot stand beside a header {name}"
            if not _is_header_value(value.reveal()):
                yield "auth.value", "must hold no line ends or other control characters"
        case QueryAuth(name=""):
            yield "auth.name", "must not be empty"


def _is_header_value(value: str) -> bool:
    return all(char.isprintable() or char == "\t" for char in value)


def _pagination(settings: HttpSettings) -> Iterator[Mistake]:
    match settings.pagination:
        case PagePagination(size=size, size_param=size_param) as pages:
            if (size is None) != (size_param is None):
                yield "pagination", "size and size_param go together"
            if size is not None and size < 1:
                yield "pagination.size", "must be at least 1"
            for name in ("total", "pages"):
                if (pointer := getattr(pages, name)) is not None:
                    yield from _about(f"pagination.{name}", parse_pointer, pointer)
        case OffsetPagination(limit=limit, total=total):
            if limit < 1:
                yield "pagination.limit", "must be at least 1"
            if total is not None:
                yield from _about("pagination.total", parse_pointer, total)
        case CursorPagination(next=pointer) | NextUrlPagination(next=pointer):
            yield from _about("pagination.next", parse_pointer, pointer)
            if settings.format == "jsonl":
                yield "pagination.type", "JSON Lines name no next page; use link_header or page"
        case _:
            pass
