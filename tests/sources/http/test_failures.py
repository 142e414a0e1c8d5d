"""HTTP failures: transient ones are retried, permanent ones are reported in full."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import brotli
import pytest
from aiohttp import web

from asyncbatch.core.secrets import Secret
from asyncbatch.core.units import Rate, parse_rate
from asyncbatch.sources.http.base import HttpError
from asyncbatch.sources.http.rate_limiter import RateLimiter
from asyncbatch.sources.http.settings import (
    CursorPagination,
    HttpSettings,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
)
from asyncbatch.sources.http.source import HttpSource
from tests.servers.api import (
    ApiServer,
    FakeTime,
    body,
    hang_up,
    read,
    redirect,
    stall,
    status,
    truncate,
    value,
)

CURSOR = CursorPagination(next="/next_cursor")
ZSTD = importlib.import_module(
    "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
)


@pytest.fixture
def api():
    with ApiServer(records=range(10), size=5) as server:
        yield server


@pytest.fixture
def time():
    return FakeTime()


def settings_for(api, path="/cursor", **more):
    usual: dict[str, Any] = {"urls": (api.url(path),), "records": "/items", "pagination": CURSOR}
    return HttpSettings(**usual | more)


async def pages_and_failure(settings):
    """Return the numbers of the pages that came before the failure."""
    numbers = []
    async with HttpSource(settings) as source:
        try:
            async for page in source.pages(settings.urls[0]):
                numbers += [page.number]
        except HttpError as error:
            return numbers, error.failure
    pytest.fail("did not fail")


async def failure_of(settings, time=None):
    with pytest.raises(HttpError) as caught:
        await read(settings, time=time or FakeTime())
    assert str(caught.value) == f"{caught.value.failure.url}: {caught.value.failure.message}"
    return caught.value.failure


def bodies(pages):
    return [json.loads(page.body) for page in pages]


# Transient failures


@pytest.mark.parametrize(
    "behaviour",
    [*(status(code) for code in (408, 425, 429, 500, 502, 503, 504)), truncate()],
)
async def test_what_fails_for_the_moment_is_asked_for_again(api, time, behaviour):
    api.misbehave(behaviour, times=3)
    async with HttpSource(settings_for(api), clock=time.clock, sleep=time.sleep) as source:
        pages = [page async for page in source.pages(api.url("/cursor"))]
        assert source.retries() == 3
    assert [item for each in bodies(pages) for item in each["items"]] == list(range(10))


async def test_a_connection_that_is_closed_is_opened_again(api, time):
    api.misbehave(hang_up(), times=4)  # aiohttp itself may retry every second one
    pages = await read(settings_for(api), time=time)
    assert [item for each in bodies(pages) for item in each["items"]] == list(range(10))
    assert time.slept


async def test_each_retry_waits_about_twice_as_long_and_never_the_same(api, time):
    api.misbehave(status(503), times=9)
    failed = await failure_of(settings_for(api, retries=5, retry_delay=1.0), time)
    assert failed.attempts == 6
    for number, seconds in enumerate(time.slept):
        assert 2**number <= seconds <= 2**number + 1
    assert len({seconds % 1 for seconds in time.slept}) == 5


@pytest.mark.parametrize("retries", [0, 2])
async def test_after_the_last_try_the_failure_says_all(api, retries):
    api.misbehave(status(503, "<h1>Sorry</h1>" + "x" * 500), times=9)
    failed = await failure_of(settings_for(api, retries=retries))
    assert (failed.reason, failed.status, failed.attempts) == ("status", 503, retries + 1)
    assert failed.body == ("<h1>Sorry</h1>" + "x" * 500)[:200]
    assert failed.url == api.url("/cursor")
    assert failed.message.startswith("HTTP 503 Service Unavailable")
    assert ("(tried 3 times)" in failed.message) == (retries == 2)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 422, 304, 300])
async def test_what_fails_for_good_is_asked_for_once(api, code):
    api.misbehave(status(code, "" if code == 304 else "no"))
    failed = await failure_of(settings_for(api))
    assert (failed.status, failed.attempts, api.requests) == (code, 1, 1)


async def test_the_pages_before_a_failure_are_given(api):
    api.misbehave(lambda _: asyncio.sleep(0))
    api.misbehave(status(404))
    numbers, failed = await pages_and_failure(settings_for(api))
    assert (numbers, failed.status) == ([1], 404)


async def test_a_server_that_nobody_reaches(api):
    failed = await failure_of(settings_for(api, urls=("http://127.0.0.1:9/x",), retries=1))
    assert (failed.reason, failed.attempts) == ("network", 2)
    assert "127.0.0.1:9" in failed.text


@pytest.mark.parametrize("sent", [None, b"", b'{"items": ['])
async def test_a_server_that_stalls(api, sent):
    api.misbehave(stall(sent), times=2)
    failed = await failure_of(settings_for(api, timeout=0.1, retries=1))
    assert (failed.reason, failed.attempts) == ("timeout", 2)
    assert "0.1 s" in failed.message


# Retry-After, rates


@pytest.mark.parametrize("code", [429, 503])
async def test_a_server_is_waited_for_as_long_as_it_asks(api, time, code):
    api.misbehave(status(code, Retry_After="120"))
    await read(settings_for(api), time=time)
    assert 120 <= sum(time.slept) <= 121


NOW = 1_800_000_000
DATE = format_datetime(datetime.fromtimestamp(NOW, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        (429, {"Retry-After": "90.0"}),
        (503, {"Retry-After": "90.00"}),
        (403, {"Retry-After": "90"}),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 90}"}),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "90"}),
        (429, {"X-RateLimit-Reset": f"{NOW + 90}.0"}),
        (429, {"X-RateLimit-Reset": f"{NOW + 90}000"}),
        (429, {"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": f"{NOW + 90}"}),
        (429, {"RateLimit-Remaining": "0", "RateLimit-Reset": "90"}),
        (429, {"X-RateLimit-Reset-After": "90.0"}),
        (429, {"X-RateLimit-Reset": "2027-01-15T08:01:30Z"}),
        (429, {"Retry-After": "90", "X-RateLimit-Reset": "5000"}),
    ],
)
async def test_limits_are_waited_for_however_they_are_told(api, time, code, headers):
    async def behave(_):
        return web.Response(status=code, headers={"Date": DATE, **headers})

    api.misbehave(behave)
    await read(settings_for(api), time=time)
    assert 90 <= sum(time.slept) <= 91


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        (429, {"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": f"{NOW + 90}"}),
        (429, {"X-RateLimit-Reset": f"{NOW - 90}"}),
        (429, {"X-RateLimit-Reset": "soon"}),
        (403, {"X-RateLimit-Remaining": "0"}),
        (503, {"X-RateLimit-Reset": "90"}),
    ],
)
async def test_limits_that_name_no_time_are_retried_as_others(api, time, code, headers):
    async def behave(_):
        return web.Response(status=code, headers={"Date": DATE, **headers})

    api.misbehave(behave)
    await read(settings_for(api), time=time)
    assert 0 < sum(time.slept) <= 1


@pytest.mark.parametrize(
    "headers", [{}, {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "9"}, {"Retry-After": "x"}]
)
async def test_what_is_forbidden_for_good_is_asked_for_once(api, time, headers):
    async def behave(_):
        return web.Response(status=403, headers=headers)

    api.misbehave(behave)
    failed = await failure_of(settings_for(api), time)
    assert (failed.status, failed.attempts) == (403, 1)


async def test_a_reset_that_is_too_far_is_told(api, time):
    async def behave(_):
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 3400}"}
        return web.Response(status=403, headers={"Date": DATE, **headers})

    api.misbehave(behave)
    failed = await failure_of(settings_for(api), time)
    assert (failed.attempts, failed.retry_after, time.slept) == (1, 3400, [])
    assert "X-RateLimit-Reset 3,400 s" in failed.message


async def test_a_date_to_wait_for_is_by_the_clock_of_the_server(api, time):
    there = datetime(2001, 2, 3, tzinfo=UTC)
    dates = [format_datetime(at, usegmt=True) for at in (there, there + timedelta(seconds=90))]
    api.misbehave(status(429, Date=dates[0], Retry_After=dates[1]))
    await read(settings_for(api), time=time)
    assert 90 <= sum(time.slept) <= 91


@pytest.mark.parametrize("asked", ["soon", "-5", "Thu, 99 Foo 2020 00:00:00 GMT", "1e3", ""])
async def test_what_is_no_time_is_ignored(api, time, asked):
    api.misbehave(status(429, Retry_After=asked))
    await read(settings_for(api), time=time)
    assert 0 < sum(time.slept) <= 1


async def test_a_server_that_asks_for_too_much_is_not_waited_for(api, time):
    api.misbehave(status(429, Retry_After="86400"))
    failed = await failure_of(settings_for(api), time)
    assert (failed.attempts, failed.retry_after, time.slept) == (1, 86400, [])
    assert "Retry-After 86,400 s" in failed.message


async def test_while_a_server_asks_for_rest_nothing_else_is_asked_of_it(api, time):
    api.misbehave(status(429, Retry_After="60"))
    settings = settings_for(api, concurrency=1)
    began = []

    async def take(source):
        async for _ in source.pages(settings.urls[0]):
            began.append(time.now)  # noqa: PERF401 - each is of another time

    async with HttpSource(settings, clock=time.clock, sleep=time.sleep) as source:
        await asyncio.gather(*(take(source) for _ in range(3)))
    assert api.requests == 7
    assert min(began) >= 60


@pytest.mark.parametrize(
    ("text", "rate"),
    [("20/s", (20, 1)), ("600/m", (600, 60)), (" 5 / h ", (5, 3600)), ("0.5/s", (1, 2))],
)
def test_rates(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "20", "20/d", "-1/s", "0/s", "fast"])
def test_what_is_no_rate(text):
    with pytest.raises(ValueError, match="write 20/s"):
        parse_rate(text)


async def test_no_time_holds_more_requests_than_the_rate(time):
    pace = RateLimiter(Rate(5, 1.0), 3, time.clock, time.sleep)
    starts = []

    async def request():
        async with pace.acquire():
            starts.append(time.now)
            await time.sleep(0.07)

    await asyncio.gather(*(request() for _ in range(40)))
    assert len(starts) == 40
    for first, sixth in zip(starts, starts[5:], strict=False):
        assert sixth - first >= 1.0 - 1e-9
    assert starts[-1] < 8.0  # the limit is fully used


async def test_a_source_keeps_to_its_rate(api, time):
    api.records, api.size = list(range(10)), 1
    await read(settings_for(api, rate_limit="2/s"), time=time)
    assert 4.0 <= time.now <= 4.001


# Permanent failures


async def test_an_answer_that_is_no_json(api):
    api.misbehave(body(b"<html>Log in</html>", "text/html"))
    failed = await failure_of(settings_for(api))
    assert (failed.reason, failed.attempts) == ("not_json", 1)
    assert "text/html" in failed.message
    assert "line 1, column 1" in failed.message
    assert failed.body == "<html>Log in</html>"


async def test_an_empty_answer(api):
    api.misbehave(body(b""))
    assert (await failure_of(settings_for(api))).message == "the response is empty"


@pytest.mark.parametrize("pagination", [CURSOR, PagePagination(), None])
async def test_no_content_is_no_page(api, pagination):
    api.misbehave(status(204, ""))
    assert await read(settings_for(api, "/page", pagination=pagination)) == []


@pytest.mark.parametrize(
    "behaviour",
    [
        truncate(),
        body(b'{"items": [1, 2'),
        body(gzip.compress(b'{"items": [1, 2]}' * 9)[:-12], Content_Encoding="gzip"),
        body(ZSTD.compress(b'{"items": [1, 2]}')[:-3], Content_Encoding="zstd"),
        truncate(b"1\n2\n", "application/x-ndjson"),
        body(gzip.compress(b"1\n2\n" * 99)[:-9], "application/x-ndjson", Content_Encoding="gzip"),
    ],
)
async def test_a_truncated_answer_is_never_taken_for_whole(api, behaviour):
    api.misbehave(behaviour, times=2)
    failed = await failure_of(settings_for(api, retries=1, pagination=None))
    assert failed.reason == "truncated"


async def test_lines_that_break_off_early_are_asked_for_again(api):
    api.misbehave(truncate(b"1\n2\n", "application/x-ndjson"))
    settings = settings_for(api, "/lines", pagination=None)
    (page,) = await read(settings, time=FakeTime())
    assert page.body.splitlines() == [b"%d" % number for number in range(10)]


async def test_lines_that_break_off_late_are_a_failure_behind_what_came(api):
    lines = b'{"a": "0123456789"}\n' * 200_000
    api.misbehave(truncate(lines, "application/x-ndjson"))
    numbers, failed = await pages_and_failure(settings_for(api, "/lines", pagination=None))
    assert (failed.reason, failed.attempts, api.requests) == ("truncated", 1, 1)
    assert set(numbers) == {1}


async def test_a_part_that_was_not_asked_for_is_a_failure(api):
    api.misbehave(status(206, "[1, 2]"), times=2)
    failed = await failure_of(settings_for(api))
    assert (failed.status, api.requests) == (206, 1)
    assert "HTTP 206 Partial Content" in failed.message
    (page,) = await read(
        settings_for(api, records="", pagination=None, headers={"Range": Secret("bytes=0-5")})
    )
    assert page.body == b"[1, 2]"


async def test_the_status_counts_whatever_the_body_of_an_error_is(api):
    for broken in (b"x", gzip.compress(b"no")[:-3]):
        api.misbehave(body(broken, Content_Encoding="gzip"))
    api.misbehave(status(403, "no", Content_Encoding="br"))
    api.misbehave(status(403, "no", Content_Encoding="gzip"))
    assert (await failure_of(settings_for(api, retries=0))).reason == "truncated"
    assert (await failure_of(settings_for(api, retries=0))).reason == "truncated"
    assert (await failure_of(settings_for(api))).status == 403
    assert (await failure_of(settings_for(api))).status == 403


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("zstd", ZSTD.compress),
        ("br", brotli.compress),
    ],
)
async def test_compressed_answers(api, encoding, compress):
    data = json.dumps({"items": list(range(100_000))}).encode()
    split = compress(data[:5000]) + compress(data[5000:])
    for packed in (compress(data), *([split] if encoding != "br" else [])):
        api.misbehave(body(packed, Content_Encoding=encoding))
        (page,) = await read(settings_for(api, pagination=None))
        assert page.body == data
    assert api.seen[0].headers["Accept-Encoding"] == "gzip, br, zstd"


async def test_a_body_of_brotli_that_is_damaged(api):
    data = json.dumps({"items": list(range(10_000))}).encode()
    packed = brotli.compress(data)
    for broken in (packed[:-9], packed + b"more", b"no" + packed):
        api.misbehave(body(broken, Content_Encoding="br"))
        failed = await failure_of(settings_for(api, retries=0, pagination=None))
        assert failed.reason == "truncated"


@pytest.mark.parametrize("form", ["utf-8", "none", "binary", "identity", "UTF8", "", "8bit, none"])
async def test_what_is_no_compression(api, form):
    api.misbehave(body(b'{"items": ["\xc3\xa4"]}', Content_Encoding=form))
    api.misbehave(body(b"1\n2\n", "application/x-ndjson", Content_Encoding=form))
    for expected in (b'{"items": ["\xc3\xa4"]}', b"1\n2\n"):
        (page,) = await read(settings_for(api, pagination=None))
        assert page.body == expected


@pytest.mark.parametrize("form", ["gzip, utf-8", "identity,gzip", "none , x-gzip"])
async def test_compression_beside_a_character_set(api, form):
    api.misbehave(body(gzip.compress(b'{"items": [1]}'), Content_Encoding=form))
    (page,) = await read(settings_for(api, pagination=None))
    assert page.body == b'{"items": [1]}'


async def test_a_coding_that_nobody_asked_for(api):
    api.misbehave(body(b"{}", Content_Encoding="lzma"))
    failed = await failure_of(settings_for(api))
    assert "'lzma'" in failed.message


async def test_a_wait_of_any_length_is_understood(api):
    """One that is not waited for ends the URL, instead of a retry at once."""
    api.misbehave(status(429, Retry_After="9" * 20))
    failed = await failure_of(settings_for(api, retries=2))
    assert (failed.attempts, api.requests) == (1, 1)
    assert "Retry-After" in failed.message


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "br"])
async def test_a_body_or_a_line_over_the_cap(api, content_type, encoding):
    data = b'"' + b"x" * 3_000_000 + b'"'
    packed = {"gzip": gzip.compress, "br": brotli.compress}.get(encoding, bytes)(data)
    api.misbehave(body(packed, content_type, Content_Encoding=encoding))
    failed = await failure_of(settings_for(api, max_body=1_000_000, pagination=None))
    assert (failed.reason, failed.attempts) == ("too_large", 1)
    assert "1.0 MB" in failed.message


@pytest.mark.parametrize("place", ["first", "middle", "last", "last without its end"])
async def test_a_line_over_the_cap_wherever_it_is(api, place):
    """A chunk of the connection may have it whole, with other lines."""
    line = b'"' + b"x" * 30_000 + b'"\n'
    lines = {"first": line + b"2\n3\n", "middle": b"1\n" + line + b"3\n"}.get(place)
    lines = lines or b"1\n2\n" + (line if place == "last" else line[:-1])
    api.misbehave(body(lines, "application/x-ndjson"))
    failed = await failure_of(settings_for(api, max_body=10_000, pagination=None))
    assert (failed.reason, failed.attempts) == ("too_large", 1)


async def test_many_lines_together_may_be_over_the_cap(api):
    api.records = [{"text": "x" * 1000}] * 5000
    settings = settings_for(api, "/lines", max_body=2000, pagination=None)
    assert sum(page.body.count(b"\n") for page in await read(settings)) == 5000


@pytest.mark.parametrize("circle", [2, 3, 5])
async def test_a_cursor_that_was_there_before(api, circle):
    for number in range(20):
        api.misbehave(value({"items": [number], "next_cursor": f"c{number % circle}"}))
    failed = await failure_of(settings_for(api))
    assert failed.reason == "repeated_next"
    assert api.requests == circle + 1


@pytest.mark.parametrize(
    ("pagination", "answer"),
    [
        (CURSOR, {"items": [1], "next_cursor": {"a": 1}}),
        (CURSOR, {"items": [1], "next_cursor": True}),
        (NextUrlPagination(next="/next"), {"items": [1], "next": 5}),
        (NextUrlPagination(next="/next"), {"items": [1], "next": "http://a:b:c/"}),
    ],
)
async def test_what_names_no_next_page(api, pagination, answer):
    api.misbehave(value(answer))
    failed = await failure_of(settings_for(api, pagination=pagination))
    assert failed.reason == "bad_next"


@pytest.mark.parametrize(
    ("path", "pagination"),
    [
        ("/cursor", CURSOR),
        ("/page", PagePagination()),
        ("/offset", OffsetPagination(limit=1)),
        ("/link_header", LinkHeaderPagination()),
    ],
)
async def test_pages_without_end(api, path, pagination):
    api.records, api.size = list(range(50)), 1
    records = "" if path == "/link_header" else "/items"
    settings = settings_for(api, path, pagination=pagination, max_pages=7, records=records)
    numbers, failed = await pages_and_failure(settings)
    assert (numbers, failed.reason) == ([1, 2, 3, 4, 5, 6, 7], "max_pages")
    assert failed.message == "more than 7 pages, the limit (max_pages)"
    assert api.requests <= 8
    api.records = list(range(7))
    assert len(await read(settings)) == 7


@pytest.mark.parametrize(
    "link",
    [
        '</x>; rel="prev", </link_header?at=5>; title="a, <b>"; rel="last next"',
        "<http://[>;rel=prev,</link_header?at=5>;REL=next",
        "</link_header?at=5>; rel=NEXT; x=y",
    ],
)
async def test_link_headers_of_all_kinds(api, link):
    api.misbehave(value([1], Link=link))
    pagination = LinkHeaderPagination()
    settings = settings_for(api, "/link_header", pagination=pagination, records="")
    assert bodies(await read(settings)) == [[1], [5, 6, 7, 8, 9]]
    api.misbehave(value([1], Link="<http://[>; rel=next"))
    assert (await failure_of(settings)).reason == "bad_next"


async def test_a_status_may_be_the_end(api):
    api.misbehave(value({"items": [1]}))
    api.misbehave(status(404))
    settings = settings_for(api, "/page", pagination=PagePagination(), concurrency=1)
    assert "pagination.end_status = 404" in (await failure_of(settings)).message
    api.misbehave(value({"items": [1]}))
    api.misbehave(status(404))
    pagination = PagePagination(end_status=404)
    assert len(await read(settings_for(api, "/page", pagination=pagination, concurrency=1))) == 1
    api.misbehave(status(404))
    first = await failure_of(settings_for(api, "/page", pagination=pagination))
    assert first.status == 404


async def test_redirects_within_an_origin_are_followed(api):
    api.misbehave(redirect("/cursor?moved=1", 301))
    api.misbehave(redirect(api.url("/cursor?moved=2"), 308))
    assert len(await read(settings_for(api))) == 2


async def test_redirects_in_a_circle(api):
    for _ in range(3):
        api.misbehave(redirect("/a", 302))
        api.misbehave(redirect("/cursor", 307))
    failed = await failure_of(settings_for(api))
    assert (failed.reason, api.requests) == ("redirect_loop", 2)


async def test_redirects_on_and_on(api):
    for number in range(30):
        api.misbehave(redirect(f"/{number}"))
    failed = await failure_of(settings_for(api))
    assert (failed.reason, api.requests) == ("redirect_loop", 11)


@pytest.mark.parametrize("target", ["http://[", "http://a:b/"])
async def test_redirects_to_nowhere(api, target):
    api.misbehave(redirect(target))
    assert (await failure_of(settings_for(api))).reason == "refused_origin"
