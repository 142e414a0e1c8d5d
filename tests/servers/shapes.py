"""The shapes of public APIs, as their documentation describes them: small handlers for `ApiServer`.

Each gives its records in pages of three. `SHAPES` has the source of a pipeline file for each.
"""

from __future__ import annotations

import csv
import json
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.servers.api import Handler

SIZE = 3
COUNT = 10

Answer = tuple[Any, dict[str, str]]


class Asked(NamedTuple):
    """A request as a handler sees it."""

    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    origin: str


class Shape(NamedTuple):
    """An API: how its records look, how it answers, and the source that reads it."""

    record: Callable[[int], dict[str, Any]]
    paths: Sequence[str]
    answer: Callable[[Asked, Sequence[Any]], Any]
    source: str
    id_path: str = "id"


def routes_of(shape: Shape, count: int = COUNT) -> dict[str, Handler]:
    """Return the routes of an API with `count` records."""
    records = [shape.record(number) for number in range(count)]

    async def handle(request: web.Request) -> web.Response:
        text = await request.read()
        asked = Asked(
            request.path, request.query, json.loads(text) if text else None, request.headers,
            f"http://{request.host}",
        )  # fmt: skip
        if text and request.content_type != "application/json":
            return web.Response(status=415)
        answer = shape.answer(asked, records)
        if isinstance(answer, web.Response):
            return answer
        found, headers = answer if isinstance(answer, tuple) else (answer, {})
        return web.json_response(found, headers=headers)

    return dict.fromkeys(shape.paths, handle)


def _plain(number: int) -> dict[str, Any]:
    return {"id": f"id-{number}"}


def _page(records: Sequence[Any], at: int, size: int = SIZE) -> tuple[Sequence[Any], int | None]:
    """Return a page of records, and the place of the next page, None after the last."""
    following = at + size
    return records[at:following], following if following < len(records) else None


def _place_after(records: Sequence[Any], key: Any, of: Callable[[Any], Any]) -> int:
    return 0 if key is None else 1 + [of(record) for record in records].index(key)


def _notion(asked: Asked, records: Sequence[Any]) -> Any:
    at = int((asked.body.get("start_cursor") or "cursor-0").removeprefix("cursor-"))
    page, following = _page(records, at, asked.body["page_size"])
    return {
        "object": "list",
        "results": page,
        "next_cursor": None if following is None else f"cursor-{following}",
        "has_more": following is not None,
    }


def _graphql(asked: Asked, records: Sequence[Any]) -> Any:
    variables = asked.body["variables"]
    assert "query" in asked.body
    assert variables["owner"] == "ada"
    at = int((variables.get("after") or "Y3Vyc29y0").removeprefix("Y3Vyc29y"))
    page, following = _page(records, at, variables["first"])
    # The last page has a cursor, too.
    info = {"hasNextPage": following is not None, "endCursor": f"Y3Vyc29y{following or 0}"}
    return {"data": {"repository": {"issues": {"nodes": page, "pageInfo": info}}}}


def _stripe(asked: Asked, records: Sequence[Any]) -> Any:
    at = _place_after(records, asked.query.get("starting_after"), lambda record: record["id"])
    page, following = _page(records, at, int(asked.query["limit"]))
    return {"object": "list", "url": asked.path, "has_more": following is not None, "data": page}


def _salesforce(asked: Asked, records: Sequence[Any]) -> Any:
    at = 0 if asked.path.endswith("/query") else int(asked.path.rpartition("-")[2])
    page, following = _page(records, at)
    answer = {"totalSize": len(records), "done": following is None, "records": page}
    if following is not None:
        answer["nextRecordsUrl"] = f"/services/data/v60.0/query/01g-{following}"
    return answer


def _hit(number: int) -> dict[str, Any]:
    # A sort value that a float cannot hold.
    return {"_source": {"id": f"id-{number}"}, "sort": [9_007_199_254_740_993 + number, "x"]}


def _search_after(asked: Asked, records: Sequence[Any]) -> Any:
    assert asked.body["sort"] == [{"at": "asc"}, {"_id": "asc"}]
    at = _place_after(records, asked.body.get("search_after"), lambda record: record["sort"])
    page, _ = _page(records, at, asked.body["size"])
    return {"took": 1, "hits": {"total": {"value": len(records)}, "hits": page}}


class _Scroll:
    """A search whose server counts the pages, so that the same request has other answers."""

    def __init__(self) -> None:
        self.at = 0

    def __call__(self, asked: Asked, records: Sequence[Any]) -> Any:
        if asked.path == "/index/_search":
            assert (asked.query["scroll"], asked.body["size"]) == ("1m", SIZE)
            self.at = 0
        else:
            assert asked.body == {"scroll": "1m", "scroll_id": "DXF1ZXJ5"}
        page, _ = _page(records, self.at)
        self.at += SIZE
        return {"_scroll_id": "DXF1ZXJ5", "hits": {"hits": page}}


