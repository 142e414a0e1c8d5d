"""Files of the version before the modules were moved: each is still read.

`data/` was written by that version, in a folder that the tests copy. The paths in its checkpoint
are given as @FOLDER@; times of change are set, since a checkout does not keep them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from typer.main import get_command

from asyncbatch.cli.app import app
from tests.commands import COMMAND, PATIENCE, environment, run_command_text

DATA = Path(__file__).parent / "data"
CHANGED = {"0.jsonl": 0, "1.jsonl": 1, "2.jsonl": 2, "3.jsonl": 3, "bad.json": 9}
SELECT = ("--jq", "select(.n > 0)", "--to", "sqlite:///rows.db", "--table", "t")


@pytest.fixture
def folder(tmp_path):
    """A copy of the data, with the times at which the earlier version saw the inputs."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    for name, seconds in CHANGED.items():
        os.utime(tmp_path / "in" / name, (1_700_000_000 + seconds,) * 2)
    os.utime(tmp_path / "log.jsonl", (1_700_000_010,) * 2)
    return tmp_path


def statuses(outcome):
    return {event["file"]: event["status"] for event in outcome.events if event["event"] == "file"}


DONE = {f"in/{number}.jsonl": "skipped" for number in range(4)}


def test_a_ledger_of_checks_is_read(folder, run):
    outcome = run("in", "--ledger", "checks.ledger", "--resume", "-o", "jsonl", cwd=folder)
    assert statuses(outcome) == {**DONE, "in/bad.json": "failed"}


def test_a_ledger_in_a_database_is_read(folder, run):
    outcome = run("in", *SELECT, "--resume", "--dead-letter", "d.jsonl", "-o", "jsonl", cwd=folder)
    assert statuses(outcome) == {**DONE, "in/bad.json": "failed"}
    with closing(sqlite3.connect(folder / "rows.db")) as database:
        rows = database.execute("SELECT id, n, s FROM t ORDER BY id").fetchall()
    database.close()
    texts = ((folder / f"in/{number}.jsonl").read_text() for number in range(4))
    lines = "".join(texts).splitlines()[:20]
    records = map(json.loads, lines)
    assert rows == [tuple(record.values()) for record in records if record["n"] > 0]


def test_dead_letters_that_a_ledger_holds_are_written_again(folder, run):
    run("in", *SELECT, "--resume", "--dead-letter", "again.jsonl", cwd=folder)
    again, before = ((folder / name).read_text() for name in ("again.jsonl", "dead.jsonl"))
    assert list(map(json.loads, again.splitlines())) == list(map(json.loads, before.splitlines()))


def test_a_dead_letter_file_is_read(folder, run):
    outcome = run("--from-dead-letter", "dead.jsonl", "-o", "json", cwd=folder)
    assert outcome.json["records"]["read"] == 1  # the line; the failed file is read whole
    assert {failure["file"] for failure in outcome.json["failures"]} == {
        "in/3.jsonl",
        "in/bad.json",
    }


def test_a_ledger_of_a_folder_is_read(folder, run):
    for path in (folder / "mirrored").rglob("*.jsonl"):
        path.unlink()  # a missing output is written again, an input that failed is tried again
    arguments = ("in", "--jq", ".id", "--to", "mirrored/", "--ledger", "folder.ledger")
    outcome = run(*arguments, "--resume", "-o", "jsonl", cwd=folder)
    assert outcome.code == 1
    for number in range(4):
        output = folder / f"mirrored/in/{number}.jsonl"
        assert output.read_text() == (DATA / f"mirrored/in/{number}.jsonl").read_text()


