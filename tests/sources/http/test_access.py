"""The access to servers: OAuth2, certificates, proxies, and bodies that have not changed."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import sys
from contextlib import aclosing, closing
from pathlib import Path

import pytest

import asyncbatch
from asyncbatch.core.secrets import Secret
from asyncbatch.errors import UsageError
from asyncbatch.sources.http.access.credentials import OAuth2Auth
from asyncbatch.sources.http.access.tls import TlsSettings
from asyncbatch.sources.http.base import HttpError
from asyncbatch.sources.http.settings import HttpSettings, NextUrlPagination
from asyncbatch.sources.http.source import HttpSource
from tests.commands import run_command_text
from tests.servers.access import (
    CLIENT,
    PROXY_USER,
    AccessApi,
    ForwardProxy,
    make_certificates,
    proxies,
)
from tests.servers.api import FakeTime, read


@pytest.fixture
def api():
    with AccessApi() as server:
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def oauth2(api, **more):
    return OAuth2Auth(
        **{
            "token_url": api.url("/token"), "client_id": CLIENT[0],
            "client_secret": Secret(CLIENT[1]), **more,
        }
    )  # fmt: skip


def settings_for(api, path="/items", **more):
    return HttpSettings(**{"urls": (api.url(path),), "retries": 1, **more})


async def failure_of(settings):
    with pytest.raises(HttpError) as caught:
        await read(settings, time=FakeTime())
    return caught.value.failure


def pipeline(folder, *sources, key="id", mode="upsert"):
    """Write a pipeline file with sources: TOML of their tables, without the type."""
    tables = "".join(f'[[source]]\ntype = "http"\nretries = 0\n{source}\n' for source in sources)
    (folder / "p.toml").write_text(
        f'name = "test"\n{tables}[sink]\nto = "sqlite:///out.db"\ntable = "t"\nmode = "{mode}"\n'
        + (f'key = ["{key}"]\n' if key else "")
    )


def etl(folder, *arguments, **env):
    return run_command_text("etl", "p.toml", "--workers", "0", *arguments, cwd=folder, env=env)


def rows(folder):
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return database.execute("SELECT * FROM t ORDER BY 1").fetchall()


def test_a_pipeline_with_client_credentials(tmp_path, api):
    urls = [api.url(f"/items?page={number}") for number in range(3)]
    (tmp_path / "secret").write_text(f"{CLIENT[1]}\n")
    pipeline(
        tmp_path,
        f'urls = {json.dumps(urls)}\nauth = {{ type = "oauth2", token_url = "{api.url("/token")}", '
        f'client_id = "{CLIENT[0]}", client_secret = "${{file:secret}}", scope = "a b", '
        'params = { resource = "r" } }',
    )
    ran = etl(tmp_path, "--report", "r.json", "--log-file", "log", "-v")
    assert ran.returncode == 0, ran.stderr
    assert rows(tmp_path) == [(1,), (2,)]
    [asked] = api.of("/token")
    assert asked.form == {"grant_type": "client_credentials", "scope": "a b", "resource": "r"}
    assert [one.headers["authorization"] for one in api.of("/items")] == ["Bearer t0ken-1"] * 3
    outputs = [ran.stdout, ran.stderr, (tmp_path / "r.json").read_text()]
    outputs.append((tmp_path / "log").read_text())
    assert not any(word in text for text in outputs for word in (CLIENT[1], "t0ken"))


def test_parents_and_children_share_a_token(tmp_path, api):
    auth = f'type = "oauth2", token_url = "{api.url("/token")}", client_id = "{CLIENT[0]}"'
    pipeline(
        tmp_path,
        f'urls = ["{api.url("/items?of={id}")}"]\nparent = {{ urls = ["{api.url("/items")}"] }}\n'
        f'auth = {{ {auth}, client_secret = "{CLIENT[1]}" }}',
    )
    ran = etl(tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert sorted(one.target for one in api.of("/items")) == [
        "/items",
        "/items?of=1",
        "/items?of=2",
    ]
    assert len(api.of("/token")) == 1


async def test_the_secret_in_the_body(api):
    api.client_place = "body"
    [page] = await read(settings_for(api, auth=oauth2(api, client_auth="body", audience="me")))
    assert json.loads(page.body) == api.items
    [asked] = api.of("/token")
    assert "authorization" not in asked.headers
    assert asked.form == {
        "grant_type": "client_credentials", "client_id": CLIENT[0], "client_secret": CLIENT[1],
        "audience": "me",
    }  # fmt: skip


async def test_concurrent_requests_share_a_token(api):
    urls = tuple(api.url(f"/items?page={number}") for number in range(8))
    async with HttpSource(settings_for(api, urls=urls, auth=oauth2(api))) as source:

        async def first(url):
            async with aclosing(source.pages(url)) as pages:
                return await anext(pages)

        assert len(await asyncio.gather(*map(first, urls))) == 8
    assert len(api.of("/token")) == 1


@pytest.mark.parametrize(("life", "tokens"), [(1000, 2), ("1000", 2), (None, 1), (10_000, 1)])
async def test_a_token_is_renewed_before_it_ends(api, life, tokens):
    api.life, time = life, FakeTime()
    settings = settings_for(api, auth=oauth2(api))
    async with HttpSource(settings, clock=time.clock, sleep=time.sleep) as source:
        for moment in (0.0, 800.0, 945.0):
            time.now = moment
            async with aclosing(source.pages(settings.urls[0])) as pages:
                assert [page.number async for page in pages] == [1]
    sent = [one.headers["authorization"] for one in api.of("/items")]
    assert sent == ["Bearer t0ken-1", "Bearer t0ken-1", f"Bearer t0ken-{tokens}"]


async def test_a_token_that_is_refused_is_renewed_once(api):
    settings = settings_for(api, auth=oauth2(api))
    async with HttpSource(settings) as source:
        for _ in range(2):
            async with aclosing(source.pages(settings.urls[0])) as pages:
                assert [page.number async for page in pages] == [1]
            api.valid.clear()
        assert source.request_count == 3
    assert len(api.of("/token")) == 2
    api.token_answers = [(200, {"access_token": f"wr0ng-{number}"}) for number in range(9)]
    failed = await failure_of(settings)
    assert (failed.reason, failed.status, failed.attempts) == ("status", 401, 1)
    assert "the token *** is not valid" in failed.body
    assert len(api.of("/token")) == 4


async def test_refresh_tokens_are_replaced(api):
    api.refresh_token = "first"
    settings = settings_for(api, auth=oauth2(api, refresh_token=Secret("first")))
    async with HttpSource(settings) as source:
        for _ in range(3):
            async with aclosing(source.pages(settings.urls[0])) as pages:
                assert [page.number async for page in pages] == [1]
            api.valid.clear()
    forms = [asked.form for asked in api.of("/token")]
    assert [form["refresh_token"] for form in forms] == ["first", "first+", "first++"]
    assert {form["grant_type"] for form in forms} == {"refresh_token"}
    failed = await failure_of(settings)
    assert "the refresh token has expired, or was used: get a new one" in failed.message


NO_TOKEN = "the answer has no access_token"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "HTTP 401, invalid_client: not ('my client', '***') (check client_id, client_secr"),
        ((200, {}), NO_TOKEN),
        ((200, [1]), NO_TOKEN),
        ((200, {"access_token": "a\nb"}), NO_TOKEN),
        (
            (200, {"access_token": "t0ken-x", "token_type": "mac"}),
            "the token is of the type mac, not B",
        ),
        ((302, {}), "HTTP 302"),
        ((403, {"error": {"code": 5}}), "HTTP 403"),
    ],
)
async def test_a_refusal_is_not_repeated(api, answer, message):
    api.token_answers = [] if answer is None else [answer]
    secret = Secret("s3cret-but-wrong")
    urls = tuple(api.url(f"/items?page={number}") for number in range(3))
    settings = settings_for(api, urls=urls, auth=oauth2(api, client_secret=secret), retries=3)
    async with HttpSource(settings) as source:
        for url in urls:
            with pytest.raises(HttpError) as caught:
                await anext(source.pages(url))
            failed = caught.value.failure
            assert (failed.reason, failed.attempts) == ("token", 1)
            start = f"no access token (OAuth2): {api.url('/token')}: {message}"
            assert failed.message.startswith(start)
    assert (len(api.of("/token")), len(api.of("/items"))) == (1, 0)


async def test_a_failure_of_the_moment_is_repeated(api):
    api.token_answers = [(503, {}), (429, {})]
    [page] = await read(settings_for(api, auth=oauth2(api), retries=2), time=FakeTime())
    assert json.loads(page.body) == api.items
    gone = oauth2(api, token_url="http://127.0.0.1:9/token")
    failed = await failure_of(settings_for(api, auth=gone))
    assert (failed.reason, failed.attempts) == ("network", 2)
    assert failed.message.startswith(
        "no access token (OAuth2): http://127.0.0.1:9/token: cannot connect to 127.0.0.1:9"
    )


async def test_a_token_endpoint_that_does_not_answer(api):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/token"
        auth = oauth2(api, token_url=address)
        failed = await failure_of(settings_for(api, auth=auth, timeout=0.05))
    assert (failed.reason, failed.attempts) == ("timeout", 2)
    assert f"(OAuth2): {address}: no complete response within 0.05 s" in failed.message


async def test_a_token_goes_to_its_origin_only(api):
    with AccessApi() as other:
        api.items = {"next": other.url("/plain"), "rows": [1]}
        settings = settings_for(
            api, auth=oauth2(api), allow_origins=(other.origin,), records="/rows",
            pagination=NextUrlPagination(next="/next"),
        )  # fmt: skip
        other.items = {"rows": [2]}
        assert len(await read(settings)) == 2
        assert "authorization" not in other.seen[0].headers


def test_certificates_of_an_own_authority_and_of_the_client(tmp_path, certificates):
    with AccessApi(certificates, asks_client=True) as api:
        tls = f'ca = "{certificates.ca}", cert = "{certificates.client}"'
        pipeline(
            tmp_path,
            f'urls = ["{api.url("/plain")}"]\n'
            f'tls = {{ {tls}, key = "{certificates.locked_key}", key_password = "${{WORD}}" }}',
        )
        ran = etl(tmp_path, WORD=certificates.password)
        assert ran.returncode == 0, ran.stdout
        assert rows(tmp_path) == [(1,), (2,)]
        assert [one.client for one in api.seen] == ["client"]


async def test_connections_that_certificates_end(certificates):
    ca = str(certificates.ca)
    with AccessApi(certificates, asks_client=True) as api:
        failed = await failure_of(settings_for(api, "/plain"))
        assert (failed.reason, failed.attempts) == ("tls", 1)
        assert "if its authority is your own, name it by tls.ca" in failed.message
        failed = await failure_of(settings_for(api, "/plain", tls=TlsSettings(ca=ca)))
        assert (failed.reason, failed.attempts) == ("tls", 1)
        assert "if the server asks for a certificate of this client, name it by" in failed.message


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python accepts these certificates")
async def test_an_authority_without_an_extension(tmp_path):
    """The message does not advise to name an authority that is named."""
    incomplete = make_certificates(tmp_path, key_usage=())
    with AccessApi(incomplete) as api:
        settings = settings_for(api, "/plain", tls=TlsSettings(str(incomplete.ca)))
        failed = await failure_of(settings)
        assert "does not include key usage extension" in failed.message
        assert failed.message.endswith("Python demands it since 3.13: renew the certificate")


async def test_a_certificate_goes_to_its_origin_only(certificates):
    tls = TlsSettings(str(certificates.ca), str(certificates.client), str(certificates.client_key))
    with AccessApi(certificates) as api, AccessApi(certificates, asks_client=True) as other:
        settings = settings_for(api, "/plain", tls=tls, auth=oauth2(other))
        assert len(await read(settings)) == 1
        assert [one.client for one in other.of("/token")] == ["client"]


def test_mistakes_in_certificates(tmp_path, certificates):
    (tmp_path / "none.pem").write_text("none")
    cert, locked, other = (
        certificates.client, certificates.locked_key, certificates.ca.with_suffix(".key")
    )  # fmt: skip
    wrong = {
        'ca = "missing.pem"': "ca: missing.pem cannot be read: No such file or directory",
        'ca = "none.pem"': "ca: none.pem has no certificate in the form PEM",
        'key = "none.pem"': "key: name a ca, a cert, or both",
        f'ca = "{cert}", key = "none.pem"': "key: needs cert: the certificate of this client",
        f'cert = "{cert}"': (
            f"cert: {cert} has no private key in the form PEM: name the file of the key"
        ),
        f'cert = "{cert}", key = "{other}"': f"key: {other} has the key of another certificate",
        f'cert = "{cert}", key = "{locked}"': f"key: {locked} is encrypted: give its key_password",
        f'cert = "{cert}", key = "{locked}", key_password = "wrong"': (
            f"key_password: does not decrypt {locked}"
        ),
        'cert = "none.pem"': "cert: none.pem has no certificate in the form PEM",
    }
    pipeline(
        tmp_path,
        *(f'urls = ["https://x.example/{at}"]\ntls = {{ {one} }}' for at, one in enumerate(wrong)),
    )
    ran = etl(tmp_path, "--check")
    assert ran.returncode == 2
    assert [line.strip() for line in ran.stderr.splitlines()[1:]] == [
        f"source[{at}].tls.{message}" for at, message in enumerate(wrong.values())
    ]


def test_mistakes_in_settings(tmp_path):
    base = 'type = "oauth2", client_id = "c", token_url = '
    place, secret = '"https://auth.example.com/token"', 'client_secret = "s"'
    url = "must be a URL that begins with http:// or https://"
    wrong = {
        f'auth = {{ {base}"http://auth.example.com/token", {secret} }}': (
            "auth.token_url: would send secrets in clear text: use https://"
        ),
        f'auth = {{ {base}"auth", {secret} }}': (
            f"auth.token_url: {url.replace('a URL', 'a complete URL')}"
        ),
        f"auth = {{ {base}{place} }}": (
            "auth.client_secret: is missing: give it, a refresh_token, a refresh_token_file, or "
            "tls.cert"
        ),
        f'auth = {{ {base}{place}, {secret}, params = {{ scope = "x" }} }}': (
            "auth.params.scope: is set by auth itself: use auth.scope"
        ),
        f'auth = {{ {base}{place}, {secret} }}\nheaders = {{ authorization = "x" }}': (
            "headers.authorization: auth also sends this header: choose one"
        ),
        'proxy = "socks5://joe:word@proxy:1080"': (
            "proxy: is a SOCKS proxy, which is not supported: name one with http://"
        ),
        'proxy = "proxy:1080"': f'proxy: {url}, or "none"',
    }
    pipeline(
        tmp_path, *(f'urls = ["https://x.example/{at}"]\n{one}' for at, one in enumerate(wrong))
    )
    ran = etl(tmp_path, "--check")
    assert [line.strip() for line in ran.stderr.splitlines()[1:]] == [
        f"source[{at}].{message}" for at, message in enumerate(wrong.values())
    ]
    with pytest.raises(UsageError, match="proxy: must be a URL"):
        HttpSource(HttpSettings(("https://x.example",), proxy=Secret("proxy:3128")))


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_certificate_is_no_output(tmp_path, certificates, name):
    own = {"ca": certificates.ca, "cert": certificates.client, "key": certificates.client_key}
    for one, path in own.items():
        (tmp_path / one).write_bytes(Path(path).read_bytes())
    pipeline(
        tmp_path,
        """urls = ["https://127.0.0.1:9"]
