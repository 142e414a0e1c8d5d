"""Answers of APIs: the end is where they say it is, and an error is never taken for a page."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.sources.http.base import HttpError, PageMark
from asyncbatch.sources.http.settings import (
    CursorPagination,
    HttpSettings,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
)
from asyncbatch.sources.http.source import HttpSource
from tests.servers.api import ApiServer, body, read, status, value

KINDS = {
    "/page": PagePagination(),
    "/offset": OffsetPagination(limit=3),
    "/cursor": CursorPagination(next="/next_cursor"),
    "/next_url": NextUrlPagination(next="/links/next"),
    "/link_header": LinkHeaderPagination(),
}
CHAINS = ["/cursor", "/next_url", "/link_header"]
ERRORS: list[Any] = [
    {"error": {"code": 17}},
    {"ok": False, "error": "ratelimited"},
    {"message": "Server Error", "code": "internal"},
    {"success": False},
    {"status": "error", "items": None},
    {"items": [], "errors": [{"message": "no"}]},
    {"detail": "Not now"},
    {"ok": False, "error": "missing_scope", "needed": "channels:read"},
    "no",
    {},
]


@pytest.fixture
def api():
    with ApiServer(range(10), size=3) as server:
        yield server


@pytest.fixture(scope="module")
def shared_api():
    allow_deep_nesting()
    with ApiServer() as server:
        yield server


def settings_for(api, path, pagination=None, **more):
    records = "" if path == "/link_header" else "/items"
    usual: dict[str, Any] = {
        "urls": (api.url(path),),
        "pagination": pagination or KINDS[path],
        "records": records,
        "retries": 0,
    }
    return HttpSettings(**usual | more)


async def outcome_of(settings, **more):
    """Return the records that came, the failure if there was one, and the warnings."""
    found: list[Any] = []
    async with HttpSource(settings) as source:
        try:
            async for page in source.pages(settings.urls[0], **more):
                decoded = json.loads(page.body)
                found += decoded if isinstance(decoded, list) else decoded["items"]
        except HttpError as error:
            return found, error.failure, source.take_notes()
        return found, None, source.take_notes()


def usual(times):
    """Let the next requests be answered as usual."""

    async def behave(_):
        return None

    return behave, times


def script(api, answers, **headers):
    """Answer one request after another with these values, by their JSON."""
    for answer in answers:
        api.misbehave(value(answer, **headers))


# Errors with a status of success


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("answer", ERRORS, ids=json.dumps)
async def test_an_error_in_the_place_of_a_page_is_a_failure(api, path, answer):
    behave, _ = usual(1)
    api.misbehave(behave)
    api.misbehave(value(answer))
    found, failure, _ = await outcome_of(settings_for(api, path, concurrency=1))
    assert found == [0, 1, 2]
    assert failure is not None
    assert failure.reason == "no_records"


@pytest.mark.parametrize("path", KINDS)
async def test_the_error_is_told(api, path):
    api.misbehave(value({"ok": False, "error": "missing_scope"}))
    found, failure, _ = await outcome_of(settings_for(api, path))
    assert found == []
    assert failure is not None
    assert "ok is false, error is missing_scope" in failure.message
    assert '{"ok": false' in failure.body


async def test_a_long_error_is_cut(api):
    api.misbehave(value({"error": "x" * 5000}))
    _, failure, _ = await outcome_of(settings_for(api, "/cursor"))
    assert failure is not None
    assert len(failure.message) < 600


@pytest.mark.parametrize("path", CHAINS)
async def test_an_error_where_another_run_goes_on_is_a_failure(api, path):
    settings = settings_for(api, path)
    marks = [page.mark for page in await read(settings)]
    api.misbehave(value({"message": "Server Error", "more": "of it"}))
    found, failure, _ = await outcome_of(settings, start=marks[0])
    assert found == []
    assert failure is not None
    assert failure.reason == "no_records"


async def test_pages_that_are_one_object_are_records_as_long_as_they_are_no_error(api):
    pages = [
        {"message": "hello", "code": 1},
        {"message": "bye", "code": 2},
        {"message": "", "code": 3},
    ]
    for number, page in enumerate(pages):
        link = {"Link": f"</link_header?at={number}>; rel=next"} if number < 2 else {}
        api.misbehave(value({**page, "id": number} if number == 0 else page, **link))
    settings = settings_for(api, "/link_header")
    with pytest.raises(HttpError, match="message is bye"):
        await read(settings)
    api.forget()
    api.misbehave(value({"id": 1}, Link="</link_header?at=2>; rel=next"))
    api.misbehave(value({"id": 2, "ok": False}))
    assert [json.loads(page.body)["id"] for page in await read(settings)] == [1, 2]


async def test_one_page_alone_may_be_any_value(api):
    answers: list[Any] = [{"ok": False, "error": "down"}, 5, "x", []]
    for answer in answers:
        api.misbehave(value(answer))
        (page,) = await read(HttpSettings((api.url("/echo"),)))
        assert json.loads(page.body) == answer
    api.misbehave(value({"error": "down"}))
    with pytest.raises(HttpError, match="error is down"):
        await read(HttpSettings((api.url("/echo"),), records="/items"))


@pytest.mark.parametrize("path", [*KINDS, "/echo"])
async def test_null_is_no_records(api, path):
    answer: Any = None if path == "/link_header" else {"items": None, "next_cursor": None}
    pagination = KINDS.get(path)
    settings = settings_for(api, path, pagination) if pagination else HttpSettings(
        (api.url(path),), records="/items"
    )  # fmt: skip
    api.misbehave(value(answer))
    assert await outcome_of(settings) == ([], None, [])


@pytest.mark.parametrize("path", CHAINS)
async def test_null_in_the_middle_of_a_chain_is_no_end(api, path):
    links: dict[str, Any] = {
        "/cursor": {"next_cursor": "after 0"},
        "/next_url": {"links": {"next": "/next_url?at=0"}},
    }
    answer: Any = {"items": None, **links[path]} if path in links else None
    api.misbehave(value(answer, Link="</link_header?at=0>; rel='next'"))
    assert await outcome_of(settings_for(api, path)) == (list(range(10)), None, [])


# Numbers of pages, and offsets


@st.composite
def listings(draw):
    """Return pages of distinct records, some without any, none empty at the end."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=8).filter(lambda one: one[-1]))
    numbers = iter(range(1000))
    return [[next(numbers) for _ in range(size)] for size in sizes]


