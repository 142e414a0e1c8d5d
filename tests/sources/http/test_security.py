"""Credentials go only to their origin, and are never displayed; links are checked."""

from __future__ import annotations

import html
import json
import logging
import os
import pickle
import socket
import ssl
import subprocess
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from asyncbatch.core.secrets import Secret
from asyncbatch.errors import UsageError
from asyncbatch.formats.failures import FeedError
from asyncbatch.sources.http.access.credentials import BasicAuth, BearerAuth, HeaderAuth, QueryAuth
from asyncbatch.sources.http.access.resolver import StableResolver
from asyncbatch.sources.http.base import HttpError, PageMark
from asyncbatch.sources.http.settings import (
    CursorPagination,
    HttpSettings,
    Incremental,
    LinkHeaderPagination,
    NextUrlPagination,
    OffsetPagination,
    PagePagination,
    ParentRequests,
    setting_mistakes,
)
from asyncbatch.sources.http.source import HttpFeedSource, HttpSource
from tests.conftest import python
from tests.encoding import encode_secret
from tests.servers.api import (
    ApiServer,
    FakeTime,
    garbage,
    read,
    redirect,
    status,
    value,
)

WORD, OTHER = "s3cret/&+word", "another-secret"
AUTHS = {
    "bearer": BearerAuth(Secret(WORD)),
    "basic": BasicAuth("joe", Secret(WORD)),
    "header": HeaderAuth("X-Api-Key", Secret(WORD)),
    "query": QueryAuth("api_key", Secret(WORD)),
}
NEXT = NextUrlPagination(next="/links/next")


@pytest.fixture
def api():
    with ApiServer(records=range(10), size=5) as server:
        yield server


@pytest.fixture
def other():
    with ApiServer(records=range(10), size=5) as server:
        yield server


def settings_for(api, path="/next_url", **more):
    usual: dict[str, Any] = {"urls": (api.url(path),), "records": "/items", "pagination": NEXT}
    return HttpSettings(**usual | {"retries": 1} | more)


async def failure_of(settings):
    with pytest.raises(HttpError) as caught:
        await read(settings, time=FakeTime())
    return caught.value.failure


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bearer", {"Authorization": f"Bearer {WORD}"}),
        ("basic", {"Authorization": "Basic " + b64encode(f"joe:{WORD}".encode()).decode()}),
        ("header", {"X-Api-Key": WORD}),
    ],
)
async def test_credentials_go_with_each_request(api, name, expected):
    await read(settings_for(api, auth=AUTHS[name], headers={"X-Tenant": Secret("seven")}))
    assert api.requests == 2
    for seen in api.seen:
        assert seen.headers.items() >= {**expected, "X-Tenant": "seven"}.items()


async def test_a_key_in_the_query_goes_with_each_request_and_nowhere_else(api):
    settings = settings_for(api, auth=AUTHS["query"])
    pages = await read(settings)
    assert [seen.query["api_key"] for seen in api.seen] == [WORD] * 2
    assert [page.url for page in pages] == [api.url("/next_url"), api.url("/next_url?at=5")]
    api.misbehave(value({"items": [], "links": {"next": f"/next_url?at=5&api_key={quote(WORD)}"}}))
    first, second = await read(settings)
    assert first.mark == PageMark(api.url("/next_url?at=5"), 2)
    assert second.is_last


@pytest.mark.parametrize("name", AUTHS)
@pytest.mark.parametrize("way", ["redirect", "next", "link"])
async def test_another_origin_is_refused(api, other, name, way):
    target = other.url("/next_url")
    link = f"<{target}>; rel=next"
    ways = {
        "redirect": (redirect(target), NEXT),
        "next": (value({"items": [1], "links": {"next": target}}), NEXT),
        "link": (value({"items": [1]}, Link=link), LinkHeaderPagination()),
    }
    behaviour, pagination = ways[way]
    api.misbehave(behaviour)
    failed = await failure_of(settings_for(api, auth=AUTHS[name], pagination=pagination))
    assert (failed.reason, failed.attempts, other.requests) == ("refused_origin", 1, 0)
    assert other.origin in failed.message
    assert "allow_origins" in failed.message


