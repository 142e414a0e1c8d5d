"""Worker processes that die: retries, failures, and no lost or doubled records."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from asyncbatch.core.batches import Batch
from asyncbatch.errors import NoWorkerError
from asyncbatch.workers.crashes import MAX_FAILED_STARTS, CrashPolicy
from asyncbatch.workers.engine import Loss
from tests.commands import ROOT
from tests.conftest import many, python

FUNCTIONS = """
import ctypes, os, signal

def tell(record):
    descriptor = os.open("tries", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"%d " % record["n"])
    os.close(descriptor)

def exits(record):
    tell(record)
    return os._exit(3) if record["n"] == 2500 else record

def segfaults(record):
    tell(record)
    return ctypes.string_at(0) if record["n"] == 2500 else record

def is_killed(record):
    tell(record)
    return os.kill(os.getpid(), signal.SIGKILL) if record["n"] == 2500 else record

def is_killed_once(record):
    if record["n"] == 2500 and not os.path.exists("once"):
        open("once", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return record
"""
WAYS = {
    "exits": "exited with 3 while it processed this file",
    "segfaults": "was killed by SIGSEGV while it processed this file (a fault in compiled code)",
    "is_killed": (
        "was killed by SIGKILL while it processed this file; "
        "if memory ran out, use fewer --workers or set --max-file-size"
    ),
}
GOOD = [*range(1000), *range(5000, 5020)]


@pytest.fixture
def inputs(files):
    """Files of 1,000 records and of 1; between them one of 4,000, with bad lines, that kills."""
    lines = {n: f'{{"n": {n}}}' for n in range(5020)}
    fatal = "\n".join(f"{lines[n]}\nbad" for n in range(1000, 5000))
    return files({
        "fn.py": FUNCTIONS,
        "in/a.jsonl": "\n".join(lines[n] for n in range(1000)),
        "in/b.jsonl": fatal,
        **{f"in/c{n}.json": lines[n] for n in range(5000, 5020)},
    })  # fmt: skip


def rows(folder, target):
    if target.startswith("o."):
        return [json.loads(line)["n"] for line in (folder / target).read_text().splitlines()]
    if target == "out/":
        texts = [path.read_text() for path in sorted((folder / "out/in").iterdir())]
        return [json.loads(line)["n"] for text in texts for line in text.splitlines()]
    with closing(sqlite3.connect(folder / "o.db")) as connection:
        return [number for (number,) in connection.execute("SELECT n FROM t ORDER BY rowid")]


@pytest.mark.parametrize("target", ["o.jsonl", "out/", "sqlite:///o.db"])
@pytest.mark.parametrize("way", WAYS)
def test_a_death_amid_a_big_file_costs_this_file_only(run, inputs, way, target):
    table = ("--table", "t") if "sqlite" in target else ()
    options = ("--to", target, *table, "-w", "2", "--dead-letter", "d.jsonl", "-o", "jsonl")
    outcome = run("in", "--call", f"fn.py:{way}", *options)
    assert outcome.code == 1
    events = outcome.events
    statuses = Counter((event["file"], event.get("status", "rejected")) for event in events)
    assert statuses.pop(("in/b.jsonl", "failed")) == 1
    assert set(statuses.values()) == {1}
    assert {status for _, status in statuses} == {"success"}
    assert len(statuses) == 21
    summary = json.loads(outcome.stdout.splitlines()[-1])
    [failure] = summary["failures"]
    message = f"its worker process {WAYS[way]}"
    assert (failure["kind"], failure["message"]) == ("worker_crash", message)
    assert summary["records"] == {
        "read": 1020, "passed": 1020, "dropped": 0, "rejected": 0, "written": 1020,
    }  # fmt: skip
    assert rows(inputs, target) == GOOD
    [letter] = (inputs / "d.jsonl").read_text().splitlines()
    assert json.loads(letter)["kind"] == "worker_crash"
    tries = Counter((inputs / "tries").read_text().split())
    assert tries["2500"] == 2
    assert set(tries) >= {str(n) for n in GOOD}


@pytest.mark.parametrize("target", ["o.jsonl", "out/", "sqlite:///o.db"])
def test_a_worker_that_is_killed_once_costs_nothing(run, inputs, target):
    """A kernel short of memory kills a worker that has no bad file."""
    table = ("--table", "t") if "sqlite" in target else ()
    options = ("--to", target, *table, "-w", "2", "-o", "json")
    outcome = run("in", "--call", "fn.py:is_killed_once", *options)
    assert outcome.json["files"] == {**outcome.json["files"], "partial": 1, "failed": 0}
    assert outcome.json["records"]["rejected"] == 4000
    assert rows(inputs, target) == list(range(5020))


@pytest.mark.parametrize("batch", [(), ("-b", "7")])
def test_several_files_that_kill_are_each_found(run, files, batch):
    names = {f"in/{n:02}.json": json.dumps({"n": 2500 if n % 9 == 5 else n}) for n in range(50)}
    folder = files({"fn.py": FUNCTIONS, **names})
    options = ("--to", "o.jsonl", "-w", "2", *batch, "-o", "json")
    outcome = run("in", "--call", "fn.py:exits", *options)
    found = [failure["file"] for failure in outcome.json["failures"]]
    assert found == [f"in/{n:02}.json" for n in (5, 14, 23, 32, 41)]
    assert outcome.json["files"]["succeeded"] == outcome.json["records"]["written"] == 45
    assert rows(folder, "o.jsonl") == [n for n in range(50) if n % 9 != 5]


def test_standard_input_is_not_read_a_second_time(run, files):
    """Neither if it killed the worker, nor beside a file that did."""
    lines = "\n".join(f'{{"n": {n}}}' for n in range(2500)).encode()
    files({"fn.py": FUNCTIONS, "fatal.json": '{"n": 2500}', "fine.json": '{"n": 1}'})
    options = ("--call", "fn.py:exits", "--format", "jsonl", "-o", "json")
    outcome = run("-", "fatal.json", "fine.json", *options, stdin=lines)
    assert [failure["file"] for failure in outcome.json["failures"]] == ["fatal.json"]
    assert outcome.json["records"]["read"] == 2501
    fatal = lines + b'\n{"n": 2500}\n' + lines
    outcome = run("fine.json", "-", *options, stdin=fatal)
    [failure] = outcome.json["failures"]
    assert (failure["file"], failure["kind"]) == ("-", "worker_crash")
    assert outcome.json["records"]["read"] == 1


def test_bad_lines_of_a_file_count_for_nothing_if_it_is_cut_off(run, files):
    archive = gzip.compress(("bad\n" * 200_000).encode())[:-20]
    files({"in/a.jsonl.gz": archive, "in/b.json": "1"})
    outcome = run("in", "-o", "jsonl")
    assert [event["event"] for event in outcome.events] == ["file", "file"]
    summary = json.loads(outcome.stdout.splitlines()[-1])
    assert [failure["kind"] for failure in summary["failures"]] == ["corrupt_archive"]
    assert summary["records"]["rejected"] == summary["failures_omitted"] == 0


def test_bad_lines_met_before_a_death_are_reported_once(files):
    """Without transforms, the validator kills the worker after a few thousand records."""
    folder = files({**many(20), "00010.jsonl": "bad\n" * 40_000})
    (folder / "fragile.py").write_text(
        "import os\n"
        "from asyncbatch.workers.tasks.count import CountTask\n"
        "class Fragile(CountTask):\n"
        "    def _file_verdicts(self, path, opened):\n"
        "        for number, verdict in enumerate(super()._file_verdicts(path, opened)):\n"
        "            if number == 1:\n"
        "                os._exit(3)\n"
        "            yield verdict\n"
    )
    program = (
        "import asyncio, fragile\n"
        "from asyncbatch import FileSource, Inputs, Job, Run\n"
        "async def main():\n"
        f"    source = FileSource(Inputs(({str(folder)!r},)))\n"
        "    run = Run(Job((source,), workers=2), work=fragile.Fragile)\n"
        "    found = [one async for part in run.parts() for one in part.outcomes()]\n"
        "    tally = run.report.tally\n"
        "    print(len(found), tally.succeeded, tally.failed, tally.rejected, tally.read)\n"
        "    print(*[one.kind for one in run.report.failures])\n"
        "asyncio.run(main())\n"
    )
    finished = python(program, PYTHONPATH=f"{ROOT}:{folder}")
    assert finished.stdout.splitlines() == ["21 20 1 0 20", "worker_crash"], finished.stderr


def test_workers_that_cannot_start_end_the_run(run, files):
    """Workers that call a function differ from the command in the arguments of Python."""
    folder = files({
        "site/sitecustomize.py": "import os, sys\nif '-c' in sys.orig_argv: os._exit(9)\n",
        "site/cleaning.py": "def clean(record): return record\n",
        **many(300),
    })  # fmt: skip
    path = f"{folder}/site:{ROOT}"
    outcome = run(".", "-w", "2", "--call", "cleaning:clean", env={"PYTHONPATH": path})
    assert outcome.code == 1
    assert "Error: cannot continue: 8 worker processes in a row ended" in outcome.stderr
    assert "the last exited with 9" in outcome.stderr


class TestLosses:
    """The decision on a batch of the files 10 to 13, of which the first is done."""

    batch = Batch(10, ("a", "b", "-", "d"))

    def test_the_first_death_makes_a_suspect_and_the_second_a_failure(self):
        losses = CrashPolicy(None)
        first = losses.decide(self.batch, 1, Loss("exited with 1", 11))
        assert (first.file, first.failure) == (11, None)
        second = losses.decide(Batch(11, ("b",)), 0, Loss("exited with 1", 11))
        assert second.failure is not None
        assert (second.file, second.failure.file, second.failure.kind) == (11, "b", "worker_crash")

    @pytest.mark.parametrize(
        ("loss", "kind"),
        [
            (Loss("exited with 1", 12), "worker_crash"),
            (Loss("was killed by SIGKILL", 13, timed_out=True), "timeout"),
        ],
    )
    def test_standard_input_and_those_that_are_late_have_no_second_try(self, loss, kind):
        decision = CrashPolicy(1.0).decide(self.batch, 1, loss)
        assert decision.failure is not None
        assert (decision.file, decision.failure.kind) == (loss.file, kind)

    @pytest.mark.parametrize("file", [None, 10, 14])
    def test_who_is_not_known_is_found_by_halving(self, file):
        decision = CrashPolicy(None).decide(self.batch, 1, Loss("exited with 1", file))
        assert (decision.file, decision.halve) == (None, True)

    def test_stillborn_workers_are_counted_in_a_row(self):
        losses, stillborn = CrashPolicy(None), Loss("exited with 1", in_batch=False)
        for success in (lambda: losses.decide(self.batch, 0, Loss("died")), losses.note_success):
            for _ in range(MAX_FAILED_STARTS - 1):
                assert losses.decide(self.batch, 0, stillborn).file is None
            success()
        for _ in range(MAX_FAILED_STARTS - 1):
            losses.decide(self.batch, 0, stillborn)
        with pytest.raises(NoWorkerError):
            losses.decide(self.batch, 0, stillborn)


def test_what_was_handed_on_of_a_file_does_not_come_twice(run, files):
    """A compressed file that is streamed has rows in the target before its worker dies."""
    text = "x" * 1200
    lines = "".join(
        f'{{"n": {n % 2500 + n // 30000 * 2500}, "t": "{text}"}}\n' for n in range(35000)
    )
    folder = files({"a.jsonl.gz": gzip.compress(lines.encode(), 1), "fn.py": FUNCTIONS})
    options = ("--call", "fn.py:is_killed_once", "--to", "o.jsonl", "-w", "2", "-o", "json")
    outcome = run("a.jsonl.gz", *options)
    [failure] = outcome.json["failures"]
    assert failure["kind"] == "worker_crash"
    told = outcome.json["records"]["written"]
    assert failure["message"].endswith(f"(after {told:,} records)")
    assert 0 < told == len(rows(folder, "o.jsonl")) <= 30000