SPELLINGS = [lambda number: number, str, lambda number: f" {number} ", float]


@given(
    pages=listings(),
    told=st.sampled_from(["pages", "more"]),
    spell=st.sampled_from(SPELLINGS),
    numbers=st.tuples(st.integers(0, 1), st.integers(1, 4)),
)
def test_pages_go_on_as_far_as_they_tell(shared_api, pages, told, spell, numbers):
    start, concurrency = numbers

    async def behave(request):
        at = int(request.query["page"]) - start
        records = pages[at] if at < len(pages) else []
        more = at + 1 < len(pages)
        answer = {"items": records, "pages": spell(len(pages)), "more": more}
        return web.json_response(answer)

    pointers: dict[str, Any] = {told: f"/{told}"}
    pagination = PagePagination(start=start, **pointers)
    settings = settings_for(shared_api, "/page", pagination, concurrency=concurrency)
    shared_api.misbehave(behave, times=40, path="/page")
    try:
        found, failure, notes = asyncio.run(outcome_of(settings))
    finally:
        shared_api.forget()
    assert (found, failure, notes) == ([one for page in pages for one in page], None, [])


@given(
    count=st.integers(1, 40),
    hidden=st.sets(st.integers(0, 39), max_size=30),
    spell=st.sampled_from(SPELLINGS),
    numbers=st.tuples(st.integers(1, 9), st.integers(0, 1), st.integers(1, 4)),
)
def test_offsets_go_on_to_the_total(shared_api, count, hidden, spell, numbers):
    """A server that filters its pages after it has cut them, so that some are short or empty."""
    limit, start, concurrency = numbers

    async def behave(request):
        at = int(request.query["offset"]) - start
        records = [one for one in range(count)[at : at + limit] if one not in hidden]
        return web.json_response({"items": records, "total": spell(count)})

    pagination = OffsetPagination(limit=limit, start=start, total="/total", on_repeat="load")
    settings = settings_for(shared_api, "/offset", pagination, concurrency=concurrency)
    shared_api.misbehave(behave, times=200, path="/offset")
    try:
        found, failure, _ = asyncio.run(outcome_of(settings))
    finally:
        shared_api.forget()
    assert failure is None
    assert sorted(set(found)) == [one for one in range(count) if one not in hidden]


@given(count=st.integers(1, 40), limit=st.integers(1, 9), start=st.integers(0, 1))
def test_offsets_from_1_lose_nothing(shared_api, count, limit, start):
    async def behave(request):
        at = int(request.query["offset"]) - start
        return web.json_response({"items": list(range(count)[at : at + limit]), "total": count})

    pagination = OffsetPagination(limit=limit, start=start, total="/total")
    settings = settings_for(shared_api, "/offset", pagination)
    shared_api.misbehave(behave, times=200, path="/offset")
    try:
        found, failure, notes = asyncio.run(outcome_of(settings))
    finally:
        shared_api.forget()
    assert (found, failure, notes) == (list(range(count)), None, [])


