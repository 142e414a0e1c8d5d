"""Tests of `asyncbatch run DIR --watch`: files that are there, files that land, until stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.commands import CommandProcess, environment
from tests.processes import cpu_seconds, wait_until, wait_until_still

# No worker process: one less to start in each test. The work is the same.
QUICK = ("--workers", "0", "--no-progress")
TABLE = ("--to", "sqlite:///t.db", "--table", "t", "--key", "id")
ROWS = "SELECT id, v FROM t ORDER BY id"


class Watcher(CommandProcess):
    """A running `asyncbatch` that watches folders in `folder`."""

    def __init__(self, folder: Path, *arguments: str | Path, **env: str) -> None:
        self.folder = folder
        self.log = folder / "watch.log"
        with self.log.open("wb") as log:
            super().__init__(
                list(map(str, arguments)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=log, env=environment(**env), cwd=folder,
            )  # fmt: skip

    def wait_for(self, *lines: str) -> None:
        """Wait until stderr has these texts."""
        wait_until(lambda: all(line in self.log.read_text() for line in lines), running=self)

    def wait_for_rows(self, expected: list[tuple[object, ...]], query: str = ROWS) -> None:
        """Wait until the table has exactly these rows."""
        wait_until(lambda: rows(self.folder, query) == expected, running=self)

    def end(self) -> tuple[int, str]:
        """Stop it as systemd does; return the exit status and stdout."""
        self.terminate()
        output, _ = self.communicate(timeout=60)
        return self.returncode, output.decode()


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    """Return the result of a query, nothing while there is no table."""
    path = folder / "t.db"
    if not path.exists():
        return []
    # The table may not be there yet, or locked.
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
        suppress(sqlite3.OperationalError),
    ):
        return list(database.execute(query))
    return []


# A function that returns each record once there is a file `go`.
SLOW = """
import os, time
def slow(record):
    open("begun", "w").close()
    while not os.path.exists("go"): time.sleep(0.01)
    return record
"""


@pytest.fixture
def watch(tmp_path):
    """Start `asyncbatch run in --watch` into the table `t`, or with other arguments."""
    started = []
    (tmp_path / "in").mkdir()

    def _watch(*arguments, to=TABLE, command=None):
        command = command or ("run", "in", "--watch", *to)
        process = Watcher(tmp_path, *command, *QUICK, *arguments)
        started.append(process)
        return process

    yield _watch
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def names(folder: Path) -> list[str]:
    """Return the paths of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def text(path: Path) -> str:
    """Return the text of a file, nothing while there is none."""
    return path.read_text() if path.exists() else ""