tls = { ca = "ca", cert = "cert", key = "key" }""",
    )
    ran = etl(tmp_path, "--report", name)
    assert ran.returncode == 2
    assert f"{name} is read by this run: it cannot be written to" in ran.stderr
    assert (tmp_path / name).read_bytes() == Path(own[name]).read_bytes()


def test_proxies(tmp_path, certificates, api):
    """A source's own proxy, that of the environment, none, and tunnels for TLS."""
    with ForwardProxy(PROXY_USER) as proxy, AccessApi(certificates) as secure:
        address = proxy.url("").replace("://", f"://{PROXY_USER}@")
        pipeline(
            tmp_path,
            f'urls = ["{api.url("/plain?own")}"]\nproxy = "${{PROXY}}"',
            f'urls = ["{api.url("/plain?environment")}"]',
            f'urls = ["{api.url("/plain?none")}"]\nproxy = "none"',
            f'urls = ["{secure.url("/plain")}"]\ntls = {{ ca = "{certificates.ca}" }}',
        )
        shown = ("-v", "--report", "r.json", "--log-file", "log")
        env = proxies(PROXY=address, http_proxy=address, https_proxy=address)
        ran = etl(tmp_path, *shown, **env)
        assert ran.returncode == 0, ran.stdout
        place = secure.origin.removeprefix("https://")
        targets = sorted(one.target.partition("?")[0] for one in proxy.seen)
        assert targets == sorted([*[api.url("/plain")] * 2, place])
        assert len(api.seen) == 3
        assert len(secure.seen) == 1
        assert not any("proxy-authorization" in one.headers for one in (*api.seen, *secure.seen))
        seen = len(proxy.seen)
        wrong = etl(
            tmp_path, *shown, **{**env, "https_proxy": proxy.origin, "PROXY": "http://127.0.0.1:9"}
        )
        assert wrong.returncode == 1
        assert "the proxy refuses the connection: 407" in wrong.stdout
        assert "cannot connect to the proxy 127.0.0.1:9" in wrong.stdout
        assert len(proxy.seen) == seen + 2
        passed = etl(tmp_path, **{**env, "no_proxy": "10.0.0.0/8,127.0.0.0/8"})
        assert passed.returncode == 0, passed.stdout
        assert len(proxy.seen) == seen + 3
        others = etl(tmp_path, **proxies(PROXY="none", all_proxy="socks5://127.0.0.1:9"))
        assert others.returncode == 0, others.stdout
        word = PROXY_USER.partition(":")[2]
        outputs = [ran.stdout, ran.stderr, wrong.stdout, wrong.stderr]
        outputs += [(tmp_path / name).read_text() for name in ("r.json", "log")]
        assert not any(word in text for text in outputs)