def test_a_checkpoint_is_read(folder):
    header, _, body = (folder / "stream.checkpoint").read_text().partition("\n")
    body = body.replace("@FOLDER@", str(folder))
    digest = hashlib.blake2b(body.rstrip("\n").encode(), digest_size=16).hexdigest()
    head = {**json.loads(header), "digest": digest}
    text = f"{json.dumps(head, separators=(',', ':'))}\n{body}"
    (folder / "stream.checkpoint").write_text(text)
    more = '{"at":"2026-01-01T00:00:25Z","kind":"b"}\n{"at":"2026-01-01T00:00:31Z","kind":"a"}\n'
    with (folder / "log.jsonl").open("a") as log:
        log.write(more)
    arguments = ["stream", "log.jsonl", "--time", "at", "--window", "tumbling:10s", "--by", "kind"]
    arguments += ["--agg", "count", "--checkpoint", "stream.checkpoint", "--to", "windows.jsonl"]
    finished = subprocess.run(
        [*COMMAND, *arguments],
        check=False, capture_output=True, text=True, cwd=folder, env=environment(),
        timeout=PATIENCE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    windows = list(map(json.loads, (folder / "windows.jsonl").read_text().splitlines()))
    counts = [
        (window["window_start"][-6:-1], window["key"]["kind"], window["aggregates"]["count"])
        for window in windows
    ]
    assert counts == [
        ("00:00", "a", 5), ("00:00", "b", 5), ("00:10", "a", 5), ("00:10", "b", 5),
        ("00:20", "a", 3), ("00:20", "b", 3), ("00:30", "a", 1),
    ]  # fmt: skip


def test_a_report_is_read(folder):
    finished = run_command_text("merge-reports", "report.json", "-o", "json", cwd=folder)
    merged, report = json.loads(finished.stdout), json.loads((DATA / "report.json").read_text())
    for field in ("status", "files", "records", "failures", "exit_code"):
        assert merged[field] == report[field]


def shape(value):
    """Return a JSON value with the type in the place of each leaf."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


def test_reports_have_all_fields(folder, run):
    outcome = run("in", "--report", "now.json", cwd=folder)
    assert outcome.code == 1
    now, before = (json.loads((folder / name).read_text()) for name in ("now.json", "report.json"))
    assert contains(shape(now), shape(before))


def test_events_have_all_fields(folder, run):
    (folder / "rows.db").unlink()
    outcome = run("in", *SELECT, "-o", "jsonl", cwd=folder)
    now = [shape(json.loads(line)) for line in outcome.stdout.splitlines()]
    before = [shape(json.loads(line)) for line in (DATA / "events.jsonl").read_text().splitlines()]
    assert len(now) == len(before)
    assert all(map(contains, now, before))


def contains(now, before):
    """Tell whether a value has all that an earlier one had."""
    if isinstance(before, dict):
        return all(name in now and contains(now[name], before[name]) for name in before)
    if isinstance(before, list):
        return len(now) == len(before) and all(map(contains, now, before))
    return {now, before} <= {"int", "float"} or now == before


def flags(command, name=""):
    """Yield each command's name, and its flags."""
    for inner in getattr(command, "commands", {}):  # each is loaded when it is asked for
        yield from flags(command.get_command(None, inner), f"{name} {inner}".strip())
    if not hasattr(command, "commands"):
        texts = (text for one in command.params for text in (*one.opts, *one.secondary_opts))
        yield name, {text for text in texts if text.startswith("-")}


def test_no_flag_is_gone():
    now = dict(flags(get_command(app)))
    before = json.loads((DATA / "flags.json").read_text())
    assert {
        name: gone for name, known in before.items() if (gone := set(known) - now.get(name, set()))
    } == {}


@pytest.mark.parametrize("command", ["etl", "stream"])
def test_no_key_of_a_pipeline_file_is_gone(command):
    finished = subprocess.run(
        [*COMMAND, command, "--print-schema"],
        check=True, capture_output=True, text=True, env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    before = json.loads((DATA / f"{command}.schema.json").read_text())
    assert keys(before) <= keys(json.loads(finished.stdout))


def keys(schema, at=""):
    """Return the paths of all keys that a schema of TOML tables names."""
    found = set()
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, dict | list):
            found |= keys(value)
    for name in schema.get("properties", ()) if isinstance(schema, dict) else ():
        found.add(name)
    return found