def is_empty(folder: Path) -> bool:
    """Whether a folder has no entry."""
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def put(path: Path, *values: object) -> None:
    """Write records to a file as producers should: elsewhere, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent.parent / f"{path.name}.new"
    lines = "".join(f"{json.dumps(value)}\n" for value in values)
    unfinished.write_text(lines if path.suffix == ".jsonl" else json.dumps(values))
    written = unfinished.stat().st_mtime_ns - 10_000_000  # a tick of the clock of files is 4 ms
    os.utime(unfinished, ns=(written, written))
    unfinished.rename(path)


def test_files_that_are_there_and_files_that_land(tmp_path, watch):
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    put(tmp_path / "in" / "sub" / "b.json", {"id": 2, "v": "b"}, {"id": 3, "v": "b"})
    first = watch("-v")
    first.wait_for_rows([(1, "a"), (2, "b"), (3, "b")])
    put(tmp_path / "in" / "c.json", {"id": 4, "v": "c"})
    first.wait_for_rows([(1, "a"), (2, "b"), (3, "b"), (4, "c")])
    put(tmp_path / "in" / "new" / "deep" / "d.json", {"id": 5, "v": "d"})
    put(tmp_path / "in" / "bad.json", {"id": 6, "v": "e"})
    (tmp_path / "in" / "broken.json").write_text('{"id": 7, ')
    first.wait_for("in/new/deep/d.json", "in/bad.json", "in/broken.json")
    first.wait_for_rows([(1, "a"), (2, "b"), (3, "b"), (4, "c"), (5, "d"), (6, "e")])
    code, summary = first.end()
    assert code == 143
    assert "Interrupted after 6 files" in summary
    assert "5 succeeded, 1 failed" in summary

    second = watch("-o", "json", "-v")
    second.wait_for("skipped   in/a.json", "failed    in/broken.json")
    put(tmp_path / "in" / "e.json", {"id": 8, "v": "f"})
    second.wait_for_rows([*((n + 1, v) for n, v in enumerate("abbcde")), (8, "f")])
    code, output = second.end()
    files = json.loads(output)["files"]
    assert (code, files["skipped"], files["succeeded"], files["failed"]) == (143, 5, 1, 1)


def test_interrupt_finishes_the_work_in_flight(tmp_path, watch):
    """It waits for a slow record, commits it, and exits with the status of the signal."""
    (tmp_path / "slow.py").write_text(SLOW)
    process = watch("--call", "slow.py:slow", "--grace", "60")
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    wait_until((tmp_path / "begun").exists, running=process)
    process.send_signal(signal.SIGINT)
    process.wait_for("Stopping: finishing the work in flight")
    (tmp_path / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert rows(tmp_path, ROWS) == [(1, "a")]


def test_changed_file_is_taken_again(tmp_path, watch):
    process = watch()
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "old"})
    process.wait_for_rows([(1, "old")])
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "newer"}, {"id": 2, "v": "newer"})
    process.wait_for_rows([(1, "newer"), (2, "newer")])
    assert process.end()[0] == 143


def test_changed_file_does_not_double_rows_without_a_key(tmp_path, watch):
    """The ledger of this run knows its rows: it is refused, as by --resume."""
    process = watch("-v", to=(*TABLE[:4],))
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "old"})
    process.wait_for_rows([(1, "old")])
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "newer"})
    process.wait_for("failed    in/a.json")
    code, summary = process.end()
    assert "it has changed since rows of it were added" in summary
    assert (code, rows(tmp_path, ROWS)) == (143, [(1, "old")])


def test_check_without_target(tmp_path, watch):
    """It remembers checked files in the ledger of checks."""
    put(tmp_path / "in" / "a.json", 1, 2)
    process = watch("-v", "--ledger", "l.ledger", to=())
    process.wait_for("success   in/a.json  2 records")
    put(tmp_path / "in" / "b.json", 1)
    process.wait_for("success   in/b.json  1 record")
    process.end()
    again = watch("-v", "--ledger", "l.ledger", to=())
    again.wait_for("skipped   in/a.json", "skipped   in/b.json")
    again.end()


def test_folder_target(tmp_path, watch):
    """Each output is there at once, and the ledger knows it."""
    process = watch(to=("--to", "out/", "--jq", ".v"))
    put(tmp_path / "in" / "x" / "a.json", {"v": 1})
    wait_until((tmp_path / "out" / "in" / "x" / "a.json").exists, running=process)
    put(tmp_path / "in" / "b.json", {"v": 2})
    wait_until((tmp_path / "out" / "in" / "b.json").exists, running=process)
    process.kill()  # not even a signal that it could handle: it had time to write the ledger
    process.communicate()
    assert json.loads((tmp_path / "out" / "in" / "x" / "a.json").read_text()) == [1]


def test_half_written_file_is_not_taken(tmp_path, watch):
    """A file written in place waits for --settle; its rename, and another file, do not."""
    process = watch("-v", "--settle", "1h")
    growing = tmp_path / "in" / "a.json"
    growing.write_text('[{"id": 1, "v": "a"}, ')
    put(tmp_path / "in" / "b.json", {"id": 2, "v": "b"})
    process.wait_for_rows([(2, "b")])
    with growing.open("a") as file:
        file.write('{"id": 3, "v": "a"}]')
    put(tmp_path / "in" / "c.json", {"id": 4, "v": "c"})
    process.wait_for_rows([(2, "b"), (4, "c")])
    growing.rename(tmp_path / "in" / "d.json")
    process.wait_for_rows([(1, "a"), (2, "b"), (3, "a"), (4, "c")])
    assert process.end()[0] == 143
    assert "a.json" not in process.log.read_text()


def test_rename_within_a_tick_of_the_write(tmp_path, watch):
    """The notification tells what the times of the file cannot; also in a new folder."""
    process = watch("--settle", "1h")

    def rename_another(folder: Path) -> None:
        number = len(list(folder.iterdir()))
        unfinished = tmp_path / "unfinished.json"
        unfinished.write_text(json.dumps({"id": f"{folder.name} {number}"}))
        soon = time.time() + 3600  # the rename cannot be later than the last write
        os.utime(unfinished, (soon, soon))
        unfinished.rename(folder / f"{number}.json")

    for folder in (tmp_path / "in", tmp_path / "in" / "new"):
        folder.mkdir(exist_ok=True)
        taken = f"SELECT count(*) FROM t WHERE id LIKE '{folder.name} %'"

        def is_taken(folder: Path = folder, taken: str = taken) -> bool:
            rename_another(folder)  # those before the folder was watched have to wait
            return rows(tmp_path, taken) not in ([], [(0,)])

        wait_until(is_taken, running=process)
    written = tmp_path / "in" / "in-place.json"
    written.write_text(json.dumps({"id": "in place"}))
    rename_another(tmp_path / "in")
    last = max(int(path.stem) for path in (tmp_path / "in").glob("[0-9]*.json"))
    one = f"SELECT id FROM t WHERE id IN ('in {last}', 'in place')"
    process.wait_for_rows([(f"in {last}",)], one)


def test_file_that_settles(tmp_path, watch):
    process = watch("--settle", "0.1s")
    (tmp_path / "in" / "a.json").write_text('[{"id": 1, "v": "a"}]')
    process.wait_for_rows([(1, "a")])
    with (tmp_path / "in" / "b.json.part").open("w") as file:  # never taken by this name
        file.write('[{"id": 2, "v": "b"}]')
    (tmp_path / "in" / "b.json.part").rename(tmp_path / "in" / "b.json")
    process.wait_for_rows([(1, "a"), (2, "b")])


def test_marker(tmp_path, watch):
    """A file counts once its marker is there, and a new version once its marker is new."""
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    put(tmp_path / "in" / "b.json", {"id": 2, "v": "b"})
    (tmp_path / "in" / "b.json.done").touch()
    process = watch("--marker", ".done", "--delete-done", "--pattern", "*")
    process.wait_for_rows([(2, "b")])
    (tmp_path / "in" / "a.json.done").touch()
    process.wait_for_rows([(1, "a"), (2, "b")])
    put(tmp_path / "in" / "c.json", {"id": 3, "v": "old"})
    (tmp_path / "in" / "c.json.done").touch()
    process.wait_for_rows([(1, "a"), (2, "b"), (3, "old")])
    wait_until(lambda: not names(tmp_path / "in"), running=process)  # the markers, too


def test_finished_files_are_moved(tmp_path, watch):
    """Those whose records were all taken, and the others, each below the path that it had."""
    put(tmp_path / "in" / "x" / "a.json", {"id": 1, "v": "a"})
    (tmp_path / "in" / "bad.json").write_text("[")
    put(tmp_path / "in" / "partial.json", {"id": 2, "v": "p"}, {"v": "no key"})
    done, failed = tmp_path / "in" / "done", tmp_path / "failed"
    moves = ("--move-done", "in/done", "--move-failed", "failed")
    process = watch(*moves, "--dead-letter", "bad.jsonl")
    wait_until(lambda: names(failed) == ["bad.json", "partial.json"], running=process)
    wait_until(lambda: names(done) == ["x/a.json"], running=process)
    assert rows(tmp_path, ROWS) == [(1, "a"), (2, "p")]
    letters = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(letter["file"] for letter in letters) == ["in/bad.json", "in/partial.json"]
    put(tmp_path / "in" / "x" / "a.json", {"id": 3, "v": "again"})
    wait_until(lambda: names(done) == ["x/a-2.json", "x/a.json"], running=process)
    assert rows(tmp_path, ROWS) == [(1, "a"), (2, "p"), (3, "again")]
    assert json.loads((done / "x" / "a-2.json").read_text()) == [{"id": 3, "v": "again"}]
    assert process.end()[0] == 143
    assert names(tmp_path / "in") == ["done/x/a-2.json", "done/x/a.json"]


def test_files_of_an_earlier_run_are_moved(tmp_path, watch, run):
    """A run that was killed between its commit and the move leaves them to the next one."""
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    assert run("in", *TABLE).code == 0
    process = watch("--move-done", "done")
    wait_until(lambda: names(tmp_path / "done") == ["a.json"], running=process)
    assert rows(tmp_path, ROWS) == [(1, "a")]


@pytest.mark.parametrize("option", [("--move-done", "done"), ("--delete-done",)], ids=" ".join)
def test_files_that_were_put_away_are_no_duplicates_of_new_ones(tmp_path, watch, run, option):
    """In a table without a key: a new file may have the size, the time or the name of one."""
    table = ("--to", "sqlite:///t.db", "--table", "t")
    folder = tmp_path / "in"

    def bring(name, number):
        new = tmp_path / "new.tmp"
        new.write_text(f'{{"id": {number}, "v": "v"}}')
        os.utime(new, (1_000_000_000, 1_000_000_000))
        new.rename(folder / name)
        process.wait_for_rows([(one, "v") for one in range(number + 1)])
        wait_until(lambda: not names(folder), running=process)

    process = watch(*option, to=table)
    for number in range(3):
        bring(f"{number}.json", number)
    process.end()
    (folder / "left.json").write_text('{"id": 3, "v": "v"}')
    assert run("in", "--resume", *table).code == 0
    process = watch(*option, to=table)  # it puts away the file of the run before
    wait_until(lambda: not names(folder), running=process)
    for number, name in enumerate(("left.json", "other.json", "2.json"), 4):
        (folder / ".x.tmp").write_text(f'{{"id": {number}, "v": "longer"}}')
        (folder / ".x.tmp").rename(folder / name)
        wait_until(lambda: not names(folder), running=process)
    assert [one for one, _ in rows(tmp_path, ROWS)] == list(range(7))
    assert process.end()[0] == 143


def test_files_stay_until_their_rows_are_committed(tmp_path, watch):
    """A lock on the database holds the commit up, and so the deletion."""
    process = watch("--delete-done")
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    wait_until(lambda: not names(tmp_path / "in"), running=process)
    with closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        put(tmp_path / "in" / "b.json", {"id": 2, "v": "b"})
        wait_until_still(lambda: cpu_seconds(process.pid))
        assert names(tmp_path / "in") == ["b.json"]
        database.execute("ROLLBACK")
    process.wait_for_rows([(1, "a"), (2, "b")])
    wait_until(lambda: not names(tmp_path / "in"), running=process)


def test_file_that_is_replaced_while_it_is_read(tmp_path, watch):
    """Its new version is neither moved unread nor forgotten."""
    (tmp_path / "slow.py").write_text(SLOW)
    process = watch("--call", "slow.py:slow", "--move-done", "done")
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "old"})
    wait_until((tmp_path / "begun").exists, running=process)
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "newer"}, {"id": 2, "v": "newer"})
    (tmp_path / "go").touch()
    process.wait_for_rows([(1, "newer"), (2, "newer")])
    wait_until(lambda: names(tmp_path / "done") == ["a.json"], running=process)
    assert len(json.loads((tmp_path / "done" / "a.json").read_text())) == 2


def test_burst_that_overflows_the_notifications(tmp_path, watch):
    """The process stands still while 10,000 files come, so the kernel drops notifications."""
    process = watch("--ledger", "l.ledger", "--delete-done", to=())
    put(tmp_path / "in" / "first.json", 1)
    wait_until(lambda: is_empty(tmp_path / "in"), running=process)
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "staging").mkdir()
    for number in range(10_000):
        unfinished, name = f"{tmp_path}/staging/{number}", f"{tmp_path}/in/{number}.json"
        with open(unfinished, "wb") as file:
            file.write(b"1")
        os.rename(unfinished, name)
        os.chmod(name, 0o600)  # more notifications
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: is_empty(tmp_path / "in"), running=process)
    assert "Interrupted after 10,001 files" in process.end()[1]
    with closing(sqlite3.connect(tmp_path / "l.ledger")) as ledger:
        assert list(ledger.execute("SELECT count(*) FROM asyncbatch_ledger")) == [(10_001,)]


def test_folders_that_come_and_go(tmp_path, watch):
    """Also the watched folder itself, and a file whose name is not UTF-8."""
    process = watch("-v")
    put(tmp_path / "in" / "a" / "b" / "1.json", {"id": 1, "v": "a"})
    process.wait_for_rows([(1, "a")])
    shutil.rmtree(tmp_path / "in" / "a")
    put(tmp_path / "in" / "a" / "b" / "2.json", {"id": 2, "v": "b"})
    process.wait_for_rows([(1, "a"), (2, "b")])
    put(tmp_path / "elsewhere" / "c" / "3.json", {"id": 3, "v": "c"})
    (tmp_path / "elsewhere").rename(tmp_path / "in" / "moved")
    process.wait_for_rows([(1, "a"), (2, "b"), (3, "c")])
    (tmp_path / "in").rename(tmp_path / "gone")
    put(tmp_path / "in" / "4.json", {"id": 4, "v": "d"})
    process.wait_for_rows([(1, "a"), (2, "b"), (3, "c"), (4, "d")])
    put(tmp_path / "in" / os.fsdecode(b"\xff.json"), {"id": 5, "v": "e"})
    process.wait_for_rows([(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")])
    put(tmp_path / "in" / "6.json", {"id": 6, "v": "f"})
    process.wait_for("in/6.json")


def test_selection_is_that_of_a_run(tmp_path, watch):
    """Patterns, excluded and hidden folders, .gitignore and shards, for files that land."""
    (tmp_path / "in" / ".gitignore").write_text("ignored/\n")
    selected = ("--pattern", "a/*.json", "--pattern", "*.jsonl", "--exclude", "tmp", "--gitignore")
    process = watch("-v", *selected)
    put(tmp_path / "in" / "a" / "1.json", {"id": 1, "v": "taken"})
    process.wait_for_rows([(1, "taken")])
    for name in (
        "2.json",
        "a/tmp/x.jsonl",
        "tmp/x.jsonl",
        ".h/x.jsonl",
        "ignored/x.jsonl",
        "a.txt",
    ):
        put(tmp_path / "in" / name, {"id": 2, "v": "not taken"})
    os.symlink(tmp_path, tmp_path / "in" / "linked", target_is_directory=True)
    put(tmp_path / "in" / "b" / "3.jsonl", {"id": 3, "v": "taken"})
    process.wait_for_rows([(1, "taken"), (3, "taken")])
    assert process.end()[0] == 143
    assert rows(tmp_path, ROWS) == [(1, "taken"), (3, "taken")]


def test_poll(tmp_path, watch):
    process = watch("--poll", "0.05s")
    put(tmp_path / "in" / "x" / "a.json", {"id": 1, "v": "a"})
    process.wait_for_rows([(1, "a")])
    put(tmp_path / "in" / "x" / "a.json", {"id": 1, "v": "changed"})
    process.wait_for_rows([(1, "changed")])
    assert process.end()[0] == 143


def test_file_that_fails_is_not_taken_again_by_the_next_scans(tmp_path, watch):
    """It was written in its place, not renamed, so that each scan asks whether it is complete."""
    process = watch("--poll", "0.1s", "--settle", "0.05s", "--dead-letter", "d.jsonl")
    (tmp_path / "in" / "b.jsonl").write_text('{"id": 0, "v": "b"}\n{bad\n')
    expected = [(0, "b")]
    for number in range(1, 8):
        process.wait_for_rows(expected)
        put(tmp_path / "in" / f"{number}.json", {"id": number, "v": "a"})
        expected.append((number, "a"))
    process.wait_for_rows(expected)
    assert process.end()[0] == 143
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 1


def test_without_the_library_it_says_what_to_install(tmp_path, run):
    (tmp_path / "in").mkdir()
    (tmp_path / "watchfiles.py").write_text("raise ImportError\n")
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    refused = run("in", "--watch", env=env)
    assert (refused.code, "--watch needs the watchfiles package" in refused.stderr) == (2, True)
    assert "pip install 'asyncbatch[watch]'" in " ".join(refused.stderr.split())


def last_success(folder):
    """Return the time of the last success in the metrics, None without one."""
    found = re.search(r'_last_success_timestamp_seconds{name="r"} (\S+)', text(folder / "r.prom"))
    return None if found is None else float(found[1])


def test_a_watch_that_goes_on_is_a_success_until_an_input_fails(tmp_path, watch):
    process = watch("--report", "r.prom")
    began = time.time()
    wait_until(lambda: last_success(tmp_path) is not None, running=process)
    first = last_success(tmp_path)
    assert first >= began - 1
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    wait_until(lambda: last_success(tmp_path) > first, running=process)
    (tmp_path / "in" / "b.json").write_text("no")
    failed = 'asyncbatch_run_files{name="r",result="failed"} 1.0'
    wait_until(lambda: failed in text(tmp_path / "r.prom"), running=process)
    kept = last_success(tmp_path)
    put(tmp_path / "in" / "c.json", {"id": 2, "v": "a"})
    counted = 'asyncbatch_run_files{name="r",result="succeeded"} 2.0'
    wait_until(lambda: counted in text(tmp_path / "r.prom"), running=process)
    assert last_success(tmp_path) == kept
    process.end()


def test_outputs_that_it_would_not_read_may_lie_in_the_folder(tmp_path, watch):
    """As the database of the folder that one is in."""
    to = ("--to", "sqlite:///t.db", "--table", "t", "--key", "id")
    others = ("--report", "in/r.md", "--dead-letter", "dl.jsonl", "--exclude", "dl.jsonl")
    process = watch(*to, *others, command=("run", ".", "--watch"))
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    process.wait_for_rows([(1, "a")])
    assert process.end()[0] == 143


def test_reports_are_rewritten(tmp_path, watch):
    names = ("r.prom", "r.json", "r.html", "r.md")
    process = watch(*(word for name in names for word in ("--report", name)))
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    counted = 'asyncbatch_run_files{name="r",result="succeeded"} 1.0'
    wait_until(lambda: counted in text(tmp_path / "r.prom"), running=process)
    assert 'asyncbatch_run_running{name="r"} 1.0' in text(tmp_path / "r.prom")
    assert "exit_code" not in text(tmp_path / "r.prom")
    wait_until(lambda: '"succeeded":1' in text(tmp_path / "r.json"), running=process)
    assert "the run goes on" in json.loads(text(tmp_path / "r.json"))["notes"][0]
    wait_until(lambda: "the run goes on" in text(tmp_path / "r.html"), running=process)
    assert process.end()[0] == 143
    metrics = text(tmp_path / "r.prom")
    assert 'asyncbatch_run_running{name="r"} 0.0' in metrics
    assert last_success(tmp_path) is not None
    assert 'asyncbatch_run_exit_code{name="r"} 143.0' in metrics
    for name in names:
        assert "the run goes on" not in text(tmp_path / name)
    assert json.loads(text(tmp_path / "r.json"))["exit_code"] == 143


def test_metrics_port(tmp_path, watch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = watch("--metrics-port", str(port), "--report", "r.json")
        refused.communicate(timeout=60)
        assert refused.returncode == 2
        assert f"--metrics-port {port}" in refused.log.read_text()
        report = json.loads(text(tmp_path / "r.json"))
        assert (report["exit_code"], f"--metrics-port {port}" in report["error"]) == (2, True)
    process = watch("--metrics-port", str(port))
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    process.wait_for_rows([(1, "a")])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    assert 'asyncbatch_run_files{name="run",result="succeeded"} 1.0' in lines
    assert 'asyncbatch_run_running{name="run"} 1.0' in lines
    assert process.end()[0] == 143


def test_systemd_is_told(tmp_path, watch, monkeypatch):
    """That the service is ready, alive and stopping."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        process = watch()
        assert [link.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        process.terminate()
        while (notice := link.recv(100)) != b"STOPPING=1":
            assert notice == b"WATCHDOG=1"
        process.communicate(timeout=60)


def test_budget_ends_a_watch(tmp_path, watch):
    process = watch("--max-failures", "1")
    for number in range(2):
        (tmp_path / "in" / f"{number}.json").write_text("[")
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_pipeline_file(tmp_path, watch):
    (tmp_path / "p.toml").write_text(
        'name = "p"\nsource = [{ type = "files", paths = ["in"] }, '
        '{ type = "files", paths = ["other"] }]\n'
        'transform = [{ type = "jq", expr = ".v |= ascii_upcase" }]\n'
        'sink = { to = "sqlite:///t.db", table = "t", key = ["id"] }\n'
    )
    (tmp_path / "other").mkdir()
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    process = watch("--move-done", "done", command=("etl", "p.toml", "--watch"))
    process.wait_for_rows([(1, "A")])
    put(tmp_path / "other" / "b.json", {"id": 2, "v": "b"})
    put(tmp_path / "in" / "c.json", {"id": 3, "v": "c"})
    process.wait_for_rows([(1, "A"), (2, "B"), (3, "C")])
    wait_until(lambda: len(names(tmp_path / "done")) == 3, running=process)
    assert process.end()[0] == 143


def test_mirror_of_a_watched_folder(tmp_path, watch):
    """Rows of files that go are deleted, those of files that come back return."""
    for number in range(4):
        put(tmp_path / "in" / "x" / f"{number}.json", {"id": number, "v": "a"})
    mirror = (*TABLE, "--mode", "mirror", "--max-delete", "2", "--settle", "0.05s")
    process = watch(to=mirror)
    process.wait_for_rows([(number, "a") for number in range(4)])
    (tmp_path / "in" / "x" / "0.json").rename(tmp_path / "0.json")
    process.wait_for_rows([(number, "a") for number in range(1, 4)])
    (tmp_path / "0.json").rename(tmp_path / "in" / "x" / "0.json")
    put(tmp_path / "in" / "x" / "1.json", {"id": 1, "v": "changed"}, {"id": 9, "v": "new"})
    kept = [(2, "a"), (3, "a"), (9, "new")]
    process.wait_for_rows([(0, "a"), (1, "changed"), *kept])
    put(tmp_path / "in" / "y.json", {"id": 0, "v": "moved"})
    os.unlink(tmp_path / "in" / "x" / "0.json")
    process.wait_for_rows([(0, "moved"), (1, "changed"), *kept])
    (tmp_path / "in" / "x").rename(tmp_path / "x")  # three of its files: more than allowed
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--max-delete allows 2" in " ".join(output.decode().split())
    assert rows(tmp_path, ROWS) == [(0, "moved"), (1, "changed"), *kept]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in", "--to", "o.jsonl"), "appears only at the end of a run"),
        (("in", "--to", "-"), "excludes --to - (standard output does not keep its records"),
        (("in", *("--to", "sqlite:///t.db", "--table", "t", "--mode", "replace")), "has no end"),
        (("in/a.json",), "in/a.json is a file: name its folder"),
        (("s3://bucket/in",), "--watch needs folders of this machine"),
        (("missing",), "--watch cannot read missing"),
        (("in", "in/sub"), "in/sub is inside in"),
        (("in", "--files-from", "list"), "excludes --files-from"),
        (("in", "--dry-run"), "excludes --dry-run"),
        (("in", "--to", "out/", "--to-format", "jsonl"), "excludes --to-format"),
        (("in", "--report", "in/r.json"), "would be read as input"),
        (("in", "--move-done", "d", "--delete-done"), "choose one"),
    ],
)
def test_contradictions(tmp_path, run, files, arguments, message):
    files({"in/a.json": "1", "in/sub/b.json": "1"})
    outcome = run(*arguments, "--watch")
    assert outcome.code == 2
    assert message in " ".join(outcome.stderr.split())


