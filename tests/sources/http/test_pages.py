"""Pagination: every record of every page, once and in order."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.errors import UsageError
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.sources.http.base import HttpError, PageMark
from asyncbatch.sources.http.settings import (
    CursorPagination,
    HttpSettings,
    Incremental,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
)
from asyncbatch.sources.http.source import Connections, HttpSource
from tests.servers.api import ApiServer, body, read, value

PAGINATIONS = {
    "/page": PagePagination(),
    "/page?told=total": PagePagination(total="/total"),
    "/page?told=pages": PagePagination(pages="/pages"),
    "/page?sized=yes": PagePagination(size_param="per_page", size=4),
    "/offset": OffsetPagination(limit=7),
    "/offset?told=total": OffsetPagination(limit=7, total="/total"),
    "/cursor": CursorPagination(next="/next_cursor"),
    "/next_url": NextUrlPagination(next="/links/next"),
    "/link_header": LinkHeaderPagination(),
}


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def shared_api():
    allow_deep_nesting()  # as the first page does; hypothesis must see the raised limit
    with ApiServer() as server:
        yield server


def settings_for(api, path, **more):
    records = "" if path in ("/link_header", "/lines", "/echo") else "/items"
    usual: dict[str, Any] = {
        "urls": (api.url(path),),
        "pagination": PAGINATIONS.get(path),
        "records": records,
    }
    return HttpSettings(**usual | more)


def records_of(page):
    if page.format == "jsonl":
        return [json.loads(line) for line in page.body.splitlines() if line]
    found = json.loads(page.body)
    return found if isinstance(found, list) else found["items"]


@given(
    path=st.sampled_from(sorted(PAGINATIONS)),
    count=st.integers(0, 60),
    sizes=st.tuples(st.integers(1, 12), st.none() | st.integers(1, 9)),
    concurrency=st.integers(1, 9),
)
def test_all_records_in_order(shared_api, path, count, sizes, concurrency):
    shared_api.records, (shared_api.size, shared_api.cap) = list(range(count)), sizes
    pages = asyncio.run(read(settings_for(shared_api, path, concurrency=concurrency)))
    assert [record for page in pages for record in records_of(page)] == shared_api.records
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    chained = "page" not in path and "offset" not in path
    assert [page.is_last for page in pages[:-1]] == [False] * (len(pages) - 1 if pages else 0)
    if pages and (chained or "told" in path):
        assert pages[-1].is_last
    assert [page.mark is not None for page in pages] == [
        chained and not page.is_last for page in pages
    ]


@pytest.mark.parametrize("path", ["/cursor", "/next_url", "/link_header"])
async def test_a_mark_is_where_another_run_goes_on(api, path):
    api.records, api.size = list(range(10)), 3
    settings = settings_for(api, path)
    for page in await read(settings):
        rest = await read(settings, start=page.mark) if page.mark else []
        assert [record for each in rest for record in records_of(each)] == list(
            range(page.number * 3, 10)
        )
        assert [each.number for each in rest] == list(range(page.number + 1, 5))


async def test_page_numbers_are_no_place_to_go_on(api):
    with pytest.raises(UsageError, match="cannot resume"):
        await read(settings_for(api, "/page"), start=PageMark(api.url("/page?page=3"), 3))


async def test_one_url_without_pagination(api):
    api.misbehave(value({"id": 1}))
    (page,) = await read(settings_for(api, "/echo"))
    assert (json.loads(page.body), page.is_last, page.url) == ({"id": 1}, True, api.url("/echo"))


async def test_known_ends_cost_no_request(api):
    api.records, api.size = list(range(40)), 10
    for path in ("/page?told=total", "/page?told=pages", "/cursor", "/next_url", "/link_header"):
        before = api.requests
        await read(settings_for(api, path))
        assert api.requests == before + 4, path


async def test_a_single_page_is_not_asked_for_many_times(api):
    api.records = [1]
    await read(settings_for(api, "/page", concurrency=50))
    assert api.requests <= 3


async def test_pages_are_fetched_side_by_side_and_no_more_than_that(api):
    api.records, api.size = list(range(60)), 1
    settings = settings_for(api, "/page", concurrency=5)
    async with HttpSource(settings) as source, aclosing(source.pages(settings.urls[0])) as pages:
        for _ in range(20):  # the number of requests ahead grows with the pages
            await anext(pages)
        api.waits_for = 5
        assert len([page async for page in pages]) >= 40
    assert api.most_at_once == 5
    assert api.connections <= 5


async def test_connections_are_used_again(api):
    api.records, api.size = list(range(30)), 1
    await read(settings_for(api, "/cursor"))
    assert (api.requests, api.connections) == (30, 1)


@pytest.mark.parametrize("path", ["/page", "/cursor"])
async def test_a_slow_consumer_is_waited_for(api, path):
    api.records, api.size = list(range(100)), 1
    settings = settings_for(api, path, concurrency=4)
    async with HttpSource(settings) as source, aclosing(source.pages(settings.urls[0])) as pages:
        taken = 0
        async for _ in pages:
            taken += 1
            await asyncio.sleep(0.02)
            assert api.requests <= taken + 4
            if taken == 20:
                break
    assert api.requests <= 24


async def test_closing_ends_what_is_in_flight(api):
    api.records, api.size = list(range(100)), 1
    settings = settings_for(api, "/page", concurrency=4)
    async with HttpSource(settings) as source:
        others = asyncio.all_tasks()
        pages = source.pages(settings.urls[0])
        for _ in range(4):
            await anext(pages)
        while api.requests < 8 or api.at_once:  # four pages yielded, four requested ahead
            await asyncio.sleep(0.01)
        api.delay = 3600
        await anext(pages)
        while not api.at_once:
            await asyncio.sleep(0.01)
        await pages.aclose()
        assert asyncio.all_tasks() == others


async def test_cancelling_ends_what_is_in_flight(api):
    api.records, api.size, api.delay = list(range(100)), 1, 3600
    others = asyncio.all_tasks()
    task = asyncio.create_task(read(settings_for(api, "/page", concurrency=4)))
    while not api.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == others


async def test_urls_are_read_side_by_side_within_one_limit(api):
    api.records, api.size, api.waits_for = list(range(20)), 1, 3
    urls = tuple(api.url(f"/cursor?of={name}") for name in "abcdef")
    settings = settings_for(api, "/cursor", urls=urls, concurrency=3)

    async def count(source, url):
        return len([page async for page in source.pages(url)])

    async with HttpSource(settings) as source:
        counts = await asyncio.gather(*(count(source, url) for url in urls))
    assert counts == [20] * 6
    assert api.most_at_once == 3


async def test_one_url_is_not_held_up_by_another_that_nobody_reads(api):
    api.records = [{"text": "x" * 1000}] * 10_000
    settings = settings_for(
        api, "/lines", urls=(api.url("/lines"), api.url("/echo")), concurrency=1
    )
    async with (
        HttpSource(settings) as source,
        aclosing(source.pages(settings.urls[0])) as first,
        aclosing(source.pages(settings.urls[1])) as second,
    ):
        await anext(first)
        assert (await anext(second)).is_last


async def test_incremental_says_since_when(api):
    incremental = Incremental(field="at", param="since", initial="2020-01-01T00:00:00+00:00")
    settings = settings_for(api, "/echo", urls=(api.url("/echo?a=1"),), incremental=incremental)
    (page,) = await read(settings)
    assert records_of(page) == [{"query": {"a": "1", "since": incremental.initial}}]
    (page,) = await read(settings, since="5&b=6")
    assert records_of(page) == [{"query": {"a": "1", "since": "5&b=6"}}]


async def test_an_empty_list_of_records_may_be_null(api):
    api.misbehave(value({"items": [1]}))
    api.misbehave(value({"items": None}))
    pages = await read(settings_for(api, "/page", concurrency=1))
    assert [records_of(page) for page in pages] == [[1]]


@pytest.mark.parametrize(
    ("answer", "found"),
    [({"data": []}, "nothing"), ({"items": {"a": 1}}, "an object"), ({"items": 5}, "a single")],
)
async def test_records_that_are_not_there_are_no_end(api, answer, found):
    api.misbehave(value(answer))
    with pytest.raises(HttpError, match=f"at /items, found {found}") as caught:
        await read(settings_for(api, "/page"))
    assert caught.value.failure.reason == "no_records"


async def test_lines_come_as_stretches_of_whole_lines(api):
    api.records = [{"n": number, "text": "x" * 500} for number in range(10_000)]
    pages = await read(settings_for(api, "/lines"))
    assert [record for page in pages for record in records_of(page)] == api.records
    assert len(pages) > 3
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    assert {page.format for page in pages} == {"jsonl"}
    line, byte = 1, 0
    for page in pages:
        assert (page.line, page.byte, page.number) == (line, byte, 1)
        assert page.body.endswith(b"\n")
        line, byte = line + page.body.count(b"\n"), byte + len(page.body)


async def test_lines_may_lack_their_end_and_be_on_pages(api):
    link = f"<{api.url('/echo')}>; rel=next"
    api.misbehave(body(b"1\n2", "application/x-ndjson", Link=link))
    api.misbehave(body(b"", "application/x-ndjson", Link=link.replace("echo", "echo?b")))
    api.misbehave(body(b"3\n", "application/x-ndjson"))
    pages = await read(settings_for(api, "/lines", pagination=LinkHeaderPagination()))
    assert [page.body for page in pages] == [b"1\n2", b"", b"3\n"]
    assert [page.is_last for page in pages] == [False, False, True]


async def test_lines_by_page_number_are_counted(api):
    for lines in (b"1\n2\n", b"3\n", b"\n"):
        api.misbehave(body(lines, "text/plain"))
    settings = settings_for(api, "/page", format="jsonl", concurrency=1)
    assert [page.body for page in await read(settings)] == [b"1\n2\n", b"3\n"]


async def test_sources_share_connections_and_the_last_closes_them():
    with ApiServer(range(40), size=5) as api:
        settings = settings_for(api, "/cursor")
        connections = Connections()
        one = HttpSource(settings, connections=connections)
        other = HttpSource(settings, connections=connections)
        async with one:
            async with other:
                assert [page async for page in other.pages(settings.urls[0])]
            assert [page async for page in one.pages(settings.urls[0])]
        assert api.connections == 1
