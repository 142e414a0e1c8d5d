"""The settings of an HTTP source: of a program, and of a `[source]` table. Imports no aiohttp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta, field, structs

from asyncbatch.core.options import (
    Bytes,
    Count,
    Delay,
    Name,
    Options,
    Origin,
    Path,
    PlainUrl,
    Pointer,
    ProxyUrl,
    Rate,
    Seconds,
    SecretText,
    Time,
)
from asyncbatch.core.secrets import Secret
from asyncbatch.sources.http.access.credentials import Auth, QueryAuth, credential_mistakes
from asyncbatch.sources.http.access.tls import TlsSettings
from asyncbatch.sources.http.request_mistakes import request_mistakes
from asyncbatch.sources.http.setting_checks import check_proxy, table_mistakes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.options import Contradictions, Given

Status: TypeAlias = Annotated[int, Meta(ge=100)]
More: TypeAlias = Annotated[
    Pointer | None, Meta(description="Pointer to a value that is true while more pages follow.")
]
End: TypeAlias = Annotated[
    Pointer | None, Meta(description="Pointer to a value that is true on the last page.")
]
NextHeader: TypeAlias = Annotated[
    Name | None, Meta(description="The header of an answer, in place of next.")
]
ParameterPlace: TypeAlias = Annotated[
    Literal["query", "body", "header"],
    Meta(description="The place of the parameter. In a body it may be a pointer."),
]
OnRepeat: TypeAlias = Annotated[
    Literal["fail", "end", "load"],
    Meta(description="A page with the records of an earlier one: fail, end the pages, or load it."),
]
Method: TypeAlias = Literal["GET", "POST"]


class PagePagination(Options, frozen=True, tag_field="type", tag="page"):
    """Pages by number, until one has no records."""

    param: Annotated[Name, Meta(description="The parameter for the number.")] = "page"
    start: Annotated[int, Meta(ge=0, description="The first page's number.")] = 1
    size_param: Annotated[Name | None, Meta(description="The parameter for the size.")] = None
    size: Annotated[Count | None, Meta(description="The number of records in a page.")] = None
    # Each of these saves the request for the page after the last one.
    total: Annotated[
        Pointer | None, Meta(description="Pointer to the total number of records.")
    ] = None
    pages: Annotated[Pointer | None, Meta(description="Pointer to the number of pages.")] = None
    end_status: Annotated[
        Status | None, Meta(description="The status of a page after the last: 404.")
    ] = None
    more: More = None
    on_repeat: OnRepeat = "fail"
    end: End = None
    param_in: ParameterPlace = "query"

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if "size_param" in given and "size" not in given:
            yield ("size_param",), "needs size: the number of records in a page"
        if "size" in given and "size_param" not in given:
            yield ("size",), "needs size_param: the parameter that asks for this size"


class OffsetPagination(Options, frozen=True, tag_field="type", tag="offset"):
    """Pages by the number of records before, until one has no records."""

    param: Annotated[Name, Meta(description="The parameter for the offset.")] = "offset"
    limit_param: Annotated[Name, Meta(description="The parameter for the limit.")] = "limit"
    limit: Annotated[Count, Meta(description="The number of records in a page.")] = 100
    start: Annotated[int, Meta(ge=0, description="The first page's offset.")] = 0
    total: Annotated[
        Pointer | None, Meta(description="Pointer to the total number of records.")
    ] = None
    end_status: Annotated[
        Status | None, Meta(description="The status of a page after the last: 404.")
    ] = None
    more: More = None
    on_repeat: OnRepeat = "fail"
    end: End = None
    param_in: ParameterPlace = "query"


class FollowingRequest(Options, frozen=True):
    """The form of the requests after the first one, if it differs."""

    url: Annotated[Name | None, Meta(description="Their URL, which may be relative.")] = None
    body: Annotated[
        dict[str, Any] | None, Meta(description="Their body, in place of the first one's.")
    ] = None


class CursorPagination(Options, frozen=True, tag_field="type", tag="cursor"):
    """Each page has the cursor of the next page, the last page has none.

    No cursor is also null, false, 0 and an empty text; with `last_record`, a page without records.
    """

    next: Annotated[Pointer | None, Meta(description="Pointer to the next cursor in a page.")] = (
        None
    )
    param: Annotated[Name, Meta(description="The parameter for the cursor.")] = "cursor"
    more: More = None
    on_repeat: OnRepeat = "fail"
    end: End = None
    next_header: NextHeader = None
    last_record: Annotated[
        Pointer | None,
        Meta(description="Pointer to the cursor in the last record of a page, in place of next."),
    ] = None
    param_in: ParameterPlace = "query"
    following: FollowingRequest | None = None
    repeatable: Annotated[
        bool,
        Meta(description="false: the server counts the pages, so none is requested again."),
    ] = True


class NextUrlPagination(Options, frozen=True, tag_field="type", tag="next_url"):
    """Each page has the URL of the next page, the last page has none."""

    next: Annotated[Pointer | None, Meta(description="Pointer to the next URL in a page.")] = None
    more: More = None
    on_repeat: OnRepeat = "fail"
    end: End = None
    next_header: NextHeader = None
    base: Annotated[
        Name | None,
        Meta(description="The start of relative links: a URL, or a pointer to it in a page."),
    ] = None


class LinkHeaderPagination(Options, frozen=True, tag_field="type", tag="link_header"):
    """The `Link` header has the URL of the next page, with rel="next"."""

    on_repeat: OnRepeat = "fail"


Pagination: TypeAlias = (
    PagePagination | OffsetPagination | CursorPagination | NextUrlPagination | LinkHeaderPagination
)


class Incremental(Options, frozen=True):
    """Requests only for records newer than those of the last run."""

    field: Annotated[Path, Meta(description="The field whose largest value is stored.")]
    param: Annotated[
        Name | None,
        Meta(description="The parameter for the largest value; without it, {{ since }} has it."),
    ] = None
    initial: Annotated[Time | None, Meta(description="The value for the first run.")] = None
    type: Annotated[
        Literal["number", "time", "text"] | None,
        Meta(description="Compare values as this; by default, as the first run finds them."),
    ] = None
    # None: a day after now, for times with a zone.
    max: Annotated[
        Time | None,
        Meta(description="The largest value to store: a number, a time, or now."),
    ] = None
    lag: Annotated[
        Delay,
        Meta(description="Begin the next run this much before the stored value: 5m, or a number."),
    ] = 0.0
    param_in: ParameterPlace = "query"

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        if given.get("lag") and given.get("type") == "text":
            yield ("lag",), 'needs numbers or times: it cannot be combined with type = "text"'


class ParentRequests(Options, frozen=True):
    """The records that the URLs are made of: one request for each, with {field} in `urls`.

    The other settings of their requests are those of the source.
    """

    urls: Annotated[
        tuple[PlainUrl, ...],
        Meta(min_length=1, description="The URLs of the parents' first pages."),
    ]
    records: Annotated[Pointer, Meta(description="Pointer to the array of parents.")] = ""
    pagination: Annotated[
        Pagination | None, Meta(description="The way to the next page of parents.")
    ] = None
    fields: Annotated[
        dict[str, Path],
        Meta(description="Fields that each record gets: the path in its parent, by name."),
    ] = field(default_factory=dict)
    method: Annotated[Method | None, Meta(description="The method; see the source's.")] = None
    body: Annotated[
        dict[str, Any] | None, Meta(description="The JSON body of the requests for parents.")
    ] = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        yield from request_mistakes(given_urls(given), given)


class RequestSettings(Options, frozen=True, kw_only=True):
    """The options of the requests to an HTTP API."""

    headers: Annotated[
        dict[str, SecretText], Meta(description="Headers; their values are never shown.")
    ] = field(default_factory=dict)
    auth: Annotated[
        Auth | None, Meta(description="Credentials, sent to the origins of `urls` only.")
    ] = None
    records: Annotated[
        Pointer,
        Meta(description="Pointer to the array of records; without it, the whole page."),
    ] = ""
    pagination: Annotated[
        Pagination | None,
        Meta(description="The way to the next page; without it, there is one page."),
    ] = None
    format: Annotated[
        Literal["auto", "json", "jsonl", "csv"],
        Meta(description="The format of every page; auto uses the content type."),
    ] = "auto"
    # Of a whole body, or of each read of streamed JSON Lines.
    timeout: Annotated[Seconds, Meta(description="The time limit of a request, in seconds.")] = 30.0
    retries: Annotated[
        int,
        Meta(ge=0, description="Retries after a network error, or status 408, 425, 429 or 5xx."),
    ] = 5
    retry_delay: Annotated[
        Delay,
        Meta(description="Seconds before the first retry; each further one waits twice as long."),
    ] = 0.5
    longest_wait: Annotated[
        Delay, Meta(description="The longest wait that a server may ask for, in seconds.")
    ] = 300.0
    rate_limit: Annotated[
        Rate | None, Meta(description="The request rate for each host: 20/s, 100/m, 1000/h.")
    ] = None
    concurrency: Annotated[Count, Meta(description="The number of requests at the same time.")] = 8
    incremental: Incremental | None = None
    max_pages: Annotated[
        Count, Meta(description="The limit of pages for one URL; more are a failure.")
    ] = 100_000
    # Decompressed bytes of a whole body, or of one line of JSON Lines.
    max_body: Annotated[Bytes, Meta(description="The size limit of a page: 64MiB.")] = 64 * 2**20
    # They receive no credentials.
    allow_origins: Annotated[
        tuple[Origin, ...], Meta(description="Other origins that next pages may come from.")
    ] = ()
    tls: TlsSettings | None = None
    proxy: Annotated[
        ProxyUrl | None,
        Meta(description="The URL of a proxy, or none; by default, as the environment says."),
    ] = None
    conditional: Annotated[
        bool, Meta(description="Read a body again only if its ETag or Last-Modified has changed.")
    ] = False
    method: Annotated[
        Method | None,
        Meta(description="The method of the requests; by default POST with a body, else GET."),
    ] = None
    body: Annotated[
        dict[str, Any] | None,
        Meta(description="The JSON body of the requests; a text `query` makes it GraphQL."),
    ] = None
    key_field: Annotated[
        Name | None,
        Meta(description="The records are the values of an object; this field gets their keys."),
    ] = None
    parent: ParentRequests | None = None
    # The loader of pipeline files adds the values of ${file:…} and of other secrets.
    hidden: Annotated[
        tuple[SecretText, ...],
        Meta(description="Secrets in urls and body, which are never shown; also all of ${file:…}."),
    ] = ()

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        auth, pagination = given.get("auth"), given.get("pagination")
        yield from credential_mistakes(auth, given.get("headers") or {}, given.get("tls"))
        page_param = getattr(pagination, "param", None)
        if isinstance(auth, QueryAuth) and auth.name == page_param:
            yield ("auth", "name"), f"pagination also has the parameter {page_param!r}"
        if given.get("proxy") is not None:
            try:
                check_proxy(given["proxy"].reveal())
            except ValueError as error:
                yield ("proxy",), str(error)
        if given.get("conditional"):
            for name, reason in _NOT_CONDITIONAL.items():
                if given.get(name) is not None:
                    yield ("conditional",), f"excludes {name}: {reason}"
        yield from request_mistakes(given_urls(given), given)


class HttpSettings(RequestSettings, frozen=True):
    """The URLs to read, and the options of their requests. Check with `setting_mistakes`."""

    urls: Annotated[tuple[PlainUrl, ...], Meta(min_length=1)]  # may have templates: {{ since }}


CONDITIONAL_SINK = (
    "needs a database with a key and the mode upsert as its sink: an unchanged body leaves its "
    "rows as they are, a changed one replaces them"
)
_NOT_CONDITIONAL = {
    "pagination": "only the first page would tell of changes",
    "incremental": "choose one way to ask for what is new",
    "body": "a server tells of changes only in answer to a GET",
    "parent": "each of its records leads to another URL",
}


def setting_mistakes(settings: HttpSettings) -> Iterator[tuple[str, str]]:
    """Yield each mistake: its key path, for instance `urls[0]`, and advice.

    No message contains a secret.
    """
    for path, advice in table_mistakes(settings):
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
        yield where.removeprefix("."), advice


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


def given_urls(given: Given) -> Sequence[str]:
    """Return the valid ones of `urls`."""
    urls = (url for url in given.get("urls") or () if url is not None)
    return [url.reveal() if isinstance(url, Secret) else url for url in urls]