def test_a_body_that_has_not_changed_is_nothing_new(tmp_path, api):
    source = f'urls = ["{api.url("/state")}"]\nconditional = true'
    pipeline(tmp_path, source)

    def load(*arguments):
        """Return the number of records that a run reads, and that of its conditions."""
        before = len(api.seen)
        ran = etl(tmp_path, "-o", "json", *arguments)
        assert ran.returncode == 0, ran.stderr
        [asked] = api.seen[before:]
        conditions = {"if-none-match", "if-modified-since"} & asked.headers.keys()
        return json.loads(ran.stdout)["records"]["read"], len(conditions)

    assert load() == (2, 0)
    assert load() == (0, 2)
    api.items = [{"id": 2}, {"id": 3}]
    assert load() == (2, 2)
    assert rows(tmp_path) == [(1,), (2,), (3,)]
    assert load() == (0, 2)
    api.has_etag = False
    assert load() == (0, 2)  # also after a run without records; now by the date
    assert load("--full-refresh") == (2, 0)
    pipeline(tmp_path, f'{source}\nrecords = "/0"')  # other records: the known body does not count
    assert etl(tmp_path).returncode == 1
    api.items = [[{"id": 4}]]
    assert load() == (1, 0)  # as does one that could not be loaded


def test_the_rejected_records_of_an_unchanged_body_stay_in_the_dead_letters(tmp_path, api):
    api.items = [{"id": 1}, 2, {"id": 3}, "four"]
    pipeline(tmp_path, f'urls = ["{api.url("/state")}"]\nconditional = true')
    with (tmp_path / "p.toml").open("a") as file:
        file.write('[dead_letter]\nto = "dead.jsonl"\n')
    told = []
    for _ in range(3):
        ran = etl(tmp_path, "-o", "json")
        told.append((json.loads(ran.stdout)["records"]["read"], ran.returncode))
        letters = (tmp_path / "dead.jsonl").read_text().splitlines()
        assert [json.loads(one)["record"] for one in letters] == [2, 4]
    assert told == [(4, 1), (0, 0), (0, 0)]
    api.items = [{"id": 1}]
    assert etl(tmp_path).returncode == 0
    assert not (tmp_path / "dead.jsonl").read_text()


