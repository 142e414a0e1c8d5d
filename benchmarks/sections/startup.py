"""The start-up time of commands."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.measure import interleave
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.setting import Setting

ROUNDS, QUICK_ROUNDS = 11, 3
IMPORTS = "import typer, rich.console"


def start(setting: Setting) -> None:
    """Compare with the imports of typer and rich alone."""
    rounds = setting.size(ROUNDS, QUICK_ROUNDS)
    asyncbatch = setting.asyncbatch
    commands = {
        IMPORTS: [setting.asyncbatch_python, "-c", IMPORTS],
        "asyncbatch --version": [asyncbatch, "--version"],
        "asyncbatch --help": [asyncbatch, "--help"],
        "asyncbatch run --help": [asyncbatch, "run", "--help"],
        "asyncbatch run, ten files": [asyncbatch, "run", *filesets.tiny(setting).some_files(10)],
    }
    rows_of = {
        "asyncbatch --version": goals.START_VERSION,
        "asyncbatch --help": goals.START_HELP,
        "asyncbatch run --help": goals.START_RUN_HELP,
        "asyncbatch run, ten files": goals.START_TEN,
    }
    times = interleave(commands, rounds)
    base = median(times[IMPORTS])
    rows = []
    for name, taken in times.items():
        seconds, ratio = median(taken), median(taken) / base
        verdict = ("", "")
        if (goal := rows_of.get(name)) is not None:
            value = ratio if goal.goal.unit == "x" else seconds
            verdict = setting.results.add(goal, "start-up", value)
        rows.append([name, f"{seconds:.3f}", f"{ratio:.2f}x", *verdict])
    print(f"{rounds} rounds")
    print_table(("", "median s", "/imports", "goal", ""), rows)
