"""Races of asyncbatch and its peers on the same work, with checked results."""

from __future__ import annotations

import shlex
import shutil
import sys
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.goals import Goal
from benchmarks.measure import CommandError, Outcome, interleave, measure
from benchmarks.tables import print_memory, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

MEMORY_GOAL = Goal("<=", 300, " MB")
HEADER = ("", "median s", "range s", "rounds", "records/s", "MB/s", "ratio", "goal", "")


class Racer(NamedTuple):
    """A command for a corpus. A slow racer may have fewer rounds and a part of the corpus."""

    name: str
    corpus: Corpus
    command: Sequence[str]
    check: Callable[[bytes], object]  # gets the output; raises CommandError if it is wrong
    goal: Goal | None = None  # for the speed of asyncbatch divided by that of this racer
    rounds: int | None = None  # None means all rounds
    clock: Callable[[Outcome], float] = lambda outcome: outcome.seconds  # returns the time to count
    needs: str = sys.executable  # a program that must be installed

    def missing(self) -> bool:
        """Whether the program `needs` is not installed."""
        return shutil.which(self.needs) is None


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


def race(setting: Setting, racers: Sequence[Racer]) -> None:
    """Measure the memory of the first racer, asyncbatch, once. Then time all in turn.

    Commands write into the output folder of the setting, which is emptied before each command.
    """
    present = {racer.name: racer for racer in racers if not racer.missing()}
    ours = racers[0]
    setting.clear_output()
    watched = measure(ours.command, memory=True)
    ours.check(watched.output)
    times = interleave(
        {name: racer.command for name, racer in present.items()},
        setting.rounds,
        before=setting.clear_output,
        check=lambda name, output: present[name].check(output),
        clock=lambda name, outcome: present[name].clock(outcome),
        fewer={name: racer.rounds for name, racer in present.items() if racer.rounds},
    )
    setting.clear_output()
    our_rate = ours.corpus.records / median(times[ours.name])
    print(f"{ours.corpus}; contenders in turn; every result agrees")
    rows = []
    for racer in racers:
        if racer.missing():
            rows.append([racer.name, f"left out: {racer.needs} is not installed"])
            continue
        durations = times[racer.name]
        seconds = median(durations)
        rate = racer.corpus.records / seconds
        rows.append(
            [
                _label(racer, ours.corpus),
                f"{seconds:.2f}",
                f"{min(durations):.2f}-{max(durations):.2f}",
                f"{len(durations)}",
                f"{rate:,.0f}",
                f"{racer.corpus.bytes / seconds / 1e6:,.1f}",
                f"{our_rate / rate:.2f}x",
                *(racer.goal.cells(our_rate / rate) if racer.goal else ("", "")),
            ]
        )
    print_table(HEADER, rows)
    print_memory(watched.peak_bytes, MEMORY_GOAL)


def shell(script: str) -> list[str]:
    """Return the command that runs a shell script."""
    return ["sh", "-c", script]


def in_order(folder: str) -> str:
    """Return a shell command that lists the files of a folder in order, ended by NUL."""
    return f"find {shlex.quote(folder)} -name '*.json' -print0 | sort -z"


def _label(racer: Racer, whole: Corpus) -> str:
    """Return the name of a racer, with a note if it has only a part of the corpus."""
    if racer.corpus == whole:
        return racer.name
    return f"{racer.name} (of {racer.corpus.records:,} records only)"