async def test_a_total_over_a_hole(api):
    pages = [[1, 2], [], [3, 4], [5]]
    script(api, [{"items": page, "total": "7"} for page in pages] + [{"items": [], "total": "7"}])
    settings = settings_for(api, "/page", PagePagination(total="/total"), concurrency=1)
    found, failure, notes = await outcome_of(settings)
    assert (found, failure) == ([1, 2, 3, 4, 5], None)
    (note,) = notes
    assert "5 records came, and the answers told 7" in note


async def test_a_total_of_what_is_not_there_ends(api):
    for total in (7, 10**12):
        script(api, [{"items": [], "total": total}] * 50)
        settings = settings_for(api, "/page", PagePagination(total="/total"), concurrency=1)
        found, failure, notes = await outcome_of(settings)
        assert (found, failure) == ([], None)
        assert f"0 records came, and the answers told {total:,}" in notes[0]
        assert api.requests <= 11
        api.forget()
        api.seen.clear()


async def test_pages_without_records_that_promise_more_for_ever(api):
    api.misbehave(value({"items": [], "more": True}), times=500)
    settings = settings_for(api, "/page", PagePagination(more="/more"))
    found, failure, _ = await outcome_of(settings)
    assert found == []
    assert failure is not None
    assert failure.reason == "no_records"
    assert "100 pages in a row" in failure.message
    assert api.requests < 120


@pytest.mark.parametrize("more", [False, 0, "false", "0"])
async def test_no_more_is_the_end(api, more):
    script(api, [{"items": [1], "more": True}, {"items": [2], "more": more, "next_cursor": "on"}])
    for path, pagination in {
        "/page": PagePagination(more="/more"),
        "/cursor": CursorPagination(next="/next_cursor", more="/more"),
    }.items():
        api.forget()
        script(
            api,
            [
                {"items": [1], "more": True, "next_cursor": "a"},
                {"items": [2], "more": more, "next_cursor": "b"},
            ],
        )
        settings = settings_for(api, path, pagination, concurrency=1)
        assert await outcome_of(settings) == ([1, 2], None, [])


async def test_the_end_by_status_is_not_before_the_told_end(api):
    async def behave(request):
        number = int(request.query["page"])
        if number == 2:
            return web.json_response({}, status=404)
        return web.json_response({"items": [number], "pages": 3})

    for pointer, expected in (("/pages", "status"), (None, None)):
        api.misbehave(behave, times=9)
        pagination = PagePagination(pages=pointer, end_status=404)
        found, failure, _ = await outcome_of(settings_for(api, "/page", pagination, concurrency=1))
        assert found == [1]
        assert (failure and failure.reason) == expected
        api.forget()


# The same page again


@pytest.mark.parametrize("path", ["/page", "/offset", "/cursor"])
@pytest.mark.parametrize("on_repeat", ["fail", "end", "load"])
async def test_the_same_page_again(api, path, on_repeat):
    kinds: dict[str, Any] = {
        "/page": PagePagination,
        "/offset": OffsetPagination,
        "/cursor": CursorPagination,
    }
    needed = {"next": "/next_cursor"} if path == "/cursor" else {}
    pagination = kinds[path](**needed, on_repeat=on_repeat)
    pages = [[1, 2], [3], [3], [4], []]
    script(
        api,
        [
            {"items": page, "at": number, "next_cursor": str(number) if page else None}
            for number, page in enumerate(pages, 1)
        ],
    )
    found, failure, _ = await outcome_of(settings_for(api, path, pagination, concurrency=1))
    assert found == ([1, 2, 3, 3, 4] if on_repeat == "load" else [1, 2, 3])
    assert (failure and failure.reason) == ("repeated_page" if on_repeat == "fail" else None)
    if failure is not None:
        assert "page 3 has the same records as page 2" in failure.message


@pytest.mark.parametrize("path", ["/page", "/offset"])
async def test_a_server_that_ignores_the_page_is_asked_twice(api, path):
    api.misbehave(value({"items": [1, 2, 3], "total": 23}), times=500)
    for total in (None, "/total"):
        pagination = (
            PagePagination(total=total)
            if path == "/page"
            else OffsetPagination(limit=3, total=total)
        )
        api.seen.clear()
        found, failure, _ = await outcome_of(settings_for(api, path, pagination, concurrency=1))
        assert found == [1, 2, 3]
        assert failure is not None
        assert failure.reason == "repeated_page"
        assert api.requests == 2


# The end of a chain


@pytest.mark.parametrize("end", [None, "", False, 0, 0.0])
@pytest.mark.parametrize("path", ["/cursor", "/next_url"])
async def test_what_is_no_next_page_is_the_end(api, path, end):
    first = {"/cursor": "a", "/next_url": "/next_url?at=3"}[path]
    for number, link in enumerate((first, end)):
        api.misbehave(value({"items": [number], "next_cursor": link, "links": {"next": link}}))
    assert await outcome_of(settings_for(api, path)) == ([0, 1], None, [])