@pytest.mark.parametrize("name", AUTHS)
@pytest.mark.parametrize("way", ["redirect", "next"])
async def test_an_origin_that_is_allowed_sees_no_credentials(api, other, name, way):
    target = other.url("/next_url?at=5")
    headers = {"X-Secret": Secret("tell no one"), "Cookie": Secret("id=5"), "Accept": Secret("a/b")}
    behaviour = redirect(target) if way == "redirect" else None
    api.misbehave(behaviour or value({"items": [1], "links": {"next": target}}))
    settings = settings_for(api, auth=AUTHS[name], headers=headers, allow_origins=(other.origin,))
    pages = await read(settings)
    assert pages[-1].is_last
    (seen,) = other.seen
    assert seen.query == {"at": "5"}
    assert not {"Authorization", "X-Api-Key", "X-Secret", "Cookie", "Referer"} & seen.headers.keys()
    assert seen.headers["Accept"] == "a/b"


async def test_back_home_the_credentials_are_there_again(api, other):
    other.misbehave(value({"items": [2], "links": {"next": api.url("/next_url?at=5")}}))
    api.misbehave(value({"items": [1], "links": {"next": other.url("/next_url")}}))
    settings = settings_for(api, auth=AUTHS["bearer"], allow_origins=(other.origin,))
    assert len(await read(settings)) == 3
    assert ["Authorization" in seen.headers for seen in (*api.seen, *other.seen)] == [
        True,
        True,
        False,
    ]


async def test_credentials_of_one_url_do_not_go_along_a_link_to_another(api, other):
    api.misbehave(value({"items": [1], "links": {"next": other.url("/next_url")}}))
    settings = settings_for(
        api, urls=(api.url("/next_url"), other.url("/next_url")), auth=AUTHS["bearer"]
    )
    assert (await failure_of(settings)).reason == "refused_origin"
    assert other.requests == 0


async def test_a_mark_leads_nowhere_else_either(api, other):
    settings = settings_for(api)
    async with HttpSource(settings) as source:
        with pytest.raises(HttpError, match="another origin"):
            await anext(source.pages(settings.urls[0], PageMark(other.url("/next_url"), 2)))
        with pytest.raises(UsageError, match="urls"):
            await anext(source.pages(other.url("/next_url")))
    assert other.requests == 0


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,[]"])
async def test_only_http(api, target):
    api.misbehave(redirect(target))
    failed = await failure_of(settings_for(api))
    assert failed.reason == "refused_origin"
    api.misbehave(value({"items": [1], "links": {"next": target}}))
    failed = await failure_of(settings_for(api))
    assert failed.reason in ("refused_origin", "bad_next")
    assert api.requests == 2


async def test_a_password_in_a_link_is_not_used(api):
    there = api.url("/next_url?at=5").replace("//", "//joe:pw@")
    api.misbehave(value({"items": [1], "links": {"next": there}}))
    pages = await read(settings_for(api))
    assert pages[0].mark == PageMark(api.url("/next_url?at=5"), 2)
    assert "Authorization" not in api.seen[1].headers


async def test_cookies_are_not_kept(api):
    api.misbehave(value({"items": [1], "links": {"next": "/next_url?at=5"}}, Set_Cookie="a=b"))
    assert len(await read(settings_for(api))) == 2
    assert "Cookie" not in api.seen[1].headers


