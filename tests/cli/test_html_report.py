"""The HTML report: numbers, texts of strangers, bounds, and the page without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from asyncbatch import __version__
from asyncbatch.cli.render.samples import MAX_POINTS, TimeSeries
from asyncbatch.core.report import Report
from tests.commands import PATIENCE, run_command_text
from tests.conftest import many, python
from tests.servers.browser import CHROMIUM, Browser

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;\u2028-->"
VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """A report as a parser of HTML understands it."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text()
        # each start tag with its attributes
        self.elements: list[tuple[str, dict[str, Any]]] = []
        # each with its attributes and its text
        self.scripts: list[tuple[dict[str, Any], str]] = []
        self.styles: list[tuple[dict[str, Any], str]] = []
        # of lists of definitions, by the name
        self.counts: dict[str, str] = {}
        self.facts: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}  # rows, the heads first, by the caption
        self.text = ""
        self._open: list[str] = []
        self._name = self._caption = ""
        self.feed(self.source)
        self.close()
        assert self._open == []

    @property
    def data(self):
        [script] = [text for attributes, text in self.scripts if attributes.get("id") == "data"]
        return json.loads(script)

    def rows(self, caption):
        """Return the rows of a table as dicts by the names of columns."""
        heads, *rows = self.tables[caption]
        return [dict(zip(heads, row, strict=True)) for row in rows]

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag in {"script", "style"}:
            getattr(self, f"{tag}s").append((attributes, ""))
        if tag == "dl":
            self._list = self.counts if attributes["class"] == "cards" else self.facts
        if tag in {"caption", "dt", "dd"}:
            self._piece = ""
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if tag in {"th", "td"}:
            self.tables[self._caption][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "caption":
            self._caption = self._piece
        if tag == "dt":
            self._name = self._piece
        if tag == "dd":
            self._list[self._name] = self._piece.strip()

    def handle_data(self, data):
        inner = self._open[-1] if self._open else ""
        if inner in {"script", "style"}:
            pieces = getattr(self, f"{inner}s")
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + data)
            return
        self.text += data
        if "small" not in self._open and {"caption", "dt", "dd"} & {*self._open}:
            self._piece += data
        if {"td", "th"} & {*self._open} and not {"details", "code"} & {*self._open}:
            self.tables[self._caption][-1][-1] += data


def number(text):
    return int(text.replace(",", ""))


@pytest.fixture
def mixed(files):
    return files({
        **many(30), "in/good.jsonl": '{"n": 1}\n{"n": 2}\n', "in/bad.json": '{"n": 1,\n "ü": [1,]}',
        "in/lines.jsonl": '{"n": 1}\nx\n{"n": 3}\n{"n": }\n', "in/empty.json": "",
        "schema.json": '{"properties": {"n": {"maximum": 2}}}',
    })  # fmt: skip


def test_the_page_has_the_numbers_of_the_object(run, mixed):
    names = ("r.html", "r.json", "r.jsonl")
    reports = [word for name in names for word in ("--report", name)]
    outcome = run("in", "--schema", "schema.json", *reports)
    assert outcome.code == 1, outcome.stderr
    page, report = Page(mixed / "r.html"), json.loads((mixed / "r.json").read_text())
    assert page.data["report"] == report
    assert "Exit status 1: " in page.text
    assert (f"asyncbatch run: {report['status']}") in page.text
    files, records = report["files"], report["records"]
    assert {name: number(page.counts[name]) for name in ("files", "succeeded", "failed")} == {
        "files": files["total"], "succeeded": files["succeeded"], "failed": files["failed"],
    }  # fmt: skip
    assert number(page.counts["records"]) == records["read"]
    assert number(page.counts["rejected records"]) == records["rejected"]
    shown = [
        [row[name] for name in ("File", "Message", "Kind", "Line", "Column", "Record")]
        for row in page.rows("Each failure")
    ]
    fields = ("file", "message", "kind", "line", "column", "record")
    assert shown == [
        ["" if one[name] is None else str(one[name]) for name in fields]
        for one in report["failures"]
    ]
    assert {row["Kind"]: number(row["Failures"]) for row in page.rows("Failures by kind")} == (
        report["failure_kinds"]
    )
    by_message = {
        (row["Kind"], row["Message"]): (number(row["Failures"]), number(row["Files"]))
        for row in page.rows("Failures by message")
    }
    for kind, message in {(one["kind"], one["message"]) for one in report["failures"]}:
        alike = [one["file"] for one in report["failures"] if one["message"] == message]
        assert by_message.pop((kind, message)) == (len(alike), len({*alike}))
    assert by_message == {}
    assert page.facts["asyncbatch"] == __version__
    assert page.facts["Inputs"] == "in"
    assert page.facts["Work"] == "--schema schema.json"

    events = [json.loads(line) for line in (mixed / "r.jsonl").read_text().splitlines()]
    found = {one["file"]: one for one in events if one["event"] == "file"}
    sample = page.data["files"]
    assert {*sample["file"]} == {*found}  # all, because they are few
    for file, *values in zip(*sample.values(), strict=True):
        event = found[file]
        assert values == [event["bytes"], event["elapsed_ms"], event["status"]]
    series = page.data["series"]
    assert [series[name][-1] for name in ("files", "records", "bytes")] == [
        files["total"], records["read"], files["bytes"],
    ]  # fmt: skip
    assert series["seconds"][0] == 0
    assert all(before <= after for before, after in pairwise(series["files"]))


