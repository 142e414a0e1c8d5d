"""`asyncbatch etl` on URLs with hidden values: their state in ledgers, and the text of them."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from contextlib import closing
from typing import Any

import pytest
from aiohttp import web

from tests.commands import run_command_text
from tests.servers.api import ApiServer

INCREMENTAL = 'incremental = { field = "at", param = "since" }'
CURSOR = 'pagination = { type = "cursor", next = "/next" }'
KEY_ADVICE = 'key = ["id"]'
SECRET = "sk-SECRET/98765"


@pytest.fixture
def shop():
    """Serve records by customer: /shop?key=A gives those since a number, /pages some by cursor."""
    records: dict[str, list[int]] = {"A": [1, 2, 100], "B": [1, 2]}
    broken: set[tuple[str, int]] = set()

    async def since(request: web.Request) -> web.Response:
        name = request.query.get("key") or request.query.get("api_key") or ""
        least = int(request.query.get("since", 0))
        name = {"first-key": "A", "newer-key": "A", "other-key": "B"}.get(name, name)
        items = [{"id": f"{name}{at}", "at": at} for at in records[name] if at >= least]
        return web.json_response({"items": items})

    async def pages(request: web.Request) -> web.Response:
        name, at = request.query["author"], int(request.query.get("cursor", 0))
        if (name, at) in broken:
            return web.Response(status=500)
        following = str(at + 1) if at < 4 else None
        return web.json_response({"items": [{"id": f"{name}{at}"}], "next": following})

    with ApiServer(routes={"/shop": since, "/pages": pages}) as api:
        api.records, api.broken = records, broken  # type: ignore[assignment, attr-defined]  # for tests
        yield api


@pytest.fixture
def etl(tmp_path, files):
    def _etl(urls: list[str], more: str, sink: str = "", **env: str) -> dict[str, Any]:
        sources = f'[[source]]\ntype = "http"\nurls = {json.dumps(urls)}\n'
        return _run(sources + f'records = "/items"\nretries = 0\n{more}\n', sink, **env)

    def _run(sources: str, sink: str = "", **env: str) -> dict[str, Any]:
        table = f'[sink]\nto = "sqlite:///o.db"\ntable = "t"\n{sink}'
        files({"p.toml": f'name = "p"\n{sources}{table}'})
        outcome = run_command_text("etl", "p.toml", "--output", "json", cwd=tmp_path, env=env)
        assert outcome.stdout, outcome.stderr
        return dict(json.loads(outcome.stdout))

    _etl.run = _run  # type: ignore[attr-defined]  # for files of several sources
    return _etl


def query(folder: Any, statement: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "o.db")) as database, database:
        return database.execute(statement).fetchall()


def ids(folder: Any) -> list[Any]:
    return [row[0] for row in query(folder, "SELECT id FROM t ORDER BY id")]


def names(folder: Any) -> list[str]:
    return [row[0] for row in query(folder, "SELECT path FROM asyncbatch_ledger ORDER BY 1")]


def test_values_with_names_of_secrets_have_states_of_their_own(shop, etl, tmp_path):
    urls = [shop.url("/shop?key=A"), shop.url("/shop?key=B")]
    for _ in range(2):
        assert etl(urls, INCREMENTAL, KEY_ADVICE)["exit_code"] == 0
        shop.records["B"].append(50)
    assert ids(tmp_path) == ["A1", "A100", "A2", "B1", "B2", "B50"]
    # One of them alone, or in another place, is still the same.
    shop.records["B"].append(60)
    assert etl(urls[1:], INCREMENTAL, KEY_ADVICE)["records"]["read"] == 3
    assert len(names(tmp_path)) == 2
    assert not [name for name in names(tmp_path) if "key=***" not in name]


def test_an_interrupted_url_continues_with_its_own_cursor(shop, etl, tmp_path):
    urls = [shop.url("/pages?author=ann"), shop.url("/pages?author=bob")]
    shop.broken.add(("ann", 2))
    assert etl(urls, CURSOR)["exit_code"] == 1
    shop.broken.clear()
    etl(urls, CURSOR)
    assert ids(tmp_path) == [f"{name}{at}" for name in ("ann", "bob") for at in range(5)]
    assert names(tmp_path) == urls  # an author is no secret


def test_children_with_names_of_secrets_continue_with_their_own_cursors(shop, etl, tmp_path):
    async def parents(_: web.Request) -> web.Response:
        return web.json_response([{"id": "ann"}, {"id": "bob"}])

    async def pages(request: web.Request) -> web.Response:
        name, at = request.query["key"], int(request.query.get("cursor", 0))
        if (name, at) in shop.broken:
            return web.Response(status=500)
        following = str(at + 1) if at < 4 else None
        return web.json_response({"items": [{"id": f"{name}{at}"}], "next": following})

    with ApiServer(routes={"/parents": parents, "/pages": pages}) as api:
        parent = f'parent = {{ urls = ["{api.url("/parents")}"], fields = {{ of = "id" }} }}'
        shop.broken.add(("ann", 2))
        assert etl([api.url("/pages?key={id}")], f"{CURSOR}\n{parent}")["exit_code"] == 1
        shop.broken.clear()
        etl([api.url("/pages?key={id}")], f"{CURSOR}\n{parent}")
    rows = query(tmp_path, "SELECT id, of FROM t ORDER BY id")
    assert rows == [(f"{name}{at}", name) for name in ("ann", "bob") for at in range(5)]


def test_a_new_secret_of_a_variable_does_not_begin_anew(shop, etl, tmp_path):
    urls = [shop.url("/shop?api_key=${SHOP}")]
    assert etl(urls, INCREMENTAL, KEY_ADVICE, SHOP="first-key")["records"]["read"] == 3
    assert etl(urls, INCREMENTAL, KEY_ADVICE, SHOP="newer-key")["records"]["read"] == 1
    assert names(tmp_path) == [shop.url("/shop?api_key=***")]


@pytest.mark.parametrize("is_split", [False, True], ids=["one source", "two sources"])
def test_two_secrets_of_variables_have_states_of_their_own(shop, etl, tmp_path, is_split):
    urls = [shop.url("/shop?api_key=${ONE}"), shop.url("/shop?api_key=${TWO}")]
    groups = [[url] for url in urls] if is_split else [urls]
    sources = "".join(
        f'[[source]]\ntype = "http"\nurls = {json.dumps(group)}\n'
        f'records = "/items"\n{INCREMENTAL}\n'
        for group in groups
    )
    for _ in range(2):
        report = etl.run(sources, KEY_ADVICE, ONE="first-key", TWO="other-key")
        assert report["exit_code"] == 0
        shop.records["B"].append(50)
    assert ids(tmp_path) == ["A1", "A100", "A2", "B1", "B2", "B50"]
    assert "first-key" not in (tmp_path / "o.db").read_bytes().decode("latin-1")


@pytest.mark.parametrize("has_key", [True, False])
def test_a_state_that_urls_have_shared_is_not_used(shop, etl, tmp_path, has_key):
    """Earlier versions kept one state for all URLs that were shown alike."""
    sink = KEY_ADVICE if has_key else ""
    etl([shop.url("/shop?key=A")], INCREMENTAL, sink)
    query(tmp_path, f"UPDATE asyncbatch_ledger SET path = '{shop.url('/shop?key=***')}'")
    report = etl([shop.url("/shop?key=A")], INCREMENTAL, sink)
    assert ids(tmp_path) == ["A1", "A100", "A2"]  # read anew, or refused: neither lost nor doubled
    assert report["records"]["read"] == (3 if has_key else 0)
    if not has_key:
        assert "has kept one state" in report["failures"][0]["message"]


def test_a_state_of_an_author_that_was_hidden_is_not_used(shop, etl, tmp_path):
    etl([shop.url("/pages?author=ann")], CURSOR)
    query(tmp_path, f"UPDATE asyncbatch_ledger SET path = '{shop.url('/pages?author=***')}'")
    report = etl([shop.url("/pages?author=ann")], CURSOR)
    assert report["exit_code"] == 1
    assert "has kept one state" in report["failures"][0]["message"]
    assert len(ids(tmp_path)) == 5


def test_the_name_of_an_address_does_not_make_it_a_secret(shop, etl, tmp_path):
    report = etl(["${AUTH_URL}/shop?key=A"], INCREMENTAL, KEY_ADVICE, AUTH_URL=shop.origin)
    assert report["exit_code"] == 0
    assert names(tmp_path)[0].startswith(shop.url("/shop?key=*** ["))


def test_two_sources_do_not_share_the_state_of_a_url(etl, tmp_path):
    async def parents(_: web.Request) -> web.Response:
        return web.json_response([{"id": "1"}])

    async def record(request: web.Request) -> web.Response:
        return web.json_response({"items": [{"id": request.path}]})

    with ApiServer(routes={"/parents": parents, "/orders/1": record}) as api:
        more = f'urls = ["{api.url("/orders/{id}")}"]\nparent.urls = ["{api.url("/parents")}"]'
        report = etl.run(
            f'[[source]]\ntype = "http"\nrecords = "/items"\n{more}\n'
            f'[[source]]\ntype = "http"\nrecords = "/items"\nurls = ["{api.url("/orders/1")}"]\n'
        )
    assert report["exit_code"] == 1
    assert "another source of this run" in report["failures"][0]["message"]
    assert ids(tmp_path) == ["/orders/1"]


TOKEN = "tok-98765-SECRET"
BASIC = b64encode(f"joe:{TOKEN}".encode()).decode()
PARENT = 'urls = ["ORIGIN/x?appid=${file:token}"], records = "/items"'
PLACES = {
    "scheme": ("/x", 'headers = { Authorization = "Bearer ${V}" }'),
    "cookie": ("/x", 'headers = { Cookie = "sid=${V}; lang=en" }'),
    "part of a header": ("/x", 'headers = { X-Signed = "v1:${file:token}" }'),
    "basic": ("/x", f'headers = {{ Authorization = "Basic {BASIC}" }}'),
    "list": ("/x", 'body = { keys = ["${V}"] }'),
    "table": ("/x", 'body = { auth = { value = "${V}" } }'),
    "list of a secret name": ("/x", 'body = { api_keys = [{ of = "${V}" }] }'),
    "file in a body": ("/x", 'body = { app = "${file:token}" }'),
    "file in a query": ("/x?appid=${file:token}", ""),
    "file in a path": ("/x/${file:token}/y", ""),
    "file in a parent": ("/x?id={id}", f"parent = {{ {PARENT} }}"),
    "variable with the name of a secret": ("/x/${API_TOKEN}/y", ""),
    "variable in a secret parameter": ("/x?access_token=${V}", ""),
    "hidden": (f"/x/{TOKEN}/y", f'hidden = ["{TOKEN}"]'),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [401, 200])
def test_no_part_of_a_secret_is_shown(files, tmp_path, place, status):
    async def repeat(_: web.Request) -> web.Response:
        if status == 200:
            return web.json_response({"items": [{"id": 1}]})
        return web.json_response({"error": f"Incorrect key: {TOKEN}."}, status=401)

    with ApiServer(routes={"/{rest:.*}": repeat}) as api:
        path, more = PLACES[place]
        more = more.replace("ORIGIN", api.origin)
        files(
            {
                "token": TOKEN,
                "p.toml": f'name = "p"\n[[source]]\ntype = "http"\nurls = ["{api.url(path)}"]\n'
                f'records = "/items"\n{more}\n[sink]\nto = "sqlite:///o.db"\ntable = "t"\n',
            }
        )
        secrets = {"V": TOKEN, "API_TOKEN": TOKEN}
        outcome = run_command_text(
            "etl", "p.toml", "--output", "json", "--report", "r.html", "--report", "r.md",
            "--log-file", "log", cwd=tmp_path, env=secrets,
        )  # fmt: skip
        assert TOKEN in "".join(f"{one.target}{one.headers}{one.body!r}" for one in api.seen) or (
            place == "basic"
        )
    assert json.loads(outcome.stdout)["exit_code"] == (0 if status == 200 else 1)
    if status == 401:
        assert "Incorrect key: ***" in outcome.stdout
    (tmp_path / "token").unlink()
    (tmp_path / "p.toml").unlink()
    told = outcome.stdout + outcome.stderr
    made = [one for one in tmp_path.rglob("*") if one.is_file()]
    told += "".join(one.read_bytes().decode("latin-1") for one in made)
    assert TOKEN not in told


MARKED = {
    "cursor": ("/x?api_key=${KEY}&n=1", CURSOR),
    "file": ("/x?appid=${file:token}", CURSOR),
    "path": ("/${file:token}/x?n=1", CURSOR),
    "link": ("/x?api_key=${KEY}", 'pagination = { type = "next_url", next = "/link" }'),
    "link in path": ("/${file:token}/x", 'pagination = { type = "next_url", next = "/link" }'),
    "parent": ("/x?of={id}&api_key=${KEY}", f'{CURSOR}\nparent.urls = ["ORIGIN/parents"]'),
}


@pytest.mark.parametrize("place", MARKED)
def test_the_mark_of_an_interrupted_url_has_no_secret(files, tmp_path, place):
    broken = [True]

    async def pages(request: web.Request) -> web.Response:
        at = int(request.query.get("cursor", 0))
        if at == 2 and broken:
            return web.Response(status=500)
        more = at < 4
        answer = {"items": [{"id": at}], "next": str(at + 1) if more else None}
        link = str(request.rel_url.update_query(cursor=at + 1)) if more else None
        return web.json_response(answer | {"link": link})

    async def parents(_: web.Request) -> web.Response:
        return web.json_response({"id": 1})

    path, more = MARKED[place]
    with ApiServer(routes={"/parents": parents, "/x": pages, "/{token}/x": pages}) as api:
        files(
            {
                "token": TOKEN,
                "p.toml": f'name = "p"\n[[source]]\ntype = "http"\nurls = ["{api.url(path)}"]\n'
                f'records = "/items"\nretries = 0\n{more.replace("ORIGIN", api.origin)}\n'
                '[sink]\nto = "sqlite:///o.db"\ntable = "t"\n',
            }
        )
        outcome = run_command_text("etl", "p.toml", cwd=tmp_path, env={"KEY": TOKEN})
        assert outcome.returncode == 1
        assert TOKEN not in str(query(tmp_path, "SELECT * FROM asyncbatch_ledger"))
        (bookmark,) = query(tmp_path, "SELECT bookmark FROM asyncbatch_ledger")[0]
        assert "cursor=2" in bookmark
        broken.clear()
        api.seen.clear()
        outcome = run_command_text("etl", "p.toml", cwd=tmp_path, env={"KEY": "a-newer-key"})
        assert outcome.returncode == 0, outcome.stdout
        asked = [seen.target for seen in api.seen if seen.path != "/parents"]
    secret = TOKEN if "file:" in path else "a-newer-key"
    assert all(secret in target for target in asked)
    assert [target[-1] for target in asked] == ["2", "3", "4"]
    assert ids(tmp_path) == list(range(5))


def test_a_token_of_the_server_stays_in_a_mark(files, tmp_path, etl):
    """A cursor may have the name of a secret: without it, the next run would find no page."""

    async def pages(request: web.Request) -> web.Response:
        at = int(request.query.get("page_token", 0))
        if at == 2 and len(api.seen) < 5:
            return web.Response(status=500)
        link = f"/x?page_token={at + 1}" if at < 4 else None
        return web.json_response({"items": [{"id": at}], "link": link})

    with ApiServer(routes={"/x": pages}) as api:
        more = 'pagination = { type = "next_url", next = "/link" }'
        assert etl([api.url("/x")], more)["exit_code"] == 1
        api.seen.extend(api.seen)
        assert etl([api.url("/x")], more)["exit_code"] == 0
    assert ids(tmp_path) == list(range(5))