@pytest.mark.parametrize("name", AUTHS)
async def test_no_failure_tells_a_secret(api, name, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    encoded = b64encode(f"joe:{WORD}".encode()).decode()
    echo = f"bad key {WORD}, {encoded if name == 'basic' else ''}, {quote(WORD, safe='')}, {OTHER}"
    settings = settings_for(
        api,
        urls=(api.url("/next_url?access_token=old-one"),),
        auth=AUTHS[name],
        headers={"X-Other": Secret(OTHER)},
    )
    api.misbehave(status(401, echo))
    failures = [await failure_of(settings)]
    api.misbehave(status(503, echo), times=2)
    failures.append(await failure_of(settings))
    api.misbehave(redirect(f"http://127.0.0.2/{WORD}?api_key={WORD}"))
    failures.append(await failure_of(settings))
    api.misbehave(value({"items": [], "links": {"next": "http://[" + WORD}}))
    failures.append(await failure_of(settings))
    shown = "".join(
        f"{failed!r}{failed.message}{HttpError(failed)}{HttpError(failed)!r}" for failed in failures
    )
    shown += repr(settings) + msgspec.json.encode(settings, enc_hook=encode_secret).decode()
    shown += caplog.text + "".join(capfd.readouterr())
    assert "bad key ***" in shown
    forms = (WORD, "s3cret", OTHER, encoded)
    assert not [form for form in forms if form in shown]
    assert "old-one" not in "".join(failed.url + failed.message for failed in failures)


def test_a_secret_shows_only_when_it_is_asked():
    secret = Secret("x")
    assert (str(secret), repr(secret), f"{secret}", f"{[secret]}") == ("***",) * 3 + ("[***]",)
    assert secret.reveal() == "x"
    assert secret == Secret("x") != Secret("y")
    assert len({secret, Secret("x")}) == 1
    assert pickle.loads(pickle.dumps(secret)) == secret


def test_the_secrets_of_settings_are_not_encoded():
    settings = HttpSettings(
        urls=("https://a.example/x",),
        headers={"Accept": Secret("application/json")},
        auth=BasicAuth("joe", Secret("pw")),
    )
    shown = json.loads(msgspec.json.encode(settings, enc_hook=encode_secret))
    assert shown["headers"] == {"Accept": "***"}
    assert shown["auth"] == {"type": "basic", "username": "joe", "password": "***"}
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)


PARENT_WITH_USER = ParentRequests(urls=("https://joe:hidden@a/",))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"urls": ()}, "urls"),
        ({"urls": ("ftp://a/",)}, "urls[0]"),
        ({"urls": ("http://a/", "a/b")}, "urls[1]"),
        ({"urls": ("http://joe:hidden@a/",)}, "urls[0]"),
        ({"urls": ("http://a:b/",)}, "urls[0]"),
        ({"urls": ("http://a/ b",)}, "urls[0]"),
        ({"urls": ("http://a\\@b/",)}, "urls[0]"),
        ({"allow_origins": ("https://a/b",)}, "allow_origins[0]"),
        ({"allow_origins": ("a.example",)}, "allow_origins[0]"),
        ({"records": "items"}, "records"),
        ({"rate_limit": "fast"}, "rate_limit"),
        ({"timeout": 0}, "timeout"),
        ({"incremental": Incremental("at", "since", lag=-1.0)}, "incremental.lag"),
        ({"urls": ("https://a/{id}",), "parent": PARENT_WITH_USER}, "parent.urls[0]"),
        ({"auth": HeaderAuth("Host", Secret("hidden"))}, "auth.name"),
        ({"timeout": float("nan")}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_pages": 0}, "max_pages"),
        ({"max_body": 0}, "max_body"),
        ({"headers": {"a b": Secret("hidden")}}, "headers.a b"),
        ({"headers": {"Host": Secret("hidden")}}, "headers.Host"),
        ({"headers": {"X": Secret("hidden\r\nY: 1")}}, "headers.X"),
        ({"auth": BearerAuth(Secret("hidden\n"))}, "auth.token"),
        ({"auth": BearerAuth(Secret(""))}, "auth.token"),
        ({"auth": HeaderAuth("a b", Secret("hidden"))}, "auth.name"),
        ({"auth": HeaderAuth("X", Secret("hidden\0"))}, "auth.value"),
        ({"auth": HeaderAuth("X-k", Secret("x")), "headers": {"x-K": Secret("y")}}, "headers.x-K"),
        (
            {"auth": AUTHS["bearer"], "headers": {"authorization": Secret("y")}},
            "headers.authorization",
        ),
        ({"auth": QueryAuth("", Secret("hidden"))}, "auth.name"),
        ({"pagination": CursorPagination("next")}, "pagination.next"),
        ({"pagination": NextUrlPagination("next")}, "pagination.next"),
        ({"pagination": PagePagination(total="x")}, "pagination.total"),
        ({"pagination": PagePagination(size=5)}, "pagination.size"),
        ({"pagination": PagePagination(size=0, size_param="n")}, "pagination.size"),
        ({"pagination": OffsetPagination(limit=0)}, "pagination.limit"),
        ({"pagination": CursorPagination("/next"), "format": "jsonl"}, "pagination.next"),
    ],
)
def test_mistakes_are_found_before_anything_is_asked(changes, where):
    settings = HttpSettings(**{"urls": ("https://a.example/",)} | changes)
    found = list(setting_mistakes(settings))
    assert [place for place, _ in found] == [where]
    with pytest.raises(UsageError) as caught:
        HttpSource(settings)
    assert where in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_all_mistakes_come_at_once():
    settings = HttpSettings((), timeout=0, records="x")
    with pytest.raises(UsageError, match=r"urls: .*; records: .*; timeout: "):
        HttpSource(settings)


