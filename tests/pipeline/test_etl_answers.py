"""`asyncbatch etl` on APIs whose answers are errors, holes and repetitions."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from typing import Any

import pytest
from aiohttp import web

from tests.commands import COMMAND, PATIENCE, environment, run_command_text
from tests.servers.api import ApiServer, status, value

NEWEST_FIRST = [{"id": 9 - n, "updated_at": f"2026-01-{9 - n:02}T00:00:00Z"} for n in range(9)]
KINDS = {
    "/page": '{ type = "page" }',
    "/offset": '{ type = "offset", limit = 3 }',
    "/cursor": '{ type = "cursor", next = "/next_cursor" }',
    "/next_url": '{ type = "next_url", next = "/links/next" }',
    "/link_header": '{ type = "link_header" }',
}


@pytest.fixture
def etl(tmp_path, files):
    """Run `asyncbatch etl` on one URL into a table, and return its report."""

    def _etl(
        url: str,
        pagination: str,
        more: str = "",
        sink: str = 'key = ["id"]',
        *,
        retries: int = 0,
        paged: bool = True,
    ) -> Any:
        records = "" if "link_header" in pagination else "/items"
        files({"p.toml": f"""
name = "answers"
[[source]]
type = "http"
urls = ["{url}"]
records = "{records}"
retries = {retries}
concurrency = 1
{f"pagination = {pagination}" if paged else ""}
{more}
[sink]
to = "sqlite:///out.db"
table = "rows"
{sink}
"""})  # fmt: skip
        outcome = run_command_text(
            "etl", "p.toml", "--output", "json", "--report", "r.md", cwd=tmp_path
        )
        assert outcome.stdout, outcome.stderr
        report = json.loads(outcome.stdout)
        assert report["exit_code"] == outcome.returncode
        return report

    return _etl


def rows(folder: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return database.execute("SELECT * FROM rows ORDER BY id").fetchall()


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("answer", [{"error": {"code": 17}}, {"message": "Server Error"}])
def test_what_an_error_in_the_middle_hid_comes_in_the_next_run(etl, tmp_path, path, answer):
    """The largest value, on the first page, is kept only once the last page was read."""
    incremental = 'incremental = { field = "updated_at", param = "since" }'
    with ApiServer(NEWEST_FIRST, size=3) as api:

        async def as_usual(_):
            return None

        api.misbehave(as_usual)
        api.misbehave(value(answer))
        report = etl(api.url(path), KINDS[path], incremental)
        assert (report["exit_code"], report["files"]["failed"]) == (1, 1)
        (failure,) = report["failures"]
        assert failure["kind"] == "http"
        expected = [(one["id"], one["updated_at"]) for one in reversed(NEWEST_FIRST)]
        assert rows(tmp_path) == expected[-3:]
        report = etl(api.url(path), KINDS[path], incremental)
        assert report["exit_code"] == 0
        assert {seen.query.get("since") for seen in api.seen} == {None}
        assert rows(tmp_path) == expected
        api.seen.clear()
        etl(api.url(path), KINDS[path], incremental)
        assert api.seen[0].query["since"] == "2026-01-09T00:00:00Z"


def test_a_hole_hides_nothing(etl, tmp_path):
    pages = [[1, 2, 3], [], [4, 5], [], [], [6]]

    async def behave(request: web.Request) -> web.Response:
        page = pages[int(request.query["page"]) - 1]
        return web.json_response({"items": [{"id": one} for one in page], "pages": "6"})

    with ApiServer() as api:
        api.misbehave(behave, times=99)
        report = etl(api.url("/page"), '{ type = "page", pages = "/pages" }')
    assert (report["exit_code"], report["sources"][0]["pages"]) == (0, 3)
    assert rows(tmp_path) == [(number,) for number in range(1, 7)]


@pytest.mark.parametrize(("on_repeat", "exit_code"), [("fail", 1), ("end", 0)])
def test_a_page_is_not_loaded_again_and_again(etl, tmp_path, on_repeat, exit_code):
    async def behave(request: web.Request) -> web.Response:
        at = min(int(request.query["page"]), 3)
        return web.json_response({"items": [{"id": at}], "asked": request.query["page"]})

    with ApiServer() as api:
        api.misbehave(behave, times=999)
        pagination = f'{{ type = "page", on_repeat = "{on_repeat}" }}'
        report = etl(api.url("/page"), pagination, sink="")
        assert api.requests <= 5
    assert report["exit_code"] == exit_code
    assert [failure["kind"] for failure in report["failures"]] == ["http"] * exit_code
    assert rows(tmp_path) == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("pagination", "told"),
    [
        ('{ type = "cursor", next = "/nextcursor" }', "/nextcursor, the pointer pagination.next"),
        ('{ type = "page", total = "/meta/total" }', "/meta/total, the pointer pagination.total"),
        ('{ type = "page", more = "/hasMore" }', "/hasMore, the pointer pagination.more"),
        ('{ type = "page", pages = "/pagse" }', "(did you mean /pages?)"),
    ],
)
def test_a_pointer_that_no_page_had_is_told(etl, tmp_path, pagination, told):
    with ApiServer([{"id": number} for number in range(23)], size=5) as api:
        path = "/cursor" if "cursor" in pagination else "/page"
        report = etl(api.url(path), pagination)
        assert report["exit_code"] == 0
        (note,) = report["notes"]
        assert note.startswith(f"warning: {api.url(path)}: no page has anything at ")
        assert told in note
        if path == "/cursor":
            assert "(did you mean /next_cursor?)" in note
        assert "no page has anything at" in (tmp_path / "r.md").read_text()
        right = '{ type = "cursor", next = "/next_cursor" }'
        assert "notes" not in etl(api.url("/cursor"), right)


def test_the_summary_has_the_warning(etl, tmp_path):
    with ApiServer([{"id": 1}]) as api:
        etl(api.url("/cursor"), '{ type = "cursor", next = "/nextcursor" }')
        for quiet in ([], ["--quiet"]):
            outcome = run_command_text("etl", "p.toml", *quiet, cwd=tmp_path)
            assert outcome.returncode == 0
            shown = " ".join((outcome.stdout + outcome.stderr).split())
            assert ("warning: " in shown) == (not quiet)


def test_the_error_of_an_api_is_told(etl):
    with ApiServer() as api:
        api.misbehave(value({"ok": False, "error": "ratelimited"}))
        report = etl(api.url("/cursor"), KINDS["/cursor"])
    (failure,) = report["failures"]
    assert "ok is false, error is ratelimited" in failure["message"]


def test_a_limit_that_is_told_with_403_is_waited_for(etl, tmp_path):
    limits = [
        {"Retry-After": "0.01"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0.01"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1000000000"},
    ]
    with ApiServer([{"id": 1}]) as api:
        for headers in limits:
            names = {name.replace("-", "_"): text for name, text in headers.items()}
            api.misbehave(status(403, "slow down", **names))
        api.misbehave(value({"items": [{"id": 1}]}, Content_Encoding="utf-8"))
        retrying = "retry_delay = 0.001"
        report = etl(api.url("/cursor"), KINDS["/cursor"], retrying, retries=3)
    assert (report["exit_code"], report["retries"]) == (0, 3)
    assert rows(tmp_path) == [(1,)]


@pytest.mark.parametrize("pagination", [KINDS["/link_header"], None])
@pytest.mark.parametrize("first", [[{"id": 1}], []])
def test_an_error_where_earlier_runs_had_arrays_is_no_row(etl, tmp_path, pagination, first):
    kind = pagination or "{ link_header }"
    with ApiServer() as api:
        error = {"message": "Server Error"} | ({"request": 7} if pagination else {})
        answers: list[Any] = [first, error, [{"id": 2}]]
        codes = []
        for answer in answers:
            path = "/echo" if pagination is None else "/link_header"
            api.misbehave(value(answer))
            report = etl(api.url(path), kind, paged=pagination is not None)
            codes.append(report["exit_code"])
    assert codes == [0, 1, 0]
    assert [row[0] for row in rows(tmp_path)] == [one["id"] for one in first] + [2]


def test_merged_reports_keep_the_warnings(etl, tmp_path):
    with ApiServer([{"id": 1}]) as api:
        report = etl(api.url("/cursor"), '{ type = "cursor", next = "/nextcursor" }')
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(report))
    outcome = subprocess.run(
        [*COMMAND, "merge-reports", "a.json", "b.json", "--output", "json"], check=True,
        capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert json.loads(outcome.stdout)["notes"] == report["notes"]


TOTAL = {
    "/page": '{ type = "page", total = "/total", end_status = 404 }',
    "/offset": '{ type = "offset", limit = 3, total = "/total", end_status = 404 }',
}


@pytest.mark.parametrize("path", TOTAL)
@pytest.mark.parametrize("more", ["", 'incremental = { field = "updated_at", param = "since" }'])
def test_a_missing_page_before_the_told_end_is_no_end(etl, tmp_path, path, more):
    records = NEWEST_FIRST[::-1]
    with ApiServer(records, size=3) as api:

        async def lose_second_page(request: web.Request) -> web.Response | None:
            is_second = request.query.get("page") == "2" or request.query.get("offset") == "3"
            return web.Response(status=404) if is_second else None

        api.misbehave(lose_second_page, times=3)
        report = etl(api.url(path), TOTAL[path], more)
        assert report["exit_code"] == 1
        (failure,) = report["failures"]
        assert "this is not the end: the answers told 9 (pagination.total)" in failure["message"]
        api.forget()
        assert etl(api.url(path), TOTAL[path], more)["exit_code"] == 0
    assert [row[0] for row in rows(tmp_path)] == list(range(1, 10))


@pytest.mark.parametrize("kind", ["cursor", "next_url"])
def test_pages_without_records_that_lead_on_and_on_are_a_failure(etl, kind):
    async def empty(request: web.Request) -> web.Response:
        at = int(request.query.get("cursor", 0)) + 1
        following = str(at) if kind == "cursor" else f"/empty?cursor={at}"
        return web.json_response({"items": [], "more": True, "next": following})

    with ApiServer(routes={"/empty": empty}) as api:
        pagination = f'{{ type = "{kind}", next = "/next", more = "/more" }}'
        report = etl(api.url("/empty"), pagination)
        assert api.requests == 100
    assert report["exit_code"] == 1
    assert "100 pages in a row have no records" in report["failures"][0]["message"]
