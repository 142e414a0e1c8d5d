"""Where the pages of a URL begin, and in which way they follow each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarl import URL

from asyncbatch.errors import UsageError
from asyncbatch.http.chained import Chain
from asyncbatch.http.numbered import Numbered
from asyncbatch.http.settings import OffsetPagination, PagePagination

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncbatch.http.asking import Asker
    from asyncbatch.http.page import Page, PageMark
    from asyncbatch.http.settings import HttpSettings


def open_pages(
    asker: Asker, url: str, start: PageMark | None, since: str | None, *, asks_ahead: bool = True
) -> AsyncGenerator[Page, None]:
    """Return the pages of `url`; see `HttpSource.pages`."""
    settings = asker.settings
    first = asker.borders.bare(URL(url))
    if not asker.borders.is_home(first):
        raise UsageError(f"{asker.redactor.url(first)} is not of an origin that `urls` name")
    home = first.origin()
    first = _with_since(first, settings, since)
    if isinstance(settings.pagination, PagePagination | OffsetPagination):
        if start is not None:
            raise UsageError("pages by number or offset are not stable: begin at the first")
        return Numbered(asker, first, settings.pagination, asks_ahead=asks_ahead).pages()
    if start is None:
        return Chain(asker, first, home).pages(1)
    return Chain(asker, asker.borders.resolve(first, start.link), home).pages(start.number)


def _with_since(url: URL, settings: HttpSettings, since: str | None) -> URL:
    if settings.incremental is None:
        return url
    value = settings.incremental.initial if since is None else since
    return url if value is None else url.update_query({settings.incremental.param: str(value)})
