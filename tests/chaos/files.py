"""Runs that are killed at random instants and carried on, against one that nobody disturbed.

`python -m tests.chaos.files --kills 200` prints, for each target, the kills, the resumes, and
the lost and doubled rows.
"""

from __future__ import annotations

import argparse
import atexit
import csv
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
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tests.commands import CommandProcess
from tests.servers.postgres import PostgresServer

FUNCTION = """\
import time

def work(record):
    time.sleep(0.0002)
    if record["id"] % 97 == 0:
        raise ValueError("no such number")
    return {"id": record["id"], "name": record["name"].title(), "tags": record["tags"]}
"""
_POSTGRES = "postgresql://"
"""Stands for the address of a database of each case's own."""
TARGETS = {
    "sqlite": ("sqlite:///out.db", "--table", "people"),
    "sqlite upsert": ("sqlite:///out.db", "--table", "people", "--key", "id"),
    "sqlite replace": (
        *("sqlite:///out.db", "--table", "people", "--mode", "replace"),
        *("--max-failures", "100%"),
    ),
    "duckdb": ("duckdb:///out.duckdb", "--table", "people"),
    "jsonl": ("out.jsonl",),
    "jsonl.gz": ("out.jsonl.gz",),
    "csv": ("out.csv",),
    "folder": ("out/",),
    "parquet": ("out.parquet",),
    "postgres": (_POSTGRES, "--table", "people"),
    "postgres upsert": (_POSTGRES, "--table", "people", "--key", "id"),
    "postgres replace": (
        *(_POSTGRES, "--table", "people", "--mode", "replace"),
        *("--max-failures", "100%"),
    ),
}
HOWS = ("group", "parent", "worker", "term")
"""Who is killed: all processes, the command, a worker; or the command is asked to stop."""
SERVER_HOWS = (*HOWS, "server", "server")
"""The same of a target that is a server, which may be killed itself, and comes back."""
_UNUSABLE = 2
_NUMBERS = count()
_MOST_SECONDS = 2.5
_PATIENCE = 300


class Outcome(NamedTuple):
    """What became of one target."""

    kills: int
    resumes: int
    lost: int
    doubled: int


def make_inputs(folder: Path, files: int, pick: random.Random) -> None:
    """Write arrays, lines, compressed lines; some records and one file are bad."""
    number = 0
    for file in range(files):
        records = []
        for _ in range(pick.randint(1, 120)):
            number += 1
            records.append({"id": number, "name": f"ada {number}", "tags": [file, None, 1.5]})
        path = folder / f"{file % 7}" / f"{file:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        if file % 5 == 0:
            path.with_suffix(".jsonl").write_text(lines)
        elif file % 11 == 0:
            path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
        else:
            path.with_suffix(".json").write_text(json.dumps(records))
    (folder / "3" / "bad.json").write_text('[{"id": 1}, ')


@cache
def server() -> PostgresServer:
    """Return the one PostgreSQL server, which ends with this process."""
    found = PostgresServer()
    atexit.register(found.close)
    return found


