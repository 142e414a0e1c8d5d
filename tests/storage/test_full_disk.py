"""Disks that become full, read-only or lost: runs report it, and a later run resumes."""

from __future__ import annotations

import json
import random
import re
import subprocess

import pytest

from tests.commands import COMMAND, PATIENCE, environment
from tests.conftest import Outcome, many
from tests.faults import quota
from tests.faults.disks import FailingDisk, MemoryDisk, mounted
from tests.pipeline.test_resume import FILES, FOLDER, TABLES, counts, rows, to
from tests.processes import wait_until

KINDS = [*TABLES, *FILES, *FOLDER]
SOME = ["sqlite append", "duckdb append", "jsonl", "csv", "parquet", "folder"]
_FILES, _ROWS = 40, 25
_CUT = ("--load-batch", "25", "-b", "2")
"""So that it is known how far a run has come: so many rows, so many files at a time."""
_CAUSES = {
    "ENOSPC": "No space left|disk is full",
    "EDQUOT": "quota",
    "EROFS": "ead-only|disk failed|fsync failed",  # databases do not report the system error
}


@pytest.fixture
def inputs(files):
    """Forty files, 2 MB in all, that hardly compress."""
    pick = random.Random(4)
    for number in range(_FILES):
        records = [
            {"id": _ROWS * number + place, "pad": pick.randbytes(1000).hex()}
            for place in range(_ROWS)
        ]
        files({f"in/{number:02}.json": json.dumps(records)})


@pytest.fixture
def disk(tmp_path):
    with mounted(MemoryDisk(tmp_path / "disk", "800k")) as disk:
        yield disk


@pytest.fixture
def go(run, tmp_path):
    """Run and return the outcome. The ledger is in the folder `state` by default."""

    def _go(*arguments, state="state", prefix=()):
        env = {"XDG_STATE_HOME": str(tmp_path / state)}
        return run(*arguments, "-o", "json", env=env, prefix=prefix)

    return _go


def assert_lost(outcome, cause, file=None):
    """Assert that a run ended because it lost its target, and reported why."""
    assert outcome.stdout, outcome.stderr
    report = outcome.json
    assert (outcome.code, report["exit_code"], report["status"]) == (1, 1, "failed")
    told = report["failures"][0]
    assert told["kind"] == "sink"
    assert file is None or file in told["file"]
    assert re.search(_CAUSES[cause], told["message"]), told["message"]
    assert "Traceback" not in outcome.stderr


def assert_made_up_for(go, place, kind, first, again):
    """Assert that the results of `first` were kept, and that `again` did the rest."""
    assert again.code == 0, again.stdout + again.stderr
    succeeded, skipped = counts(again)[0], counts(again)[3]
    assert succeeded + skipped == _FILES
    assert skipped == (0 if kind == "parquet" else first.json["files"]["succeeded"])
    assert skipped > 0 or kind == "parquet"
    go("in", *to(kind, "fresh"))
    assert rows(place, kind) == rows(place.parent, kind, "fresh")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk(go, inputs, disk, kind):
    job = ("in", *to(kind, "disk/out"), *_CUT)
    first = go(*job, prefix=disk.prefix)
    assert_lost(first, "ENOSPC", "disk/out")
    assert first.json["files"]["total"] < _FILES or kind == "parquet", "which is written late"
    disk.remount("size=16m")
    again = go(*job, "--resume", prefix=disk.prefix)
    assert_made_up_for(go, disk.copy("copy"), kind, first, again)


