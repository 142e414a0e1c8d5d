"""The lag of an event loop while the API of asyncbatch works in it."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import filesets, goals
from benchmarks.measure import CommandError, measure
from benchmarks.races import peer
from benchmarks.tables import print_table

if TYPE_CHECKING:
    from benchmarks.setting import Setting


def watch_loop(setting: Setting) -> None:
    """Print the delay of timers while `process_files` reads the mixed corpus."""
    corpus = filesets.mixed(setting)
    command = [setting.asyncbatch_python, *peer("loop_lag", corpus.path)[1:]]
    rounds = [json.loads(measure(command).output) for _ in range(setting.rounds)]
    if any(lag["records"] != corpus.records for lag in rounds):
        raise CommandError(f"process_files did not count {corpus.records:,} records")
    p50, p99, most = (median(lag[key] for lag in rounds) for key in ("p50", "p99", "max"))
    print(f"{corpus}; medians of {setting.rounds} rounds")
    cells = setting.results.add(goals.LAG, "log-normal sizes", p99)
    row = ["process_files", f"{p50:.2f}", f"{p99:.2f}", f"{most:.2f}", *cells]
    print_table(("event loop's lag", "p50 ms", "p99 ms", "max ms", "goal (p99)", ""), [row])
