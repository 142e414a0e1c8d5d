"""Tests of `--ping`, with a real server that records the requests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from base64 import b64encode

import pytest

from asyncbatch.core.units import format_count
from tests.cli.jobs import ARGUMENTS, GOOD
from tests.commands import COMMAND, PATIENCE, environment, run_command_text
from tests.conftest import many
from tests.processes import holds_open, wait_until
from tests.servers.pings import SECRET, PingServer

BAD = GOOD | {"in/1.json": "{\n", "in/2.json": "[\n"}


@pytest.fixture
def pings():
    """A server for pings."""
    with PingServer() as server:
        yield server


@pytest.fixture
def command(tmp_path):
    """Run a command in the folder of the test."""

    def _command(*arguments, **env):
        return run_command_text(*arguments, cwd=tmp_path, env=env)

    return _command


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_success_is_a_start_and_an_end(name, pings, files, command):
    files(GOOD)
    finished = command(name, *ARGUMENTS[name], "--ping", pings.url, "-o", "json")
    assert finished.returncode == 0, finished.stderr
    assert [(ping.method, ping.path) for ping in pings.seen] == [("GET", "/start"), ("POST", "")]
    report, text = json.loads(finished.stdout), pings.seen[1].text
    assert text.startswith(f"{report['status'].capitalize()} (exit status 0)")
    if name == "stream":
        assert f"{format_count(report['events']['read'], 'event')} in " in text
    else:
        assert f"Processed {format_count(report['files']['total'], 'file')} in " in text
        assert f"Records: {report['records']['read']} read" in text
    assert SECRET not in finished.stdout + finished.stderr


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_failure_is_a_fail_with_the_counts(name, pings, files, command):
    files(BAD)
    finished = command(name, *ARGUMENTS[name], "--ping", pings.url, "-q")
    assert finished.returncode == 1
    assert pings.paths == ["/start", "/fail"]
    text = pings.seen[1].text
    assert text.startswith("Failed (exit status 1): " if name != "stream" else "Ended (exit stat")
    assert "1 event in " in text if name == "stream" else ": 2 failed\n" in text


def test_failures_within_the_budget_are_a_success(pings, files, command):
    files(BAD)
    finished = command("run", "in", "--max-failures", "2", "--ping", pings.url)
    assert finished.returncode == 0
    assert pings.paths == ["/start", ""]


@pytest.mark.parametrize("arguments", [
    ("run", "in", "--jq", ".("),
    ("validate", "in", "--schema", "missing.json"),
    ("etl", "missing.toml"),
    ("stream", "missing.toml"),
    ("stream", "in/1.json", "--table", "t"),
])  # fmt: skip
def test_a_run_that_cannot_begin_is_a_failure(arguments, pings, files, command):
    files(GOOD)
    finished = command(*arguments, "--ping", pings.url)
    assert finished.returncode == 2
    assert pings.paths == ["/fail"]
    assert pings.seen[0].text.startswith("Failed (exit status 2): ")
    assert SECRET not in finished.stdout + finished.stderr


def test_a_run_without_input_is_a_failure(pings, files, command):
    files({"in/a.txt": ""})
    assert command("run", "in", "--ping", pings.url).returncode == 2
    assert pings.paths == ["/start", "/fail"]
    assert pings.seen[1].text.startswith("Failed (exit status 2): ")


@pytest.mark.parametrize("arguments", [
    ("run", "in", "--dry-run"),
    ("etl", "p.toml", "--dry-run"),
    ("etl", "p.toml", "--check"),
    ("etl", "missing.toml", "--check"),
    ("run", "in", "--ping", "ftp://example.com/" + SECRET),
    ("run", "in", "--ping", "http://127.0.0.1:65536/" + SECRET),
])  # fmt: skip
def test_what_is_no_run_sends_nothing(arguments, pings, files, command):
    files(GOOD)
    given = () if "--ping" in arguments else ("--ping", pings.url)
    finished = command(*arguments, *given)
    assert pings.seen == []
    assert SECRET not in finished.stdout + finished.stderr


@pytest.fixture
def stuck(files, pings):
    """Start a run with a ping that reads a pipe without a writer; return it, begun."""
    folder = files({})
    os.mkfifo(folder / "pipe")
    started = []

    def _stuck(*arguments):
        process = subprocess.Popen(
            [*COMMAND, "run", "pipe", "--ping", pings.url, *arguments], cwd=folder,
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        wait_until(lambda: pings.paths == ["/start"] and holds_open(process.pid, folder / "pipe"))
        return process

    with (folder / "pipe").open("r+b", buffering=0) as keeps_it_open:
        yield _stuck, keeps_it_open
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_beside_another_leaves_the_pings_to_that(stuck, pings, command):
    """The other run has sent its start, and will send its end."""
    start, pipe = stuck
    process = start("--lock=l.lock")
    second = command("run", "in", "--lock=l.lock", "--ping", pings.url)
    assert second.returncode == 75
    assert pings.paths == ["/start"]
    pipe.write(b"[1]")
    pipe.close()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert pings.paths == ["/start", ""]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_a_signal_stops_is_a_failure(stuck, pings, number, code):
    start, pipe = stuck
    process = start("--grace", "3600")
    process.send_signal(number)
    assert process.stderr.readline().startswith("Stopping")
    pipe.write(b"[1, 2]")
    pipe.close()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert pings.paths == ["/start", "/fail"]
    assert pings.seen[1].text.startswith(f"Interrupted (exit status {code}): stopped by a signal")
    assert "Records: 2 read" in pings.seen[1].text


@pytest.mark.parametrize("second", [True, False])
def test_a_run_that_is_given_up_is_a_failure(stuck, pings, second):
    """At the end of the grace, or at the second signal, the process ends inside its session."""
    process = stuck[0]("--grace", "3600" if second else "0.1")
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline().startswith("Stopping")
    if second:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert pings.paths == ["/start", "/fail"]
    assert pings.seen[1].text.startswith("Interrupted (exit status 143)")


@pytest.mark.parametrize(("more", "code"), [((), 0), (("--signal-exit",), 143)])
def test_a_stream_that_a_signal_stops_ends_as_its_exit_status_says(live, pings, more, code):
    process = live("-", "--time", "arrival", "--ping", pings.url, *more)
    wait_until(lambda: pings.paths == ["/start"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == code
    assert pings.paths == ["/start", "/fail" if code else ""]
    assert pings.seen[1].text.startswith(f"Stopped (exit status {code})")


def test_a_run_that_is_killed_sends_no_end(stuck, pings):
    process = stuck[0]()
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert pings.paths == ["/start"]


def test_a_closed_output_is_a_failure(pings, files):
    folder = files(many(50))
    with subprocess.Popen(
        [*COMMAND, "run", ".", "-o", "jsonl", "--ping", pings.url], cwd=folder, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
    assert pings.paths == ["/start", "/fail"]
    reason = "Failed (exit status 141): the reader closed the output"
    assert pings.seen[1].text.startswith(reason)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="writes to /dev/full")
def test_a_summary_that_cannot_be_written_is_a_failure(pings, files):
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(
            [*COMMAND, "run", ".", "-o", "json", "--ping", pings.url], check=False,
            cwd=files(many(1)), env=environment(), stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert finished.returncode == 1
    assert pings.paths == ["/start", "/fail"]
    assert pings.seen[1].text.startswith("Failed (exit status 1): cannot continue: ")


@pytest.mark.parametrize("status", [404, 500])
@pytest.mark.parametrize("contents", [GOOD, BAD])
def test_a_refused_ping_is_a_note(status, contents, files, command):
    files(contents)
    with PingServer(status=status) as pings:
        finished = command("run", "in", "--ping", pings.url, "-q")
        code = int(contents is BAD)
        assert finished.returncode == code
        tries = 2 if status >= 500 else 1  # another try may help
        assert pings.paths == ["/start", *["/fail" if code else ""] * tries]
        note = f"Note: the ping to {pings.origin}/… failed: HTTP status {status}\n"
        assert finished.stderr.endswith(note)
        assert finished.stderr.count("Note:") == 1
    assert SECRET not in finished.stdout + finished.stderr


def test_an_end_is_sent_again_after_a_temporary_failure(files, command):
    files(GOOD)
    with PingServer(failing=1) as pings:
        finished = command("run", "in", "--ping", pings.url, "-q")
        assert (finished.returncode, finished.stderr) == (0, "")
        assert pings.paths == ["/start", "", ""]


def test_a_server_that_is_away_is_a_note(files, command):
    files(GOOD)
    with socket.socket() as taken:  # bound, but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{taken.getsockname()[1]}"
        finished = command("run", "in", "--ping", f"{origin}/ping/{SECRET}", "-q")
    assert finished.returncode == 0
    assert finished.stderr == f"Note: the ping to {origin}/… failed: Connection refused\n"


def test_a_server_that_hangs_is_a_note_and_never_holds_the_run(files):
    """The process ends before the server answers; after a second signal it waits only briefly."""
    folder = files({})
    os.mkfifo(folder / "pipe")
    with PingServer(hangs=True) as pings, (folder / "pipe").open("r+b", buffering=0):
        with subprocess.Popen(
            [*COMMAND, "run", "pipe", "--ping", pings.url], cwd=folder, env=environment(),
            stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            wait_until(lambda: pings.paths == ["/start"])
            wait_until(lambda: holds_open(process.pid, folder / "pipe"))
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Stopping")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
        assert pings.paths == ["/start"]
    assert errors.endswith(f"Note: the ping to {pings.origin}/… failed: no answer within 1 s\n")
    assert SECRET not in errors


def test_a_redirect_is_followed_and_the_query_is_kept(pings, files, command):
    files(GOOD)
    with PingServer(status=302, location=f"{pings.origin}/elsewhere") as first:
        finished = command("run", "in", "--ping", f"{first.url}?create=1", "-q")
        assert finished.returncode == 0
        assert finished.stderr == ""
        assert first.paths == ["/start?create=1", "?create=1"]
    assert [(ping.method, ping.path) for ping in pings.seen] == [("GET", "/elsewhere")] * 2


def test_user_and_password_of_the_url_are_for_its_server_only(pings, files, command):
    files(GOOD)
    basic = "Basic " + b64encode(b"ann:p@ss").decode()
    with PingServer(status=302, location=f"{pings.origin}/elsewhere") as first:
        url = first.url.replace("//", "//ann:p%40ss@", 1)
        finished = command("run", "in", "--ping", url)
        assert (finished.returncode, finished.stderr) == (0, "")
        assert [ping.user for ping in first.seen] == [basic] * 2
    assert [ping.user for ping in pings.seen] == [None] * 2


def test_the_url_comes_from_the_environment_or_a_named_file(pings, files, command):
    folder = files(GOOD | {"mine.toml": f'[run]\nping = "{pings.url}"\n'})
    assert command("run", "in", ASYNCBATCH_RUN_PING=pings.url).returncode == 0
    assert pings.paths == ["/start", ""]
    assert command("run", "in", "--config", "mine.toml").returncode == 0
    assert pings.paths == ["/start", ""] * 2
    (folder / "mine.toml").rename(folder / "asyncbatch.toml")  # found, not named
    found = command("run", "in")
    assert found.returncode == 2
    assert pings.paths == ["/start", ""] * 2
    assert SECRET not in found.stdout + found.stderr


def test_a_stream_of_a_pipeline_file_sends_pings_too(pings, files, command):
    stream = """
        [[source]]
        type = "files"
        paths = ["in/1.json"]
        [window]
        spec = "tumbling:5s"
        time = "a"
        [window.aggregates]
        events = "count"
    """
    files(GOOD | {"s.toml": stream, "mine.toml": f'[stream]\nping = "{pings.url}"\n'})
    finished = command("stream", "s.toml", "--config", "mine.toml", "--color", "never")
    assert finished.returncode == 0, finished.stderr
    assert pings.paths == ["/start", ""]
    assert command("stream", "s.toml", "--ping", pings.url, "--no-config").returncode == 0
    assert pings.paths == ["/start", ""] * 2


def test_the_secret_is_in_no_output_and_no_report(pings, files, command):
    folder = files(BAD | {"mine.toml": f'[run]\nping = "{pings.url}"\n'})
    reports = [f"report{ending}" for ending in (".json", ".jsonl", ".md", ".prom", ".xml")]
    options = [word for report in reports for word in ("--report", report)]
    finished = command("run", "in", *options, "-v", "--ping", pings.url)
    shown = [
        command("config", "show", "run", "--config", "mine.toml"),
        command("config", "show", "run", "-o", "json", ASYNCBATCH_RUN_PING=pings.url),
        command("run", "in", "--help-all", ASYNCBATCH_RUN_PING=pings.url),
    ]
    for one in (finished, *shown):
        assert SECRET not in one.stdout + one.stderr
    assert f"{pings.origin}/…" in shown[0].stdout
    assert json.loads(shown[1].stdout)["options"][0]["value"] == f"{pings.origin}/…"
    for report in reports:
        assert SECRET not in (folder / report).read_text()
    assert SECRET not in pings.seen[-1].text


def test_a_validation_that_cannot_begin_writes_its_reports(files, command):
    folder = files(GOOD)
    finished = command("validate", "in", "--schema", "missing.json", "--report", "r.json")
    assert finished.returncode == 2
    assert json.loads((folder / "r.json").read_text())["exit_code"] == 2