def test_options_that_need_a_watch(run, files):
    files({"in/a.json": "1"})
    for option in (("--settle", "3s"), ("--marker", ".done"), ("--poll", "1s"), ("--delete-done",)):
        outcome = run("in", *option)
        assert (outcome.code, f"{option[0]} needs --watch" in outcome.stderr) == (2, True)


# Inputs that come again, files that are put away, and names that lead to the same file


CRASH = """
import os
def crash(record):
    if record["id"] == 1:
        os._exit(9)
    return record
"""


def test_a_large_file_does_not_wait_for_another_file(tmp_path, watch):
    """Its worker returns it, to be split."""
    line = json.dumps({"id": 1, "v": "x" * 1_000_000}) + "\n"
    (tmp_path / "in" / "big.jsonl").write_text(line * 40)
    process = watch(to=("--to", "sqlite:///t.db", "--table", "t"))
    process.wait_for_rows([(40,)], "SELECT count(*) FROM t")
    assert process.end()[0] == 143


def test_files_beside_one_that_kills_its_worker_do_not_wait(tmp_path, watch):
    (tmp_path / "crash.py").write_text(CRASH)
    for number in range(4):
        put(tmp_path / "in" / f"{number}.json", {"id": number, "v": "v"})
    process = watch("--call", "crash.py:crash", "--workers", "1")
    process.wait_for_rows([(0, "v"), (2, "v"), (3, "v")])
    status, shown = process.end()
    assert status == 143
    assert "worker_crash" in shown


