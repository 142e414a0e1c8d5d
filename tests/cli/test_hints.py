"""Tests of messages that lead a new user to the next step."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing

import duckdb
import pytest

from asyncbatch.core.system import install_command, package_command
from tests.commands import PATIENCE, CommandProcess, environment, run_command_text
from tests.processes import wait_until


@pytest.mark.parametrize("value", ["out.csv", "results/", "a/b.jsonl"])
def test_a_file_as_output_format_leads_to_the_right_options(run, files, value):
    files({"a.json": "1"})
    outcome = run(".", "-o", value)
    assert outcome.code == 2
    told = " ".join(outcome.stderr.replace("│", " ").split())
    assert f"(--to {value} writes the records, --report FILE what became of them)" in told


def test_a_misspelt_output_format_gets_no_hint_about_files(run, files):
    files({"a.json": "1"})
    assert "--report" not in run(".", "-o", "jsn").stderr


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_three_slashes_before_an_absolute_path_get_a_fourth(run, files, tmp_path, scheme):
    files({"a.json": '{"id": 1}'})
    path = str(tmp_path / "x.db")  # its folder exists from the root, and not from here
    outcome = run("a.json", "--to", f"{scheme}://{path}", "--table", "t")
    assert outcome.code == 2
    told = "".join(outcome.stderr.replace("│", " ").split())
    assert f"fortheabsolutepath{path}write{scheme}:///{path}" in told
    assert not os.path.exists(path)


def test_three_slashes_before_a_folder_of_this_folder_stay_relative(run, files):
    folder = files({"a.json": '{"id": 1}', "tmp/keep": ""})
    assert run("a.json", "--to", "sqlite:///tmp/x.db", "--table", "t").code == 0
    assert (folder / "tmp/x.db").exists()


def test_office_documents_get_a_message_of_their_own(run, files):
    folder = files({"a.json": "1"})
    with zipfile.ZipFile(folder / "people.xlsx", "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        book.writestr("xl/workbook.xml", "<workbook/>")
    outcome = run("people.xlsx")
    assert outcome.code == 1
    assert (
        "is an Office document (.xlsx, .docx), which is not read: save it as CSV" in outcome.stdout
    )


@pytest.mark.parametrize(
    ("prefix", "command", "package"),
    [
        ("/usr", "pip install 'asyncbatch[http]'", "pip install boto3"),
        ("/home/a/.venv", "pip install 'asyncbatch[http]'", "pip install boto3"),
        (
            "/home/a/.local/share/pipx/venvs/asyncbatch",
            "pipx install --force 'asyncbatch[http]'",
            "pipx inject asyncbatch boto3",
        ),
        (
            "/home/a/.local/share/uv/tools/asyncbatch",
            "uv tool install --force 'asyncbatch[http]'",
            "uv tool install --with boto3 asyncbatch",
        ),
    ],
)
def test_extras_are_installed_as_the_tool_was(monkeypatch, prefix, command, package):
    monkeypatch.setattr(sys, "prefix", prefix)
    assert install_command("http") == command
    assert package_command("boto3") == package


def test_the_other_name_of_workers(run, files):
    files({"a.json": "1", "b.json": "2"})
    for name in ("-j", "-w", "--workers"):
        assert run(".", name, "1").code == 0
    assert run(".", "-j", "-1").code == 2


@pytest.mark.parametrize(
    ("color", "env", "styled"),
    [
        ("always", {}, True), ("always", {"NO_COLOR": "1"}, True), ("never", {}, False),
        ("never", {"FORCE_COLOR": "1"}, False), ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {}, False),
    ],
)  # fmt: skip
def test_color(run, files, color, env, styled):
    files({"a.json": "["})
    assert ("\x1b[1;31m" in run(".", "--color", color, env=env).stdout) == styled


SLEEPS = """
import time
from pathlib import Path

def wait(record):
    Path("begun").touch()
    time.sleep(600)
