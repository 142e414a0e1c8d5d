"""The start-up time of commands."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks.goals import Goal
from benchmarks.measure import interleave
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.setting import Setting

ROUNDS, QUICK_ROUNDS = 11, 3
IMPORTS = "import typer, rich.console"


def start(setting: Setting) -> None:
    """Compare with the imports of typer and rich alone."""
    rounds = QUICK_ROUNDS if setting.quick else ROUNDS
    asyncbatch = setting.asyncbatch
    commands = {
        IMPORTS: [setting.asyncbatch_python, "-c", IMPORTS],
        "asyncbatch --version": [asyncbatch, "--version"],
        "asyncbatch --help": [asyncbatch, "--help"],
        "asyncbatch run --help": [asyncbatch, "run", "--help"],
        "asyncbatch run, ten files": [asyncbatch, "run", *setting.tiny.some_files(10)],
    }
    goals = {
        "asyncbatch --version": Goal("<=", 1.5, "x"),
        "asyncbatch --help": Goal("<=", 1.5, "x"),
        "asyncbatch run --help": Goal("<=", 2.5, "x"),
        "asyncbatch run, ten files": Goal("<=", 0.3, " s"),
    }
    times = interleave(commands, rounds)
    base = median(times[IMPORTS])
    rows = []
    for name, taken in times.items():
        seconds, ratio = median(taken), median(taken) / base
        goal = goals.get(name)
        verdict = goal.cells(ratio if goal.unit == "x" else seconds) if goal else ("", "")
        rows.append([name, f"{seconds:.3f}", f"{ratio:.2f}x", *verdict])
    print(f"{rounds} rounds")
    print_table(("", "median s", "/imports", "goal", ""), rows)