@pytest.mark.parametrize("watched", ["link", "in"])
def test_a_folder_for_finished_files_inside_by_another_name(tmp_path, watch, watched):
    (tmp_path / "link").symlink_to("in")
    away = {"link": "in/done", "in": "link/done"}[watched]
    command = ("run", watched, "--watch", *TABLE)
    process = watch("--move-done", away, command=command)
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    wait_until(lambda: names(tmp_path / "in") == ["done/a.json"], running=process)
    put(tmp_path / "in" / "b.json", {"id": 2, "v": "b"})
    wait_until(lambda: names(tmp_path / "in") == ["done/a.json", "done/b.json"], running=process)
    assert "2 succeeded" in process.end()[1]


KEYLESS = ("--to", "sqlite:///t.db", "--table", "t")


def test_a_file_that_grows_before_it_is_put_away_is_a_changed_one(tmp_path, watch):
    """Its rows would be there twice: it fails, as without --move-done."""
    (tmp_path / "slow.py").write_text(SLOW)
    log = ("--log-file", "log.txt")
    process = watch("--call", "slow.py:slow", "--move-done", "done", *log, to=KEYLESS)
    put(tmp_path / "in" / "a.jsonl", {"id": 1, "v": "a"})
    wait_until((tmp_path / "begun").exists, running=process)
    with (tmp_path / "in" / "a.jsonl").open("a") as file:
        file.write('\n{"id": 2, "v": "b"}\n')
    (tmp_path / "go").touch()
    process.wait_for_rows([(1, "a")])
    other = tmp_path / "in" / "other.json"
    put(other, {"id": 3, "v": "c"})
    wait_until(lambda: names(tmp_path / "in") == ["a.jsonl"], running=process)
    changed = "it has changed since rows of it were added"
    wait_until(lambda: changed in text(tmp_path / "log.txt"), running=process)
    assert process.end()[0] == 143
    assert rows(tmp_path, ROWS) == [(1, "a"), (3, "c")]


