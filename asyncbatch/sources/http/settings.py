"""The settings of an HTTP source, and their checks. Does not import aiohttp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct, structs

from asyncbatch.core.secrets import Secret  # noqa: TC001 - msgspec reads the types at run time
from asyncbatch.core.units import parse_rate
from asyncbatch.formats.positions import parse_pointer
from asyncbatch.sources.http.request_mistakes import (
    HEADER_NAME,
    RESERVED_HEADERS,
    request_mistakes,
)
from asyncbatch.sources.http.templates import without_templates
from asyncbatch.sources.http.tls import TlsSettings, tls_mistakes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Mistake = tuple[str, str]


class BearerAuth(Struct, frozen=True, tag_field="type", tag="bearer", forbid_unknown_fields=True):
    """The header `Authorization: Bearer` with a token."""

    token: Secret


class BasicAuth(Struct, frozen=True, tag_field="type", tag="basic", forbid_unknown_fields=True):
    """HTTP Basic authentication."""

    username: str
    password: Secret


class HeaderAuth(Struct, frozen=True, tag_field="type", tag="header", forbid_unknown_fields=True):
    """A secret in a header, for instance X-Api-Key."""

    name: str
    value: Secret


class QueryAuth(Struct, frozen=True, tag_field="type", tag="query", forbid_unknown_fields=True):
    """A secret in a query parameter of each URL."""

    name: str
    value: Secret


class OAuth2Auth(Struct, frozen=True, tag_field="type", tag="oauth2", forbid_unknown_fields=True):
    """Bearer tokens of OAuth2: by the client's credentials, or by a refresh token."""

    token_url: str
    client_id: str
    client_secret: Secret | None = None
    refresh_token: Secret | None = None  # None: the grant client_credentials
    scope: str | None = None
    audience: str | None = None
    params: dict[str, Secret] = {}  # other parameters of the request for a token
    client_auth: Literal["basic", "body"] = "basic"  # where the client's secret is sent


Auth: TypeAlias = BearerAuth | BasicAuth | HeaderAuth | QueryAuth | OAuth2Auth


NO_PROXY = "none"  # the setting of a source that uses no proxy


# What a page with the records of an earlier page is: a failure, the end, or a page like others.
OnRepeat = Literal["fail", "end", "load"]
# Where a parameter is sent. In a body its name may be a JSON Pointer.
ParameterPlace = Literal["query", "body", "header"]


class PagePagination(Struct, frozen=True, tag_field="type", tag="page", forbid_unknown_fields=True):
    """Pages by number, from `start` to the last that the answers tell of.

    If they tell nothing: to the first page without records.
    """

    param: str = "page"
    start: int = 1
    size_param: str | None = None  # the name of the parameter for `size`
    size: int | None = None  # records of a page
    # The JSON Pointers of the number of records, of the number of pages, and of whether there are
    # more pages. Each saves the request for the page after the last one.
    total: str | None = None
    pages: str | None = None
    end_status: int | None = None  # the status of a page after the last one, for instance 404
    more: str | None = None
    on_repeat: OnRepeat = "fail"
    end: str | None = None  # the JSON Pointer of whether this is the last page
    param_in: ParameterPlace = "query"


class OffsetPagination(
    Struct, frozen=True, tag_field="type", tag="offset", forbid_unknown_fields=True
):
    """Pages by offset, with `limit` records each."""

    param: str = "offset"
    limit_param: str = "limit"
    limit: int = 100
    start: int = 0
    total: str | None = None  # the JSON Pointer of the number of records
    end_status: int | None = None  # the status of a page after the last one, for instance 404
    more: str | None = None  # the JSON Pointer of whether there are more pages
    on_repeat: OnRepeat = "fail"
    end: str | None = None  # the JSON Pointer of whether this is the last page
    param_in: ParameterPlace = "query"


class FollowingRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The form of the requests after the first one, if it differs."""

    url: str | None = None  # may be relative to that of the first request
    body: dict[str, Any] | None = None


class CursorPagination(
    Struct, frozen=True, tag_field="type", tag="cursor", forbid_unknown_fields=True
):
    """Pages by cursor: each response contains the parameter of the next request.

    The cursor is at `next`, in the header `next_header`, or at `last_record` in the last record.
    The last response has no cursor, or null, false, 0 or an empty text; with `last_record` it has
    no record.
    """

    next: str | None = None  # the JSON Pointer of the cursor in a response
    param: str = "cursor"  # the parameter of the next request
    more: str | None = None  # the JSON Pointer of whether there are more pages
    on_repeat: OnRepeat = "fail"
    end: str | None = None  # the JSON Pointer of whether this is the last page
    next_header: str | None = None
    last_record: str | None = None  # the JSON Pointer of the cursor in the last record of a page
    param_in: ParameterPlace = "query"
    following: FollowingRequest | None = None
    # Whether the same cursor always leads to the same page. If not, because the server counts the
    # pages, then a page is requested once, and a later run starts from the first page.
    repeatable: bool = True


class NextUrlPagination(
    Struct, frozen=True, tag_field="type", tag="next_url", forbid_unknown_fields=True
):
    """Pages by link: each response contains the URL of the next page."""

    next: str | None = None  # the JSON Pointer of the URL, which may be relative
    more: str | None = None  # the JSON Pointer of whether there are more pages
    on_repeat: OnRepeat = "fail"
    end: str | None = None  # the JSON Pointer of whether this is the last page
    next_header: str | None = None  # the header with the URL
    # The start of relative links: a URL, or the JSON Pointer of one.
    base: str | None = None


class LinkHeaderPagination(
    Struct, frozen=True, tag_field="type", tag="link_header", forbid_unknown_fields=True
):
    """Pages by Link header: the URL of the next page has rel=next (RFC 8288)."""

    on_repeat: OnRepeat = "fail"


Pagination: TypeAlias = (
    PagePagination | OffsetPagination | CursorPagination | NextUrlPagination | LinkHeaderPagination
)


class Incremental(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests for new records only: the server filters by the largest value so far."""

    field: str  # the field of a record whose largest value is kept
    # The parameter of the first request that receives this value. None: a template has it.
    param: str | None = None
    initial: str | int | float | None = None  # the value of the first run; None sends none
    type: Literal["number", "time", "text"] | None = None  # how values are compared
    # Larger values are not kept: a number, a time, a text, or "now". None: a day after now, for
    # times with a zone.
    max: str | int | float | None = None
    # The next run asks for values from this much before the largest: seconds for times, else a
    # number.
    lag: float = 0.0
    param_in: ParameterPlace = "query"


class ParentRequests(Struct, frozen=True, forbid_unknown_fields=True):
    """The requests for the records that the URLs of a source are made of.

    The other settings are those of the source.
    """

    urls: tuple[str, ...]
    records: str = ""
    pagination: Pagination | None = None
    # The fields that the records of the source get: the paths of the parent's fields, by name.
    fields: dict[str, str] = {}
    method: Literal["GET", "POST"] | None = None
    body: dict[str, Any] | None = None


class HttpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The URLs to read, and the options of their requests. Check with `setting_mistakes`."""

    urls: tuple[str, ...]  # may have templates, as {{ since }}
    headers: dict[str, Secret] = {}
    auth: Auth | None = None
    records: str = ""  # the JSON Pointer of a page's records; empty for the page itself
    pagination: Pagination | None = None  # None for one page for each URL
    format: Literal["auto", "json", "jsonl", "csv"] = "auto"  # auto uses the content type
    timeout: float = 30.0  # seconds for each request, or for each read of streamed JSON Lines
    retries: int = 5
    retry_delay: float = 0.5  # seconds before the first retry
    longest_wait: float = 300.0  # seconds; a longer Retry-After fails the URL
    rate_limit: str | None = None  # 20/s, 600/m, 1000/h; for all requests to a host together
    concurrency: int = 8  # concurrent requests to a host
    incremental: Incremental | None = None
    max_pages: int = 100_000
    # Decompressed bytes of a whole body, or of one line of JSON Lines.
    max_body: int = 64 * 1024 * 1024
    # Other origins to which links may lead. They receive no credentials.
    allow_origins: tuple[str, ...] = ()
    tls: TlsSettings | None = None
    # The URL of a proxy, or "none". None: that of the environment.
    proxy: Secret | None = None
    # Later runs ask for a body only if it has changed, by its ETag or Last-Modified.
    conditional: bool = False
    method: Literal["GET", "POST"] | None = None  # None: POST with a body
    body: dict[str, Any] | None = None  # sent as JSON; its texts may have templates
    # The records are the values of an object. Each gets its key in this field.
    key_field: str | None = None
    parent: ParentRequests | None = None  # `urls` then have fields of its records, as {id}


def setting_mistakes(settings: HttpSettings) -> Iterator[Mistake]:
    """Yield each mistake: its key path, for instance `urls[0]`, and advice.

    No message contains a secret.
    """
    if not settings.urls:
        yield "urls", "must name at least one URL"
    for index, url in enumerate(settings.urls):
        yield from _check_text(f"urls[{index}]", _check_url, without_templates(url))
    for index, origin in enumerate(settings.allow_origins):
        yield from _check_text(f"allow_origins[{index}]", _check_origin, origin)
    yield from _check_text("records", parse_pointer, settings.records)
    if settings.rate_limit is not None:
        yield from _check_text("rate_limit", parse_rate, settings.rate_limit)
    yield from _number_mistakes(settings)
    yield from _header_mistakes(settings)
    yield from _pagination_mistakes(settings)
    yield from access_mistakes(settings.auth, settings.tls, settings.proxy)
    if settings.conditional:
        yield from conditional_mistakes(structs.asdict(settings))
    if settings.incremental is not None:
        yield from _incremental_mistakes(settings.incremental)
    for path, text in request_mistakes(settings.urls, structs.asdict(settings)):
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
        yield where.removeprefix("."), text
    if settings.parent is not None:
        parents = parent_settings(settings, settings.parent)
        yield from (
            (f"parent.{where}", text)
            for where, text in setting_mistakes(parents)
            if where.startswith(("urls", "records", "pagination", "body"))
        )


def parent_settings(settings: HttpSettings, parent: ParentRequests) -> HttpSettings:
    """Return the settings of the requests for parents, which share most with those of children."""
    return structs.replace(
        settings,
        urls=parent.urls,
        records=parent.records,
        pagination=parent.pagination,
        method=parent.method,
        body=parent.body,
        format="auto",
        key_field=None,
        incremental=None,
        parent=None,
    )


def _incremental_mistakes(incremental: Incremental) -> Iterator[Mistake]:
    if incremental.param == "":
        yield "incremental.param", "must not be empty"
    if not incremental.lag >= 0:
        yield "incremental.lag", "must not be negative"
    if incremental.lag and incremental.type == "text":
        yield "incremental.lag", "needs numbers or times, and type is text"


def _check_text(where: str, check: Callable[[str], object], value: str) -> Iterator[Mistake]:
    try:
        check(value)
    except ValueError as error:
        yield where, str(error)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a complete URL that begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError('must not contain a password: use auth = { type = "basic", ... }')
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(
            "must not contain spaces, backslashes or control characters (%20 is a space)"
        )
    _ = parts.port  # raises ValueError for an invalid port


def _check_origin(origin: str) -> None:
    _check_url(origin)
    parts = urlsplit(origin)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be an origin, such as https://cdn.example.com, without a path")


def _number_mistakes(settings: HttpSettings) -> Iterator[Mistake]:
    if not settings.timeout > 0:
        yield "timeout", "must be more than 0 seconds"
    for name in ("retries", "retry_delay", "longest_wait"):
        if not getattr(settings, name) >= 0:
            yield name, "must not be negative"
    for name in ("concurrency", "max_pages", "max_body"):
        if getattr(settings, name) < 1:
            yield name, "must be at least 1"


def _header_mistakes(settings: HttpSettings) -> Iterator[Mistake]:
    for name, secret in settings.headers.items():
        where = f"headers.{name}"
        if not HEADER_NAME.fullmatch(name):
            yield where, "is not a valid header name"
        elif name.lower() in RESERVED_HEADERS:
            yield where, "cannot be set: it is derived from the request"
        elif not _is_header_value(secret.reveal()):
            yield where, "must not contain line ends or other control characters"
    header_names = {name.lower() for name in settings.headers}
    match settings.auth:
        case BearerAuth() | BasicAuth() | OAuth2Auth() if "authorization" in header_names:
            yield "auth", "cannot be combined with the header Authorization"
        case BearerAuth(token=token) if not token.reveal() or not _is_header_value(token.reveal()):
            yield "auth.token", "must not be empty or contain line ends or control characters"
        case HeaderAuth(name=name, value=value):
            if not HEADER_NAME.fullmatch(name):
                yield "auth.name", "is not a valid header name"
            if name.lower() in header_names:
                yield "auth.name", f"cannot be combined with the header {name}"
            if not _is_header_value(value.reveal()):
                yield "auth.value", "must not contain line ends or other control characters"
        case QueryAuth(name=""):
            yield "auth.name", "must not be empty"


CONDITIONAL_SINK = (
    "needs a database with a key and the mode upsert as its sink: an unchanged body leaves its "
    "rows as they are, a changed one replaces them"
)


def conditional_mistakes(given: Mapping[str, object]) -> Iterator[Mistake]:
    """Yield the settings that exclude `conditional`; `given` has those of the source, by name."""
    for name, reason in _NOT_CONDITIONAL.items():
        if given.get(name) is not None:
            yield "conditional", f"excludes {name}: {reason}"


_NOT_CONDITIONAL = {
    "pagination": "only the first page would tell of changes",
    "incremental": "choose one way to ask for what is new",
    "body": "a server tells of changes only in answer to a GET",
    "parent": "each of its records leads to another URL",
}


_TOKEN_PARAMETERS = {
    "grant_type", "client_id", "client_secret", "refresh_token", "scope", "audience",
}  # fmt: skip


def access_mistakes(
    auth: Auth | None, tls: TlsSettings | None, proxy: Secret | None
) -> Iterator[Mistake]:
    """Yield each mistake of `auth`, `tls` and `proxy`, also of the files that they name."""
    if isinstance(auth, OAuth2Auth):
        yield from _oauth2_mistakes(auth, tls)
    if proxy is not None:
        yield from _check_text("proxy", check_proxy, proxy.reveal())
    if tls is not None:
        yield from ((f"tls.{key}", advice) for key, advice in tls_mistakes(tls))


def _oauth2_mistakes(auth: OAuth2Auth, tls: TlsSettings | None) -> Iterator[Mistake]:
    try:
        _check_url(auth.token_url)
    except ValueError as error:
        yield "auth.token_url", str(error)
        return
    parts = urlsplit(auth.token_url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield "auth.token_url", "would send secrets in clear text: use https://"
    if not auth.client_id:
        yield "auth.client_id", "must not be empty"
    has_certificate = tls is not None and tls.cert is not None
    if auth.client_secret is None and auth.refresh_token is None and not has_certificate:
        yield "auth.client_secret", "is missing: give it, a refresh_token, or tls.cert"
    for name in auth.params:
        if name in _TOKEN_PARAMETERS:
            yield f"auth.params.{name}", f"is set by auth itself: use auth.{name}"


def check_proxy(text: str) -> None:
    """Raise ValueError, without secrets, for a text that is neither "none" nor a proxy's URL."""
    if text == NO_PROXY:
        return
    parts = urlsplit(text)
    if parts.scheme.startswith("socks"):
        raise ValueError("is a SOCKS proxy, which is not supported: name one with http://")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('must be a URL that begins with http:// or https://, or "none"')
    _ = parts.port  # raises ValueError for an invalid port


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_header_value(value: str) -> bool:
    return all(char.isprintable() or char == "\t" for char in value)


def _pagination_mistakes(settings: HttpSettings) -> Iterator[Mistake]:
    for name in ("next", "last_record", "more", "end", "total", "pages"):
        if (pointer := getattr(settings.pagination, name, None)) is not None:
            yield from _check_text(f"pagination.{name}", parse_pointer, pointer)
    match settings.pagination:
        case PagePagination(size=size, size_param=size_param):
            if (size is None) != (size_param is None):
                yield "pagination", "size and size_param must be given together"
            if size is not None and size < 1:
                yield "pagination.size", "must be at least 1"
        case OffsetPagination(limit=limit):
            if limit < 1:
                yield "pagination.limit", "must be at least 1"
        case _:
            pass
