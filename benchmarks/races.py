"""Races of asyncbatch and its peers on the same work, with checked results."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.goals import MEMORY, Row
from benchmarks.measure import CommandError, Outcome, interleave, measure
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

CPUS = len(os.sched_getaffinity(0))
JQ_FILES = 500  # files per jq process, enough to make its start-up time small
HEADER = (
    *("", "median s", "range s", "rounds", "records/s", "MB/s", "peak MB", "ratio"),
    *("goal", ""),
)


class Racer(NamedTuple):
    """A command for a corpus. A slow racer may have fewer rounds and a part of the corpus."""

    name: str
    command: Sequence[str]
    check: Callable[[bytes], object]  # gets the output; raises CommandError if it is wrong
    row: Row | None = None  # for the speed of asyncbatch divided by that of this racer
    rounds: int | None = None  # None means all rounds
    clock: Callable[[Outcome], float] = lambda outcome: outcome.seconds  # returns the time to count
    needs: str = sys.executable  # a program or a Python module that must be installed
    part: Corpus | None = None  # a smaller corpus than that of the race

    def missing(self) -> bool:
        """Whether the program or module `needs` is not installed."""
        return shutil.which(self.needs) is None and (
            "/" in self.needs or find_spec(self.needs) is None
        )


class Agreement:
    """A check that all racers find the same number, which is unknown before the race."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._first: int | None = None

    def check(self, number: int) -> None:
        """Raise CommandError if the number is 0, or differs from the first number."""
        self._first = number if self._first is None else self._first
        if number != self._first or not number:
            raise CommandError(f"{number:,} {self._what}, where the first had {self._first:,}")


def race(
    setting: Setting,
    shape: str,
    corpus: Corpus,
    racers: Sequence[Racer],
    memory: Row = MEMORY,
) -> dict[str, int]:
    """Measure the memory of each racer once. Then time all in turn. Return the peaks in bytes.

    The first racer is asyncbatch, and so are all with that name. The racer whose name starts with
    "floor" tells how near any program can come to the goals of the others. A slow racer, with fewer
    rounds, is not measured for memory. A peer that fails is named in the table and in the results.
    Commands write into the output folder of the setting, which is emptied before each command.
    """
    ours, results = racers[0], setting.results
    present = {racer.name: racer for racer in racers if not racer.missing()}
    failures: dict[str, str] = {}
    peers = {name for name in present if not name.startswith("asyncbatch")}
    peaks: dict[str, int] = {}

    def check(name: str, output: bytes) -> None:
        try:
            present[name].check(output)
        except (ValueError, LookupError, OSError) as error:
            raise CommandError(f"an unexpected result: {error!r}") from error

    for name, racer in present.items():
        if racer.rounds is None:
            setting.clear_output()
            try:
                watched = measure(racer.command, memory=True)
                check(name, watched.output)
                peaks[name] = watched.peak_bytes
            except CommandError as error:
                if name not in peers:
                    raise
                failures[name] = str(error)
    times = interleave(
        {name: racer.command for name, racer in present.items()},
        setting.rounds,
        before=setting.clear_output,
        check=check,
        clock=lambda name, outcome: present[name].clock(outcome),
        fewer={name: racer.rounds for name, racer in present.items() if racer.rounds},
        failures=failures,
        spared=peers,
    )
    setting.clear_output()
    print(f"{shape}: {corpus}; contenders in turn; every result is checked")
    our_rate = corpus.records / median(times[ours.name])
    floors = [name for name in times if name.startswith("floor") and times[name]]
    floor_rate = corpus.records / median(times[floors[0]]) if floors else None
    rows = []
    for racer in racers:
        if racer.missing() or racer.name in failures:
            failure = failures.get(racer.name, f"{racer.needs} is not installed").strip()
            results.leave_out(racer.name, shape, failure)
            rows.append([racer.name, f"left out: {failure[-200:]}"])
        else:
            figures = _figures(racer, racer.part or corpus, times[racer.name])
            peak = peaks.get(racer.name)
            rate = figures.rate
            floor = floor_rate / rate if floor_rate and racer.name not in floors else None
            verdict = results.add(racer.row, shape, our_rate / rate, floor) if racer.row else ()
            rows.append(
                [
                    *figures.cells,
                    f"{peak / 1e6:,.0f}" if peak else "",
                    f"{our_rate / rate:.2f}x",
                    *(verdict or ("", "")),
                ]
            )
    print_table(HEADER, rows)
    results.add(memory, shape, peaks[ours.name] / 1e6)
    told = [{"name": name, "s": times[name], "peak_bytes": peaks.get(name)} for name in present]
    results.add_race(shape, told)
    return peaks


class _Figures(NamedTuple):
    """The first cells of a row, and the speed in records/s."""

    cells: list[str]
    rate: float


def _figures(racer: Racer, corpus: Corpus, durations: list[float]) -> _Figures:
    seconds = median(durations)
    rate = corpus.records / seconds
    cells = [
        racer.name + (f" (of {corpus.records:,} records only)" if racer.part else ""),
        f"{seconds:.2f}",
        f"{min(durations):.2f}-{max(durations):.2f}",
        f"{len(durations)}",
        f"{rate:,.0f}",
        f"{corpus.bytes / seconds / 1e6:,.1f}",
    ]
    return _Figures(cells, rate)


def expect(records: int, total: Callable[[bytes], int] = int) -> Callable[[bytes], None]:
    """Return a check of the number that `total` reads from the output."""

    def check(output: bytes) -> None:
        if (found := total(output)) != records:
            raise CommandError(f"{found:,} records, not {records:,}")

    return check


def read_total(output: bytes) -> int:
    """Return the number of records in the summary of `asyncbatch run`."""
    found = re.search(rb"^ *records +([\d,]+) read", output, re.MULTILINE)
    return int(found[1].replace(b",", b"")) if found else -1


def inner_seconds(outcome: Outcome) -> float:
    """Return the time that a peer measured itself: that of one step, with data that is ready."""
    seconds: float = json.loads(outcome.output)["seconds"]
    return seconds


def peer(name: str, *arguments: str) -> list[str]:
    """Return the command of a module in peers/."""
    return [sys.executable, "-m", f"benchmarks.peers.{name}", *arguments]


def beside_python(program: str) -> str:
    """Return the path of a program of the environment of the benchmark."""
    return os.path.join(os.path.dirname(sys.executable), program)


def shell(script: str) -> list[str]:
    """Return the command that runs a shell script."""
    return ["sh", "-c", script]


def under_xargs(folder: str, command: Sequence[str]) -> list[str]:
    """Return a shell command that gives the files of a folder to parallel processes."""
    find = f"find {shlex.quote(folder)} -name '*.json' -print0"
    return shell(f"{find} | xargs -0 -P {CPUS} -n {JQ_FILES} {shlex.join(command)}")


def in_order(folder: str) -> str:
    """Return a shell command that lists the files of a folder in order, ended by NUL."""
    return f"find {shlex.quote(folder)} -name '*.json' -print0 | sort -z"