def test_a_file_that_cannot_be_put_away_is_no_new_one_when_it_changes(tmp_path, watch):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "sub").touch()  # in the way of the folder
    (tmp_path / "in" / "sub").mkdir()
    process = watch("--move-done", "done", to=KEYLESS)
    file = tmp_path / "in" / "sub" / "a.jsonl"
    put(file, {"id": 1, "v": "a"})
    process.wait_for("cannot put away in/sub/a.jsonl")
    put(file, {"id": 1, "v": "a"}, {"id": 2, "v": "b"})
    put(tmp_path / "in" / "b.json", {"id": 3, "v": "c"})
    process.wait_for_rows([(1, "a"), (3, "c")])
    wait_until(lambda: names(tmp_path / "in") == ["sub/a.jsonl"], running=process)
    process.end()
    assert rows(tmp_path, ROWS) == [(1, "a"), (3, "c")]


def test_a_file_that_is_renamed_while_it_is_read(tmp_path, watch):
    """The new name is of a file whose rows will be in the table."""
    (tmp_path / "slow.py").write_text(SLOW)
    process = watch("--call", "slow.py:slow", "--log-file", "log.txt", to=KEYLESS)
    put(tmp_path / "in" / "a.json", {"id": 1, "v": "a"})
    wait_until((tmp_path / "begun").exists, running=process)
    (tmp_path / "in" / "a.json").rename(tmp_path / "in" / "b.json")
    put(tmp_path / "in" / "c.json", {"id": 2, "v": "other"})
    (tmp_path / "go").touch()
    process.wait_for_rows([(1, "a"), (2, "other")])
    renamed = "it seems to be in/a.json under another name"
    wait_until(lambda: renamed in text(tmp_path / "log.txt"), running=process)
    assert process.end()[0] == 143
    assert rows(tmp_path, ROWS) == [(1, "a"), (2, "other")]


