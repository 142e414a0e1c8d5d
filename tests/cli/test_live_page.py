"""The live page: events against the report, reconnecting, strangers, tokens, holding, a browser."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from itertools import pairwise

import aiohttp
import pytest

from tests.commands import PATIENCE, ROOT, run_command_text
from tests.conftest import many, python
from tests.processes import wait_until
from tests.servers.browser import CHROMIUM, Browser
from tests.servers.live_pages import LiveCommand, read_to_end, reading

NAME = "!<script>alert(1)<.json"  # the first in input order
# A function that waits for a file, so that the run goes on until the test has seen it.
GATE = """
import os, time
def wait(record):
    while not os.path.exists("go"):
        time.sleep(0.01)
    if "n" in record:
        raise ValueError(f"{record['n']}" + 1999 * "<")
    return record
"""
GATED = ("in", "--call", "gate.py:wait", "-w", "1", "-b", "1", "--report", "r.json")
PIPELINE = """
name = "nightly"
[[source]]
type = "files"
name = "two"
paths = ["in"]
[sink]
to = "out.jsonl"
"""
EVENTS = "".join(f'{{"t": {second}, "k": "<b>"}}\n' for second in range(5))


@pytest.fixture
def gated(files):
    """A folder with files, of which the second is bad, for a run that waits."""
    return files({"gate.py": GATE, f"in/{NAME}": "{", **{f"in/{k}": v for k, v in many(9).items()}})


def report_of(folder):
    return json.loads((folder / "r.json").read_text())


async def test_the_page_follows_a_run_to_its_report(gated):
    with LiveCommand(gated, "run", *GATED, "--live") as command:
        url = command.url
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert (response.status, response.content_type) == (200, "text/html")
            page = await response.text()
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
            assert not any("access-control" in name.lower() for name in response.headers)
        assert "<script>alert" not in page
        totals = []
        async with reading(url) as events:
            hello = await anext(events)
            failures = ""
            while "&lt;script&gt;" not in failures:  # the failure comes while the run goes on
                failures = (await anext(events)).section("failures")
            assert "<script" not in failures
        async with reading(url) as events:  # again, after the connection was lost
            assert await anext(events) == hello
            parts: set[str] = set()
            while not {"header", "counts", "progress", "failures", "settings"} <= parts:
                one = await anext(events)
                if one.kind == "section":
                    parts.add(one.data["name"])
                if one.kind == "progress":
                    totals.append(one.data["report"]["files"]["total"])
                if "Running" in one.section("header"):
                    assert "exit status" not in one.section("header").lower()
            assert totals[-1] < 10
            (gated / "go").touch()
            rest = [one async for one in events]
        assert command.process.wait(PATIENCE) == 1  # the page has not kept the process
        totals += [one.data["report"]["files"]["total"] for one in rest if one.kind == "progress"]
        assert all(before <= after for before, after in pairwise(totals))
        report = report_of(gated)
        assert rest[-1].kind == "end"
        assert rest[-1].data == {"exit_code": 1, "report": report}
        assert totals[-1] == report["files"]["total"] == 10
        [header] = [one for one in rest if "Exit status 1" in one.section("header")]
        assert "1 file failed" in header.section("header")
        assert "Each failure" in "".join(one.section("failures") for one in rest)
        with pytest.raises(aiohttp.ClientConnectorError):
            await read_to_end(url)


COMMANDS = {
    "run": ("run", "in", "--schema", "s.json"),
    "validate": ("validate", "in", "--schema", "s.json"),
    "etl": ("etl", "p.toml"),
    "stream": ("stream", "e.jsonl", "--time", "t", "--by", "k", "--window", "tumbling:1s"),
}
SECTIONS = {
    "run": "Slowest files", "validate": "schema", "etl": "The counts of each source",
    "stream": "The last 5 windows",
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_held_page_has_the_report_until_a_signal(name, files):
    folder = files({
        **{f"in/{k}": v for k, v in many(3).items()}, "in/x.json": "{", "s.json": "{}",
        "p.toml": PIPELINE, "e.jsonl": f"{EVENTS}x\n",
    })  # fmt: skip
    (folder / os.fsdecode(b"in/\xff\x1b.json")).write_text("{")  # no text, and a control character
    options = ("--live", "--live-hold", "--report", "r.json")
    with LiveCommand(folder, *COMMANDS[name], *options) as command:
        wait_until(lambda: "stays until Ctrl-C" in command.stderr, running=command.process)
        for _ in range(2):
            events = await read_to_end(command.url)
            report = report_of(folder)
            code = 0 if name == "stream" else 1
            assert events[-1].data == {"exit_code": code, "report": report}
            shown = "".join(one.data["html"] for one in events if one.kind == "section")
            assert SECTIONS[name] in shown
            assert "Each failure" in shown
            [charts] = [one.data for one in events if one.kind == "charts"]
            assert charts["series"]["seconds"]
        command.process.send_signal(signal.SIGTERM if name == "etl" else signal.SIGINT)
        assert command.process.wait(PATIENCE) == code


async def test_a_stream_shows_windows_as_they_close(files):
    folder = files({})
    options = ("--time", "t", "--by", "k", "--window", "tumbling:1s", "--report", "r.json")
    with LiveCommand(
        folder, "stream", "-", *options, "--live", "-o", "jsonl", stdin=subprocess.PIPE
    ) as command:
        async with reading(command.url) as events:
            assert command.process.stdin is not None
            command.process.stdin.write(EVENTS.encode() + b"x\n")
            command.process.stdin.flush()
            windows = bars = None
            while not (windows and bars):
                one = await anext(events)
                windows = one.section("windows") or windows
                if one.kind == "charts":
                    bars = one.data.get("windows", {}).get("events") or bars
            assert "k=&lt;b&gt;" in windows
            assert {*bars} == {1}
            command.process.stdin.close()
            *_, end = [one async for one in events]
        assert command.process.wait(PATIENCE) == 0
        assert end.data["report"] == report_of(folder)
        assert end.data["report"]["windows"]["over"] == 5


async def test_a_stopped_run_sends_its_end(gated):
    with LiveCommand(gated, "run", *GATED, "--live", "--live-hold") as command:
        async with reading(command.url) as events:
            while (await anext(events)).kind != "progress":
                pass
            command.process.send_signal(signal.SIGINT)
            while "Stopping" not in (await anext(events)).section("header"):
                pass
            (gated / "go").touch()
            *_, end = [one async for one in events]
        assert command.process.wait(PATIENCE) == 130  # a run that was stopped holds no page
        assert (end.kind, end.data["exit_code"]) == ("end", 130)
        assert end.data["report"] == report_of(gated)
        assert end.data["report"]["status"] == "interrupted"


async def test_strangers_are_refused(gated):
    with LiveCommand(gated, "run", *GATED, "--live") as command:
        url = command.url
        port = url.rstrip("/").rpartition(":")[2]

        async def status(path="", method="GET", **headers):
            async with aiohttp.ClientSession() as session:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                async with session.request(method, url + path, headers=named) as response:
                    assert not any("access-control" in name.lower() for name in response.headers)
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                    return response.status

        own = (f"127.0.0.1:{port}", f"localhost:{port}", "localhost", f"[::1]:{port}", "127.8.9.1")
        for host in own:
            assert await status(Host=host) == 200, host
        foreign = ("evil.example", f"127.0.0.1.evil.example:{port}", "10.0.0.1", "x@[", "")
        for host in foreign:
            assert await status(Host=host) == 403, host
            assert await status("events", Host=host) == 403, host
        assert await status("events", Sec_Fetch_Site="cross-site") == 403
        for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
            assert await status(method=method) == 405
            assert await status("events", method=method) == 405
        assert await status("../etc/passwd") == await status("r.json") == 404
        for request in (b"\x1b[2J\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /%s" % (b"a" * 9999)):
            with socket.create_connection(("127.0.0.1", int(port)), PATIENCE) as connection:
                connection.sendall(request + b"\r\n\r\n")
                assert await asyncio.to_thread(connection.recv, 12) == b"HTTP/1.0 400"
        assert command.stderr == f"Live page: {url}\n"  # no request leaves a line


async def test_beyond_the_loopback_the_url_has_a_token(gated):
    with LiveCommand(gated, "run", *GATED, "--live", "0.0.0.0:0", "-v") as command:
        head, _, token = command.url.partition("?token=")
        assert len(token) >= 32
        assert "not encrypted" in command.stderr
        port = head.rstrip("/").rpartition(":")[2]
        url = f"http://127.0.0.1:{port}/"
        async with aiohttp.ClientSession() as session:
            for query in ("", "?token=", f"?token={token[:-1]}", f"?token={token}x", "?token=%ff"):
                for path in ("", "events"):
                    async with session.get(f"{url}{path}{query}") as response:
                        assert response.status == 403
                        assert token not in await response.text()
            host = {"Host": "build-7.example"}
            async with session.get(f"{url}?token={token}", headers=host) as response:
                assert response.status == 200
                assert token not in await response.text()
        (gated / "go").touch()
        events = await read_to_end(f"{url}?token={token}")
        assert command.process.wait(PATIENCE) == 1
        assert command.stderr.count(token) == 1
        assert token not in command.stdout + (gated / "r.json").read_text() + repr(events)


async def test_a_slow_reader_does_not_hold_the_run(gated):
    # The end is some megabytes, which do not fit into the buffers of the connections.
    lines = "".join(f'{{"n": {number}}}\n' for number in range(1000))
    (gated / "in/z.jsonl").write_text(lines)
    with LiveCommand(gated, "run", *GATED, "--live") as command, ExitStack() as stack:
        host, port = command.url.removeprefix("http://").rstrip("/").split(":")

        def connect():
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.settimeout(PATIENCE)
            connection.connect((host, int(port)))
            return connection

        slow = [connect() for _ in range(16)]
        for one in slow:
            one.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert await asyncio.to_thread(one.recv, 12) == b"HTTP/1.1 200"
        with pytest.raises(AssertionError, match="16 pages are open"):
            await read_to_end(command.url)
        # Connections beyond the limit are closed at once.
        *_, last = [connect() for _ in range(60)]
        assert await asyncio.to_thread(last.recv, 1) == b""
        (gated / "go").touch()
        assert command.process.wait(PATIENCE) == 1
    assert report_of(gated)["failures_omitted"] == 1


def _has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


ADDRESSES = {
    ("--live", "in"): "http://127.0.0.1:",
    ("--live", ":0", "in"): "http://127.0.0.1:",
    ("--live=0", "in"): "http://127.0.0.1:",
    ("in", "--live", "localhost:0"): "http://localhost:",
    ("--live", "[::1]:0", "in"): "http://[::1]:",
}


@pytest.mark.parametrize("arguments", ADDRESSES)
def test_addresses(arguments, run, files):
    if "[::1]:0" in arguments and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    files({"in/1.json": "1"})
    outcome = run(*arguments, "-q")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.startswith(f"Live page: {ADDRESSES[arguments]}")


def test_wrong_uses_are_named_before_anything_runs(run, files):
    folder = files({"in/1.json": "1"})
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    for options, message in (
        (("--live", f":{port}"), "another program uses this port"),
        (("--live=nonsense",), "is not an address"),
        (("--live=:70000",), "is not an address"),
        (("--live", "203.0.113.9:0"), "no such address"),
        (("--live-hold",), "--live-hold needs --live"),
    ):
        outcome = run("in", *options, "--to", "out.jsonl")
        assert outcome.code == 2, options
        assert message in outcome.stderr
        assert not (folder / "out.jsonl").exists()
    taken.close()


def test_a_page_is_not_held_without_a_run(run, files):
    files({"in/1.json": "1"})
    outcome = run("nowhere*", "--live", "--live-hold")
    assert outcome.code == 2
    assert "stays until" not in outcome.stderr
    outcome = run("in", "--dry-run", "--live", "--live-hold")
    assert (outcome.code, "Live page" in outcome.stderr) == (0, False)


def test_the_missing_library_is_named(files):
    folder = files({
        "site/sitecustomize.py": "import sys\nsys.modules['aiohttp'] = None\n", "in/1.json": "1",
    })  # fmt: skip
    path = {"PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}"}
    finished = run_command_text("run", "in", "--live", cwd=folder, env=path)
    assert finished.returncode == 2
    assert "--live needs one more package: pip install 'asyncbatch[http]'" in finished.stderr


def test_other_runs_do_not_load_the_page():
    finished = python(
        "import sys, asyncbatch.cli.session;"
        "import asyncbatch.cli.commands.run, asyncbatch.cli.observers.start;"
        "print(*(name for name in sys.modules if 'cli.live' in name or name == 'aiohttp'))"
    )
    assert finished.stdout.split() == [], finished.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: `apt-get install chromium` brings it")
async def test_the_page_in_a_browser(gated):
    options = ("run", *GATED, "--live")
    text = "document.body.textContent"
    status = "document.getElementById('connection').textContent"
    async with Browser(gated) as browser:
        with LiveCommand(gated, *options) as command:
            url = command.url
            await browser.open(url)
            await browser.wait_for(f"{text}.includes({json.dumps(NAME)})")
            assert await browser.evaluate("document.querySelector('h1 strong').textContent") == (
                "Running"
            )
            await browser.evaluate("document.getElementById('filter-text').focus()")
            await browser.ask("Input.insertText", text="00003")
            await browser.wait_for("document.title.endsWith('% asyncbatch run')")
        await browser.wait_for(f"{status}.startsWith('Connection lost')")
        assert await browser.evaluate(f"{text}.includes({json.dumps(NAME)})")
        # Another run on the same port: the page begins anew.
        address = url.removeprefix("http://").rstrip("/")
        with LiveCommand(gated, *options[:-1], "--live", address) as command:
            await browser.wait_for(f"{status}.startsWith('Connected')")
            await browser.wait_for("document.getElementById('filter-text')?.value === ''")
            await browser.evaluate("document.getElementById('filter-text').focus()")
            await browser.ask("Input.insertText", text="SCRIPT")
            await browser.wait_for(
                "document.getElementById('filter-status').textContent.includes('1 of 1 listed')"
            )
            (gated / "go").touch()
            await browser.wait_for(f"{status}.startsWith('The run has ended')")
            assert command.process.wait(PATIENCE) == 1
        assert await browser.evaluate("document.title") == "asyncbatch run: partial"
        # The filter is as the user has left it, and so is the focus.
        assert await browser.evaluate("document.getElementById('filter-text').value") == "SCRIPT"
        assert await browser.evaluate("document.activeElement.id") == "filter-text"
        assert await browser.evaluate("document.querySelectorAll('canvas').length") >= 1
        cards = "[...document.querySelectorAll('#counts dd')].map((one) => one.firstChild.data)"
        assert (await browser.evaluate(cards))[:3] == ["10 ", "9", "1"]
        assert browser.happened("Runtime.exceptionThrown") == []
        refused = [one["entry"]["text"] for one in browser.happened("Log.entryAdded")]
        assert not [one for one in refused if "ERR_CONNECTION" not in one and "ERR_INC" not in one]
        phone = {"width": 375, "height": 700, "deviceScaleFactor": 1, "mobile": True}
        await browser.ask("Emulation.setDeviceMetricsOverride", **phone)
        assert await browser.evaluate("document.documentElement.scrollWidth") == 375
