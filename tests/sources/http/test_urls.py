"""URLs are requested as they were given: their escapes are not rewritten."""

from __future__ import annotations

import string
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncbatch.core.secrets import Secret
from asyncbatch.sources.http.access.credentials import QueryAuth
from asyncbatch.sources.http.settings import (
    CursorPagination,
    HttpSettings,
    Incremental,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
)
from asyncbatch.sources.http.source import HttpFeedSource
from asyncbatch.sources.http.urls import parse_url, with_parameters, without_parameter
from tests.servers.api import ApiServer, read, redirect, value

SIGNED = "sig=a%2Cb%3Ac%27d%2Fe%7Ef%3D&ids=1%2c2&x=%20+%E2%82%AC&y=(a),b;c&empty=&flag"
HIDDEN = Secret("&= %2C")
ESCAPES = st.sampled_from(["%2C", "%2c", "%7E", "%20", "%27", "%2F", "%C3%A4", "%00"])
CHARACTERS = st.sampled_from(string.ascii_letters + string.digits + "-._~!$'()*,;:@+=/?")
QUERIES = st.lists(ESCAPES | CHARACTERS, max_size=12).map("".join)


@pytest.fixture
def api():
    with ApiServer(range(10), size=5) as server:
        yield server


def targets(api):
    return [seen.target for seen in api.seen]


@pytest.mark.parametrize("path", ["/echo", "/a%2Fb/%7Ejoe/x%20y"])
async def test_a_url_of_the_user_is_requested_as_it_is(api, path):
    api.misbehave(value([]))
    await read(HttpSettings((api.url(f"{path}?{SIGNED}"),)))
    assert targets(api) == [f"{path}?{SIGNED}"]


@pytest.mark.parametrize("way", ["next", "link", "redirect"])
@pytest.mark.parametrize("start", ["", "/x/../", "http://"])
async def test_links_are_requested_as_they_are(api, way, start):
    path = "/a%2Fb/next%7E"
    link = {"": path, "/x/../": f".{path}"}.get(start, api.url(path)) + f"?{SIGNED}"
    pages: dict[str, Any] = {
        "next": (value({"items": [1], "next": link}), NextUrlPagination(next="/next")),
        "link": (value({"items": [1]}, Link=f"<{link}>; rel=next"), LinkHeaderPagination()),
        "redirect": (redirect(link), None),
    }
    behaviour, pagination = pages[way]
    api.misbehave(behaviour)
    api.misbehave(value({"items": [2]}))
    await read(HttpSettings((api.url("/first"),), records="/items", pagination=pagination))
    assert targets(api) == ["/first", f"{path}?{SIGNED}"]


async def test_a_mark_keeps_the_escapes(api):
    api.misbehave(value({"items": [1], "next": f"/second?{SIGNED}"}))
    api.misbehave(value({"items": [2]}), times=2)
    settings = HttpSettings(
        (api.url("/first"),), records="/items", pagination=NextUrlPagination(next="/next")
    )
    first, _ = await read(settings)
    await read(settings, start=first.mark)
    assert targets(api)[1:] == [f"/second?{SIGNED}"] * 2


@pytest.mark.parametrize(
    ("pagination", "added"),
    [
        (PagePagination(size_param="n", size=9), ["page=1&n=9"]),
        (OffsetPagination(), ["offset=0&limit=100"]),
        (CursorPagination(next="/next"), ["", "cursor=a%26b"]),
    ],
)
async def test_parameters_are_added_behind_the_others(api, pagination, added):
    answers: list[Any] = [{"items": [1], "next": "a&b"}, {"items": [], "next": None}]
    for answer in answers:
        api.misbehave(value(answer))
    settings = HttpSettings(
        (api.url(f"/first?{SIGNED}"),), records="/items", pagination=pagination, concurrency=1,
        auth=QueryAuth("key", HIDDEN), incremental=Incremental("at", "since", "2020"),
    )  # fmt: skip
    await read(settings)
    for target, parameters in zip(targets(api), added, strict=False):
        own = "&".join(["since=2020", *filter(None, [parameters]), "key=%26%3D+%252C"])
        assert target == f"/first?{SIGNED}&{own}"


async def test_a_parameter_of_the_url_is_replaced_in_its_place(api):
    api.misbehave(value([]))
    settings = HttpSettings((api.url("/x?a=%7E&page=7&b=%2C&page=8"),), pagination=PagePagination())
    await read(settings)
    assert targets(api) == ["/x?a=%7E&page=1&b=%2C"]


async def test_what_no_url_may_contain_is_escaped(api):
    api.misbehave(value({"items": [1], "next": " /ä x?a=<é>&b=100% "}))
    api.misbehave(value({"items": [2]}))
    await read(
        HttpSettings((api.url("/first"),), records="/items", pagination=NextUrlPagination("/next"))
    )
    assert targets(api)[1] == "/%C3%A4%20x?a=%3C%C3%A9%3E&b=100%25"


async def test_urls_that_differ_in_escapes_only_have_names_of_their_own(api):
    urls = (api.url("/x?ids=a%2Cb"), api.url("/x?ids=a,b"), api.url("/y?ids=a%2Cb"))
    async with HttpFeedSource("api", HttpSettings(urls)) as source:
        names = [feed.name for feed in source.feeds]
    assert names == [*urls[:2], api.url("/y?ids=a,b")]


@given(path=QUERIES, query=QUERIES)
def test_escapes_stay(path, query):
    path = f"/{path}".replace("//", "/x/").replace("?", "")
    if not any(part in (".", "..") for part in path.split("/")):
        for text in (f"http://a.example{path}?{query}", f"{path}?{query}", f"//a.example{path}"):
            base = parse_url("http://a.example/b/c?d=%7E")
            expected = path if text.startswith("//") or not query else f"{path}?{query}"
            assert parse_url(text, base).raw_path_qs == expected


@given(query=QUERIES, name=st.text(min_size=1, max_size=3), new=st.text(max_size=5))
def test_a_parameter_is_set_and_removed_and_no_other_changes(query, name, new):
    url = parse_url(f"http://a.example/?{query}")
    found = with_parameters(url, {name: new})
    assert (name, new) in parse_qsl(urlsplit(str(found)).query, keep_blank_values=True)
    own = [pair for pair in query.split("&") if pair]
    gone = without_parameter(found, name)
    kept = [pair for pair in own if (parse_qsl(pair, True) or [("", "")])[0][0] != name]
    assert [pair for pair in gone.raw_query_string.split("&") if pair] == kept


@pytest.mark.parametrize("text", ["http://[", "http://a:b/", "http://a:99999/"])
def test_what_is_no_url(text):
    with pytest.raises(ValueError, match=r"URL|[Pp]ort|IPv6"):
        parse_url(text, parse_url("http://a.example/"))


def test_hosts_are_as_they_are_looked_up():
    assert (
        parse_url("HTTP://EXAMPLE.com:80/%7e").origin() == parse_url("http://example.com").origin()
    )
    assert parse_url("http://bücher.example/").raw_host == "xn--bcher-kva.example"