INSIDE = [
    "http://127.0.0.1:{port}/next_url",
    "http://localhost:{port}/next_url",
    "http://[::1]:{port}/next_url",
    "http://[::ffff:127.0.0.1]:{port}/next_url",
    "http://2130706433:{port}/next_url",
    "http://0x7f.1:{port}/next_url",
    "http://0.0.0.0:{port}/next_url",
    "//127.0.0.1:{port}/next_url",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://api.example@127.0.0.1:{port}/next_url",
    "http://api.example:{port}/next_url",
    "https://api.example/next_url",
]


@pytest.mark.parametrize("way", ["redirect", "next", "link"])
@pytest.mark.parametrize("target", INSIDE)
async def test_an_api_outside_leads_to_nothing_inside(api, other, monkeypatch, way, target):
    """The API is `api.example`, behind a proxy; the servers it leads to are on this machine."""
    monkeypatch.setenv("http_proxy", api.origin)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost,::1,0.0.0.0,2130706433,0x7f.1")
    target = target.format(port=other.port)
    ways = {
        "redirect": (redirect(target), NEXT),
        "next": (value({"items": [1], "links": {"next": target}}), NEXT),
        "link": (value({"items": [1]}, Link=f"<{target}>; rel=next"), LinkHeaderPagination()),
    }
    behaviour, pagination = ways[way]
    api.misbehave(behaviour)
    settings = settings_for(api, urls=("http://api.example/next_url",), pagination=pagination)
    failed = await failure_of(settings)
    assert failed.reason == "refused_origin"
    assert (api.requests, other.requests) == (1, 0)


