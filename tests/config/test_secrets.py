"""Secrets from files, commands, credentials of systemd and the keyring."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

import asyncbatch
from asyncbatch.errors import UsageError
from tests.commands import ROOT, CommandProcess, environment, run_command_text
from tests.processes import alive, wait_until
from tests.servers.api import ApiServer, status

SECRET = "hunter2-${A}"  # the text of a variable, which must not be replaced again
# A backend of the keyring, which keeps its passwords in a file.
BACKEND = """
import json, os
from keyring.backend import KeyringBackend

class FileKeyring(KeyringBackend):
    priority = 1

    def _all(self):
        return json.load(open("vault.json")) if os.path.exists("vault.json") else {}

    def get_password(self, service, username):
        return self._all().get(f"{service} {username}")

    def set_password(self, service, username, password):
        json.dump({**self._all(), f"{service} {username}": password}, open("vault.json", "w"))
"""
KEYRING = {"PYTHON_KEYRING_BACKEND": "vault_backend.FileKeyring"}


@pytest.fixture
def api():
    with ApiServer(records=[{"id": 1}, {"id": 2}, {"id": 3}], size=5) as server:
        yield server


@pytest.fixture
def place(files):
    folder = files({
        "token": f"{SECRET}\n", "windows": f"{SECRET}\r\n", "none": "", "lines": "a\nb\n",
        "binary": b"\xff", "nul": "a\0b", "big": "a" * 1_000_001, "data/1.json": '{"n": 1}',
        "credentials/token": f"{SECRET}\n", "vault_backend.py": BACKEND,
    })  # fmt: skip
    os.mkfifo(folder / "pipe")
    return folder


def pipeline(place, url="https://api.example.com/", **values):
    """Write a pipeline file whose only header is a secret."""
    lines = [
        'name = "test"', "[[source]]", 'type = "http"', f'urls = ["{url}"]', "retries = 0",
        *(f"{key} = {json.dumps(value)}" for key, value in values.items() if key != "headers"),
        "[source.headers]", *(f"{k} = {json.dumps(v)}" for k, v in values["headers"].items()),
        "[sink]", 'to = "sqlite:///out.db"', 'table = "t"', 'mode = "replace"',
    ]  # fmt: skip
    (place / "p.toml").write_text("\n".join(lines))


def etl(place, *arguments, **env):
    return run_command_text("etl", "p.toml", "--workers", "0", *arguments, cwd=place, env=env)


def check(place, value, *arguments, **env):
    """Return the message about a header with this value."""
    pipeline(place, headers={"X-Key": value})
    ran = etl(place, "--check", *arguments, **env)
    assert SECRET not in ran.stdout + ran.stderr
    return ran.stderr if ran.returncode else ran.stdout


ARRIVING = (
    "${file:token}", "${file:windows}", "${file:~/token}", "${credential:token}",
    "${cmd:cat token}", "${cmd:sh -c 'tr -d \"\\n\" < token; echo; echo'}",
)  # fmt: skip


def test_secrets_arrive_and_are_not_shown(place, api):
    headers = {f"X-{number}": f"a {written}" for number, written in enumerate(ARRIVING)}
    pipeline(place, api.url("/page?page=1"), records="/items", headers=headers)
    api.misbehave(status(403, f"no rights with a {SECRET}"))
    env = {"HOME": str(place), "CREDENTIALS_DIRECTORY": str(place / "credentials")}
    shown = ("--allow-commands", "--report", "r.json", "--log-file", "log", "-v")
    failed = etl(place, *shown, **env)
    assert failed.returncode == 1
    assert "no rights with ***" in failed.stdout
    [seen] = api.seen
    assert [seen.headers[name] for name in headers] == [f"a {SECRET}"] * len(headers)
    loaded = etl(place, *shown, **env)
    assert loaded.returncode == 0, loaded.stderr
    with closing(sqlite3.connect(place / "out.db")) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (3,)
    outputs = [failed.stdout, failed.stderr, loaded.stdout, loaded.stderr]
    outputs += [(place / name).read_text() for name in ("r.json", "log")]
    assert not any("hunter2" in text for text in outputs)


MISTAKES = {
    "${file:missing}": "there is no file missing: write the file, or correct the path",
    "${file:data}": "data is not a regular file: name a file with the secret",
    "${file:pipe}": "pipe is not a regular file: name a file with the secret",
    "${file:none}": "none is empty, where a secret is expected",
    "${file:binary}": "binary is not UTF-8: a secret is a text",
    "${file:nul}": "nul has a NUL byte: a secret is a text",
    "${file:big}": "big has more than 1.0 MB, which is no secret",
    "${file:lines}": "has a line end or another unprintable character",
    "${file:}": "${file:} is empty: write ${file:/run/secrets/token}",
    "${file:\u001b[31m}": "there is no file \\x1b[31m: write the file, or correct the path",
    "${credential:missing}": "there is no file credentials/missing: give the service "
    "LoadCredential=missing:PATH",
    "${credential:../token}": "../token is not the name of a credential: it has no /",
    "${vault:token}": "vault: is not a source of secrets (file, cmd, credential, keyring); $${ "
    "is a plain ${",
    "${keyring:token}": "token is not SERVICE/NAME",
}
FAILING_COMMANDS = {
    "no-such-command x": "the command no-such-command cannot be started: No such file or "
    "directory: correct its name, or the PATH",
    "sh -c 'cat token; echo first >&2; echo bad token >&2; exit 3'": "the command sh failed with "
    "exit status 3: bad token",
    "sh -c 'kill -9 $$'": "the command sh failed with signal 9, without a message",
    "true": "the output of the command true is empty, where a secret is expected",
    "yes": "the output of the command yes has more than 1.0 MB, which is no secret",
    "echo 'a": "the command is not complete: No closing quotation",
    "''": "the command is empty",
    "sh -c 'exit ${#a}'": "${cmd:sh -c 'exit ${#a} has a brace inside: write the command into a "
    "script",
}


def test_mistakes(place):
    mistakes = {**MISTAKES, **{f"${{cmd:{line}}}": text for line, text in FAILING_COMMANDS.items()}}
    pipeline(place, headers={f"X-{at}": written for at, written in enumerate(mistakes)})
    ran = etl(place, "--check", "--allow-commands", CREDENTIALS_DIRECTORY="credentials")
    assert ran.returncode == 2
    assert SECRET not in ran.stdout + ran.stderr
    told = [line.strip() for line in ran.stderr.splitlines()[1:]]
    assert sorted(told) == sorted(
        f"source[0].headers.X-{at}: {message}" for at, message in enumerate(mistakes.values())
    )


def test_a_file_that_may_not_be_read(place):
    (place / "token").chmod(0)
    if os.access(place / "token", os.R_OK):  # we are root
        pytest.skip("root may read any file")
    assert f"user {os.geteuid()} may not read token: change its rights" in check(
        place, "${file:token}"
    )


def test_credentials_without_systemd(place):
    assert (
        "systemd has passed no credentials ($CREDENTIALS_DIRECTORY is not set): give its service "
        "LoadCredential=token:PATH"
    ) in check(place, "${credential:token}", CREDENTIALS_DIRECTORY="")


def test_a_command_that_hangs_is_ended_with_its_children(place):
    script = "sleep 1000 & echo $! $$ > pids.new; mv pids.new pids; wait"
    shown = check(
        place, f'${{cmd:sh -c "{script}"}}', "--allow-commands", "--command-timeout", "500ms"
    )
    assert (
        "the command sh has not ended within 0.500 s: correct it, or give it more time by "
        "--command-timeout"
    ) in shown
    for pid in map(int, (place / "pids").read_text().split()):
        wait_until(lambda pid=pid: not alive(pid))


def test_a_signal_ends_the_command_too(place):
    pipeline(
        place, headers={"X-Key": '${cmd:sh -c "echo $$ > pid.new; mv pid.new pid; sleep 1000"}'}
    )
    with CommandProcess(
        ["etl", "p.toml", "--allow-commands"], cwd=place, env=environment(), stderr=subprocess.PIPE
    ) as started:
        wait_until((place / "pid").exists, running=started)
        started.terminate()
        assert started.wait() == 143
        wait_until(lambda: not alive(int((place / "pid").read_text())))


@pytest.mark.parametrize("number", range(3))
def test_a_signal_at_the_start_of_the_command_ends_it(place, number):
    """The command sends it, so that it may come before the start is over."""
    script = "kill -TERM $PPID; echo $$ > pid.new; mv pid.new pid; exec sleep 1000"
    pipeline(place, headers={"X-Key": f'${{cmd:sh -c "{script}"}}'})
    with CommandProcess(
        ["etl", "p.toml", "--allow-commands"], cwd=place, env=environment(), stderr=subprocess.PIPE
    ) as started:
        assert started.wait() == 143
    if (place / "pid").exists():
        wait_until(lambda: not alive(int((place / "pid").read_text())))


def test_a_command_runs_only_if_the_user_allows_it(place):
    marked = "${cmd:sh -c 'echo x >> ran; cat token'}"
    check(place, marked)
    (place / "asyncbatch.toml").write_text("[etl]\nallow_commands = true\n")
    assert "etl.allow_commands: unknown key" in check(place, marked)
    found = f'[run]\npattern = ["{marked}"]\n'
    (place / "asyncbatch.toml").write_text(found)
    ran = run_command_text("run", "data", "--allow-commands", cwd=place)
    assert "has a variable, which may be a secret, and this file was found" in ran.stderr
    named = ("--config", "asyncbatch.toml")
    refused = run_command_text("run", "data", *named, cwd=place)
    assert "asyncbatch.toml:2: run.pattern[0]: ${cmd:sh" in refused.stderr
    assert not (place / "ran").exists()
    run_command_text("run", "data", *named, "--allow-commands", cwd=place)
    assert (place / "ran").read_text() == "x\n"
    (place / "asyncbatch.toml").unlink()
    assert "is valid" in check(place, f"{marked} {marked}", ASYNCBATCH_ETL_ALLOW_COMMANDS="1")
    assert (place / "ran").read_text() == "x\nx\n"  # once for both


def test_a_time_without_commands_is_a_mistake(place):
    assert "--command-timeout needs --allow-commands" in check(place, "a", "--command-timeout", "5")


def test_configuration_files(place):
    (place / "asyncbatch.toml").write_text(
        '[run]\nping = "https://hc.example.com/${file:token}"\nlimit = 5\n'
    )
    shown = run_command_text(
        "config", "show", "run", "--config", "asyncbatch.toml", cwd=place, env={}
    )
    assert 'ping = "https://hc.example.com/…"' in shown.stdout
    assert "hunter2" not in shown.stdout + shown.stderr


def test_streams(place):
    (place / "token").write_text("data.jsonl\n")
    (place / "data.jsonl").write_text('{"timestamp": 1, "value": 2}\n')
    (place / "s.toml").write_text(
        'name = "s"\n[source]\ntype = "file"\npath = "${cmd:cat token}"\n[window]\n'
        'spec = "tumbling:5s"\n'
    )
    refused = run_command_text("stream", "s.toml", cwd=place)
    assert "source.path: ${cmd:cat token} runs a command" in refused.stderr
    ran = run_command_text("stream", "s.toml", "--allow-commands", "-o", "jsonl", cwd=place)
    assert '"count":1' in ran.stdout.replace(" ", ""), ran.stderr


def test_the_keyring(place, api):
    keyring = {**KEYRING, "PYTHONPATH": f"{place}{os.pathsep}{ROOT}"}
    stored = subprocess.run(
        [sys.executable, "-m", "keyring", "set", "https://api.example.com/v1", "me"],
        check=False, input=SECRET, text=True, capture_output=True, cwd=place,
        env=environment(**keyring),
    )  # fmt: skip
    assert stored.returncode == 0, stored.stderr
    pipeline(
        place,
        api.url("/page?page=1"),
        records="/items",
        headers={"X-Key": "${keyring:https://api.example.com/v1/me}"},
    )
    ran = etl(place, **keyring)
    assert ran.returncode == 0, ran.stderr
    [seen] = api.seen
    assert seen.headers["X-Key"] == SECRET
    message = "the keyring has no such password: store it by `keyring set svc you`"
    assert message in check(place, "${keyring:svc/you}", **keyring)


def test_a_keyring_that_is_not_there(place):
    none = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    assert "the keyring cannot be read: No recommended backend" in check(
        place, "${keyring:svc/me}", **none
    )
    (place / "sitecustomize.py").write_text("import sys\nsys.modules['keyring'] = None\n")
    assert "the keyring needs one more package: pip install 'asyncbatch[keyring]'" in check(
        place, "${keyring:svc/me}", PYTHONPATH=f"{place}{os.pathsep}{ROOT}"
    )


def test_programs(place, monkeypatch):
    monkeypatch.chdir(place)
    secret = asyncbatch.read_secret("file:token")
    assert (secret.reveal(), str(secret)) == (SECRET, "***")
    assert asyncbatch.read_secret("cmd:cat token", allow_commands=True) == secret
    for source, message in (
        ("cmd:cat token", "allow_commands=True"),
        ("file:missing", "there is no file missing"),
        ("token", "file, cmd, credential, keyring"),
    ):
        with pytest.raises(UsageError, match=message):
            asyncbatch.read_secret(source)
