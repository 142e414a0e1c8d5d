"""`asyncbatch etl` on HTTP APIs: a real server, the command as a process, real databases."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
from contextlib import closing
from typing import Any

import pytest

from tests.commands import PATIENCE, CommandProcess, environment, run_command_text
from tests.processes import wait_until, wait_until_still
from tests.servers.api import ApiServer, stall, status, value

CURSOR = '{ type = "cursor", next = "/next_cursor" }'
PAGE = '{ type = "page" }'
INCREMENTAL = 'incremental = { field = "updated_at", param = "since", initial = "2020" }'


def source(
    url: str, pagination: str | None = CURSOR, records: str = "/items", more: str = ""
) -> str:
    """Return a source of a pipeline file without retries."""
    lines = [
        '[[source]]\ntype = "http"',
        f'urls = ["{url}"]\nrecords = "{records}"',
        "retries = 0" if "retries" not in more else "",
        f"pagination = {pagination}" if pagination else "",
        more,
    ]
    return "\n".join(lines) + "\n"


def pipeline(*sources: str, sink: str = "", to: str = "sqlite:///out.db") -> str:
    """Return a pipeline file."""
    table = "" if "://" not in to else 'table = "people"\n'
    return f'name = "people"\n{"".join(sources)}[sink]\nto = "{to}"\n{table}{sink}\n'


def people(count: int) -> list[dict[str, Any]]:
    return [
        {"id": number, "name": f"ada {number}", "updated_at": f"2026-01-{number // 24 + 1:02}T"
         f"{number % 24:02}:00:00Z"}
        for number in range(count)
    ]  # fmt: skip


@pytest.fixture
def etl(tmp_path, files):
    """Run `asyncbatch etl` on the text of a pipeline file, in its own folder."""

    def _etl(text: str, *arguments: str, **env: str) -> Any:
        files({"p.toml": text})
        return run_command_text("etl", "p.toml", *arguments, cwd=tmp_path, env=env)

    return _etl


def report_of(outcome: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(outcome.stdout)
    return report


def ids(folder: Any) -> list[int]:
    """Return the ids in the table, sorted, with duplicates."""
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return [row[0] for row in database.execute("SELECT id FROM people ORDER BY id")]


def asked(api: ApiServer, name: str) -> list[str | None]:
    """Return a parameter of each request so far, and forget them."""
    found = [seen.query.get(name) for seen in api.seen]
    api.seen.clear()
    return found


def test_apis_and_files_are_loaded_side_by_side(etl, files, tmp_path):
    files({"in/more.json": json.dumps([{"id": 900}, {"id": 901}])})
    with ApiServer(people(50), size=7) as api:
        sources = [
            source(api.url("/cursor")),
            source(api.url("/page"), PAGE),
            source(api.url("/next_url"), '{ type = "next_url", next = "/links/next" }'),
            source(api.url("/offset"), '{ type = "offset", limit = 9 }'),
            source(api.url("/link_header"), '{ type = "link_header" }', records=""),
            source(api.url("/lines"), None, records=""),
            '[[source]]\ntype = "files"\npaths = ["in"]\n',
        ]
        outcome = etl(pipeline(*sources), "--output", "json")
    assert outcome.returncode == 0, outcome.stderr
    report = report_of(outcome)
    assert report["records"]["written"] == 302
    assert (report["files"]["total"], report["files"]["succeeded"]) == (7, 7)
    assert ids(tmp_path) == sorted([*range(50)] * 6 + [900, 901])


@pytest.mark.parametrize(
    "transform",
    [
        '[[transform]]\ntype = "call"\nfunction = "f.py:f"\n',
        '[[transform]]\ntype = "call"\nfunction = "f.py:g"\n',
        "",
    ],
    ids=["call", "async", "as it is"],
)
def test_a_failure_names_the_page_and_its_record(etl, files, tmp_path, transform):
    files({"f.py": "def f(r): return r | {'n': len(r['name'])}\nasync def g(r): return f(r)\n"})
    records: list[Any] = people(10)
    records[8] = 8
    with ApiServer(records, size=3) as api:
        text = pipeline(source(api.url("/cursor")) + transform)
        outcome = etl(text, "--output", "json")
        assert outcome.returncode == 1, outcome.stderr
        (failure,) = report_of(outcome)["failures"]
        assert failure["file"] == api.url("/cursor?cursor=after+6")
        assert (failure["record"], failure["line"]) == (3, 1)
    assert ids(tmp_path) == [0, 1, 2, 3, 4, 5, 6, 7, 9]


def test_a_page_that_ends_its_worker_fails_its_url(etl, files, tmp_path):
    deadly = "import os\ndef f(r):\n    if r['id'] == 25: os._exit(3)\n    return r\n"
    files({"f.py": deadly})
    with ApiServer(people(30), size=4) as api:
        sources = [source(api.url(f"/cursor?of={number}")) for number in range(4)]
        good = source(api.url("/offset"), '{ type = "offset", limit = 5 }')
        call = '[[transform]]\ntype = "call"\nfunction = "f.py:f"\n'
        api.cap = 5
        outcome = etl(pipeline(*sources, good, call), "--output", "json")
        assert outcome.returncode == 1, outcome.stderr
        report = report_of(outcome)
    assert (report["files"]["total"], report["files"]["failed"]) == (5, 5)
    assert [failure["kind"] for failure in report["failures"]] == ["worker_crash"] * 5
    assert ids(tmp_path) == sorted([*range(24)] * 4 + [*range(25)])


def test_retries_of_a_flag_are_those_of_each_source(etl, tmp_path):
    with ApiServer(people(30), size=10) as api:
        api.misbehave(status(503), times=2, path="/page")
        bad = source(api.url("/page"), PAGE, more="retries = 0\nretry_delay = 0.001")
        outcome = etl(pipeline(bad, source(api.url("/cursor"))), "--retries", "2", "-o", "json")
    assert outcome.returncode == 0, outcome.stdout
    assert report_of(outcome)["retries"] == 2


def test_a_url_that_fails_is_recorded_and_the_others_go_on(etl, tmp_path):
    with ApiServer(people(30), size=10) as api:
        api.misbehave(status(503, "the server is down" + "x" * 500), times=9, path="/page")
        bad = source(api.url("/page"), PAGE, more="retries = 2\nretry_delay = 0.001")
        letters = '[dead_letter]\nto = "bad.jsonl"'
        text = pipeline(bad, source(api.url("/cursor")), sink=letters)
        outcome = etl(text, "--output", "json")
        url = api.url("/page?page=1")
    assert outcome.returncode == 1
    report = report_of(outcome)
    (failure,) = report["failures"]
    assert (failure["kind"], failure["file"]) == ("http", url)
    assert "503" in failure["message"]
    assert "tried 3 times" in failure["message"]
    assert "the server is down" in failure["message"]
    assert "x" * 200 not in failure["message"]
    assert report["retries"] == 2
    assert (report["files"]["failed"], report["files"]["succeeded"]) == (1, 1)
    assert ids(tmp_path) == [*range(30)]


def test_secrets_are_shown_nowhere(etl, tmp_path):
    with ApiServer(people(5), size=2) as api:
        api.misbehave(status(500, "your token is s3cr3t-t0ken and p4ssw0rd-value"), path="/page")
        auth = 'auth = { type = "bearer", token = "${TOKEN}" }\nheaders = { X-Mine = "${OTHER}" }'
        sources = (
            source(api.url("/page?api_key=k3y-in-url"), PAGE, more=auth),
            source(
                api.url("/cursor"), more='auth = { type = "query", name = "q", value = "${Q}" }'
            ),
        )
        outcome = etl(
            pipeline(*sources), "-v", "--report", "r.json", "--report", "r.md",
            TOKEN="s3cr3t-t0ken", OTHER="p4ssw0rd-value", Q="qu3ry-value",
        )  # fmt: skip
        headers = [seen.headers.get("Authorization") for seen in api.seen]
        assert "Bearer s3cr3t-t0ken" in headers
        assert asked(api, "q").count("qu3ry-value") == 3
    assert outcome.returncode == 1
    told = outcome.stdout + outcome.stderr
    for path in tmp_path.iterdir():
        if path.name != "p.toml" and path.is_file():
            told += path.read_bytes().decode("utf-8", "replace")
    for secret in ("s3cr3t-t0ken", "p4ssw0rd-value", "qu3ry-value", "k3y-in-url"):
        assert secret not in told
    assert "***" in told


def test_only_what_is_new_is_asked_for(etl, tmp_path):
    with ApiServer(people(30), size=10) as api:
        text = pipeline(source(api.url("/cursor"), more=INCREMENTAL))
        assert etl(text).returncode == 0
        assert set(asked(api, "since")) == {"2020"}
        assert etl(text).returncode == 0
        assert asked(api, "since") == ["2026-01-02T05:00:00Z"]
        api.records += people(33)[30:]
        api.misbehave(status(500), path="/cursor")
        assert etl(text).returncode == 1
        assert ids(tmp_path) == [*range(30)]
        api.seen.clear()
        assert etl(text).returncode == 0
        assert asked(api, "since") == ["2026-01-02T05:00:00Z"]
        assert ids(tmp_path) == [*range(33)]
        # A changed request restarts the source, which would add rows twice, so it is refused ...
        other = pipeline(source(api.url("/cursor"), more=INCREMENTAL.replace('"2020"', '"2021"')))
        outcome = etl(other, "--output", "json")
        assert (outcome.returncode, asked(api, "since")) == (1, [])
        assert "--allow-duplicates" in report_of(outcome)["failures"][0]["message"]
        # ... unless an option allows it.
        assert etl(text, "--full-refresh").returncode == 0
        assert set(asked(api, "since")) == {"2020"}
        assert ids(tmp_path) == sorted([*range(33)] * 2)


def test_times_are_compared_by_when_and_what_is_none_does_not_count(etl, tmp_path):
    times = ["2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00Z", "2026-01-01T08:59:59.5Z", "soon"]
    records = [{"id": number, "updated_at": at} for number, at in enumerate(times)]
    with ApiServer(records, size=2) as api:
        text = pipeline(
            source(api.url("/offset"), '{ type = "offset", limit = 2 }', more=INCREMENTAL)
        )
        for _ in range(2):
            assert etl(text, "--allow-duplicates").returncode == 0
        assert asked(api, "since")[-1] == "2026-01-01T09:00:00Z"


def test_what_is_newest_must_be_comparable(etl, tmp_path):
    records = people(9)
    records[7]["updated_at"] = 7
    with ApiServer(records, size=3) as api:
        text = pipeline(
            source(api.url("/offset"), '{ type = "offset", limit = 3 }', more=INCREMENTAL)
        )
        outcome = etl(text, "--output", "json")
        (failure,) = report_of(outcome)["failures"]
    assert outcome.returncode == 1
    assert failure["kind"] == "http"
    assert "cannot be compared" in failure["message"]
    assert ids(tmp_path) == [*range(6)]


def test_pages_that_are_stable_are_gone_on_with(etl, tmp_path):
    with ApiServer(people(40), size=10) as api:
        api.misbehave(value({"items": people(10), "next_cursor": "after 10"}), path="/cursor")
        api.misbehave(value({"items": people(20)[10:], "next_cursor": "after 20"}), path="/cursor")
        api.misbehave(status(500), path="/cursor")
        text = pipeline(source(api.url("/cursor")))
        outcome = etl(text, "--output", "json")
        report = report_of(outcome)
        assert (outcome.returncode, report["records"]["written"]) == (1, 20)
        assert report["failures"][0]["kind"] == "http"
        assert "(after 20 records)" in report["failures"][0]["message"]
        assert asked(api, "cursor") == [None, "after 10", "after 20"]
        assert etl(text).returncode == 0
        assert asked(api, "cursor") == ["after 20", "after 30"]
        assert ids(tmp_path) == [*range(40)]


def test_pages_by_number_are_begun_anew_which_needs_a_key(etl, tmp_path):
    with ApiServer(people(40), size=10) as api:

        def half() -> None:
            api.misbehave(value({"items": people(10)}), path="/page")
            api.misbehave(status(500), path="/page")

        keyed = pipeline(source(api.url("/page"), PAGE), sink='key = ["id"]')
        bare = pipeline(source(api.url("/page"), PAGE), to="sqlite:///bare.db")
        for text in (keyed, bare):
            half()
            assert etl(text).returncode == 1
        assert etl(keyed).returncode == 0
        assert ids(tmp_path) == [*range(40)]
        api.seen.clear()
        outcome = etl(bare, "--output", "json")
        assert (outcome.returncode, api.requests) == (1, 0)
        assert "the earlier run cannot be resumed" in report_of(outcome)["failures"][0]["message"]


def test_all_of_a_url_is_not_added_twice(etl, tmp_path):
    with ApiServer(people(20), size=10) as api:
        text = pipeline(source(api.url("/cursor")))
        assert etl(text).returncode == 0
        outcome = etl(text, "--output", "json")
        assert outcome.returncode == 1
        assert "its rows are in the table already" in report_of(outcome)["failures"][0]["message"]
        assert ids(tmp_path) == [*range(20)]
        assert etl(text, "--allow-duplicates").returncode == 0
        assert len(ids(tmp_path)) == 40
        replaced = pipeline(source(api.url("/cursor")), sink='mode = "replace"')
        assert etl(replaced).returncode == 0
        assert ids(tmp_path) == [*range(20)]


@pytest.mark.parametrize("sink", ["", 'key = ["id"]', 'mode = "replace"'])
def test_runs_that_are_killed_lose_and_double_nothing(files, tmp_path, sink):
    pick = random.Random(sink)
    kills = 0
    with ApiServer(people(600), size=5) as api:
        files({"p.toml": pipeline(source(api.url("/cursor")), sink=sink)})
        command = ["etl", "p.toml", "--output", "json"]
        while True:
            running = CommandProcess(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
                env=environment(), start_new_session=True,
            )  # fmt: skip
            with running:
                if kills < 4 and api.answer(pick.randint(1, 40), running):
                    running.send_signal(signal.SIGKILL)
                    kills += 1
                    continue
                api.answers = None
                assert running.wait(timeout=PATIENCE) == 0, running.stderr and running.stderr.read()
                break
        assert kills
    assert ids(tmp_path) == [*range(600)]


def test_a_target_that_is_slow_slows_the_asking(files, tmp_path):
    """If the output is not read, only the pages that fit into the buffers are requested."""
    records = [{"id": number, "text": "x" * 20_000} for number in range(5_000)]
    with ApiServer(records, size=10) as api:
        files({"p.toml": pipeline(source(api.url("/cursor")), to="-")})
        running = CommandProcess(
            ["etl", "p.toml"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=tmp_path, env=environment(),
        )  # fmt: skip
        with running:
            assert running.stdout is not None
            first = running.stdout.readline()
            assert wait_until_still(lambda: api.requests) < 60  # of 500: 200 kB each
            rest = running.stdout.read()
            assert running.wait(timeout=PATIENCE) == 0
        assert api.requests == 500
    found = [json.loads(line)["id"] for line in (first + rest).splitlines()]
    assert found == [*range(5_000)]


def test_a_source_that_stalls_holds_up_no_other(files, tmp_path):
    """Rows of the other sources are in the table while a slow source is still being read."""
    with ApiServer(people(300), size=10) as api:
        api.misbehave(stall(), path="/next_url")
        slow = source(api.url("/next_url"), '{ type = "next_url", next = "/links/next" }')
        files(
            {"p.toml": pipeline(slow, source(api.url("/cursor")), source(api.url("/page"), PAGE))}
        )
        with CommandProcess(
            ["etl", "p.toml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=tmp_path, env=environment(),
        ) as running:  # fmt: skip
            wait_until(lambda: len(_ids_so_far(tmp_path)) == 600, running=running)
            running.send_signal(signal.SIGTERM)
            assert running.wait(timeout=PATIENCE) == 143
    assert ids(tmp_path) == sorted([*range(300)] * 2)


def _ids_so_far(folder: Any) -> list[int]:
    if not (folder / "out.db").exists():
        return []
    try:
        return ids(folder)
    except sqlite3.OperationalError:  # the table does not exist yet
        return []


def test_connections_are_used_again(etl):
    with ApiServer(people(400), size=4) as api:
        text = pipeline(source(api.url("/page"), PAGE, more="concurrency = 3"))
        assert etl(text).returncode == 0
        assert api.requests >= 100
        assert api.most_at_once <= 3
        assert api.connections <= 3


def test_a_file_is_written_anew(etl, tmp_path):
    with ApiServer(people(20), size=6) as api:
        text = pipeline(source(api.url("/cursor")), to="out.jsonl")
        for _ in range(2):
            assert etl(text).returncode == 0
            lines = (tmp_path / "out.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in lines] == people(20)


@pytest.mark.parametrize(
    ("to", "sink", "words"),
    [
        ("out/", "", "source[0].type: has no files"),
        ("out.jsonl", "", "source[0].incremental: needs a database"),
        ("sqlite:///out.db", 'mode = "replace"', "deletes all others"),
    ],
)
def test_what_cannot_be_done_is_refused(etl, tmp_path, to, sink, words):
    text = pipeline(source("http://127.0.0.1:9/x", more=INCREMENTAL), sink=sink, to=to)
    for option in ("--check", "--quiet"):
        outcome = etl(text, option)
        assert outcome.returncode == 2
        assert words in " ".join(outcome.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.toml"]


def test_an_object_is_a_record_and_an_empty_page_the_end(etl, tmp_path):
    with ApiServer([], size=3) as api:
        api.misbehave(value({"id": 7}), path="/echo")
        text = pipeline(
            source(api.url("/echo"), None, records=""), source(api.url("/page"), PAGE),
            source(api.url("/cursor")),
        )  # fmt: skip
        outcome = etl(text, "--output", "json")
    assert outcome.returncode == 0, outcome.stderr
    assert ids(tmp_path) == [7]