NEAR = [
    "http://127.0.0.1:{other}/next_url", "http://127.0.0.2:{port}/next_url",
    "http://[::1]:{port}/next_url", "http://localhost:{port}/next_url",
    "http://2130706433:{port}/next_url", "http://0x7f000001:{port}/next_url",
    "http://127.1:{port}/next_url", "http://0177.0.0.1:{port}/next_url",
    "http://0.0.0.0:{port}/next_url", "http://[::ffff:7f00:1]:{port}/next_url",
    "https://127.0.0.1:{port}/next_url", "http://127.0.0.1/next_url",
    "http://169.254.169.254/latest/", "http://0xa9fea9fe/latest/", "file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("way", ["redirect", "next"])
@pytest.mark.parametrize("target", NEAR)
async def test_an_api_on_loopback_leads_to_its_own_port_only(api, other, target, way):
    target = target.format(port=api.port, other=other.port)
    answer = value({"items": [1], "links": {"next": target}})
    api.misbehave(redirect(target) if way == "redirect" else answer)
    failed = await failure_of(settings_for(api))
    assert failed.reason in {"refused_origin", "bad_next"}
    assert (api.requests, other.requests) == (1, 0)


@pytest.mark.parametrize(
    "secret",
    ["loader:Zm9v+YmFyQUJD==", "p@ss w,rd!", "a b/c+SEK", 'ab"cd\\efgh12', "äSEKRIT", "<&'SEK\t>"],
)
@pytest.mark.parametrize("place", ["query", "header"])
async def test_no_form_of_a_secret_is_told(api, secret, place):
    """A server repeats it as it was sent, as it reads it, in JSON, and in HTML."""
    if place == "header" and "\t" in secret:
        secret = secret.replace("\t", "")
    auths = {
        "query": QueryAuth("code", Secret(secret)), "header": HeaderAuth("X-Key", Secret(secret)),
    }  # fmt: skip
    told: list[str] = []

    async def repeat(request):
        sent = request.headers.get("X-Key", request.path_qs)
        read = sent.encode("utf-8", "surrogateescape").decode("latin-1")
        told.extend((sent, request.query.get("code", "")))
        pairs = {"a": sent, "b": read, "c": request.query.get("code")}
        texts = [json.dumps(pairs), json.dumps(pairs, ensure_ascii=False)]
        texts += [html.escape(json.dumps(pairs)), json.dumps(pairs).replace("/", "\\/")]
        return web.Response(status=403, body="\n".join(texts).encode())

    api.misbehave(repeat)
    failed = await failure_of(settings_for(api, auth=auths[place], pagination=None))
    assert told[0]
    assert "***" in failed.message
    shown = failed.message + failed.url
    assert not [part for part in ("SEK", "Zm9v", "rd!", "efgh12", "%2BYmF") if part in shown]


@pytest.mark.parametrize("path", ["/next_url?token={}", "/next_url?x=1&api_key={}"])
@pytest.mark.parametrize("behaviour", ["status", "garbage", "redirect"])
async def test_secrets_in_the_query_are_told_by_no_failure(api, path, behaviour):
    behaviours = {
        "status": status(500, f"no {WORD}"),
        "garbage": garbage(WORD.encode()),
        "redirect": redirect(f"http://[x]:y/{WORD}"),
    }
    api.misbehave(behaviours[behaviour])
    settings = settings_for(api, urls=(api.url(path.format(quote(WORD, safe=""))),), retries=0)
    failed = await failure_of(settings)
    assert not any(one in repr(failed) for one in (WORD, quote(WORD), quote(WORD, safe="")))
    assert "***" in failed.url


LONG = "eyJ" + "LONGTOKEN" * 600  # longer than the beginning of a body that was once looked at


@pytest.mark.parametrize("secret", ["s3cret-SEKRIT-word", LONG], ids=["short", "long"])
@pytest.mark.parametrize("place", ["status", "reason", "graphql", "link", "parent"])
async def test_a_secret_that_a_message_cuts_in_two_is_not_told(api, place, secret):
    text = "x" * 190 + secret
    more: dict[str, Any] = {}
    match place:
        case "status":
            api.misbehave(status(401, f"{secret} {text}"))
        case "reason":
            api.misbehave(value({"ok": False, "message": text}))
        case "graphql":
            more = {"body": {"query": "{ a }"}, "pagination": None}
            api.misbehave(value({"errors": [{"message": text}]}))
        case "link":
            api.misbehave(value({"items": [1], "links": {"next": f"http://[{text}"}}))
        case "parent":
            api.misbehave(value({"items": [{"id": ["x" * 40 + secret]}]}))
            parent = ParentRequests((api.url("/next_url"),), records="/items")
            more = {"parent": parent, "urls": (api.url("/page?id={id}"),), "pagination": None}
    settings = settings_for(api, headers={"X-Other": Secret(secret)}, retries=0, **more)
    if place == "parent":
        async with HttpFeedSource("api", settings) as source:
            feeds = [feed async for feed in source.each_feed()]
            with pytest.raises(FeedError) as caught:
                await anext(feeds[0].chunks(None))
        message = caught.value.failure.message
    else:
        message = (await failure_of(settings)).message
    assert "xxx" in message or place == "status"
    assert not [part for part in ("s3cret", "SEK", "eyJ", "LONG") if part in message], message


class FakeResolver(AbstractResolver):
    """Answers with one list of addresses after another."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = iter(answers)

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - of the interface
    ) -> list[Any]:
        return [{"hostname": host, "host": one, "port": port} for one in next(self._answers)]

    async def close(self) -> None: ...


SPECIAL = [
    "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0",
    "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "::",
]  # fmt: skip


@pytest.mark.parametrize("address", SPECIAL)
async def test_a_name_does_not_come_to_lead_inside(address):
    resolver = StableResolver(FakeResolver([address], ["9.9.9.9", address], [address]))
    assert [one["host"] for one in await resolver.resolve("api.example")] == [address]
    assert [one["host"] for one in await resolver.resolve("api.example")] == ["9.9.9.9"]
    with pytest.raises(OSError, match=r"leads to .* now"):
        await resolver.resolve("api.example")


async def test_addresses_of_a_company_are_as_others():
    resolver = StableResolver(FakeResolver(["10.0.0.5"], ["192.168.1.1", "fd12::1"]))
    assert len(await resolver.resolve("a")) == 1
    assert len(await resolver.resolve("a")) == 2


async def test_the_own_url_may_be_inside(api):
    pages = await read(settings_for(api, urls=(f"http://localhost:{api.port}/next_url",)))
    assert len(pages) == 2


async def test_certificates_are_verified(tmp_path):
    names = {"out": tmp_path / "cert.pem", "keyout": tmp_path / "key.pem"}
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    for option, path in names.items():
        command += [f"-{option}", os.fspath(path)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(names["out"], names["keyout"])
    with ApiServer(tls=tls) as api:
        failed = await failure_of(settings_for(api))
        assert (failed.reason, failed.attempts, api.requests) == ("tls", 1, 0)
        assert "self-signed certificate" in failed.message


async def test_proxies_come_from_the_environment(api, other, monkeypatch):
    monkeypatch.setenv("http_proxy", other.origin)
    await read(settings_for(api))
    assert (api.requests, other.requests) == (0, 2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    await read(settings_for(api))
    assert (api.requests, other.requests) == (2, 2)


async def test_passwords_of_other_programs_are_not_used(api, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login joe password hidden\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", os.fspath(tmp_path / ".netrc"))
    await read(settings_for(api))
    assert "Authorization" not in api.seen[0].headers


async def test_a_source_is_entered_before_it_is_read():
    source = HttpSource(HttpSettings(("https://a.example/",)))
    with pytest.raises(RuntimeError, match="enter the HttpSource"):
        await anext(source.pages("https://a.example/"))


def test_without_the_extra_the_error_says_what_to_install():
    program = """
import asyncio, sys
sys.modules["aiohttp"] = None
from asyncbatch.errors import UsageError
from asyncbatch.http import HttpSettings, HttpSource

async def main():
    async with HttpSource(HttpSettings(("http://127.0.0.1/",))):
        pass

try:
    asyncio.run(main())
except UsageError as error:
    print(error)
"""
    outcome = python(program)
    assert "pip install 'asyncbatch[http]'" in outcome.stdout, outcome.stderr


def test_what_is_not_used_is_not_imported():
    program = "import sys, asyncbatch.http; print('aiohttp' in sys.modules, 'yarl' in sys.modules)"
    assert python(program).stdout == "False False\n"