def rows(place: Path) -> Counter[str]:
    """Return all rows that a target has, as texts."""
    found: Counter[str] = Counter()
    if (place / "out.database").exists():
        name = (place / "out.database").read_text()
        found.update(map(repr, server().execute("SELECT * FROM people", name)))
    if (place / "out.db").exists():
        with closing(sqlite3.connect(place / "out.db")) as database:
            found.update(map(repr, database.execute("SELECT * FROM people")))
    if (place / "out.duckdb").exists():
        with importlib.import_module("duckdb").connect(str(place / "out.duckdb")) as database:
            found.update(map(repr, database.execute("SELECT * FROM people").fetchall()))
    for name, opened in (("out.jsonl", open), ("out.jsonl.gz", gzip.open)):
        if (place / name).exists():
            with opened(place / name, "rt") as lines:
                found.update(f"{number} {line}" for number, line in enumerate(lines))
    if (place / "out.csv").exists():
        with (place / "out.csv").open(newline="") as lines:
            found.update(f"{number} {row}" for number, row in enumerate(csv.reader(lines)))
    if (place / "out.parquet").exists():
        table = importlib.import_module("pyarrow.parquet").read_table(place / "out.parquet")
        found.update(f"{number} {row}" for number, row in enumerate(table.to_pylist()))
    for path in sorted((place / "out").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            text = gzip.decompress(content) if path.suffix == ".gz" else content
            found[f"{path.relative_to(place)} {text.decode()}"] += 1
    return found


def letters(place: Path) -> Counter[str]:
    """Return what the dead letter file has."""
    return Counter((place / "bad.jsonl").read_text().splitlines())


class Case:
    """One target, in a folder of its own with inputs and a ledger of its own."""

    def __init__(self, place: Path, inputs: Path, target: tuple[str, ...]) -> None:
        self.place, self._inputs = place, inputs
        self._target = target
        self.hows: tuple[str, ...] = HOWS
        place.mkdir()
        if target[0] == _POSTGRES:
            self.hows = SERVER_HOWS
            name = f"d{next(_NUMBERS)}"
            server().execute(f"CREATE DATABASE {name}")
            (place / "out.database").write_text(name)
            self._target = (server().url(name), *target[1:])
        (place / "clean.py").write_text(FUNCTION)

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own."""
        options = ("--call", "clean.py:work", "--to", *self._target, "--dead-letter", "bad.jsonl")
        return CommandProcess(
            ["run", str(self._inputs), *options, "-w", "2", "--output", "json", *more],
            cwd=self.place,
            env=os.environ | {"XDG_STATE_HOME": str(self.place / "state")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def undisturbed(self) -> tuple[Counter[str], Counter[str]]:
        """Run to the end; return the rows and the dead letters."""
        run = self.start()
        _, errors = run.communicate(timeout=_PATIENCE)
        assert run.returncode in (0, 1), errors.decode()
        return rows(self.place), letters(self.place)


def disturb(run: subprocess.Popen[bytes], how: str, delay: float) -> bool:
    """Let a run go on for `delay` seconds, then kill it; return whether it still ran."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(delay)
        return False
    if how == "group":
        os.killpg(run.pid, signal.SIGKILL)
    elif how == "parent":
        run.kill()
    elif how == "term":
        run.terminate()
    elif how == "server":
        server().crash()
        server().start()
    else:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        for child in children[:1]:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
    return True


def ended(run: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """Wait for the end of a run; return its report if it came to its end."""
    output, errors = run.communicate(timeout=_PATIENCE)
    if run.returncode == _UNUSABLE and b"cannot use postgresql://" in errors:
        return None  # it was away when the run began
    if run.returncode not in (0, 1):
        # Before its handlers are there, it ends as any program does.
        assert run.returncode in (-signal.SIGKILL, -signal.SIGTERM, 143), errors.decode()
        return None
    assert output, errors.decode()
    report: dict[str, Any] = json.loads(output)
    return report


def is_complete(report: dict[str, Any] | None) -> bool:
    """Whether a run came to its end, and only what is bad in itself has failed."""
    if report is None:
        return False
    return all(failure["kind"] not in ("worker_crash", "sink") for failure in report["failures"])


def torment(
    target: tuple[str, ...],
    folder: Path,
    inputs: Path,
    kills: int,
    *,
    pick: random.Random,
    most_seconds: float = _MOST_SECONDS,
) -> Outcome:
    """Kill runs into one target until `kills` have been, each time until one completes."""
    expected = Case(folder / "undisturbed", inputs, target).undisturbed()
    done = resumes = lost = doubled = attempt = 0
    while done < kills:
        attempt += 1
        case = Case(folder / str(attempt), inputs, target)
        report, more = None, ("--resume",)
        while not is_complete(report):
            run = case.start(*more)
            how, delay = pick.choice(case.hows), pick.uniform(0, most_seconds)
            if done < kills and disturb(run, how, delay):
                done += 1
            report = ended(run)
            resumes += 1
        for found, wanted in zip((rows(case.place), letters(case.place)), expected, strict=True):
            lost += (wanted - found).total()
            doubled += (found - wanted).total()
        shutil.rmtree(case.place)
    return Outcome(done, resumes, lost, doubled)


def main() -> int:
    """Torment every target; return 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all, spread over the targets")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    print(f"{'target':15} {'kills':>6} {'resumes':>8} {'lost':>6} {'doubled':>8}")
    pick = random.Random(options.seed)
    total = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs")
        make_inputs(inputs, options.files, pick)
        for number, name in enumerate(options.only):
            place = Path(folder, str(number))
            place.mkdir()
            kills = -(-options.kills // len(options.only))
            outcome = torment(TARGETS[name], place, inputs, kills, pick=pick)
            total.update(outcome._asdict())
            print(
                f"{name:15} {outcome.kills:6} {outcome.resumes:8} {outcome.lost:6}"
                f" {outcome.doubled:8}",
                flush=True,
            )
    print(
        f"{'all':15} {total['kills']:6} {total['resumes']:8} {total['lost']:6} {total['doubled']:8}"
    )
    return int(bool(total["lost"] or total["doubled"]))


if __name__ == "__main__":
    sys.exit(main())