"""


def test_the_second_signal_says_that_it_stops_at_once(files):
    folder = files({"a.json": "1", "fn.py": SLEEPS})
    with CommandProcess(
        ["run", "a.json", "--call", "fn.py:wait", "--grace", "500"],
        cwd=folder, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        wait_until((folder / "begun").exists, running=process)
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(PATIENCE) == 130
    assert first.startswith(b"Stopping: ")
    assert rest == b"Stopped at once: the work in flight is given up\n"


REFUSED = """\
name = "p"
source = [{{ type = "http", urls = ["http://127.0.0.1:{port}/"], retries = 0 }}]
sink = {{ to = "o.jsonl" }}
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run",), "Error: no input: name a folder, a file, a glob, '-' or --files-from"),
        (("run", ".", "-w", "many"), "'--workers' / '-w' / '-j': 'many' is not a whole number"),
        (("run", ".", "-b", "0"), "'--batch-size' / '-b': is 0, but must be at least 1"),
        (("stream", "simulate:", "--rate", "x"), "'--rate': 'x' is not a number"),
        (("run", ".", "--profile", "p"), "Invalid value for '--profile': 'p': there is no"),
        (("run", "--from-dead-letter", "no.jsonl"), "Error: no.jsonl: No such file or directory"),
        (("run", ".", "--to", "no/a.jsonl"), "cannot write no/a.jsonl: there is no folder no"),
        (("run", ".", "--lock=no/a.lock"), "--lock no/a.lock: there is no folder no"),
        (("run", ".", "--to", "a.db"), "for an SQLite database write sqlite:///a.db"),
        (("run", ".", "--to", "a.duckdb"), "for a DuckDB database write duckdb:///a.duckdb"),
        (("run", ".", "--to", "a.json"), "for JSON Lines write a.jsonl, for JSON files like"),
        (("run", ".", "--to", "a.xlsx"), "for a spreadsheet write a.csv"),
        (("run", ".", "--to", "-", "-o", "json"), "both write to standard output: choose one"),
        (("run", ".", "--resume", "--force"), "exclude each other: choose one"),
        (("stream", "simulate"), "for example events write simulate:"),
        (("stream", "-", "--late", "no/a"), "cannot write no/a: there is no folder no"),
        (("etl", "no.toml"), "`asyncbatch init no.toml` writes an example"),
        (("etl", "p.toml", "--to", "a.db"), "for an SQLite database write sqlite:///FILE.db"),
        (("ledger", "show", "no.db"), "no.db is neither a ledger file nor a target"),
    ],
)
def test_an_error_of_usage_tells_the_reason_and_the_next_step(files, arguments, told):
    folder = files({"a.json": '{"id": 1}', "p.toml": REFUSED.format(port=1)})
    ran = run_command_text(*arguments, cwd=folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr
    assert "Errno" not in ran.stderr


def test_a_refused_connection_names_its_host_and_port(files):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed when the command runs
    folder = files({"p.toml": REFUSED.format(port=port)})
    ran = run_command_text("etl", "p.toml", "-q", cwd=folder)
    assert ran.returncode == 1
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", ".", "--jq-env"), "--jq-env needs --jq"),
        (("run", ".", "--jq-lossy"), "--jq-lossy needs --jq"),
        (("run", ".", "--call-concurrency", "5"), "--call-concurrency needs --call"),
        (("run", ".", "--retry-delay", "1s"), "--retry-delay needs --retries"),
        (("validate", ".", "--schema", "a.json", "--retry-delay", "1"), "needs --retries"),
        (("stream", "a.json", "--jq-env"), "--jq-env needs --jq"),
        (("stream", "a.json", "--seed", "5"), "--seed works only with simulate:"),
        (("run", ".", "--lock-wait", "1s"), "--lock-wait needs --lock"),
        (("run", ".", "--ref", "a=a.json"), "--ref needs --schema"),
        (("run", ".", "--no-config", "--profile", "p"), "--profile and --no-config contradict"),
    ],
)
def test_an_option_without_effect_is_refused(files, arguments, told):
    ran = run_command_text(*arguments, cwd=files({"a.json": '{"id": 1}'}))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr


def test_a_variable_may_set_an_option_for_those_runs_that_use_it(run, files):
    files({"a.json": '{"id": 1}', "asyncbatch.toml": 'run.retry_delay = "1s"'})
    assert run(".", env={"ASYNCBATCH_RUN_CALL_CONCURRENCY": "5"}).code == 0


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_rows_that_a_table_has_already_lead_to_a_key(run, files, scheme):
    folder = files({"a.json": '{"id": 1}'})
    if scheme == "sqlite":
        with closing(sqlite3.connect(folder / "x.db")) as table:
            table.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    else:
        with duckdb.connect(folder / "x.db") as table:
            table.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    to = ("--to", f"{scheme}:///x.db", "--table", "t")
    assert run("a.json", *to).code == 0
    outcome = run("a.json", *to, "--force", "--allow-duplicates")
    assert outcome.code == 1
    assert "--key id updates the rows that the table has already\n" in outcome.stdout
    assert run("a.json", *to, "--force", "--key", "id").code == 0


def test_a_missing_member_of_an_archive_is_told_with_its_archive(run, files):
    folder = files({"a.json": "1"})
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        archive.writestr("in/a.json", "1")
    assert run("export.zip/in/a.json").code == 0
    missing = run("export.zip/in/zz.json").stdout
    assert "export.zip/in/zz.json: the archive export.zip has no file in/zz.json" in missing
    assert (
        "a.json/b.json: no such file: a part of its path is a file" in run("a.json/b.json").stdout
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--to x.jsonl --mode mirror", "Error: --mode mirror is for databases: sqlite:///"),
        ("--to x.jsonl --key a --table t", "Error: --table and --key are for databases"),
        ("--to x.csv --schema-contract freeze", "Error: --schema-contract is for databases"),
        ("--to - --resume", "Error: standard output does not keep its records"),
        ("--to x.jsonl --watch", "in the mode append, upsert or mirror"),
    ],
)
def test_messages_name_the_options_that_were_given(run, files, options, told):
    files({"in/a.json": "1"})
    outcome = run("in", *options.split())
    assert outcome.code == 2
    assert told in outcome.stderr


def test_a_word_that_is_neither_true_nor_false_gets_the_words(run, files):
    files({"a.json": "1"})
    outcome = run("a.json", env=environment(ASYNCBATCH_RUN_RESUME="maybe"))
    assert outcome.code == 2
    assert "'maybe' is not a valid boolean: write one of 0, 1, f, false, " in outcome.stderr


def test_repeated_keys_with_a_key_lead_to_upsert(run, files):
    folder = files({"a.json": '{"id": 1}'})
    with closing(sqlite3.connect(folder / "x.db")) as database:
        database.execute("CREATE TABLE t (id INTEGER UNIQUE)")
        database.execute("INSERT INTO t VALUES (1)")
        database.commit()
    into = ("a.json", "--to", "sqlite:///x.db", "--table", "t", "--key", "id")
    told = "--mode upsert updates the rows that the table has already"
    assert told in run(*into, "--mode", "append").stdout
    assert run(*into, "--mode", "upsert").code == 0