def _zendesk(asked: Asked, records: Sequence[Any]) -> Any:
    if "cursor" not in asked.query:
        assert asked.query["start_time"] == "1577836800"
    at = int(asked.query.get("cursor", 0))
    page, following = _page(records, at)
    # The last page has a URL, too: that of the next export.
    after = f"{asked.origin}{asked.path}?cursor={len(records) if following is None else following}"
    return {"tickets": page, "after_url": after, "end_of_stream": following is None}


def _confluence(asked: Asked, records: Sequence[Any]) -> Any:
    page, following = _page(records, int(asked.query.get("start", 0)))
    links = {"base": f"{asked.origin}/wiki", "context": "/wiki"}
    if following is not None:
        links["next"] = f"/rest/api/content?start={following}"
    return {"results": page, "size": len(page), "_links": links}


def _google(asked: Asked, records: Sequence[Any]) -> Any:
    page, following = _page(records, int(asked.query.get("pageToken", "token-0")[6:]))
    return {"files": page} | ({} if following is None else {"nextPageToken": f"token-{following}"})


def _hubspot(asked: Asked, records: Sequence[Any]) -> Any:
    page, following = _page(records, int(asked.body.get("after", 0)), asked.body["limit"])
    paging = {} if following is None else {"paging": {"next": {"after": str(following)}}}
    return {"total": len(records), "results": page, **paging}


def _cosmos(asked: Asked, records: Sequence[Any]) -> Answer:
    page, following = _page(records, int(asked.headers.get("x-ms-continuation", 0)))
    headers = {} if following is None else {"x-ms-continuation": str(following)}
    return {"Documents": page, "_count": len(page)}, headers


def _jira(asked: Asked, records: Sequence[Any]) -> Any:
    page, following = _page(records, asked.body["startAt"], asked.body["maxResults"])
    return {"issues": page, "isLast": following is None}


def _firebase(asked: Asked, records: Sequence[Any]) -> Any:
    page, following = _page(records, int(asked.query.get("startAt", 0)))
    found = {str(record["id"]): {"name": record["name"]} for record in page}
    return {"users": found, "next": following}


def _csv(asked: Asked, records: Sequence[Any]) -> web.Response:
    page, following = _page(records, int(asked.query.get("after", 0)))
    rows = StringIO()
    csv.writer(rows).writerows([["id", "name"], *(record.values() for record in page)])
    links = {} if following is None else {"Link": f'<{asked.path}?after={following}>; rel="next"'}
    text = rows.getvalue().encode("utf-16")  # which has a byte order mark
    return web.Response(body=text, headers={"Content-Type": "text/csv; charset=utf-16", **links})


def _ndjson(asked: Asked, records: Sequence[Any]) -> web.Response:
    page, following = _page(records, int(asked.query.get("cursor", 0)))
    text = "".join(json.dumps(record) + "\n" for record in page).encode()
    headers = {} if following is None else {"X-Next-Cursor": str(following)}
    return web.Response(body=text, headers={"Content-Type": "application/x-ndjson", **headers})


def _named(number: int) -> dict[str, Any]:
    return {"id": f"id-{number}", "name": f'ada, "{number}"\nlovelace' if number == 4 else "ada"}


