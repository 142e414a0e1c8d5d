"""The requests for the pages of a URL: method, body, and the place of cursors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from msgspec.structs import replace

from asyncbatch.formats.decoder import decode, encode
from asyncbatch.formats.positions import text_at
from asyncbatch.sources.http.base import Request
from asyncbatch.sources.http.requests.places import place_of, put_value
from asyncbatch.sources.http.requests.templates import (
    TemplateValues,
    render,
    render_url,
    texts_of,
    uses,
)
from asyncbatch.sources.http.settings import CursorPagination
from asyncbatch.sources.http.urls import parse_url, with_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from yarl import URL

    from asyncbatch.core.records import CursorKind, Scalar
    from asyncbatch.sources.http.base import PageMark
    from asyncbatch.sources.http.client import HttpClient
    from asyncbatch.sources.http.settings import HttpSettings, ParameterPlace


def page_name(client: HttpClient, request: Request, number: int) -> str:
    """Return the name of a page in messages: its URL, and its number if pages share the URL."""
    shown = client.redactor.redact_url(request.url)
    return f"{shown} (page {number})" if request.is_tied and number > 1 else shown


class CursorError(ValueError):
    """A cursor does not fit into its place. The message has the reason."""


def describe_type(value: object) -> str:
    """Return the name of the type of a JSON value that is neither a text nor null."""
    names = {bool: "true or false", dict: "an object", list: "an array"}
    return names.get(type(value), "a number")


class RequestPlan:
    """The requests for the pages of one URL of the settings.

    `url` may have templates. `since` is the largest value of an earlier run, and `moment` the time
    of its first request in seconds since 1970, if its pages are continued. Raises ValueError if a
    template has no value.
    """

    def __init__(
        self,
        client: HttpClient,
        url: str,
        since: Scalar | None,
        kind: CursorKind | None,
        moment: int | None,
    ) -> None:
        settings = client.settings
        incremental, pagination = settings.incremental, settings.pagination
        now = datetime.now(UTC) if moment is None else datetime.fromtimestamp(moment, UTC)
        templates = [url, *texts_of(settings.body)]
        uses_time = any(uses(text, name) for text in templates for name in ("now", "today"))
        # Kept for runs that continue with the pages.
        self.moment: int | None = int(now.timestamp()) if uses_time else None
        if since is None and incremental is not None:
            since = incremental.initial
        values = TemplateValues(now, since, kind)
        address = client.policy.without_credentials(parse_url(render_url(url, values)))
        body = render(settings.body, values)
        self._param = getattr(pagination, "param", "")
        self._param_in: ParameterPlace = getattr(pagination, "param_in", "query")
        self.first: Request = _make_request(address, settings, body)
        if incremental is not None and incremental.param is not None and since is not None:
            param, place = incremental.param, incremental.param_in
            self.first = _put(self.first, {param: since}, place)
        # The request that each further one differs from in its cursor only.
        self._further = self.first
        following = pagination.following if isinstance(pagination, CursorPagination) else None
        if following is not None:
            address = self.first.url
            if following.url is not None:
                address = client.policy.resolve(address, following.url)
            if following.body is not None:
                body = render(following.body, values)
            self._further = _make_request(address, settings, body)

    def with_parameters(self, values: Mapping[str, Scalar]) -> Request:
        """Return the first request with these parameters of the pagination."""
        return _put(self.first, values, self._param_in)

    def with_link(self, url: URL) -> Request:
        """Return the request for the page at `url`."""
        return replace(self.first, url=url)

    def with_cursor(self, cursor: bytes) -> Request:
        """Return the request for the page at a cursor, a JSON text. Raises CursorError."""
        if self._param_in == "body":
            return _put(self._further, {self._param: Raw(cursor)}, "body")
        value = decode(cursor)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = cursor.decode()  # a float would lose digits
        if not isinstance(value, str):
            raise CursorError(f"expected a cursor, found {describe_type(value)}")
        if self._param_in == "header" and not value.isprintable():
            raise CursorError("the cursor has control characters, which no header can have")
        return _put(self._further, {self._param: value}, self._param_in)

    def cursor_of(self, request: Request) -> str:
        """Return the JSON text of the cursor in a request, "" if its URL has all."""
        if self._param_in == "header":
            value = dict(request.headers).get(self._param)
            return "" if value is None else encode(value).decode()
        if self._param_in == "body" and request.body is not None:
            text = text_at(request.body, place_of(self._param))
            return "" if text is None else bytes(memoryview(text)).decode()
        return ""

    def resumed(self, mark: PageMark, url: URL) -> Request:
        """Return the request for the page at the mark of an earlier run; `url` is its link."""
        return self.with_cursor(mark.cursor.encode()) if mark.cursor else self.with_link(url)


def _make_request(url: URL, settings: HttpSettings, body: Any) -> Request:
    method = settings.method or ("GET" if body is None else "POST")
    return Request(url, method, None if body is None else encode(body))


def _put(request: Request, values: Mapping[str, Any], place: ParameterPlace) -> Request:
    """Return a request with parameters at their place. Raises PlaceError."""
    texts = {name: str(value) for name, value in values.items()}
    match place:
        case "query":
            return replace(request, url=with_parameters(request.url, texts))
        case "header":
            return replace(request, headers=tuple({**dict(request.headers), **texts}.items()))
        case "body":
            body = None if request.body is None else decode(request.body)
            for name, value in values.items():
                body = put_value(body, name, value)
            return replace(request, body=encode(body))
