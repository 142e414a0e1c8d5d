"""The pages of a URL, by any kind of pagination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError
from asyncbatch.sources.http.linked_pages import LinkedPages
from asyncbatch.sources.http.numbered_pages import NumberedPages
from asyncbatch.sources.http.settings import OffsetPagination, PagePagination
from asyncbatch.sources.http.urls import parse_url, with_parameters

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from yarl import URL

    from asyncbatch.sources.http.base import Page, PageMark
    from asyncbatch.sources.http.client import HttpClient
    from asyncbatch.sources.http.settings import HttpSettings


def open_pages(
    client: HttpClient,
    url: str,
    start: PageMark | None,
    since: str | None,
    *,
    asks_ahead: bool = True,
    shape: str = "",
) -> AsyncGenerator[Page, None]:
    """Return the pages of `url` as `HttpSource.pages` does. Raises UsageError."""
    settings = client.settings
    first = client.policy.without_credentials(parse_url(url))
    if not client.policy.is_home_origin(first):
        raise UsageError(f"{client.redactor.redact_url(first)} has an origin that is not in `urls`")
    home = first.origin()
    first = _with_cursor(first, settings, since)
    if isinstance(settings.pagination, PagePagination | OffsetPagination):
        if start is not None:
            raise UsageError("pages by number or offset cannot resume: start without a mark")
        return NumberedPages(client, first, settings.pagination, asks_ahead=asks_ahead).pages()
    return LinkedPages(client, first, home, start, shape).pages()


def _with_cursor(url: URL, settings: HttpSettings, since: str | None) -> URL:
    if settings.incremental is None:
        return url
    value = settings.incremental.initial if since is None else since
    if value is None:
        return url
    return with_parameters(url, {settings.incremental.param: str(value)})
