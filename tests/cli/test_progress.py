"""Tests of the report sections and the progress of a pipeline."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
from contextlib import aclosing, closing
from functools import reduce

import pytest

from asyncbatch.cli.display.progress_lines import progress_line
from asyncbatch.config.job import FeedJob, Job, RecordWorkSettings
from asyncbatch.pipeline.run import Run
from asyncbatch.sinks.target import Target
from asyncbatch.sources.http.settings import CursorPagination, HttpSettings, PagePagination
from asyncbatch.sources.http.source import HttpFeedSource
from tests.commands import COMMAND, PATIENCE, CommandProcess, environment, run_command_text
from tests.processes import wait_until
from tests.servers.api import ApiServer, status

RECORDS = [{"id": n, "email": None if n % 10 == 5 else f"{n}@x.org"} for n in range(40)]
PIPELINE = """
name = "people"
[[source]]
type = "http"
name = "chained"
urls = ["{api}/cursor", "{api}/echo"]
records = "/items"
retry_delay = 0.01
pagination = {{ type = "cursor", next = "/next_cursor" }}
[[source]]
type = "http"
name = "numbered"
urls = ["{api}/page"]
records = "/items"
retry_delay = 0.01
pagination = {{ type = "page", total = "/total" }}
[[source]]
type = "files"
paths = ["in"]
[[transform]]
type = "require"
fields = ["email"]
[sink]
to = "sqlite:///people.db"
table = "people"
key = ["id"]
"""
FILES = {"in/1.json": '[{"id": 100, "email": "a"}, {"id": 101}]', "in/2.json": "[1,"}


@pytest.fixture
def etl(tmp_path):
    """Return a function that runs `asyncbatch etl` in the folder of the test."""

    def _etl(*arguments, **env):
        return run_command_text("etl", *arguments, cwd=tmp_path, env=env)

    return _etl


@pytest.fixture
def api():
    with ApiServer(records=RECORDS, size=10) as server:
        yield server


def total(report, *path):
    """Return the sum of one field over the sources of a report."""
    return sum(reduce(lambda found, key: found.get(key, 0), path, one) for one in report["sources"])


def test_sections_add_up_with_the_totals(etl, files, api):
    folder = files({"p.toml": PIPELINE.format(api=api.origin), **FILES})
    api.misbehave(status(503), path="/cursor")
    outcome = etl("p.toml", "--output", "json", "--report", "r.md")
    report = json.loads(outcome.stdout)
    for key in ("total", "succeeded", "partial", "failed", "skipped", "bytes"):
        assert total(report, "inputs", key) == report["files"][key], key
    for key in ("read", "passed", "dropped", "rejected", "written"):
        assert total(report, "records", key) == report["records"][key], key
    assert total(report, "retries") == report["retries"] == 1
    assert total(report, "requests") == api.requests
    chained, numbered, from_files = report["sources"]
    assert [chained[key] for key in ("name", "type", "state")] == ["chained", "http", "done"]
    # /echo has no /items: the page is no answer, so its URL fails
    assert chained["inputs"] | {"bytes": 0} == {
        "total": 2, "succeeded": 0, "partial": 1, "failed": 1, "skipped": 0, "bytes": 0,
    }  # fmt: skip
    assert (chained["pages"], chained["requests"], chained["retries"]) == (4, 6, 1)
    assert (numbered["state"], numbered["pages"], numbered["requests"]) == ("done", 4, 4)
    assert numbered["records"] == {
        "read": 40, "passed": 36, "dropped": 0, "rejected": 4, "written": 36,
    }  # fmt: skip
    assert "pages" not in from_files
    assert (from_files["type"], from_files["records"]["read"]) == ("files", 2)
    assert report["sink"] == {
        "to": "sqlite:///people.db", "table": "people", "mode": "upsert", "key": ["id"],
        "written": report["records"]["written"], "rejected": 0,
    }  # fmt: skip
    page = (folder / "r.md").read_text()
    assert "| numbered | done | 1 | 0 | 4 | 40 | 4 |" in page
    assert "| files | done | 2 | 1 |  | 2 | 1 |" in page


def test_the_summary_lists_sources_and_sink(etl, files, api):
    files({"p.toml": PIPELINE.format(api=api.origin), **FILES})
    lines = etl("p.toml").stdout.splitlines()
    assert any(line.startswith("Processed 5 inputs in ") for line in lines)
    assert "  written  73 to people of sqlite:///people.db, upsert by id" in lines
    assert "           numbered: done, 1 URL, 4 pages, 4 requests, 40 records, 4 rejected" in lines
    assert "           files: done, 2 files (1 failed), 2 records, 1 rejected" in lines


def test_files_alone_are_called_files(etl, files, api):
    files({"p.toml": PIPELINE.format(api=api.origin), **FILES})
    assert "Processed 2 files in " in etl("p.toml", "--only", "files").stdout


def test_records_refused_by_the_sink_are_counted_separately(etl, files):
    pipeline = """
        name = "refused"
        [[source]]
        type = "files"
        paths = ["in"]
        [sink]
        to = "sqlite:///r.db"
        table = "t"
        key = ["id"]
    """
    files({"p.toml": pipeline, "in/1.json": '[{"id": 1}, {"x": 2}, {"id": 3}]', "in/2.json": "7"})
    report = json.loads(etl("p.toml", "--output", "json").stdout)
    assert report["records"]["rejected"] == 2
    refused = sum(failure["kind"] == "sink" for failure in report["failures"])
    assert report["sink"]["rejected"] == refused > 0


def test_a_source_without_any_page_has_failed(etl, files, api):
    pipeline = PIPELINE.format(api=api.origin).replace("retry_delay", "retries = 0\nretry_delay")
    files({"p.toml": pipeline, **FILES})
    api.misbehave(status(404), path="/page")
    report = json.loads(etl("p.toml", "--output", "json").stdout)
    assert [source["state"] for source in report["sources"]] == ["done", "failed", "done"]
    assert report["sources"][1]["requests"] == 1


def _ids(folder):
    try:
        with closing(sqlite3.connect(f"file:{folder}/people.db?mode=ro", uri=True)) as database:
            return [number for (number,) in database.execute("SELECT id FROM people")]
    except sqlite3.OperationalError:  # there is no table yet
        return []


def test_a_source_that_is_stopped_is_interrupted(files, api):
    folder = files({"p.toml": PIPELINE.format(api=api.origin), **FILES})
    api.answers = 2
    command = [*COMMAND, "etl", "p.toml", "--only", "chained", "--only", "files", "-o", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=environment()
    ) as process:
        wait_until(lambda: api.requests >= 3 and 100 in _ids(folder), running=process)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=PATIENCE)
    report = json.loads(stdout)
    assert (process.returncode, report["status"]) == (143, "interrupted")
    assert [source["state"] for source in report["sources"]] == ["interrupted", "done"]


def test_run_has_no_sections(run, files):
    files(FILES)
    report = run("in", "--output", "json").json
    assert "sources" not in report
    assert "sink" not in report


def test_sections_are_merged(etl, files, api):
    folder = files({"p.toml": PIPELINE.format(api=api.origin), **FILES})
    first = json.loads(etl("p.toml", "--report", "1.json", "-o", "json").stdout)
    second = json.loads(etl("p.toml", "--limit", "3", "--report", "2.json", "-o", "json").stdout)

    def merge(*names):
        command = [*COMMAND, "merge-reports", *names, "-o", "json"]
        outcome = subprocess.run(
            command,
            check=False,
            capture_output=True,
            cwd=folder,
            env=environment(),
            timeout=PATIENCE,
        )
        return json.loads(outcome.stdout)

    merged = merge("1.json", "2.json")
    both = list(zip(first["sources"], second["sources"], merged["sources"], strict=True))
    for one, other, of_both in both:
        assert of_both["name"] == one["name"]
        for key in ("read", "rejected", "written"):
            assert of_both["records"][key] == one["records"][key] + other["records"][key]
        assert of_both.get("pages", 0) == one.get("pages", 0) + other.get("pages", 0)
    assert [source["state"] for source in merged["sources"]] == ["limited", "limited", "done"]
    assert merged["sink"]["written"] == merged["records"]["written"]
    assert merged["sink"]["table"] == "people"
    elsewhere = {**second, "sink": {**second["sink"], "table": "others"}}
    (folder / "3.json").write_text(json.dumps(elsewhere))
    assert "sink" not in merge("1.json", "3.json")


def test_progress_lines_show_stages_while_pages_arrive(api, tmp_path):
    """The progress line counts records per stage while they arrive."""

    async def look() -> list[str]:
        http = HttpSettings(
            (api.url("/cursor"),), records="/items", pagination=CursorPagination("/next_cursor")
        )
        target = Target.parse(f"{tmp_path}/out.jsonl")
        work = RecordWorkSettings(target=target, records="/items")
        run = Run(Job((FeedJob(HttpFeedSource("api", http), work),), workers=0), watched=True)
        before = progress_line(run.snapshot())
        api.answers = 1  # until the first page is shown
        lines = []
        async with aclosing(run.parts()) as parts:
            async for _ in parts:
                lines.append(progress_line(run.snapshot()))
                api.answers = None
        return [before, *lines, progress_line(run.snapshot())]

    before, first, *_, last = asyncio.run(look())
    assert before.startswith("0 records extracted, 0 transformed, 0 loaded, 0 rejected; ")
    assert "; api: waiting, 0 pages, 0 records, 0 of 0+ URLs; " in before
    assert first.startswith("10 records extracted, 10 transformed, 10 loaded, 0 rejected; ")
    assert re.search("; api: reading, [1-4] pages?, 10 records, 0 of 1 URL; ", first)
    assert last.startswith("40 records extracted, 40 transformed, 40 loaded, 0 rejected; ")
    assert "; api: done, 4 pages, 40 records, 1 of 1 URL; " in last
    assert "0 pages waiting, 0 of at most 1 batch in flight, 0 rows to load; " in last


def test_progress_lines_show_the_number_of_pages_that_the_server_tells(api, tmp_path):
    async def look() -> list[str]:
        http = HttpSettings(
            (api.url("/page"),), records="/items", pagination=PagePagination("page", total="/total")
        )
        work = RecordWorkSettings(target=Target.parse(f"{tmp_path}/out.jsonl"), records="/items")
        run = Run(Job((FeedJob(HttpFeedSource("api", http), work),), workers=0), watched=True)
        before = progress_line(run.snapshot())
        async with aclosing(run.parts()) as parts:
            return [before, *[progress_line(run.snapshot()) async for _ in parts]]

    before, *lines = asyncio.run(look())
    assert "; api: waiting, 0 pages, 0 records, " in before
    assert all(re.search("; api: (reading|done), [1-4] of 4 pages, ", line) for line in lines)


def test_the_display_shows_stages_and_sources(files, api):
    """The display is on a terminal until the run ends."""
    api.delay = 0.3
    folder = files({"p.toml": PIPELINE.format(api=api.origin), **FILES})
    ours, theirs = pty.openpty()
    with CommandProcess(
        ["etl", "p.toml"], stderr=theirs, stdout=subprocess.DEVNULL, cwd=folder,
        env=environment(COLUMNS="120"),
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # Linux raises EIO when the other side is closed
                break
        assert process.wait() == 1
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())  # remove the colours
    assert " records extracted → " in text
    assert " pages waiting, " in text
    for words in ("chained", "numbered", "reading", "of 2 URLs", "of 2 files"):
        assert words in text