SHAPES = {
    "notion": Shape(
        _plain, ["/v1/databases/d/query"], _notion,
        """
        urls = ["{origin}/v1/databases/d/query"]
        body = {{ page_size = 3, filter = {{ property = "Done", checkbox = {{ equals = true }} }} }}
        records = "/results"
        [source.pagination]
        type = "cursor"
        next = "/next_cursor"
        more = "/has_more"
        param = "start_cursor"
        param_in = "body"
        """,
    ),
    "github graphql": Shape(
        _plain, ["/graphql"], _graphql,
        """
        urls = ["{origin}/graphql"]
        records = "/data/repository/issues/nodes"
        [source.body]
        query = '''query($owner: String!, $first: Int!, $after: String) {{
          repository(owner: $owner, name: "engine") {{
            issues(first: $first, after: $after) {{
              nodes {{ id }} pageInfo {{ hasNextPage endCursor }}
            }}
          }}
        }}'''
        variables = {{ owner = "ada", first = 3 }}
        [source.pagination]
        type = "cursor"
        next = "/data/repository/issues/pageInfo/endCursor"
        more = "/data/repository/issues/pageInfo/hasNextPage"
        param = "/variables/after"
        param_in = "body"
        """,
    ),
    "stripe": Shape(
        _plain, ["/v1/charges"], _stripe,
        """
        urls = ["{origin}/v1/charges?limit=3"]
        records = "/data"
        [source.pagination]
        type = "cursor"
        last_record = "/id"
        more = "/has_more"
        param = "starting_after"
        """,
    ),
    "salesforce": Shape(
        _plain, ["/services/data/v60.0/query", "/services/data/v60.0/query/{at}"], _salesforce,
        """
        urls = ["{origin}/services/data/v60.0/query?q=SELECT+Id+FROM+Account"]
        records = "/records"
        pagination = {{ type = "next_url", next = "/nextRecordsUrl", end = "/done" }}
        """,
    ),
    "elasticsearch search_after": Shape(
        _hit, ["/index/_search"], _search_after,
        """
        urls = ["{origin}/index/_search"]
        records = "/hits/hits"
        [source.body]
        size = 3
        sort = [{{ at = "asc" }}, {{ _id = "asc" }}]
        [source.pagination]
        type = "cursor"
        last_record = "/sort"
        param = "search_after"
        param_in = "body"
        """,
        "_source.id",
    ),
    "elasticsearch scroll": Shape(
        _hit, ["/index/_search", "/_search/scroll"], _Scroll(),
        """
        urls = ["{origin}/index/_search?scroll=1m"]
        records = "/hits/hits"
        body = {{ size = 3 }}
        [source.pagination]
        type = "cursor"
        next = "/_scroll_id"
        param = "scroll_id"
        param_in = "body"
        following = {{ url = "/_search/scroll", body = {{ scroll = "1m" }} }}
        repeatable = false
        """,
        "_source.id",
    ),
    "zendesk": Shape(
        _plain, ["/api/v2/incremental/tickets/cursor.json"], _zendesk,
        """
        urls = ["{origin}/api/v2/incremental/tickets/cursor.json?start_time={{{{ since | unix }}}}"]
        records = "/tickets"
        pagination = {{ type = "next_url", next = "/after_url", end = "/end_of_stream" }}
        incremental = {{ field = "updated_at", initial = "2020-01-01T00:00:00Z" }}
        """,
    ),
    "confluence": Shape(
        _plain, ["/wiki/rest/api/content"], _confluence,
        """
        urls = ["{origin}/wiki/rest/api/content"]
        records = "/results"
        pagination = {{ type = "next_url", next = "/_links/next", base = "/_links/base" }}
        """,
    ),
    "google": Shape(
        _plain, ["/drive/v3/files"], _google,
        """
        urls = ["{origin}/drive/v3/files"]
        records = "/files"
        pagination = {{ type = "cursor", next = "/nextPageToken", param = "pageToken" }}
        """,
    ),
    "hubspot": Shape(
        _plain, ["/crm/v3/objects/contacts/search"], _hubspot,
        """
        urls = ["{origin}/crm/v3/objects/contacts/search"]
        body = {{ limit = 3, properties = ["email"] }}
        records = "/results"
        [source.pagination]
        type = "cursor"
        next = "/paging/next/after"
        param = "after"
        param_in = "body"
        """,
    ),
    "azure cosmos": Shape(
        _plain, ["/dbs/d/colls/c/docs"], _cosmos,
        """
        urls = ["{origin}/dbs/d/colls/c/docs"]
        records = "/Documents"
        [source.pagination]
        type = "cursor"
        next_header = "x-ms-continuation"
        param = "x-ms-continuation"
        param_in = "header"
        """,
    ),
    "jira": Shape(
        _plain, ["/rest/api/2/search"], _jira,
        """
        urls = ["{origin}/rest/api/2/search"]
        body = {{ jql = "project = X" }}
        records = "/issues"
        [source.pagination]
        type = "offset"
        param = "startAt"
        limit_param = "maxResults"
        limit = 3
        param_in = "body"
        end = "/isLast"
        """,
    ),
    "records by key": Shape(
        _named, ["/users.json"], _firebase,
        """
        urls = ["{origin}/users.json"]
        records = "/users"
        key_field = "id"
        pagination = {{ type = "cursor", next = "/next", param = "startAt" }}
        """,
    ),
    "csv": Shape(
        _named, ["/export.csv"], _csv,
        """
        urls = ["{origin}/export.csv"]
        pagination = {{ type = "link_header" }}
        """,
    ),
    "ndjson": Shape(
        _named, ["/export.ndjson"], _ndjson,
        """
        urls = ["{origin}/export.ndjson"]
        pagination = {{ type = "cursor", next_header = "X-Next-Cursor" }}
        """,
    ),
}  # fmt: skip
