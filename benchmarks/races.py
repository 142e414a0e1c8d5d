"""Races: asyncbatch first, then peers at the same work, in turn, their results checked."""

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
    """A command at a corpus; a slow one's corpus may be a part of the others', its rounds fewer.

    `check` gets what it printed and raises CommandError if the result is not the right one.
    `goal` bounds asyncbatch's speed divided by this one's. `clock` may say that another time
    counts than the whole process's. `needs` is a program that has to be there.
    """

    name: str
    corpus: Corpus
    command: Sequence[str]
    check: Callable[[bytes], object]
    goal: Goal | None = None
    rounds: int | None = None
    clock: Callable[[Outcome], float] = lambda outcome: outcome.seconds
    needs: str = sys.executable

    def missing(self) -> bool:
        """Whether the program it needs is not installed."""
        return shutil.which(self.needs) is None


class Agreement:
    """Checks a number that no one knows beforehand: the first that comes is all others' too."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._first: int | None = None

    def check(self, number: int) -> None:
        """Raise CommandError if the number is none, or another than the first."""
        self._first = number if self._first is None else self._first
        if number != self._first or not number:
            raise CommandError(f"{number:,} {self._what}, where the first had {self._first:,}")


def race(setting: Setting, racers: Sequence[Racer]) -> None:
    """Watch the first racer, asyncbatch, once for memory; then time all in turn.

    What commands write goes into the setting's output folder, emptied before each.
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
        taken = times[racer.name]
        seconds = median(taken)
        rate = racer.corpus.records / seconds
        rows.append(
            [
                _label(racer, ours.corpus),
                f"{seconds:.2f}",
                f"{min(taken):.2f}-{max(taken):.2f}",
                f"{len(taken)}",
                f"{rate:,.0f}",
                f"{racer.corpus.bytes / seconds / 1e6:,.1f}",
                f"{our_rate / rate:.2f}x",
                *(racer.goal.cells(our_rate / rate) if racer.goal else ("", "")),
            ]
        )
    print_table(HEADER, rows)
    print_memory(watched.peak_bytes, MEMORY_GOAL)


def shell(script: str) -> list[str]:
    """Return the command for a script of the shell."""
    return ["sh", "-c", script]


def in_order(folder: str) -> str:
    """Return the part of a script that lists a folder's files, each ended by NUL, in order."""
    return f"find {shlex.quote(folder)} -name '*.json' -print0 | sort -z"


def _label(racer: Racer, whole: Corpus) -> str:
    """Say if a racer has only a part of the work: its speed is for that part."""
    if racer.corpus == whole:
        return racer.name
    return f"{racer.name} (of {racer.corpus.records:,} records only)"