async def test_a_missing_cursor_is_the_end(api):
    script(api, [{"items": [0], "next_cursor": "a"}, {"items": [1]}])
    assert await outcome_of(settings_for(api, "/cursor")) == ([0, 1], None, [])


@pytest.mark.parametrize("last", [[], [3], None], ids=["empty", "same", "null"])
@pytest.mark.parametrize("path", CHAINS)
async def test_a_link_that_stays_is_the_end(api, path, last):
    async def behave(request):
        at = int(request.query.get("cursor", request.query.get("at", 0)))
        records = [[1, 2], [3], last][min(at, 2)]
        at = min(at + 1, 2)
        if last == [3] and at == 2:
            at = 1
        answer = {"items": records, "next_cursor": at, "links": {"next": f"/next_url?at={at}"}}
        link = f"</link_header?at={at}>; rel=next"
        plain = records if path == "/link_header" else answer
        return web.json_response(plain, headers={"Link": link})

    api.misbehave(behave, times=50)
    settings = settings_for(api, path)
    assert await outcome_of(settings) == ([1, 2, 3], None, [])
    assert api.requests <= 4
    # Another run that begins at the last mark loads nothing again.
    marks = [page.mark for page in await read(settings)]
    for count, mark in enumerate(marks):
        if mark is not None:
            rest, failure, _ = await outcome_of(settings, start=mark)
            assert (rest, failure) == ([[3], []][min(count, 1)], None)


async def test_a_cursor_that_stays_while_new_records_come_is_no_end(api):
    """A scroll: each request with the same cursor returns the next records."""
    script(api, [{"items": [n], "next_cursor": "scroll"} for n in range(7)])
    api.misbehave(value({"items": [], "next_cursor": "scroll"}))
    assert await outcome_of(settings_for(api, "/cursor")) == (list(range(7)), None, [])


async def test_a_first_page_that_leads_to_itself_is_no_end(api):
    api.misbehave(value({"items": [1], "links": {"next": "/next_url"}}), times=9)
    found, failure, _ = await outcome_of(settings_for(api, "/next_url"))
    assert found == [1]
    assert failure is not None
    assert failure.reason == "repeated_next"


async def test_a_cursor_that_the_server_ignores_is_no_end(api):
    api.misbehave(value({"items": [1], "next_cursor": "a"}), times=9)
    pagination = CursorPagination(next="/next_cursor", param="misspelt")
    found, failure, _ = await outcome_of(settings_for(api, "/cursor", pagination))
    assert found == [1]
    assert failure is not None
    assert failure.reason == "repeated_page"


async def test_more_without_a_cursor_is_a_failure(api):
    script(api, [{"items": [1], "more": True, "next_cursor": None}])
    pagination = CursorPagination(next="/next_cursor", more="/more")
    found, failure, _ = await outcome_of(settings_for(api, "/cursor", pagination))
    assert found == [1]
    assert failure is not None
    assert failure.reason == "bad_next"


@pytest.mark.parametrize("cursor", ["12345678901234567.25", "18446744073709551617", "1e400"])
async def test_a_number_as_a_cursor_keeps_its_digits(api, cursor):
    api.misbehave(body(b'{"items": [1], "next_cursor": %s}' % cursor.encode()))
    if cursor == "1e400":
        with pytest.raises(HttpError):
            await read(settings_for(api, "/cursor"))
        return
    api.misbehave(value({"items": [2]}))
    assert await outcome_of(settings_for(api, "/cursor")) == ([1, 2], None, [])
    assert api.seen[-1].query["cursor"] == cursor


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("</link_header?at=3>; rel='next'", 2),
        ("</link_header?at=3>; rel = 'last next'", 2),
        ("</link_header?at=3>; title='it''s'; rel='next'", 2),
        ("</link_header?at=3>; rel='prev'", 1),
        ('</link_header?at=3>; rel="next"; results="false"; cursor="1:0:0"', 1),
        ('</link_header?at=3>; rel="next"; results="true"; cursor="1:0:0"', 2),
    ],
)
async def test_links_of_all_kinds(api, link, expected):
    api.misbehave(value([1], Link=link))
    api.misbehave(value([2]))
    assert len(await read(settings_for(api, "/link_header"))) == expected


async def test_a_mark_that_has_expired_is_told(api):
    settings = settings_for(api, "/cursor")
    first = (await read(settings))[0]
    api.misbehave(status(410, "gone"))
    _, failure, _ = await outcome_of(settings, start=first.mark)
    assert failure is not None
    assert "--full-refresh" in failure.message
    api.misbehave(status(410, "gone"))
    _, failure, _ = await outcome_of(settings)
    assert failure is not None
    assert "--full-refresh" not in failure.message


def test_a_mark_without_a_shape_is_of_an_earlier_version():
    assert PageMark("http://a/", 2) == PageMark("http://a/", 2, "", "")