@pytest.mark.parametrize("kind", ["sqlite append", "duckdb append", "folder"])
def test_a_full_disk_ends_a_watched_run(go, inputs, disk, tmp_path, kind):
    """Files whose rows are not committed stay where they are, and the next run takes them."""
    go("in", *to(kind, "fresh"))
    job = ("in", *to(kind, "disk/out"), *_CUT, "--watch", "--move-done", "done")
    first = go(*job, prefix=disk.prefix)
    assert_lost(first, "ENOSPC", "disk/out")
    done, left = tmp_path / "done", tmp_path / "in"
    # a committed file that is not moved before the loss is moved by the next run
    assert len(list(done.glob("*"))) <= first.json["files"]["succeeded"] > 0
    assert len(list(done.glob("*"))) + len(list(left.iterdir())) == _FILES
    disk.remount("size=16m")
    with subprocess.Popen(
        [*disk.prefix, *COMMAND, "run", *job], cwd=tmp_path,
        env=environment(XDG_STATE_HOME=str(tmp_path / "state")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as again:  # fmt: skip
        wait_until(lambda: not list(left.iterdir()), running=again)
        again.terminate()
        again.communicate(timeout=PATIENCE)
    assert again.returncode == 143
    assert len(list(done.iterdir())) == _FILES
    assert rows(disk.copy("copy"), kind) == rows(tmp_path, kind, "fresh")


@pytest.mark.skipif(not quota.is_possible(), reason="no numbers of this machine's system calls")
@pytest.mark.parametrize("kind", SOME)
def test_a_quota(go, inputs, tmp_path, kind):
    (tmp_path / "disk").mkdir()
    job = ("in", *to(kind, "disk/out"), *_CUT)
    with quota.quota(tmp_path / "disk", 800_000) as held:
        first = go(*job, prefix=held.prefix)
    assert held.refusals
    assert_lost(first, "EDQUOT", "disk/out")
    again = go(*job, "--resume")
    assert_made_up_for(go, tmp_path / "disk", kind, first, again)


@pytest.mark.parametrize("kind", SOME)
def test_a_disk_that_is_read_only_at_the_start(go, inputs, disk, kind):
    disk.remount("size=16m")
    job = ("in", *to(kind, "disk/out"), *_CUT, "--limit", "5")
    disk.remount("ro")
    outcome = go(*job, prefix=disk.prefix)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert re.search("ead-only|check that its folder .* may be written to", outcome.stderr)
    assert "Traceback" not in outcome.stderr
    disk.remount("rw")
    assert counts(go(*job, "--resume", prefix=disk.prefix)) == (5, 0, 0, 0)
    disk.remount("ro")
    assert go("in", *job[1:], prefix=disk.prefix).code == 2, "also where a target is"


# A disk that fails during writes and loses data that was not synced.

_GATE = """\
import os
import time

def f(record):
    if record["id"] == 300:
        time.sleep(1.2)  # so that what is done is remembered before more is
    if record["id"] == 700:
        open("reached", "w").close()
        while not os.path.exists("go-on"):
            time.sleep(0.01)
    return record
"""


@pytest.fixture
def failing(tmp_path):
    with mounted(FailingDisk(tmp_path / "disk", "24m")) as disk:
        yield disk


@pytest.mark.parametrize("kind", SOME)
def test_a_disk_that_fails(go, inputs, failing, tmp_path, kind):
    (tmp_path / "gate.py").write_text(_GATE)
    job = ("in", *to(kind, "disk/out"), *_CUT, "--call", "gate.py:f", "-w", "1")
    with subprocess.Popen(
        [*failing.prefix, *COMMAND, "run", *job, "-o", "json"], cwd=tmp_path,
        env=environment(XDG_STATE_HOME=str(tmp_path / "state")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        wait_until((tmp_path / "reached").exists, running=run)
        failing.fail()
        (tmp_path / "go-on").touch()
        told, errors = run.communicate(timeout=PATIENCE)
    first = Outcome(run.returncode, told.decode(), errors.decode())
    assert_lost(first, "EROFS", "disk/out")
    failing.recover()
    again = go(*job, "--resume", prefix=failing.prefix)
    assert again.code == 0, again.stdout + again.stderr
    # An SQLite database has lost the entries that were written with the rows.
    assert counts(again)[3] > 0 or kind in ("sqlite append", "parquet")
    go("in", *to(kind, "fresh"))
    assert rows(failing.copy("copy"), kind) == rows(tmp_path, kind, "fresh")


@pytest.mark.parametrize("kind", SOME)
def test_what_a_run_has_ended_with_is_on_the_disk(go, inputs, failing, tmp_path, kind):
    outcome = go("in", *to(kind, "disk/out"), prefix=failing.prefix)
    failing.fail()
    assert outcome.code == 0
    failing.recover()
    go("in", *to(kind, "fresh"))
    assert rows(failing.copy("copy"), kind) == rows(tmp_path, kind, "fresh")


# Outputs beside the target.


@pytest.fixture
def tiny(tmp_path):
    with mounted(MemoryDisk(tmp_path / "disk", "96k")) as disk:
        yield disk


@pytest.mark.parametrize("kind", ["jsonl", "folder"])
def test_a_full_disk_under_the_ledger(go, files, tiny, tmp_path, kind):
    files({f"in/{name}": text for name, text in many(500).items()})
    job = ("in", *to(kind))
    first = go(*job, state="disk/state", prefix=tiny.prefix)
    assert_lost(first, "ENOSPC", "disk/state/asyncbatch/out")
    assert "cannot write the ledger" in first.json["failures"][0]["message"]
    tiny.remount("size=16m")
    again = go(*job, "--resume", state="disk/state", prefix=tiny.prefix)
    assert (again.code, sum(counts(again))) == (0, 500)
    go("in", *to(kind, "fresh"))
    assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")


@pytest.mark.parametrize("kind", ["sqlite append", "jsonl", "folder"])
def test_a_full_disk_under_the_dead_letters(go, files, tiny, tmp_path, kind):
    bad = "{]\n" * 50
    files({f"in/{number:02}.jsonl": f'{{"id": {number}}}\n{bad}' for number in range(_FILES)})
    job = ("in", *to(kind), *_CUT, "--dead-letter")
    first = go(*job, "disk/bad.jsonl", prefix=tiny.prefix)
    assert_lost(first, "ENOSPC", "disk/bad.jsonl")
    assert (tiny.copy("full") / "bad.jsonl").read_bytes().endswith(b"}\n"), "no half lines"
    tiny.remount("size=16m")
    again = go(*job, "disk/bad.jsonl", "--resume", prefix=tiny.prefix)
    assert counts(again)[1] + counts(again)[3] == _FILES
    assert counts(again)[3] > 0, "what had been done is done"
    go("in", *to(kind, "fresh"), "--dead-letter", "bad.jsonl")
    assert rows(tmp_path, kind) == rows(tmp_path, kind, "fresh")
    assert (tiny.copy("copy") / "bad.jsonl").read_bytes() == (tmp_path / "bad.jsonl").read_bytes()


_REPORTED = 2_500  # files, whose report is larger than the disk


@pytest.mark.parametrize("form", ["json", "jsonl", "xml"])
def test_a_full_disk_under_a_report_costs_the_report_alone(go, files, tiny, tmp_path, form):
    texts = many(
        _REPORTED, "[{" if form == "json" else '{"id": 1}'
    )  # because .json lists only failures
    files({f"in/{name}": text for name, text in texts.items()})
    options = ("--report", f"disk/report.{form}", "--report", "report.json")
    outcome = go("in", *to("jsonl"), *options, prefix=tiny.prefix)
    assert (outcome.code, outcome.json["exit_code"], outcome.json["status"]) == (1, 1, "failed")
    told = outcome.json["failures"][0]
    message = f"cannot write disk/report.{form}: No space left on device"
    assert (told["file"], told["message"]) == (f"disk/report.{form}", message)
    assert outcome.json["files"]["total"] == _REPORTED
    assert list(tiny.copy("copy").iterdir()) == []
    assert len(rows(tmp_path, "jsonl")) == (0 if form == "json" else _REPORTED)
    other = json.loads((tmp_path / "report.json").read_text())
    assert other["files"] == outcome.json["files"]
