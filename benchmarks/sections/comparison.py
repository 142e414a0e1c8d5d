"""asyncbatch and its peers on a whole corpus: time, ratio, memory."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks.contenders import LISTS, SUMS, contenders
from benchmarks.goals import Goal
from benchmarks.measure import CommandError, interleave, measure
from benchmarks.tables import print_memory, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.contenders import Contender
    from benchmarks.corpora import Corpus
    from benchmarks.setting import Setting

MIXED_GOALS = {
    "DuckDB": Goal(">=", 2.5, "x"),
    "jq": Goal(">=", 8, "x"),
    "aiofiles": Goal(">=", 10, "x"),
    "floor": Goal(">=", 0.5, "x"),
}
TINY_GOALS = {
    "DuckDB": Goal(">=", 5, "x"),
    "jq": Goal(">=", 3, "x"),
    "aiofiles": Goal(">=", 20, "x"),
}
MEMORY_GOAL = Goal("<=", 250, " MB")
HEADER = ("", "median s", "range s", "MB/s", "files/s", "/run", "/jsonl", "goal", "", "peak MB")


def compare_mixed(setting: Setting) -> None:
    """Compare on the corpus of many sizes."""
    _compare(setting, setting.mixed, MIXED_GOALS)


def compare_tiny(setting: Setting) -> None:
    """Compare on the corpus of many tiny files."""
    _compare(setting, setting.tiny, TINY_GOALS)


def _compare(setting: Setting, corpus: Corpus, goals: Mapping[str, Goal]) -> None:
    """Measure the memory of each contender once. Then time them in turn."""
    everyone = contenders(setting.asyncbatch)
    present = {contender.name: contender for contender in everyone if not contender.missing()}
    commands = {name: contender.command(corpus.folder) for name, contender in present.items()}
    peaks = {name: measure(command, memory=True).peak_bytes for name, command in commands.items()}
    times = interleave(
        commands,
        setting.rounds,
        check=lambda name, output: _check(present[name], corpus, output),
    )
    medians = {name: median(seconds) for name, seconds in times.items()}
    print(f"{corpus}; {setting.rounds} rounds, peers in turn; every total agrees")
    rows = []
    for contender in everyone:
        name = contender.name
        if contender.missing():
            rows.append([name, f"left out: {contender.needs} is not installed"])
            continue
        seconds = medians[name]
        goal = next((goals[key] for key in goals if name.startswith(key)), None)
        rows.append(
            [
                name,
                f"{seconds:.2f}",
                f"{min(times[name]):.2f}-{max(times[name]):.2f}",
                f"{corpus.bytes / seconds / 1e6:,.0f}",
                f"{corpus.files / seconds:,.0f}",
                f"{seconds / medians[SUMS]:.2f}x",
                f"{seconds / medians[LISTS]:.2f}x",
                *(goal.cells(seconds / medians[contender.rival]) if goal else ("", "")),
                f"{peaks[name] / 1e6:,.0f}",
            ]
        )
    print_table(HEADER, rows)
    print_memory(max(peaks[SUMS], peaks[LISTS]), MEMORY_GOAL)


def _check(contender: Contender, corpus: Corpus, output: bytes) -> None:
    """Raise CommandError if a contender has a wrong count."""
    total = contender.total(output)
    if total != corpus.records:
        raise CommandError(f"{contender.name} counted {total:,} records, not {corpus.records:,}")