def test_texts_of_the_data_stay_texts(run, files):
    name = "<script>alert(1)</script>.json"
    folder = files({
        f"in/{name}": '{"x":', "in/a.jsonl": '{"x": 1}\n', "in/b\x1b[2J.json": "}",
        "fn.py": f"def fails(record):\n    raise ValueError({HOSTILE!r})\n",
    })  # fmt: skip
    outcome = run("in", "--call", "fn.py:fails", "-v", "--report", "r.html", "--report", "r.json")
    assert outcome.code == 1
    page = Page(folder / "r.html")
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3
    assert tags.count("style") == 1
    assert "img" not in tags
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    rows = page.rows("Each failure")
    assert f"in/{name}" in [row["File"] for row in rows]
    assert r"in/b\x1b[2J.json" in [row["File"] for row in rows]
    assert any(HOSTILE.replace("\u2028", "\\u2028") in row["Message"] for row in rows)
    assert page.data["report"] == json.loads((folder / "r.json").read_text())
    assert f"in/{name}" in page.data["files"]["file"]
    assert "traceback" in page.text
    data = page.source.partition('id="data">')[2].partition("</script>")[0]
    assert not {"<", ">", "&", "\u2028"} & {*data}
    assert not {char for char in page.source if ord(char) < 32 and char != "\n"}


def test_all_violations_of_a_record_are_shown(files):
    schema = {"properties": {"a": {"type": "string"}, "b": {"maximum": 2}}}
    folder = files({"in/a.json": '{"a": 1,\n "b": 3}', "s.json": json.dumps(schema)})
    reports = ("--report", "r.html", "--report", "r.json")
    finished = run_command_text("validate", "in", "--schema", "s.json", *reports, cwd=folder)
    assert finished.returncode == 1, finished.stderr
    page, report = Page(folder / "r.html"), json.loads((folder / "r.json").read_text())
    assert page.data["report"] == report
    [failure] = report["failures"]
    [row] = page.rows("Each failure")
    assert (row["File"], row["Message"]) == ("in/a.json", failure["message"])
    assert "2 violations" in page.text
    for one in failure["violations"]:
        assert f"{one['pointer']} at {one['line']}:{one['column']}: {one['message']}" in page.text
    [kind] = page.rows("Failures by kind")
    assert kind == {
        "Kind": "schema", "Failures": "1", "Meaning": "A record does not fit its JSON Schema.",
    }  # fmt: skip


