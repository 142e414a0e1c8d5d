"""Streams that are killed at random instants and gone on with, against one nobody disturbed.

`python -m tests.chaos.streams --kills 200` prints, for each target and kind of windows, kills,
starts, and lines and rows that were lost, doubled or wrong.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from tests.chaos.files import server
from tests.commands import CommandProcess

FUNCTION = """\
import time

def work(event):
    time.sleep(0.00005)
    if event["v"] == 13:
        raise ValueError("bad luck")
    return event
"""
_POSTGRES = "postgresql://"
TARGETS = {
    "sqlite": ("sqlite:///out.db", "--table", "windows"),
    "postgres": (_POSTGRES, "--table", "windows"),
    "duckdb": ("duckdb:///out.duckdb", "--table", "windows"),
    "jsonl": ("out.jsonl",),
    "jsonl.gz": ("out.jsonl.gz",),
    "csv": ("out.csv",),
}
WINDOWS = {
    "tumbling": ("--window", "tumbling:1s"),
    "hopping": ("--window", "hopping:2s/500ms"),
    "session": ("--window", "session:40ms"),
}
WAYS: dict[str, tuple[str, ...]] = {
    "fast": (),
    "called": ("--call", "slow.py:work"),
}
"""What is done to events: nothing, which workers help with; or something slow."""
_AGGREGATES = ("count", "sum:v", "avg:v", "min:v", "max:v", "stddev:v", "p95:v", "distinct:u")
HOWS = ("group", "group", "parent", "stop")
"""Who is killed: all processes, the command; or it is asked to stop."""
SERVER_HOWS = (*HOWS, "server")
"""The same of a target that is a server, which may be killed itself, and comes back."""
_DATABASES = count()
_PATIENCE = 300


class Outcome(NamedTuple):
    """What became of one target."""

    kills: int
    starts: int
    wrong: int


def make_input(path: Path, events: int, pick: random.Random) -> None:
    """Write events out of order, some of them too late, and lines that are none."""
    second = 0.0
    with path.open("w") as file:
        for number in range(events):
            second += pick.expovariate(400)
            time_ = second - pick.random() * 0.2
            if number % 997 == 0:
                time_ = max(0.0, second - 30)
            if number % 1499 == 7:
                file.write('{"t": oops\n')
            event = {
                "t": 1_767_225_600_000_000 + int(time_ * 1e6),
                "k": pick.choice(["a", "b", "c d", 7]),
                "u": pick.randrange(5000),
                "v": pick.choice([pick.randrange(100), pick.random() * 1e6, -0.5, 0.1, 10**19]),
            }
            file.write(json.dumps(event) + "\n")


class Case:
    """One target and kind of windows, in a folder of its own."""

    def __init__(self, place: Path, source: Path, target: str, window: str, way: str) -> None:
        self.place = place
        place.mkdir()
        (place / "slow.py").write_text(FUNCTION)
        to = TARGETS[target]
        if to[0] == _POSTGRES:
            name = f"s{next(_DATABASES)}"
            server().execute(f"CREATE DATABASE {name}")
            (place / "out.database").write_text(name)
            to = (server().url(name), *to[1:])
        self._arguments = [
            str(source), *WINDOWS[window], *WAYS[way], "--to", *to, "--time", "t", "--by", "k",
            *(f"--agg={one}" for one in _AGGREGATES), "--lateness", "150ms",
            "--late", "late.jsonl", "--dead-letter", "bad.jsonl", "--workers", "1",
        ]  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the stream in a process group of its own."""
        return CommandProcess(
            ["stream", *self._arguments, *more],
            cwd=self.place,
            env=os.environ | {"XDG_STATE_HOME": str(self.place / "state")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def found(self) -> dict[str, Counter[object]]:
        """Return all that was written: rows in any order, lines with their numbers."""
        found = {name: _lines((self.place / name).read_bytes()) for name in _SIDES}
        found["rows"] = Counter(self._rows())
        return found

    def _rows(self) -> list[object]:
        place = self.place
        query = "SELECT * FROM windows"
        if (place / "out.database").exists():
            name = (place / "out.database").read_text()
            return [_by_name(row) for row in server().rows(query, name)]
        if (place / "out.db").exists():
            with closing(sqlite3.connect(place / "out.db")) as database:
                database.row_factory = sqlite3.Row
                return [_by_name(dict(row)) for row in database.execute(query)]
        if (place / "out.duckdb").exists():
            with importlib.import_module("duckdb").connect(str(place / "out.duckdb")) as database:
                rows = database.execute(query)
                names = [column[0] for column in rows.description]
                return [_by_name(dict(zip(names, row, strict=True))) for row in rows.fetchall()]
        [path] = place.glob("out.*")
        data = path.read_bytes()
        return list(_lines(gzip.decompress(data) if path.suffix == ".gz" else data).elements())


_SIDES = ("late.jsonl", "bad.jsonl")


def _by_name(row: dict[str, object]) -> object:
    """Return a row of a table whose columns may come in any order, and be of integers or reals."""
    return tuple(sorted(row.items()))


def _lines(data: bytes) -> Counter[object]:
    return Counter(f"{number} {line!r}" for number, line in enumerate(data.split(b"\n")))


def disturb(run: subprocess.Popen[bytes], how: str, delay: float) -> bool:
    """Let a stream go on for `delay` seconds, then end it; return whether it still ran."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(delay)
        return False
    if how == "group":
        os.killpg(run.pid, signal.SIGKILL)
    elif how == "parent":
        run.kill()
    elif how == "server":
        server().crash()
        server().start()
    else:
        run.terminate()
    return True


def torment(
    place: Path, source: Path, names: tuple[str, str, str], kills: int, pick: random.Random
) -> Outcome:
    """End streams until `kills` were, each time until one comes to its end."""
    whole = Case(place / "undisturbed", source, *names)
    began = time.monotonic()
    run = whole.start()
    _, errors = run.communicate(timeout=_PATIENCE)
    assert run.returncode == 0, errors.decode()
    takes = time.monotonic() - began
    expected = whole.found()
    done = starts = wrong = attempt = 0
    while done < kills:
        attempt += 1
        case = Case(place / str(attempt), source, *names)
        is_over = False
        while not is_over:
            run = case.start("--checkpoint", "c.json", "--checkpoint-every", "20ms")
            starts += 1
            delay = pick.uniform(takes * 0.2, takes * 1.1)
            hows = SERVER_HOWS if names[0] == "postgres" else HOWS
            disturbed = done < kills and disturb(run, pick.choice(hows), delay)
            done += disturbed
            _, errors = run.communicate(timeout=_PATIENCE)
            # Before its handlers are there, it ends as any program does.
            fine = (0, -signal.SIGKILL, -signal.SIGTERM, 143)
            was_away = run.returncode == 2 and b"cannot use postgresql://" in errors
            assert run.returncode in fine or was_away, errors.decode()
            is_over = run.returncode == 0 and b"Processed" in errors
        found = case.found()
        for name, wanted in expected.items():
            wrong += (wanted - found[name]).total() + (found[name] - wanted).total()
        if not wrong:
            shutil.rmtree(case.place)
    return Outcome(done, starts, wrong)


def main() -> int:
    """Torment every target with every kind of windows; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all, spread over the cases")
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    print(f"{'target':10} {'windows':10} {'way':8} {'kills':>6} {'starts':>7} {'wrong':>6}")
    pick = random.Random(options.seed)
    cases = [(target, window, way) for target in options.only for window in WINDOWS for way in WAYS]
    total = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for number, names in enumerate(cases):
            place = Path(folder, str(number))
            place.mkdir()
            source = place / "events.jsonl"
            make_input(source, options.events if names[2] == "fast" else 6000, pick)
            outcome = torment(place, source, names, -(-options.kills // len(cases)), pick)
            total.update(outcome._asdict())
            target, window, way = names
            print(
                f"{target:10} {window:10} {way:8} {outcome.kills:6} {outcome.starts:7}"
                f" {outcome.wrong:6}",
                flush=True,
            )
            shutil.rmtree(place)
    print(f"{'all':30} {total['kills']:6} {total['starts']:7} {total['wrong']:6}")
    return int(bool(total["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
