"""The `[source]` tables."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta, field
from msgspec.structs import asdict

from asyncbatch.config.options.control import RetryCount, RetryDelay
from asyncbatch.config.options.declare import (
    ApiUrl,
    Bytes,
    Count,
    Delay,
    Name,
    Names,
    Options,
    Origin,
    Path,
    Pointer,
    ProxyUrl,
    Rate,
    Seconds,
    SecretText,
    Time,
)
from asyncbatch.config.options.inputs import InputOptions
from asyncbatch.config.options.streams import FollowOptions, PatternOptions, SimulatorOptions
from asyncbatch.core.records import STDIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.config.options.declare import Contradictions, Given
    from asyncbatch.core.secrets import Secret

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

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


class BearerAuthTable(Options, frozen=True, tag_field="type", tag="bearer"):
    """`Authorization: Bearer …`."""

    token: Annotated[SecretText, Meta(description="The token.")]


class BasicAuthTable(Options, frozen=True, tag_field="type", tag="basic"):
    """`Authorization: Basic …`."""

    username: Annotated[str, Meta(description="The user's name.")]
    password: Annotated[SecretText, Meta(description="The password.")]


class HeaderAuthTable(Options, frozen=True, tag_field="type", tag="header"):
    """A header of any name."""

    name: Annotated[Name, Meta(description="The header's name, such as X-Api-Key.")]
    value: Annotated[SecretText, Meta(description="The header's value.")]


class QueryAuthTable(Options, frozen=True, tag_field="type", tag="query"):
    """A parameter of the URL."""

    name: Annotated[Name, Meta(description="The parameter's name, such as api_key.")]
    value: Annotated[SecretText, Meta(description="The parameter's value.")]


class OAuth2AuthTable(Options, frozen=True, tag_field="type", tag="oauth2"):
    """Access tokens of OAuth2, fetched and renewed as they are needed."""

    token_url: Annotated[Name, Meta(description="The URL that gives access tokens.")]
    client_id: Annotated[Name, Meta(description="The name of the client.")]
    client_secret: Annotated[SecretText | None, Meta(description="The secret of the client.")] = (
        None
    )
    refresh_token: Annotated[
        SecretText | None,
        Meta(description="A refresh token; without it, the client's credentials are the grant."),
    ] = None
    scope: Annotated[Name | None, Meta(description="The scopes, with blanks between them.")] = None
    audience: Annotated[Name | None, Meta(description="The API for which the token is.")] = None
    params: Annotated[
        dict[str, SecretText], Meta(description="Other parameters of the request for a token.")
    ] = field(default_factory=dict)
    client_auth: Annotated[
        Literal["basic", "body"],
        Meta(description="Send the secret of the client as HTTP Basic, or in the body."),
    ] = "basic"


class TlsTable(Options, frozen=True):
    """The certificates of connections."""

    ca: Annotated[
        Name | None,
        Meta(description="A file (PEM) with the only authorities to trust, not the system's."),
    ] = None
    cert: Annotated[
        Name | None, Meta(description="A file (PEM) with the certificate of this client.")
    ] = None
    key: Annotated[
        Name | None, Meta(description="A file (PEM) with its key, if cert has none.")
    ] = None
    key_password: Annotated[
        SecretText | None, Meta(description="The password of an encrypted key.")
    ] = None


class PagePaginationTable(Options, frozen=True, tag_field="type", tag="page"):
    """Pages by number, until one has no records."""

    param: Annotated[Name, Meta(description="The parameter for the number.")] = "page"
    start: Annotated[int, Meta(ge=0, description="The first page's number.")] = 1
    size_param: Annotated[Name | None, Meta(description="The parameter for the size.")] = None
    size: Annotated[Count | None, Meta(description="The number of records in a page.")] = None
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


class OffsetPaginationTable(Options, frozen=True, tag_field="type", tag="offset"):
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


class FollowingTable(Options, frozen=True):
    """The form of the requests after the first one, if it differs."""

    url: Annotated[Name | None, Meta(description="Their URL, which may be relative.")] = None
    body: Annotated[
        dict[str, Any] | None, Meta(description="Their body, in place of the first one's.")
    ] = None


class CursorPaginationTable(Options, frozen=True, tag_field="type", tag="cursor"):
    """Each page has the cursor of the next page, the last page has none."""

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
    following: FollowingTable | None = None
    repeatable: Annotated[
        bool,
        Meta(description="false: the server counts the pages, so none is requested again."),
    ] = True


class NextUrlPaginationTable(Options, frozen=True, tag_field="type", tag="next_url"):
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


class LinkHeaderPaginationTable(Options, frozen=True, tag_field="type", tag="link_header"):
    """The `Link` header has the URL of the next page, with rel="next"."""

    on_repeat: OnRepeat = "fail"


class IncrementalTable(Options, frozen=True):
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


PaginationTable: TypeAlias = (
    PagePaginationTable
    | OffsetPaginationTable
    | CursorPaginationTable
    | NextUrlPaginationTable
    | LinkHeaderPaginationTable
)
Method: TypeAlias = Literal["GET", "POST"]


class ParentTable(Options, frozen=True):
    """The records that the URLs are made of: one request for each, with {field} in `urls`."""

    urls: Annotated[
        tuple[ApiUrl, ...], Meta(min_length=1, description="The URLs of the parents' first pages.")
    ]
    records: Annotated[Pointer, Meta(description="Pointer to the array of parents.")] = ""
    pagination: Annotated[
        PaginationTable | None, Meta(description="The way to the next page of parents.")
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
        urls = [url for url in given.get("urls") or () if url is not None]
        for index, url in enumerate(urls):
            if _user(url):
                yield ("urls", index), "has a user: use auth of the source"
        yield from _request_mistakes(urls, given)


class HttpSourceTable(Options, frozen=True, tag_field="type", tag="http"):
    """Pages of an HTTP API."""

    urls: Annotated[
        tuple[ApiUrl, ...], Meta(min_length=1, description="The URLs of the first pages.")
    ]
    name: Annotated[Name | None, Meta(description="The name of the source, for --only.")] = None
    headers: Annotated[
        dict[str, SecretText], Meta(description="Headers; their values are never shown.")
    ] = field(default_factory=dict)
    auth: Annotated[
        BearerAuthTable
        | BasicAuthTable
        | HeaderAuthTable
        | QueryAuthTable
        | OAuth2AuthTable
        | None,
        Meta(description="Credentials, sent to the origins of `urls` only."),
    ] = None
    records: Annotated[
        Pointer,
        Meta(description="Pointer to the array of records; without it, the whole page."),
    ] = ""
    format: Annotated[
        Literal["auto", "json", "jsonl", "csv"],
        Meta(description="The format of every page; auto uses the content type."),
    ] = "auto"
    pagination: Annotated[
        PaginationTable | None,
        Meta(description="The way to the next page; without it, there is one page."),
    ] = None
    timeout: Annotated[Seconds, Meta(description="The time limit of a request, in seconds.")] = 30.0
    retries: Annotated[
        int,
        Meta(ge=0, description="Retries after a network error, or status 408, 425, 429 or 5xx."),
    ] = 5
    retry_delay: Annotated[
        Seconds,
        Meta(description="Seconds before the first retry; each further one waits twice as long."),
    ] = 0.5
    longest_wait: Annotated[
        Seconds, Meta(description="The longest wait that a server may ask for, in seconds.")
    ] = 300.0
    rate_limit: Annotated[
        Rate | None, Meta(description="The request rate for each host: 20/s, 100/m, 1000/h.")
    ] = None
    concurrency: Annotated[Count, Meta(description="The number of requests at the same time.")] = 8
    incremental: IncrementalTable | None = None
    max_pages: Annotated[
        Count, Meta(description="The limit of pages for one URL; more are a failure.")
    ] = 100_000
    max_body: Annotated[Bytes, Meta(description="The size limit of a page: 64MiB.")] = 64 * 2**20
    allow_origins: Annotated[
        tuple[Origin, ...], Meta(description="Other origins that next pages may come from.")
    ] = ()
    tls: TlsTable | None = None
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
    parent: ParentTable | None = None

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        auth, pagination = given.get("auth"), given.get("pagination")
        names = {name.lower(): name for name in given.get("headers") or ()}
        is_authorization = isinstance(auth, BearerAuthTable | BasicAuthTable | OAuth2AuthTable)
        header = "Authorization" if is_authorization else None
        if isinstance(auth, HeaderAuthTable):
            header = auth.name
        if header is not None and header.lower() in names:
            path = ("headers", names[header.lower()])
            yield path, "auth also sends this header: choose one"
        for name in names.values():
            if not _HEADER.fullmatch(name):
                yield ("headers", name), "is not the name of a header"
        page_param = getattr(pagination, "param", None)
        if isinstance(auth, QueryAuthTable) and auth.name == page_param:
            yield ("auth", "name"), f"pagination also has the parameter {page_param!r}"
        yield from _access_mistakes(auth, given.get("tls"), given.get("proxy"))
        if given.get("conditional"):
            from asyncbatch.sources.http.settings import conditional_mistakes

            yield from ((("conditional",), text) for _, text in conditional_mistakes(given))
        urls = [url for url in given.get("urls") or () if url is not None]
        yield from _request_mistakes(urls, given)
        if auth is None and len(set(map(_user, urls))) > 1:
            yield (
                ("urls",),
                "have different users, or only some have a user: use auth, or two sources",
            )
        seen: set[object] = set()
        for index, url in enumerate(given.get("urls") or ()):
            if url is not None and url in seen:
                yield ("urls", index), "is listed twice: its records would be doubled"
            seen.add(url)
            if url is not None and auth is not None and _user(url):
                yield ("urls", index), "has a user, and auth has credentials: choose one"


class FilesSourceTable(InputOptions, frozen=True, kw_only=True, tag_field="type", tag="files"):
    """Files, as `asyncbatch run` takes them: the keys are its options."""

    paths: Annotated[
        tuple[Name, ...], Meta(description="Folders, files, globs, URLs, or - for standard input.")
    ] = ()
    name: Annotated[Name | None, Meta(description="The name of the source, for --only.")] = None
    retries: RetryCount | None = None
    retry_delay: RetryDelay = 0.2

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        paths = given.get("paths", ())
        if paths == () and "files_from" not in given:
            yield ("paths",), "name a folder, a file or a glob, or give files_from"
        if (paths or ()).count(STDIN) + (given.get("files_from") == STDIN) > 1:
            yield ("paths",), "standard input ('-') can be read only once"
        if given.get("null") and "files_from" not in given:
            yield ("null",), "is only for files_from"
        if given.get("unit") == "file" and "records" in given:
            yield (
                ("records",),
                'reads parts of documents, but unit = "file" reads whole ones: choose one',
            )


def _access_mistakes(
    auth: Options | None, tls: TlsTable | None, proxy: Secret | None
) -> Contradictions:
    """Yield the mistakes of the access to a server, also of the files with certificates."""
    if not isinstance(auth, OAuth2AuthTable) and tls is None and proxy is None:
        return
    from asyncbatch.sources.http.settings import OAuth2Auth, access_mistakes
    from asyncbatch.sources.http.tls import TlsSettings

    found = access_mistakes(
        OAuth2Auth(**asdict(auth)) if isinstance(auth, OAuth2AuthTable) else None,
        None if tls is None else TlsSettings(**asdict(tls)),
        proxy,
    )
    yield from ((tuple(where.split(".")), advice) for where, advice in found)


def _request_mistakes(urls: Sequence[Secret], given: Given) -> Contradictions:
    from asyncbatch.sources.http.request_mistakes import request_mistakes

    yield from request_mistakes([url.reveal() for url in urls], given)


def _user(url: Secret) -> str:
    return urlsplit(url.reveal()).netloc.rpartition("@")[0]


SourceTable: TypeAlias = HttpSourceTable | FilesSourceTable


class EventFilesTable(PatternOptions, frozen=True, kw_only=True, tag_field="type", tag="files"):
    """Files and folders of JSON Lines, as `asyncbatch stream` takes them."""

    paths: Annotated[Names, Meta(description="Files, folders, or - for standard input.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        paths = given.get("paths") or ()
        for index, path in enumerate(paths):
            if path is not None and path in paths[:index]:
                yield ("paths", index), "is listed twice: each source is read once"
        yield from _need_follow(given)


class EventFileTable(FollowOptions, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """A file of JSON Lines, read to its end or followed."""

    path: Annotated[Name, Meta(description="The path of the file.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        path = given.get("path")
        if path == STDIN:
            yield ("path",), 'is standard input: write type = "stdin", without a path'
        elif path is not None and os.path.isdir(path):
            yield ("path",), 'is a folder: write type = "folder"'
        yield from _need_follow(given)


class EventFolderTable(PatternOptions, frozen=True, kw_only=True, tag_field="type", tag="folder"):
    """A folder of JSON Lines, read file by file; with `follow` also new files."""

    path: Annotated[Name, Meta(description="The path of the folder.")]

    @classmethod
    def contradictions(cls, given: Given) -> Contradictions:
        path = given.get("path")
        if path is not None and os.path.exists(path) and not os.path.isdir(path):
            yield ("path",), 'is not a folder: write type = "file"'
        yield from _need_follow(given)


def _need_follow(given: Given) -> Contradictions:
    if given.get("from_end") and not given.get("follow"):
        yield ("from_end",), "needs follow = true"


class EventStdinTable(Options, frozen=True, tag_field="type", tag="stdin"):
    """Standard input: JSON Lines."""


class SimulatedTable(SimulatorOptions, frozen=True, kw_only=True, tag_field="type", tag="simulate"):
    """Example events, in real time."""


EventSourceTable: TypeAlias = (
    EventFilesTable | EventFileTable | EventFolderTable | EventStdinTable | SimulatedTable
)


def event_paths(table: EventSourceTable) -> tuple[str, ...]:
    """Return the paths of a source, with - for standard input."""
    match table:
        case EventFilesTable():
            return table.paths
        case EventFileTable() | EventFolderTable():
            return (table.path,)
        case EventStdinTable():
            return (STDIN,)
        case SimulatedTable():
            return ()
