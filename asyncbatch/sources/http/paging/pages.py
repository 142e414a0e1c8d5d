"""The pages of a URL, by any kind of pagination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.errors import UsageError
from asyncbatch.sources.http.paging.linked import LinkedPages
from asyncbatch.sources.http.paging.numbered import NumberedPages
from asyncbatch.sources.http.requests.plan import RequestPlan
from asyncbatch.sources.http.settings import OffsetPagination, PagePagination

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncbatch.core.records import CursorKind, Scalar
    from asyncbatch.sources.http.base import Page, PageMark
    from asyncbatch.sources.http.client import HttpClient


def open_pages(
    client: HttpClient,
    url: str,
    start: PageMark | None,
    since: Scalar | None,
    *,
    kind: CursorKind | None = None,
    asks_ahead: bool = True,
    shape: str = "",
) -> AsyncGenerator[Page, None]:
    """Return the pages of `url` as `HttpSource.pages` does. Raises UsageError."""
    pagination = client.settings.pagination
    try:
        plan = RequestPlan(client, url, since, kind, None if start is None else start.moment)
    except ValueError as error:
        raise UsageError(str(error)) from None
    first = plan.first.url
    if not client.policy.is_home_origin(first):
        raise UsageError(f"{client.redactor.redact_url(first)} has an origin that is not in `urls`")
    if isinstance(pagination, PagePagination | OffsetPagination):
        if start is not None:
            raise UsageError("pages by number or offset cannot resume: start without a mark")
        return NumberedPages(client, plan, pagination, asks_ahead=asks_ahead).pages()
    return LinkedPages(client, plan, first.origin(), start, shape).pages()