def test_what_excludes_conditional(tmp_path):
    source = 'urls = ["https://x.example/{}"]\nconditional = true\n'
    pages = 'pagination = { type = "page" }'
    newer = 'incremental = { field = "a", param = "b" }'
    pipeline(tmp_path, source.format(1) + pages, source.format(2) + newer)
    ran = etl(tmp_path, "--check")
    told = [line.strip() for line in ran.stderr.splitlines()[1:]]
    assert told == [
        "source[0].conditional: excludes pagination: only the first page would tell of changes",
        "source[1].conditional: excludes incremental: choose one way to ask for what is new",
    ]
    for key, mode in ((None, "append"), ("id", "replace")):
        pipeline(tmp_path, source.format(1), key=key, mode=mode)
        ran = etl(tmp_path, "--check")
        assert "source[0].conditional: needs a database with a key and the mode" in ran.stderr
    settings = HttpSettings(("https://x.example/",), conditional=True)
    with pytest.raises(UsageError, match="http: conditional needs a database with a key"):
        asyncbatch.Pipeline(settings, sink=str(tmp_path / "x.jsonl"))


async def test_a_secret_in_a_long_answer_of_a_token_endpoint_is_not_told(api):
    text = "x" * 190 + CLIENT[1]
    api.token_answers = [(400, {"error": "invalid_client", "error_description": text})]
    message = (await failure_of(settings_for(api, auth=oauth2(api)))).message
    assert "xxx***" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("has_refresh_token", [True, False])
async def test_the_advice_for_a_refused_grant_fits_to_it(api, has_refresh_token):
    refresh = {"refresh_token": Secret("r3fresh-word")} if has_refresh_token else {}
    api.token_answers = [(400, {"error": "invalid_grant"})]
    message = (await failure_of(settings_for(api, auth=oauth2(api, **refresh)))).message
    assert ("refresh token" in message) is has_refresh_token
    assert ("client's credentials" in message) is not has_refresh_token