def test_the_page_refers_to_nothing_and_forbids_other_scripts(run, mixed):
    run("in", "--report", "r.html")
    page = Page(mixed / "r.html")
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "base"}
        assert not attributes.keys() & {"src", "action", "srcset", "style", "data"}
        assert attributes.get("href", "#")[0] == "#"
    style = page.styles[0][1]
    assert "@import" not in style
    assert "url(" not in style
    [policy] = [
        attributes["content"]
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    directives = dict(one.strip().split(" ", 1) for one in policy.split(";"))
    texts = [text for attributes, text in page.scripts if "type" not in attributes]

    def sources(*texts):
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    assert directives == {
        "default-src": "'none'", "script-src": sources(*texts), "style-src": sources(style),
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert "Leon Sorokin" in texts[0]  # the licence of the charts goes with them
    assert not any(word in texts[1] for word in ("innerHTML", "outerHTML", "insertAdjacentHTML"))


def test_the_page_has_what_assistive_technology_needs(run, mixed):
    run("in", "--report", "r.html")
    page = Page(mixed / "r.html")
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("header", "main", "h1")] == [1, 1, 1]
    identities = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for tag, attributes in page.elements:
        if tag == "th":
            assert attributes["scope"] == "col"
        if tag == "section":
            assert attributes["aria-labelledby"] in identities
        if tag == "label":
            assert attributes["for"] in identities
        if tag in {"input", "select"}:
            assert ("label", {"for": attributes["id"]}) in page.elements
    assert tags.count("table") == tags.count("caption") == len(page.tables)
    assert ("html", {"lang": "en"}) in page.elements


def test_the_page_is_bounded(run, files):
    lines = "".join(f'{{"id": {number}\n' for number in range(1500))
    folder = files(
        {"in/bad.jsonl": lines, **{f"in/{name}": text for name, text in many(2400).items()}}
    )
    for workers in ("0", "2"):
        run("in", "-w", workers, "--report", f"{workers}.html", "--max-failures", "9999")
    page, other = (Page(folder / f"{workers}.html") for workers in ("0", "2"))
    assert 1000 <= len(page.data["files"]["file"]) <= 2000
    assert page.data["files"]["file"] == other.data["files"]["file"]
    assert len(page.rows("Each failure")) == len(page.data["report"]["failures"]) == 1000
    assert number(page.rows("Failures by kind")[0]["Failures"]) == 1500
    assert "The last table lists the first 1,000." in page.text
    [message] = page.rows("Failures by message")  # all are counted, also those that are not listed
    assert (message["Failures"], message["Files"]) == ("1,500", "1")
    assert len(page.source) < 1_500_000


def test_points_over_time_are_bounded_and_keep_the_whole():
    series, report = TimeSeries(), Report()
    for tick in range(1, 5000):
        report.elapsed_s, report.tally.read = tick / 4, tick * tick
        series.add(report)
    report.elapsed_s, report.tally.read = 1250.0, 25_000_000
    series.end(report)
    seconds, records = ([value or 0.0 for value in series.columns[name]]
                        for name in ("seconds", "records"))  # fmt: skip
    assert MAX_POINTS / 2 <= len(seconds) <= MAX_POINTS
    assert (seconds[0], seconds[-1]) == (0, 1250)
    gaps = [after - before for before, after in pairwise(seconds)]
    assert min(gaps[:-1]) == max(gaps[:-1])
    assert gaps[-1] >= gaps[0] / 2
    for at, read in zip(seconds, records, strict=True):
        assert read == (at * 4) ** 2


def test_an_etl_shows_its_sources_and_its_sink(etl, files, tmp_path):
    files({
        "a/1.json": '[{"id": 1}, {"id": 2}]', "b/1.json": '{"id": 3}', "b/2.json": "{",
        "p.toml": """
name = "two"
[[source]]
type = "files"
name = "first"
paths = ["a"]
[[source]]
type = "files"
name = "second"
paths = ["b"]
[sink]
to = "sqlite:///out.db"
table = "rows"
key = ["id"]
mode = "upsert"
""",
    })  # fmt: skip
    finished = etl("p.toml", "--report", "r.html", "--report", "r.json")
    assert finished.returncode == 1, finished.stderr
    page, report = Page(tmp_path / "r.html"), json.loads((tmp_path / "r.json").read_text())
    assert page.data["report"] == report
    rows = page.rows("The counts of each source")
    assert [(row["Source"], row["State"], number(row["Inputs"]), number(row["Records"]))
            for row in rows] == [
        (one["name"], one["state"], one["inputs"]["total"], one["records"]["read"])
        for one in report["sources"]
    ]  # fmt: skip
    facts = [page.facts[name] for name in ("Target", "Mode", "Key", "Rows written")]
    assert facts == ["sqlite:///out.db", "upsert", "id", "3"]
    assert page.facts["Inputs"] == "first: a, second: b"


def test_a_stream_shows_its_windows(stream, tmp_path):
    late = '{"t": 1, "k": "late"}\n'
    events = "".join(f'{{"t": {second}, "k": "<b>"}}\n' for second in range(1300)) + late + "x\n"
    (tmp_path / "e.jsonl").write_text(events)
    options = ("--time", "t", "--by", "k", "--window", "tumbling:1s")
    code, windows, _ = stream("e.jsonl", *options, "--report", "r.html", "--report", "r.json")
    page, report = Page(tmp_path / "r.html"), json.loads((tmp_path / "r.json").read_text())
    assert code == 0
    assert page.data["report"] == report
    bars = page.data["windows"]
    assert 300 <= len(bars["start"]) <= 600
    assert sum(bars["windows"]) == sum(bars["events"]) == len(windows) == 1300
    assert {after - before for before, after in pairwise(bars["start"])} == {4}
    shown = page.rows("The last 100 windows, the newest first")
    assert [row["Start"] for row in shown] == [
        one["window_start"] for one in reversed(windows[-100:])
    ]
    assert (shown[0]["Key"], shown[0]["Aggregates"]) == ("k=<b>", "count=1")
    counts = {name: number(page.counts[name]) for name in ("events", "late", "rejected", "windows")}
    assert counts == {"events": 1302, "late": 1, "rejected": 1, "windows": 1300}
    assert page.data["series"]["events"][-1] == 1302
    assert [page.facts[name] for name in ("Window", "Key", "Time")] == ["tumbling:1s", "k", "t"]


def test_a_stopped_stream_writes_the_page(live, tmp_path):
    process = live("-", "--time", "t", "--window", "tumbling:1s", "--report", tmp_path / "r.html")
    process.stdin.write(b'{"t": 1}\n{"t": 5}\n')
    process.stdin.flush()
    assert process.stdout.readline()  # the first window is over
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 0
    page = Page(tmp_path / "r.html")
    assert page.data["report"]["status"] == "stopped"
    assert page.counts["windows"] == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_run_that_cannot_begin_writes_the_page_over_an_earlier_one_only(run, tmp_path):
    (tmp_path / "mine.html").write_text("<!DOCTYPE html>\n<p>mine</p>")
    target = "postgresql://me:hunter2@127.0.0.1:1/db"
    for _ in range(2):
        outcome = run("nowhere*", "--report", "r.html", "--report", "mine.html", "--to", target,
                      "--table", "t")  # fmt: skip
        assert outcome.code == 2
        page = Page(tmp_path / "r.html")
        assert page.data["report"]["status"] == "failed"
        assert page.data["report"]["error"] in page.text
        assert "hunter2" not in page.source
    assert (tmp_path / "mine.html").read_text() == "<!DOCTYPE html>\n<p>mine</p>"


def test_merged_reports_have_a_page(run, mixed):
    for name in ("1.json", "2.json"):
        run("in", "--report", name)
    finished = run_command_text(
        "merge-reports", "1.json", "2.json", "--report", "r.html", cwd=mixed
    )
    assert finished.returncode == 1
    page = Page(mixed / "r.html")
    one = json.loads((mixed / "1.json").read_text())
    assert page.data["report"]["files"]["total"] == 2 * one["files"]["total"]
    assert number(page.counts["files"]) == 2 * one["files"]["total"]


def test_other_reports_do_not_load_the_page():
    finished = python(
        "import sys, asyncbatch.cli.report_files as r; r.ReportFile('r.json');"
        "print(*(name for name in sys.modules if 'html' in name))"
    )
    assert not re.findall(r"asyncbatch\S*html\S*", finished.stdout), finished.stdout


VISIBLE = """
[...document.querySelectorAll("#each-failure tbody tr")]
    .filter((row) => !row.hidden).map((row) => row.cells[0].textContent)
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: `apt-get install chromium` brings it")
async def test_the_page_in_a_browser(run, mixed):
    run("in", "--report", "r.html", "--report", "r.json")
    failures = json.loads((mixed / "r.json").read_text())["failures"]
    async with Browser(mixed) as browser:
        await browser.open(mixed / "r.html")
        assert browser.happened("Runtime.exceptionThrown") == []
        assert browser.happened("Log.entryAdded") == []  # so also an offence against the policy
        requests = [one["request"]["url"] for one in browser.happened("Network.requestWillBeSent")]
        assert requests == [(mixed / "r.html").as_uri()]
        assert await browser.evaluate("document.querySelectorAll('canvas').length") == 1

        # By the keyboard alone: from the skip link to the filter, and to the head of a column.
        await browser.press("Tab", 9)
        assert await browser.evaluate("document.activeElement.hash") == "#failures"
        await browser.press("Enter", 13, "\r")
        await browser.press("Tab", 9)
        assert await browser.evaluate("document.activeElement.id") == "filter-text"
        await browser.ask("Input.insertText", text="LINES")
        wanted = [one["file"] for one in failures if "lines" in one["file"]]
        assert await browser.evaluate(VISIBLE) == wanted
        status = await browser.evaluate("document.getElementById('filter-status').textContent")
        assert f"{len(wanted)} of {len(failures)} listed failures" in status
        await browser.evaluate("document.querySelector('#filter-text').select()")
        await browser.press("Delete", 46)
        await browser.evaluate("document.querySelector('#each-failure th button').focus()")
        for direction in ("ascending", "descending"):
            await browser.press("Enter", 13, "\r")
            files = sorted((one["file"] for one in failures), reverse=direction == "descending")
            assert await browser.evaluate(VISIBLE) == files
            order = "document.querySelector('#each-failure th').getAttribute('aria-sort')"
            assert await browser.evaluate(order) == direction

        background = "getComputedStyle(document.body).backgroundColor"
        light = await browser.evaluate(background)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        await browser.ask("Emulation.setEmulatedMedia", features=dark)
        assert await browser.evaluate(background) != light
        phone = {"width": 375, "height": 700, "deviceScaleFactor": 1, "mobile": True}
        await browser.ask("Emulation.setDeviceMetricsOverride", **phone)
        assert await browser.evaluate("document.documentElement.scrollWidth") == 375
        assert browser.happened("Runtime.exceptionThrown") == []