def test_equal_contents_under_one_name_are_new_files_once_the_earlier_is_away(tmp_path, watch):
    process = watch("--delete-done", "--identity", "content", to=KEYLESS)
    for number in range(1, 4):
        put(tmp_path / "in" / "a.json", {"id": 1, "v": "alive"})
        process.wait_for_rows([(1, "alive")] * number)
        wait_until(lambda: not names(tmp_path / "in"), running=process)
    assert process.end()[0] == 143


def test_a_change_of_the_mode_is_no_rename(tmp_path, watch):
    """Notifications tell the renames: a file that is written in place must settle."""
    process = watch("--settle", "3", to=KEYLESS)
    put(tmp_path / "in" / "first.json", {"id": 0, "v": "renamed"})
    process.wait_for_rows([(0, "renamed")])  # notifications come
    path = tmp_path / "in" / "a.jsonl"
    with path.open("w") as file:
        file.write('{"id": 1, "v": "a"}\n')
        file.flush()
        wait_until(lambda: time.time_ns() - path.stat().st_mtime_ns > 20_000_000, running=process)
        path.chmod(0o640)
        put(tmp_path / "in" / "other.json", {"id": 9, "v": "renamed"})
        process.wait_for_rows([(0, "renamed"), (9, "renamed")])
        file.write('{"id": 2, "v": "b"}\n')
    process.wait_for_rows([(0, "renamed"), (1, "a"), (2, "b"), (9, "renamed")])
    assert process.end()[0] == 143


def test_links_are_moved_themselves(tmp_path, watch):
    """Also a relative link, which leads nowhere from its new place."""
    (tmp_path / "real").mkdir()
    put(tmp_path / "real" / "a.json", {"id": 1, "v": "a"})
    (tmp_path / "in" / "a.json").symlink_to("../real/a.json")
    (tmp_path / "in" / "a.json.done").touch()
    process = watch("--marker", ".done", "--move-done", "x/y/done")
    moved = tmp_path / "x" / "y" / "done" / "a.json"
    wait_until(moved.is_symlink, running=process)
    wait_until(lambda: not names(tmp_path / "in"), running=process)
    assert process.end()[0] == 143
    assert rows(tmp_path, ROWS) == [(1, "a")]
    assert (tmp_path / "real" / "a.json").exists()


def test_a_file_with_the_longest_name_is_deleted(tmp_path, watch):
    process = watch("--delete-done")
    name = "x" * 250 + ".json"
    with (tmp_path / "in" / name).open("w") as file:
        file.write('{"id": 1, "v": "a"}')
    process.wait_for_rows([(1, "a")])
    wait_until(lambda: not os.listdir(tmp_path / "in"), running=process)
