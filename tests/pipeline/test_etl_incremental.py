"""`incremental` of `asyncbatch etl`: which value is kept, and the request of the next run."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from aiohttp import web

from tests.commands import run_command_text
from tests.servers.api import ApiServer


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


@pytest.fixture
def etl(tmp_path, files, api):
    """Run `asyncbatch etl` on records with `at`, and return its report and its requests."""

    def _etl(records: list[Any], more: str = "", page_size: int = 2) -> Any:
        files({"p.toml": f"""
name = "incremental"
[[source]]
type = "http"
urls = ["{api.url("/echo")}"]
records = "/items"
retries = 0
pagination = {{ type = "cursor", next = "/next" }}
incremental = {{ field = "at", param = "since"{more} }}
[sink]
to = "sqlite:///out.db"
table = "rows"
key = ["id"]
"""})  # fmt: skip

        async def behave(request: web.Request) -> web.Response:
            at = int(request.query.get("cursor", 0))
            following = at + page_size
            page = [{"id": place, "at": one} for place, one in enumerate(records)][at:following]
            more = following < len(records)
            return web.json_response({"items": page, "next": following if more else None})

        api.forget()
        api.seen.clear()
        api.misbehave(behave, times=99)
        outcome = run_command_text("etl", "p.toml", "--output", "json", cwd=tmp_path)
        assert outcome.stdout, outcome.stderr
        return json.loads(outcome.stdout), api.seen[0].query.get("since") if api.seen else None

    return _etl


def bookmark(folder: Any) -> dict[str, Any]:
    with closing(sqlite3.connect(folder / "out.db")) as database:
        ((text,),) = database.execute("SELECT bookmark FROM asyncbatch_ledger").fetchall()
    return dict(json.loads(text))


def test_numbers_in_texts_are_compared_by_value(etl, tmp_path):
    assert etl(["8", "9", "10", "7"])[0]["exit_code"] == 0
    assert bookmark(tmp_path) == {"since": "10", "kind": "number"}
    report, since = etl(["10", "11"])
    assert (report["exit_code"], since) == (0, "10")
    # The detected kind is kept: a text that is no number does not change it, but fails the URL.
    report, since = etl(["12", "abc"])
    assert (report["exit_code"], since) == (1, "11")
    assert 'incremental.type says how: "number"' in report["failures"][0]["message"]
    assert bookmark(tmp_path)["since"] == "11"
    # The type can be set without a new beginning.
    report, since = etl(["12", "abc"], ', type = "text"')
    assert (report["exit_code"], since) == (0, "11")
    assert bookmark(tmp_path) == {"since": "abc", "kind": "text"}


def test_texts_are_compared_by_letters_if_it_is_said(etl, tmp_path):
    etl(["8", "9", "10"], ', type = "text"')
    assert bookmark(tmp_path) == {"since": "9", "kind": "text"}


@pytest.mark.parametrize("page_size", [1, 2, 9])
def test_one_time_far_ahead_does_not_end_the_future(etl, tmp_path, page_size):
    times = ["2026-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "2026-01-02T00:00:00Z"]
    report, _ = etl(times, page_size=page_size)
    assert report["exit_code"] == 0
    (note,) = report["notes"]
    assert "'9999-12-31T00:00:00Z' lies beyond the clock" in note
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert [at for (at,) in database.execute("SELECT at FROM rows ORDER BY id")] == times
    assert etl([])[1] == "2026-01-02T00:00:00Z"
    # Where such times are meant, `max` allows them.
    assert "notes" not in etl(times, ', max = "9999-12-31T00:00:00Z"', page_size)[0]
    report, since = etl([], ', max = "9999-12-31T00:00:00Z"')
    assert since == "9999-12-31T00:00:00Z"
    # Without `max`, a value that an earlier version kept is told.
    report, since = etl([])
    assert since == "9999-12-31T00:00:00Z"
    assert "--full-refresh" in report["notes"][0]


def test_a_maximum_for_numbers(etl, tmp_path):
    report, _ = etl([5, 10**12, 7], ", max = 1000000")
    assert "1000000000000 lies beyond" in report["notes"][0]
    assert bookmark(tmp_path) == {"since": 7, "kind": "number"}


@pytest.mark.parametrize(
    ("values", "lag", "since"),
    [
        (["2026-01-01T00:00:00Z"], '"5m"', "2025-12-31T23:55:00Z"),
        ([100], "10", "90"),
        (["100"], "10", "90"),
        (["20260101T000500Z"], '"10m"', "20251231T235500Z"),
        (["2026-01-01 00:05:00,5+0100"], '"10m"', "2025-12-31 23:55:00,5+0100"),
        (["2026-01-01T00:05:00.123456789Z"], '"10m"', "2025-12-31T23:55:00.123456000Z"),
        (["2026-01-01T01Z"], '"10m"', "2026-01-01T00Z"),
        (["2026-01-01T23:00:00Z", "2026-01-01T24:00:00Z"], '"10m"', "2026-01-01T23:50:00Z"),
        (["20161231T235959Z", "20161231T235960Z"], "1", "20161231T235959Z"),
    ],
)
def test_the_next_run_begins_earlier_by_the_lag(etl, tmp_path, values, lag, since):
    etl(values)
    kept = bookmark(tmp_path)
    for _ in range(2):  # the lag is not taken off again and again
        assert etl(values, f", lag = {lag}")[1] == since
        assert bookmark(tmp_path) == kept


@pytest.mark.parametrize(
    ("values", "lag", "since"),
    [
        (["20260101", "20260301"], '"1d"', "20260228"),
        (["2026-01-01T00:05"], '"10m"', "2025-12-31T23:55"),
        (["2026-01-01T23:00:00", "2026-01-01T24:00"], '"10m"', "2026-01-01T23:50"),
        (["1767225600", "1767225660"], '"1m"', "1767225600"),
    ],
)
def test_times_without_a_zone_have_a_lag_if_it_is_said(etl, values, lag, since):
    etl(values, ', type = "time"')
    assert etl(values, f', type = "time", lag = {lag}')[1] == since


def test_a_text_has_no_lag(etl):
    etl(["abc"])
    report, since = etl(["abd"], ", lag = 5")
    assert (report["exit_code"], since) == (1, None)
    assert "incremental.lag needs a number or a time" in report["failures"][0]["message"]


def test_a_ledger_of_an_earlier_version_goes_on(etl, tmp_path):
    etl(["8", "9", "10"])
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        database.execute("""UPDATE asyncbatch_ledger SET bookmark = '{"since":"9"}'""")
        database.commit()
    assert etl(["10", "9"])[1] == "9"
    assert bookmark(tmp_path) == {"since": "10", "kind": "number"}


def test_epoch_seconds_are_times_if_it_is_said(etl, tmp_path):
    report, _ = etl([1767225600, 25340230079], ', type = "time"')
    assert "25340230079 lies beyond the clock" in report["notes"][0]
    assert bookmark(tmp_path) == {"since": 1767225600, "kind": "time"}
    assert etl([], ', type = "time", lag = "1m"')[1] == "1767225540"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (', type = "date"', "type"),
        (", lag = -5", "lag"),
        (', lag = "soon"', "is not a duration"),
        (', type = "text", lag = 5', "cannot be combined with type"),
    ],
)
def test_mistakes_are_told(etl, tmp_path, api, more, told):
    with pytest.raises(AssertionError) as caught:
        etl([], more)
    assert told in str(caught.value)
    assert not api.seen
