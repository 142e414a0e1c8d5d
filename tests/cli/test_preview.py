"""Tests of `etl --max-records` and `etl --dry-run`."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.commands import COMMAND, environment, run_command_text
from tests.servers.api import ApiServer, status, truncate

RECORDS = [{"id": n, "email": None if n == 3 else f"{n}@x.org", "x": [n]} for n in range(100)]
SINK = """
[[transform]]
type = "require"
fields = ["email"]
[sink]
to = "sqlite:///people.db"
table = "people"
key = ["id"]
[dead_letter]
to = "bad.jsonl"
"""
CURSOR = 'records = "/items"\npagination = { type = "cursor", next = "/next_cursor" }'
PAGES = 'records = "/items"\npagination = { type = "page", total = "/total" }'
OFFSET = 'records = "/items"\npagination = { type = "offset", limit = 10 }'
LINKS = 'pagination = { type = "link_header" }'


@pytest.fixture
def api():
    with ApiServer(records=RECORDS, size=10) as server:
        yield server


@pytest.fixture
def etl(tmp_path):
    """Return a function that runs `asyncbatch etl` in the folder of the test."""

    def _etl(*arguments):
        return run_command_text("etl", *arguments, cwd=tmp_path)

    return _etl


def http(api, paths, more):
    urls = json.dumps([api.url(path) for path in paths])
    return f'[[source]]\ntype = "http"\nurls = {urls}\n{more}\n'


def pipeline(*sources, sink=SINK):
    return 'name = "trying"\n' + "".join(sources) + sink


def from_files(*paths):
    return f'[[source]]\ntype = "files"\npaths = {json.dumps(paths)}\n'


def loaded(folder):
    with closing(sqlite3.connect(folder / "people.db")) as database:
        return [row[0] for row in database.execute("SELECT id FROM people ORDER BY rowid")]


@pytest.mark.parametrize("way", [("/cursor", CURSOR), ("/page", PAGES), ("/offset", OFFSET)])
@pytest.mark.parametrize("wanted", [(1, 1), (10, 1), (11, 2), (25, 3)])
def test_no_more_pages_than_needed_are_requested(etl, files, api, way, wanted):
    (path, more), (limit, pages) = way, wanted
    folder = files({"p.toml": pipeline(http(api, [path, "/echo"], more))})
    report = json.loads(etl("p.toml", "--max-records", str(limit), "-o", "json").stdout)
    assert report["records"]["read"] == limit
    assert api.requests == report["sources"][0]["pages"] == pages
    assert report["sources"][0]["state"] == "limited"
    assert loaded(folder) == [n for n in range(limit) if n != 3]


def test_the_option_has_its_old_name_too(etl, files, api):
    folder = files({"p.toml": pipeline(http(api, ["/cursor"], CURSOR))})
    outcome = etl("p.toml", "--limit", "2", "-o", "json")
    assert loaded(folder) == [0, 1]
    assert "--limit is now called --max-records" in outcome.stderr


def test_the_limit_counts_for_each_source(etl, files, api):
    text = pipeline(
        http(api, ["/cursor"], CURSOR),
        http(api, ["/link_header"], LINKS),
        http(api, ["/lines"], ""),
        from_files("in"),
    )
    lines = "".join(json.dumps({"id": 200 + n, "email": "e"}) + "\n" for n in range(3))
    array = json.dumps([{"id": 300 + n, "email": "e"} for n in range(20)])
    folder = files({"p.toml": text, "in/1.jsonl": lines, "in/2.json": array, "in/3.json": array})
    report = json.loads(etl("p.toml", "--max-records", "12", "-o", "json").stdout)
    assert [source["records"]["read"] for source in report["sources"]] == [12] * 4
    ids = loaded(folder)
    assert sorted(set(ids)) == sorted({*range(12)} - {3} | {200, 201, 202} | {*range(300, 309)})


def test_fewer_records_than_the_limit_are_all(etl, files, api):
    folder = files({"p.toml": pipeline(http(api, ["/cursor", "/page"], CURSOR))})
    api.misbehave(status(500), times=9, path="/page")
    api.records = api.records[:25]
    outcome = etl("p.toml", "--max-records", "30", "-o", "json", "--set", "source.0.retries=0")
    report = json.loads(outcome.stdout)
    assert outcome.returncode == 1
    assert (report["records"]["read"], report["files"]["failed"]) == (25, 1)
    assert report["sources"][0]["state"] == "done"
    assert len(loaded(folder)) == 24


def test_records_before_the_failure_of_a_source_are_loaded(etl, files, api):
    folder = files({"p.toml": pipeline(http(api, ["/cursor"], CURSOR))})

    async def as_usual(_):
        return None

    api.misbehave(as_usual)
    api.misbehave(truncate(), times=9)
    outcome = etl("p.toml", "--max-records", "15", "-o", "json", "--set", "source.0.retries=0")
    report = json.loads(outcome.stdout)
    assert report["sources"][0]["state"] == "failed"
    assert [failure["kind"] for failure in report["failures"]] == ["missing_field", "http"]
    assert len(loaded(folder)) == 9


@pytest.mark.parametrize("form", ["lines", "array"])
def test_of_a_huge_file_the_first_records_are_taken(etl, files, form):
    texts = (b'{"id": %d, "email": "e", "more": "%s"}' % (n, b"x" * 1000) for n in range(40_000))
    body = b"\n".join(texts) if form == "lines" else b"[" + b",".join(texts) + b"]"
    name = "huge.jsonl" if form == "lines" else "huge.json"
    folder = files({"p.toml": pipeline(from_files(name, "other.json")), name: body})
    files({"other.json": '{"id": -1, "email": "e"}'})
    report = json.loads(etl("p.toml", "--max-records", "5", "-o", "json").stdout)
    assert report["files"]["succeeded"] == report["files"]["total"] == 1
    assert loaded(folder) == [0, 1, 2, 3, 4]


def test_async_functions_get_no_more_than_the_limit(etl, files, api):
    call = '[[transform]]\ntype = "call"\nfunction = "f.py:seen"\n'
    folder = files({
        "p.toml": pipeline(http(api, ["/page"], PAGES), from_files("in.json"), call),
        "f.py": "async def seen(record):\n    print(record['id'])\n    return record\n",
        "in.json": json.dumps([{"id": 300 + n, "email": "e"} for n in range(20)]),
    })  # fmt: skip
    outcome = etl("p.toml", "--max-records", "2", "--no-progress")
    printed = sorted(int(line) for line in outcome.stderr.splitlines() if line.isdigit())
    assert printed == sorted(loaded(folder)) == [0, 1, 300, 301]


def test_a_limited_run_is_not_recorded(etl, files, api):
    folder = files({"p.toml": pipeline(http(api, ["/cursor"], CURSOR), from_files("in.json"))})
    files({"in.json": '[{"id": 300, "email": "e"}, {"id": 301, "email": "e"}]'})
    assert etl("p.toml", "--max-records", "1").returncode == 0
    assert loaded(folder) == [0, 300] or loaded(folder) == [300, 0]
    report = json.loads(etl("p.toml", "-o", "json").stdout)
    assert report["files"]["skipped"] == 0
    assert sorted(loaded(folder)) == [n for n in range(100) if n != 3] + [300, 301]


def test_a_note_warns_about_rows_that_the_next_run_adds_again(etl, files):
    sink = '[sink]\nto = "sqlite:///people.db"\ntable = "people"\n'
    folder = files({"p.toml": pipeline(from_files("in.json"), sink=sink), "in.json": '[{"id": 1}]'})
    assert (
        "people has no key: the next run adds these rows again"
        in etl("p.toml", "--max-records", "1").stdout
    )
    assert etl("p.toml").returncode == 0
    assert loaded(folder) == [1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--max-records", "3", "--set", "sink.mode=replace"), "would leave only those records"),
        (("--max-records", "3", "--full-refresh"), "need a ledger, and runs with --max-records or"),
        (("--dry-run", "--allow-duplicates"), "need a ledger, and runs with --max-records or"),
        (("--dry-run", "--report", "r.json"), "leave out --report"),
        (("--dry-run", "-o", "junit"), "leave out --output junit"),
        (("--max-records", "0"), "must be at least 1"),
    ],
)
def test_contradictory_options_are_refused(etl, files, change, words):
    folder = files({"p.toml": pipeline(from_files("in.json")), "in.json": "[]"})
    outcome = etl("p.toml", *change)
    assert outcome.returncode == 2
    assert words in outcome.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["in.json", "p.toml"]


def test_a_folder_would_get_files_that_are_not_whole(etl, files):
    sink = '[sink]\nto = "out/"\n'
    files({"p.toml": pipeline(from_files("in.json"), sink=sink), "in.json": "[1, 2]"})
    outcome = etl("p.toml", "--max-records", "1")
    assert outcome.returncode == 2
    assert "only some of their records" in outcome.stderr


def test_a_dry_run_shows_rows_and_touches_nothing(etl, files, api):
    folder = files({"p.toml": pipeline(http(api, ["/page", "/echo"], PAGES), from_files("in"))})
    files({"in/1.json": '[{"id": 300, "email": "a|b\\u001b", "é": null}]', "in/2.json": "["})
    outcome = etl("p.toml", "--dry-run")
    assert outcome.returncode == 1
    assert api.requests == 1
    lines = outcome.stdout.splitlines()
    assert lines[0] == "http: 10 records read, 9 rows, 1 rejected"
    assert lines[1:4] == ["  id  email    x", "  --  -------  ---", "  0   0@x.org  [0]"]
    assert "files: 1 record read, 1 row, 1 file failed" in lines
    assert "  300  a|b\\x1b  null" in lines
    assert "missing_field (1)" in lines
    assert any("'email' is missing or null (record 4" in line for line in lines)
    assert lines[-1] == "Nothing was loaded (--dry-run): rows go into people of sqlite:///people.db"
    assert sorted(path.name for path in folder.iterdir()) == ["in", "p.toml"]


def test_a_dry_run_keeps_existing_rows(etl, files, api):
    folder = files({"p.toml": pipeline(http(api, ["/page"], PAGES))})
    assert etl("p.toml").returncode == 1
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert etl("p.toml", "--dry-run").returncode == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert "bad.jsonl" in kept


def test_a_dry_run_as_json(etl, files, api):
    files({"p.toml": pipeline(http(api, ["/page"], PAGES))})
    report = json.loads(etl("p.toml", "--dry-run", "--max-records", "5", "-o", "json").stdout)
    assert report["dry_run"] is True
    [source] = report["sources"]
    assert source["rows"] == [record for record in RECORDS[:5] if record["id"] != 3]
    assert source["rows_omitted"] == 0
    assert (report["records"]["written"], report["failures"][0]["record"]) == (0, 4)
    assert "sink" not in report


def test_a_dry_run_as_json_lines(etl, files, api):
    files({"p.toml": pipeline(http(api, ["/page"], PAGES))})
    outcome = etl("p.toml", "--dry-run", "--max-records", "4", "-o", "jsonl")
    *events, summary = map(json.loads, outcome.stdout.splitlines())
    rows = [event for event in events if event["event"] == "row"]
    assert [row["row"] for row in rows] == RECORDS[:3]
    assert {row["source"] for row in rows} == {"http"}
    assert [event["kind"] for event in events if event["event"] == "failure"] == ["missing_field"]
    assert (summary["event"], summary["dry_run"]) == ("summary", True)


def test_a_dry_run_of_incremental_sources_is_judged_like_the_run(etl, files, api):
    more = CURSOR + '\nincremental = { field = "id", param = "since", initial = "5" }'
    api.records = [{**record, "updated_at": "6"} for record in RECORDS]
    files({"p.toml": pipeline(http(api, ["/cursor"], more))})
    assert etl("p.toml", "--dry-run", "--max-records", "2").returncode == 0
    assert api.seen[-1].query == {"since": "5"}
    elsewhere = ("--set", "sink={to='out.jsonl'}")
    assert "needs a database" in etl("p.toml", "--dry-run", *elsewhere).stderr


def test_many_rows_of_one_record_are_shown_in_part(etl, files):
    call = '[[transform]]\ntype = "call"\nfunction = "f.py:many"\n'
    files({
        "p.toml": pipeline(from_files("in.json"), call),
        "f.py": "def many(record):\n    yield from (record for _ in range(3000))\n",
        "in.json": '[{"id": 1, "email": "e"}]',
    })  # fmt: skip
    assert "  ... and 2,900 more rows" in etl("p.toml", "--dry-run").stdout
    [source] = json.loads(etl("p.toml", "--dry-run", "-o", "json").stdout)["sources"]
    assert (len(source["rows"]), source["rows_omitted"]) == (100, 2900)


def test_on_a_terminal_the_table_fits(files):
    row = {f"field_{n}": "y" * 30 for n in range(9)}
    folder = files({"p.toml": pipeline(from_files("in.json")), "in.json": json.dumps([row])})
    files({"in.json": json.dumps([{"email": "e", **row}])})
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "etl", "p.toml", "--dry-run", "--no-progress"], stdout=theirs, cwd=folder,
        stderr=subprocess.PIPE, env=environment(COLUMNS="80"),
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # Linux raises EIO when the other side is closed
                break
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "\x1b[1m" in text
    assert "field_1" in text
    assert "... and 7 more fields: field_2, field_3" in text
